"""A pathwise identity: forward passes alone, no divergence, with a Monte-Carlo standard error."""

from __future__ import annotations

import torch
from torch import Tensor

from scratio.estimators._solver import initial_state, widened
from scratio.module import Condition, FlowNetwork

DEFAULT_STEPS, N_PATHS = 64, 8


def log_ratio_ito(
    network: FlowNetwork,
    x: Tensor,
    numerator: Condition,
    denominator: Condition,
    *,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Log ratio of cells as an integral along their noising paths (Girsanov).

    With :math:`\gamma = 1 / \sigma^2 = \sinh^2 q` and the path :math:`z_\gamma = \gamma x + B_\gamma`, whose law given
    x is the same under every condition,

    .. math::
        \log r(x) = \int \tfrac12 \left(|x - D_0|^2 - |x - D_1|^2\right) d\gamma + \int (D_1 - D_0) \cdot dB,

    for the densities smoothed by the smallest noise level: the first integral by the trapezoidal rule, the second, a
    martingale, at the left points. Its mean over paths has a standard error, which covers the noise of the paths, not
    the error of the network.

    Parameters
    ----------
    network
        Conditional flow.
    x
        Standardised cells, shape (n, d) or (n_members, n, d).
    numerator, denominator
        Conditions of the ratio.
    noise
        Standard normal numbers, shape (n, n_paths, n_steps + 1, d); they stay with a cell, whatever its batch.

    Returns
    -------
    Log ratios in nats, and their Monte-Carlo variances, both (n_members, n).
    """
    n, n_paths, n_points, d = noise.shape
    x1 = initial_state(network, x)
    q = torch.linspace(0.0, network.path.q_end, n_points, dtype=x1.dtype, device=x1.device)
    gamma = torch.sinh(q) ** 2
    x1 = x1 / torch.tanh(q[-1])
    x1 = x1[:, :, None].expand(-1, -1, n_paths, -1).reshape(network.n_members, n * n_paths, d)
    noise = noise.reshape(n * n_paths, n_points, d).to(x1.dtype).to(x1.device)
    conditions = numerator.repeat(n_paths), denominator.repeat(n_paths)

    def denoised(z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        z, q = z.to(network.dtype), q.reshape(1, 1, 1).to(network.dtype)
        top, bottom = (widened(flow.velocity) for flow in network.flows(z, q, conditions))
        mean = torch.tanh(widened(q)) * widened(z)
        return top + mean, bottom + mean

    # At q = 0 the state is noise of its own: the denoisers are the means there, whatever it is.
    top, bottom = denoised(noise[:, 0].expand_as(x1), q[0])
    brownian, total = torch.zeros_like(x1), x1.new_zeros(x1.shape[:-1])
    for k in range(1, n_points):
        step = gamma[k] - gamma[k - 1]
        increment = step.sqrt() * noise[:, k]
        total = total + ((top - bottom) * increment).sum(-1) + 0.25 * step * _difference(x1, top, bottom)
        brownian = brownian + increment
        top, bottom = denoised(torch.tanh(q[k]) * (x1 + brownian / gamma[k]), q[k])
        total = total + 0.25 * step * _difference(x1, top, bottom)
    paths = total.reshape(network.n_members, n, n_paths)
    return paths.mean(-1), paths.var(-1) / n_paths


def _difference(x: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    return ((x - bottom) ** 2).sum(-1) - ((x - top) ** 2).sum(-1)
