"""The paper's estimator: one ODE that carries the log ratio along a simulating field (Proposition 4.1)."""

from __future__ import annotations

from torch import Tensor

from scratio.estimators._divergence import Divergence
from scratio.estimators._solver import initial_state, integrate, widened
from scratio.module import Condition, FlowNetwork, FlowWithDivergence


def log_ratio_rate(field: Tensor, numerator: FlowWithDivergence, denominator: FlowWithDivergence) -> Tensor:
    r"""Rate of change of the log ratio along dz/dq = b (arXiv 2602.24201, Proposition 4.1).

    .. math:: \nabla \cdot (v_{den} - v_{num}) + (b - v_{num}) \cdot s_{num} - (b - v_{den}) \cdot s_{den}
    """
    return (
        widened(denominator.divergence - numerator.divergence)
        + widened((field - numerator.velocity) * numerator.score).sum(-1)
        - widened((field - denominator.velocity) * denominator.score).sum(-1)
    )


def log_ratio_ode(
    network: FlowNetwork,
    x: Tensor,
    numerator: Condition,
    denominator: Condition,
    *,
    field: Condition | str = "numerator",
    divergence: Divergence | None = None,
    n_steps: int | None = None,
) -> Tensor:
    """Log ratio of cells by solving Proposition 4.1 from the data to the noise, where both densities are N(0, I).

    Parameters
    ----------
    network
        Conditional flow.
    x
        Standardised cells, shape (n, d) or (n_members, n, d).
    numerator, denominator
        Conditions of the ratio.
    field
        Condition of the simulating field, or ``"numerator"`` (S1), which saves a network evaluation.
    divergence
        Exact by default.
    n_steps
        Steps of the solver.

    Returns
    -------
    Log ratios in nats, shape (n_members, n).
    """
    divergence = divergence or Divergence()

    def derivative(q: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, q = state[0], q.reshape(1, 1, 1)
        top, bottom = divergence.flows(network, z, q, [numerator, denominator])
        if isinstance(field, str):
            velocity = top.velocity
        else:
            velocity = network.flow(z.to(network.dtype), q.to(network.dtype), field).velocity
        return widened(velocity), log_ratio_rate(velocity, top, bottom)

    z = initial_state(network, x)
    _, change = integrate(derivative, (z, z.new_zeros(z.shape[:-1])), network.path.q_end, 0.0, n_steps)
    return -change
