"""Cells with planted differential abundance and batches, after the benchmark of Yi et al. (2024)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
from _rows import FOLDER, has_data
from scipy.spatial.distance import cdist
from scipy.special import expit, logit
from sklearn.cluster import KMeans

MILO = Path(os.environ.get("SCRATIO_MILO", FOLDER / "milo"))
"""Folder of miloR's simulations, `sim_discrete.RData` and `sim_trajectory.RData` of MarioniLab/miloR."""
MOST_CELLS, N_DIMS, N_CLUSTERS, SMALLEST = 3_000, 30, 8, 0.05
"""Most cells of a data set, most dimensions, clusters where there are no types, and least share of a population."""
STEEPNESS, FUZZINESS = 0.5, 2.0
"""Of the logistic function and of the weights: those of the benchmark."""
N_REPLICATES, N_BATCHES = 3, 2
"""Samples of each condition, and batches."""


@dataclass(frozen=True)
class Source:
    """Where cells are from.

    Parameters
    ----------
    file
        Name of the file.
    read
        From the file to embedding (n, d) and population of every cell (n,).
    is_discrete
        Whether populations are apart, so that all cells of one have the same probability.
    """

    file: str
    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    is_discrete: bool = False

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return (MILO if self.file.endswith(".RData") else FOLDER) / self.file

    def is_there(self) -> bool:
        """Whether the file is there; says so if it is not."""
        if not self.file.endswith(".RData"):
            return has_data(self.file, self.file)
        if not self.path.exists():
            print(f"{self.file} is left out: set SCRATIO_MILO to the folder that holds it", flush=True)
        return self.path.exists()


@dataclass(frozen=True)
class Design:
    """Cells with planted labels.

    Parameters
    ----------
    x
        Embedding with the batch effect, shape (n, d).
    sample, group, batch
        Sample of every cell; group (1 is treated) and batch of every sample.
    probability
        Probability of the label "treated" for every cell.
    truth
        1 and -1 for cells that count as more and less frequent under treatment, 0 for the others.
    """

    x: np.ndarray
    sample: np.ndarray
    group: np.ndarray
    batch: np.ndarray
    probability: np.ndarray
    truth: np.ndarray

    @property
    def log_ratio(self) -> np.ndarray:
        """Exact log ratio of every cell, in nats."""
        return logit(self.probability) - logit(self.probability.mean())


def of_h5ad(rep: str, population: str | None) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """Reader of an embedding and of its cell types; clusters by k-means where there are none."""

    def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
        adata = ad.read_h5ad(path)
        x = np.asarray(adata.obsm[rep], dtype=np.float32)[:, :N_DIMS]
        if population is not None:
            return x, adata.obs[population].astype(str).to_numpy()
        clusters = KMeans(N_CLUSTERS, n_init=3, random_state=0).fit_predict(x)
        return x, np.array([f"cluster {number}" for number in clusters])

    return read


def of_milo(population: str) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """Reader of a simulation of miloR: its principal components and populations."""

    def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
        import rdata

        with warnings.catch_warnings():
            # Of S4 classes that it does not know, and reads as plain objects.
            warnings.simplefilter("ignore")
            content = rdata.conversion.convert(rdata.parser.parse_file(path))[path.stem]
        components = content["SCE"].int_colData.listData["reducedDims"].listData["PCA"]
        return np.asarray(components, dtype=np.float32)[:, :N_DIMS], content["meta"][population].astype(str).to_numpy()

    return read


SOURCES = {
    "milo-discrete": Source("sim_discrete.RData", of_milo("Block"), is_discrete=True),
    "milo-trajectory": Source("sim_trajectory.RData", of_milo("group_id")),
    "kang": Source("kang2018_pbmc_ifnb_pca.h5ad", of_h5ad("X_pca", "cell_type")),
    "synovium": Source("zhang2019_ra_synovium_harmony.h5ad", of_h5ad("X_pca_harmony", "celltype")),
    "melanoma": Source("sadefeldman2018_melanoma_icb.h5ad", of_h5ad("X_pca", None)),
    "glioblastoma": Source("zhao2021_gbm_panobinostat.h5ad", of_h5ad("X_pca", None)),
}
"""Data sets by name."""


