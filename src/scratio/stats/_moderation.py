"""Standard errors of single cells, drawn to those of similar cells and of all cells."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

N_NEIGHBORS, OUTLIER = 50, 3.0
"""Cells whose variances are averaged; how much more than that a cell's own variance may be by chance."""


def moderated_error(x: np.ndarray, error: np.ndarray, reference: np.ndarray, reference_error: np.ndarray) -> np.ndarray:
    r"""Standard error of every cell from those of the reference's cells around it and of all of them.

    .. math:: s^2(x) = \max\Big(\tfrac12 \overline{s^2}_{50}(x) + \tfrac12 \overline{s^2},\; \tfrac13 s^2_{own}(x)\Big)

    The spread of three networks has two degrees of freedom: on its own it is far too small in many cells, and what all
    networks smooth away is missing where they agree. Means over the 50 nearest cells of the reference, and over all,
    are certain; half and half they keep where the log ratio is uncertain without trusting it blindly, as moderated
    variances do (Smyth 2004, doi 10.2202/1544-6115.1027). A cell's own variance counts where it is more than three
    times as large, by chance 1 case in 20: far from all training cells the networks drift apart.

    Parameters
    ----------
    x, error
        Cells, shape (n, d), and their own standard errors, shape (n,).
    reference, reference_error
        The same for the reference's cells.

    Returns
    -------
    Shape (n,).
    """
    variance = reference_error**2
    k = min(N_NEIGHBORS, len(reference))
    near = NearestNeighbors(n_neighbors=k).fit(reference).kneighbors(x, return_distance=False)
    moderated = 0.5 * variance[near].mean(1) + 0.5 * variance.mean()
    return np.sqrt(np.maximum(moderated, error**2 / OUTLIER))
