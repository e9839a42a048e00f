"""Distances between samples by others' methods, written after their papers: what `outside_samples.py` compares with.

GloScope (Wang et al. 2024, Genome Biology 25:259; epurdom/GloScope, R) has two estimates of the symmetric divergence.
Both are written here after its paper, its R code and the packages that this calls, with their defaults:

- ``gloscope-GMM``: for each sample a mixture of 5, 10, 15 or 20 Gaussians by BIC (mclust's model VVE: variances of each
  component's own along axes that all of them share), and 10,000 cells drawn from each mixture. The axes are found as
  mclust does (Browne and McNicholas 2014). The first partition is Ward's; mclust's is by likelihood. A sample has no
  distance if a component collapses in all four mixtures. ``gloscope-GMM-9`` has 1 to 9 components, as the package had
  by default when it was released, so that small samples have a mixture.
- ``gloscope-kNN``: distances to the 50th neighbour within and between samples (Boltz et al. 2007, the package FNN).
  ``gloscope-kNN-25`` has the 25th, and 0 in place of negative values, as the benchmark SPARE runs it.

Others: Euclidean distance and one less correlation of mean embeddings (pseudobulk), the Aitchison distance of the
shares of cell types (half a cell is added to each count), energy distance and maximum mean discrepancy (Gaussian
kernel whose width is the median distance of cells; both without a sample's distance of a cell to itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.special import logsumexp

N_COMPONENTS = {"gloscope-GMM": (5, 10, 15, 20), "gloscope-GMM-9": tuple(range(1, 10))}
N_DRAWS, N_NEIGHBORS, N_NEAR = 10_000, 50, 25
N_ITERATIONS, TOLERANCE, TURNS, LEAST_VARIANCE = 300, 1e-5, 5, 1e-8
PSEUDOCOUNT, FOR_WIDTH = 0.5, 1_000


class AlignedMixture:
    """A mixture of Gaussians whose covariances D diag(v_k) D' share their axes D (mclust's VVE).

    Parameters
    ----------
    x
        Cells, shape (n, d).
    kind
        Component that each cell starts in, codes from 0, shape (n,).

    Raises
    ------
    ValueError
        If a component collapses, for which mclust returns no fit.
    """

    def __init__(self, x: np.ndarray, kind: np.ndarray) -> None:
        n, d = x.shape
        self.axes = np.eye(d)
        weight, last = np.eye(kind.max() + 1)[kind], -np.inf
        for _ in range(N_ITERATIONS):
            self._maximise(x, weight)
            joint = self._joint(x)
            log_density = logsumexp(joint, axis=1)
            weight, total = np.exp(joint - log_density[:, None]), log_density.sum()
            if abs(total - last) < TOLERANCE * (1.0 + abs(total)):
                break
            last = total
        n_components = weight.shape[1]
        n_parameters = n_components - 1 + 2 * n_components * d + d * (d - 1) / 2
        self.bic = 2.0 * total - n_parameters * np.log(n)

    def _maximise(self, x: np.ndarray, weight: np.ndarray) -> None:
        size = weight.sum(0)
        if size.min() < 1.0:
            raise ValueError("a component has no cell left")
        self.log_share, self.mean = np.log(size / len(x)), weight.T @ x / size[:, None]
        outer = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        scatter = (weight.T @ outer).reshape(len(size), x.shape[1], -1)
        scatter -= size[:, None, None] * self.mean[:, :, None] * self.mean[:, None, :]
        largest = np.linalg.eigvalsh(scatter)[:, -1]
        for _ in range(TURNS):
            self.variance = np.einsum("dj,kde,ej->kj", self.axes, scatter, self.axes) / size[:, None]
            if self.variance.min() < LEAST_VARIANCE * x.var(0).mean():
                raise ValueError("a component has collapsed")
            precision = 1.0 / self.variance
            # The sum of traces is bounded by one that is linear in the axes; singular vectors minimise the bound.
            bound = np.einsum("kj,dj,kde->je", precision, self.axes, scatter)
            bound -= np.einsum("k,kj,dj->jd", largest, precision, self.axes)
            left, _, right = np.linalg.svd(-bound)
            self.axes = (left @ right).T
        self.variance = np.einsum("dj,kde,ej->kj", self.axes, scatter, self.axes) / size[:, None]

    def _joint(self, x: np.ndarray) -> np.ndarray:
        turned, center, precision = x @ self.axes, self.mean @ self.axes, 1.0 / self.variance
        gap = turned**2 @ precision.T - 2.0 * turned @ (center * precision).T + (center**2 * precision).sum(1)
        constant = self.log_share - 0.5 * (np.log(self.variance).sum(1) + x.shape[1] * np.log(2.0 * np.pi))
        return constant - 0.5 * gap

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log densities of cells, shape (n,)."""
        return logsumexp(self._joint(x), axis=1)

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Cells of the mixture, shape (n, d)."""
        kind = rng.choice(len(self.log_share), size=n, p=np.exp(self.log_share - logsumexp(self.log_share)))
        noise = rng.normal(size=(n, len(self.axes))) * np.sqrt(self.variance[kind])
        return self.mean[kind] + noise @ self.axes.T


def best_mixture(x: np.ndarray, n_components: Sequence[int]) -> AlignedMixture | None:
    """Mixture with the largest BIC; None if all collapse."""
    tree, found = linkage(x, method="ward"), []
    for size in n_components:
        try:
            found.append(AlignedMixture(x, fcluster(tree, size, "maxclust") - 1))
        except ValueError:
            continue
    return max(found, key=lambda mixture: mixture.bic, default=None)


def by_mixtures(cells: Sequence[np.ndarray], seed: int, n_components: Sequence[int]) -> np.ndarray:
    """Symmetric divergences by GloScope's mixtures; NaN for samples without a mixture."""
    rng, found = np.random.default_rng(seed), np.full((len(cells), len(cells)), np.nan)
    mixtures = [best_mixture(x, n_components) for x in cells]
    for row, mixture in enumerate(mixtures):
        if mixture is None:
            continue
        drawn = mixture.draw(rng, N_DRAWS)
        own = mixture.log_density(drawn)
        for column, other in enumerate(mixtures):
            if other is not None:
                found[row, column] = 0.0 if row == column else (own - other.log_density(drawn)).mean()
    return found + found.T


