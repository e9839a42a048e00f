"""Conditions that lie far apart, and densities with sharp edges: log ratios of several nats that are known.

    python benchmarks/far_apart.py             # an hour; writes benchmarks/results/far_apart.csv, far_apart_edges.csv
    python benchmarks/far_apart.py --quick     # seconds, on few cells; the figures mean nothing
    python benchmarks/far_apart.py --tasks far-5 edges-1 --methods scratio boosting --seeds 0 1

Mixtures of Gaussians in five configurations: every condition has weights and shapes of its own, and its components are
moved in directions of their own. Methods learn from 20,000 cells and score 10,000 fresh ones; ``slope`` is that of the
estimate on the truth (below 1: too small), ``variance`` that of the truth.

Sharp edges: y is x and uniform noise of width .1, x uniform between 0 and 1, independently in each of d dimensions;
cells of one label are pairs (x, y), those of the other pairs with y permuted. The mean log ratio over fresh pairs
estimates the mutual information, d (log(1 / w) + w / 2) for width w. ``bias`` is the mean error on these pairs.

Rows are written as they are measured, and replace earlier ones of the same task, method and seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _labels import QUICK
from _methods import fit_and_score
from _rows import Rows, parsed
from scipy.special import logsumexp

RESULTS = Path(__file__).parent / "results"
METHODS, EDGE_METHODS = ("scratio", "qda", "mlp", "boosting"), ("scratio", "mlp", "boosting")
N_TRAIN, N_FRESH, N_QUICK = 20_000, 10_000, 300
WIDTH = 0.1

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cells, whether they are treated, true log ratios."""


class Mixtures:
    """Two mixtures of Gaussians whose components correspond.

    Parameters
    ----------
    n_components, n_dims
        Sizes.
    shift
        How far each component is moved by the treatment, in a direction of its own, in standard deviations.
    shape
        Standard deviation of the log scales of each component in each condition, along axes of its own.
    spread
        Standard deviation of the centres in each dimension.
    share
        Share of treated cells.
    state
        Seed of all these.
    """

    def __init__(
        self, n_components: int, n_dims: int, *, shift: float, shape: float, spread: float, share: float, state: int
    ) -> None:
        self.n_components, self.n_dims, self.shift, self.share = n_components, n_dims, shift, share
        rng, size = np.random.default_rng(state), (n_components, n_dims)
        centres, directions = spread * rng.normal(size=size), rng.normal(size=size)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.means = np.stack([centres, centres + shift * directions])
        self.axes = np.linalg.qr(rng.normal(size=(2, *size, n_dims)))[0]
        self.scales = np.exp(shape * rng.normal(size=(2, *size)))
        self.weights = rng.dirichlet(np.full(n_components, 3.0), size=2)

    def draw(self, rng: np.random.Generator, n_cells: int) -> Drawn:
        """Cells of both conditions."""
        is_treated = rng.uniform(size=n_cells) < self.share
        condition = is_treated.astype(int)
        kind = (rng.uniform(size=(n_cells, 1)) > np.cumsum(self.weights[condition], axis=1)[:, :-1]).sum(1)
        noise = self.scales[condition, kind] * rng.normal(size=(n_cells, self.n_dims))
        x = self.means[condition, kind] + np.einsum("nij,nj->ni", self.axes[condition, kind], noise)
        return x, is_treated, self.log_density(x, 1) - self.log_density(x, 0)

    def log_density(self, x: np.ndarray, condition: int) -> np.ndarray:
        """Log density of a condition, without the constant that both have."""
        parts = []
        for k in range(self.n_components):
            scale = self.scales[condition, k]
            along = (x - self.means[condition, k]) @ self.axes[condition, k] / scale
            parts.append(np.log(self.weights[condition, k] / scale.prod()) - 0.5 * (along**2).sum(1))
        return logsumexp(parts, axis=0)


CONFIGURATIONS = {
    "far-1": Mixtures(3, 4, shift=1.0, shape=0.3, spread=2.0, share=0.5, state=1),
    "far-2": Mixtures(5, 8, shift=2.0, shape=0.3, spread=1.5, share=0.3, state=2),
    "far-3": Mixtures(7, 12, shift=3.0, shape=0.2, spread=1.5, share=0.5, state=3),
    "far-4": Mixtures(9, 20, shift=1.5, shape=0.2, spread=1.2, share=0.15, state=4),
    "far-5": Mixtures(4, 15, shift=4.0, shape=0.3, spread=1.0, share=0.6, state=5),
}
EDGES = {"edges-1": 1, "edges-5": 5}
"""Dimensions of x, and as many of y."""


