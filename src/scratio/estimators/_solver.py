"""Integration along the coordinate q, on a fixed grid."""

from __future__ import annotations

import math
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
    """Solve d state / dq = derivative(q, state) from ``start`` to ``end``; states are :func:`widened`."""
    n_steps = DEFAULT_STEPS if n_steps is None else n_steps
    first = widened(state[0]), widened(state[1])
    grid = torch.linspace(start, end, n_steps + 1, dtype=first[0].dtype, device=first[0].device)
    path = odeint(derivative, first, grid, method=SOLVER)
    return path[0][-1], path[1][-1]


def initial_state(network, x: Tensor) -> Tensor:
    """State z of cells read at the smallest noise level, (n_members, n, d) and :func:`widened`, from cells x (n, d)."""
    return (math.tanh(network.path.q_end) * widened(x)).expand(network.n_members, *x.shape[-2:])


def precision_of(device: torch.device) -> torch.dtype:
    """Precision of states and sums along a path: double on the CPU, single on accelerators.

    Apple's GPUs have no double precision, and it is slow on most others.
    """
    return torch.float64 if device.type == "cpu" else torch.float32


def widened(x: Tensor) -> Tensor:
    """Convert to the precision of states and sums on the tensor's device."""
    return x.to(precision_of(x.device))
