"""Seconds, memory and accuracy of every tool that says which cells are more frequent under treatment.

    python benchmarks/outside_seconds.py                            # hours; writes results/outside_seconds*.csv
    python benchmarks/outside_seconds.py --quick                    # seconds, on few cells; the figures mean nothing
    python benchmarks/outside_seconds.py --cells 10000 --methods scratio meld --limit 600

A cohort has six treated samples and six controls, whose numbers of cells are log-normal (.8), in 20 dimensions. Cells
are of ten states in shares that differ between samples (.2 of a log share). A state is a Gaussian with scales of its
own. One state is more frequent by a log ratio of 1 under treatment, and makes a tenth of all cells. It lies two
standard deviations from another state. The log ratio of every cell is known.

Every measurement is a process of its own with one thread. It ends after ``--limit`` seconds or beyond ``--memory`` GiB;
a tool that was ended has a row, and ``outcome`` says so. ``seconds``, ``cpu_seconds`` and ``peak_gib`` are those of the
process from start to end: imports, reading the cells, the graph of neighbours, and compiling are in them.

``rmse`` is that of the log ratios of all cells, for tools that give them. ``auc`` is the area under the ROC curve with
which a tool ranks the cells whose true log ratio is above .5. ``power`` is the share of these that a tool calls more
frequent at a false discovery rate of .1 (kompot: by its own thresholds), ``false_share`` the share of the cells called
so whose true log ratio is below 0. Donors differ, so that no method reaches an error of 0.

Peers: MELD (Burkhardt et al. 2021, doi 10.1038/s41587-020-00803-5), Milo (Dann et al. 2022, doi
10.1038/s41587-021-01033-z) by pertpy and by edgePython, CNA (Reshef et al. 2022, doi 10.1038/s41587-021-01066-4) and
kompot (Otto et al. 2025, doi 10.1101/2025.06.03.657769); classifiers, nearest neighbours and clusters. Settings are in
`outside_peers/analyses.py` and `significance_peers`; all are defaults, but that kompot has 1,000 landmarks (its default
takes longer and more memory). Rows that the file has are not measured again without ``--again``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _cohorts import log_shares
from _environments import CACHE, COHORT_PEERS, MELD, SCRIPTS, answered, cohort_command, put
from _processes import FAILED, FINISHED, TOO_LARGE, Limits, watched
from _rows import Rows, parsed
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import scratio

RESULTS, NAME, KEYS = Path(__file__).parent / "results", "outside_seconds.csv", ["n_cells", "method", "seed"]
CELLS, N_QUICK = (10_000, 100_000, 1_000_000), 400
LIMIT, MEMORY = 1_800.0, 20.0
N_SAMPLES, N_STATES, N_DIMS, EFFECT = 12, 10, 20, 1.0
SPREAD_OF_SIZES, SPREAD_OF_SHARES, SPREAD_OF_STATES, SPREAD_OF_SCALES, APART = 0.8, 0.2, 0.6, 0.3, 2.0
PLANTED = 0.5
"""Log ratio above which a cell counts as more frequent under treatment: half of what was put in."""
PACKAGES = {
    "logistic": "scikit-learn",
    "boosting": "scikit-learn",
    "mlp": "scikit-learn",
    "knn": "scikit-learn",
    "clusters": "scratio",
    "meld": "meld",
    "scratio-samples": "scratio",
    "scratio-quick": "scratio",
    "scratio": "scratio",
    "milo_pertpy": "pertpy",
    "milo_edgepython": "edgepython",
    "cna": "cna",
    "kompot": "kompot",
}
"""Methods, and the package of each."""
QUICK_METHODS = ("logistic", "scratio-quick")
NO_MEMORY = ("unable to allocate", "out of memory", "resource_exhausted", "memoryerror")
"""What packages say when they get no memory."""


@dataclass(frozen=True)
class Cells:
    """Cells of a cohort: embedding (n, d), sample (n,), group of every sample, and true log ratio (n,)."""

    x: np.ndarray
    sample: np.ndarray
    group: np.ndarray
    truth: np.ndarray


def drawn(n_cells: int, seed: int) -> Cells:
    """Cells of twelve samples, and their log ratio in samples with the mean shares."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(0.0, SPREAD_OF_SIZES, N_SAMPLES))
    sizes = np.maximum((sizes / sizes.sum() * n_cells).astype(int), 10)
    group = np.arange(N_SAMPLES) % 2
    centres = SPREAD_OF_STATES * rng.normal(size=(N_STATES, N_DIMS))
    direction = rng.normal(size=N_DIMS)
    centres[0] = centres[1] + APART * direction / np.linalg.norm(direction)
    scales = np.exp(SPREAD_OF_SCALES * rng.normal(size=(N_STATES, N_DIMS)))
    log_weights = np.zeros((2, N_STATES))  # of controls and of treated
    log_weights[1, 0], log_weights[0, 0] = log_shares(EFFECT)
    own = log_weights[group] + SPREAD_OF_SHARES * rng.normal(size=(N_SAMPLES, N_STATES))
    shares = np.exp(own - logsumexp(own, axis=1, keepdims=True))
    state = np.concatenate([rng.choice(N_STATES, size=n, p=share) for n, share in zip(sizes, shares, strict=True)])
    x = (centres[state] + scales[state] * rng.normal(size=(len(state), N_DIMS))).astype(np.float32)
    truth = log_ratio(x, centres, scales, log_weights)
    return Cells(x, np.repeat(np.arange(N_SAMPLES), sizes), group, truth)


