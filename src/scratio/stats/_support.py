"""Where both conditions have cells, so that a log ratio means something."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

N_NEIGHBORS, QUANTILE = 15, 0.99


def overlap_support(x: np.ndarray, is_treatment: np.ndarray) -> np.ndarray:
    """Whether each cell is typical of the treatment's cells and of the reference's cells.

    A cell is typical of a condition if the distance to its 15th nearest cell of that condition is at most the 99%
    quantile of the same distance among that condition's own cells (each cell left out of its own neighbours). A cell
    that is typical of neither is an outlier; one that is typical of only one lies where the supports do not overlap,
    and its log ratio is an extrapolation.

    Parameters
    ----------
    x
        Standardised embedding, shape (n, d).
    is_treatment
        Condition of each cell, shape (n,), bool.

    Returns
    -------
    Support, shape (n,), bool.
    """
    support = np.ones(len(x), dtype=bool)
    for member in (is_treatment, ~is_treatment):
        k = min(N_NEIGHBORS, int(member.sum()) - 1)
        index = NearestNeighbors(n_neighbors=k + 1).fit(x[member])
        distances = index.kneighbors(x)[0]
        # A cell of the condition itself finds itself first.
        distance = np.where(member, distances[:, k], distances[:, k - 1])
        support &= distance <= np.quantile(distance[member], QUANTILE)
    return support
