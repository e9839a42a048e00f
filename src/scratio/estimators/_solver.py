"""Integration along the coordinate q, in float64, on a fixed grid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchdiffeq import odeint

SOLVER = "rk4"
DEFAULT_STEPS = 16
"""Steps of the fixed grid. An adaptive solver would tie a cell's result to the other cells of its batch."""

State = tuple[Tensor, Tensor]


def integrate(
    derivative: Callable[[Tensor, State], State], state: State, start: float, end: float, n_steps: int | None
) -> State:
    """Solve d state / dq = derivative(q, state) from ``start`` to ``end``; states are float64."""
    n_steps = DEFAULT_STEPS if n_steps is None else n_steps
    grid = torch.linspace(start, end, n_steps + 1, dtype=torch.float64, device=state[0].device)
    path = odeint(derivative, (state[0].double(), state[1].double()), grid, method=SOLVER)
    return path[0][-1], path[1][-1]


def initial_state(network, x: Tensor) -> Tensor:
    """State z of cells read at the smallest noise level, (n_members, n, d) in float64, from cells x (n, d)."""
    q_end = torch.tensor(network.path.q_end, dtype=torch.float64)
    return (torch.tanh(q_end).to(x.device) * x.double()).expand(network.n_members, *x.shape[-2:])
