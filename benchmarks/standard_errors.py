"""Whether standard errors are right: coverage of 90% intervals where the log ratio of every cell is known.

    SCRATIO_DATA=folder python benchmarks/standard_errors.py     # two hours; writes results/standard_errors.csv
    python benchmarks/standard_errors.py --quick                 # seconds, on few cells; the figures mean nothing
    python benchmarks/standard_errors.py --tasks "planted, weak" "Kang NK" --seeds 0 1

Cells of Gaussians and of mixtures are scored by `ScRatio`: ``new`` ones, and the ``training`` cells themselves. Real
cells (Kang et al. 2018) get labels drawn at a known probability: a smooth function of the embedding, a weaker one, or
one that does not depend on it. `tl.differential_abundance` scores them ``out-of-fold``, and with folds of whole samples
(``out-of-fold-samples``): every cell then has one of six samples of its condition at random, of unequal sizes. A
`ScRatio` of four fifths of them scores these (``training``) and the others (``new``).

``Kang NK`` has no truth: the median standard error of NK cells with their real labels, all cells being analysed; ``Kang
NK alone`` is the same of NK cells alone. Without the data all that needs Kang's cells is left out. Rows are written as
they are measured, and replace earlier ones of the same task, cells and seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from _labels import QUICK
from _methods import CONTRAST, cells
from _rows import FOLDER, Clock, Rows, has_data, parsed
from _simulate import mixtures
from scipy.special import expit
from scipy.stats import norm

import scratio

RESULTS = Path(__file__).parent / "results"
KANG, N_DIMS = "kang2018_pbmc_ifnb_pca.h5ad", 20
LEVEL, N_SAMPLES = 0.9, 6
N_CELLS, N_QUICK = 10_000, 400
GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control"}
SIMULATED = ("gaussians", "mixtures")
EFFECTS = {"planted, smooth": 1.5, "planted, weak": 0.3, "planted, no effect": 0.0}
"""Standard deviation of the planted log ratio."""
REAL = {"Kang NK": False, "Kang NK alone": True}
"""Tasks with real labels: whether NK cells are analysed alone."""
TASKS = (*SIMULATED, *EFFECTS, *REAL)
NEW, TRAINING, OUT_OF_FOLD, BY_SAMPLE = CELLS = ("new", "training", "out-of-fold", "out-of-fold-samples")
"""What the scored cells are to the networks."""

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cells, whether they are treated, true log ratios."""
Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Log ratios, standard errors, truth."""


def gaussians(rng: np.random.Generator, n_cells: int) -> Drawn:
    """Two Gaussians in ten dimensions, 1 apart in each."""
    is_treated = rng.uniform(size=n_cells) < 0.5
    x = rng.normal(size=(n_cells, 10)) + is_treated[:, None]
    return x, is_treated, (x - 0.5).sum(1)


def planted(size: float, seed: int, n_cells: int) -> Drawn:
    """Real cells with planted labels; the log odds are a sum of six waves with this deviation."""
    rng = np.random.default_rng(seed)
    x = ad.read_h5ad(FOLDER / KANG).obsm["X_pca"][:, :N_DIMS].astype(float)
    x = x[rng.permutation(len(x))[:n_cells]]
    waves = np.cos(x[:, :8] / x[:, :8].std(0) @ (0.6 * rng.normal(size=(8, 6))) + rng.uniform(0.0, 2.0 * np.pi, 6))
    log_odds = waves @ rng.normal(size=6)
    log_odds = size * (log_odds - log_odds.mean()) / log_odds.std()
    is_treated = rng.uniform(size=len(x)) < expit(log_odds)
    share = expit(log_odds).mean()
    return x, is_treated, log_odds - np.log(share / (1.0 - share))


def by_model(train: Drawn, new: Drawn, seed: int, train_kwargs: dict[str, Any]) -> dict[str, Scored]:
    """New cells and training cells by one model."""
    adata = cells(*train[:2])
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata)
    model.train(random_state=seed, **train_kwargs)
    found, own = (model.log_ratio(query, **CONTRAST, return_std=True) for query in (cells(*new[:2]), None))
    return {NEW: (*found, new[2]), TRAINING: (*own, train[2])}


def out_of_fold(drawn: Drawn, seed: int, train_kwargs: dict[str, Any], *, has_samples: bool = False) -> Scored:
    """All cells by networks that saw neither them nor, with samples, any cell of their sample."""
    x, is_treated, truth = drawn
    adata, more = cells(x, is_treated), {}
    if has_samples:
        # The largest sample is six times as large as the smallest.
        sizes = np.arange(1.0, N_SAMPLES + 1.0)
        sample = np.random.default_rng(seed + 2_000).choice(N_SAMPLES, size=len(x), p=sizes / sizes.sum())
        adata.obs["sample"] = [f"{c} {s}" for c, s in zip(adata.obs["condition"], sample, strict=True)]
        more = {"sample_key": "sample"}
    scratio.tl.differential_abundance(adata, **GROUPS, **more, random_state=seed, train_kwargs=train_kwargs)
    return adata.obs["da_log_ratio"].to_numpy(), adata.obs["da_std"].to_numpy(), truth


def scored(
    task: str, wanted: Sequence[str], seed: int, n_cells: int, train_kwargs: dict[str, Any]
) -> Iterator[tuple[str, Scored]]:
    """Scores of a task whose truth is known, one kind of cells after the other."""
    by_one_model = {NEW, TRAINING} & set(wanted)
    if task in SIMULATED:
        draw = {"gaussians": gaussians, "mixtures": mixtures}[task]
        train, new = (draw(np.random.default_rng(seed + more), n_cells) for more in (0, 1_000))
    else:
        drawn = planted(EFFECTS[task], seed, n_cells)
        n_train = 4 * len(drawn[0]) // 5
        train, new = (tuple(part[rows] for part in drawn) for rows in (slice(n_train), slice(n_train, None)))
        if OUT_OF_FOLD in wanted:
            yield OUT_OF_FOLD, out_of_fold(drawn, seed, train_kwargs)
        if BY_SAMPLE in wanted:
            yield BY_SAMPLE, out_of_fold(drawn, seed, train_kwargs, has_samples=True)
    if by_one_model:
        yield from ((name, found) for name, found in by_model(train, new, seed, train_kwargs).items() if name in wanted)


def measures(found: np.ndarray, error: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Coverage, and the errors that are made and stated."""
    covered = np.abs(found - truth) <= norm.ppf(0.5 + LEVEL / 2.0) * error
    return {
        "variance": truth.var(),
        "rmse": np.sqrt(np.mean((found - truth) ** 2)),
        "rms_standard_error": np.sqrt(np.mean(error**2)),
        "coverage": covered.mean(),
        "median_standard_error": np.median(error),
    }


