"""Layers whose parameters carry a leading axis of independent members.

Every parameter has shape (n_members, ...), so that ensembles and cross-fitting folds train as one batched product and a
member is a slice. Inputs have shape (n_members, n_cells, n_features).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class StackedLinear(nn.Module):
    """Independent linear maps, one per member.

    Parameters
    ----------
    n_members, n_in, n_out
        Sizes.
    generator
        Source of the initial weights.
    init
        ``"uniform"`` (the default of :class:`torch.nn.Linear`) or ``"zeros"``.
    bias
        Whether to add a bias.
    """

    def __init__(
        self,
        n_members: int,
        n_in: int,
        n_out: int,
        *,
        generator: torch.Generator,
        init: str = "uniform",
        bias: bool = True,
    ) -> None:
        super().__init__()
        bound = 0.0 if init == "zeros" else 1.0 / math.sqrt(max(n_in, 1))
        self.weight = nn.Parameter(_uniform((n_members, n_in, n_out), bound, generator))
        self.bias = nn.Parameter(_uniform((n_members, 1, n_out), bound, generator)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (n_members, n, n_in) to (n_members, n, n_out)."""
        if self.bias is None:
            return torch.bmm(x, self.weight)
        return torch.baddbmm(self.bias, x, self.weight)


class StackedEmbedding(nn.Module):
    """Independent look-up tables, one per member; the last row of each stands for a marginalised key."""

    def __init__(self, n_members: int, n_categories: int, n_out: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn((n_members, n_categories + 1, n_out), generator=generator))

    def forward(self, codes: Tensor) -> Tensor:
        """Rows for codes of shape (n_members, n); a negative code takes the last row."""
        members = torch.arange(len(self.weight), device=codes.device)[:, None]
        return self.weight[members, codes]


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (2.0 * torch.rand(shape, generator=generator) - 1.0) * bound


def sinusoidal_features(position: Tensor, n_features: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features of a time of shape (..., 1): cosines and sines at geometrically spaced frequencies.

    The research code's features, with periods from 2 pi to ``2 pi max_period``.
    """
    half = n_features // 2
    exponent = torch.arange(half, dtype=position.dtype, device=position.device) / half
    angle = position * torch.exp(-math.log(max_period) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def select_members(module: Module, members: Sequence[int]) -> Module:
    """Copy of a network with the given members only; what its ``SHARED`` names is of all members."""
    chosen = copy.deepcopy(module)
    index, shared = torch.as_tensor(list(members)), getattr(module, "SHARED", ())
    for name, parameter in chosen.named_parameters():
        if name.split(".")[0] in shared:
            continue
        parameter.data = parameter.data[index.to(parameter.device)]
    setattr(chosen, "n_members", len(index))  # noqa: B010 (a plain attribute, which nn.Module hides from mypy)
    return chosen
