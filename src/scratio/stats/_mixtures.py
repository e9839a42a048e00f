"""Closed-form densities of every condition: one Gaussian, or a mixture whose covariances the conditions share."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from scratio._constants import KMEANS_ON_WINDOWS

MAX_CELLS, N_ITERATIONS, RIDGE = 10_000, 5, 1e-3
"""Cells and iterations of expectation maximisation; ridge in units of the mean variance."""


@dataclass(frozen=True)
class ConditionMixture:
    """Densities p(x | c) = sum_k w_ck N(x; m_ck, S_k), or with a covariance S_ck of each condition's own.

    Parameters
    ----------
    log_weight
        Shape (n_conditions, n_components).
    mean
        Shape (n_conditions, n_components, d).
    covariance
        Shape (1 or n_conditions, n_components, d, d).
    """

    log_weight: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


def shared_gaussian(x: np.ndarray, codes: np.ndarray, n_conditions: int) -> ConditionMixture:
    """Gaussians with a mean each and one covariance (linear discriminant), shrunk after Ledoit and Wolf (2004).

    Parameters
    ----------
    x
        Cells, shape (n, d).
    codes
        Condition of each cell, shape (n,), from 0 to ``n_conditions - 1``; conditions without cells get the overall
        mean.
    n_conditions
        Number of conditions.
    """
    mean = _means(x, codes, n_conditions)
    covariance = ledoit_wolf(x - mean[codes], assume_centered=True)[0]
    return ConditionMixture(np.zeros((n_conditions, 1)), mean[:, None], covariance[None, None])


def class_gaussian(x: np.ndarray, codes: np.ndarray, n_conditions: int) -> ConditionMixture:
    r"""Gaussians with a mean and a covariance each (quadratic discriminant), without shrinkage.

    Shrinking inflates small variances, which costs little likelihood among a condition's own cells but makes the log
    ratio of the other conditions' cells wrong by nats, where no held-out label tells. Instead the inverse covariance is
    unbiased: :math:`E[S^{-1}] = \Sigma^{-1} (n - 1) / (n - d - 2)` for n cells of a Gaussian (Wishart), so
    S is multiplied by that factor. A condition with no more than d + 2 cells gets the shared covariance.

    Parameters
    ----------
    x, codes, n_conditions
        As in :func:`shared_gaussian`.
    """
    shared, d = shared_gaussian(x, codes, n_conditions), x.shape[1]
    covariances = []
    for code in range(n_conditions):
        rows = x[codes == code] - shared.mean[code, 0]
        excess = len(rows) - d - 2
        covariances.append(rows.T @ rows / excess if excess > 0 else shared.covariance[0, 0])
    return ConditionMixture(shared.log_weight, shared.mean, np.stack(covariances)[:, None])


def common_responsibility(x: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Responsibilities of a mixture of Gaussians fitted to cells without their conditions, (n, n_components).

    By :class:`sklearn.mixture.GaussianMixture`, from at most 10,000 cells drawn with ``rng``.
    """
    rows = np.sort(rng.permutation(len(x))[:MAX_CELLS])
    mixture = GaussianMixture(
        n_components, reg_covar=_ridge(x), max_iter=30, tol=1e-2, random_state=int(rng.integers(2**31))
    )
    with warnings.catch_warnings():
        # The start of another iteration need not have converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message=KMEANS_ON_WINDOWS)
        mixture.fit(x[rows])
    return mixture.predict_proba(x)


def shared_mixture(x: np.ndarray, codes: np.ndarray, n_conditions: int, responsibility: np.ndarray) -> ConditionMixture:
    """Mixtures with components in common: shapes are shared, abundances and positions are each condition's own.

    What a condition does to cell types: it changes how many there are and moves them. A mixture of all cells is refined
    by expectation maximisation with weights and means of each condition, drawn towards the common ones by the weight of
    one cell, and covariances over all conditions.

    Parameters
    ----------
    x, codes, n_conditions
        As in :func:`shared_gaussian`.
    responsibility
        Where to start, from :func:`common_responsibility`, shape (n, n_components).
    """
    ridge = _ridge(x)
    for iteration in range(N_ITERATIONS):
        mixture = _maximise(x, codes, n_conditions, responsibility, ridge)
        if iteration < N_ITERATIONS - 1:
            joint = _log_joint(x, codes, mixture)
            responsibility = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    return mixture


