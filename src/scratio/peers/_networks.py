"""Network and training that the learnt peers share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from scratio._random import torch_generator

_WEIGHTS, _NOISE = 41, 42

Network = TypeVar("Network", bound=nn.Module)


class TimeNetwork(nn.Module):
    """Multilayer perceptron of a state and a time coordinate.

    Parameters
    ----------
    n_in, n_out, n_hidden, n_layers
        Width of the input, of the output and of the hidden layers, and their number.
    low, high
        Range of the coordinate.
    random_state
        Seed of the weights.
    """

    N_FREQUENCIES = 8

    def __init__(
        self, n_in: int, n_out: int, n_hidden: int, n_layers: int, low: float, high: float, random_state: int
    ) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * torch.arange(1.0, self.N_FREQUENCIES + 1.0) / 2.0)
        widths = [n_in + 2 * self.N_FREQUENCIES, *[n_hidden] * n_layers]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.utils.skip_init(nn.Linear, before, after), nn.SiLU()]
        last = nn.utils.skip_init(nn.Linear, widths[-1], n_out)
        self.layers = nn.Sequential(*layers, last)
        generator = torch_generator(random_state, _WEIGHTS)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                limit = math.sqrt(3.0 / layer.in_features)
                nn.init.uniform_(layer.weight, -limit, limit, generator=generator)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Output for states (n, n_in) and coordinates (n, 1)."""
        phase = (u - self.low) / (self.high - self.low) * self.frequencies
        return self.layers(torch.cat([x, torch.cos(phase), torch.sin(phase)], dim=-1))


def train(
    network: Network,
    loss: Callable[[Network, torch.Generator], Tensor],
    *,
    n_steps: int,
    learning_rate: float,
    random_state: int,
    ema_decay: float = 0.999,
) -> Network:
    """Adam with a cosine schedule and clipped gradients; returns the moving average of the weights.

    Parameters
    ----------
    network
        Network to train.
    loss
        From the network and a source of noise to the loss of one batch.
    n_steps, learning_rate, ema_decay
        Training.
    random_state
        Seed.

    Raises
    ------
    FloatingPointError
        If the loss stops being finite.
    """
    generator = torch_generator(random_state, _NOISE)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    average = copy.deepcopy(network).requires_grad_(False)
    for step in range(n_steps):
        optimiser.zero_grad()
        value = loss(network, generator)
        if not bool(torch.isfinite(value)):
            raise FloatingPointError(f"the loss is {float(value)} at step {step}; lower the learning rate")
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        # Young averages forget their start sooner.
        decay = min(ema_decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1.0 - decay)
    return average.eval()


def draw(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random rows of x."""
    return x[torch.randint(len(x), (size,), generator=generator)]


def stratified(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Uniform numbers between two bounds, one in each of n equal intervals, shape (n, 1)."""
    offset = torch.rand((n, 1), generator=generator)
    return low + (high - low) * (torch.arange(n)[:, None] + offset) / n
