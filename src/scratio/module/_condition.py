"""Conditions as tensors: what a network is asked about, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGINAL = -1
"""Code of a categorical key that is marginalised over; a continuous key uses NaN."""


def all_but(code):
    """Code of a categorical key that is marginalised over every category but one; its own inverse."""
    return MARGINAL - 1 - code


@dataclass(frozen=True)
class Condition:
    """Condition of every cell.

    Parameters
    ----------
    codes
        Category codes, shape (..., n, n_keys), integer; `MARGINAL` where the key is left out, `all_but` of a code
        for the other categories together. n = 1 stands for all cells.
    values
        Standardised continuous keys, shape (..., n, n_continuous); NaN where the key is left out.
    """

    codes: Tensor
    values: Tensor

    def __len__(self) -> int:
        return self.codes.shape[-2]

    def __getitem__(self, rows) -> Condition:
        """Rows of the cell axis; a condition shared by all cells is returned as it is."""
        if len(self) == 1:
            return self
        return Condition(self.codes[..., rows, :], self.values[..., rows, :])

    def repeat(self, n_times: int) -> Condition:
        """Every cell ``n_times`` in a row; a condition shared by all cells is returned as it is."""
        if len(self) == 1:
            return self
        return Condition(self.codes.repeat_interleave(n_times, dim=-2), self.values.repeat_interleave(n_times, dim=-2))

    def to(self, device: torch.device | str) -> Condition:
        """Copy on another device."""
        return Condition(self.codes.to(device), self.values.to(device))

    def drop(self, probability: float, generator: torch.Generator) -> Condition:
        """Marginalise every key of every cell independently with the given probability."""

        def keep(like: Tensor) -> Tensor:
            return torch.rand(like.shape, generator=generator, device=like.device) >= probability

        codes = self.codes.where(keep(self.codes), torch.full_like(self.codes, MARGINAL))
        values = self.values.where(keep(self.values), torch.full_like(self.values, torch.nan))
        return Condition(codes, values)

    def stack(self, n_members: int) -> Condition:
        """The same condition for every member, shape (n_members, n, ...), without copying."""
        return Condition(self.codes.expand(n_members, -1, -1), self.values.expand(n_members, -1, -1))

    def dropped(self) -> Condition:
        """Same shape with every key marginalised: the unconditional model."""
        return Condition(torch.full_like(self.codes, MARGINAL), torch.full_like(self.values, torch.nan))
