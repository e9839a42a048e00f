"""The paper's parametrisation: vector-valued heads for velocity and score (``parametrization="heads"``)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from scratio.module._base import Flow, FlowNetwork, FlowWithDivergence, add_noise, forward_mode_divergence
from scratio.module._condition import Condition
from scratio.module._embedding import CoordinateEmbedding
from scratio.module._encoders import EmbeddingEncoder, PaperEncoder
from scratio.module._layers import StackedLinear, sinusoidal_features
from scratio.module._residual import ResidualNet
from scratio.paths import GaussianPath


class ResidualHeads(FlowNetwork):
    r"""Residual network whose output is preconditioned by the closed-form flow of a standard Gaussian.

    In the coordinate q of :class:`~scratio.paths.GaussianPath`, for a network F with output of unit scale,

    .. math::
        D = \tanh(q) z + \operatorname{sech}(q) F, \qquad \frac{dz}{dq} = \operatorname{sech}(q) F, \qquad
        \nabla \log p_q(z) = \sinh(q) F - z,

    so F = 0 is exactly the flow of N(0, I), and velocity and score cannot contradict each other. The target of F is
    :math:`\operatorname{sech}(q) x_1 - \tanh(q) x_0`, which has unit variance at every q. The squared error is uniform
    in q, the measure in which the log ratio is integrated.

    With ``separate_heads=True`` velocity and score have an F each.

    Parameters
    ----------
    n_features, n_categories, n_continuous
        Dimension of the embedding, number of categories per categorical key, number of continuous keys.
    path
        Gaussian path.
    n_members
        Number of stacked networks.
    n_hidden, n_layers, n_embed
        Width, number of residual blocks, width of the joint embedding of time and condition.
    n_condition
        Width of each key's embedding.
    dropout
        Probability with which each key of each training cell is marginalised.
    separate_heads
        Whether velocity and score are separate outputs.
    generator
        Source of the initial weights.
    """

    def __init__(
        self,
        *,
        n_features: int,
        n_categories: list[int],
        n_continuous: int,
        path: GaussianPath,
        generator: torch.Generator,
        n_members: int = 1,
        n_hidden: int = 256,
        n_layers: int = 2,
        n_embed: int = 128,
        n_condition: int = 32,
        dropout: float = 0.1,
        separate_heads: bool = False,
    ) -> None:
        super().__init__()
        self.path, self.n_members, self.n_features = path, n_members, n_features
        self.condition_dropout = dropout
        self.encoder = EmbeddingEncoder(n_members, n_categories, n_continuous, n_condition, generator)
        self.embedding = CoordinateEmbedding(n_members, n_embed, self.encoder.n_out, generator)
        self.nets = nn.ModuleList(
            ResidualNet(
                n_members,
                n_in=n_features,
                n_out=n_features,
                n_hidden=n_hidden,
                n_layers=n_layers,
                n_embed=n_embed,
                generator=generator,
            )
            for _ in range(2 if separate_heads else 1)
        )

    def flow(self, z: Tensor, q: Tensor, condition: Condition) -> Flow:
        """Velocity and score at coordinate q."""
        embedding = self._embed(q, condition)
        outputs = [net(z, embedding) for net in self.nets]
        return Flow(outputs[0] / torch.cosh(q), torch.sinh(q) * outputs[-1] - z)

    def flow_and_divergence(self, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        """Velocity, score and exact divergence: closed form for up to two blocks, forward mode beyond."""
        embedding = self._embed(q, condition)
        output, trace = self._output_and_trace(z, embedding)
        last = output if len(self.nets) == 1 else self.nets[-1](z, embedding)
        sech = 1.0 / torch.cosh(q)
        return FlowWithDivergence(sech * output, torch.sinh(q) * last - z, sech.squeeze(-1) * trace)

    def output(self, z: Tensor, q: Tensor) -> Tensor:
        """F of a network without conditions, shape (n_members, n, d)."""
        return self.nets[0](z, self.embedding(q, None))

    def output_and_trace(self, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the trace of its Jacobian in z, shape (n_members, n)."""
        return self._output_and_trace(z, self.embedding(q, None))

    def _output_and_trace(self, z: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        first = cast(ResidualNet, self.nets[0])
        if first.has_closed_form_trace:
            return first.forward_and_trace(z, embedding)
        return first(z, embedding), forward_mode_divergence(lambda y: first(y, embedding), z)

    def loss(self, x1: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Denoising loss of each member, in units of the target's variance."""
        return self.validation_loss(x1, condition, generator).mean(1)

    def validation_loss(
        self, x1: Tensor, condition: Condition, generator: torch.Generator, n_draws: int | None = None
    ) -> Tensor:
        """The same of every cell."""
        noised = add_noise(x1, self.path, generator, n_draws)
        if self.training:
            condition = condition.drop(self.condition_dropout, generator)
        embedding = self._embed(noised.q, condition)
        return torch.stack([((net(noised.z, embedding) - noised.target) ** 2).mean(-1) for net in self.nets]).sum(0)

    def _embed(self, q: Tensor, condition: Condition) -> Tensor:
        label = self.encoder(condition.stack(self.n_members)) if self.encoder.n_out else None
        return self.embedding(q, label)


class PaperHeads(FlowNetwork):
    r"""The network of the paper's research code, to the letter (``block="mlp"``).

    Encoder d -> 256 -> 256 for the data, one-hot -> 256 -> 50 for each key, 50 sinusoidal features of t, and two heads
    of 3 x 1024 SELU units for the velocity u and the score s; t uniform on [0, 1]; loss
    :math:`|u - u^*|^2 + |c_t s - (t u^* - x_t)|^2` with :math:`u^* = x_1 + \lambda' x_0`.

    Parameters are those of :class:`ResidualHeads`; ``n_time`` and ``n_condition`` are the paper's.
    """

    def __init__(
        self,
        *,
        n_features: int,
        n_categories: list[int],
        n_continuous: int,
        path: GaussianPath,
        generator: torch.Generator,
        n_members: int = 1,
        n_hidden: int = 1024,
        n_layers: int = 3,
        n_encoder: int = 256,
        n_condition: int = 50,
        n_time: int = 50,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.path, self.n_members, self.n_features = path, n_members, n_features
        self.n_time, self.condition_dropout = n_time, dropout
        self.encoder = PaperEncoder(n_members, n_categories, n_continuous, n_condition, generator, n_encoder)

        def chain(*sizes: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for n_from, n_to in zip(sizes[:-1], sizes[1:], strict=True):
                layers += [StackedLinear(n_members, n_from, n_to, generator=generator), nn.SELU()]
            return nn.Sequential(*layers[:-1])

        self.data = chain(n_features, n_encoder, n_encoder)
        n_in = n_encoder + self.encoder.n_out + n_time
        self.heads = nn.ModuleList(chain(n_in, *[n_hidden] * n_layers, n_features) for _ in range(2))

    def flow(self, z: Tensor, q: Tensor, condition: Condition) -> Flow:
        """Velocity and score at coordinate q, from the heads in the paper's time."""
        t = self.path.time(q)
        scale = self.path.scale(t)
        velocity, score = self._heads(scale * z, t, condition)
        denoised = self.path.denoiser_from_velocity(scale * z, t, velocity)
        return Flow(denoised - torch.tanh(q) * z, scale * score)

    def flow_and_divergence(self, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        """Velocity, score and exact divergence by forward mode: about d passes through the velocity head."""
        flow = self.flow(z, q, condition)
        divergence = forward_mode_divergence(lambda y: self.flow(y, q, condition).velocity, z)
        return FlowWithDivergence(flow.velocity, flow.score, divergence)

    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Output of the velocity head."""
        return self._heads(x, t, condition)[0]

    def score(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Output of the score head."""
        return self._heads(x, t, condition)[1]

    def loss(self, x1: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Sum of the paper's velocity and score losses, per member."""
        return self.validation_loss(x1, condition, generator).mean(1)

    def validation_loss(
        self, x1: Tensor, condition: Condition, generator: torch.Generator, n_draws: int | None = None
    ) -> Tensor:
        """The same of every cell."""
        n_members, n, d = x1.shape
        n_draws = n_members if n_draws is None else n_draws
        x0 = torch.randn((n_draws, n, d), generator=generator, device=x1.device)
        t = torch.rand((n_draws, n, 1), generator=generator, device=x1.device)
        x0, t = (draw.repeat(n_members // n_draws, 1, 1) for draw in (x0, t))
        x, target = t * x1 + self.path.lambda_(t) * x0, x1 + self.path.lambda_prime(t) * x0
        if self.training:
            condition = condition.drop(self.condition_dropout, generator)
        velocity, score = self._heads(x, t, condition)
        velocity_loss = ((velocity - target) ** 2).mean(-1)
        score_loss = ((self.path.score_weight(t) * score - (t * target - x)) ** 2).mean(-1)
        return velocity_loss + score_loss

    def _heads(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        shape = (self.n_members, x.shape[1], -1)
        label = self.encoder(condition.stack(self.n_members)).expand(shape)
        joint = torch.cat([self.data(x), label, sinusoidal_features(t, self.n_time).expand(shape)], dim=-1)
        return self.heads[0](joint), self.heads[1](joint)
