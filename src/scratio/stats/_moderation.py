"""Standard errors of single cells, moderated by those of similar cells."""

from __future__ import annotations

import numpy as np
from scipy.special import digamma
from sklearn.neighbors import NearestNeighbors

N_SIMILAR, OUTLIER, SMALLEST = 50, 3.0, 1e-12
"""Similar cells; how much more than theirs a cell's own variance may be by chance; variance that counts as none."""


def moderated_error(
    x: np.ndarray,
    error: np.ndarray,
    kept: np.ndarray,
    kept_error: np.ndarray,
    disagreement: np.ndarray,
    n_networks: int,
) -> np.ndarray:
    r"""Compute the standard error of every cell from those of the 50 nearest cells that a model keeps.

    .. math::
        \log s^2(x) = \overline{\log s^2}_{50}(x) - \psi(\nu / 2) + \log(\nu / 2), \qquad \nu = M - 1

    The spread of M networks has only M - 1 degrees of freedom, so that a cell's own variance is often far too small.
    The mean of the log variances over similar cells is precise, and extreme cells do not dominate it. The last two
    terms correct its bias (Smyth 2004, doi 10.2202/1544-6115.1027). A third of the cell's own variance is used instead
    if it is larger, because networks drift apart far from all training cells. Finally the mean disagreement of the
    similar cells is added: it shows bias, which the spread of the networks does not show.

    Parameters
    ----------
    x, error
        Cells, shape (n, d), and their own standard errors, shape (n,).
    kept, kept_error
        Kept cells, shape (m, d), and their standard errors, shape (m,).
    disagreement
        Variance between different kinds of estimates of the log ratio of the kept cells, shape (m,).
    n_networks
        Number M of networks that the standard errors come from.

    Returns
    -------
    Standard errors in nats, shape (n,).
    """
    log_variance = np.log(np.maximum(kept_error**2, SMALLEST))
    k, half = min(N_SIMILAR, len(kept)), 0.5 * (n_networks - 1)
    near = NearestNeighbors(n_neighbors=k).fit(kept).kneighbors(x, return_distance=False)
    moderated = np.exp(log_variance[near].mean(1) - digamma(half) + np.log(half))
    return np.sqrt(np.maximum(moderated, error**2 / OUTLIER) + disagreement[near].mean(1))
