"""Two continuous normalising flows, one for each sample, and the difference of their likelihoods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scratio._random import torch_generator
from scratio.estimators import log_density
from scratio.module import Condition, ResidualHeads
from scratio.paths import GaussianPath
from scratio.peers._base import Standardiser
from scratio.peers._networks import draw, train

BATCH, _WEIGHTS = 4_096, 43


class NaiveFlows:
    """Naive baseline of arXiv 2602.24201, with a separate flow-matching model for each sample.

    The errors of the two models are independent, and do not cancel. Divergences are exact.

    Parameters
    ----------
    n_hidden
        Width of the residual network.
    n_steps, batch_size, learning_rate
        Training.
    sigma_min
        Noise left in the data, in standard deviations.
    random_state
        Seed.
    """

    def __init__(
        self,
        *,
        n_hidden: int = 256,
        n_steps: int = 5_000,
        batch_size: int = 512,
        learning_rate: float = 2e-3,
        sigma_min: float = 0.02,
        random_state: int = 0,
    ) -> None:
        self.path = GaussianPath(sigma_min, 0.0)
        self.settings: dict[str, Any] = {
            "n_hidden": n_hidden,
            "n_steps": n_steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "random_state": random_state,
        }

    def fit(self, x_num: np.ndarray, x_den: np.ndarray) -> NaiveFlows:
        """Train both models, side by side as two members of one stack."""
        settings = self.settings
        self._standardise = Standardiser.of(x_num, x_den)
        samples = [torch.from_numpy(self._standardise(x)) for x in (x_num, x_den)]
        network = ResidualHeads(
            n_features=x_num.shape[1],
            n_categories=[1],
            n_continuous=0,
            path=self.path,
            n_members=2,
            n_hidden=settings["n_hidden"],
            dropout=0.0,
            generator=torch_generator(settings["random_state"], _WEIGHTS),
        )

        def loss(network: ResidualHeads, generator: torch.Generator) -> Tensor:
            size = settings["batch_size"]
            batch = torch.stack([draw(sample, size, generator) for sample in samples])
            return network.loss(batch, _only(size), generator).sum()

        self._network = train(
            network,
            loss,
            n_steps=settings["n_steps"],
            learning_rate=settings["learning_rate"],
            random_state=settings["random_state"],
        )
        return self

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Difference of the log likelihoods."""
        z, parts = torch.from_numpy(self._standardise(x)), []
        for start in range(0, len(z), BATCH):
            part = z[start : start + BATCH]
            with torch.no_grad():
                num, den = log_density(self._network, part, _only(1))
            parts.append((num - den).numpy())
        return np.concatenate(parts)


def _only(n: int) -> Condition:
    """The one category that there is, for both models."""
    return Condition(torch.zeros((2, n, 1), dtype=torch.int64), torch.empty((2, n, 0)))