def by_neighbors(cells: Sequence[np.ndarray], k: int = N_NEIGHBORS) -> np.ndarray:
    """Symmetric divergences by distances to the k-th neighbour; NaN for samples of at most k cells."""
    trees, found = [cKDTree(x) for x in cells], np.full((len(cells), len(cells)), np.nan)
    enough = [which for which, x in enumerate(cells) if len(x) > k]
    # A cell is its own first neighbour.
    own = {which: np.log(trees[which].query(cells[which], [k + 1])[0]).mean() for which in enough}
    for row in enough:
        for column in enough:
            if row == column:
                found[row, column] = 0.0
                continue
            x, n_others = cells[row], len(cells[column])
            between = np.log(trees[column].query(x, [k])[0]).mean()
            found[row, column] = x.shape[1] * (between - own[row]) + np.log(n_others / (len(x) - 1))
    return found + found.T


def pseudobulk(cells: Sequence[np.ndarray], metric: str) -> np.ndarray:
    """Distances of mean embeddings."""
    return squareform(pdist(np.stack([x.mean(0) for x in cells]), metric))


def aitchison(kinds: Sequence[np.ndarray]) -> np.ndarray:
    """Aitchison distances of the shares of cell types, from the type of every cell of every sample."""
    n_kinds = max(kind.max() for kind in kinds) + 1
    counts = np.stack([np.bincount(kind, minlength=n_kinds) for kind in kinds]) + PSEUDOCOUNT
    return squareform(pdist(np.log(counts) - np.log(counts).mean(1, keepdims=True)))


def by_means_of_pairs(cells: Sequence[np.ndarray], of_distances: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """2 E f(X, Y) - E f(X, X') - E f(Y, Y') of every two samples, over pairs of different cells."""
    n = len(cells)
    mean = np.zeros((n, n))
    for row in range(n):
        for column in range(row + 1):
            if row == column:
                mean[row, row] = of_distances(pdist(cells[row])).mean()
            else:
                mean[row, column] = mean[column, row] = of_distances(cdist(cells[row], cells[column])).mean()
    within = np.diag(mean)
    found = 2.0 * mean - within[:, None] - within
    np.fill_diagonal(found, 0.0)
    return found


def energy(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Energy distances (Szekely and Rizzo 2013)."""
    return by_means_of_pairs(cells, lambda distance: distance)


def discrepancy(cells: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Squared maximum mean discrepancies (Gretton et al. 2012)."""
    every = np.concatenate(cells)
    some = np.random.default_rng(seed).permutation(len(every))[:FOR_WIDTH]
    width = np.median(pdist(every[some]))
    return by_means_of_pairs(cells, lambda distance: -np.exp(-0.5 * (distance / width) ** 2))


def distances(name: str, x: np.ndarray, sample: np.ndarray, kind: np.ndarray, seed: int) -> np.ndarray:
    """Distances of every two samples by a method, NaN where it has none.

    Parameters
    ----------
    name
        Name of a method, one of `NAMES`.
    x, sample, kind
        Cells, shape (n, d), with the sample and the type of each, codes from 0.
    seed
        Seed of what a method draws.
    """
    cells = [x[sample == own] for own in range(sample.max() + 1)]
    methods: dict[str, Callable[[], np.ndarray]] = {
        **{key: partial(by_mixtures, cells, seed, sizes) for key, sizes in N_COMPONENTS.items()},
        "gloscope-kNN": lambda: by_neighbors(cells),
        "gloscope-kNN-25": lambda: np.maximum(by_neighbors(cells, N_NEAR), 0.0),
        "pseudobulk": lambda: pseudobulk(cells, "euclidean"),
        "pseudobulk-correlation": lambda: pseudobulk(cells, "correlation"),
        "composition": lambda: aitchison([kind[sample == own] for own in range(sample.max() + 1)]),
        "energy": lambda: energy(cells),
        "MMD": lambda: discrepancy(cells, seed),
    }
    return methods[name]()


NAMES = (
    *N_COMPONENTS, "gloscope-kNN", "gloscope-kNN-25", "pseudobulk", "pseudobulk-correlation", "composition", "energy",
    "MMD",
)  # fmt: skip
