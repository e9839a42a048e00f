"""The log ratio along a frozen path: no ODE, all noise levels in one batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scratio.estimators._divergence import Divergence
from scratio.estimators._ode import log_ratio_rate
from scratio.estimators._solver import initial_state
from scratio.module import Condition, FlowNetwork

DEFAULT_NODES = 20


def log_ratio_quadrature(
    network: FlowNetwork,
    x: Tensor,
    numerator: Condition,
    denominator: Condition,
    *,
    divergence: Divergence | None = None,
    n_nodes: int | None = None,
) -> Tensor:
    r"""Log ratio of cells by Proposition 4.1 along the path y = x, with Gauss-Legendre nodes.

    The proposition of arXiv 2602.24201 holds along any path. In :math:`y = x_t / t` the frozen one stays at the cell
    while the noise level :math:`\sigma = 1 / \sinh q` falls; in :math:`z = \tanh(q) y` it moves with
    :math:`b = \operatorname{sech}^2(q) y`. Nodes lie in q, which is log sigma up to a constant at small noise and
    reaches pure noise, where the log ratio is zero, at q = 0 (methods.md, F3).

    Parameters
    ----------
    network
        Conditional flow.
    x
        Standardised cells, shape (n, d) or (n_members, n, d).
    numerator, denominator
        Conditions of the ratio.
    divergence
        Exact by default.
    n_nodes
        Number of nodes, 20 by default.

    Returns
    -------
    Log ratios in nats, shape (n_members, n), float64.
    """
    divergence = divergence or Divergence()
    n_nodes = DEFAULT_NODES if n_nodes is None else n_nodes
    position, weight = np.polynomial.legendre.leggauss(n_nodes)
    q_end = network.path.q_end
    q = torch.from_numpy(0.5 * q_end * (position + 1.0)).to(x.device)
    y = initial_state(network, x) / np.tanh(q_end)
    n_members, n, d = y.shape
    # Cells by nodes in one axis: node k of cell i is row i * n_nodes + k.
    y = y[:, :, None].expand(-1, -1, n_nodes, -1).reshape(n_members, n * n_nodes, d)
    q = q.repeat(n)[None, :, None]
    z = torch.tanh(q) * y
    repeated = divergence.repeat(n_nodes)
    conditions = [condition.repeat(n_nodes) for condition in (numerator, denominator)]
    top, bottom = repeated.flows(network, z, q, conditions)
    rate = log_ratio_rate(y / torch.cosh(q) ** 2, top, bottom)
    weights = torch.from_numpy(0.5 * q_end * weight).to(x.device)
    return rate.reshape(n_members, n, n_nodes) @ weights
