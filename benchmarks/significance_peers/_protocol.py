"""What the adapters of this folder share: one thread, cohorts read, results written, a failure kept to its own cohort.

Import this module before numpy and others: it limits the threads that they start. Methods import their packages when
they are called, after `main` has taken this folder off the path of modules, where `cna.py` and `kompot.py` would hide
the packages of these names. The seconds of the first cohort of a process therefore have the imports in them.
"""

from __future__ import annotations

import os
import sys

os.environ.update(
    dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMBA_NUM_THREADS",
            "LOKY_MAX_CPU_COUNT",  # pydeseq2 by joblib
            "NPROC",  # jax
        ),
        "1",
    )
)
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

FDR = 0.1
"""Rate of false discoveries at which cells are called."""
SEED = 0
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


def _result(method: Callable[[Cohort], Result], cohort: Cohort) -> dict[str, np.ndarray]:
    start = perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = method(cohort).arrays()
    except Exception as error:  # noqa: BLE001 (whatever a method fails with, the next cohort has its turn)
        arrays = {"error": np.array(str(error) or type(error).__name__)}
    return arrays | {"seconds": np.float64(perf_counter() - start)}


def main(method: Callable[[Cohort], Result]) -> None:
    """Run a method on the cohorts of the command line; those with a result already are left alone."""
    sys.path.remove(str(Path(__file__).parent))
    parser = argparse.ArgumentParser()
    parser.add_argument("cohorts", nargs="+", type=Path, metavar="COHORT.npz")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.cohorts:
        target = args.out / f"{path.stem}.npz"
        if target.exists():
            continue
        with np.load(path) as arrays:
            cohort = Cohort(*(arrays[name] for name in ("x", "sample", "group", "donor")))
        result = _result(method, cohort)
        unfinished = target.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **result)
        unfinished.replace(target)
        print(path.stem, result.get("error", f"{result['seconds']:.1f} s"), flush=True)
