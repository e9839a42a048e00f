"""The condition as a scalar potential on a marginal denoiser (``parametrization="potential"``)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from scratio.module._base import Flow, FlowNetwork, FlowWithDivergence, add_noise, forward_mode_divergence
from scratio.module._basis import FactorisedBasis
from scratio.module._closed_form import ClosedFormDensities
from scratio.module._condition import MARGINAL, Condition, all_but
from scratio.module._derivatives import Derivatives
from scratio.module._embedding import CoordinateEmbedding
from scratio.module._queries import NamedCombinations, Query, place_of
from scratio.module._residual import ResidualNet
from scratio.module._terms import term_projections
from scratio.paths import GaussianPath

SMALLEST_SINH = 1e-2
"""Below this sinh(q) the state is noise and the gradient of the potential is bounded by its factor tanh(q)."""
CELLS_PER_LEVEL = 8
"""Cells of a batch that share a noise level, and with it the modulation of the networks, a third of their cost."""
MAX_JOINT = 32
"""Largest number of combinations of several keys that have outputs of their own."""
LOGIT_GRADIENTS = 2**25
"""Largest number of entries of the gradients of all logits that are held at once."""


class PotentialNetwork(FlowNetwork):
    r"""Marginal denoiser plus the log posterior of the condition at every noise level.

    Over the observed combinations c of the condition keys, with weights :math:`\pi_c`, the logits
    :math:`\ell_c(z, q) = \log \pi_c + g B_c(z, q) + a s \tanh(q) G_c(z, q)` define

    .. math::
        \phi_c(z, q) = \log p_q(z | c) - \log p_q(z) = \log \operatorname{softmax}(\ell)_c - \log \pi_c .

    A condition that leaves keys or categories out is the set S of the combinations that agree with it, and
    :math:`\phi_S = \log \sum_{c \in S} \operatorname{softmax}(\ell)_c - \log \sum_{c \in S} \pi_c`, so every marginal
    is exact and needs no training of its own. Class sizes do not shift a ratio: a member trains on the posterior under
    the shares of the combinations among its own training cells (:meth:`set_shares`), is judged under those of the cells
    it holds out, and combinations are mixed to a marginal by :math:`\pi`, their shares among all cells. With the
    marginal F of :class:`ResidualHeads`,

    .. math:: F_S = F + \nabla_z \phi_S / \sinh q, \qquad \nabla \log p_q(z | S) = \sinh(q) F_S - z .

    Up to 32 combinations have an output of G each. More of them, if they are combinations of several keys, share
    outputs (:class:`FactorisedBasis`). A continuous key is cut into levels, which take part in the combinations; G_c
    is a smooth function of the level's value, so that a number that is asked about need not be one of them.

    B is a closed form, the log densities of Gaussians or small mixtures fitted to the conditions
    (:class:`ClosedFormDensities`), or nothing; G is a network that starts at zero. It is trained on top of B, with
    g = s = 1, or without it; then held-out cells decide the gate g and the network's share s = 1 - g. Last they decide
    the factor a, near 1 where they support the network and 0 where they do not. With several crossed keys the whole
    potential g B + a s tanh(q) G is split into a term for each key and one for their interaction, with a factor each
    (:func:`term_projections`), so that a key that says nothing is silenced although another one says much. The loss is
    the cross-entropy of the logits at all noise levels plus the denoising loss of :math:`F_c`, which regularises the
    classifier (design.md, section 4). The log ratio of two conditions is a difference of potentials at the smallest
    noise level.

    Parameters
    ----------
    n_features
        Dimension of the embedding.
    combinations
        Codes of the observed combinations, shape (n_combinations, n_keys).
    weights
        Their shares among all cells, shape (n_combinations,).
    values
        Their values of the continuous keys, shape (n_combinations, n_continuous); none by default.
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
    values_of_combinations: Tensor
    log_weights: Tensor
    projections: Tensor

    def __init__(
        self,
        *,
        n_features: int,
        combinations: Tensor,
        weights: Tensor,
        path: GaussianPath,
        generator: torch.Generator,
        values: Tensor | None = None,
        n_members: int = 1,
        n_hidden: int = 128,
        n_layers: int = 2,
        n_embed: int = 64,
        closed_form: ClosedFormDensities | None = None,
    ) -> None:
        super().__init__()
        self.path, self.n_members, self.n_features = path, n_members, n_features
        values = torch.empty((len(combinations), 0)) if values is None else values
        self.register_buffer("combinations", combinations)
        self.register_buffer("values_of_combinations", values)
        self.register_buffer("log_weights", weights.log())
        # Parameters, so that each member has its own and selecting members selects them.
        self.log_train_shares, self.log_held_out_shares = (
            nn.Parameter(weights.log().repeat(n_members, 1, 1), requires_grad=False) for _ in range(2)
        )

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
        self.basis = None
        if values.shape[1] or (combinations.shape[1] > 1 and len(combinations) > MAX_JOINT):
            n_categories = [int(codes.max()) + 1 for codes in combinations.T]
            levels = [torch.unique(column) for column in values.T]
            self.basis = FactorisedBasis(n_members, n_categories, levels, generator)
        n_outputs = len(combinations) if self.basis is None else self.basis.n_features
        self.marginal, self.classifier = net(n_features), net(n_outputs)
        self.closed_form = closed_form
        self.gate, self.share, self.factor = (
            nn.Parameter(torch.ones((n_members, 1, 1)), requires_grad=False) for _ in range(3)
        )
        self.classifier_is_closed = False
        projections = torch.empty((0,)) if values.shape[1] else term_projections(combinations)
        self.register_buffer("projections", projections, persistent=False)
        self.term_factors = nn.Parameter(torch.ones((n_members, len(projections))), requires_grad=False)

    @property
    def is_shrunk(self) -> bool:
        """Whether held-out cells have taken something back."""
        return bool((self.factor < 1.0).any()) or bool((self.term_factors < 1.0).any())

    def set_shares(self, train: Tensor, held_out: Tensor) -> None:
        """Set the shares of the combinations among each member's cells.

        Folds of whole donors train on other shares than all cells have, and hold out yet others. A classifier that is
        trained under one prior and read under another is off by the difference in every cell.

        Parameters
        ----------
        train, held_out
            Shares among the cells that each member trains on, and among those it holds out, positive, shape
            (n_members, n_combinations).
        """
        for own, shares in ((self.log_train_shares, train), (self.log_held_out_shares, held_out)):
            own.data.copy_(shares.log().unsqueeze(1))

    def log_likelihoods(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        """Log density of every condition at coordinate q up to a term that the conditions share, (n_members, n) each.

        Where combinations share outputs, logits are made of those alone that a condition names, so that the cost grows
        with what is asked and not with what was registered.
        """
        everything, embedding = self._all(), self.classifier_embedding(q)
        features, base = self._amplitude(q) * self.classifier(z, embedding), self._base(z, q)
        found = []
        for condition in conditions:
            named = None if self.basis is None else self._named(condition, everything.weight)
            if named is None:
                found += self._summed(features, base, [self._query(condition, everything.weight)])
            else:
                found.append(named.log_likelihood(features, base, self.log_weights))
        return found

    def _named(self, condition: Condition, weight: Tensor | None) -> NamedCombinations | None:
        """The combinations that a condition names; None where numbers take part, or where all of them are cheaper."""
        if weight is None or not condition.codes.shape[-1] or not bool(condition.values.isnan().all()):
            return None
        kinds, kind = torch.unique(condition.codes, dim=0, return_inverse=True)
        nothing = condition.values.new_full((len(kinds), condition.values.shape[-1]), torch.nan)
        named = NamedCombinations.of(self.combinations_in(Condition(kinds, nothing)), kind, weight)
        return named if named.size <= len(self.combinations) else None

    def potential(self, z: Tensor, q: Tensor, condition: Condition) -> Tensor:
        """Log density ratio of condition to marginal at coordinate q, shape (n_members, n)."""
        queries = self._queries_and_all([condition])
        own, marginal = self._log_likelihoods(z, q, self.classifier_embedding(q), queries)
        return own - marginal

    def flow(self, z: Tensor, q: Tensor, condition: Condition) -> Flow:
        """Velocity and score at coordinate q."""
        return self.flows(z, q, [condition])[0]

    def flows(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[Flow]:
        """Velocity and score for several conditions, by reverse mode through one pass of the classifier."""
        queries = self._queries_and_all(conditions)
        embedding = self.classifier_embedding(q)
        values, pull = torch.func.vjp(lambda y: self._log_likelihoods(y, q, embedding, queries), z)[:2]
        output = self.marginal(z, self.marginal_embedding(q))
        flows = []
        for index in range(len(conditions)):
            # The potential is the difference to the marginal, which comes last.
            weights = [torch.zeros_like(value) for value in values]
            weights[index], weights[-1] = torch.ones_like(values[0]), -torch.ones_like(values[0])
            flows.append(Flow(*self._from_gradient(z, q, output, pull(weights)[0])))
        return flows

    def flow_and_divergence(self, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        """Velocity, score and exact divergence."""
        return self.flows_and_divergences(z, q, [condition])[0]

    def flows_and_divergences(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[FlowWithDivergence]:
        """Velocity, score and exact divergence in closed form; the networks are evaluated once for all conditions.

        The classifier's Laplacian costs about n_features / 2 of its forward passes (see :class:`ResidualNet`).
        """
        n_members, n, d = z.shape
        step = max(LOGIT_GRADIENTS // (n_members * d * len(self.combinations)), 1)
        if n > step:
            parts = [
                self.flows_and_divergences(
                    z[:, rows], q if q.shape[1] == 1 else q[:, rows], [condition[rows] for condition in conditions]
                )
                for rows in (slice(start, start + step) for start in range(0, n, step))
            ]
            return [FlowWithDivergence.joined(part) for part in zip(*parts, strict=True)]
        queries = self._queries_and_all(conditions)
        features = self.classifier.derivatives(z, self.classifier_embedding(q)).scale(self._amplitude(q))
        base = self._base_derivatives(z, q)
        *own, marginal = [query.log_likelihood(base, features) for query in queries]
        output, trace = self._marginal_and_trace(z, self.marginal_embedding(q))
        flows = []
        for derivatives in own:
            potential = derivatives - marginal
            velocity, score = self._from_gradient(z, q, output, potential.gradient)
            sinh, cosh = torch.sinh(q).clamp_min(SMALLEST_SINH).squeeze(-1), torch.cosh(q).squeeze(-1)
            flows.append(FlowWithDivergence(velocity, score, (trace + potential.laplacian / sinh) / cosh))
        return flows

    def loss(self, x1: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Cross-entropy in nats plus denoising loss in units of its target's variance, per member."""
        noised = add_noise(x1, self.path, generator, group=CELLS_PER_LEVEL)
        z, q, target = noised.z, noised.q, noised.target
        marginal_embedding = self.marginal_embedding(noised.levels)
        if self.classifier_is_closed:
            return ((self.marginal(z, marginal_embedding) - target) ** 2).mean((1, 2))
        z.requires_grad_(True)
        log_posterior = self._log_posterior(z, q, self.classifier_embedding(noised.levels), self.log_train_shares)
        own = log_posterior.gather(-1, self.index(condition).unsqueeze(-1)).squeeze(-1)
        (gradient,) = torch.autograd.grad(own.sum(), z, create_graph=True)
        output = self.marginal(z, marginal_embedding) + gradient / torch.sinh(q).clamp_min(SMALLEST_SINH)
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
        if self.basis is not None:
            self.basis.requires_grad_(False)
        return True

    def discard(self, members: slice) -> bool:
        """Give the network no say; its spread between the members still tells how uncertain the log ratio is."""
        self.factor.data[members] = 0.0
        return True

    def unshrunk(self) -> PotentialNetwork:
        """Copy with the full say of the network."""
        copied = copy.deepcopy(self)
        copied.factor.data.fill_(1.0)
        copied.term_factors.data.fill_(1.0)
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
        drawn = add_noise(x1, self.path, generator, n_draws, group=CELLS_PER_LEVEL)
        loss = x1.new_zeros(x1.shape[:2])
        for z, q, levels in ((torch.tanh(end) * x1, end, end), (drawn.z, drawn.q, drawn.levels)):
            log_posterior = self._log_posterior(z, q, self.classifier_embedding(levels), self.log_held_out_shares)
            loss = loss - log_posterior.gather(-1, index).squeeze(-1)
        return loss

    def held_out_logits(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        """At the smallest noise level, under the held-out cells' shares: logits without the network, what it adds."""
        q = torch.full((1, 1, 1), self.path.q_end, dtype=x1.dtype, device=x1.device)
        z = torch.tanh(q) * x1
        learnt = self._all().logits(self.classifier(z, self.classifier_embedding(q)))
        return self._base(z, q, self.log_held_out_shares), self.share * torch.tanh(q) * learnt

    def combinations_in(self, condition: Condition) -> Tensor:
        """Which combinations agree with a condition, (..., n, n_combinations).

        Of those that agree with its categories, the ones with the numbers nearest to its own.
        """
        codes = condition.codes.unsqueeze(-2)
        is_other = (codes < MARGINAL) & (all_but(codes) != self.combinations)
        agrees = ((codes == MARGINAL) | (codes == self.combinations) | is_other).all(-1)
        if self.values_of_combinations.shape[1] == 0:
            return agrees
        difference = condition.values.unsqueeze(-2) - self.values_of_combinations
        distance = difference.nan_to_num(0.0).square().sum(-1).masked_fill(~agrees, torch.inf)
        return agrees & (distance == distance.min(-1, keepdim=True).values)

    def index(self, condition: Condition) -> Tensor:
        """Combination of every cell, given its own labels."""
        if self.values_of_combinations.shape[1] or not self.combinations.shape[1]:
            return self.combinations_in(condition).to(torch.uint8).argmax(-1)
        return place_of(self.combinations, condition.codes)

    def _log_posterior(self, z: Tensor, q: Tensor, embedding: Tensor, log_shares: Tensor) -> Tensor:
        learnt = self._all().logits(self.classifier(z, embedding))
        return (self._base(z, q, log_shares) + self._amplitude(q) * learnt).log_softmax(-1)

    def _amplitude(self, q: Tensor) -> Tensor:
        """What the outputs of the network are multiplied with."""
        return self.factor * self.share * torch.tanh(q)

    def _log_likelihoods(self, z: Tensor, q: Tensor, embedding: Tensor, queries: Sequence[Query]) -> list[Tensor]:
        return self._summed(self._amplitude(q) * self.classifier(z, embedding), self._base(z, q), queries)

    def _summed(self, features: Tensor, base: Tensor, queries: Sequence[Query]) -> list[Tensor]:
        return [(base + query.logits(features) + query.outside).logsumexp(-1) - query.log_weight for query in queries]

    def _base(self, z: Tensor, q: Tensor, log_shares: Tensor | None = None) -> Tensor:
        log_shares = self.log_weights if log_shares is None else log_shares
        if self.closed_form is None:
            return log_shares.expand(*z.shape[:-1], -1)
        potential, mixing = self.gate * self.closed_form(z, q), self._mixing()
        return log_shares + (potential if mixing is None else potential @ mixing.transpose(1, 2))

    def _base_derivatives(self, z: Tensor, q: Tensor) -> Derivatives:
        log_weights = self.log_weights.expand(*z.shape[:-1], -1)
        if self.closed_form is None:
            gradient = z.new_zeros((*log_weights.shape, z.shape[-1]))
            return Derivatives(log_weights, gradient, torch.zeros_like(log_weights))
        closed_form, mixing = self.closed_form.derivatives(z, q).scale(self.gate), self._mixing()
        closed_form = closed_form if mixing is None else closed_form.combine(mixing)
        return replace(closed_form, value=closed_form.value + log_weights)

    def _marginal_and_trace(self, z: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        if self.marginal.has_closed_form_trace:
            return self.marginal.forward_and_trace(z, embedding)
        trace = forward_mode_divergence(lambda y: self.marginal(y, embedding), z)
        return self.marginal(z, embedding), trace

    @staticmethod
    def _from_gradient(z: Tensor, q: Tensor, output: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and score from the marginal's output and the gradient of the potential."""
        own = output + gradient / torch.sinh(q).clamp_min(SMALLEST_SINH)
        return own / torch.cosh(q), torch.sinh(q) * own - z

    def _all(self) -> Query:
        """All combinations as each member saw them in training, the marginal that its denoiser has learnt."""
        shift, nothing = self.log_train_shares - self.log_weights, self.log_weights.new_zeros(())
        weight = None if self.basis is None else self.basis(self.combinations, self.values_of_combinations)
        mixing = self._mixing()
        if mixing is not None:
            weight = mixing if weight is None else mixing @ weight
        return Query(weight, shift, nothing)

    def _mixing(self) -> Tensor | None:
        """Matrix that multiplies the terms of the potential with their factors; None where all are 1."""
        if not bool((self.term_factors < 1.0).any()):
            return None
        return torch.einsum("mt,tcd->mcd", self.term_factors, self.projections)

    def _queries_and_all(self, conditions: Sequence[Condition]) -> list[Query]:
        everything = self._all()
        return [*(self._query(condition, everything.weight) for condition in conditions), everything]

    def _query(self, condition: Condition, observed: Tensor | None) -> Query:
        """What a condition asks of the logits; numbers are taken as they are, not at their nearest level."""
        inside = self.combinations_in(condition)
        outside = torch.zeros_like(inside, dtype=self.log_weights.dtype).masked_fill(~inside, -torch.inf)
        log_weight = (self.log_weights + outside).logsumexp(-1)
        if self.basis is None:
            return Query(observed, outside, log_weight)
        given = condition.values.unsqueeze(-2)
        if given.isnan().all():
            return Query(observed, outside, log_weight)
        n, n_combinations = condition.values.shape[-2], len(self.combinations)
        values = given.where(~given.isnan(), self.values_of_combinations).reshape(n * n_combinations, -1)
        weight = self.basis(self.combinations.repeat(n, 1), values.to(self.dtype))
        weight = weight.unflatten(1, (n, n_combinations))
        return Query(weight.squeeze(1) if n == 1 else weight, outside, log_weight)
