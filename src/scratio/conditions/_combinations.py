"""Which combinations of the condition keys the cells have; continuous keys are cut into levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scratio.module import Condition

MAX_LEVELS, N_GROUPS = 32, 8
"""Largest number of distinct values of a single continuous key that are levels of their own, and groups of cells where
there are more; of several such keys each has no more levels than groups."""
MOST_NUMBERS = 2**22
"""Largest number of possible rows for which each has a counter."""


@dataclass(frozen=True)
class Combinations:
    """Observed combinations: codes (n, n_keys), levels (n, n_continuous), and shares among the cells (n,)."""

    codes: Tensor
    values: Tensor
    weights: Tensor


def observed_combinations(condition: Condition) -> Combinations:
    """Combinations of the cells' own labels.

    Parameters
    ----------
    condition
        Labels of all cells; numbers in standardised units, none missing.
    """
    values = condition.values.numpy()
    most = MAX_LEVELS if values.shape[1] == 1 else N_GROUPS
    levels, columns = [], [*condition.codes.numpy().T]
    for column in values.T:
        levels.append(levels_of(column, most))
        # The nearest level, of two the lower.
        columns.append(np.searchsorted(0.5 * (levels[-1][1:] + levels[-1][:-1]), column))
    rows, _, counts = distinct_rows(np.stack(columns, axis=1))
    n_keys = condition.codes.shape[1]
    found = [torch.from_numpy(level[rows[:, n_keys + key]]) for key, level in enumerate(levels)]
    stacked = torch.stack(found, dim=1) if found else torch.empty((len(rows), 0))
    counted = torch.from_numpy(counts)
    return Combinations(torch.from_numpy(rows[:, :n_keys].copy()), stacked, counted / counted.sum())


def distinct_rows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct rows of small integers in ascending order, which of them every row is, and how often each occurs.

    Parameters
    ----------
    codes
        Shape (n, n_keys).
    """
    if not codes.size:
        return codes[:1], np.zeros(len(codes), dtype=np.int64), np.array([len(codes)])
    low = codes.min(axis=0)
    sizes = codes.max(axis=0) - low + 1
    if np.prod(sizes.astype(float)) > MOST_NUMBERS:
        rows, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        return rows, inverse.reshape(-1), counts
    # One number for every row: no sorting, which millions of cells would take long for.
    number = np.ravel_multi_index(tuple((codes - low).T), tuple(sizes))
    frequency = np.bincount(number, minlength=int(np.prod(sizes)))
    present = np.flatnonzero(frequency)
    inverse = (np.cumsum(frequency > 0) - 1)[number]
    return np.stack(np.unravel_index(present, tuple(sizes)), axis=1) + low, inverse, frequency[present]


def levels_of(values: np.ndarray, most: int) -> np.ndarray:
    """The distinct values of a continuous key, or the means of equally large groups of cells if they are many."""
    distinct = np.unique(values)
    if len(distinct) <= most:
        return distinct
    means = [group.mean() for group in np.array_split(np.sort(values), N_GROUPS)]
    return np.unique(np.asarray(means, dtype=values.dtype))
