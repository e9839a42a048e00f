"""The stale density ratio of FDRL: Bregman losses and the gradient of a divergence (arXiv 2303.03714)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scratio.fdrl._perceptron import Perceptron

DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "pearson": lambda log_ratio: 2.0 * torch.expm1(log_ratio),
    "kl": lambda log_ratio: log_ratio + 1.0,
    "js": lambda log_ratio: math.log(2.0) + nn.functional.logsigmoid(log_ratio),
    "logd": lambda log_ratio: nn.functional.softplus(log_ratio) + 1.0,
}
"""f'(r) from log r, of the divergence that samples descend: Pearson's chi², Kullback-Leibler, Jensen-Shannon, log D."""
LOSSES = ("logistic", "lsif")
_UNIT = math.log(math.expm1(1.0))
"""Softplus is 1 here: the ratio of an untrained network."""
_FAR = -15.0


class StaleRatio(Perceptron):
    r"""Network of :math:`r_\theta`, the density of improved samples over that of the data.

    Parameters
    ----------
    n_features, n_hidden, n_layers, n_waves, generator
        As for :class:`Perceptron`.
    loss
        ``"logistic"``: the network is log r. ``"lsif"``: it is r, which a softplus keeps positive.
    """

    def __init__(
        self,
        n_features: int,
        *,
        loss: str,
        n_hidden: int,
        n_layers: int,
        n_waves: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(n_features, 1, n_hidden=n_hidden, n_layers=n_layers, n_waves=n_waves, generator=generator)
        self.loss_name = loss

    def log_ratio(self, x: Tensor) -> Tensor:
        """Log r of cells (n, d), shape (n,)."""
        output = self(x)[:, 0]
        if self.loss_name == "logistic":
            return output
        shifted = output + _UNIT
        # Softplus is exp far below 0, where its logarithm would be lost to underflow.
        return torch.where(shifted < _FAR, shifted, torch.log(nn.functional.softplus(shifted.clamp_min(_FAR))))

    def loss(self, data: Tensor, improved: Tensor) -> Tensor:
        r"""Bregman loss whose minimum over all functions is the ratio of improved samples to data.

        .. math::
            \text{LSIF:} \quad \tfrac{1}{2} E_{data} r^2 - E_{improved} r, \qquad
            \text{logistic:} \quad -E_{improved} \log \frac{r}{1 + r} - E_{data} \log \frac{1}{1 + r}
        """
        of_data, of_improved = self(data)[:, 0], self(improved)[:, 0]
        if self.loss_name == "logistic":
            return nn.functional.softplus(-of_improved).mean() + nn.functional.softplus(of_data).mean()
        r_data, r_improved = (nn.functional.softplus(output + _UNIT) for output in (of_data, of_improved))
        return 0.5 * (r_data**2).mean() - r_improved.mean()
