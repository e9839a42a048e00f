"""Differential abundance of 200,000 cells of 140 donors from a file: seconds, memory, and what is found.

    python benchmarks/large_cohort.py             # writes benchmarks/results/large_cohort.csv; 30 minutes on two cores
    python benchmarks/large_cohort.py --quick     # a minute, on few cells; the figures mean nothing

Donors have log-normal numbers of cells (.8) of 20 types in 50 dimensions, and log-normal shares of types (.5) of their
own; half of them are treated. Under ``planted`` half of the cells of one type are of another one in treated donors: one
type is rarer, one more frequent, and all others are as they were. Under ``unchanged`` nothing differs. The file is
opened by ``scratio.io.read_lazy``, so that the embedding stays on disk. Each measurement is a process of its own:
``peak_gib`` is its most memory with all libraries, ``announced`` and ``announced_gib`` are the plan that scratio shows
before it trains. ``power`` is the share of cells of the two types with q < .1 and an effect of the right sign,
``false_discoveries`` the share of all others among the cells with q < .1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from _processes import peak_gigabytes
from _rows import Clock, Rows, parsed

import scratio

RESULTS = Path(__file__).parent / "results"
N_TYPES, N_DIMS, RISING, FALLING = 20, 50, 0, 1
SPREAD_OF_SIZES, SPREAD_OF_SHARES = 0.8, 0.5
DESIGNS = ("planted", "unchanged")
EFFORTS = ("default", "quick")
CELLS, DONORS, N_QUICK, QUICK_DONORS = (200_000,), (140,), (2_000,), (12,)
Q = 0.1


def cohort(n_cells: int, n_donors: int, design: str) -> ad.AnnData:
    """Cells with donor, condition and type."""
    rng = np.random.default_rng(0)
    means = 2.0 * rng.normal(size=(N_TYPES, N_DIMS)) / np.sqrt(np.arange(1, N_DIMS + 1))
    sizes = np.exp(rng.normal(0.0, SPREAD_OF_SIZES, n_donors))
    sizes = np.maximum((sizes / sizes.sum() * n_cells).astype(int), 10)
    is_treated = np.arange(n_donors) % 2 == 0
    weights = np.exp(SPREAD_OF_SHARES * rng.normal(size=(n_donors, N_TYPES)))
    if design == "planted":
        weights[is_treated, FALLING] /= 2.0
        weights[is_treated, RISING] += weights[is_treated, FALLING]
    shares = weights / weights.sum(1, keepdims=True)
    kind = np.concatenate([rng.choice(N_TYPES, size=n, p=share) for n, share in zip(sizes, shares, strict=True)])
    donor = np.repeat(np.arange(n_donors), sizes)
    x = (means[kind] + rng.normal(size=(len(kind), N_DIMS)) / np.sqrt(np.arange(1, N_DIMS + 1))).astype(np.float32)
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"donor {k}" for k in donor]),
            "condition": pd.Categorical(np.where(is_treated[donor], "treated", "control")),
            "kind": pd.Categorical(kind.astype(str)),
        },
        index=[f"cell {k}" for k in range(len(kind))],
    )
    # A file sorted by donor is what most pipelines write.
    return ad.AnnData(obs=obs, obsm={"X_pca": x})


def analyse(path: str, effort: str) -> None:
    """Analyse a file and print what was found; the process is measured as a whole."""
    clock = Clock()
    adata = scratio.io.read_lazy(path)
    scratio.tl.differential_abundance(
        adata, condition_key="condition", treatment="treated", reference="control", sample_key="donor", effort=effort
    )
    spent = clock.read()
    sign = adata.obs["kind"].astype(int).map({RISING: 1.0, FALLING: -1.0}).fillna(0.0).to_numpy()
    found = (adata.obs["da_qvalue"] < Q).to_numpy()
    right = found & (sign * adata.obs["da_effect"].to_numpy() > 0.0)
    samples = scratio.get.samples(adata)
    row = {
        **spent,
        "peak_gib": peak_gigabytes(),
        "samples_tested": int((samples["left_out"] == "").sum()) if "left_out" in samples else len(samples),
        "supported": float(adata.obs["da_support"].mean()),
        "discoveries": int(found.sum()),
        "power": float(right[sign != 0.0].mean()),
        "false_discoveries": float(1.0 - right.sum() / found.sum()) if found.any() else 0.0,
        "global_pvalue": float(np.min(scratio.get.diagnostics(adata)["global_pvalue"])),
    }
    print("result", json.dumps(row))


def measured(adata: ad.AnnData, effort: str, folder: str) -> dict[str, Any]:
    """Row of one process."""
    path = Path(folder) / "cohort.h5ad"
    adata.write_h5ad(path)
    command = [sys.executable, __file__, "analyse", str(path), effort]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("result "))
    said = re.findall(r"at most about (.+?), ([\d.]+) GiB of memory", done.stdout + done.stderr)
    announced = {"announced": said[0][0], "announced_gib": float(said[0][1])} if said else {}
    return {**json.loads(line.removeprefix("result ")), **announced}


def main() -> None:
    """Measure and write."""
    quick = {"cells": N_QUICK, "donors": QUICK_DONORS}
    options = parsed(__doc__, RESULTS, quick, cells=CELLS, donors=DONORS, designs=DESIGNS, efforts=EFFORTS)
    rows = Rows(options.results, "large_cohort.csv", ["n_cells", "n_donors", "design", "effort"])
    for n_cells in options.cells:
        for n_donors in options.donors:
            for design in options.designs:
                adata = cohort(n_cells, n_donors, design)
                for effort in options.efforts:
                    with tempfile.TemporaryDirectory() as folder:
                        row = measured(adata, effort, folder)
                    rows.add(n_cells=adata.n_obs, n_donors=n_donors, design=design, effort=effort, **row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["analyse"]:
        analyse(*sys.argv[2:])
    else:
        main()
