"""Other estimators of density ratios, to compare with: ``fit(x_num, x_den)``, then ``log_ratio(x)``."""

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
"""Those that score the cells they are fitted on and no others."""


def make(name: str, **kwargs: Any) -> RatioEstimator:
    """A peer by its name.

    Parameters
    ----------
    name
        One of :data:`PEERS`.
    **kwargs
        Its settings.

    Raises
    ------
    ValueError
        If there is none of that name.
    ImportError
        If it needs a package that is not installed.
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