def log_ratio(x: np.ndarray, centres: np.ndarray, scales: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """Log ratio of two mixtures of the same Gaussians with diagonal covariances.

    Parameters
    ----------
    x
        Cells, shape (n, d).
    centres, scales
        Centres and standard deviations of the states, shape (k, d).
    log_weights
        Log weights in controls and in treated, shape (2, k); they need not sum to one.
    """
    log_density = np.stack(
        [norm.logpdf(x, centre, scale).sum(1) for centre, scale in zip(centres, scales, strict=True)], axis=1
    )
    log_shares_of = log_weights - logsumexp(log_weights, axis=1, keepdims=True)
    control, treated = (logsumexp(log_density + one, axis=1) for one in log_shares_of)
    return treated - control


def accuracy(found: dict[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """What of ``rmse``, ``auc``, ``power`` and ``false_share`` the answer of a tool allows."""
    planted, measured = truth > PLANTED, {}
    value = found["log_ratio"] if "log_ratio" in found else found["score"]
    if "log_ratio" in found:
        measured["rmse"] = float(np.sqrt(np.mean((value - truth) ** 2)))
    measured["auc"] = float(roc_auc_score(planted, value))
    if "found" in found:
        called = found["found"] & (value > 0.0)
        measured["power"] = float(called[planted].mean())
        measured["false_share"] = float((called & (truth < 0.0)).sum() / max(called.sum(), 1))
    return measured


def version_of(method: str) -> str:
    """Version of a method's package, for a peer that of its pinned list."""
    package = PACKAGES[method]
    if method in COHORT_PEERS:
        lines = (SCRIPTS[1] / f"{method}.txt").read_text(encoding="utf-8").splitlines()
        return next(line.split("==")[1] for line in lines if line.startswith(f"{package}=="))
    if method == "meld":
        return next((one.version for one in distributions(path=[str(MELD), *sys.path]) if one.name == "meld"), "")
    return scratio.__version__ if package == "scratio" else version(package)


def measured(method: str, question: Path, out: Path, truth: np.ndarray, limits: Limits) -> dict[str, Any] | None:
    """Row of a method on a cohort; None if its environment is not there."""
    called = cohort_command(method, [question], out)
    if called is None:
        return None
    (out / method / f"{question.stem}.npz").unlink(missing_ok=True)
    row = watched(*called[:1], limits, called[1])
    said, found = row.pop("said"), answered(out, method, question)
    if row["outcome"] == FINISHED and found is not None and "error" not in found:
        return {**row, **accuracy(found, truth)}
    error = said if found is None else str(found.get("error", said))
    if row["outcome"] in (FINISHED, FAILED):
        row["outcome"] = TOO_LARGE if any(word in error.lower() for word in NO_MEMORY) else FAILED
        row["error"] = error[:200]
    return row


def summarise(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Two tables with a row for each method: seconds and memory, and accuracy, by number of cells."""
    order = {name: number for number, name in enumerate(PACKAGES)}
    table = table.assign(order=table["method"].map(order)).sort_values(["order", "n_cells"])
    finished = table["outcome"] == FINISHED
    time = table["seconds"].map("{:.3g} s".format) + ", " + table["peak_gib"].map("{:.2g} GiB".format)
    of_time = table.assign(value=time.where(finished, table["outcome"]))
    wide = of_time.pivot_table(index="method", columns="n_cells", values="value", aggfunc="first", sort=False)
    found = {"summary": wide.sort_index(axis=1).rename(columns="{:,} cells".format)}
    parts = [
        table.pivot_table(index="method", columns="n_cells", values=name, sort=False)
        .sort_index(axis=1)
        .rename(columns=lambda n, name=name: f"{name}, {n:,}")
        for name in ("rmse", "auc", "power", "false_share")
        if name in table
    ]
    found["accuracy"] = pd.concat(parts, axis=1).reindex(found["summary"].index)
    return found


def run(rows: Rows, options: argparse.Namespace, folder: Path) -> None:
    """Measure what is asked for and not there yet."""
    known = set() if options.again else rows.known()
    for n_cells in options.cells:
        for seed in options.seeds:
            wanted = [name for name in options.methods if (n_cells, name, seed) not in known]
            if not wanted:
                continue
            cells = drawn(n_cells, seed)
            arrays = {"x": cells.x, "sample": cells.sample, "group": cells.group, "donor": np.arange(N_SAMPLES)}
            question = put(arrays, folder / "cohorts" / f"{n_cells}_{seed}.npz")
            truth = cells.truth
            del cells, arrays
            for name in wanted:
                row = measured(name, question, folder, truth, Limits(options.limit, options.memory))
                if row is not None:
                    key = {"n_cells": n_cells, "method": name, "seed": seed}
                    rows.add(**key, version=version_of(name), limit=options.limit, **row)
                    write_summaries(rows.folder)


def write_summaries(folder: Path | None) -> None:
    """Write the tables to read from the file of all rows."""
    if folder is not None:
        for name, table in summarise(pd.read_csv(folder / NAME)).items():
            table.reset_index().to_csv(folder / f"outside_seconds_{name}.csv", index=False, float_format="%.3g")


def main() -> None:
    """Measure and write."""
    quick = {"cells": (N_QUICK,), "methods": QUICK_METHODS}
    lists = {"cells": CELLS, "methods": tuple(PACKAGES), "seeds": (0,)}
    options = parsed(__doc__, RESULTS, quick, **lists, limit=LIMIT, memory=MEMORY)
    rows = Rows(options.results, NAME, KEYS)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(rows, options, Path(folder))
    else:
        run(rows, options, CACHE / "seconds")


if __name__ == "__main__":
    main()
