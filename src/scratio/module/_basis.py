"""How the logits of many conditions are composed of fewer features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from scratio.module._layers import StackedEmbedding

N_INTERACTION = 32


class FactorisedBasis(nn.Module):
    r"""Weights of the features in the logit of a condition: a term for each key and one for their interactions.

    For keys k with values :math:`c_k`, features f of the cell, and embeddings r,

    .. math:: G_c = \sum_k f_{k, c_k} + \Big\langle f_{int}, \sum_{k < l} r^k_{c_k} \odot r^l_{c_l} \Big\rangle .

    A continuous key has features and embeddings for its levels, and a number v between two of them the linear
    interpolation of both, beside the terms :math:`v f_1 + (v^2 - 1) f_2` that levels share. So 12 donors and 91
    treatments need 135 features in place of 1,092, donors share what a treatment does, and a value between two that
    were observed has a potential of its own.

    Parameters
    ----------
    n_members
        Number of stacked networks.
    n_categories
        Number of categories of each categorical key.
    levels
        Levels of each continuous key, ascending.
    generator
        Source of the initial weights.
    n_interaction
        Number of interaction features.
    """

    def __init__(
        self,
        n_members: int,
        n_categories: list[int],
        levels: Sequence[Tensor],
        generator: torch.Generator,
        n_interaction: int = N_INTERACTION,
    ) -> None:
        super().__init__()
        self.n_categories = list(n_categories)
        sizes = [*n_categories, *(len(level) for level in levels)]
        self.tables = nn.ModuleList(StackedEmbedding(n_members, n, n_interaction, generator=generator) for n in sizes)
        self.n_levels = len(levels)
        for key, level in enumerate(levels):
            self.register_buffer(f"levels_{key}", level, persistent=False)
        self.n_features = sum(sizes) + 2 * len(levels) + n_interaction

    def forward(self, codes: Tensor, values: Tensor) -> Tensor:
        """Weights (n_members, n, n_features) of conditions with codes (n, n_keys) and values (n, n_continuous)."""
        n_members = len(next(self.parameters()))
        numeric = [self._interpolation(values[:, key], key) for key in range(self.n_levels)]
        shares = [nn.functional.one_hot(codes[:, key], n) for key, n in enumerate(self.n_categories)] + numeric
        # The last row of a table stands for no value at all, which no combination has.
        tables = [cast(StackedEmbedding, table).weight[:, :-1] for table in self.tables]
        embeddings = torch.stack([share.to(table.dtype) @ table for share, table in zip(shares, tables, strict=True)])
        interaction = 0.5 * (embeddings.sum(0) ** 2 - (embeddings**2).sum(0))
        alone = torch.cat([*shares, values, values**2 - 1.0], dim=-1).to(interaction.dtype)
        return torch.cat([alone.expand(n_members, -1, -1), interaction], dim=-1)

    def _interpolation(self, value: Tensor, key: int) -> Tensor:
        """Shares of the levels in a number, (n, n_levels); beyond the outer levels that of the nearest."""
        levels = self.get_buffer(f"levels_{key}").to(value)
        above = torch.searchsorted(levels, value.contiguous()).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        share = ((value - low) / (high - low)).clamp(0.0, 1.0).unsqueeze(-1)
        at = nn.functional.one_hot
        return (1.0 - share) * at(above - 1, len(levels)) + share * at(above, len(levels))
