"""Bits that depend on a cell's own values alone, wherever and beside whatever it is met."""

from __future__ import annotations

import numpy as np


def row_keys(x: np.ndarray, seed: int) -> np.ndarray:
    """One number of 64 bits for every row, in single precision: equal rows have equal ones, others practically never.

    Parameters
    ----------
    x
        Shape (n, d).
    seed
        Rows have other keys under another seed.

    Returns
    -------
    Shape (n,), uint64.
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    keys = np.full(len(rows), np.uint64(seed), dtype=np.uint64)
    for column in rows.view(np.uint32).T:
        keys = splitmix64(keys ^ column.astype(np.uint64))
    return keys


def splitmix64(state: np.ndarray) -> np.ndarray:
    """Finaliser of the counter-based generator of that name (Steele, Lea and Flood 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
