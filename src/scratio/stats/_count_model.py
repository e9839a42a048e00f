"""Log-linear model of how many cells of each sample lie in each neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtri
from scipy.stats import nbinom, poisson

DEPENDENT = 1e-9
"""Relative size below which a column of a design is a combination of the others."""
MAX_ITERATIONS, CONVERGED, LARGEST_STEP, RIDGE = 25, 1e-6, 2.0, 1e-6
START = 0.3
"""Dispersion that its estimation starts from."""
POISSON = 1e-6
"""Dispersion below which counts are Poisson."""
FITTED = 0.05
"""If the design leaves less than this part of a sample's residuals, its variance is not judged."""
OUTLYING = 2.0
"""A sample counts in full if its variance is at most this multiple of the median over the samples."""


@dataclass(frozen=True)
class SampleDesign:
    """Design of a test across samples: the tested column and the columns that are held fixed.

    Parameters
    ----------
    tested
        Indicator of the treatment, or a number, of every sample, shape (n_samples,).
    nuisance
        Columns that are held fixed besides the intercept, shape (n_samples, n_columns).
    sizes
        Number of cells of every sample, shape (n_samples,).
    """

    tested: np.ndarray
    nuisance: np.ndarray
    sizes: np.ndarray

    @cached_property
    def basis(self) -> np.ndarray:
        """Orthonormal basis of intercept and nuisance, shape (n_samples, rank)."""
        columns = np.column_stack([np.ones(len(self.tested)), self.nuisance])
        vectors, values, _ = np.linalg.svd(columns, full_matrices=False)
        return vectors[:, values > DEPENDENT * values.max()]

    @property
    def full(self) -> np.ndarray:
        """Basis and tested column, shape (n_samples, rank + 1)."""
        return np.column_stack([self.basis, self.tested])

    @property
    def residual_df(self) -> int:
        """Samples less coefficients."""
        return len(self.tested) - self.basis.shape[1] - 1

    def without(self, rows: np.ndarray) -> SampleDesign:
        """Leave samples out."""
        tested, nuisance, sizes = (np.delete(part, rows, axis=0) for part in (self.tested, self.nuisance, self.sizes))
        return SampleDesign(tested, nuisance, sizes)

    def check(self) -> None:
        """Refuse a design whose tested column cannot be estimated.

        Raises
        ------
        ValueError
            If no residual degree of freedom is left, or the nuisance determines the tested column.
        """
        n, rank = self.basis.shape
        if self.residual_df < 1:
            raise ValueError(f"{n} samples leave no degree of freedom for {rank + 1} coefficients")
        rest = self.tested - self.basis @ (self.basis.T @ self.tested)
        if np.abs(rest).max() <= DEPENDENT * np.abs(self.tested).max():
            raise ValueError("what is tested cannot be told apart from the covariates")


