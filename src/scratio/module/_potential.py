"""The condition as a scalar potential on a marginal denoiser (``parametrization="potential"``)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from scratio.module._base import Flow, FlowNetwork, FlowWithDivergence, add_noise, forward_mode_divergence
from scratio.module._closed_form import ClosedFormDensities
from scratio.module._condition import MARGINAL, Condition
from scratio.module._embedding import CoordinateEmbedding
from scratio.module._residual import ResidualNet
from scratio.paths import GaussianPath

SMALLEST_SINH = 1e-2
"""Below this sinh(q) the state is noise and the gradient of the potential is bounded by its factor tanh(q)."""


class PotentialNetwork(FlowNetwork):
    r"""Marginal denoiser plus the log posterior of the condition at every noise level.

    Over the observed combinations c of the condition keys, with weights :math:`\pi_c`, the logits
    :math:`\ell_c(z, q) = \log \pi_c + B_c(z, q) + a \tanh(q) G_c(z, q)` define

    .. math::
        \phi_c(z, q) = \log p_q(z | c) - \log p_q(z) = \log \operatorname{softmax}(\ell)_c - \log \pi_c .

    A condition that leaves keys out is the set S of the combinations that agree with it, and
    :math:`\phi_S = \log \sum_{c \in S} \operatorname{softmax}(\ell)_c - \log \sum_{c \in S} \pi_c`, so every marginal
    is exact and needs no training of its own. Class sizes do not shift a ratio, since the prior is divided out. With
    the marginal F of :class:`ResidualHeads`,

    .. math:: F_S = F + \nabla_z \phi_S / \sinh q, \qquad \nabla \log p_q(z | S) = \sinh(q) F_S - z .

    B is a closed form, the log densities of Gaussians or small mixtures fitted to the conditions
    (:class:`ClosedFormDensities`), or nothing; G is a network that starts at zero; the factor a is fitted on held-out
    cells after training. The loss is the cross-entropy of the logits at all noise levels plus the denoising loss of
    :math:`F_c`, which regularises the classifier (design.md, section 4). The log ratio of two conditions is a
    difference of potentials at the smallest noise level.

    Parameters
    ----------
    n_features
        Dimension of the embedding.
    combinations
        Codes of the observed combinations, shape (n_combinations, n_keys).
    weights
        Their shares among the cells, shape (n_combinations,).
    path
        Gaussian path.
    n_members
        Number of stacked networks.
    n_hidden, n_layers, n_embed
        Width, number of residual blocks, width of the embedding of q.
    closed_form
        Closed form B, with as many members.
    generator
        Source of the initial weights; the initial potential is that of the closed form.
    """

    combinations: Tensor
    log_weights: Tensor

    def __init__(
        self,
        *,
        n_features: int,
        combinations: Tensor,
        weights: Tensor,
        path: GaussianPath,
        generator: torch.Generator,
        n_members: int = 1,
        n_hidden: int = 128,
        n_layers: int = 2,
        n_embed: int = 64,
        closed_form: ClosedFormDensities | None = None,
    ) -> None:
        super().__init__()
        self.path, self.n_members, self.n_features = path, n_members, n_features
        self.register_buffer("combinations", combinations)
        self.register_buffer("log_weights", weights.log())

        def net(n_out: int) -> ResidualNet:
            return ResidualNet(
                n_members,
                n_in=n_features,
                n_out=n_out,
                n_hidden=n_hidden,
                n_layers=n_layers,
                n_embed=n_embed,
                generator=generator,
            )

        # Each net has an embedding of its own: the held-out loss chooses the classifier's step, not the denoiser's.
        self.classifier_embedding = CoordinateEmbedding(n_members, n_embed, 0, generator)
        self.marginal_embedding = CoordinateEmbedding(n_members, n_embed, 0, generator)
        self.marginal, self.classifier = net(n_features), net(len(combinations))
        self.closed_form = closed_form
        self.factor = nn.Parameter(torch.ones((n_members, 1, 1)), requires_grad=False)
        self.classifier_is_closed = False

    def potential(self, z: Tensor, q: Tensor, condition: Condition) -> Tensor:
        """Log density ratio of condition to marginal at coordinate q, shape (n_members, n)."""
        return self._potential(z, q, self.classifier_embedding(q), self.combinations_in(condition))

    def flow(self, z: Tensor, q: Tensor, condition: Condition) -> Flow:
        """Velocity and score at coordinate q."""
        subset, embedding = self.combinations_in(condition), self.classifier_embedding(q)
        pull = torch.func.vjp(lambda y: self._potential(y, q, embedding, subset), z)[1]
        (gradient,) = pull(z.new_ones(z.shape[:-1]))
        output = self.marginal(z, self.marginal_embedding(q)) + gradient / torch.sinh(q).clamp_min(SMALLEST_SINH)
        return Flow(output / torch.cosh(q), torch.sinh(q) * output - z)

    def flow_and_divergence(self, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        """Velocity, score and exact divergence by forward mode over the gradient: d Jacobian-vector products."""
        flow = self.flow(z, q, condition)
        divergence = forward_mode_divergence(lambda y: self.flow(y, q, condition).velocity, z)
        return FlowWithDivergence(flow.velocity, flow.score, divergence)

    def loss(self, x1: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Cross-entropy in nats plus denoising loss in units of its target's variance, per member."""
        noised = add_noise(x1, self.path, generator)
        z, q, target = noised.z, noised.q, noised.target
        if self.classifier_is_closed:
            return ((self.marginal(z, self.marginal_embedding(q)) - target) ** 2).mean((1, 2))
        z.requires_grad_(True)
        log_posterior = self._log_posterior(z, q, self.classifier_embedding(q))
        own = log_posterior.gather(-1, self.index(condition).unsqueeze(-1)).squeeze(-1)
        (gradient,) = torch.autograd.grad(own.sum(), z, create_graph=True)
        output = self.marginal(z, self.marginal_embedding(q)) + gradient / torch.sinh(q).clamp_min(SMALLEST_SINH)
        return ((output - target) ** 2).mean((1, 2)) - own.mean(1)

    def is_validated(self, parameter: str) -> bool:
        """The cross-entropy does not see the marginal denoiser."""
        return not parameter.startswith("marginal")

    def prefers_untrained(self, members: slice) -> bool:
        """Where a closed form tells the conditions apart: without a network it extrapolates best.

        Elsewhere the factor takes back what the held-out cells do not support.
        """
        return self.closed_form is not None and bool((self.closed_form.mean[members] != 0.0).any())

    def close(self) -> bool:
        """From now on train the marginal denoiser alone, on the cells of all conditions."""
        self.classifier_is_closed = True
        self.classifier.requires_grad_(False)
        self.classifier_embedding.requires_grad_(False)
        return True

    def discard(self, members: slice) -> bool:
        """Give the network no say; its spread between the members still tells how uncertain the log ratio is."""
        self.factor.data[members] = 0.0
        return True

    def unshrunk(self) -> PotentialNetwork:
        """Copy with the full say of the network."""
        copied = copy.deepcopy(self)
        copied.factor.data.fill_(1.0)
        return copied

    def validation_loss(
        self, x1: Tensor, condition: Condition, generator: torch.Generator, n_draws: int | None = None
    ) -> Tensor:
        """Cross-entropy of every cell in nats, at the smallest noise level plus at one drawn for it.

        The first is what the log ratio is read from. Conditions that do not overlap there are told apart by any
        potential; the second still judges how far apart it puts them.
        """
        index = self.index(condition).unsqueeze(-1)
        end = torch.full((1, 1, 1), self.path.q_end, device=x1.device)
        drawn = add_noise(x1, self.path, generator, n_draws)
        loss = x1.new_zeros(x1.shape[:2])
        for z, coordinate in ((torch.tanh(end) * x1, end), (drawn.z, drawn.q)):
            log_posterior = self._log_posterior(z, coordinate, self.classifier_embedding(coordinate))
            loss = loss - log_posterior.gather(-1, index).squeeze(-1)
        return loss

    def held_out_logits(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        """At the smallest noise level: logits without the network, and what the network adds."""
        q = torch.full((1, 1, 1), self.path.q_end, dtype=x1.dtype, device=x1.device)
        z = torch.tanh(q) * x1
        return self._base(z, q), torch.tanh(q) * self.classifier(z, self.classifier_embedding(q))

    def _base(self, z: Tensor, q: Tensor) -> Tensor:
        if self.closed_form is None:
            return self.log_weights.expand(*z.shape[:-1], -1)
        return self.log_weights + self.closed_form(z, q)

    def _logits(self, z: Tensor, q: Tensor, embedding: Tensor) -> Tensor:
        return self._base(z, q) + self.factor * torch.tanh(q) * self.classifier(z, embedding)

    def _log_posterior(self, z: Tensor, q: Tensor, embedding: Tensor) -> Tensor:
        return self._logits(z, q, embedding).log_softmax(-1)

    def _potential(self, z: Tensor, q: Tensor, embedding: Tensor, subset: Tensor) -> Tensor:
        outside = torch.zeros_like(subset, dtype=z.dtype).masked_fill(~subset, -torch.inf)
        log_weight = (self.log_weights + outside).logsumexp(-1)
        return (self._log_posterior(z, q, embedding) + outside).logsumexp(-1) - log_weight

    def combinations_in(self, condition: Condition) -> Tensor:
        """Which combinations agree with a condition, (..., n, n_combinations)."""
        codes = condition.codes.unsqueeze(-2)
        return ((codes == MARGINAL) | (codes == self.combinations)).all(-1)

    def index(self, condition: Condition) -> Tensor:
        """Combination of every cell."""
        return self.combinations_in(condition).to(torch.uint8).argmax(-1)
