"""Labels predicted out of fold by scratio and its peers: what the benchmarks of real labels share."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from _methods import cells
from _rows import Clock
from sklearn.model_selection import StratifiedKFold

import scratio
from scratio import peers

N_FOLDS = 5
EFFORTS = {"scratio": {}, "scratio-quick": {"effort": "quick"}}
"""scratio's names here, and the arguments of each."""
QUICK = {"max_steps": 5}
"""Settings of scratio's training in the quick form of a benchmark."""


def available(methods: list[str]) -> list[str]:
    """Methods that this version of scratio has; says which are left out."""
    has_effort = "effort" in inspect.signature(scratio.tl.differential_abundance).parameters
    left_out = [name for name in methods if EFFORTS.get(name) and not has_effort]
    for name in left_out:
        print(f"{name} is left out: tl.differential_abundance of this version takes no effort", flush=True)
    return [name for name in methods if name not in left_out]


def log_odds(
    name: str, x: np.ndarray, is_treated: np.ndarray, seed: int, *, quick: bool = False
) -> tuple[np.ndarray, dict[str, float]]:
    """Log odds of the label of every cell by a method that did not see the cell, and the seconds it took.

    The log odds are the log ratio and the log odds of the class sizes in the other folds.

    Parameters
    ----------
    name
        ``"scratio"``, ``"scratio-quick"``, or that of a peer.
    x, is_treated
        Embedding, shape (n, d), and label of every cell, shape (n,).
    seed
        Seed of the folds and of the method.
    quick
        Whether scratio is to train next to nothing.
    """
    clock = Clock()
    if name in EFFORTS:
        found = _by_scratio(x, is_treated, seed, {**EFFORTS[name]}, QUICK if quick else {})
    else:
        found = _by_peer(name, x, is_treated, seed)
    return found, clock.read()


def _by_scratio(
    x: np.ndarray, is_treated: np.ndarray, seed: int, arguments: dict[str, Any], train_kwargs: dict[str, Any]
) -> np.ndarray:
    adata = cells(x, is_treated)
    scratio.tl.differential_abundance(
        adata,
        condition_key="condition",
        treatment="treated",
        reference="control",
        n_folds=N_FOLDS,
        random_state=seed,
        train_kwargs={"progress_bar": False, **train_kwargs},
        **arguments,
    )
    # The folds are stratified: the class sizes of the other folds are those of all cells, but for a cell or so.
    return adata.obs["da_log_ratio"].to_numpy() + np.log(is_treated.sum() / (~is_treated).sum())


def _by_peer(name: str, x: np.ndarray, is_treated: np.ndarray, seed: int) -> np.ndarray:
    found = np.empty(len(x))
    for others, own in StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(x, is_treated):
        top, bottom = x[others][is_treated[others]], x[others][~is_treated[others]]
        fitted = peers.make(name, random_state=seed).fit(top, bottom)
        found[own] = fitted.log_ratio(x[own]) + np.log(len(top) / len(bottom))
    return found


def losses(found: np.ndarray, is_treated: np.ndarray) -> np.ndarray:
    """Cross-entropy of the label of every cell in nats, by its log odds."""
    return np.logaddexp(0.0, np.where(is_treated, -found, found))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over cells, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
