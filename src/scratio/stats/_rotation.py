"""Rotation test: how large the statistics of all places would be if nothing differed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

BLOCK = 2**22
"""Largest number of statistics that are held at once."""
N_ROTATIONS = 10_000
"""Rotations with the data's own; p-values are multiples of 1 over it."""
TIE, SHORTEST = 1e-9, 0.5
SAME = 1e-6
"""If log variances have less than this excess variance, they differ only by chance."""


@dataclass(frozen=True)
class RotationTest:
    """Outcome at each of n places.

    Parameters
    ----------
    scale
        Scale with the largest statistic, shape (n,).
    variance
        Moderated variance of the residuals on that scale, at least 1, shape (n,).
    pvalue
        Two-sided, of each place on its own, shape (n,).
    pooled_pvalue
        Share of the statistics of all places in all rotations that are at least as large, shape (n,). It resolves more
        than the rotations of one place do, which q-values need (SAM; Tusher et al. 2001, doi 10.1073/pnas.091062498),
        but holds on average over the places, not for each.
    largest_pvalue
        Share of the rotations whose largest statistic over all places is at least as large, shape (n,).
    mean_pvalue
        Share of the rotations whose mean squared statistic over all places is at least that of the data.
    """

    scale: np.ndarray
    variance: np.ndarray
    pvalue: np.ndarray
    pooled_pvalue: np.ndarray
    largest_pvalue: np.ndarray
    mean_pvalue: float


