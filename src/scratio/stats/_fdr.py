"""False discovery rates."""

from __future__ import annotations

import numpy as np


def weighted_fdr(pvalues: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    r"""Compute Benjamini-Hochberg q-values with a weight for each hypothesis.

    Weights are used as in the spatial false discovery rate of Milo (Dann et al. 2022,
    doi 10.1038/s41587-021-01033-z). If the weights are numbers of cells, the false discovery rate is measured over
    cells.

    Parameters
    ----------
    pvalues
        P-values, shape (n,).
    weights
        Positive weights, shape (n,); equal by default.
    """
    weights = np.ones(len(pvalues)) if weights is None else weights
    order = np.argsort(pvalues, kind="stable")
    ratio = pvalues[order] * weights.sum() / np.cumsum(weights[order])
    adjusted = np.empty(len(pvalues))
    adjusted[order] = np.minimum.accumulate(ratio[::-1])[::-1].clip(max=1.0)
    return adjusted
