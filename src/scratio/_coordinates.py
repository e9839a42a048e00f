"""Coordinates that networks see: centred, scaled, and with tails bent inwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BEND = 3.0
"""Robust standard deviations from the centre up to which coordinates are linear."""
FARTHEST = 1e15
"""Coordinate beyond which squares and their sums would overflow in single precision."""
LARGEST_EXPONENT = 60.0
"""For cells that a network draws far outside of all data."""


@dataclass(frozen=True)
class Coordinates:
    r"""A monotone map of each dimension, linear in the bulk and logarithmic in the tails.

    With :math:`u = (x - location) / scale`, a robust standard deviation s in units of the scale,
    and :math:`a = |u| / s`,

    .. math:: z = u \text{ for } a \le 3, \qquad z = \operatorname{sign}(u)\, s\, (3 + \log(1 + a - 3)) \text{ beyond},

    which is continuous with its first derivative. A log ratio is the same in any invertible coordinates; densities,
    velocities and scores change by the Jacobian. Without the bend a few cells far out would leave no room to tell the
    others apart.

    Parameters
    ----------
    location, scale
        Shape (d,), in double precision.
    tail
        s, shape (d,); infinite where nothing is bent.
    """

    location: np.ndarray
    scale: np.ndarray
    tail: np.ndarray

    @classmethod
    def linear(cls, location: np.ndarray, scale: np.ndarray) -> Coordinates:
        """Coordinates without a bend."""
        return cls(location, scale, np.full(len(location), np.inf))

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Coordinates of cells (n, d), in double precision."""
        u = (np.asarray(x, dtype=np.float64) - self.location) / self.scale
        excess = self._excess(u)
        bent = np.sign(u) * self._tail * (BEND + np.log1p(np.maximum(excess, 0.0)))
        return np.clip(np.where(excess > 0.0, bent, u), -FARTHEST, FARTHEST)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Cells (n, d) at coordinates."""
        excess = self._excess(z)
        far = np.expm1(np.clip(excess, 0.0, LARGEST_EXPONENT))
        u = np.where(excess > 0.0, np.sign(z) * self._tail * (BEND + far), z)
        return u * self.scale + self.location

    def slope(self, x: np.ndarray) -> np.ndarray:
        """Derivative dz/dx of every coordinate, shape (n, d)."""
        u = (np.asarray(x, dtype=np.float64) - self.location) / self.scale
        return 1.0 / (self.scale * (1.0 + np.maximum(self._excess(u), 0.0)))

    def slope_of_log_slope(self, x: np.ndarray) -> np.ndarray:
        """Derivative of log(dz/dx) in x, shape (n, d)."""
        u = (np.asarray(x, dtype=np.float64) - self.location) / self.scale
        excess = self._excess(u)
        inner = -np.sign(u) / (self.scale * self._tail)
        return np.where(excess > 0.0, inner / (1.0 + np.maximum(excess, 0.0)), 0.0)

    @property
    def _tail(self) -> np.ndarray:
        """A number where nothing is bent too, for arithmetic whose result is not used."""
        return np.where(np.isfinite(self.tail), self.tail, 1.0)

    def _excess(self, u: np.ndarray) -> np.ndarray:
        """How far a coordinate lies in the tail, in robust standard deviations; negative in the bulk."""
        return np.where(np.isfinite(self.tail), np.abs(u) / self.tail - BEND, -BEND)
