"""Samples whose distances are known: mixtures of Gaussian cell types with shares, moves and widths of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logsumexp

N_DRAWS, N_QUICK, N_TYPES = 100_000, 1_000, 6
LEAST, MOST = 60, 1_000
"""Fewest and most cells of a sample."""
BEND = 0.1

# The types of the cells that SPARE simulates donors from (PBMC 3k of 10x Genomics), their numbers of cells, and the
# factor by which severe COVID-19 multiplies each (`covid_19_hallmarks` of patpy). Types without a factor have 1.
PBMC = {
    "CD4 T": (1_144, 1.0),
    "CD14 monocytes": (480, 2.0),
    "B": (342, 1.0),
    "CD8 T": (316, 0.5),
    "NK": (154, 4.0),
    "FCGR3A monocytes": (150, 0.4),
    "dendritic": (37, 0.2),
    "megakaryocytes": (15, 1.0),
}
# Types that change their expression there, by the number of genes that change.
N_GENES = {"CD4 T": 3, "CD14 monocytes": 14, "B": 1, "CD8 T": 2, "NK": 1}
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Populations:
    """Distributions of cells: p(x | a) = sum_k share_ak N(x; mean_ak, scale_ak^2 S_k), bent if ``bend`` is not 0.

    Parameters
    ----------
    share
        Shape (n_populations, n_types).
    mean
        Shape (n_populations, n_types, d).
    scale
        Factor of the standard deviations, shape (n_populations, n_types).
    root
        Lower Cholesky factors of the covariances S_k, shape (n_types, d, d).
    bend
        Cells are y_1 = x_1 and y_j = x_j + bend x_(j-1)^2. This map has an inverse, so that it changes no divergence.
    """

    share: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    root: np.ndarray
    bend: float = 0.0

    def draw(self, rng: np.random.Generator, which: int, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Cells of a population before they are bent, shape (n_cells, d), and their types."""
        kind = rng.choice(self.share.shape[1], size=n_cells, p=self.share[which])
        noise = rng.normal(size=(n_cells, self.mean.shape[2]))
        x = self.mean[which, kind]
        for own in np.unique(kind):
            rows = kind == own
            x[rows] += self.scale[which, own] * noise[rows] @ self.root[own].T
        return x, kind

    def log_densities(self, x: np.ndarray) -> np.ndarray:
        """Log densities of unbent cells in every population, shape (n_cells, n_populations)."""
        d = x.shape[1]
        found = np.empty((*self.share.shape, len(x)))
        for kind, root in enumerate(self.root):
            inverse, constant = np.linalg.inv(root), -np.log(np.diag(root)).sum() - 0.5 * d * np.log(2.0 * np.pi)
            white = x @ inverse.T
            for which, scale in enumerate(self.scale[:, kind]):
                gap = ((white - inverse @ self.mean[which, kind]) ** 2).sum(1) / scale**2
                with np.errstate(divide="ignore"):
                    log_share = np.log(self.share[which, kind])
                found[which, kind] = log_share + constant - d * np.log(scale) - 0.5 * gap
        return logsumexp(found, axis=1).T

    def bent(self, x: np.ndarray) -> np.ndarray:
        """Cells as a method gets them."""
        y = x.copy()
        y[:, 1:] += self.bend * x[:, :-1] ** 2
        return y

    def divergences(self, rng: np.random.Generator, n_draws: int = N_DRAWS) -> np.ndarray:
        """Kullback-Leibler divergences KL(row || column) in nats, by fresh cells and exact densities."""
        n = len(self.share)
        found = np.zeros((n, n))
        for which in range(n):
            log_density = self.log_densities(self.draw(rng, which, n_draws)[0])
            found[which] = (log_density[:, [which]] - log_density).mean(0)
        return found


