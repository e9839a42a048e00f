"""Likelihoods of the continuous normalising flow, and their difference (the paper's naive baseline)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scratio.estimators._divergence import Divergence
from scratio.estimators._solver import initial_state, integrate, widened
from scratio.module import Condition, FlowNetwork


def log_density(
    network: FlowNetwork,
    x: Tensor,
    condition: Condition,
    *,
    divergence: Divergence | None = None,
    n_steps: int | None = None,
) -> Tensor:
    r"""Log density of standardised cells under a condition, by the instantaneous change of variables.

    .. math:: \log p(x) = \log N(z_0; 0, I) - \int_0^{q_{end}} \nabla \cdot v(z_q, q)\, dq + d \log \tanh q_{end}

    Returns
    -------
    Log density in nats, shape (n_members, n).
    """
    divergence = divergence or Divergence()

    def derivative(q: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        flow = divergence.flow(network, state[0], q.reshape(1, 1, 1), condition)
        return widened(flow.velocity), widened(flow.divergence)

    z, q_end = initial_state(network, x), network.path.q_end
    noise, minus_integral = integrate(derivative, (z, z.new_zeros(z.shape[:-1])), q_end, 0.0, n_steps)
    d = x.shape[-1]
    log_normal = -0.5 * (noise**2).sum(-1) - 0.5 * d * math.log(2.0 * math.pi)
    return log_normal + minus_integral + d * math.log(math.tanh(q_end))


def log_ratio_naive(
    network: FlowNetwork,
    x: Tensor,
    numerator: Condition,
    denominator: Condition,
    *,
    divergence: Divergence | None = None,
    n_steps: int | None = None,
) -> Tensor:
    """Difference of two log densities, each along its own flow; shape (n_members, n)."""

    def density(condition: Condition) -> Tensor:
        return log_density(network, x, condition, divergence=divergence, n_steps=n_steps)

    return torch.sub(density(numerator), density(denominator))
