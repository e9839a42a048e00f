"""Interface of the estimators, and helpers that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class RatioEstimator(Protocol):
    """Estimator of the log density ratio of two samples."""

    def fit(self, x_num: np.ndarray, x_den: np.ndarray) -> RatioEstimator:
        """Fit to cells of the numerator, shape (n, d), and of the denominator, shape (m, d); return the estimator."""
        ...

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Return the log ratio of cells (n, d) in nats: shape (n,), float64, positive for the numerator."""
        ...


@dataclass(frozen=True)
class Standardiser:
    """Location and scale of each dimension over both samples, each of which counts half."""

    location: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x_num: np.ndarray, x_den: np.ndarray) -> Standardiser:
        """From both samples.

        Raises
        ------
        ValueError
            If they are not two matrices of finite numbers with the same number of columns and at least 2 rows each.
        """
        for name, x in (("x_num", x_num), ("x_den", x_den)):
            if x.ndim != 2 or len(x) < 2:
                raise ValueError(f"{name} must have shape (n, d) with at least 2 rows, got {x.shape}")
            if not np.isfinite(x).all():
                raise ValueError(f"{name} holds values that are not finite")
        if x_num.shape[1] != x_den.shape[1]:
            raise ValueError(f"x_num has {x_num.shape[1]} columns and x_den has {x_den.shape[1]}")
        means = x_num.mean(0), x_den.mean(0)
        location = 0.5 * (means[0] + means[1])
        variance = 0.5 * (x_num.var(0) + x_den.var(0)) + 0.25 * (means[0] - means[1]) ** 2
        return cls(location, np.sqrt(np.where(variance > 0.0, variance, 1.0)))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Standardised cells, float32."""
        return ((x - self.location) / self.scale).astype(np.float32)


def prior_log_odds(n_num: int, n_den: int) -> float:
    """Log odds of the numerator by the sizes of the samples, which are no part of a log ratio."""
    return float(np.log(n_num) - np.log(n_den))
