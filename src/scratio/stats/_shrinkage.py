"""How much of a learnt potential the held-out cells support."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

N_STEPS, LARGEST = 50, 10.0
RESOLVED, SIGNIFICANT = 0.1, 2.0
"""Share of a disagreement below which labels do not resolve it; standard errors of a significant difference."""
ORDINARY = 0.95
"""Share of the cells that are taken for ordinary; further disagreement of the others counts no more than theirs."""


@dataclass(frozen=True)
class Shrinkage:
    """Factor for the potential; slope of the held-out labels on it, and the slope's standard error."""

    factor: float
    slope: float
    standard_error: float


def held_out_shrinkage(
    base: np.ndarray, learnt: np.ndarray, codes: np.ndarray, groups: np.ndarray | None = None
) -> Shrinkage:
    r"""Positive-part James-Stein factor for a potential, from cells that no part of it was fitted on.

    The slope a maximises the likelihood of the labels under softmax(base + a learnt); the factor is
    :math:`\max(0, 1 - s^2 / a^2)` with s its sandwich standard error, and 0 for a slope that is not positive. It is
    near 1 where cells support the potential at all clearly, and 0 where they do not, as on data without an effect.

    Parameters
    ----------
    base
        Logits that are taken as given, shape (n, n_conditions).
    learnt
        Logits to be judged, same shape.
    codes
        Condition of each cell, shape (n,).
    groups
        As in :func:`term_shrinkage`.
    """
    return term_shrinkage(base, learnt[None], codes, groups)[0]


def term_shrinkage(
    base: np.ndarray, terms: np.ndarray, codes: np.ndarray, groups: np.ndarray | None = None
) -> list[Shrinkage]:
    r"""The same for a potential that is a sum of terms, each with a slope and a factor of its own.

    Parameters
    ----------
    base
        Logits that are taken as given, shape (n, n_conditions).
    terms
        Logits to be judged, shape (n_terms, n, n_conditions).
    codes
        Condition of each cell, shape (n,).
    groups
        Group of each cell, integers, shape (n,): cells of one depend on each other, and errors are across groups.

    Returns
    -------
    One for each term; a term that is the same for all conditions has the factor 1 and no slope.
    """
    speaks = np.ptp(terms - terms.mean(2, keepdims=True), axis=(1, 2)) > 0.0
    found = iter(_slopes(base, terms[speaks], codes, groups)) if speaks.any() else iter(())
    return [next(found) if one else Shrinkage(1.0, float("nan"), float("nan")) for one in speaks]


