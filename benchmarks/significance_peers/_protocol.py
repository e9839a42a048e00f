"""What the adapters of this folder share: a cohort, a result, and the loop over the files of cohorts.

Import this module before numpy and others, as `_exchange.py` says, which limits the threads and keeps a failure to its
own cohort.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from _exchange import answer, forget_folders

# isort: split
import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

FDR = 0.1
"""Rate of false discoveries at which cells are called."""
SEED, MOST_EXACT = 0, 20_000
"""Seed; most cells whose neighbours are searched for exactly, beyond which scanpy's default takes over."""
CONTROL, TREATED, REP = "control", "treated", "X_pca"


@dataclass(frozen=True)
class Cohort:
    """Cells of several samples: embedding (n, d) and sample (n,); group, 1 if treated, and donor of each sample."""

    x: np.ndarray
    sample: np.ndarray
    group: np.ndarray
    donor: np.ndarray

    @property
    def is_paired(self) -> bool:
        """Whether a donor has more than one sample."""
        return len(np.unique(self.donor)) < len(self.donor)

    def anndata(self) -> AnnData:
        """Cells with columns ``sample``, ``group`` and ``donor``, all strings, and the embedding."""
        import anndata
        import pandas as pd

        obs = pd.DataFrame(
            {
                "sample": [f"s{code:03d}" for code in self.sample],
                "group": np.where(self.group[self.sample] == 1, TREATED, CONTROL),
                "donor": [f"d{code:03d}" for code in self.donor[self.sample]],
            },
            index=[f"cell{i}" for i in range(len(self.x))],
        )
        return anndata.AnnData(obs=obs, obsm={REP: self.x})


@dataclass(frozen=True)
class Result:
    """What a method says of one cohort: `found` of every cell, the others of every place (a method may have none)."""

    found: np.ndarray
    pvalue: np.ndarray | None = None
    weight: np.ndarray | None = None
    global_pvalue: float = np.nan
    extra: dict[str, np.ndarray] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the file; a p-value that the method left open is 1."""
        pvalue = np.empty(0) if self.pvalue is None else np.asarray(self.pvalue, dtype=float)
        return {
            "pvalue": np.where(np.isfinite(pvalue), pvalue, 1.0),
            "weight": np.empty(0) if self.weight is None else np.asarray(self.weight, dtype=float),
            "found": np.asarray(self.found, dtype=bool),
            "global_pvalue": np.float64(self.global_pvalue),
        } | (self.extra or {})


def milo_neighbours(cohort: Cohort) -> int:
    """Milo's k: 30 or five times the number of samples, the size of neighbourhoods that its authors advise."""
    return min(max(30, 5 * len(cohort.group)), len(cohort.x) - 1)


def search_of(cohort: Cohort) -> str | None:
    """Argument ``transformer`` of scanpy's graph: exact neighbours, or None, its default, for many cells."""
    return "sklearn" if len(cohort.x) <= MOST_EXACT else None


def mean_of_neighbourhoods(is_inside: csr_matrix, values: np.ndarray) -> np.ndarray:
    """Mean over the neighbourhoods that a cell is in, 0 for a cell in none.

    Parameters
    ----------
    is_inside
        Whether cells (rows) are in neighbourhoods (columns), shape (n, m).
    values
        Value of every neighbourhood, shape (m,).
    """
    number = np.asarray(is_inside.sum(axis=1)).ravel()
    return is_inside @ np.nan_to_num(values) / np.maximum(number, 1)


def main(method: Callable[[Cohort], Result]) -> None:
    """Run a method on the cohorts of the command line; those with a result already are left alone."""
    forget_folders()
    parser = argparse.ArgumentParser()
    parser.add_argument("cohorts", nargs="+", type=Path, metavar="COHORT.npz")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    for path in args.cohorts:
        answer(
            lambda arrays: method(Cohort(*(arrays[name] for name in ("x", "sample", "group", "donor")))).arrays(),
            path,
            args.out / path.name,
        )
