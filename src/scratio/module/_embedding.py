"""Embedding of the coordinate q and, where a network takes one, of the condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratio.module._layers import StackedLinear, sinusoidal_features

N_TIME, LONGEST_PERIOD = 16, 32.0


class CoordinateEmbedding(nn.Module):
    """Embed q, shape (n_members or 1, n or 1, 1), together with a label encoding if there is one.

    Parameters
    ----------
    n_members, n_embed
        Sizes.
    n_label
        Width of the label encoding, 0 for none.
    generator
        Source of the initial weights.
    """

    def __init__(self, n_members: int, n_embed: int, n_label: int, generator: torch.Generator) -> None:
        super().__init__()
        self.time = StackedLinear(n_members, N_TIME + 2, n_embed, generator=generator)
        self.label = StackedLinear(n_members, n_label, n_embed, generator=generator) if n_label else None
        self.joint = StackedLinear(n_members, n_embed, n_embed, generator=generator)

    def forward(self, q: Tensor, label: Tensor | None = None) -> Tensor:
        """Embedding of shape (n_members, n or 1, n_embed)."""
        features = torch.cat([torch.tanh(q), 1.0 / torch.cosh(q), sinusoidal_features(q, N_TIME, LONGEST_PERIOD)], -1)
        hidden = self.time(features.expand(len(self.time.weight), -1, -1))
        if self.label is None or label is None:
            return self.joint(nn.functional.silu(hidden))
        encoded = self.label(label)
        return self.joint(nn.functional.silu(hidden + encoded)) + encoded
