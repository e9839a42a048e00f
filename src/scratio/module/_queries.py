"""What conditions ask of the logits of the observed combinations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scratio.module._derivatives import Derivatives


@dataclass(frozen=True)
class Query:
    """Weights of the features (None where features are logits), log indicator and log weight of the combinations."""

    weight: Tensor | None
    outside: Tensor
    log_weight: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Logits of the combinations from the outputs of the network."""
        if self.weight is None:
            return features
        if self.weight.ndim == features.ndim:
            return torch.bmm(features, self.weight.transpose(1, 2))
        return torch.einsum("mncj,mnj->mnc", self.weight, features)

    def log_likelihood(self, base: Derivatives, features: Derivatives) -> Derivatives:
        """Log density with its derivatives from those of the logits without the network, and of its outputs."""
        logits = base + (features if self.weight is None else features.combine(self.weight))
        return replace(logits, value=logits.value + self.outside - self.log_weight[..., None]).log_sum_exp()


@dataclass(frozen=True)
class NamedCombinations:
    """The combinations that conditions name, when these are few of all.

    Parameters
    ----------
    index
        Numbers of the combinations that each kind of condition names, shape (n_kinds, most).
    is_there
        False where a kind names fewer than most.
    kind
        Kind of every cell, shape (n,), or of all, shape (1,).
    weight
        Weights of the features in the logit of every combination, shape (n_members, n_combinations, n_features).
    """

    index: Tensor
    is_there: Tensor
    kind: Tensor
    weight: Tensor

    @classmethod
    def of(cls, inside: Tensor, kind: Tensor, weight: Tensor) -> NamedCombinations:
        """From which combinations agree with each kind, shape (n_kinds, n_combinations)."""
        most = max(int(inside.sum(-1).max()), 1)
        is_there, index = inside.to(torch.uint8).topk(most, dim=-1)
        return cls(index, is_there.bool(), kind, weight)

    @property
    def size(self) -> int:
        """Numbers per cell that a log likelihood needs, beside the features themselves."""
        most = self.index.shape[1]
        return most if len(self.kind) == 1 else most * self.weight.shape[-1]

    def log_likelihood(self, features: Tensor, base: Tensor, log_weights: Tensor) -> Tensor:
        """Log density of every cell up to a term that conditions share, shape (n_members, n).

        Parameters
        ----------
        features
            Outputs of the network, shape (n_members, n, n_features).
        base
            Logits without the network, shape (n_members, n, n_combinations).
        log_weights
            Log shares of the combinations among the cells.
        """
        index, is_there = self.index[self.kind], self.is_there[self.kind]
        if len(self.kind) == 1:
            logits = torch.bmm(features, self.weight[:, index[0]].transpose(1, 2)) + base[..., index[0]]
        else:
            logits = torch.einsum("mnf,mnkf->mnk", features, self.weight[:, index])
            logits = logits + base.gather(-1, index.expand(len(base), -1, -1))
        own = log_weights[index].masked_fill(~is_there, -torch.inf)
        return logits.masked_fill(~is_there, -torch.inf).logsumexp(-1) - own.logsumexp(-1)


def place_of(combinations: Tensor, codes: Tensor) -> Tensor:
    """Which of the combinations codes are, found among sorted numbers instead of by comparison with each.

    Parameters
    ----------
    combinations
        Codes of all combinations, shape (n_combinations, n_keys).
    codes
        Codes of cells, each one of the combinations, shape (..., n_keys).

    Returns
    -------
    Shape (...).
    """
    sizes = combinations.max(0).values + 1
    radix = torch.cat([sizes.flip(0).cumprod(0).flip(0)[1:], sizes.new_ones(1)])
    numbers, order = (combinations * radix).sum(-1).sort()
    place = torch.searchsorted(numbers, (codes * radix).sum(-1)).clamp(max=len(order) - 1)
    return order[place]
