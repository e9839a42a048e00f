"""Samples that descend a divergence along the gradient of a density ratio."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scratio._caller import differentiable

LONGEST_STEP = 0.5
"""Longest step in units of the standardised embedding, per square root of its dimension; further ones are cut."""


@differentiable()
def gradient_flow(
    descent: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    n_steps: int,
    step_size: float,
    noise: float,
    generator: torch.Generator,
) -> Tensor:
    r"""Move cells ``n_steps`` times by :math:`x \leftarrow x - \eta \nabla g(x) + \nu \xi` (arXiv 2303.03714).

    A step is no longer than half the spread of standardised cells, so that a ratio which is extreme far from the data
    does not throw cells away from it.

    Parameters
    ----------
    descent
        The function g, from cells (n, d) to values (n,).
    x
        Cells, shape (n, d).
    n_steps, step_size, noise
        Number of steps, eta, nu.
    generator
        Source of xi.

    Returns
    -------
    Moved cells, shape (n, d), detached.
    """
    longest = LONGEST_STEP * x.shape[1] ** 0.5
    # A tensor that was made in inference mode can never be differentiated; a copy of it can.
    x = x.detach().clone()
    for _ in range(n_steps):
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(descent(x).sum(), x)
        step = step_size * gradient
        length = step.norm(dim=1, keepdim=True).clamp_min(torch.finfo(step.dtype).tiny)
        step = step * (longest / length).clamp_max(1.0)
        x = x.detach() - step
        if noise:
            x = x + noise * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x
