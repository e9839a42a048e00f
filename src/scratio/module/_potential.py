"""The condition as a scalar potential on a marginal denoiser (``parametrization="potential"``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from scratio.module._base import Flow, FlowWithDivergence
from scratio.module._closed_form import ClosedFormDensities
from scratio.module._condition import Condition
from scratio.module._derivatives import Derivatives
from scratio.module._heads import ResidualHeads
from scratio.module._posterior import ConditionPosterior

SMALLEST_SINH = 1e-2
"""Below this sinh(q) the state is noise and the gradient of the potential is bounded by its factor tanh(q)."""
LOGIT_GRADIENTS = 2**25
"""Largest number of entries of the gradients of all logits that are held at once."""


class PotentialNetwork(ConditionPosterior):
    r"""Potential of the conditions (:class:`ConditionPosterior`), beside one denoiser of all cells.

    Velocity and score need a denoiser F of all cells, which knows no labels and is the same for all members
    (:class:`ResidualHeads` without conditions; trained when it is first asked for):

    .. math:: F_S = F + \nabla_z \phi_S / \sinh q, \qquad \nabla \log p_q(z | S) = \sinh(q) F_S - z .

    Parameters
    ----------
    **kwargs
        Those of :class:`ConditionPosterior`.
    """

    SHARED = ("marginal",)
    """Parts that all members share, so that selecting members leaves them whole."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.marginal: ResidualHeads | None = None

    def flow(self, z: Tensor, q: Tensor, condition: Condition) -> Flow:
        """Velocity and score at coordinate q."""
        return self.flows(z, q, [condition])[0]

    def flows(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[Flow]:
        """Velocity and score for several conditions, by reverse mode through one pass of the classifier."""
        queries = self._queries_and_all(conditions)
        embedding = self.classifier_embedding(q)
        values, pull = torch.func.vjp(lambda y: self._log_likelihoods(y, q, embedding, queries), z)[:2]
        output = self._denoised(z, q)
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
        features = self.classifier.derivatives(z, self.classifier_embedding(q)).scale(torch.tanh(q))
        base = self._base_derivatives(z, q)
        *own, marginal = [query.log_likelihood(base, features) for query in queries]
        output, trace = self._denoised_and_trace(z, q)
        flows = []
        for derivatives in own:
            potential = derivatives - marginal
            velocity, score = self._from_gradient(z, q, output, potential.gradient)
            sinh, cosh = torch.sinh(q).clamp_min(SMALLEST_SINH).squeeze(-1), torch.cosh(q).squeeze(-1)
            flows.append(FlowWithDivergence(velocity, score, (trace + potential.laplacian / sinh) / cosh))
        return flows

    def condition_gradients(self, z: Tensor, q: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
        """Gradient of every condition's log density up to a term that the conditions share; needs no denoiser."""
        queries = [*self._queries_and_all(conditions)][:-1]
        embedding = self.classifier_embedding(q)
        values, pull = torch.func.vjp(lambda y: self._log_likelihoods(y, q, embedding, queries), z)[:2]
        pulled = []
        for index in range(len(queries)):
            weights = [torch.zeros_like(value) for value in values]
            weights[index] = torch.ones_like(values[0])
            pulled.append(pull(weights)[0])
        return pulled

    def _base_derivatives(self, z: Tensor, q: Tensor) -> Derivatives:
        log_weights = self.log_weights.expand(*z.shape[:-1], -1)
        gradient = z.new_zeros((*log_weights.shape, z.shape[-1]))
        total = Derivatives(log_weights, gradient, torch.zeros_like(log_weights))
        for place, closed_form in enumerate(self.closed_forms, start=1):
            total = total + cast(ClosedFormDensities, closed_form).derivatives(z, q).combine(self._mixing(place))
        return total

    def _denoised(self, z: Tensor, q: Tensor) -> Tensor:
        denoiser, shape = self._trained_denoiser(), z.shape
        return denoiser.output(*_as_one_member(z, q)).reshape(shape)

    def _denoised_and_trace(self, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        denoiser, shape = self._trained_denoiser(), z.shape
        output, trace = denoiser.output_and_trace(*_as_one_member(z, q))
        return output.reshape(shape), trace.reshape(shape[:-1])

    def _trained_denoiser(self) -> ResidualHeads:
        if self.marginal is None:
            raise RuntimeError("velocity and score need a denoiser, and this network has none yet")
        return self.marginal

    @staticmethod
    def _from_gradient(z: Tensor, q: Tensor, output: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and score from the marginal's output and the gradient of the potential."""
        own = output + gradient / torch.sinh(q).clamp_min(SMALLEST_SINH)
        return own / torch.cosh(q), torch.sinh(q) * own - z


def _as_one_member(z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """States and coordinates of all members as those of one."""
    return z.reshape(1, -1, z.shape[-1]), q.expand(*z.shape[:-1], 1).reshape(1, -1, 1)