def coordinates(residuals: np.ndarray, designs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of residuals in the space that a place's nuisance leaves; the first is that of the tested column.

    The other axes are as near as can be to axes that all places share, so that one rotation turns all places alike and
    keeps how they depend on each other.

    Parameters
    ----------
    residuals
        Standardised residuals without the tested column, shape (n, n_samples).
    designs
        Weighted designs, the tested column last, shape (n, n_samples, k).

    Returns
    -------
    Coordinates, shape (n, n_samples - k + 1); the first axis, shape (n, n_samples); and the length of what the nuisance
    leaves of the tested column, shape (n,).
    """
    axes, triangle = np.linalg.qr(designs)
    sign = np.sign(triangle[:, -1, -1])
    sign[sign == 0.0] = 1.0
    common, _, _ = np.linalg.svd(designs.mean(0), full_matrices=True)
    common = common[:, designs.shape[2] :]
    own = np.einsum("nsk,ns->nk", axes, residuals)
    overlap = np.einsum("nsk,sr->nkr", axes, common)
    rest = residuals @ common - np.einsum("nkr,nk->nr", overlap, own)
    # (1 - M'M)^(-1/2), with which the axes, less their part in the design, are orthonormal again.
    _, values, right = np.linalg.svd(overlap, full_matrices=False)
    stretch = 1.0 / np.sqrt(np.maximum(1.0 - values**2, 1e-6)) - 1.0
    rest = rest + np.einsum("nkr,nk->nr", right, stretch * np.einsum("nkr,nr->nk", right, rest))
    return np.column_stack([sign * own[:, -1], rest]), sign[:, None] * axes[:, :, -1], np.abs(triangle[:, -1, -1])


def rotate(
    values: np.ndarray,
    rng: np.random.Generator,
    *,
    weights: np.ndarray,
    is_tested: np.ndarray,
    n_rotations: int = N_ROTATIONS,
) -> RotationTest:
    r"""Compare the moderated t of the first coordinate with what it is after random rotations.

    Without an effect the coordinates of a place are normal with one variance, so that every rotation of them is as
    likely as the data (Langsrud 2005, doi 10.1007/s11222-005-4789-5; limma's roast, Wu et al. 2010,
    doi 10.1093/bioinformatics/btq401). All places and scales are rotated together. Unlike permutations of labels
    rotations are many with three samples against three, and work with any design.

    Parameters
    ----------
    values
        Coordinates of every scale and place, shape (n_scales, n, r).
    rng
        Source of the rotations.
    weights
        What each place counts for in the pooled p-value and the mean, shape (n,).
    is_tested
        Where the statistic is defined, shape (n_scales, n); elsewhere it is 0.
    n_rotations
        Number of rotations, the first being none.
    """
    df = values.shape[2] - 1
    total = (values**2).sum(2)
    directions = rng.normal(size=(n_rotations, df + 1))
    directions[0] = np.eye(df + 1)[0]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weights = weights / weights.sum()
    # A rotation keeps the length of a place's residuals. Where next to no cells are expected, or few samples say
    # anything, they are short whatever is true; their squares are taken to be half of normal ones at least.
    stretch = np.maximum(SHORTEST * (df + 1) / np.maximum(total, np.finfo(float).tiny), 1.0)

    def statistic(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        effect = np.einsum("br,kpr->bkp", block, values, optimize=True)
        variance = np.maximum(moderated((total - effect**2) / df, df, is_tested), 1.0)
        return np.where(is_tested, effect**2 / variance, 0.0), variance

    square, variance = (part[0] for part in statistic(directions[:1]))
    scale, places = square.argmax(0), np.arange(values.shape[1])
    limit, mean_limit = square.max(0) * (1.0 - TIE), float(square.mean(0) @ weights) * (1.0 - TIE)
    above, above_largest, above_mean = np.zeros(len(limit)), np.zeros(len(limit)), 0
    reached, order = np.zeros(len(limit) + 1), np.argsort(limit)
    for block in _blocks(directions, values.shape[0] * values.shape[1]):
        squares = statistic(block)[0] * stretch
        found = squares.max(1)
        above += (found >= limit).sum(0)
        above_largest += (found.max(1)[:, None] >= limit).sum(0)
        above_mean += int((squares.mean(1) @ weights >= mean_limit).sum())
        n_reached = np.searchsorted(limit[order], found, side="right")
        reached += np.bincount(n_reached.ravel(), np.broadcast_to(weights, found.shape).ravel(), len(limit) + 1)
    pooled = np.empty(len(limit))
    pooled[order] = reached[::-1].cumsum()[::-1][1:]
    return RotationTest(
        scale=scale,
        variance=variance[scale, places],
        pvalue=above / n_rotations,
        pooled_pvalue=pooled / n_rotations,
        largest_pvalue=above_largest / n_rotations,
        mean_pvalue=above_mean / n_rotations,
    )


def prior_variance(variances: np.ndarray, df: int, counted: np.ndarray | bool = True) -> tuple[np.ndarray, np.ndarray]:
    r"""Degrees of freedom and location of a scaled inverse chi-square prior, by the moments of the log variances.

    With :math:`s^2 \sim s_0^2 F_{df, d_0}` the logarithm has its moments in closed form (Smyth 2004, section 6.2).

    Parameters
    ----------
    variances
        Sample variances of one rotation per row, shape (..., n).
    df
        Their degrees of freedom.
    counted
        Which of them count, of a shape that fits.

    Returns
    -------
    :math:`d_0`, infinite where the variances differ no more than by chance, and :math:`s_0^2`, each of shape (...).
    """
    tiny = np.finfo(float).tiny
    logs = np.log(np.maximum(variances, tiny)) - digamma(df / 2) + np.log(df / 2)
    counted = np.broadcast_to(counted, logs.shape)
    n = np.maximum(counted.sum(-1), 1)
    mean = np.where(counted, logs, 0.0).sum(-1) / n
    spread = np.where(counted, (logs - mean[..., None]) ** 2, 0.0).sum(-1) / np.maximum(n - 1, 1)
    excess = np.where(n > 1, spread - polygamma(1, df / 2), 0.0)
    d0 = 2.0 * _inverse_trigamma(np.maximum(excess, SAME))
    location = np.exp(mean + digamma(d0 / 2) - np.log(d0 / 2))
    return np.where(excess <= SAME, np.inf, d0), np.where(excess <= SAME, np.exp(mean), location)


def moderated(variances: np.ndarray, df: int, counted: np.ndarray | bool = True) -> np.ndarray:
    """Variances, shape (..., n), drawn to the prior of those that count."""
    variances = np.maximum(variances, 0.0)
    d0, location = (part[..., None] for part in prior_variance(variances, df, counted))
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


def _blocks(directions: np.ndarray, size: int) -> Iterator[np.ndarray]:
    step = max(BLOCK // max(size, 1), 1)
    for start in range(0, len(directions), step):
        yield directions[start : start + step]
