"""Whether standard errors are right: coverage of 90% intervals where the log ratio of every cell is known.

    SCRATIO_DATA=folder python benchmarks/standard_errors.py       # writes benchmarks/results/standard_errors.csv
    python benchmarks/standard_errors.py --quick                   # a minute; the figures mean nothing

Fresh cells of Gaussians and of mixtures are scored by `ScRatio`; real cells (Kang et al. 2018) with labels drawn
at a known probability out of fold by `tl.differential_abundance`: a smooth function of the embedding, or one that does
not depend on it. Without the data the latter are left out.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _methods import CONTRAST, cells
from _simulate import mixtures
from scipy.special import expit
from scipy.stats import norm

import scratio

RESULTS = Path(__file__).parent / "results"
FOLDER = Path(os.environ.get("SCRATIO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
KANG, N_DIMS = "kang2018_pbmc_ifnb_pca.h5ad", 20
LEVEL = 0.9
GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control"}

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Log ratios, standard errors, truth."""


def gaussians(rng: np.random.Generator, n_cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two Gaussians in ten dimensions, 1 apart in each."""
    is_treated = rng.uniform(size=n_cells) < 0.5
    x = rng.normal(size=(n_cells, 10)) + is_treated[:, None]
    return x, is_treated, (x - 0.5).sum(1)


def fresh(draw, seed: int, n_cells: int, train_kwargs: dict) -> Scored:
    """Fresh cells by a model of others."""
    x, is_treated, _ = draw(np.random.default_rng(seed), n_cells)
    adata = cells(x, is_treated)
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata)
    model.train(random_state=seed, **train_kwargs)
    x, is_treated, truth = draw(np.random.default_rng(seed + 1_000), n_cells)
    return *model.log_ratio(cells(x, is_treated), **CONTRAST, return_std=True), truth


def planted(size: float, seed: int, n_cells: int, train_kwargs: dict) -> Scored:
    """Real cells with planted labels, out of fold; the log ratio is a sum of six waves with this deviation."""
    rng = np.random.default_rng(seed)
    x = ad.read_h5ad(FOLDER / KANG).obsm["X_pca"][:, :N_DIMS].astype(float)
    x = x[rng.permutation(len(x))[:n_cells]]
    waves = np.cos(x[:, :8] / x[:, :8].std(0) @ (0.6 * rng.normal(size=(8, 6))) + rng.uniform(0.0, 2.0 * np.pi, 6))
    log_odds = waves @ rng.normal(size=6)
    log_odds = size * (log_odds - log_odds.mean()) / log_odds.std()
    is_treated = rng.uniform(size=len(x)) < expit(log_odds)
    adata = cells(x, is_treated)
    scratio.tl.differential_abundance(adata, **GROUPS, random_state=seed, train_kwargs=train_kwargs)
    share = expit(log_odds).mean()
    truth = log_odds - np.log(share / (1.0 - share))
    return adata.obs["da_log_ratio"].to_numpy(), adata.obs["da_std"].to_numpy(), truth


TASKS = {
    "gaussians": lambda *args: fresh(gaussians, *args),
    "mixtures": lambda *args: fresh(mixtures, *args),
    "planted, smooth": lambda *args: planted(1.5, *args),
    "planted, no effect": lambda *args: planted(0.0, *args),
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    train_kwargs = {"progress_bar": False, **({"max_steps": 30} if quick else {})}
    rows = []
    for task, score in TASKS.items():
        if task.startswith("planted") and not (FOLDER / KANG).exists():
            print(f"{task}: {FOLDER / KANG} not found; set SCRATIO_DATA to the folder that holds it")
            continue
        for seed in range(1 if quick else 2):
            start = time.perf_counter()
            found, error, truth = score(seed, 600 if quick else 10_000, train_kwargs)
            covered = np.abs(found - truth) <= norm.ppf(0.5 + LEVEL / 2.0) * error
            row = {
                "task": task,
                "seed": seed,
                "variance": truth.var(),
                "rmse": np.sqrt(np.mean((found - truth) ** 2)),
                "rms_standard_error": np.sqrt(np.mean(error**2)),
                "coverage": covered.mean(),
                "seconds": time.perf_counter() - start,
            }
            rows.append(row)
            print(pd.DataFrame([row]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(RESULTS / "standard_errors.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
