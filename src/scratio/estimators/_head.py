"""One forward pass: differences of potentials."""

from __future__ import annotations

import torch
from torch import Tensor

from scratio.estimators._solver import initial_state, widened
from scratio.module import Condition, PotentialNetwork


def log_ratio_head(network: PotentialNetwork, x: Tensor, numerator: Condition, denominator: Condition) -> Tensor:
    """Log ratio in nats at the smallest noise level, shape (n_members, n).

    Antisymmetric and transitive by construction.
    """
    top, bottom = network.log_likelihoods(*_at_the_end(network, x), [numerator, denominator])
    return widened(top) - widened(bottom)


def log_likelihoods_head(network: PotentialNetwork, x: Tensor) -> Tensor:
    """Log density of every observed combination at the smallest noise level, in nats, up to a term that they share.

    Shape (n_members, n, n_combinations).
    """
    return widened(network.log_likelihoods_of_combinations(*_at_the_end(network, x)))


def _at_the_end(network: PotentialNetwork, x: Tensor) -> tuple[Tensor, Tensor]:
    """State of cells, and the coordinate of the smallest noise level."""
    z = initial_state(network, x).to(network.dtype)
    return z, torch.full((1, 1, 1), network.path.q_end, dtype=network.dtype, device=z.device)
