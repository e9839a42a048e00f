"""Means over groups of cells."""

from __future__ import annotations

import numpy as np


def mean_and_error(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Compute the mean log ratio of a group of cells and its standard error.

    The standard error includes the spread of the cells and the standard error of their log ratios. The latter is
    treated as one error shared by all cells, because their log ratios come from the same networks.

    Parameters
    ----------
    values
        Log ratios, shape (n,).
    errors
        Standard errors of the log ratios; NaN counts as 0.
    """
    spread = values.var(ddof=1) / len(values) if len(values) > 1 else 0.0
    shared = np.nan_to_num(errors) ** 2
    return float(values.mean()), float(np.sqrt(spread + shared.mean()))
