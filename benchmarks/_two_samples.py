"""Cells of two samples for methods that estimate a log ratio: what to learn from, and what to score.

Needs nothing but numpy, since peers in environments of their own import it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]
Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | slice]
"""Training cells, which of them are treated, cells to score, and their rows in the answer."""


def parts(cells: Arrays) -> Iterator[Part]:
    """Yield what to learn from and what to score: fresh cells, or every fold by a training on the others.

    Parameters
    ----------
    cells
        ``x``, shape (n, d), and ``is_treated``, shape (n,); beside these either ``fresh``, shape (m, d), or ``fold``,
        shape (n,).
    """
    x, is_treated = cells["x"], cells["is_treated"]
    if "fresh" in cells:
        yield x, is_treated, cells["fresh"], slice(None)
        return
    for fold in np.unique(cells["fold"]):
        own = cells["fold"] == fold
        yield x[~own], is_treated[~own], x[own], np.flatnonzero(own)


def scored(
    estimate: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray], cells: Arrays, most: int | None = None
) -> dict[str, np.ndarray]:
    """Log ratios of all cells that are to be scored, and the number of cells that the method learnt from.

    Parameters
    ----------
    estimate
        From training cells, which of them are treated, cells to score, and a seed, to log ratios.
    cells
        As in :func:`parts`, and ``seed``.
    most
        Largest number of training cells; a random subset is used if there are more.
    """
    seed = int(cells["seed"])
    found = np.full(len(cells["fresh" if "fresh" in cells else "x"]), np.nan)
    n_train = 0
    for x, is_treated, wanted, rows in parts(cells):
        used = np.arange(len(x))
        if most is not None and len(x) > most:
            used = np.random.default_rng(seed).choice(len(x), most, replace=False)
        found[rows] = estimate(x[used], is_treated[used], wanted, seed)
        n_train = max(n_train, len(used))
    return {"log_ratio": found, "n_train": np.array(n_train)}


def class_log_odds(is_treated: np.ndarray) -> float:
    """Log odds of the class sizes, which are no part of a log ratio."""
    return float(np.log(is_treated.sum()) - np.log((~is_treated).sum()))


def log_odds(probability: np.ndarray, smallest: float = 1e-12) -> np.ndarray:
    """Log odds of the second of two classes; probabilities below ``smallest`` are raised to it.

    Parameters
    ----------
    probability
        Of both classes, shape (n, 2).
    smallest
        Lower limit, which limits the log odds to 27.6 nats.
    """
    log_p = np.log(np.maximum(probability.astype(float), smallest))
    return log_p[:, 1] - log_p[:, 0]


def log_of_ratio(ratio: np.ndarray, n_train: int) -> np.ndarray:
    """Log of a ratio, limited to what a sample can tell: 1 / ``n_train`` to ``n_train``.

    Kernel methods return ratios of 0, whose log is infinite, and of less than 1e-100.
    """
    return np.log(np.clip(ratio, 1.0 / n_train, n_train))