def common_components(x: np.ndarray, responsibility: np.ndarray) -> tuple[ConditionMixture, np.ndarray]:
    """Mixture of all cells, whatever their condition, and the log density of every component in every cell.

    Parameters
    ----------
    x
        Cells, shape (n, d).
    responsibility
        Of the components for each cell, from :func:`common_responsibility`, shape (n, n_components).
    """
    everyone = np.zeros(len(x), dtype=np.int64)
    common = _maximise(x, everyone, 1, responsibility, _ridge(x))
    return common, _log_joint(x, everyone, replace(common, log_weight=np.zeros_like(common.log_weight)))


def abundances(
    common: ConditionMixture, log_density: np.ndarray, codes: np.ndarray, n_conditions: int
) -> ConditionMixture:
    """Mixtures that differ in their abundances alone: a condition changes how many cells of each type there are.

    The abundances of each condition are found by expectation maximisation and drawn towards the common ones by the
    weight of one cell.

    Parameters
    ----------
    common, log_density
        From :func:`common_components`; the log densities of the cells to fit, shape (n, n_components).
    codes, n_conditions
        As in :func:`shared_gaussian`.
    """
    log_weight = np.repeat(common.log_weight, n_conditions, axis=0)
    for code in range(n_conditions):
        own = log_density[codes == code]
        for _ in range(N_ITERATIONS):
            joint = own + log_weight[code]
            mass = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)).sum(0)
            log_weight[code] = np.log((mass + np.exp(common.log_weight[0])) / (mass.sum() + 1.0))
    return ConditionMixture(log_weight, np.repeat(common.mean, n_conditions, axis=0), common.covariance)


def _ridge(x: np.ndarray) -> float:
    return RIDGE * float(x.var(axis=0).mean())


def _means(x: np.ndarray, codes: np.ndarray, n_conditions: int) -> np.ndarray:
    counts = np.bincount(codes, minlength=n_conditions)
    sums = np.zeros((n_conditions, x.shape[1]))
    np.add.at(sums, codes, x)
    mean = sums / np.maximum(counts, 1)[:, None]
    mean[counts == 0] = x.mean(axis=0)
    return mean


def _maximise(
    x: np.ndarray, codes: np.ndarray, n_conditions: int, responsibility: np.ndarray, ridge: float
) -> ConditionMixture:
    total = responsibility.sum(0) + 1e-9
    common_weight, common_mean = total / total.sum(), (responsibility.T @ x) / total[:, None]
    weight = np.empty((n_conditions, len(total)))
    mean = np.empty((n_conditions, *common_mean.shape))
    for code in range(n_conditions):
        rows = codes == code
        mass = responsibility[rows].sum(0)
        weight[code] = (mass + common_weight) / (mass.sum() + 1.0)
        mean[code] = (responsibility[rows].T @ x[rows] + common_mean) / (mass + 1.0)[:, None]
    covariance = np.empty((1, len(total), x.shape[1], x.shape[1]))
    for k in range(len(total)):
        residual = np.sqrt(responsibility[:, k, None]) * (x - mean[codes, k])
        covariance[0, k] = residual.T @ residual / total[k]
        covariance[0, k].flat[:: x.shape[1] + 1] += ridge
    return ConditionMixture(np.log(weight), mean, covariance)


def _log_joint(x: np.ndarray, codes: np.ndarray, mixture: ConditionMixture) -> np.ndarray:
    """Log w_ck N(x; m_ck, S_k) of every cell's own condition, up to a constant, shape (n, n_components)."""
    joint = mixture.log_weight[codes].copy()
    for k in range(joint.shape[1]):
        root = np.linalg.cholesky(mixture.covariance[0, k])
        unroot = np.linalg.inv(root).T
        white = x @ unroot - (mixture.mean[:, k] @ unroot)[codes]
        joint[:, k] -= 0.5 * np.einsum("nd,nd->n", white, white) + np.log(np.diag(root)).sum()
    return joint