def of_real_labels(is_alone: bool, seed: int, n_cells: int, train_kwargs: dict[str, Any]) -> dict[str, float]:
    """Standard errors of NK cells with the labels that they have."""
    adata = ad.read_h5ad(FOLDER / KANG)
    is_kind = (adata.obs["cell_type"] == "NK cells").to_numpy()
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(is_kind) if is_alone else adata.n_obs)[:n_cells]
    used = cells(adata.obsm["X_pca"][rows, :N_DIMS].astype(float), (adata.obs["condition"] == "stim").to_numpy()[rows])
    scratio.tl.differential_abundance(used, **GROUPS, random_state=seed, train_kwargs=train_kwargs)
    error = used.obs["da_std"].to_numpy()[is_kind[rows]]
    return {"rms_standard_error": np.sqrt(np.mean(error**2)), "median_standard_error": np.median(error)}


def measure(rows: Rows, task: str, wanted: Sequence[str], seed: int, quick: bool) -> None:
    """All rows of a task; the seconds of a model are those of all cells that it scores."""
    n_cells, train_kwargs = N_QUICK if quick else N_CELLS, {"progress_bar": False, **(QUICK if quick else {})}
    clock = Clock()
    if task in REAL:
        found = of_real_labels(REAL[task], seed, n_cells, train_kwargs)
        rows.add(task=task, cells=OUT_OF_FOLD, seed=seed, **found, **clock.read())
        return
    for name, values in scored(task, wanted, seed, n_cells, train_kwargs):
        rows.add(task=task, cells=name, seed=seed, **measures(*values), **clock.read())
        # Training cells come after new ones, from the same model.
        clock = clock if name == NEW else Clock()


def main() -> None:
    """Measure and write."""
    quick = {"tasks": ("gaussians", "planted, weak", "Kang NK alone"), "seeds": (0,)}
    options = parsed(__doc__, RESULTS, quick, tasks=TASKS, cells=CELLS, seeds=(0, 1))
    rows = Rows(options.results, "standard_errors.csv", ["task", "cells", "seed"])
    for task in options.tasks:
        if task in SIMULATED or has_data(KANG, task):
            for seed in options.seeds:
                measure(rows, task, options.cells, seed, options.quick)


if __name__ == "__main__":
    main()
