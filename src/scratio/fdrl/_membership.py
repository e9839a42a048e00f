"""A classifier of one condition whose gradient can be followed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from scratio._caller import differentiable
from scratio._random import torch_generator
from scratio.fdrl._perceptron import Perceptron

_WEIGHTS, _BATCHES = 55, 56
N_STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, SMOOTHING = 1_500, 512, 1e-3, 0.1, 0.1
"""Training; the noise on cells, in standard deviations, keeps the probability smooth between them."""


@differentiable()
def fit_membership(x: Tensor, has_it: np.ndarray, random_state: int, device: torch.device) -> Perceptron:
    """Network of the log odds that a standardised cell has the condition, learnt from cells (n, d).

    Parameters
    ----------
    x
        Standardised cells.
    has_it
        Whether each has the condition.
    random_state
        Seed.
    device
        Where it is trained and used.

    Raises
    ------
    ValueError
        If all cells have it or none has.
    """
    if has_it.all() or not has_it.any():
        raise ValueError("a condition that all cells have, or none, cannot be told apart by a classifier")
    network = Perceptron(
        x.shape[1], 1, n_hidden=128, n_layers=2, n_waves=0, generator=torch_generator(random_state, _WEIGHTS)
    ).to(device)
    labels = torch.from_numpy(has_it.astype(np.float32)).to(device)
    x, generator = x.to(device), torch_generator(random_state, _BATCHES, device=device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(N_STEPS):
        rows = torch.randint(len(x), (BATCH_SIZE,), generator=generator, device=device)
        noise = SMOOTHING * torch.randn((BATCH_SIZE, x.shape[1]), generator=generator, device=device)
        loss = nn.functional.binary_cross_entropy_with_logits(network(x[rows] + noise)[:, 0], labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.requires_grad_(False).eval()
