"""Cross-fitting folds."""

from __future__ import annotations

import numpy as np


def stratified_folds(strata: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of every row, 0 to n_folds - 1, so that every stratum is spread as evenly as can be.

    Parameters
    ----------
    strata
        Integer stratum of each row, shape (n,).
    n_folds
        Number of folds.
    rng
        Source of the random order.
    """
    folds = np.empty(len(strata), dtype=np.int64)
    # Going on where the last stratum ended keeps the folds even over many small strata.
    start = 0
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        folds[rows] = (start + np.arange(len(rows))) % n_folds
        start += len(rows)
    return folds


def disjoint_parts(rows: np.ndarray, fraction: float, n_parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random parts of rows, each a ``fraction`` of them, sorted; they overlap only where they would not all fit."""
    order = rng.permutation(rows)
    size = max(round(fraction * len(rows)), 1)
    return [np.sort(np.resize(np.roll(order, -part * size), size)) for part in range(n_parts)]
