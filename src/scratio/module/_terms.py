"""What each condition key alone, and their interaction, contributes to a function of the combinations."""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 1e-8


def term_projections(combinations: Tensor) -> Tensor:
    r"""Projections of values at combinations on a term for each key and one for their interaction.

    With Z the intercept and the centred indicators of all categories, :math:`P_k = Z_k (Z^+)_k` is the part of key k in
    the additive least-squares fit of least norm, and :math:`I - Z Z^+` what is not additive. They sum to the identity,
    but for a term that all combinations share.

    Parameters
    ----------
    combinations
        Codes of the combinations, shape (n_combinations, n_keys).

    Returns
    -------
    Shape (n_terms, n_combinations, n_combinations); no terms where there is nothing to tell apart, that is with one
    key, or where one key says all.
    """
    n, n_keys = combinations.shape
    categories = [torch.unique(codes, return_inverse=True) for codes in combinations.T]
    if n_keys < 2 or n <= max(len(names) for names, _ in categories):
        return torch.empty((0, n, n))
    parts = [torch.ones((n, 1), dtype=torch.float64)]
    indicators = [torch.nn.functional.one_hot(codes).double() for _, codes in categories]
    parts += [part - part.mean(0) for part in indicators]
    inverse = torch.linalg.pinv(torch.cat(parts, dim=1)).split([part.shape[1] for part in parts])
    fitted = [part @ pull for part, pull in zip(parts, inverse, strict=True)]
    found = [*fitted[1:], torch.eye(n, dtype=torch.float64) - sum(fitted)]
    return torch.stack([term for term in found if float(term.abs().max()) > NOTHING]).float()
