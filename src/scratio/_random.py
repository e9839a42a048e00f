"""Random numbers that follow from one seed, so that nothing draws from a global generator; bits of single cells."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed the global generators within the block, and put their states back after it.

    For packages that draw from global generators and take no other. scratio itself never does.
    """
    states = np.random.get_state(), random.getstate(), torch.random.get_rng_state()
    of_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
        torch.random.set_rng_state(states[2])
        if of_gpus:
            torch.cuda.set_rng_state_all(of_gpus)


def row_keys(x: np.ndarray, seed: int) -> np.ndarray:
    """One number of 64 bits for every row, in single precision: equal rows have equal ones, others practically never.

    Parameters
    ----------
    x
        Shape (n, d).
    seed
        Rows have other keys under another seed.

    Returns
    -------
    Shape (n,), uint64.
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    keys = np.full(len(rows), np.uint64(seed), dtype=np.uint64)
    for column in rows.view(np.uint32).T:
        keys = splitmix64(keys ^ column.astype(np.uint64))
    return keys


def splitmix64(state: np.ndarray) -> np.ndarray:
    """Finaliser of the counter-based generator of that name (Steele, Lea and Flood 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
