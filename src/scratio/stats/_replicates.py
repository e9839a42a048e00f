"""Tests across samples: permuted labels, flipped signs, moderated variances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np
from scipy.special import digamma, polygamma

BLOCK = 2**22
"""Largest number of statistics that are held at once."""
MAX_ARRANGEMENTS = 10_000
TIE = 1e-9


@dataclass(frozen=True)
class SampleTest:
    """Outcome at each of n places.

    Parameters
    ----------
    effect
        Mean difference in the units of the values, shape (n,).
    standard_error
        Its moderated standard error, shape (n,).
    pvalue
        Two-sided, of each place on its own, shape (n,).
    pooled_pvalue
        Share of the statistics of all places in all arrangements that are at least as large, shape (n,). It resolves
        more than the arrangements of one place do, which is what q-values need (SAM; Tusher et al. 2001,
        doi 10.1073/pnas.091062498), but holds on average over the places, not for each.
    familywise_pvalue
        Adjusted by the largest statistic over all places (Westfall and Young's max-T), shape (n,).
    n_arrangements
        Number of arrangements of the labels, or of the signs; p-values are multiples of 1 over it.
    """

    effect: np.ndarray
    standard_error: np.ndarray
    pvalue: np.ndarray
    pooled_pvalue: np.ndarray
    familywise_pvalue: np.ndarray
    n_arrangements: int


def compare_samples(
    values: np.ndarray,
    is_treatment: np.ndarray,
    rng: np.random.Generator,
    *,
    nuisance: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    max_arrangements: int = MAX_ARRANGEMENTS,
) -> SampleTest:
    r"""Difference of two groups of samples at every place, by permutation of the samples.

    The statistic is the t of the group in a linear model with an intercept and the nuisance covariates, its variance
    moderated over the places as in limma (Smyth 2004, doi 10.2202/1544-6115.1027). Without nuisance the labels are
    permuted, in all ways if there are not too many; with nuisance the residuals of the model without the group are
    (Freedman and Lane 1983, doi 10.2307/1391660). A permutation keeps all places of a sample together, so that however
    they depend on each other, each p-value is valid, and so is the largest statistic's. Of several scales the largest
    statistic counts, in the data as in every permutation.

    Parameters
    ----------
    values
        Shape (n_samples, n), or (n_scales, n_samples, n) for values of the same places on several scales.
    is_treatment
        Group of every sample, bool, shape (n_samples,).
    rng
        Source of random arrangements, where not all are tried.
    nuisance
        Covariates of the samples, shape (n_samples, n_covariates).
    weights
        What each place counts for in the pooled p-value, shape (n,); equal by default.
    max_arrangements
        Largest number of arrangements.

    Raises
    ------
    ValueError
        If a group is empty, the group cannot be told from the covariates, or no residual degree of freedom is left.
    """
    values = values.reshape(-1, *values.shape[-2:])
    n_samples = values.shape[1]
    basis, group = group_contrast(is_treatment, nuisance)
    size, df = float(group @ group), n_samples - basis.shape[1] - 1
    residual = values - basis @ (basis.T @ values)
    total = (residual**2).sum(1)

    def statistic(orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shuffled = residual[:, orders]
        effect = np.einsum("s,absi->bai", group, shuffled) / size
        fitted = (np.einsum("sk,absi->baki", basis, shuffled) ** 2).sum(2)
        return effect, _moderated((total - fitted - effect**2 * size) / df, df) / size

    orders = _label_orders(is_treatment, max_arrangements) if nuisance is None else None
    if orders is None:
        orders = _random_orders(n_samples, rng, max_arrangements)
    return _test(statistic, orders, values.size, weights)


def group_contrast(is_treatment: np.ndarray, nuisance: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal basis of intercept and covariates, and the group without what they explain.

    Parameters
    ----------
    is_treatment, nuisance
        As in :func:`compare_samples`.

    Raises
    ------
    ValueError
        As in :func:`compare_samples`.
    """
    n_samples = len(is_treatment)
    design = np.ones((n_samples, 1)) if nuisance is None else np.column_stack([np.ones(n_samples), nuisance])
    basis = _orthonormal(design)
    group = is_treatment.astype(float)
    group -= basis @ (basis.T @ group)
    if n_samples - basis.shape[1] < 2:
        raise ValueError(f"{n_samples} samples leave no degree of freedom for {basis.shape[1] + 1} coefficients")
    if group @ group < TIE:
        raise ValueError("the groups cannot be told apart from the covariates, or one of them has no samples")
    return basis, group


def compare_pairs(
    differences: np.ndarray,
    rng: np.random.Generator,
    *,
    weights: np.ndarray | None = None,
    max_arrangements: int = MAX_ARRANGEMENTS,
) -> SampleTest:
    """Mean of paired differences at every place, by flipping the signs of the samples.

    Parameters
    ----------
    differences
        Treated minus untreated within each sample, shape (n_samples, n) or (n_scales, n_samples, n).
    rng, weights, max_arrangements
        As in :func:`compare_samples`.

    Raises
    ------
    ValueError
        If there are fewer than 2 samples.
    """
    differences = differences.reshape(-1, *differences.shape[-2:])
    n_samples = differences.shape[1]
    if n_samples < 2:
        raise ValueError(f"a test across samples needs at least 2 pairs, got {n_samples}")
    total = (differences**2).sum(1)

    def statistic(signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        effect = np.einsum("bs,asi->bai", signs, differences) / n_samples
        variance = (total - n_samples * effect**2) / (n_samples - 1)
        return effect, _moderated(variance, n_samples - 1) / n_samples

    if 2**n_samples <= max_arrangements:
        signs = np.array(list(product((1.0, -1.0), repeat=n_samples)))
    else:
        signs = rng.choice([1.0, -1.0], size=(max_arrangements, n_samples))
        signs[0] = 1.0
    return _test(statistic, signs, differences.size, weights)


def weighted_fdr(pvalues: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    r"""Benjamini-Hochberg q-values with a weight for each hypothesis.

    Hypotheses count by their weights, as in the spatial false discovery rate of Milo (Dann et al. 2022,
    doi 10.1038/s41587-021-01033-z). With the numbers of cells of regions as weights it is the rate among cells.

    Parameters
    ----------
    pvalues
        Shape (n,).
    weights
        Positive, shape (n,); equal by default.
    """
    weights = np.ones(len(pvalues)) if weights is None else weights
    order = np.argsort(pvalues, kind="stable")
    ratio = pvalues[order] * weights.sum() / np.cumsum(weights[order])
    adjusted = np.empty(len(pvalues))
    adjusted[order] = np.minimum.accumulate(ratio[::-1])[::-1].clip(max=1.0)
    return adjusted


def prior_variance(variances: np.ndarray, df: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Degrees of freedom and location of a scaled inverse chi-square prior, by the moments of the log variances.

    With :math:`s^2 \sim s_0^2 F_{df, d_0}` the logarithm has its moments in closed form (Smyth 2004, section 6.2).

    Parameters
    ----------
    variances
        Sample variances of one arrangement per row, shape (..., n).
    df
        Their degrees of freedom.

    Returns
    -------
    :math:`d_0`, infinite where the variances differ no more than by chance, and :math:`s_0^2`, each of shape (...).
    """
    tiny = np.finfo(float).tiny
    logs = np.log(np.maximum(variances, tiny)) - digamma(df / 2) + np.log(df / 2)
    excess = logs.var(-1, ddof=1) - polygamma(1, df / 2) if variances.shape[-1] > 1 else np.zeros(variances.shape[:-1])
    spread = np.maximum(excess, 1e-6)
    d0 = 2.0 * _inverse_trigamma(spread)
    location = np.exp(logs.mean(-1) + digamma(d0 / 2) - np.log(d0 / 2))
    is_common = excess <= 1e-6
    return np.where(is_common, np.inf, d0), np.where(is_common, np.exp(logs.mean(-1)), location)


def _moderated(variances: np.ndarray, df: int) -> np.ndarray:
    """Variances drawn to their common prior."""
    variances = np.maximum(variances, 0.0)
    d0, location = (part[..., None] for part in prior_variance(variances, df))
    weight = np.where(np.isinf(d0), 1.0, d0 / np.where(np.isinf(d0), 1.0, d0 + df))
    return weight * location + (1.0 - weight) * variances


def _inverse_trigamma(y: np.ndarray) -> np.ndarray:
    """Newton's method on 1 / trigamma, which is nearly linear (limma's trigammaInverse)."""
    x = 0.5 + 1.0 / y
    for _ in range(50):
        value = polygamma(1, x)
        step = value * (1.0 - value / y) / polygamma(2, x)
        x = x + step
        if np.max(-step / x) < 1e-10:
            break
    return x


Statistic = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From a block of arrangements to effects and squared standard errors, shape (n_arrangements, n_scales, n) each."""


def _test(statistic: Statistic, arrangements: np.ndarray, size: int, weights: np.ndarray | None) -> SampleTest:
    """Compare the first arrangement, the data as they are, with all."""
    floor = np.finfo(float).tiny

    def largest(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        effect, square = statistic(block)
        size_of = np.abs(effect) / np.sqrt(np.maximum(square, floor))
        scale = size_of.argmax(1)[:, None]
        effect, error, size_of = (
            np.take_along_axis(part, scale, axis=1)[:, 0] for part in (effect, np.sqrt(square), size_of)
        )
        return effect, error, size_of

    effect, error, observed = (part[0] for part in largest(arrangements[:1]))
    # Arrangements that are the same but for rounding are ties.
    limit = observed * (1.0 - TIE)
    n, total = len(effect), len(arrangements)
    weights = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    above, above_largest, reached = np.zeros(n), np.zeros(n), np.zeros(n + 1)
    order = np.argsort(limit)
    for block in _blocks(arrangements, size):
        found = largest(block)[2]
        above += (found >= limit).sum(0)
        above_largest += (found.max(1)[:, None] >= limit).sum(0)
        n_reached = np.searchsorted(limit[order], found, side="right")
        reached += np.bincount(n_reached.ravel(), np.broadcast_to(weights, found.shape).ravel(), n + 1)
    pooled = np.empty(n)
    pooled[order] = reached[::-1].cumsum()[::-1][1:]
    return SampleTest(effect, error, above / total, pooled / total, above_largest / total, total)


def _blocks(arrangements: np.ndarray, size: int) -> Iterator[np.ndarray]:
    step = max(BLOCK // max(size, 1), 1)
    for start in range(0, len(arrangements), step):
        yield arrangements[start : start + step]


def _orthonormal(design: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the columns, without those that depend on others."""
    vectors, values, _ = np.linalg.svd(design, full_matrices=False)
    return vectors[:, values > TIE * values.max()]


def _label_orders(is_treatment: np.ndarray, largest: int) -> np.ndarray | None:
    """Every way to choose the treated samples as an order of the samples, the data's first; None if too many."""
    n, n_treated = len(is_treatment), int(is_treatment.sum())
    if comb(n, n_treated) > largest:
        return None
    treated, control = np.flatnonzero(is_treatment), np.flatnonzero(~is_treatment)
    orders = [np.arange(n)]
    for chosen in combinations(range(n), n_treated):
        if not np.array_equal(chosen, treated):
            order = np.empty(n, dtype=int)
            order[treated], order[control] = chosen, np.setdiff1d(np.arange(n), chosen)
            orders.append(order)
    return np.array(orders)


def _random_orders(n: int, rng: np.random.Generator, number: int) -> np.ndarray:
    """Random orders, the first being that of the data."""
    orders = rng.permuted(np.tile(np.arange(n), (number, 1)), axis=1)
    orders[0] = np.arange(n)
    return orders
