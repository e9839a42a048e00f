"""Divergences between groups of cells, from the log ratios of their cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Divergences:
    """Divergences between every two groups, in nats.

    Parameters
    ----------
    groups
        Names of the groups.
    n_cells
        Number of cells of each.
    kl, kl_error
        Kullback-Leibler divergence KL(row || column) and its standard error, shape (n_groups, n_groups).
    symmetric, symmetric_error
        KL(row || column) + KL(column || row) and its standard error, shape (n_groups, n_groups).
    """

    groups: list[str]
    n_cells: np.ndarray
    kl: np.ndarray
    kl_error: np.ndarray
    symmetric: np.ndarray
    symmetric_error: np.ndarray


def divergences(
    groups: list[str],
    n_cells: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    of_networks: np.ndarray,
    variance_factor: float,
    parts: np.ndarray,
    shares: np.ndarray,
) -> Divergences:
    r"""Compute Kullback-Leibler divergences and their sums from the log ratios of the cells of each group.

    .. math::
        KL(a \| b) = E_{x \sim a} \log \frac{p(x | a)}{p(x | b)}, \qquad J(a, b) = KL(a \| b) + KL(b \| a)

    (Jeffreys 1946, doi 10.1098/rspa.1946.0056). The variance of a divergence has three parts: the variance of a mean
    over cells, the variance between networks, and the weighted variance between the parts of the potential (network,
    closed forms), which shows bias. A term that all log ratios of two groups share cancels in the sum J, so that
    networks and parts are compared by their sums.

    Parameters
    ----------
    groups, n_cells
        Names of the groups, and their numbers of cells, shape (n_groups,).
    mean, variance
        Mean and variance of the log ratio of row over column, in nats, over the cells of the row.
    of_networks
        Such means for each network, shape (n_networks, n_groups, n_groups).
    variance_factor
        Factor from the variance between networks to that of their mean over samples of cells. NaN for one network.
    parts, shares
        Such means by each part of the potential alone, less those of all parts, shape (n_parts, n_groups, n_groups),
        and the shares of the parts, shape (n_parts,).
    """
    of_cells = variance / n_cells[:, None]

    def error(cells: np.ndarray, networks: np.ndarray, parts: np.ndarray) -> np.ndarray:
        between = networks.var(0, ddof=1) if len(networks) > 1 else np.full(cells.shape, np.nan)
        found = np.sqrt(cells + variance_factor * between + np.einsum("p,pab->ab", shares, parts**2))
        np.fill_diagonal(found, 0.0)
        return found

    return Divergences(
        groups=groups,
        n_cells=n_cells,
        kl=mean,
        kl_error=error(of_cells, of_networks, parts),
        symmetric=mean + mean.T,
        symmetric_error=error(of_cells + of_cells.T, _both(of_networks), _both(parts)),
    )


def _both(means: np.ndarray) -> np.ndarray:
    """Sum of both directions."""
    return means + means.transpose(0, 2, 1)
