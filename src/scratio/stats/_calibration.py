"""Whether held-out labels follow the log ratio, and how far the two conditions overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, logsumexp
from sklearn.neighbors import NearestNeighbors

from scratio._constants import SIGNIFICANT
from scratio.stats._label_weights import label_slopes

N_BINS, N_AVERAGED = 10, 20


@dataclass(frozen=True)
class Calibration:
    """Slope of the labels on the log ratio, and its standard error; 1 where the log ratio is right on average."""

    slope: float
    standard_error: float


def label_slope(
    log_ratio: np.ndarray, is_treatment: np.ndarray, offset: np.ndarray, groups: np.ndarray | None = None
) -> Calibration:
    r"""Fit the slope a of the logistic model :math:`\operatorname{logit} P(treatment | x) = offset + b + a \log r(x)`.

    Parameters
    ----------
    log_ratio
        Log ratio of held-out cells in nats, shape (n,).
    is_treatment
        Whether each cell is of the treatment, shape (n,).
    offset
        Log odds of the treatment from the numbers of cells alone, shape (n,).
    groups
        Sample of each cell, integers, shape (n,). If given, the standard error is across samples.

    Returns
    -------
    Slope and its standard error, both NaN if the log ratio is equal for all cells.
    """
    nothing = np.zeros_like(log_ratio)

    def logits(values: np.ndarray) -> np.ndarray:
        return np.stack([nothing, values], axis=1)

    terms = np.stack([logits(log_ratio), logits(np.ones_like(log_ratio))])
    if np.ptp(log_ratio) == 0.0:
        return Calibration(float("nan"), float("nan"))
    found = label_slopes(logits(offset), terms, is_treatment.astype(int), groups)
    return Calibration(float(found.slope[0]), float(found.standard_error[0]))


def reliability(
    log_ratio: np.ndarray, is_treatment: np.ndarray, offset: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Compute expected and observed log ratios of ten groups of cells with similar log ratios.

    Parameters
    ----------
    log_ratio, is_treatment, offset, groups
        As in :func:`label_slope`.

    Returns
    -------
    Columns of a table: number of cells, ``expected`` and ``observed`` log ratio of each group in nats, and the standard
    error of the observed log ratio, from the numbers of cells or across samples. Half a cell is added to each
    condition.
    """
    order = np.argsort(log_ratio, kind="stable")
    bins = [part for part in np.array_split(order, min(N_BINS, len(order))) if len(part)]
    base = logit([expit(offset[part]).mean() for part in bins])
    treated = np.array([is_treatment[part].sum() for part in bins]) + 0.5
    others = np.array([(~is_treatment[part]).sum() for part in bins]) + 0.5
    # Half a cell to either side here too, so that certainty is as finite as what is observed.
    sizes = np.array([len(part) for part in bins])
    design = [1.0 if groups is None else _design_effect(is_treatment[part], groups[part]) for part in bins]
    share = np.array([expit(offset[part] + log_ratio[part]).sum() for part in bins])
    return {
        "n_cells": sizes,
        "expected": logit((share + 0.5) / (sizes + 1.0)) - base,
        "observed": np.log(treated / others) - base,
        "standard_error": np.sqrt(1.0 / treated + 1.0 / others) * np.sqrt(design),
    }


def _design_effect(is_treatment: np.ndarray, groups: np.ndarray) -> float:
    """Factor by which the variance of a share exceeds that of independent cells, at least 1."""
    residual = is_treatment - is_treatment.mean()
    independent = (residual**2).sum()
    return max(float((np.bincount(groups, weights=residual) ** 2).sum() / independent), 1.0) if independent else 1.0


def overlap(log_ratio: np.ndarray, is_treatment: np.ndarray) -> dict[str, float]:
    r"""Estimate from the log ratio how far two conditions overlap.

    Parameters
    ----------
    log_ratio, is_treatment
        As in :func:`label_slope`.

    Returns
    -------
    ``overlap``, :math:`\int \min(p_{treatment}, p_{reference})`, from 0 (disjoint) to 1 (equal), and the effective
    numbers of cells :math:`(\sum w)^2 / \sum w^2`, which tell how many cells a comparison rests on. The reference's
    cells are weighted by :math:`w = r` to look like the treatment's, and the treatment's cells by :math:`w = 1 / r`.
    """
    sides = {"reference": log_ratio[~is_treatment], "treatment": -log_ratio[is_treatment]}
    shared = [np.exp(np.minimum(side, 0.0)).mean() for side in sides.values()]
    sizes = {
        f"effective_cells_{name}": float(np.exp(2.0 * logsumexp(side) - logsumexp(2.0 * side)))
        for name, side in sides.items()
    }
    return {"overlap": float(np.mean(shared)), **sizes}


def residual_inflation(
    x: np.ndarray,
    folds: np.ndarray,
    log_ratio: np.ndarray,
    error: np.ndarray,
    is_treatment: np.ndarray,
    offset: np.ndarray,
) -> float:
    r"""Estimate from held-out labels by which factor, at least, the variance of the log ratio is too small.

    Take two cells that are held out from the networks of both. The product of their residuals :math:`e = y - \hat p`
    is :math:`v_i v_j \epsilon_i \epsilon_j` on average, with :math:`v = \hat p (1 - \hat p)` and the errors
    :math:`\epsilon` of their log ratios. Errors of neighbours are similar, but no more than equal. So the ratio
    :math:`\sum e_i e_j / \sum v_i v_j s_i s_j` over pairs of neighbours is at most 1 if the standard errors s are
    right. It is above 1 if all networks are wrong together, for example after too short a training.

    Parameters
    ----------
    x
        Standardised embedding, shape (n, d).
    folds
        Fold of every cell, shape (n,). Pairs are cells of one fold.
    log_ratio, is_treatment, offset
        As in :func:`label_slope`.
    error
        Standard errors of the log ratios, shape (n,).

    Returns
    -------
    This ratio if it exceeds 1 by more than two of its standard errors, otherwise 1.
    """
    p = expit(offset + log_ratio)
    residual, variance = is_treatment - p, p * (1.0 - p)
    products, expected = [], 0.0
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        k = min(N_AVERAGED, len(rows) - 1)
        if k < 1:
            continue
        near = NearestNeighbors(n_neighbors=k).fit(x[rows]).kneighbors(return_distance=False)
        products.append(residual[rows] * residual[rows][near].sum(1))
        claimed = variance[rows] * error[rows]
        expected += float((claimed * claimed[near].sum(1)).sum())
    found = np.concatenate(products)
    # Most pairs come twice.
    noise = np.sqrt(2.0 * (found**2).sum())
    return float(found.sum() / expected) if found.sum() - SIGNIFICANT * noise > expected > 0.0 else 1.0
