"""Log posterior of the conditions at every noise level: what the potential is made of, trained by and calibrated by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from scratio.module._base import FlowNetwork, add_noise
from scratio.module._basis import FactorisedBasis
from scratio.module._closed_form import ClosedFormDensities
from scratio.module._condition import MARGINAL, Condition, all_but
from scratio.module._embedding import CoordinateEmbedding
from scratio.module._layers import select_members
from scratio.module._queries import NamedCombinations, Query, place_of
from scratio.module._residual import ResidualNet
from scratio.module._terms import term_projections
from scratio.paths import GaussianPath

CELLS_PER_LEVEL = 8
"""Cells of a batch that share a noise level, and with it the modulation of the networks, a third of their cost."""
TOWARDS_DATA = 0.5
"""Power of the uniform number that a noise level is drawn by: below 1 more levels lie near the data."""
MAX_JOINT = 32
"""Largest number of combinations of several keys that have outputs of their own."""


class ConditionPosterior(FlowNetwork):
    r"""Log posterior of the conditions at every noise level.

    Over the observed combinations c of the condition keys, with weights :math:`\pi_c`, the logits
    :math:`\ell_c(z, q) = \log \pi_c + \sum_j w_j B_{jc}(z, q) + w_0 \tanh(q) G_c(z, q)` define

    .. math::
        \phi_c(z, q) = \log p_q(z | c) - \log p_q(z) = \log \operatorname{softmax}(\ell)_c - \log \pi_c .

    A condition that leaves keys or categories out is the set S of the combinations that agree with it, and
    :math:`\phi_S = \log \sum_{c \in S} \operatorname{softmax}(\ell)_c - \log \sum_{c \in S} \pi_c`, so every marginal
    is exact and needs no training of its own. Class sizes do not shift a ratio: a member trains on the posterior under
    the shares of the combinations among its own training cells (:meth:`set_shares`), is judged under those of the cells
    it holds out, and combinations are mixed to a marginal by :math:`\pi`, their shares among all cells. The log ratio
    of two conditions is a difference of potentials at the smallest noise level.

    G is a network that starts at zero. It is trained by the cross-entropy of the logits at all noise levels. The closed
    forms B are log densities of Gaussians or small mixtures fitted to the conditions (:class:`ClosedFormDensities`).
    :meth:`calibrate` adds them after the training, with weights w that held-out cells choose. With several crossed keys
    the weights differ between a term for each key and one for their interaction (:func:`term_projections`), so that a
    key that says nothing is silenced although another one says much.

    Up to 32 combinations have an output of G each. More of them, if they are combinations of several keys, share
    outputs (:class:`FactorisedBasis`). A continuous key is cut into levels, which take part in the combinations; G_c
    is a smooth function of the level's value, so that a number that is asked about need not be one of them.

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
    generator
        Source of the initial weights; the initial potential is zero.
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
    ) -> None:
        super().__init__()
        self.path, self.n_members, self.n_features = path, n_members, n_features
        values = torch.empty((len(combinations), 0)) if values is None else values
        self.register_buffer("combinations", combinations)
        self.register_buffer("values_of_combinations", values)
        self.register_buffer("log_weights", weights.log())
        # Parameters, so that each member has its own and selecting members selects them.
        self.log_train_shares, self.log_held_out_shares = (
            _fixed(weights.log().repeat(n_members, 1, 1)) for _ in range(2)
        )
        self.classifier_embedding = CoordinateEmbedding(n_members, n_embed, 0, generator)
        self.basis = None
        if values.shape[1] or (combinations.shape[1] > 1 and len(combinations) > MAX_JOINT):
            n_categories = [int(codes.max()) + 1 for codes in combinations.T]
            levels = [torch.unique(column) for column in values.T]
            self.basis = FactorisedBasis(n_members, n_categories, levels, generator)
        self.classifier = ResidualNet(
            n_members,
            n_in=n_features,
            n_out=len(combinations) if self.basis is None else self.basis.n_features,
            n_hidden=n_hidden,
            n_layers=n_layers,
            n_embed=n_embed,
            generator=generator,
        )
        self.closed_forms = nn.ModuleList()
        projections = torch.empty((0,)) if values.shape[1] else term_projections(combinations)
        self.register_buffer("projections", projections, persistent=False)
        self.weights = _fixed(torch.ones((n_members, 1, self.n_terms)))
        self.is_calibrated = False

    @property
    def n_terms(self) -> int:
        """Number of terms that have weights of their own: one, or one for each crossed key and their interaction."""
        return max(len(self.projections), 1)

    def calibrate(self, closed_forms: Sequence[ClosedFormDensities], weights: Tensor) -> None:
        """Add closed forms to the potential, and weigh the parts.

        Parameters
        ----------
        closed_forms
            Closed forms, with as many members.
        weights
            Weight of each term of the network and of every closed form, shape (n_members, 1 + n_closed_forms, n_terms).
        """
        device = self.weights.device
        self.closed_forms = nn.ModuleList(closed_forms).to(device)
        self.weights, self.is_calibrated = _fixed(weights.to(self.weights)), True

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
        features, base = torch.tanh(q) * self.classifier(z, embedding), self._base(z, q)
        found = []
        for condition in conditions:
            named = None if self.basis is None else self._named(condition, everything.weight)
            if named is None:
                found += self._summed(features, base, [self._query(condition, everything.weight)])
            else:
                found.append(named.log_likelihood(features, base, self.log_weights))
        return found

    def log_likelihoods_of_combinations(self, z: Tensor, q: Tensor) -> Tensor:
        """Log density of every observed combination up to a term that they share, (n_members, n, n_combinations)."""
        features = torch.tanh(q) * self.classifier(z, self.classifier_embedding(q))
        return self._base(z, q) + self._all().logits(features) - self.log_weights

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

    def loss(self, x1: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        """Cross-entropy in nats of the labels at noise levels drawn for the cells, per member.

        Cells with noise serve as further cells, and what has to hold at every level cannot learn single cells by heart.
        """
        noised = add_noise(x1, self.path, generator, cells_per_level=CELLS_PER_LEVEL, towards_data=TOWARDS_DATA)
        embedding = self.classifier_embedding(noised.levels)
        log_posterior = self._log_posterior(noised.z, noised.q, embedding, self.log_train_shares)
        return -log_posterior.gather(-1, self.index(condition).unsqueeze(-1)).squeeze(-1).mean(1)

    def validation_loss(
        self, x1: Tensor, condition: Condition, generator: torch.Generator, n_draws: int | None = None
    ) -> Tensor:
        """Cross-entropy of every cell in nats at the smallest noise level, where the log ratio is read."""
        end = torch.full((1, 1, 1), self.path.q_end, device=x1.device)
        embedding = self.classifier_embedding(end)
        log_posterior = self._log_posterior(torch.tanh(end) * x1, end, embedding, self.log_held_out_shares)
        return -log_posterior.gather(-1, self.index(condition).unsqueeze(-1)).squeeze(-1)

    def parts(self, x1: Tensor, closed_forms: Sequence[ClosedFormDensities] = ()) -> Tensor:
        """Unweighted parts of the potential at the smallest noise level: of the network, and of closed forms.

        Parameters
        ----------
        x1
            Cells, shape (n_members, n, d).
        closed_forms
            Closed forms, with as many members.

        Returns
        -------
        Shape (1 + n_closed_forms, n_terms, n_members, n, n_combinations).
        """
        q = torch.full((1, 1, 1), self.path.q_end, dtype=x1.dtype, device=x1.device)
        z = torch.tanh(q) * x1
        basis = None if self.basis is None else self.basis(self.combinations, self.values_of_combinations)
        learnt = Query(basis, torch.zeros(()), torch.zeros(())).logits(self.classifier(z, self.classifier_embedding(q)))
        found = torch.stack([torch.tanh(q) * learnt, *(form(z, q) for form in closed_forms)])
        # A term that all combinations share says nothing; closed forms have a large one.
        found = found - found.mean(-1, keepdim=True)
        if not len(self.projections):
            return found[:, None]
        return torch.einsum("tcd,pmnd->ptmnc", self.projections, found)

    def each_part(self) -> list[tuple[float, Self]]:
        """A copy for each part (network, closed forms) that gives it the weights of all, and its share of them."""
        total = self.weights.sum(1, keepdim=True)
        shares = self.weights.sum((0, 2)) / total.sum().clamp_min(torch.finfo(total.dtype).tiny)
        found = []
        for place, share in enumerate(shares.tolist()):
            if not share:
                continue
            alone = select_members(self, range(self.n_members))
            alone.weights.data = torch.zeros_like(self.weights)
            alone.weights.data[:, place] = total[:, 0]
            found.append((share, alone))
        return found

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
        learnt = self._all().logits(torch.tanh(q) * self.classifier(z, embedding))
        return (self._base(z, q, log_shares) + learnt).log_softmax(-1)

    def _log_likelihoods(self, z: Tensor, q: Tensor, embedding: Tensor, queries: Sequence[Query]) -> list[Tensor]:
        return self._summed(torch.tanh(q) * self.classifier(z, embedding), self._base(z, q), queries)

    def _summed(self, features: Tensor, base: Tensor, queries: Sequence[Query]) -> list[Tensor]:
        return [(base + query.logits(features) + query.outside).logsumexp(-1) - query.log_weight for query in queries]

    def _base(self, z: Tensor, q: Tensor, log_shares: Tensor | None = None) -> Tensor:
        """Log shares and closed forms: the logits without the network."""
        logits = (self.log_weights if log_shares is None else log_shares).expand(*z.shape[:-1], -1)
        for place, closed_form in enumerate(self.closed_forms, start=1):
            logits = logits + closed_form(z, q) @ self._mixing(place).transpose(1, 2)
        return logits

    def _mixing(self, part: int) -> Tensor:
        """Matrix that multiplies the values of a part at all combinations, (n_members, n_combinations, n_combinations).

        The network is part 0.
        """
        if not len(self.projections):
            return self.weights[:, part, :, None] * torch.eye(len(self.combinations), device=self.weights.device)
        return torch.einsum("mt,tcd->mcd", self.weights[:, part], self.projections)

    def _all(self) -> Query:
        """All combinations with their shares among all cells, the marginal that the denoiser has learnt."""
        shift = nothing = self.log_weights.new_zeros(())
        weight = None if self.basis is None else self.basis(self.combinations, self.values_of_combinations)
        if not self.is_calibrated:
            return Query(weight, shift, nothing)
        mixing = self._mixing(0)
        return Query(mixing if weight is None else mixing @ weight, shift, nothing)

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
        # Terms have weights of their own only where there are no numbers.
        weight = self.weights[:, 0, :, None] * weight.unflatten(1, (n, n_combinations)).flatten(1, 2)
        weight = weight.unflatten(1, (n, n_combinations))
        return Query(weight.squeeze(1) if n == 1 else weight, outside, log_weight)


def _fixed(values: Tensor) -> nn.Parameter:
    """Values of each member that no optimiser touches; a parameter, so that selecting members selects them."""
    return nn.Parameter(values, requires_grad=False)
