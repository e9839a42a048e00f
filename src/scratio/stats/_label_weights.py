"""What held-out labels say about logits: weights of their parts, and losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax
from scipy.stats import norm

N_STEPS, N_SWEEPS, LARGEST, CONVERGED = 50, 200, 10.0, 1e-6
PRIOR_SD = 1.0
"""Standard deviation of the prior of a weight."""


@dataclass(frozen=True)
class LabelSlopes:
    """Maximum-likelihood slopes of labels on logits, and their standard errors, shape (n_parts,)."""

    slope: np.ndarray
    standard_error: np.ndarray


def label_slopes(
    base: np.ndarray, parts: np.ndarray, codes: np.ndarray, groups: np.ndarray | None = None
) -> LabelSlopes:
    """Slopes a that maximise the likelihood of the labels under softmax(base + sum_j a_j parts_j).

    Parameters
    ----------
    base
        Logits that are taken as given, shape (n, n_conditions).
    parts
        Logits whose slopes are asked for, shape (n_parts, n, n_conditions).
    codes
        Condition of each cell, shape (n,).
    groups
        Group of each cell, integers, shape (n,): cells of one depend on each other, and the standard errors (sandwich)
        are across groups.
    """
    slopes, score, information = _fitted(base, parts, codes)
    inverse = np.linalg.pinv(information, hermitian=True)
    spread = _spread(score, groups)
    return LabelSlopes(slopes, np.sqrt(np.diag(inverse @ spread @ inverse)))


def posterior_weights(
    base: np.ndarray, parts: np.ndarray, codes: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    r"""Posterior means of the weights of logits, from labels of cells that no part was fitted on.

    The weights w have independent normal priors with mean 1 / n_parts and standard deviation 1, cut off below 0, and
    the likelihood of a multinomial regression, softmax(base + sum_j w_j parts_j). The posterior is approximated by a
    normal at its mode (Laplace), cut off below 0, and the means are those of the nearest product of such distributions
    (mean field). So a weight is near 1 where the labels support it, small where they do not, and never exactly 0. Where
    labels of a group depend on each other the likelihood counts less, by the ratio of the scores' variance across
    groups to the information.

    Parameters
    ----------
    base
        Log shares of the conditions, shape (n, n_conditions).
    parts
        Logits to be weighted, shape (n_parts, n, n_conditions).
    codes
        Condition of each cell, shape (n,).
    groups
        Group of each cell, integers, shape (n,).

    Returns
    -------
    Shape (n_parts,).
    """
    n_parts = len(parts)
    prior = np.full(n_parts, 1.0 / n_parts)
    precision = np.eye(n_parts) / PRIOR_SD**2
    temper = 1.0
    if groups is not None:
        _, score, information = _fitted(base, parts, codes, prior, precision)
        inverse = np.linalg.inv(information + precision)
        temper = 1.0 / max(float(np.trace(_spread(score, groups) @ inverse)) / n_parts, 1.0)
    mode, _, information = _fitted(base, parts, codes, prior, precision / temper)
    return _mean_above_zero(mode, temper * information + precision)


def bounded_loss(logits: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Cross-entropies of n cells, none above log(n n_conditions).

    That is what a cell can cost once a share 1 / n of ignorance is mixed into the posteriors, at next to no cost to the
    others. Without a bound a single outlier makes differences between two losses uncertain that all other cells settle.

    Parameters
    ----------
    logits
        Shape (n, n_conditions).
    codes
        Condition of each cell, shape (n,).
    """
    loss = -log_softmax(logits, axis=1)[np.arange(len(codes)), codes]
    return np.minimum(loss, np.log(logits.size))


def _mean_above_zero(mode: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Mean-field means of a normal distribution that is cut off below 0 in every dimension."""
    own = np.diag(precision)
    sd, pull = 1.0 / np.sqrt(own), precision / own[:, None] - np.eye(len(mode))
    mean = np.maximum(mode, 0.0)
    for _ in range(N_SWEEPS):
        before = mean.copy()
        for place in range(len(mean)):
            centre = mode[place] - pull[place] @ (mean - mode)
            below = -centre / sd[place]
            mean[place] = centre + sd[place] * np.exp(norm.logpdf(below) - norm.logsf(below))
        if np.abs(mean - before).max() < CONVERGED:
            break
    return mean


def _fitted(
    base: np.ndarray,
    parts: np.ndarray,
    codes: np.ndarray,
    prior: np.ndarray | float = 0.0,
    precision: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes at the maximum of the penalised likelihood, each cell's score there, and the information of the labels."""
    own = parts[:, np.arange(len(codes)), codes]
    slopes = np.zeros(len(parts))
    penalty = np.zeros((len(parts), len(parts))) + precision
    score, information = own, penalty
    for _ in range(N_STEPS):
        probability = np.exp(log_softmax(base + np.tensordot(slopes, parts, 1), axis=1))
        mean = (probability * parts).sum(2)
        score = own - mean
        information = np.einsum("nc,inc,jnc->ij", probability, parts, parts, optimize=True) - mean @ mean.T
        # Damped Newton: the likelihood is concave, far from its maximum a full step may go past it.
        gradient = score.sum(1) - penalty @ (slopes - prior)
        step = np.linalg.pinv(information + penalty, hermitian=True) @ gradient
        slopes = np.clip(slopes + np.clip(step, -0.5, 0.5), -LARGEST, LARGEST)
        if np.abs(step).max() < CONVERGED:
            break
    return slopes, score, information


def _spread(score: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Variance of the sum of the scores, across cells or across groups."""
    if groups is not None:
        score = np.stack([np.bincount(groups, weights=row) for row in score])
    return score @ score.T
