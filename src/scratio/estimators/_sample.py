"""Samples from the flow."""

from __future__ import annotations

import torch
from torch import Tensor

from scratio.estimators._solver import integrate
from scratio.module import Condition, FlowNetwork


def sample(network: FlowNetwork, noise: Tensor, condition: Condition, *, n_steps: int | None = None) -> Tensor:
    """Carry noise (n_members, n, d) along the flow to the data; the last step is the denoiser's posterior mean."""

    def derivative(q: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, q = state[0].to(network.dtype), q.reshape(1, 1, 1).to(network.dtype)
        return network.flow(z, q, condition).velocity.double(), torch.zeros_like(state[1])

    q_end = network.path.q_end
    z, _ = integrate(derivative, (noise, noise.new_zeros(())), 0.0, q_end, n_steps)
    q = torch.full((1, 1, 1), q_end, dtype=network.dtype, device=z.device)
    flow = network.flow(z.to(network.dtype), q, condition)
    return (flow.velocity + torch.tanh(q) * z).double()
