"""The Gaussian path of the paper, its three schedules, and the coordinate in which they are one process."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE_FLOOR = 0.01
"""Smallest noise level that is ever evaluated: a schedule with lambda(1) = 0 has an infinite score at t = 1."""


@dataclass(frozen=True)
class GaussianPath:
    r"""Path :math:`x_t = t x_1 + \lambda(t) x_0` from noise (t = 0) to data (t = 1).

    .. math:: \lambda(t)^2 = (1 - (1 - \sigma_{min}) t)^2 + \sigma t (1 - t)

    The paper's schedules (arXiv 2602.24201): (I) ``sigma_min = sigma = 0``, (II) ``sigma_min > 0``, (III) ``sigma >
    0``.

    All of them are one process. With the noise level :math:`\lambda / t`, the state :math:`z = x_t / \sqrt{t^2 +
    \lambda^2}` and the coordinate :math:`q = \operatorname{asinh}(t / \lambda)`,

    .. math:: z = \tanh(q) x_1 + \operatorname{sech}(q) x_0, \qquad q = 0: \text{noise}, \quad q \to \infty:
    \text{data},

    whatever the schedule; nothing is singular at either end. The schedule decides the time t at which a noise level is
    met, and the smallest level, :math:`\lambda(1) = \sigma_{min}`.

    Parameters
    ----------
    sigma_min
        Noise level left at t = 1, in standard deviations of the standardised embedding.
    sigma
        Strength of the bridge term of schedule (III).
    """

    sigma_min: float = 0.0
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma_min < 1.0:
            raise ValueError(f"sigma_min must lie in [0, 1), got {self.sigma_min}")
        if not (self.sigma >= 0.0 and math.isfinite(self.sigma)):
            raise ValueError(f"sigma must be finite and not negative, got {self.sigma}")

    def lambda_(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at time t."""
        return self._lambda_squared(t).clamp_min(0.0).sqrt()

    def lambda_lambda_prime(self, t: Tensor) -> Tensor:
        """Product of lambda and its derivative in t, which stays finite where lambda itself vanishes."""
        rate = 1.0 - self.sigma_min
        return -rate * (1.0 - rate * t) + 0.5 * self.sigma * (1.0 - 2.0 * t)

    def lambda_prime(self, t: Tensor) -> Tensor:
        """Derivative of lambda in t (infinite at t = 1 for schedule III with sigma_min = 0)."""
        return self.lambda_lambda_prime(t) / self.lambda_(t)

    def score_weight(self, t: Tensor) -> Tensor:
        r"""Weight :math:`c_t = \lambda^2 - t \lambda \lambda'` that turns the score into a bounded target.

        It equals :math:`1 - (1 - \sigma_{min}) t + \sigma t / 2`: positive for t < 1, also where both terms cancel.
        """
        return 1.0 - (1.0 - self.sigma_min) * t + 0.5 * self.sigma * t

    @property
    def smallest_noise_level(self) -> float:
        """Noise level at which a cell is read: ``sigma_min``, never below the numerical floor."""
        return max(self.sigma_min, NOISE_FLOOR)

    @property
    def q_end(self) -> float:
        """Coordinate q of the smallest noise level."""
        return math.asinh(1.0 / self.smallest_noise_level)

    def coordinate(self, t: Tensor) -> Tensor:
        """Coordinate q = asinh(t / lambda(t)) of time t."""
        return torch.asinh(t / self.lambda_(t))

    def time(self, q: Tensor) -> Tensor:
        r"""Time t at which the path has coordinate q: the root of :math:`t = \lambda(t) \sinh q`."""
        sinh = torch.sinh(q)
        slope = 2.0 * (1.0 - self.sigma_min) - self.sigma
        root = torch.sqrt(self.sigma * (self.sigma + 4.0 * self.sigma_min) * sinh**2 + 4.0)
        return 2.0 * sinh / (slope * sinh + root)

    def clamp(self, t: Tensor) -> Tensor:
        """Time t, not later than the smallest noise level that is ever evaluated."""
        q_end = torch.tensor(self.q_end, dtype=torch.float64)
        return t.clamp(0.0, float(self.time(q_end)))

    def scale(self, t: Tensor) -> Tensor:
        r"""Factor :math:`\sqrt{t^2 + \lambda^2}` between x_t and z."""
        return (t**2 + self._lambda_squared(t)).sqrt()

    def velocity_from_denoiser(self, x: Tensor, t: Tensor, denoised: Tensor) -> Tensor:
        r"""Velocity :math:`u = (\lambda'/\lambda) x + (1 - t \lambda'/\lambda) D`."""
        ratio = self.lambda_lambda_prime(t) / self._lambda_squared(t)
        return ratio * x + (1.0 - t * ratio) * denoised

    def score_from_denoiser(self, x: Tensor, t: Tensor, denoised: Tensor) -> Tensor:
        r"""Score :math:`s = (t D - x) / \lambda^2`."""
        return (t * denoised - x) / self._lambda_squared(t)

    def denoiser_from_velocity(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        r"""Denoiser :math:`D = (\lambda^2 u - \lambda \lambda' x) / c_t`."""
        return (self._lambda_squared(t) * velocity - self.lambda_lambda_prime(t) * x) / self.score_weight(t)

    def _lambda_squared(self, t: Tensor) -> Tensor:
        return (1.0 - (1.0 - self.sigma_min) * t) ** 2 + self.sigma * t * (1.0 - t)
