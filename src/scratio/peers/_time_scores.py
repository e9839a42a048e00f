"""Time score matching: DRE-infinity (arXiv 2111.10011) and its conditional forms (arXiv 2502.02300)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scratio.peers._base import Standardiser
from scratio.peers._networks import TimeNetwork, draw, stratified, train
from scratio.peers._paths import path_of

N_NODES, BATCH = 64, 4_096


class TSM:
    r"""Time score matching (DRE-infinity; Choi et al. 2022).

    A path joins the densities; its time score :math:`s(x, u) = \partial_u \log p_u(x)` is learnt without knowing it, by
    integration by parts,

    .. math::
        J = \int E\big[\tfrac12 \lambda s^2 + \partial_u (\lambda s)\big] du
        - E_{high}[\lambda s] + E_{low}[\lambda s],

    and the log ratio is its integral along the path at a fixed x. The weight :math:`\lambda` is one over the variance
    of the conditional time score.

    Parameters
    ----------
    path
        ``"bridge"``, the Schroedinger bridge between both samples, or ``"gaussian"``, from N(0, I) to each of them.
    n_hidden, n_layers
        Width and number of hidden layers.
    n_steps, batch_size, learning_rate
        Training.
    random_state
        Seed.
    """

    is_vector = False

    def __init__(
        self,
        *,
        path: str = "bridge",
        n_hidden: int = 256,
        n_layers: int = 3,
        n_steps: int = 15_000,
        batch_size: int = 512,
        learning_rate: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.path = path_of(path)
        self.settings: dict[str, Any] = {
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "n_steps": n_steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "random_state": random_state,
        }

    def fit(self, x_num: np.ndarray, x_den: np.ndarray) -> TSM:
        """Learn the time score of the path, or of one path for each sample."""
        self._standardise = Standardiser.of(x_num, x_den)
        num, den = (torch.from_numpy(self._standardise(x)) for x in (x_num, x_den))
        if self.path.is_one_sided:
            self._models = [(1.0, self._train(num, None)), (-1.0, self._train(den, None))]
        else:
            self._models = [(1.0, self._train(num, den))]
        return self

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Integral of the time score by Gauss and Legendre's rule."""
        nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
        half = 0.5 * (self.path.high - self.path.low)
        z = torch.from_numpy(self._standardise(x))
        total = np.zeros(len(z))
        with torch.no_grad():
            for sign, (network, displacement) in self._models:
                for node, weight in zip(nodes, weights, strict=True):
                    u = torch.full((1, 1), self.path.low + half * (node + 1.0), dtype=torch.float32)
                    scale = self._scale(u, z.shape[1], displacement)
                    for start in range(0, len(z), BATCH):
                        part = z[start : start + BATCH]
                        score = scale * network(part, u.expand(len(part), 1))
                        total[start : start + BATCH] += sign * half * weight * score.sum(1).double().numpy()
        return total

    def _train(self, end: Tensor, start: Tensor | None) -> tuple[nn.Module, Any]:
        """Network for the path to ``end`` from ``start``, or from noise, and what its output is scaled by."""
        settings, path, d = self.settings, self.path, end.shape[1]
        # What the mean moves by: the whole cell from noise, the difference of two cells otherwise.
        other = torch.zeros_like(end[:1]) if start is None else start
        squares = (end - other.mean(0)).square().mean(0) + (other - other.mean(0)).square().mean(0)
        displacement = squares if self.is_vector else squares.sum()
        network = TimeNetwork(
            d,
            d if self.is_vector else 1,
            settings["n_hidden"],
            settings["n_layers"],
            path.low,
            path.high,
            settings["random_state"],
        )

        def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
            size = settings["batch_size"]
            x1 = draw(end, size, generator)
            x0 = torch.zeros_like(x1) if start is None else draw(start, size, generator)
            return self._loss(network, x0, x1, displacement, generator)

        trained = train(
            network,
            loss,
            n_steps=settings["n_steps"],
            learning_rate=settings["learning_rate"],
            random_state=settings["random_state"],
        )
        return trained, displacement

    def _scale(self, u: Tensor, d: int, displacement: Any) -> Tensor:
        """Standard deviation of the conditional time score: of all dimensions together, or of each."""
        return self.path.time_score_variance(u, 1 if self.is_vector else d, displacement).sqrt()

    def _loss(
        self, network: nn.Module, x0: Tensor, x1: Tensor, displacement: Any, generator: torch.Generator
    ) -> Tensor:
        path, d = self.path, x1.shape[1]

        def state(u: Tensor) -> Tensor:
            at = path.coefficients(u)
            return at.a * x0 + at.b * x1 + at.root_k * torch.randn(x1.shape, generator=generator)

        u = stratified(len(x1), path.low, path.high, generator)
        x = state(u)

        def weighted(u: Tensor) -> tuple[Tensor, Tensor]:
            output = network(x, u)
            return output / self._scale(u, d, displacement), output

        found = torch.func.jvp(weighted, (u,), (torch.ones_like(u),))
        output, rate = found[0][1], found[1][0]
        ends = []
        for bound in (path.low, path.high):
            at = torch.full_like(u, bound)
            ends.append((network(state(at), at) / self._scale(at, d, displacement)).mean())
        length = path.high - path.low
        return length * (0.5 * output.square() + rate).mean() + ends[0] - ends[1]


class CTSM(TSM):
    r"""Conditional time score matching (Yu et al. 2025): regression on the time score given both ends of the path.

    .. math::
        \partial_u \log p_u(x | x_0, x_1) = \frac{k'}{2 k} (|\epsilon|^2 - d)
        + \frac{\epsilon \cdot (a' x_0 + b' x_1)}{\sqrt k}

    Parameters
    ----------
    vector
        Whether to learn the time score of each dimension (CTSM-v), whose sum it is; the targets have less noise.
    **kwargs
        As of :class:`TSM`.
    """

    def __init__(self, *, vector: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_vector = vector

    def _loss(
        self, network: nn.Module, x0: Tensor, x1: Tensor, displacement: Any, generator: torch.Generator
    ) -> Tensor:
        path, d = self.path, x1.shape[1]
        u = stratified(len(x1), path.low, path.high, generator)
        at = path.coefficients(u)
        noise = torch.randn(x1.shape, generator=generator)
        target = at.k_rate * (noise**2 - 1.0) + noise * (at.a_rate * x0 + at.b_rate * x1) / at.root_k
        if not self.is_vector:
            target = target.sum(1, keepdim=True)
        output = network(at.a * x0 + at.b * x1 + at.root_k * noise, u)
        return (output - target / self._scale(u, d, displacement)).square().mean()
