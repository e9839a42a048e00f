"""Scores of cells by trained networks: which network may score which cell, in blocks, with standard errors."""

from scratio.scoring._kept import Judges, KeptCells
from scratio.scoring._known import KnownCells
from scratio.scoring._lazy import is_dask, lazily
from scratio.scoring._methods import (
    BATCH_SIZES,
    DEFAULT_BATCH_SIZE,
    METHODS,
    Estimate,
    Estimator,
    choose,
    log_ratio_estimator,
    resolve,
)
from scratio.scoring._scorer import Scorer, networks_and_rows, placed

__all__ = [
    "BATCH_SIZES",
    "DEFAULT_BATCH_SIZE",
    "METHODS",
    "Estimate",
    "Estimator",
    "Judges",
    "KeptCells",
    "KnownCells",
    "Scorer",
    "choose",
    "is_dask",
    "lazily",
    "log_ratio_estimator",
    "networks_and_rows",
    "placed",
    "resolve",
]
