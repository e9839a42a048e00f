"""Estimators of the log ratio by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from torch import Tensor

from scratio.conditions import ConditionDict
from scratio.estimators import (
    Divergence,
    log_ratio_head,
    log_ratio_ito,
    log_ratio_naive,
    log_ratio_ode,
    log_ratio_quadrature,
    normal_noise,
)
from scratio.estimators._ito import DEFAULT_STEPS, N_PATHS
from scratio.module import Condition, FlowNetwork, PotentialNetwork

METHODS = ("auto", "head", "ode", "naive", "quadrature", "ito")
BATCH_SIZES = {"head": 16_384, "ito": 512}
"""Default numbers of cells per batch, for the memory of paths; `DEFAULT_BATCH_SIZE` for the others."""
DEFAULT_BATCH_SIZE = 4_096
_PATHS = 22

Estimate = tuple[Tensor, Tensor | None]
Estimator = Callable[[FlowNetwork, Tensor, dict[str, Condition], Divergence, np.ndarray], Estimate]
"""From network, standardised cells, conditions, divergence and the cells as an array to the members' values and, where
there is one, their Monte-Carlo variance."""


def choose(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")


def resolve(method: str, has_potential: bool) -> str:
    """Name of the estimator that ``method`` stands for."""
    choose("method", method, METHODS)
    if method == "auto":
        return "head" if has_potential else "ode"
    if method == "head" and not has_potential:
        raise ValueError("method='head' reads a potential; make the model with parametrization='potential'")
    return method


def log_ratio_estimator(
    method: str, field: str | ConditionDict, n_steps: int | None
) -> tuple[Estimator, dict[str, ConditionDict]]:
    """Estimator of the log ratio, and the conditions it needs beside numerator and denominator."""

    def head(network, x, given, how, cells) -> Estimate:
        return log_ratio_head(cast(PotentialNetwork, network), x, given["numerator"], given["denominator"]), None

    def naive(network, x, given, how, cells) -> Estimate:
        ends = given["numerator"], given["denominator"]
        return log_ratio_naive(network, x, *ends, divergence=how, n_steps=n_steps), None

    def quadrature(network, x, given, how, cells) -> Estimate:
        ends = given["numerator"], given["denominator"]
        return log_ratio_quadrature(network, x, *ends, divergence=how, n_nodes=n_steps), None

    def ito(network, x, given, how, cells) -> Estimate:
        noise = normal_noise(cells, (N_PATHS, (n_steps or DEFAULT_STEPS) + 1, cells.shape[1]), _PATHS)
        return log_ratio_ito(network, x, given["numerator"], given["denominator"], noise=noise)

    def ode(network, x, given, how, cells) -> Estimate:
        along = given.get("field", "numerator")
        ends = given["numerator"], given["denominator"]
        return log_ratio_ode(network, x, *ends, field=along, divergence=how, n_steps=n_steps), None

    if isinstance(field, str):
        choose("field", field, ("numerator", "unconditional"))
    further: dict[str, ConditionDict] = {}
    if method == "ode" and field != "numerator":
        further["field"] = {} if isinstance(field, str) else field
    estimators = {"head": head, "naive": naive, "quadrature": quadrature, "ito": ito, "ode": ode}
    return estimators[method], further
