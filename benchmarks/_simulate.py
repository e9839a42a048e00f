"""Cells that are not Gaussian and whose log ratio is known."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm


def mixtures(rng: np.random.Generator, n_cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five types in twenty dimensions with shapes of their own, in other shares and moved a little in treated cells."""
    shape = np.random.default_rng(5)
    centres, moves = 1.2 * shape.normal(size=(5, 20)), 0.3 * shape.normal(size=(5, 20))
    scales, shares = np.exp(0.3 * shape.normal(size=(5, 20))), shape.dirichlet(np.full(5, 3.0), size=2)
    is_treated = rng.uniform(size=n_cells) < 0.5
    kind = (rng.uniform(size=(n_cells, 1)) > np.cumsum(shares[is_treated.astype(int)], axis=1)[:, :-1]).sum(1)
    x = centres[kind] + moves[kind] * is_treated[:, None] + scales[kind] * rng.normal(size=(n_cells, 20))

    def log_density(c: int) -> np.ndarray:
        return logsumexp(
            [
                np.log(shares[c, k]) + norm.logpdf(x, centres[k] + c * moves[k], scales[k]).sum(1)
                for k in range(len(centres))
            ],
            axis=0,
        )

    return x, is_treated, log_density(1) - log_density(0)


def bent(rng: np.random.Generator, n_cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mixtures under an invertible map that bends them, and so leaves their ratio as it is."""
    x, is_treated, truth = mixtures(rng, n_cells)
    shape, half = np.random.default_rng(6), x.shape[1] // 2
    for _ in range(2):
        x = 0.5 * x @ np.linalg.qr(shape.normal(size=(x.shape[1], x.shape[1])))[0]
        # Heavier tails, then every dimension of one half moved along a curve in one of the other's.
        x = np.sinh(x + 0.3 * shape.normal(size=x.shape[1]))
        x[:, half:] += np.cos(1.5 * x[:, :half])
    return x, is_treated, truth
