"""Batch effect of every cell before and after correction (a question of arXiv 2602.24201).

    SCRATIO_DATA=folder python benchmarks/batch_correction.py   # writes benchmarks/results/batch_correction.*
    python benchmarks/batch_correction.py --quick                  # a minute, on made-up cells

Synovium of 21 donors in 24 batches (Zhang et al. 2019), principal components before and after Harmony; log p(cell |
batch, type) - log p(cell | type). Batches permuted within types say what is found where there is nothing. The paper's
data (NeurIPS 2021, C. elegans) are others, so that its figures do not compare.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _analysis import frame, run
from matplotlib.figure import Figure

import scratio

RESULTS = Path(__file__).parent / "results"


def analyse(adata: ad.AnnData, train_kwargs: dict[str, Any]) -> tuple[pd.DataFrame, Figure]:
    """Batch effect in both embeddings, with the batches as they are and permuted within cell types."""
    rng = np.random.default_rng(0)
    permuted = adata.obs.groupby("celltype", observed=True)["batch"].transform(rng.permutation)
    adata.obs["permuted batch"] = permuted.astype(str).to_numpy()
    tables, figure, axes = [], *plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharex=True, sharey=True)
    for batch, ax in zip(("batch", "permuted batch"), axes, strict=True):
        key = batch.replace(" ", "_") + "_effect"
        scratio.tl.batch_effect(
            adata,
            batch_key=batch,
            label_key="celltype",
            use_rep=["X_pca", "X_pca_harmony"],
            key_added=key,
            train_kwargs=train_kwargs,
        )
        tables.append(adata.uns[key]["summary"].assign(batch=batch))
        scratio.pl.batch_effect(adata, key=key, groupby="celltype", ax=ax)
        ax.set_title(batch)
    return pd.concat(tables, ignore_index=True), figure


def simulate(rng: np.random.Generator) -> ad.AnnData:
    """Two types in two batches, moved apart by the batch in one embedding."""
    kind, batch = rng.integers(2, size=(2, 400))
    x = rng.normal(size=(400, 3)) + 3.0 * kind[:, None]
    obs = {"celltype": np.array(["B cell", "T cell"])[kind], "batch": np.array(["S1", "S2"])[batch]}
    return frame(x + batch[:, None], obs, X_pca_harmony=x)


def main() -> None:
    """Measure, write, draw."""
    run(__doc__, RESULTS / "batch_correction", "zhang2019_ra_synovium_harmony.h5ad", analyse, simulate)


if __name__ == "__main__":
    main()
