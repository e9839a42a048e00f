"""Encoders of the conditions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratio.module._condition import MARGINAL, Condition
from scratio.module._layers import StackedEmbedding, StackedLinear


class EmbeddingEncoder(nn.Module):
    """One embedding per categorical key, one small network per continuous key, concatenated.

    A marginalised key has a learned embedding of its own (the empty token).
    """

    def __init__(
        self, n_members: int, n_categories: list[int], n_continuous: int, n_out: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.tables = nn.ModuleList(StackedEmbedding(n_members, n, n_out, generator=generator) for n in n_categories)
        self.curves = nn.ModuleList(
            nn.Sequential(
                StackedLinear(n_members, 2, n_out, generator=generator),
                nn.SiLU(),
                StackedLinear(n_members, n_out, n_out, generator=generator),
            )
            for _ in range(n_continuous)
        )
        self.n_out = n_out * (len(n_categories) + n_continuous)

    def forward(self, condition: Condition) -> Tensor:
        """Encode to (n_members, n, n_out)."""
        parts = [table(condition.codes[..., k]) for k, table in enumerate(self.tables)]
        parts += [curve(_value_and_presence(condition, k)) for k, curve in enumerate(self.curves)]
        return torch.cat(parts, dim=-1)


class PaperEncoder(nn.Module):
    """The paper's encoders: one-hot -> 256 SELU -> 50 per key; a marginalised key contributes zeros."""

    def __init__(
        self,
        n_members: int,
        n_categories: list[int],
        n_continuous: int,
        n_out: int,
        generator: torch.Generator,
        n_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.n_categories = list(n_categories)
        self.encoders = nn.ModuleList(
            nn.Sequential(
                StackedLinear(n_members, n_in, n_hidden, generator=generator),
                nn.SELU(),
                StackedLinear(n_members, n_hidden, n_out, generator=generator),
            )
            for n_in in [*n_categories, *[1] * n_continuous]
        )
        self.n_out = n_out * len(self.encoders)

    def forward(self, condition: Condition) -> Tensor:
        """Encode to (n_members, n, n_out)."""
        inputs, present = [], []
        for k, n in enumerate(self.n_categories):
            code = condition.codes[..., k]
            present.append(code != MARGINAL)
            inputs.append(nn.functional.one_hot(code.clamp_min(0), n).float())
        for k in range(condition.values.shape[-1]):
            both = _value_and_presence(condition, k)
            present.append(both[..., 1] > 0)
            inputs.append(both[..., :1])
        parts = [
            encoder(x) * known.unsqueeze(-1) for encoder, x, known in zip(self.encoders, inputs, present, strict=True)
        ]
        return torch.cat(parts, dim=-1)


def _value_and_presence(condition: Condition, key: int) -> Tensor:
    value = condition.values[..., key : key + 1]
    return torch.cat([value.nan_to_num(0.0), (~value.isnan()).to(value.dtype)], dim=-1)
