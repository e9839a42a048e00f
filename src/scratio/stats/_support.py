"""Where both conditions have cells, so that a log ratio means something."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

FELLOW, RAREST = 15, 0.01
SAME = 1e-3
"""Distance of a cell to itself, in distances to its 15th neighbour, for what rounding leaves of 0."""


def typicality(x: np.ndarray, cells: np.ndarray) -> np.ndarray:
    r"""Compute the share of a condition's cells that are at most as typical of the condition as each given cell.

    Cells are compared by the distance to the 15th nearest cell of the condition. This orders them as the nearest
    neighbour estimate of the log density does, :math:`-d \log \text{distance} + \text{const}`. The share is calibrated:
    about a share u of new cells of the condition has a typicality of u or less.

    Parameters
    ----------
    x
        Cells to judge, shape (n, d). A cell that is also in ``cells`` is not counted among its own neighbours.
    cells
        Cells of the condition, shape (m, d), at least 2.

    Returns
    -------
    Typicality from 0 (farther out than all cells of the condition) to 1, shape (n,).
    """
    return TypicalityIndex(cells)(x)


class TypicalityIndex:
    """Compute :func:`typicality` for many blocks of cells, compared with one set of cells.

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
    """Tell whether cells have support: in both conditions, at least 1% of the cells are at most as typical.

    A cell that is typical of neither condition is an outlier. A cell that is typical of only one condition lies where
    the other condition has no cells, and its log ratio is an extrapolation.

    Parameters
    ----------
    typicalities
        The smaller of the two conditions' :func:`typicality`, any shape.
    """
    return typicalities >= RAREST
