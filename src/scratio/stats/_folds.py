"""Cross-fitting folds."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


def stratified_folds(strata: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Assign every row to a fold, 0 to n_folds - 1, so that each stratum is spread as evenly as possible.

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


def disjoint_parts(
    rows: np.ndarray, strata: np.ndarray, fraction: float, n_parts: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw random parts of rows, each with a ``fraction`` of every stratum; all have one size and are sorted.

    If there are few strata, each part has a row of every stratum with at least two rows: without labels of a rare
    condition, nothing would show how wrong a log ratio is there. Parts overlap only if the rows do not suffice.

    Parameters
    ----------
    rows
        Row numbers, shape (n,).
    strata
        Integer stratum of each of these rows, shape (n,).
    fraction, n_parts
        Share of the rows in a part, and number of parts.
    rng
        Source of the random order.
    """
    found: list[list[np.ndarray]] = [[] for _ in range(n_parts)]
    names = np.unique(strata)
    are_few = len(names) <= 0.5 * fraction * len(rows)
    # What is rounded off in one stratum goes to the next, so that many small strata come to the fraction too.
    rest = 0.0
    for name in names:
        own = rng.permutation(rows[strata == name])
        wanted = fraction * len(own) + rest
        size = max(round(wanted), int(are_few and len(own) > 1))
        rest = float(np.clip(wanted - size, -0.5, 0.5))
        for part, chosen in enumerate(found):
            chosen.append(np.resize(np.roll(own, -part * size), size))
    return [np.sort(np.concatenate(chosen)) if any(map(len, chosen)) else rows[:1] for chosen in found]


def grouped_folds(strata: np.ndarray, groups: np.ndarray, n_folds: int, random_state: int) -> np.ndarray:
    """Assign all rows of a group to one fold, and spread each stratum over the folds as evenly as possible.

    Parameters
    ----------
    strata, groups
        Integer stratum and group of each row, shape (n,).
    n_folds
        Number of folds, at most :func:`most_folds`.
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
    """Return the largest number of folds with which each fold can have all strata: the fewest groups of a stratum."""
    pairs = np.unique(np.stack([strata, groups]), axis=1)
    return int(np.unique(pairs[0], return_counts=True)[1].min())


def balanced_rows(strata: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Choose at most ``most`` rows, equally many of each stratum if it has them; return them sorted.

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
