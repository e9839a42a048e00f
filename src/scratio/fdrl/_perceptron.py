"""A plain network of a cell alone, smooth enough to follow its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scratio.module._layers import StackedLinear

WAVELENGTH = 1.5
"""Standard deviation of the phases of the random features, in radians, for cells of unit variance."""


class Perceptron(nn.Module):
    """Multilayer perceptron of cells and random waves of them; it starts at zero.

    Without the waves a network of few layers sees structure much finer than the embedding's spread, such as small
    types, very late in training (Tancik et al. 2020, arXiv 2006.10739).

    Parameters
    ----------
    n_features, n_out, n_hidden, n_layers
        Dimensions, outputs, width and number of hidden layers.
    n_waves
        Number of random directions, of each of which sine and cosine are features.
    generator
        Source of the initial weights and of the directions.
    """

    def __init__(
        self, n_features: int, n_out: int, *, n_hidden: int, n_layers: int, n_waves: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.n_features = n_features
        directions = torch.randn((n_features, n_waves), generator=generator) * (WAVELENGTH / math.sqrt(n_features))
        self.directions: Tensor
        self.register_buffer("directions", directions)
        widths = [n_features + 2 * n_waves, *[n_hidden] * n_layers]
        self.hidden = nn.ModuleList(
            StackedLinear(1, before, after, generator=generator)
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.output = StackedLinear(1, widths[-1], n_out, generator=generator, init="zeros")

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, n_out) for cells (n, n_features)."""
        phase = x @ self.directions
        hidden = torch.cat([x, torch.sin(phase), torch.cos(phase)], dim=-1)[None]
        for layer in self.hidden:
            hidden = nn.functional.silu(layer(hidden))
        return self.output(hidden)[0]
