"""Where both conditions have cells, so that a log ratio means something."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

FELLOW, RAREST = 15, 0.01
SAME = 1e-3
"""Distance of a cell to itself, in distances to its 15th neighbour, for what rounding leaves of 0."""


def typicality(x: np.ndarray, cells: np.ndarray) -> np.ndarray:
    r"""Share of a condition's cells that are no more typical of it than each given cell is.

    Cells are compared by the distance to the 15th nearest cell of the condition, which orders them as the nearest
    neighbour estimate of the log density does, :math:`-d \log \text{distance} + \text{const}`. The share is calibrated:
    of fresh cells of the condition about u have a typicality of u or less.

    Parameters
    ----------
    x
        Cells to judge, shape (n, d). One that is among ``cells`` is left out of its own neighbours.
    cells
        Cells of the condition, shape (m, d), at least 2.

    Returns
    -------
    Shape (n,), from 0, farther out than all cells of the condition, to 1.
    """
    return TypicalityIndex(cells)(x)


class TypicalityIndex:
    """:func:`typicality` by the same cells for many blocks of others.

    Parameters
    ----------
    cells
        Cells of the condition, shape (m, d), at least 2.
    """

    def __init__(self, cells: np.ndarray) -> None:
        self._k = min(FELLOW, len(cells) - 1)
        self._neighbors = NearestNeighbors(n_neighbors=self._k + 1).fit(cells)
        # The distance of a cell to itself and rounding: ties are ties.
        self._own = np.sort(self._distance(cells)) * (1.0 + 1e-6)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Typicality of cells, shape (n,)."""
        return 1.0 - np.searchsorted(self._own, self._distance(x)) / len(self._own)

    def _distance(self, x: np.ndarray) -> np.ndarray:
        found = self._neighbors.kneighbors(x)[0]
        finds_itself = found[:, 0] <= SAME * found[:, self._k]
        return np.where(finds_itself, found[:, self._k], found[:, self._k - 1])


def is_supported(typicalities: np.ndarray) -> np.ndarray:
    """Whether cells are typical of both conditions: no more than 1% of the cells of either are less typical.

    A cell that is typical of neither is an outlier; one that is typical of only one lies where the supports do not
    overlap, and its log ratio is an extrapolation.

    Parameters
    ----------
    typicalities
        The smaller of the two conditions' :func:`typicality`, any shape.
    """
    return typicalities >= RAREST