def sampled(x: np.ndarray, population: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 3,000 cells, the same ones every time."""
    rows = np.sort(np.random.default_rng(0).permutation(len(x))[:MOST_CELLS])
    return x[rows], population[rows]


def target_of(population: np.ndarray, seed: int) -> str:
    """Population of at least 5% of the cells, another one for each seed as far as there are so many."""
    names, sizes = np.unique(population, return_counts=True)
    large = names[sizes >= SMALLEST * len(population)]
    return str(np.random.default_rng(0).permutation(large)[seed % len(large)])


def probabilities(
    x: np.ndarray, population: np.ndarray, target: str, enrichment: float, is_discrete: bool
) -> np.ndarray:
    """Probability of the label "treated" for every cell, with a mean of one half.

    Cells near the centre of the target population have the probability `enrichment`, others down to one half. In
    between it follows a logistic function of the standardised fuzzy membership in the target. Then all probabilities
    are multiplied by one factor, so that both labels are equally frequent.
    """
    if is_discrete:
        raw = np.where(population == target, enrichment, 0.5)
    else:
        names = np.unique(population)
        centres = np.stack([x[population == name].mean(0) for name in names])
        distance = np.maximum(cdist(x, centres), np.finfo(float).tiny)
        own = distance[:, list(names).index(target)]
        weight = (own[:, None] / distance).sum(1) ** (-2.0 / (FUZZINESS - 1.0))
        membership = expit(STEEPNESS * (weight - weight.mean()) / weight.std())
        raw = 0.5 + (enrichment - 0.5) * (membership - membership.min()) / np.ptp(membership)
    return raw * 0.5 / raw.mean()


def true_classes(probability: np.ndarray, share: float) -> np.ndarray:
    """1 for the cells with the largest probabilities, as many as the target has, and -1 as far below one half.

    Parameters
    ----------
    probability
        Of the label "treated".
    share
        Share of the target population among all cells.
    """
    upper = np.quantile(probability, 1.0 - share)
    # The benchmark's own rule: as far below the neutral share as the upper limit lies above it.
    lower = (1.0 - share) - upper
    return np.where(probability > upper, 1, np.where(probability <= lower, -1, 0))


def samples_of(rng: np.random.Generator, is_treated: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample of every cell, in turn; group and batch of every sample. Both batches have samples of both groups."""
    n_samples = 2 * N_REPLICATES
    sample = np.arange(len(is_treated)) % N_REPLICATES + N_REPLICATES * is_treated
    group = np.repeat([0, 1], N_REPLICATES)
    while True:
        batch = rng.permutation(np.arange(n_samples) % N_BATCHES)
        if len(np.unique(batch[group == 0])) == len(np.unique(batch[group == 1])) == N_BATCHES:
            return sample, group, batch


def design(
    x: np.ndarray, population: np.ndarray, seed: int, enrichment: float, strength: float, is_discrete: bool
) -> Design:
    """Plant labels, deal the cells into samples, and move the batches.

    Every batch moves by a normal vector whose standard deviation in each dimension is `strength` times the root of the
    total variance of the cells.

    Parameters
    ----------
    x, population
        Cells, shape (n, d), and their populations.
    seed
        Seed of target, labels, batches and their moves.
    enrichment
        Largest probability before both labels are made equally frequent.
    strength
        Of the batch effect.
    is_discrete
        Whether all cells of a population have the same probability.
    """
    rng, target = np.random.default_rng(seed), target_of(population, seed)
    probability = probabilities(x, population, target, enrichment, is_discrete)
    sample, group, batch = samples_of(rng, rng.uniform(size=len(x)) < probability)
    # The same directions for every strength.
    moves = rng.normal(size=(N_BATCHES, x.shape[1])) * strength * np.sqrt(x.var(0).sum())
    moved = (x + moves[batch[sample]]).astype(np.float32)
    if is_discrete:
        truth = np.where(population == target, 1, 0)
    else:
        truth = true_classes(probability, float((population == target).mean()))
    return Design(moved, sample, group, batch, probability, truth)
