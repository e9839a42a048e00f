"""Test across samples whether the share of cells near a place depends on the sample's condition."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scratio.stats._count_model import (
    SampleDesign,
    common_dispersion,
    fit_means,
    quantile_residuals,
    variance_factors,
)
from scratio.stats._fdr import weighted_fdr
from scratio.stats._rotation import N_ROTATIONS, coordinates, rotate

FEWEST = 1.5
"""Effective number of donors on either side below which a place is not tested."""
MAX_ROUNDS, SETTLED = 8, 0.05


@dataclass(frozen=True)
class SampleTest:
    """Outcome at each of n places.

    Parameters
    ----------
    effect
        Log ratio between the groups, or slope per unit of the tested number, in nats, shape (n,). Bias-reduced.
    standard_error
        Its standard error across samples, shape (n,).
    pvalue
        Two-sided, of each place on its own, shape (n,).
    qvalue
        False discovery rate, places counting by their weights; never less than the global p-value. Shape (n,).
    familywise_pvalue
        Probability that any place would be as extreme if nothing differed anywhere, shape (n,).
    global_pvalue
        Probability of what is seen in all places together if nothing differs anywhere: twice the smaller of those of
        the largest and of the mean squared statistic, one being sensitive to sharp, the other to broad differences.
    scale
        Scale that each place was judged on, shape (n,).
    variance_factor
        How many times the variance of the others each sample is given, shape (n_samples,).
    dispersion
        Variance of a sample's log abundance beyond counting, on each scale, shape (n_scales,).
    """

    effect: np.ndarray
    standard_error: np.ndarray
    pvalue: np.ndarray
    qvalue: np.ndarray
    familywise_pvalue: np.ndarray
    global_pvalue: float
    scale: np.ndarray
    variance_factor: np.ndarray
    dispersion: np.ndarray

    def at(self, places: np.ndarray) -> SampleTest:
        """Outcome at some of the places."""
        own = ("effect", "standard_error", "pvalue", "qvalue", "familywise_pvalue", "scale")
        return replace(self, **{name: getattr(self, name)[places] for name in own})


@dataclass(frozen=True)
class _Fit:
    """Null model of one scale: residuals and weights, shape (n_samples, n), and dispersion."""

    residuals: np.ndarray
    working: np.ndarray
    dispersion: float


def compare_samples(
    counts: np.ndarray,
    design: SampleDesign,
    rng: np.random.Generator,
    *,
    donors: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    n_rotations: int = N_ROTATIONS,
) -> SampleTest:
    r"""Test at every place whether the tested column changes the share of a sample's cells that lie there.

    The counts follow :math:`\log E\,y_{sp} = \log n_s + x_s^\top \beta_p` with the variance
    :math:`\phi_p (\mu + \alpha \mu^2)` of a negative-binomial quasi-likelihood (Lund et al. 2012,
    doi 10.1515/1544-6115.1826). All places share :math:`\alpha`. Each place has its own :math:`\phi_p`, which is
    moderated over the places and at least 1. The statistic is the moderated t of the score for the tested column. Its
    null distribution comes from rotations of the residuals; all places and scales use the same rotations. The largest
    statistic over the scales is used.

    Parameters
    ----------
    counts
        Cells of every sample near every place, on one or several scales, shape (n_scales, n_samples, n).
    design
        What is tested and held fixed, and how large the samples are.
    rng
        Source of the rotations.
    donors
        Donor of each sample, shape (n_samples,). By default each sample has its own donor. A place is not tested, and
        has a p-value of 1, if the treatment or the reference rests on one donor alone (:func:`replicates_at`).
    weights
        Weight of each place in the q-values and in the global p-value, shape (n,); equal by default.
    n_rotations
        Number of rotations.

    Raises
    ------
    ValueError
        If no residual degree of freedom is left, or the nuisance determines the tested column.
    """
    design.check()
    donors = np.arange(len(design.tested)) if donors is None else donors
    weights = np.ones(counts.shape[2]) if weights is None else weights
    precision = 1.0 / _variance_factor(counts, design)
    fits = [_null_fit(of_scale, design, precision) for of_scale in counts]
    values, axes, lengths = zip(
        *(coordinates(fit.residuals.T, np.sqrt(fit.working).T[:, :, None] * design.full) for fit in fits), strict=True
    )
    is_tested = np.stack([replicates_at(axis, donors) for axis in axes]) >= FEWEST
    found = rotate(np.stack(values), rng, weights=weights, is_tested=is_tested, n_rotations=n_rotations)
    places = np.arange(counts.shape[2])
    dispersion = np.array([fit.dispersion for fit in fits])
    global_pvalue = min(2.0 * min(float(found.largest_pvalue.min()), found.mean_pvalue), 1.0)
    return SampleTest(
        effect=_effects(counts, design, found.scale, dispersion, precision),
        standard_error=np.sqrt(found.variance) / np.stack(lengths)[found.scale, places],
        pvalue=found.pvalue,
        qvalue=np.maximum(weighted_fdr(found.pooled_pvalue, weights), global_pvalue),
        familywise_pvalue=np.minimum(2.0 * found.largest_pvalue, 1.0),
        global_pvalue=global_pvalue,
        scale=found.scale,
        variance_factor=1.0 / precision,
        dispersion=dispersion,
    )


def replicates_at(axes: np.ndarray, donors: np.ndarray) -> np.ndarray:
    r"""Effective number of donors on the side that has fewer, at every place, shape (n,).

    The direction of the tested column has a positive side, for example the treated samples, and a negative one. With
    :math:`g_d` the part of donor d in the square of a side, the side has :math:`(\sum_d g_d)^2 / \sum_d g_d^2` donors:
    their number, if all say alike much. What one donor alone says of a side cannot be told from what is peculiar to it,
    whatever its counts: the only pair with cells at a place, or a sample that is many times as large as the others.

    Parameters
    ----------
    axes
        Unit direction of the tested column at every place, shape (n, n_samples).
    donors
        Donor of each sample, shape (n_samples,).
    """
    codes = np.unique(donors, return_inverse=True)[1]
    of_donor = codes[:, None] == np.arange(codes.max() + 1)
    sides = []
    for side in (axes > 0.0, axes < 0.0):
        share = np.where(side, axes**2, 0.0) @ of_donor
        sides.append(share.sum(1) ** 2 / np.maximum((share**2).sum(1), np.finfo(float).tiny))
    return np.minimum(*sides)


def effects_without(counts: np.ndarray, design: SampleDesign, test: SampleTest, rows: np.ndarray) -> np.ndarray:
    """Compute the effect at every place without some samples, shape (n,); NaN if it cannot be estimated.

    Parameters
    ----------
    counts, design
        As in :func:`compare_samples`.
    test
        Outcome of :func:`compare_samples`. Its scales, dispersions and variance factors are used again.
    rows
        Numbers of the samples to leave out.
    """
    rest = design.without(rows)
    try:
        rest.check()
    except ValueError:
        return np.full(counts.shape[2], np.nan)
    precision = np.delete(1.0 / test.variance_factor, rows)
    return _effects(np.delete(counts, rows, axis=1), rest, test.scale, test.dispersion, precision)


def _variance_factor(counts: np.ndarray, design: SampleDesign) -> np.ndarray:
    """Variance factor of every sample, from all scales and places, shape (n_samples,).

    Repeated until it settles: in a small group an outlier draws the mean to itself, and away from the others, until it
    weighs less.
    """
    factor = np.ones(len(design.sizes))
    for _ in range(MAX_ROUNDS):
        fits = [_null_fit(of_scale, design, 1.0 / factor) for of_scale in counts]
        residuals = np.concatenate([fit.residuals for fit in fits], axis=1)
        working = np.concatenate([fit.working for fit in fits], axis=1)
        before, factor = factor, variance_factors(residuals, working, design, factor)
        if np.abs(np.log(factor / before)).max() < SETTLED:
            break
    return factor


def _null_fit(counts: np.ndarray, design: SampleDesign, precision: np.ndarray) -> _Fit:
    """Model without the tested column."""
    dispersion = common_dispersion(counts, design, precision)
    means = fit_means(counts, design.basis, design.sizes, dispersion=dispersion, precision=precision)[1]
    weights = precision[:, None]
    residuals = np.sqrt(weights) * quantile_residuals(counts, means, dispersion)
    working = weights * means / (1.0 + dispersion * means)
    return _Fit(residuals, working, dispersion)


def _effects(
    counts: np.ndarray, design: SampleDesign, scale: np.ndarray, dispersion: np.ndarray, precision: np.ndarray
) -> np.ndarray:
    """Bias-reduced coefficient of the tested column, every place on its scale, in nats per unit, shape (n,)."""
    # A number in its own units, such as an age in days, would make the equations ill-conditioned.
    spread = float(design.tested.std())
    columns = np.column_stack([design.basis, design.tested / spread])
    found = np.empty(len(scale))
    for index, of_scale in enumerate(counts):
        places = scale == index
        coefficients, _ = fit_means(
            of_scale[:, places],
            columns,
            design.sizes,
            dispersion=float(dispersion[index]),
            precision=precision,
            bias_reduced=True,
        )
        found[places] = coefficients[-1] / spread
    return found