def supported_terms(
    base: np.ndarray, terms: np.ndarray, codes: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Whether leaving a term out makes the held-out labels significantly less likely, shape (n_terms,).

    Unlike a slope it is defined where labels are certain.

    Parameters
    ----------
    base, terms, codes, groups
        As in :func:`term_shrinkage`.
    """
    groups = np.arange(len(codes)) if groups is None else groups
    whole, rows = base + terms.sum(0), np.arange(len(codes))
    loss = -log_softmax(whole, axis=1)[rows, codes]
    supported = []
    for term in terms:
        excess = -log_softmax(whole - term, axis=1)[rows, codes] - loss
        error = np.sqrt((np.bincount(groups, weights=excess - excess.mean()) ** 2).sum())
        supported.append(excess.sum() > SIGNIFICANT * error)
    return np.array(supported)


def _slopes(base: np.ndarray, terms: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> list[Shrinkage]:
    own = terms[:, np.arange(len(codes)), codes]
    slopes, gradient, inverse = np.zeros(len(terms)), own, np.eye(len(terms))
    for _ in range(N_STEPS):
        probability = np.exp(log_softmax(base + np.tensordot(slopes, terms, 1), axis=1))
        mean = (probability * terms).sum(2)
        gradient = own - mean
        information = np.einsum("nc,inc,jnc->ij", probability, terms, terms, optimize=True) - mean @ mean.T
        inverse = np.linalg.pinv(information, hermitian=True)
        # Damped Newton: the likelihood is concave, far from its maximum a full step may go past it.
        step = inverse @ gradient.sum(1)
        slopes = np.clip(slopes + np.clip(step, -0.5, 0.5), -LARGEST, LARGEST)
        if np.abs(step).max() < 1e-6:
            break
    if groups is not None:
        gradient = np.stack([np.bincount(groups, weights=row) for row in gradient])
    errors = np.sqrt(np.diag(inverse @ (gradient @ gradient.T) @ inverse))
    factors = np.where(slopes > 0.0, 1.0 - (errors / np.where(slopes > 0.0, slopes, 1.0)) ** 2, 0.0).clip(min=0.0)
    return [Shrinkage(*map(float, each)) for each in zip(factors, slopes, errors, strict=True)]


def held_out_share(prior: np.ndarray, first: np.ndarray, second: np.ndarray, codes: np.ndarray) -> float:
    r"""Share of the first of two potentials in their average, from cells that neither was fitted on.

    The w in [0, 1] with the smallest cross-entropy of the labels under softmax(prior + w first + (1 - w) second), a
    convex problem. Two estimates with errors of their own are better together than each alone, and a bad one gets no
    share.

    Parameters
    ----------
    prior
        Log shares of the conditions, shape (n_conditions,) or, where cells differ in them, (n, n_conditions).
    first, second
        Logits, shape (n, n_conditions).
    codes
        Condition of each cell, shape (n,).
    """
    rows = np.arange(len(codes))

    def loss(w: float) -> float:
        return -float(log_softmax(prior + w * first + (1.0 - w) * second, axis=1)[rows, codes].mean())

    found = minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded")
    # The bounded search never tries the ends themselves.
    return min((0.0, 1.0, float(found.x)), key=loss)


def labels_are_silent(prior: np.ndarray, first: np.ndarray, second: np.ndarray, codes: np.ndarray) -> bool:
    r"""Whether labels cannot tell which of two potentials is right where the two differ.

    A label says nothing where its condition is certain. With the posterior p of the average of both and their
    difference :math:`\delta`, labels resolve the share :math:`\sum_i \operatorname{Var}_{p_i}(\delta_i) / \sum_i
    \max_p \operatorname{Var}_p(\delta_i)` of what the potentials disagree about. Conditions that hardly overlap leave
    next to nothing of it, and potentials that differ by tens of nats have the same cross-entropy.

    Parameters
    ----------
    prior, first, second, codes
        As in :func:`held_out_share`.

    Returns
    -------
    True if that share is below a tenth and the cross-entropy of the first is not significantly higher.
    """
    difference, rows = first - second, np.arange(len(codes))
    posterior = np.exp(log_softmax(prior + 0.5 * (first + second), axis=1))
    variance = (posterior * difference**2).sum(1) - (posterior * difference).sum(1) ** 2
    largest = 0.25 * np.ptp(difference, axis=1) ** 2
    # A few outliers, where a closed form is off by any number of nats, must not outweigh all other cells.
    cap = np.quantile(largest, ORDINARY)
    weight = np.minimum(cap / np.maximum(largest, np.finfo(float).tiny), 1.0)
    losses = [
        bounded_loss(-log_softmax(prior + potential, axis=1)[rows, codes], prior.shape[-1])
        for potential in (first, second)
    ]
    excess = losses[0] - losses[1]
    error = excess.std() / np.sqrt(len(codes))
    unresolved = (weight * variance).sum() < RESOLVED * (weight * largest).sum()
    return bool(unresolved and excess.mean() <= SIGNIFICANT * error)


def bounded_loss(loss: np.ndarray, n_conditions: int) -> np.ndarray:
    """Cross-entropies of n cells, none above log(n n_conditions).

    That is what a cell can cost once a share 1 / n of ignorance is mixed into the posteriors, at next to no cost to the
    others. Without a bound a single outlier makes differences between two losses uncertain that all other cells settle.
    """
    return np.minimum(loss, np.log(len(loss) * n_conditions))
