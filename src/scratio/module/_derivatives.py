"""Scalar functions of the state with their gradients and Laplacians, and the log-sum-exp of several of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Derivatives:
    """K scalar functions at every state.

    Parameters
    ----------
    value
        Shape (n_members, n, ..., K).
    gradient
        Shape (n_members, n, ..., K, d).
    laplacian
        Shape (n_members, n, ..., K).
    """

    value: Tensor
    gradient: Tensor
    laplacian: Tensor

    def __add__(self, other: Derivatives) -> Derivatives:
        return Derivatives(self.value + other.value, self.gradient + other.gradient, self.laplacian + other.laplacian)

    def __sub__(self, other: Derivatives) -> Derivatives:
        return Derivatives(self.value - other.value, self.gradient - other.gradient, self.laplacian - other.laplacian)

    def scale(self, factor: Tensor) -> Derivatives:
        """Multiply every function by a number, shape (n_members or 1, n or 1, 1)."""
        return Derivatives(self.value * factor, self.gradient * factor[..., None], self.laplacian * factor)

    def combine(self, weight: Tensor) -> Derivatives:
        """Linear combinations with weights (n_members, C, K) or, where they differ by cell, (n_members, n, C, K)."""
        if weight.ndim == self.value.ndim:
            transposed = weight.transpose(-1, -2)
            return Derivatives(
                self.value @ transposed,
                torch.einsum("mck,mnkd->mncd", weight, self.gradient),
                self.laplacian @ transposed,
            )
        return Derivatives(
            torch.einsum("mnck,mnk->mnc", weight, self.value),
            weight @ self.gradient,
            torch.einsum("mnck,mnk->mnc", weight, self.laplacian),
        )

    def log_sum_exp(self) -> Derivatives:
        r"""Log of the sum of the exponentials of the K functions; the result has no axis K.

        With the softmax weights w: gradient :math:`\sum_k w_k \nabla f_k`, Laplacian :math:`\sum_k w_k (\Delta f_k +
        |\nabla f_k|^2) - |\sum_k w_k \nabla f_k|^2`. Functions of value minus infinity do not count.
        """
        weight = self.value.softmax(-1)
        gradient = (weight.unsqueeze(-2) @ self.gradient).squeeze(-2)
        square = (self.gradient**2).sum(-1)
        laplacian = (weight * (self.laplacian + square)).sum(-1) - (gradient**2).sum(-1)
        return Derivatives(self.value.logsumexp(-1), gradient, laplacian)
