"""The research code's way to the log ratio, restated on a network of scratio: what the speed is compared with.

Adaptive dopri5 with absolute and relative tolerance 1e-4 on the whole batch, in the paper's time, 100 output points,
and for each of the two divergences Gaussian probes that are drawn anew at every call.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchdiffeq import odeint

from scratio.module import Condition, FlowNetwork

TOLERANCE, N_POINTS = 1e-4, 100


class Budget:
    """Counts the calls of the right-hand side, and ends a solution that takes too many."""

    def __init__(self, max_calls: int) -> None:
        self.max_calls, self.calls, self.progress = max_calls, 0, 0.0

    def spend(self, progress: float) -> None:
        """One more call, at a share ``progress`` of the way."""
        self.calls, self.progress = self.calls + 1, max(self.progress, progress)
        if self.calls > self.max_calls:
            raise OutOfCallsError


class OutOfCallsError(RuntimeError):
    """The solver did not arrive."""


def research_log_ratio(
    network: FlowNetwork,
    x: Tensor,
    numerator: Condition,
    denominator: Condition,
    generator: torch.Generator,
    budget: Budget,
) -> Tensor:
    """Log ratio of standardised cells (n, d) along the numerator's field, shape (n_members, n); NaN without arrival."""
    state = x.float().expand(network.n_members, *x.shape)
    end = float(network.path.clamp(torch.ones((), dtype=torch.float64)))

    def velocity_and_divergence(x: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        probe = torch.randn(x.shape, generator=generator)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            velocity = network.velocity(x, t, condition)
            (product,) = torch.autograd.grad(velocity, x, probe)
        return velocity.detach(), (product * probe).sum(-1)

    def rate(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        budget.spend(1.0 - float(t) / end)
        x, time = state[0], t.reshape(1, 1, 1).float()
        top, top_divergence = velocity_and_divergence(x, time, numerator)
        bottom, bottom_divergence = velocity_and_divergence(x, time, denominator)
        with torch.no_grad():
            score = network.score(x, time, denominator)
        change = bottom_divergence - top_divergence - ((top - bottom) * score).sum(-1)
        return top, change

    grid, start = torch.linspace(end, 0.0, N_POINTS), state.new_zeros(state.shape[:-1])
    try:
        path = odeint(rate, (state, start), grid, method="dopri5", atol=TOLERANCE, rtol=TOLERANCE)
    except OutOfCallsError:
        return torch.full_like(start, torch.nan)
    budget.progress = 1.0
    return -path[1][-1]
