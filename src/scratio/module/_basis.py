"""How the logits of many conditions are composed of fewer features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratio.module._layers import StackedEmbedding, StackedLinear

N_INTERACTION = 32


class FactorisedBasis(nn.Module):
    r"""Weights of the features in the logit of a condition: a term for each key and one for their interactions.

    For keys k with values :math:`c_k`, features f of the cell, and embeddings r,

    .. math:: G_c = \sum_k f_{k, c_k} + \Big\langle f_{int}, \sum_{k < l} r^k_{c_k} \odot r^l_{c_l} \Big\rangle .

    A continuous key of value v has the terms :math:`v f_1 + (v^2 - 1) f_2 + \langle f_{int}, r(v) \rangle` with a small
    network r. So 12 donors and 91 treatments need 135 features in place of 1,092, donors share what a treatment does,
    and a value between two that were observed has a potential of its own.

    Parameters
    ----------
    n_members
        Number of stacked networks.
    n_categories, n_continuous
        Number of categories of each categorical key, number of continuous keys.
    generator
        Source of the initial weights.
    n_interaction
        Number of interaction features.
    """

    def __init__(
        self,
        n_members: int,
        n_categories: list[int],
        n_continuous: int,
        generator: torch.Generator,
        n_interaction: int = N_INTERACTION,
    ) -> None:
        super().__init__()
        self.n_categories = list(n_categories)
        self.tables = nn.ModuleList(
            StackedEmbedding(n_members, n, n_interaction, generator=generator) for n in n_categories
        )
        self.curves = nn.ModuleList(
            nn.Sequential(
                StackedLinear(n_members, 1, n_interaction, generator=generator),
                nn.SiLU(),
                StackedLinear(n_members, n_interaction, n_interaction, generator=generator),
            )
            for _ in range(n_continuous)
        )
        self.n_features = sum(n_categories) + 2 * n_continuous + n_interaction

    def forward(self, codes: Tensor, values: Tensor) -> Tensor:
        """Weights (n_members, n, n_features) of conditions with codes (n, n_keys) and values (n, n_continuous)."""
        n_members = len(next(self.parameters()))
        terms, embeddings, alone = [], [], []
        for key, table in enumerate(self.tables):
            code = codes[:, key].expand(n_members, -1)
            embeddings.append(table(code))
            terms.append(nn.functional.one_hot(code, self.n_categories[key]).to(embeddings[-1].dtype))
        for key, curve in enumerate(self.curves):
            value = values[:, key, None].expand(n_members, -1, -1)
            terms.append(torch.cat([value, value**2 - 1.0], dim=-1))
            embeddings.append(curve(value))
            alone.append(embeddings[-1])
        joint = torch.stack(embeddings)
        interaction = 0.5 * (joint.sum(0) ** 2 - (joint**2).sum(0))
        if alone:
            interaction = interaction + torch.stack(alone).sum(0)
        return torch.cat([*terms, interaction], dim=-1)
