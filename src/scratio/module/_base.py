"""What every network offers: velocity, score and denoiser, in the paper's time and in the coordinate q."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scratio.module._condition import Condition
from scratio.paths import GaussianPath


@dataclass(frozen=True)
class Flow:
    """Velocity dz/dq and score of z, both (n_members, n, d)."""

    velocity: Tensor
    score: Tensor


@dataclass(frozen=True)
class FlowWithDivergence(Flow):
    """The same with the divergence of the velocity, (n_members, n)."""

    divergence: Tensor

    @classmethod
    def joined(cls, parts: Sequence[FlowWithDivergence]) -> FlowWithDivergence:
        """Parts of the cells put together again."""
        fields = ("velocity", "score", "divergence")
        return cls(*(torch.cat([getattr(part, name) for part in parts], dim=1) for name in fields))


class FlowNetwork(nn.Module, ABC):
    """Conditional flow with stacked members.

    States have shape (n_members, n, d). Times and coordinates have shape (n_members or 1, n or 1, 1); conditions follow
    the same rule. Estimators use :meth:`flow` and :meth:`flow_and_divergence` alone, so that any parametrisation serves
    them all.
    """

    path: GaussianPath
    n_members: int
    n_features: int

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return next((p.dtype for p in self.parameters()), torch.float64)

    @abstractmethod
    def flow(self, z: Tensor, q: Tensor, condition: Condition) -> Flow:
        """Velocity and score at coordinate q."""

    @abstractmethod
    def flow_and_divergence(self, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        """The same with the exact divergence of the velocity."""

    def flows(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[Flow]:
        """Velocity and score for several conditions; a network that can shares what they have in common."""
        return [self.flow(z, q, condition) for condition in conditions]

    def flows_and_divergences(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[FlowWithDivergence]:
        """The same with exact divergences."""
        return [self.flow_and_divergence(z, q, condition) for condition in conditions]

    def condition_gradients(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        """Gradient of every condition's log density in z, up to a term that the conditions share."""
        return [flow.score for flow in self.flows(z, q, conditions)]

    @abstractmethod
    def loss(self, x1: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Training loss of each member, shape (n_members,); all noise comes from ``generator``."""

    @abstractmethod
    def validation_loss(
        self, x1: Tensor, condition: Condition, generator: torch.Generator, n_draws: int | None = None
    ) -> Tensor:
        """Held-out criterion of every cell that decides when training stops, shape (n_members, n).

        Members whose numbers are equal modulo ``n_draws`` get the same noise, so that they can be compared.
        """

    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        r"""Velocity :math:`u(x, t, c)` of the paper's path, shape (n_members, n, d)."""
        t = self.path.clamp(t)
        z, q = x / self.path.scale(t), self.path.coordinate(t)
        # dz/dq = D - tanh(q) z, whatever the schedule.
        denoised = self.flow(z, q, condition).velocity + torch.tanh(q) * z
        return self.path.velocity_from_denoiser(x, t, denoised)

    def score(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        r"""Score :math:`\nabla_x \log p_t(x | c)`, shape (n_members, n, d)."""
        t = self.path.clamp(t)
        scale = self.path.scale(t)
        return self.flow(x / scale, self.path.coordinate(t), condition).score / scale

    def denoiser(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        r"""Posterior mean :math:`E[x_1 | x_t = x, c]`, shape (n_members, n, d)."""
        t = self.path.clamp(t)
        return self.path.denoiser_from_velocity(x, t, self.velocity(x, t, condition))


@dataclass(frozen=True)
class Noised:
    """Cells with noise: the state z, its coordinate q, and the target of the preconditioned denoiser's output.

    ``levels`` are the coordinates without repeats, shape (n_members, n_levels, 1).
    """

    z: Tensor
    q: Tensor
    target: Tensor
    levels: Tensor


def add_noise(
    x1: Tensor,
    path: GaussianPath,
    generator: torch.Generator,
    n_draws: int | None = None,
    cells_per_level: int = 1,
    towards_data: float = 1.0,
) -> Noised:
    """Put cells (n_members, n, d) at coordinates drawn along the path.

    Members whose numbers are equal modulo ``n_draws`` get the same noise; by default each gets its own. Where n is a
    multiple of ``cells_per_level``, so many successive cells share a coordinate, though not the noise. Coordinates are
    ``q_end * u ** towards_data`` with u uniform: below 1 more of them lie near the data.
    """
    n_members, n, d = x1.shape
    n_draws = n_members if n_draws is None else n_draws
    x0 = torch.randn((n_draws, n, d), generator=generator, device=x1.device)
    repeats = cells_per_level if n % cells_per_level == 0 else 1
    levels = path.q_end * stratified_uniform(n_draws, n // repeats, generator, x1.device) ** towards_data
    x0, levels = (draw.repeat(n_members // n_draws, 1, 1) for draw in (x0, levels))
    q = levels.repeat_interleave(repeats, dim=1)
    tanh, sech = torch.tanh(q), 1.0 / torch.cosh(q)
    return Noised(tanh * x1 + sech * x0, q, sech * x1 - tanh * x0, levels)


def stratified_uniform(n_members: int, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Uniform numbers on [0, 1), shape (n_members, n, 1): one in each of n equal intervals.

    The rows of a batch are in random order already, so strata need no shuffling; they remove most of the variance that
    the sampling of noise levels adds to the loss.
    """
    offset = torch.rand((n_members, n, 1), generator=generator, device=device)
    return (torch.arange(n, device=device)[:, None] + offset) / n


def forward_mode_divergence(function, z: Tensor, chunk: int = 16) -> Tensor:
    """Exact divergence of ``function`` (n_members, n, d) -> (n_members, n, d) by d Jacobian-vector products.

    Costs about d / 2 forward passes of double width; independent of the architecture.
    """
    d = z.shape[-1]
    basis = torch.eye(d, dtype=z.dtype, device=z.device)

    def diagonal(direction: Tensor) -> Tensor:
        tangent = torch.func.jvp(function, (z,), (direction.expand_as(z),))[1]
        return (tangent * direction).sum(-1)

    return torch.func.vmap(diagonal, chunk_size=min(chunk, d))(basis).sum(0)
