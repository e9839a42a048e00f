"""Divergence of the velocity: exact, or by random probes that stay the same for a cell wherever it is met."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scratio._random import row_keys, splitmix64
from scratio.module import Condition, FlowNetwork, FlowWithDivergence


@dataclass(frozen=True)
class Divergence:
    """How the divergence is computed, for a batch of cells.

    Parameters
    ----------
    probes
        Rademacher probes, shape (n_probes, n, d), or None for the exact divergence. The same probes serve every
        condition and every solver call of a cell, so that their noise cancels in the ratio.
    """

    probes: Tensor | None = None

    def flow(self, network: FlowNetwork, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        """Velocity, score and divergence; z may be float64, the network runs in its own precision."""
        return self.flows(network, z, q, [condition])[0]

    def flows(
        self, network: FlowNetwork, z: Tensor, q: Tensor, conditions: Sequence[Condition]
    ) -> list[FlowWithDivergence]:
        """The same for several conditions, in one evaluation of the network."""
        z, q = z.to(network.dtype), q.to(network.dtype)
        if self.probes is None:
            return network.flows_and_divergences(z, q, conditions)

        def function(y: Tensor) -> list[tuple[Tensor, Tensor]]:
            return [(flow.velocity, flow.score) for flow in network.flows(y, q, conditions)]

        totals, found = [z.new_zeros(z.shape[:-1]) for _ in conditions], function(z)
        for probe in self.probes.to(z):
            tangents = torch.func.jvp(function, (z,), (probe.expand_as(z),))[1]
            totals = [total + (t[0] * probe).sum(-1) for total, t in zip(totals, tangents, strict=True)]
        return [
            FlowWithDivergence(velocity, score, total / len(self.probes))
            for (velocity, score), total in zip(found, totals, strict=True)
        ]


def rademacher_probes(x: np.ndarray, n_probes: int, seed: int) -> Tensor:
    """Signs that depend on a cell's own values and the seed alone, shape (n_probes, n, d)."""
    bits = _bits_of_cells(x, n_probes * x.shape[1], seed) >> np.uint64(63)
    signs = bits.astype(np.float32) * 2.0 - 1.0
    return torch.from_numpy(signs.reshape(len(x), n_probes, -1).swapaxes(0, 1).copy())


def normal_noise(x: np.ndarray, shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal numbers that depend on a cell's own values and the seed alone, shape (n, *shape), float64."""
    bits = _bits_of_cells(x, math.prod(shape), seed) >> np.uint64(11)
    uniform = torch.from_numpy((bits.astype(np.float64) + 0.5) / 2.0**53)
    return torch.special.ndtri(uniform).reshape(len(x), *shape)


def _bits_of_cells(x: np.ndarray, n_numbers: int, seed: int) -> np.ndarray:
    """64 random bits each, shape (n, n_numbers).

    A counter-based generator (splitmix64) keyed by the row makes the result independent of the batch a cell is in and
    of the order of the cells.
    """
    counter = np.arange(n_numbers, dtype=np.uint64)
    return splitmix64(row_keys(x, seed)[:, None] + counter * np.uint64(0x9E3779B97F4A7C15))
