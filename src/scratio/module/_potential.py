"""The condition as a scalar potential on a marginal denoiser (``parametrization="potential"``)."""

from __future__ import annotations

import torch
from torch import Tensor

from scratio.module._base import Flow, FlowNetwork, FlowWithDivergence, forward_mode_divergence, stratified_uniform
from scratio.module._condition import MARGINAL, Condition
from scratio.module._embedding import CoordinateEmbedding
from scratio.module._residual import ResidualNet
from scratio.paths import GaussianPath

SMALLEST_SINH = 1e-2
"""Below this sinh(q) the state is noise and the gradient of the potential is bounded by its factor tanh(q)."""


class PotentialNetwork(FlowNetwork):
    r"""Marginal denoiser plus the log posterior of the condition at every noise level.

    Over the observed combinations c of the condition keys, with weights :math:`\pi_c`, the logits
    :math:`\ell_c(z, q) = \log \pi_c + \tanh(q) G_c(z, q)` define

    .. math::
        \phi_c(z, q) = \log p_q(z | c) - \log p_q(z) = \log \operatorname{softmax}(\ell)_c - \log \pi_c .

    A condition that leaves keys out is the set S of the combinations that agree with it, and
    :math:`\phi_S = \log \sum_{c \in S} \operatorname{softmax}(\ell)_c - \log \sum_{c \in S} \pi_c`, so every marginal
    is exact and needs no training of its own. Class sizes do not shift a ratio, since the prior is divided out. With
    the marginal F of :class:`ResidualHeads`,

    .. math:: F_S = F + \nabla_z \phi_S / \sinh q, \qquad \nabla \log p_q(z | S) = \sinh(q) F_S - z .

    The loss is the cross-entropy of the logits at all noise levels plus the denoising loss of :math:`F_c`, which
    regularises the classifier (design.md, section 4). The log ratio of two conditions is a difference of potentials at
    the smallest noise level.

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
    generator
        Source of the initial weights; the initial potential is zero.
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
        n_members, n, _ = x1.shape
        x0 = torch.randn(x1.shape, generator=generator, device=x1.device)
        q = self.path.q_end * stratified_uniform(n_members, n, generator, x1.device)
        tanh, sech = torch.tanh(q), 1.0 / torch.cosh(q)
        z = (tanh * x1 + sech * x0).requires_grad_(True)
        log_posterior = self._log_posterior(z, q, self.classifier_embedding(q))
        own = log_posterior.gather(-1, self._index(condition).unsqueeze(-1)).squeeze(-1)
        (gradient,) = torch.autograd.grad(own.sum(), z, create_graph=True)
        output = self.marginal(z, self.marginal_embedding(q)) + gradient / torch.sinh(q).clamp_min(SMALLEST_SINH)
        denoising = ((output - (sech * x1 - tanh * x0)) ** 2).mean((1, 2))
        return denoising - own.mean(1)

    @property
    def validation_has_noise(self) -> bool:
        """The cross-entropy at the smallest noise level has none."""
        return False

    def is_validated(self, parameter: str) -> bool:
        """The cross-entropy does not see the marginal denoiser."""
        return not parameter.startswith("marginal")

    def validation_loss(
        self, x1: Tensor, condition: Condition, generator: torch.Generator, ensemble_size: int = 1
    ) -> Tensor:
        """Cross-entropy in nats at the smallest noise level, of each ensemble's mean logits.

        An ensemble overfits later than its members, so its own loss has to choose the step.
        """
        q = torch.full((1, 1, 1), self.path.q_end, device=x1.device)
        logits = self._logits(torch.tanh(q) * x1, q, self.classifier_embedding(q))
        logits = logits.unflatten(0, (-1, ensemble_size)).mean(1)
        index = self._index(condition)[::ensemble_size].unsqueeze(-1)
        return -logits.log_softmax(-1).gather(-1, index).squeeze(-1).mean(1)

    def _logits(self, z: Tensor, q: Tensor, embedding: Tensor) -> Tensor:
        return self.log_weights + torch.tanh(q) * self.classifier(z, embedding)

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

    def _index(self, condition: Condition) -> Tensor:
        """Combination of every cell."""
        return self.combinations_in(condition).to(torch.uint8).argmax(-1)
