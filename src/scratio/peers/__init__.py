"""Other estimators of density ratios for comparisons: call ``fit(x_num, x_den)``, then ``log_ratio(x)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scratio.peers._adapters import MELD, CellTest, is_installed, milo, mrvi
from scratio.peers._base import RatioEstimator
from scratio.peers._classifiers import Classifier
from scratio.peers._naive import NaiveFlows
from scratio.peers._plug_in import ClassGaussians, Neighbors
from scratio.peers._time_scores import CTSM, TSM

PEERS: dict[str, Callable[..., RatioEstimator]] = {
    "tsm": lambda **kwargs: TSM(path="gaussian", **kwargs),
    "tsm-sb": lambda **kwargs: TSM(path="bridge", **kwargs),
    "ctsm": lambda **kwargs: CTSM(path="gaussian", **kwargs),
    "ctsm-sb": lambda **kwargs: CTSM(path="bridge", **kwargs),
    "ctsm-v": lambda **kwargs: CTSM(path="gaussian", vector=True, **kwargs),
    "ctsm-v-sb": lambda **kwargs: CTSM(path="bridge", vector=True, **kwargs),
    "naive": NaiveFlows,
    "logistic": lambda **kwargs: Classifier(kind="logistic", **kwargs),
    "boosting": lambda **kwargs: Classifier(kind="boosting", **kwargs),
    "mlp": lambda **kwargs: Classifier(kind="mlp", **kwargs),
    "qda": lambda random_state=0, **kwargs: ClassGaussians(**kwargs),
    "knn": lambda random_state=0, **kwargs: Neighbors(**kwargs),
    "meld": lambda random_state=0, **kwargs: MELD(**kwargs),
}
"""Peers by the names that benchmarks and :func:`scratio.tl.compare_methods` use; each takes a ``random_state``."""

IN_SAMPLE = ("meld",)
"""Names of estimators that score only the cells they were fitted on."""


def make(name: str, **kwargs: Any) -> RatioEstimator:
    """Make an estimator by its name.

    Parameters
    ----------
    name
        One of :data:`PEERS`.
    **kwargs
        Settings of the estimator.

    Returns
    -------
    Estimator with the methods ``fit(x_num, x_den)`` and ``log_ratio(x)``.

    Raises
    ------
    ValueError
        If no estimator has this name.
    ImportError
        If the estimator needs a package that is not installed.
    """
    if name not in PEERS:
        raise ValueError(f"no method {name!r}; there are {list(PEERS)}")
    return PEERS[name](**kwargs)


__all__ = [
    "CTSM",
    "IN_SAMPLE",
    "MELD",
    "PEERS",
    "TSM",
    "CellTest",
    "ClassGaussians",
    "Classifier",
    "NaiveFlows",
    "Neighbors",
    "RatioEstimator",
    "is_installed",
    "make",
    "milo",
    "mrvi",
]