@dataclass(frozen=True)
class Cohort:
    """Cells of samples.

    Parameters
    ----------
    x
        Embedding, shape (n_cells, d).
    sample
        Sample of each cell, codes from 0, shape (n_cells,).
    kind
        Type of each cell, codes from 0, shape (n_cells,).
    samples
        A row for each sample: what is known of it.
    truth
        Symmetric divergence of every two samples in nats, NaN where it is not known.
    exact
        Estimate of the divergences by one who knows the densities of these cells; NaN where they are not known.
    """

    x: np.ndarray
    sample: np.ndarray
    kind: np.ndarray
    samples: pd.DataFrame
    truth: np.ndarray
    exact: np.ndarray


def types(rng: np.random.Generator, n_types: int, n_dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and Cholesky factors of cell types. The first axes tell types apart most, as principal components do."""
    mean = 3.0 * rng.normal(size=(n_types, n_dims)) / np.sqrt(np.arange(1.0, n_dims + 1.0))
    root = []
    for _ in range(n_types):
        axes = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0] * np.exp(0.4 * rng.normal(size=n_dims))
        root.append(np.linalg.cholesky(axes @ axes.T))
    return mean, np.stack(root)


def populations(
    rng: np.random.Generator, n: int, n_dims: int, *, shares: float, moves: float, widths: float, bend: float = 0.0
) -> Populations:
    """Populations that differ from each other more and more, from the first to the last.

    Parameters
    ----------
    rng
        Random numbers.
    n, n_dims
        Numbers of populations and of dimensions.
    shares, moves, widths
        Standard deviations of the log shares of the types, length of the move of a type in its own standard
        deviations, and standard deviation of the log widths, all in the last population. The first has none of them.
    bend
        See `Populations`.
    """
    mean, root = types(rng, N_TYPES, n_dims)
    amount = np.linspace(0.0, 1.0, n)[:, None] if n > 1 else np.zeros((1, 1))
    logits = 0.5 * rng.normal(size=N_TYPES) + shares * amount * rng.normal(size=(n, N_TYPES))
    move = rng.normal(size=(n, N_TYPES, n_dims))
    move *= moves * amount[:, :, None] / np.linalg.norm(move, axis=2, keepdims=True)
    return Populations(
        share=np.exp(logits - logsumexp(logits, axis=1, keepdims=True)),
        mean=mean + np.einsum("kde,ake->akd", root, move),
        scale=np.exp(widths * amount * rng.normal(size=(n, N_TYPES))),
        root=root,
        bend=bend,
    )


def severe(rng: np.random.Generator, n_dims: int, *, shares: bool, states: bool, batch: float) -> Populations:
    """Populations of donors by severity and batch: all severities of the first batch, then those of the second.

    Parameters
    ----------
    rng
        Random numbers.
    n_dims
        Number of dimensions.
    shares, states
        Whether severity changes the shares of types, and the states of types. Its strength interpolates as in patpy.
    batch
        Length of the move of all cells of the second batch.
    """
    mean, root = types(rng, len(PBMC), n_dims)
    counts, factors = np.array(list(PBMC.values())).T
    strength = np.array(SEVERITIES)[:, None]
    share = counts * (1.0 - strength + strength * factors if shares else np.ones_like(strength))
    direction = rng.normal(size=(len(PBMC), n_dims))
    # A gene that doubles moves a cell by log 2: types with more genes go further, and none moves back.
    length = np.sqrt([N_GENES.get(name, 0) for name in PBMC]) * np.log(2.0)
    direction *= length[:, None] / np.linalg.norm(direction, axis=1, keepdims=True)
    moved = mean + (strength[:, :, None] * np.einsum("kde,ke->kd", root, direction) if states else 0.0)
    moved = np.broadcast_to(moved, (len(SEVERITIES), *mean.shape))
    off = rng.normal(size=n_dims)
    off *= batch / np.linalg.norm(off)
    share = np.tile(share / share.sum(1, keepdims=True), (2, 1))
    return Populations(share, np.concatenate([moved, moved + off]), np.ones_like(share), root)


def cohort(rng: np.random.Generator, which: Populations, samples: pd.DataFrame, n_draws: int = N_DRAWS) -> Cohort:
    """Draw the cells of samples. ``samples`` has the columns ``population`` and ``n_cells``."""
    of = samples["population"].to_numpy()
    drawn = [which.draw(rng, a, n) for a, n in zip(of, samples["n_cells"], strict=True)]
    divergence = which.divergences(rng, n_draws)
    exact = np.empty((len(of), len(of)))
    for row, (x, _) in enumerate(drawn):
        log_density = which.log_densities(x)
        exact[row] = (log_density[:, [of[row]]] - log_density[:, of]).mean(0)
    x, kind = (np.concatenate(part) for part in zip(*drawn, strict=True))
    truth = (divergence + divergence.T)[np.ix_(of, of)]
    return Cohort(
        which.bent(x), np.repeat(np.arange(len(of)), samples["n_cells"]), kind, samples, truth, exact + exact.T
    )


def sizes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Numbers of cells from fewest to most, equally spaced in their logarithms, in random order."""
    return rng.permutation(np.geomspace(LEAST, MOST, n).round().astype(int))


def made(name: str, seed: int, quick: bool = False) -> Cohort:
    """Draw a cohort of a design by its name.

    Parameters
    ----------
    name
        Name in `DESIGNS`.
    seed
        Seed of the populations, the cells and the truth.
    quick
        Whether to draw 4 small samples in place of all.
    """
    rng, settings = np.random.default_rng(seed), dict(DESIGNS[name])
    if settings.pop("by") == "severity":
        donors = pd.DataFrame(
            [(code, batch) for batch in (0, 1) for code in range(len(SEVERITIES)) for _ in range(2)],
            columns=["severity", "batch"],
        )
        donors["population"] = donors["severity"] + len(SEVERITIES) * donors["batch"]
        which, samples = severe(rng, **settings), donors.iloc[[0, 1, -2, -1]] if quick else donors
    else:
        n, each = settings.pop("n"), settings.pop("each")
        which = populations(rng, n, **settings)
        samples = pd.DataFrame({"population": np.repeat(np.arange(n), each)})
        samples = samples.iloc[[0, 1, -2, -1]] if quick else samples
    samples = samples.reset_index(drop=True)
    samples["n_cells"] = (30, 60, 40, 50) if quick else sizes(rng, len(samples))
    return cohort(rng, which, samples, N_QUICK if quick else N_DRAWS)


_SEVEN, _SAME = {"by": "populations", "n": 7, "each": 2}, {"by": "populations", "n": 1, "each": 14}
DESIGNS = {
    "same-10": {**_SAME, "n_dims": 10, "shares": 0.0, "moves": 0.0, "widths": 0.0},
    "same-20": {**_SAME, "n_dims": 20, "shares": 0.0, "moves": 0.0, "widths": 0.0},
    "shares-10": {**_SEVEN, "n_dims": 10, "shares": 1.0, "moves": 0.0, "widths": 0.0},
    "moves-10": {**_SEVEN, "n_dims": 10, "shares": 0.0, "moves": 1.5, "widths": 0.0},
    "widths-10": {**_SEVEN, "n_dims": 10, "shares": 0.0, "moves": 0.0, "widths": 0.3},
    "all-10": {**_SEVEN, "n_dims": 10, "shares": 1.0, "moves": 1.5, "widths": 0.2},
    "all-20": {**_SEVEN, "n_dims": 20, "shares": 1.0, "moves": 1.5, "widths": 0.2},
    "bent-10": {**_SEVEN, "n_dims": 10, "shares": 1.0, "moves": 1.5, "widths": 0.2, "bend": BEND},
    "far-10": {**_SEVEN, "n_dims": 10, "shares": 1.0, "moves": 4.0, "widths": 0.0},
    "severity-shares": {"by": "severity", "n_dims": 10, "shares": True, "states": False, "batch": 0.0},
    "severity-states": {"by": "severity", "n_dims": 10, "shares": False, "states": True, "batch": 0.0},
    "severity-both": {"by": "severity", "n_dims": 10, "shares": True, "states": True, "batch": 0.0},
    "severity-batch": {"by": "severity", "n_dims": 10, "shares": True, "states": True, "batch": 0.7},
}
"""Designs by name, and their settings."""
