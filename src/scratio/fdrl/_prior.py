"""Where the samples of FDRL start."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

RIDGE = 1e-4
"""Added to the variances, so that a constant or repeated dimension leaves the covariance invertible."""
REACH = 4.0
"""Longest distance of the uniform box from the mean, in standard deviations of a dimension."""


class Prior(nn.Module, ABC):
    """Distribution of starting points of standardised cells."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Starting points, shape (n, d), float32."""


class GaussianPrior(Prior):
    """Gaussian with the mean and covariance of cells (n, d): the data-dependent prior of arXiv 2303.03714."""

    def __init__(self, cells: Tensor) -> None:
        super().__init__()
        self.location: Tensor
        self.factor: Tensor
        cells = cells.double()
        centred = cells - cells.mean(0)
        covariance = centred.T @ centred / max(len(cells) - 1, 1)
        covariance += RIDGE * torch.eye(cells.shape[1], dtype=torch.float64)
        self.register_buffer("location", cells.mean(0).float())
        self.register_buffer("factor", torch.linalg.cholesky(covariance).float())

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Starting points, shape (n, d), float32."""
        noise = torch.randn((n, len(self.location)), generator=generator, device=self.location.device)
        return self.location + noise @ self.factor.T


class UniformPrior(Prior):
    """Uniform on the box that holds the cells (n, d), a few of the most extreme apart."""

    def __init__(self, cells: Tensor) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        mean, sd = cells.mean(0), cells.std(0, correction=0)
        self.register_buffer("low", torch.maximum(cells.amin(0), mean - REACH * sd))
        self.register_buffer("high", torch.minimum(cells.amax(0), mean + REACH * sd))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Starting points, shape (n, d), float32."""
        share = torch.rand((n, len(self.low)), generator=generator, device=self.low.device)
        return self.low + (self.high - self.low) * share


class CellPrior(Prior):
    """Cells themselves (n, d), for translation. They are not saved with the weights."""

    def __init__(self, cells: Tensor) -> None:
        super().__init__()
        self.cells: Tensor
        self.register_buffer("cells", cells, persistent=False)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Starting points, shape (n, d), float32."""
        return self.cells[torch.randint(len(self.cells), (n,), generator=generator, device=self.cells.device)]


PRIORS: dict[str, type[GaussianPrior | UniformPrior]] = {"gaussian": GaussianPrior, "uniform": UniformPrior}
"""Priors by name."""
