"""One forward pass: the difference of two potentials."""

from __future__ import annotations

import torch
from torch import Tensor

from scratio.estimators._solver import initial_state, widened
from scratio.module import Condition, PotentialNetwork


def log_ratio_head(network: PotentialNetwork, x: Tensor, numerator: Condition, denominator: Condition) -> Tensor:
    """Log ratio in nats at the smallest noise level, shape (n_members, n).

    Antisymmetric and transitive by construction.
    """
    z = initial_state(network, x).to(network.dtype)
    q = torch.full((1, 1, 1), network.path.q_end, dtype=network.dtype, device=z.device)
    top, bottom = network.log_likelihoods(z, q, [numerator, denominator])
    return widened(top) - widened(bottom)
