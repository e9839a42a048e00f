"""Plug-in estimators: densities or frequencies of both samples, divided."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.neighbors import NearestNeighbors

from scratio.peers._base import Standardiser, prior_log_odds


class ClassGaussians:
    """Ratio of two fitted Gaussians (quadratic discriminant analysis)."""

    def fit(self, x_num: np.ndarray, x_den: np.ndarray) -> ClassGaussians:
        """Compute mean and covariance of each sample.

        Raises
        ------
        ValueError
            If a covariance is singular: a sample has too few cells, or its dimensions depend on each other.
        """
        Standardiser.of(x_num, x_den)
        self._parts = []
        for name, x in (("x_num", x_num), ("x_den", x_den)):
            try:
                factor = np.linalg.cholesky(np.atleast_2d(np.cov(x, rowvar=False)))
            except np.linalg.LinAlgError:
                raise ValueError(f"the covariance of {name}, of shape {x.shape}, is singular") from None
            self._parts.append((x.mean(0), factor))
        return self

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Return the difference of the two log densities, in nats."""
        num, den = (
            -0.5 * (solve_triangular(factor, (x - mean).T, lower=True) ** 2).sum(0) - np.log(np.diag(factor)).sum()
            for mean, factor in self._parts
        )
        return num - den


class Neighbors:
    r"""Frequencies among the nearest cells of both samples, :math:`\log \frac{k_{num} + 1/2}{k_{den} + 1/2} - prior`.

    Parameters
    ----------
    n_neighbors
        Number of nearest cells. A fitted cell is not counted among its own neighbours.
    """

    def __init__(self, *, n_neighbors: int = 50) -> None:
        if n_neighbors < 1:
            raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
        self.n_neighbors = n_neighbors

    def fit(self, x_num: np.ndarray, x_den: np.ndarray) -> Neighbors:
        """Build the nearest-neighbour index of all cells."""
        self._standardise = Standardiser.of(x_num, x_den)
        x = self._standardise(np.concatenate([x_num, x_den]))
        self._is_num = np.arange(len(x)) < len(x_num)
        self._prior = prior_log_odds(len(x_num), len(x_den))
        self._index = NearestNeighbors(n_neighbors=min(self.n_neighbors + 1, len(x))).fit(x)
        return self

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Return the log odds among the neighbours minus those of the sample sizes, in nats."""
        distance, near = self._index.kneighbors(self._standardise(x))
        is_itself = distance[:, :1] == 0.0
        counted = np.where(is_itself, np.arange(near.shape[1]) > 0, np.arange(near.shape[1]) < near.shape[1] - 1)
        k_num = (self._is_num[near] & counted).sum(1)
        return np.log(k_num + 0.5) - np.log(counted.sum(1) - k_num + 0.5) - self._prior
