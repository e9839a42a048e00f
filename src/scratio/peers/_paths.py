"""Conditional probability paths between two samples, or from noise to one (arXiv 2111.10011, 2502.02300)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Coefficients:
    r"""Of :math:`x_u = a x_0 + b x_1 + \sqrt k \epsilon` and their derivatives, all of shape (n, 1).

    Parameters
    ----------
    a, b, root_k
        Coefficients.
    a_rate, b_rate
        Derivatives of a and b in u.
    k_rate
        :math:`k' / (2 k)`.
    """

    a: Tensor
    b: Tensor
    root_k: Tensor
    a_rate: Tensor
    b_rate: Tensor
    k_rate: Tensor


class ConditionalPath(ABC):
    """Path in a coordinate u in which its conditional time score is bounded.

    The log ratio is the integral of the time score over the path whatever the coordinate is.
    """

    low: ClassVar[float]
    high: ClassVar[float]
    is_one_sided: ClassVar[bool]
    """Whether the path begins in N(0, I), so that each sample needs one of its own."""

    @abstractmethod
    def coefficients(self, u: Tensor) -> Coefficients:
        """Coefficients at u, shape (n, 1)."""

    def time_score_variance(self, u: Tensor, n_features: int, displacement: float) -> Tensor:
        """Variance of the conditional time score at u, for samples with this mean square of what the mean moves by."""
        at = self.coefficients(u)
        moved = torch.maximum(at.a_rate.abs(), at.b_rate.abs()) / at.root_k
        return 2.0 * n_features * at.k_rate**2 + displacement * moved**2


@dataclass(frozen=True)
class BridgePath(ConditionalPath):
    r"""Schroedinger bridge :math:`x_t = (1 - t) x_0 + t x_1 + \sigma \sqrt{t (1 - t)} \epsilon`, t = sigmoid(u)."""

    sigma: float = 1.0
    low: ClassVar[float] = -7.0
    high: ClassVar[float] = 7.0
    is_one_sided: ClassVar[bool] = False

    def coefficients(self, u: Tensor) -> Coefficients:
        """Coefficients at u, shape (n, 1)."""
        t = torch.sigmoid(u)
        width = t * (1.0 - t)
        return Coefficients(1.0 - t, t, self.sigma * width.sqrt(), -width, width, 0.5 * (1.0 - 2.0 * t))


@dataclass(frozen=True)
class GaussianToData(ConditionalPath):
    r"""One-sided path :math:`x_t = t x_1 + \sqrt{1 - t^2} \epsilon` from N(0, I), t = tanh(u)."""

    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 4.2
    is_one_sided: ClassVar[bool] = True

    def coefficients(self, u: Tensor) -> Coefficients:
        """Coefficients at u, shape (n, 1)."""
        t = torch.tanh(u)
        sech = 1.0 / torch.cosh(u)
        zero = torch.zeros_like(u)
        return Coefficients(zero, t, sech, zero, sech**2, -t)


PATHS = {"bridge": BridgePath, "gaussian": GaussianToData}


def path_of(name: str) -> ConditionalPath:
    """Path by its name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in PATHS:
        raise ValueError(f"path must be one of {list(PATHS)}, got {name!r}")
    return PATHS[name]()
