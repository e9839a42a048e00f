"""Means over groups of cells."""

from __future__ import annotations

import numpy as np


def mean_and_error(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Mean log ratio of a group of cells and its standard error.

    The error covers the spread of the cells and, as if it were the same in all of them, the standard error of their log
    ratios, which come from the same networks.

    Parameters
    ----------
    values
        Log ratios, shape (n,).
    errors
        Their standard errors; NaN where there are none.
    """
    spread = values.var(ddof=1) / len(values) if len(values) > 1 else 0.0
    shared = np.nan_to_num(errors) ** 2
    return float(values.mean()), float(np.sqrt(spread + shared.mean()))
