"""Scale of each dimension of an embedding relative to its local spread."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from scratio._blocks import moments, slabs, take_rows

N_NEIGHBORS, N_CELLS, N_ROUNDS, FLOOR = 5, 5_000, 4, 0.05
CONSTANT = 1e-6
"""Relative spread below which a dimension is constant but for rounding."""


def local_scale(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    r"""Scale by which each dimension is divided: its standard deviation, less where cells cluster along it.

    A dimension that separates cell states varies little among neighbours and much over all cells; one of noise varies
    among neighbours as it does over all. With :math:`s_j` the standard deviation and :math:`\rho_j` the root mean
    square difference between neighbours in units of :math:`\sqrt{2} s_j`, the scale is :math:`s_j \rho_j`, up to one
    factor that sets the mean squared size of the scaled dimensions to 1. Neighbours are found again in the scaled
    space, four times. The result follows any rescaling of the dimensions, and uses no labels.

    Parameters
    ----------
    x
        Embedding, shape (n, d), in memory or not.
    rng
        Source of the subsample of at most 5,000 cells.

    Returns
    -------
    Scales, shape (d,), positive.
    """
    sd, constant = _deviation(x)
    rows = np.sort(rng.permutation(x.shape[0])[:N_CELLS])
    sample = take_rows(x, rows)
    z = (sample - np.mean(sample, axis=0, dtype=np.float64)) / sd
    weight = np.ones(z.shape[1])
    varies = ~constant
    k = min(N_NEIGHBORS, len(z) - 1)
    for _ in range(N_ROUNDS):
        scaled = z * weight
        neighbours = NearestNeighbors(n_neighbors=k + 1).fit(scaled).kneighbors(scaled, return_distance=False)[:, 1:]
        spread = np.sqrt(((z[:, None] - z[neighbours]) ** 2).mean((0, 1)) / 2.0)
        weight[varies] = 1.0 / np.maximum(spread[varies], FLOOR)
        weight[varies] /= np.sqrt((weight[varies] ** 2).mean()) if varies.any() else 1.0
    return sd / weight


def standard_scale(x: np.ndarray) -> np.ndarray:
    """Standard deviation of each dimension of an embedding (n, d), 1 where it is constant but for rounding."""
    return _deviation(x)[0]


def _deviation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sd = moments(x)[1]
    # A constant dimension tells cells apart nowhere; any scale will do.
    constant = sd <= CONSTANT * np.max([np.abs(part).max(axis=0) for _, part in slabs(x)], axis=0)
    sd[constant] = 1.0
    return sd, constant
