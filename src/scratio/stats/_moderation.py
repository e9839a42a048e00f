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
    r"""Standard error of every cell from those of the 50 cells around it that a model keeps.

    .. math::
        \log s^2(x) = \overline{\log s^2}_{50}(x) - \psi(\nu / 2) + \log(\nu / 2), \qquad \nu = M - 1

    The spread of M networks has M - 1 degrees of freedom: on its own it is far too small in many cells. The mean of the
    logarithms over similar cells is certain, and a few extreme cells do not weigh more than others in it; the last two
    terms are its bias (Smyth 2004, doi 10.2202/1544-6115.1027). A third of a cell's own variance counts where that is
    more: far from all training cells the networks drift apart. The disagreement of different estimates of the same log
    ratio, a mean over the same cells, is added for bias, which no spread shows.

    Parameters
    ----------
    x, error
        Cells, shape (n, d), and their own standard errors, shape (n,).
    kept, kept_error
        The same for the cells that are kept.
    disagreement
        Variance between estimates of different kinds for the cells that are kept.
    n_networks
        M, of their errors.

    Returns
    -------
    Shape (n,).
    """
    log_variance = np.log(np.maximum(kept_error**2, SMALLEST))
    k, half = min(N_SIMILAR, len(kept)), 0.5 * (n_networks - 1)
    near = NearestNeighbors(n_neighbors=k).fit(kept).kneighbors(x, return_distance=False)
    moderated = np.exp(log_variance[near].mean(1) - digamma(half) + np.log(half))
    return np.sqrt(np.maximum(moderated, error**2 / OUTLIER) + disagreement[near].mean(1))
