"""Cross-fitting folds."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


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


def grouped_folds(strata: np.ndarray, groups: np.ndarray, n_folds: int, random_state: int) -> np.ndarray:
    """Fold of every row, such that the rows of a group share one and every stratum is spread as evenly as can be.

    Parameters
    ----------
    strata, groups
        Integer stratum and group of each row, shape (n,).
    n_folds
        Number of folds, at most the number of groups of any stratum: see :func:`most_folds`.
    random_state
        Seed.
    """
    folds = np.empty(len(strata), dtype=np.int64)
    names, numbers = np.unique(groups, return_inverse=True)
    # Which of equal groups comes first is drawn here: shuffle=True loses the strata in scikit-learn 1.5 to 1.7.
    order = np.random.RandomState(random_state).permutation(len(names))
    numbers = np.argsort(order)[numbers]
    split = StratifiedGroupKFold(n_folds).split(strata, strata, numbers)
    for fold, (_, rows) in enumerate(split):
        folds[rows] = fold
    return folds


def most_folds(strata: np.ndarray, groups: np.ndarray) -> int:
    """Smallest number of groups that a stratum has rows of; with as many folds each can still have all strata."""
    pairs = np.unique(np.stack([strata, groups]), axis=1)
    return int(np.unique(pairs[0], return_counts=True)[1].min())


def balanced_rows(strata: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many rows, of every stratum as many as of any other if it has them; sorted, all if they are few.

    Parameters
    ----------
    strata
        Integer stratum of each row, shape (n,).
    most
        Largest number of rows.
    rng
        Source of the choice.
    """
    if len(strata) <= most:
        return np.arange(len(strata))
    order = rng.permutation(len(strata))
    by_stratum = np.argsort(strata[order], kind="stable")
    sizes = np.bincount(strata)
    rank = np.empty(len(strata), dtype=np.int64)
    rank[by_stratum] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[np.argsort(rank, kind="stable")[:most]])
