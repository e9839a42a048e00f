"""Reading embeddings that need not be in memory: NumPy, dask, HDF5 and zarr arrays alike, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

SLAB = 2**16
"""Rows that are read at once: 13 MB of 50 dimensions in single precision."""


def is_in_memory(x: Any) -> bool:
    """Whether an array is one of NumPy's."""
    return isinstance(x, np.ndarray)


def slabs(x: Any, size: int = SLAB) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows in order, each with the number of its first row.

    Parameters
    ----------
    x
        Array of shape (n, ...), in memory or not; slices of it become NumPy arrays one by one.
    size
        Rows of a block.
    """
    for start in range(0, x.shape[0], size):
        yield start, np.asarray(x[start : start + size])


def take_rows(x: Any, rows: np.ndarray) -> np.ndarray:
    """Rows of an array, in the order and shape asked for; one pass over what is not in memory.

    Parameters
    ----------
    x
        Array of shape (n, d), in memory or not.
    rows
        Row numbers, of any shape.

    Returns
    -------
    Shape (*rows.shape, d).
    """
    if is_in_memory(x):
        return x[rows]
    wanted, places = np.unique(rows, return_inverse=True)
    found = np.empty((len(wanted), *x.shape[1:]), dtype=x.dtype)
    edges = np.searchsorted(wanted, np.arange(0, x.shape[0] + SLAB, SLAB))
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if first < last:
            here = wanted[first:last]
            # No more of the slab than from the first row wanted to the last.
            found[first:last] = np.asarray(x[int(here[0]) : int(here[-1]) + 1])[here - here[0]]
    return found[places.reshape(np.shape(rows))]


def moments(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column in double precision, and no copy of the array.

    Parameters
    ----------
    x
        Array of shape (n, d), in memory or not.
    """
    n = x.shape[0]
    mean = sum(np.sum(part, axis=0, dtype=np.float64) for _, part in slabs(x)) / n
    square = sum(np.sum((part - mean) ** 2, axis=0) for _, part in slabs(x))
    return mean, np.sqrt(square / n)