def fit_means(
    counts: np.ndarray,
    columns: np.ndarray,
    sizes: np.ndarray,
    *,
    dispersion: float,
    precision: np.ndarray,
    bias_reduced: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Fit :math:`\log \mu_{sp} = \log n_s + x_s^\top \beta_p` with variance :math:`(\mu + \alpha \mu^2) / w_s`.

    Iteratively reweighted least squares for all places at once. The bias-reduced estimate solves Firth's adjusted
    score (1993, doi 10.1093/biomet/80.1.27), for the log link half a leverage added to each weighted residual: it is
    finite where a group has no cell in a place, and small samples do not drag it away from 0.

    Parameters
    ----------
    counts
        Cells of every sample in every place, shape (n_samples, n).
    columns
        Design, shape (n_samples, k); its span holds the intercept.
    sizes
        Cells of every sample, shape (n_samples,).
    dispersion
        :math:`\alpha`.
    precision
        Weights :math:`w_s`, shape (n_samples,).
    bias_reduced
        Whether to solve the adjusted score.

    Returns
    -------
    Coefficients, shape (k, n), and means, shape (n_samples, n).
    """
    offset, weights = np.log(sizes)[:, None], precision[:, None]
    rate = np.log((counts.sum(0) + 0.5) / sizes.sum())
    coefficients = np.linalg.lstsq(columns, np.ones(len(sizes)), rcond=None)[0][:, None] * rate
    k = columns.shape[1]
    products = (columns[:, :, None] * columns[:, None]).reshape(len(columns), -1)
    for _ in range(MAX_ITERATIONS):
        means = np.exp(np.clip(columns @ coefficients + offset, -30.0, 30.0))
        variance = 1.0 + dispersion * means
        working = weights * means / variance
        information = (working.T @ products).reshape(-1, k, k) + RIDGE * np.eye(k)
        residual = weights * (counts - means) / variance
        if bias_reduced:
            inverse = np.linalg.inv(information).reshape(-1, k * k)
            residual = residual + 0.5 * working * (products @ inverse.T)
        step = np.linalg.solve(information, (residual.T @ columns)[..., None])[..., 0].T
        largest = np.abs(columns @ step).max(0)
        coefficients = coefficients + step * np.minimum(LARGEST_STEP / np.maximum(largest, 1e-12), 1.0)
        if largest.max(initial=0.0) < CONVERGED:
            break
    return coefficients, np.exp(np.clip(columns @ coefficients + offset, -30.0, 30.0))


def common_dispersion(counts: np.ndarray, design: SampleDesign, precision: np.ndarray) -> float:
    r"""Dispersion :math:`\alpha` that all places share, by weighted moments of the residuals of the full design.

    Every place says :math:`E (y - \mu)^2 = \mu + \alpha \mu^2` less what the fit takes away. The differences between
    places are left to their own variances.
    """
    alpha = START
    for _ in range(8):
        means = fit_means(counts, design.full, design.sizes, dispersion=alpha, precision=precision)[1]
        working = precision[:, None] * means / (1.0 + alpha * means)
        # A sample that is much larger than the others of its group has next to no residual of its own.
        kept = np.maximum(1.0 - leverages(working, design), DEPENDENT)
        estimate = (precision[:, None] * (counts - means) ** 2 / kept - means) / means**2
        # The inverse of the estimate's own variance, up to a factor.
        weight = kept * (means / (1.0 + alpha * means)) ** 2
        alpha = max(float((weight * estimate).sum() / weight.sum()), 0.0)
    return alpha


def leverages(working: np.ndarray, design: SampleDesign) -> np.ndarray:
    """Part of each count that its own fitted mean takes from it, shape (n_samples, n)."""
    axes = np.linalg.qr(np.sqrt(working).T[:, :, None] * design.full)[0]
    return (axes**2).sum(2).T


def quantile_residuals(counts: np.ndarray, means: np.ndarray, dispersion: float) -> np.ndarray:
    """Normal scores of counts, at the middle of the probability that the model gives to each count.

    They are nearly standard normal where Pearson's residuals are skewed, for small counts above all (Dunn and Smyth
    1996, doi 10.1080/10618600.1996.10474708, with the middle in place of a random point; edgeR's zscoreNBinom).
    """
    if dispersion < POISSON:
        law = poisson(means)
    else:
        size = 1.0 / dispersion
        law = nbinom(size, size / (size + means))
    half = 0.5 * law.pmf(counts)
    # The smaller tail, which keeps its digits.
    tiny = np.finfo(float).tiny
    lower, upper = law.cdf(counts - 1) + half, law.sf(counts) + half
    return np.where(lower < upper, ndtri(np.maximum(lower, tiny)), -ndtri(np.maximum(upper, tiny)))


def variance_factors(
    residuals: np.ndarray, working: np.ndarray, design: SampleDesign, current: np.ndarray
) -> np.ndarray:
    """By how much the variance of each sample exceeds that of the others, at least 1, shape (n_samples,).

    The factor is the mean square of a sample's residuals over all places, relative to the median over the samples. Up
    to twice the median counts as chance. A sample that differs from its group everywhere (another tissue, a failed run)
    then weighs less (as limma's arrayWeights; Ritchie et al. 2006, doi 10.1186/1471-2105-7-261).

    Parameters
    ----------
    residuals, working
        Standardised residuals and weights, shape (n_samples, n).
    design
        Full design, whose part of the residuals is taken away.
    current
        Variance factors that the residuals were standardised with, shape (n_samples,).
    """
    root = np.sqrt(working).T[:, :, None]
    axes = np.linalg.qr(root * design.full)[0]
    rest = residuals.T - (axes @ (axes.transpose(0, 2, 1) @ residuals.T[:, :, None]))[..., 0]
    kept = 1.0 - (axes**2).sum(2)
    square = current * (rest**2).sum(0) / np.maximum(kept.sum(0), DEPENDENT)
    # Samples that the design fits exactly, such as the only one of its site, have no residual to be judged by.
    judged = kept.mean(0) > FITTED
    if not judged.any():
        return np.ones(len(square))
    factor = np.maximum(square / max(float(np.median(square[judged])), DEPENDENT) / OUTLYING, 1.0)
    return np.where(judged, factor, 1.0)