def edges(rng: np.random.Generator, n_cells: int, n_dims: int, is_pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (x, y) where ``is_pair``, else x and a permuted y; true log ratios, infinite outside the band."""
    x = rng.uniform(size=(n_cells, n_dims))
    y = x + WIDTH * (rng.uniform(size=x.shape) - 0.5)
    others = np.flatnonzero(~is_pair)
    y[others] = y[rng.permutation(others)]
    inside = (np.abs(y - x) <= WIDTH / 2.0).all(1)
    # Density of y: 1, but for two slopes of the width of the noise, from 0 at -w / 2 and 1 + w / 2.
    log_density = np.log(np.minimum(1.0, np.minimum(y + WIDTH / 2.0, 1.0 + WIDTH / 2.0 - y) / WIDTH)).sum(1)
    return np.concatenate([x, y], axis=1), np.where(inside, -n_dims * np.log(WIDTH) - log_density, -np.inf)


def information_of_edges(n_dims: int) -> float:
    """Mutual information of x and y: entropy of y, w / 2 in each dimension, less that of the noise, log w."""
    return n_dims * (WIDTH / 2.0 - np.log(WIDTH))


def measure_mixtures(rows: Rows, task: str, methods: list[str], seed: int, quick: bool) -> None:
    """Errors on fresh cells of one configuration."""
    mixtures = CONFIGURATIONS[task]
    x, is_treated, _ = mixtures.draw(np.random.default_rng(seed), N_QUICK if quick else N_TRAIN)
    fresh, _, truth = mixtures.draw(np.random.default_rng(seed + 1_000), N_QUICK if quick else N_FRESH)
    for name in methods:
        found, seconds = fit_and_score(name, x, is_treated, fresh, seed, QUICK if quick and name == "scratio" else {})
        error, covariance = found - truth, np.cov(found, truth)
        rows.add(
            task=task,
            components=mixtures.n_components,
            d=mixtures.n_dims,
            shift=mixtures.shift,
            share=mixtures.share,
            method=name,
            seed=seed,
            mse=np.mean(error**2),
            slope=covariance[0, 1] / covariance[1, 1],
            variance=truth.var(),
            **seconds,
        )


def measure_edges(rows: Rows, task: str, methods: list[str], seed: int, quick: bool) -> None:
    """Mutual information of fresh pairs."""
    rng, n_dims, n_fresh = np.random.default_rng(seed), EDGES[task], N_QUICK if quick else N_FRESH
    is_pair = np.arange(N_QUICK if quick else N_TRAIN) % 2 == 0
    x, _ = edges(rng, len(is_pair), n_dims, is_pair)
    fresh, truth = edges(np.random.default_rng(seed + 1_000), n_fresh, n_dims, np.ones(n_fresh, dtype=bool))
    for name in [name for name in methods if name in EDGE_METHODS]:
        found, seconds = fit_and_score(name, x, is_pair, fresh, seed, QUICK if quick and name == "scratio" else {})
        rows.add(
            task=task,
            d=n_dims,
            method=name,
            seed=seed,
            information=information_of_edges(n_dims),
            estimate=found.mean(),
            bias=(found - truth).mean(),
            mse=np.mean((found - truth) ** 2),
            **seconds,
        )


def main() -> None:
    """Measure and write."""
    tasks = (*CONFIGURATIONS, *EDGES)
    options = parsed(
        __doc__, RESULTS, {"tasks": ("far-1", "far-4", "edges-1")}, tasks=tasks, methods=METHODS, seeds=(0,)
    )
    keys = ["task", "method", "seed"]
    of_mixtures = Rows(options.results, "far_apart.csv", keys)
    of_edges = Rows(options.results, "far_apart_edges.csv", keys)
    for seed in options.seeds:
        for task in options.tasks:
            if task in EDGES:
                measure_edges(of_edges, task, options.methods, seed, options.quick)
            else:
                measure_mixtures(of_mixtures, task, options.methods, seed, options.quick)


if __name__ == "__main__":
    main()
