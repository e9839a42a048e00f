"""The log ratio along a frozen path: no ODE, a few nodes of the noise level."""

from __future__ import annotations

import math

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
    reaches pure noise, where the log ratio is zero, at q = 0 (docs/theory.md, "Two more estimators").

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
    Log ratios in nats, shape (n_members, n).
    """
    divergence = divergence or Divergence()
    n_nodes = DEFAULT_NODES if n_nodes is None else n_nodes
    position, weight = np.polynomial.legendre.leggauss(n_nodes)
    q_end = network.path.q_end
    y = initial_state(network, x) / math.tanh(q_end)
    q = torch.from_numpy(0.5 * q_end * (position + 1.0)).to(y.dtype).to(y.device)
    total = y.new_zeros(y.shape[:-1])
    # One node after the other for all cells, not all nodes in one batch: what depends on q alone is computed once.
    for node, share in zip(q, weight, strict=True):
        node = node.reshape(1, 1, 1)
        top, bottom = divergence.flows(network, torch.tanh(node) * y, node, [numerator, denominator])
        total += float(0.5 * q_end * share) * log_ratio_rate(y / torch.cosh(node) ** 2, top, bottom)
    return total
