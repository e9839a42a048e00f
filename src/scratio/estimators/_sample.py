"""Samples from the flow, and cells carried from one condition to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scratio.estimators._solver import initial_state, integrate, widened
from scratio.module import Condition, FlowNetwork


def sample(network: FlowNetwork, noise: Tensor, condition: Condition, *, n_steps: int | None = None) -> Tensor:
    """Carry noise (n_members, n, d) along the flow to the data; the last step is the denoiser's posterior mean."""
    q_end = network.path.q_end
    z = _carry(network, noise, condition, 0.0, q_end, n_steps)
    q = torch.full((1, 1, 1), q_end, dtype=network.dtype, device=z.device)
    flow = network.flow(z.to(network.dtype), q, condition)
    return widened(flow.velocity + torch.tanh(q) * z)


def translate(
    network: FlowNetwork, x: Tensor, source: Condition, target: Condition, *, n_steps: int | None = None
) -> Tensor:
    """Carry cells x (n, d) back to noise along the flow of one condition, and out along that of the other.

    The two flows differ by the difference of the conditions' scores at every noise level. Returns each member's cells,
    shape (n_members, n, d) (Su et al. 2022, arXiv 2203.08382).
    """
    q_end = network.path.q_end
    noise = _carry(network, initial_state(network, x), source, q_end, 0.0, n_steps)
    return _carry(network, noise, target, 0.0, q_end, n_steps) / math.tanh(q_end)


def _carry(
    network: FlowNetwork, z: Tensor, condition: Condition, start: float, end: float, n_steps: int | None
) -> Tensor:
    def derivative(q: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, q = state[0].to(network.dtype), q.reshape(1, 1, 1).to(network.dtype)
        return widened(network.flow(z, q, condition).velocity), torch.zeros_like(state[1])

    return integrate(derivative, (z, z.new_zeros(())), start, end, n_steps)[0]
