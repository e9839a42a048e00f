"""Cohorts of samples with effects of their donors, in the sizes that cohorts have, with and without a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

GROUPS = {
    "3v3": (3, 3), "4v12": (4, 12), "12v4": (12, 4), "6v6": (6, 6), "6v10": (6, 10), "8v8": (8, 8),
    "6 pairs": 6, "8 pairs": 8,
}  # fmt: skip
"""Treated samples and controls, or donors with both."""
SIZES = ("equal", "1:5", "1:10", "lognormal", "one of 4 cells", "outlier", "stray labels")
"""Cells of the samples: 200 each; 300 in controls and a fifth or a tenth of that in treated samples; log-normal with
.8; 200 but for one treated sample; 200, one treated sample being of another kind; 200, of which three in every treated
sample carry the label of the controls."""
N_CELLS, LARGE, STRAY = 200, 300, 3
N_DIMS, N_TYPES, OUTLYING = 5, 10, 2.0
PLANTED = 0.1
"""Share of the cells whose state is more frequent under treatment."""


@dataclass(frozen=True)
class Population:
    """Real cells that samples are drawn from: embedding, shape (n, d), and type of every cell, codes from 0."""

    x: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True)
class Cohort:
    """Cells of a cohort.

    Parameters
    ----------
    x
        Embedding, shape (n_cells, d).
    obs
        ``sample`` (a donor's sample of a condition), ``donor`` and ``group`` (treated or control) of every cell.
    planted
        Cells whose state is more frequent under treatment, shape (n_cells,).
    """

    x: np.ndarray
    obs: pd.DataFrame
    planted: np.ndarray


def layout(rng: np.random.Generator, groups: str, sizes: str) -> pd.DataFrame:
    """A row for each sample: donor, whether it is treated, number of cells."""
    of = GROUPS[groups]
    if isinstance(of, int):
        rows = [(donor, treated) for donor in range(of) for treated in (True, False)]
    else:
        rows = [(donor, donor < of[0]) for donor in range(sum(of))]
    table = pd.DataFrame(rows, columns=["donor", "is_treated"])
    table["n_cells"] = N_CELLS
    if sizes in ("1:5", "1:10"):
        table["n_cells"] = np.where(table["is_treated"], LARGE // int(sizes[2:]), LARGE)
    elif sizes == "lognormal":
        table["n_cells"] = np.exp(rng.normal(np.log(N_CELLS), 0.8, size=len(table))).astype(int) + 10
    elif sizes == "one of 4 cells":
        table.loc[0, "n_cells"] = 4
    return table


def log_shares(effect: float) -> tuple[float, float]:
    """Log share of the first type over that of each other, in cases and in controls; a tenth of cells on average."""
    shares = 2.0 / N_TYPES / (1.0 + np.exp(-effect * np.array([1.0, -1.0])))
    case, control = np.log(shares / (1.0 - shares) * (N_TYPES - 1))
    return float(case), float(control)


Draw = Callable[[int, np.ndarray, bool], tuple[np.ndarray, np.ndarray]]
"""From number of cells, vector of the donor and whether it is treated to cells and which are of the planted state."""


def one_gaussian(rng: np.random.Generator) -> tuple[int, Draw]:
    """One Gaussian in five dimensions, moved by the donor's vector; nothing is planted."""

    def draw(n: int, own: np.ndarray, is_treated: bool) -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(n, N_DIMS)) + own, np.zeros(n, dtype=bool)

    return N_DIMS, draw


def ten_types(rng: np.random.Generator, effect: float) -> tuple[int, Draw]:
    """Ten Gaussian types in five dimensions; donors differ in their log shares and in where all their cells lie."""
    centres, (of_case, of_control) = rng.normal(0.0, 2.0, size=(N_TYPES, N_DIMS)), log_shares(effect)

    def draw(n: int, own: np.ndarray, is_treated: bool) -> tuple[np.ndarray, np.ndarray]:
        log_share = own[N_DIMS:].copy()
        log_share[0] += of_case if is_treated else of_control
        kind = rng.choice(N_TYPES, size=n, p=np.exp(log_share) / np.exp(log_share).sum())
        return centres[kind] + own[:N_DIMS] + rng.normal(size=(n, N_DIMS)), (kind == 0) & (effect != 0.0)

    return N_DIMS + N_TYPES, draw


def real_cells(rng: np.random.Generator, effect: float, population: Population) -> tuple[int, Draw]:
    """Real cells drawn at random; donors differ in the log shares of types, treatment in those nearest to one cell."""
    distance = ((population.x - population.x[rng.integers(len(population.x))]) ** 2).sum(1)
    inside, (of_case, of_control) = distance <= np.quantile(distance, PLANTED), log_shares(effect)

    def draw(n: int, own: np.ndarray, is_treated: bool) -> tuple[np.ndarray, np.ndarray]:
        weight = np.exp(own[population.kind] + (of_case if is_treated else of_control) * inside)
        rows = rng.choice(len(population.x), size=n, p=weight / weight.sum())
        return population.x[rows], inside[rows] & (effect != 0.0)

    return int(population.kind.max()) + 1, draw


def cohort(
    seed: int, groups: str, sizes: str, donor_effect: float, effect: float, population: Population | None = None
) -> Cohort:
    """Cells of a cohort whose donors differ from each other.

    Parameters
    ----------
    seed
        Seed.
    groups, sizes
        Of :data:`GROUPS` and :data:`SIZES`.
    donor_effect
        Standard deviation of each entry of a donor's vector: shifts in standard deviations of a type, and log shares of
        types. The two samples of a pair share it, and each has .3 times as much of its own.
    effect
        Log ratio of treated to control samples in a tenth of the cells.
    population
        Real cells; by default one Gaussian without an effect, and ten types with one.
    """
    rng = np.random.default_rng(seed)
    table, parts, planted, labels = layout(rng, groups, sizes), [], [], []
    if population is not None:
        n_entries, draw = real_cells(rng, effect, population)
    else:
        n_entries, draw = ten_types(rng, effect) if effect else one_gaussian(rng)
    of_donor = donor_effect * rng.normal(size=(table["donor"].max() + 1, n_entries))
    is_paired = isinstance(GROUPS[groups], int)
    for row in table.itertuples():
        own = of_donor[row.donor] + (0.3 * donor_effect * rng.normal(size=n_entries) if is_paired else 0.0)
        if sizes == "outlier" and row.Index == 0:
            own = own + OUTLYING * rng.normal(size=n_entries)
        x, is_planted = draw(row.n_cells, own, bool(row.is_treated))
        group = np.full(row.n_cells, "treated" if row.is_treated else "control", dtype=object)
        if sizes == "stray labels" and row.is_treated:
            group[:STRAY] = "control"
        parts.append(x)
        planted.append(is_planted)
        labels.append(pd.DataFrame({"donor": f"d{row.donor:02d}", "group": group}))
    obs = pd.concat(labels, ignore_index=True)
    obs.insert(0, "sample", obs["donor"] + " " + obs["group"])
    return Cohort(np.concatenate(parts).astype(np.float32), obs, np.concatenate(planted))
