"""A benchmark on real cells: where the cells are, and a form of a minute on few made-up ones."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

FOLDER = Path(os.environ.get("SCRATIO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def run(
    description: str | None,
    stem: Path,
    file: str,
    analyse: Callable[[ad.AnnData, dict[str, Any]], tuple[pd.DataFrame, Figure]],
    simulate: Callable[[np.random.Generator], ad.AnnData],
) -> None:
    """Analyse real cells and write ``<stem>.csv`` and ``<stem>.png``; with ``--quick`` made-up cells, and nothing.

    Parameters
    ----------
    description
        Help.
    stem
        Path of the results.
    file
        Name of the data set in the folder that the environment variable SCRATIO_DATA names.
    analyse
        From cells and settings of training to a table and a figure.
    simulate
        Cells of the same form.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    if not quick and not (FOLDER / file).exists():
        parser.error(f"{FOLDER / file} not found; set SCRATIO_DATA to the folder that holds it")
    start = time.perf_counter()
    adata = simulate(np.random.default_rng(0)) if quick else ad.read_h5ad(FOLDER / file)
    table, figure = analyse(adata, {"progress_bar": False, **({"max_steps": 20} if quick else {})})
    print(table.round(3).to_string(index=False))
    print(f"{stem.name}: {time.perf_counter() - start:.0f} s", flush=True)
    if not quick:
        stem.parent.mkdir(exist_ok=True)
        table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.5g")
        figure.savefig(stem.with_suffix(".png"), dpi=150)
    plt.close("all")


def frame(x: np.ndarray, obs: dict[str, Any], **others: np.ndarray) -> ad.AnnData:
    """Cells with an embedding ``X_pca``, and others."""
    table = pd.DataFrame(obs)
    return ad.AnnData(obs=table.set_index(table.index.map("cell{}".format)), obsm={"X_pca": x, **others})
