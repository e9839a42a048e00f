"""Seeds derived from one seed, so that nothing draws from a global generator."""

from __future__ import annotations

import numpy as np
import torch


def child_seed(seed: int, *path: int) -> int:
    """A seed for one purpose: the same for the same ``(seed, *path)``, unrelated between different ones.

    Raises
    ------
    ValueError
        If the seed is not a whole number of at least 0.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"random_state must be a whole number of at least 0, got {seed!r}")
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, dtype=np.uint64)[0] >> np.uint64(1))


def torch_generator(seed: int, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Generator of its own for one purpose."""
    return torch.Generator(device=device).manual_seed(child_seed(seed, *path))
