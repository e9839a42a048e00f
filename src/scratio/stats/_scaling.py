"""Scale of each dimension of an embedding relative to its local spread."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

from scratio._blocks import moments, slabs, take_rows
from scratio._coordinates import Coordinates

NEAREST, N_CELLS, N_ROUNDS, FLOOR = 5, 5_000, 4, 0.05
MOST_CELLS, CENTRAL, BULK = 50_000, 0.01, 0.05
"""Cells that are looked at, and shares of them on either side that are left out of moments and of the robust spread."""
CLEARLY = 0.05
"""Decrease of the log of the product of spreads from which on the embedding's own scale is the better start.

Of starts that lead to the same neighbours it differs by up to .04 on real and simulated cells.
"""
CONSTANT = 1e-6
"""Relative spread below which a dimension is constant but for rounding."""


def robust_coordinates(x: np.ndarray, rng: np.random.Generator) -> Coordinates:
    r"""Compute centre, scale and tails of each dimension of an embedding, without labels.

    A dimension that separates cell states varies little among neighbours and much over all cells. A dimension of noise
    varies among neighbours as much as over all cells. With :math:`s_j` the standard deviation and :math:`\rho_j` the
    root mean square difference between neighbours in units of :math:`\sqrt{2} s_j`, the scale is :math:`s_j \rho_j`, up
    to one factor that sets the mean squared size of the scaled dimensions to 1. Neighbours are found again in the
    scaled space, four times, from two starts: all dimensions alike, and all as they are in the embedding. The first is
    kept, and the result follows any rescaling of the dimensions, unless the second makes the product of :math:`\rho_j`
    smaller by 5%. That happens where few cells have many dimensions of noise, as in principal components.

    Means and standard deviations are those of the central 98% of the cells, so that a few cells far out do not decide
    them. Tails begin three robust standard deviations from the centre (:class:`scratio._coordinates.Coordinates`).

    Parameters
    ----------
    x
        Embedding, shape (n, d), in memory or not.
    rng
        Source of the subsamples: at most 50,000 cells, and 5,000 for neighbours.
    """
    sample = np.asarray(take_rows(x, np.sort(rng.permutation(x.shape[0])[:MOST_CELLS])), dtype=np.float64)
    low, high = np.quantile(sample, [CENTRAL, 1.0 - CENTRAL], axis=0)
    central = np.clip(sample, low, high)
    sd = central.std(axis=0)
    # A marker that few cells have is constant in the centre.
    central, sd = np.where(sd > 0.0, central, sample), np.where(sd > 0.0, sd, sample.std(axis=0))
    constant = sd <= CONSTANT * np.abs(sample).max(axis=0)
    sd = np.where(constant, 1.0, sd)
    scale = _local_scale(central[np.sort(rng.permutation(len(central))[:N_CELLS])], sd, ~constant)
    spread = np.subtract(*np.quantile(sample, [1.0 - BULK, BULK], axis=0)) / (2.0 * norm.ppf(1.0 - BULK))
    tail = np.where(constant, np.inf, np.where(spread > 0.0, spread, sd) / scale)
    return Coordinates(central.mean(axis=0), scale, tail)


def _local_scale(sample: np.ndarray, sd: np.ndarray, varies: np.ndarray) -> np.ndarray:
    z = (sample - sample.mean(axis=0)) / sd
    alike, spread = _settled(z, np.ones_like(sd), varies)
    own, spread_of_own = _settled(z, np.where(varies, sd, 1.0), varies)
    return sd / (own if np.log(spread / spread_of_own).sum() > CLEARLY else alike)


def _settled(z: np.ndarray, weight: np.ndarray, varies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of standardised dimensions after four searches for neighbours, and their spread in the last of these."""
    spread, k = np.ones_like(weight), min(NEAREST, len(z) - 1)
    for _ in range(N_ROUNDS):
        scaled = z * weight
        # Trees are slower from some eight dimensions on.
        search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(scaled)
        neighbours = search.kneighbors(scaled, return_distance=False)[:, 1:]
        among = np.sqrt(((z[:, None] - z[neighbours]) ** 2).mean((0, 1)) / 2.0)
        spread = np.where(varies, np.maximum(among, FLOOR), 1.0)
        weight = 1.0 / spread
        weight[varies] /= np.sqrt((weight[varies] ** 2).mean()) if varies.any() else 1.0
    return weight, spread


def standard_scale(x: np.ndarray) -> np.ndarray:
    """Compute the standard deviation of each dimension of an embedding (n, d); 1 if constant except for rounding."""
    sd = moments(x)[1]
    # A constant dimension tells cells apart nowhere; any scale will do.
    sd[sd <= CONSTANT * np.max([np.abs(part).max(axis=0) for _, part in slabs(x)], axis=0)] = 1.0
    return sd
