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


def split_rows(rows: np.ndarray, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random split of rows into (rest, held out), both sorted; ``fraction`` is held out."""
    order = rng.permutation(rows)
    n_held_out = round(fraction * len(rows))
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])
