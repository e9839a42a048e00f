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
    levels, columns = [], [condition.codes]
    for column in values.T:
        levels.append(torch.from_numpy(levels_of(column, most)))
        nearest = (torch.from_numpy(column)[:, None] - levels[-1]).abs().argmin(1)
        columns.append(nearest[:, None])
    rows, counts = torch.unique(torch.cat(columns, dim=1), dim=0, return_counts=True)
    n_keys = condition.codes.shape[1]
    found = [level[rows[:, n_keys + key]] for key, level in enumerate(levels)]
    stacked = torch.stack(found, dim=1) if found else torch.empty((len(rows), 0))
    return Combinations(rows[:, :n_keys].contiguous(), stacked, counts / counts.sum())


def levels_of(values: np.ndarray, most: int) -> np.ndarray:
    """The distinct values of a continuous key, or the means of equally large groups of cells if they are many."""
    distinct = np.unique(values)
    if len(distinct) <= most:
        return distinct
    means = [group.mean() for group in np.array_split(np.sort(values), N_GROUPS)]
    return np.unique(np.asarray(means, dtype=values.dtype))
