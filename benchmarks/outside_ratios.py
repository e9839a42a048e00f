"""Log ratios of two samples beside density-ratio packages, simulation-based inference and classifiers of others.

    for name in boosters densratio sbi tabular; do make .venv-peer-$name/.installed; done
    python benchmarks/outside_ratios.py --methods scratio qda xgboost     # all tasks, one seed
    python benchmarks/outside_ratios.py --set shift --methods scratio lightgbm --seeds 0 1
    python benchmarks/outside_ratios.py --tasks gmm-20 mi-80 --cells 2000 # all methods: hours, most of them for TabM
    python benchmarks/outside_ratios.py --quick                           # seconds, on few cells; no figure counts

Tasks. ``closed``: distributions with densities in closed form, of the folder SCRATIO_BENCH, where scratio is judged.
``real``: cells of two published data sets with planted labels, from the same folder. ``shift``: two shifts of OpenDRE,
the repository of Chen et al., "Don't Forget Its Variance! The Minimum Path Variance Principle" (ICLR 2026, arXiv
2602.00834; github.com/Hoemr/OpenDRE). ``gauss_shift-D-K``: step K moves each of D dimensions of a standard normal by
.2 K and multiplies its variance by 1 - .05 K. ``beta_shift-D-K``: a uniform becomes Beta(1 + 2 K, 1 + .1 K). The sizes
of the steps are those of the repository's generator, which reads no ``--shift``; steps 1 to 4 and 80 dimensions are
those of its README, 2 dimensions its default. ``shift-more`` has its other shifts, and no shift. OpenDRE trains on new
cells in each of 10,000 epochs. Here all methods have the same 10,000 cells (``--cells``), half of each sample.

Scores are on 10,000 fresh cells of both samples. Real cells (10,000 of a data set) are scored out of fold, with five
folds that are the same for all methods. Columns: ``mse`` (nats²), ``bias``, ``slope`` and ``correlation`` of the
estimates on the truth, whose variance is ``variance``; ``mse_numerator`` is over cells of the numerator alone;
``missing`` is the number of cells without an estimate, which are left out. ``divergence_error`` is the measure of
OpenDRE: the mean estimate over cells of the numerator less ``divergence``, the Kullback-Leibler divergence. Where this
has no closed form, the mean truth stands in its place. (For ``beta_shift`` OpenDRE takes the divergence of one
dimension; here it is that of all.)

Methods. ``scratio`` has its defaults, ``scratio-quick`` has ``effort="quick"``. ``qda``, ``logistic``, ``boosting`` and
``mlp`` are peers in scratio, cross-fitted and calibrated. The others have environments of their own, and the defaults
of their packages, or what their authors recommend for probabilities (`outside_peers`): ``uLSIF``, ``RuLSIF`` and
``KLIEP`` of densratio; ``NRE-A``, ``NRE-B`` and ``NRE-C`` of sbi with the label as parameter; ``lightgbm``,
``xgboost``, ``realmlp`` and ``tabm`` as classifiers, whose log ratio is the log odds less the log odds of the class
sizes. Methods that need too much memory or time get a random subset (densratio 4,000 cells, ``realmlp`` 5,000,
``tabm`` 2,000; ``realmlp-all`` and ``tabm-all`` get all). ``n_train`` is the number of cells that a method learnt from,
and ``--cells 2000`` compares all methods on as few. The seconds of the first task that a process of a peer gets hold
its imports. A method that fails has a row that says why in ``failure``.

Rows that the file has are not measured again, unless ``--again`` is given. Writes results/outside_ratios.csv, and from
its rows ``_summary.csv``, mean square errors by task and method; ``_divergence.csv``, absolute errors of divergences;
``_methods.csv``, a line for each method. Methods are compared on the seeds of a task that all of them have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _ratio_tables
import numpy as np
from _environments import CACHE, answered, ask, put
from _labels import EFFORTS, QUICK
from _methods import CONTRAST, cells, fit_and_score
from _ratio_tasks import N_FOLDS, SETS, SHIFTS, TASKS, Drawn, draw, is_there
from _rows import Clock, Rows, parsed
from _two_samples import scored

import scratio

RESULTS = Path(__file__).parent / "results"
FILE, KEYS = "outside_ratios.csv", ("task", "method", "seed", "n_cells")
OWN_PEERS = ("qda", "logistic", "boosting", "mlp")
SCRIPTS = {
    "boosters": ("lightgbm", "xgboost"),
    "densratio": ("uLSIF", "RuLSIF", "KLIEP"),
    "sbi": ("NRE-A", "NRE-B", "NRE-C"),
    "tabular": ("realmlp", "tabm", "realmlp-all", "tabm-all"),
}
SCRIPT = {name: script for script, names in SCRIPTS.items() for name in names}
METHODS = (*EFFORTS, *OWN_PEERS, *SCRIPT)
N_CELLS, N_FRESH, N_QUICK = 10_000, 10_000, 300


def folder() -> Path:
    """Folder of questions and answers."""
    return CACHE / "outside_ratios"


def measures(found: np.ndarray, drawn: Drawn) -> dict[str, float]:
    """Errors of log ratios; cells without an estimate are left out."""
    has_one = np.isfinite(found)
    truth, of_numerator = drawn.truth, drawn.is_numerator
    estimate, known = found[has_one], truth[has_one]
    covariance = np.cov(estimate, known)
    with np.errstate(invalid="ignore"):
        slope = covariance[0, 1] / covariance[1, 1]
        correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    divergence = truth[of_numerator].mean() if drawn.divergence is None else drawn.divergence
    return {
        "variance": truth.var(),
        "mse": np.mean((estimate - known) ** 2),
        "bias": np.mean(estimate - known),
        "slope": slope,
        "correlation": correlation,
        "mse_numerator": np.mean((found - truth)[has_one & of_numerator] ** 2),
        "missing": int((~has_one).sum()),
        "divergence": divergence,
        "divergence_error": found[has_one & of_numerator].mean() - divergence,
    }


def by_scratio(name: str, drawn: Drawn, seed: int, quick: bool) -> np.ndarray:
    """Log ratios by scratio: of fresh cells, or out of fold.

    Raises
    ------
    RuntimeError
        If scratio's folds are not those that the other methods have.
    """
    arrays, training = drawn.cells, {**EFFORTS[name], **(QUICK if quick else {})}
    if "fresh" in arrays:
        return fit_and_score("scratio", arrays["x"], arrays["is_treated"], arrays["fresh"], seed, training)[0]
    adata = cells(arrays["x"], arrays["is_treated"])
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, n_folds=N_FOLDS)
    model.train(random_state=seed, progress_bar=False, **training)
    if not np.array_equal(model.folds, arrays["fold"]):
        raise RuntimeError("scratio drew other folds than the other methods have")
    return np.asarray(model.log_ratio(**CONTRAST))


def by_own_peer(name: str, drawn: Drawn) -> np.ndarray:
    """Log ratios by a peer in scratio."""

    def estimate(x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int) -> np.ndarray:
        return fit_and_score(name, x, is_treated, fresh, seed, {})[0]

    return scored(estimate, drawn.cells)["log_ratio"]


def add(rows: Rows, task: str, name: str, seed: int, n_cells: int, drawn: Drawn, **found: Any) -> None:
    """Write what a method found: ``log_ratio``, or None, and ``n_train``, ``failure`` and seconds."""
    log_ratio = found.pop("log_ratio")
    if log_ratio is None:
        errors = dict.fromkeys(measures(drawn.truth, drawn), np.nan)
    else:
        errors = measures(log_ratio, drawn)
    rows.add(
        task=task,
        dims=drawn.cells["x"].shape[1],
        n_cells=n_cells,
        method=name,
        seed=seed,
        **errors,
        **found,
    )


def measure_here(rows: Rows, task: str, name: str, seed: int, n_cells: int, drawn: Drawn, quick: bool) -> None:
    """Measure scratio, or a peer in scratio."""
    clock = Clock()
    found = by_scratio(name, drawn, seed, quick) if name in EFFORTS else by_own_peer(name, drawn)
    spent, folds = clock.read(), drawn.cells.get("fold", np.empty(0))
    n_train = len(drawn.cells["x"]) - int(np.bincount(folds).min() if len(folds) else 0)
    add(rows, task, name, seed, n_cells, drawn, log_ratio=found, n_train=n_train, failure="", **spent)


def measure_peer(rows: Rows, name: str, tasks: dict[str, Drawn], seed: int, n_cells: int) -> None:
    """Measure a peer that has an environment of its own, on all tasks by one process."""
    files = {
        task: put(drawn.cells, folder() / "questions" / f"{task}_{n_cells}_{seed}.npz") for task, drawn in tasks.items()
    }
    ask(SCRIPT[name], [name], [file for file in files.values() if answered(folder(), name, file) is None], folder())
    for task, file in files.items():
        found = answered(folder(), name, file)
        if found is None:
            continue
        error = str(found.get("error", ""))
        add(
            rows, task, name, seed, n_cells, tasks[task],
            log_ratio=None if error else found["log_ratio"],
            n_train=0 if error else int(found["n_train"]),
            failure=error,
            seconds=float(found["seconds"]),
            cpu_seconds=float(found["cpu_seconds"]),
        )  # fmt: skip


def measure(rows: Rows, options: argparse.Namespace, seed: int, n_cells: int, done: set[tuple[Any, ...]]) -> None:
    """Measure every method on every task that has no row yet: all tasks by the first method, then by the next."""
    drawn: dict[str, Drawn] = {}
    for name in options.methods:
        left = [task for task in options.tasks if (task, name, seed, n_cells) not in done]
        for task in left:
            if task not in drawn:
                drawn[task] = draw(task, seed, n_cells, N_QUICK if options.quick else N_FRESH)
        if name in SCRIPT:
            measure_peer(rows, name, {task: drawn[task] for task in left}, seed, n_cells)
            continue
        for task in left:
            measure_here(rows, task, name, seed, n_cells, drawn[task], options.quick)


def chosen(options: argparse.Namespace) -> Sequence[str]:
    """Tasks of a set or of the list, as far as their files are there."""
    wanted = options.tasks if options.set is None else SETS[options.set]
    return [task for task in wanted if is_there(task)]


def main() -> None:
    """Measure and write."""
    options = parsed(
        __doc__,
        RESULTS,
        {"tasks": SETS["shift"][:1], "methods": [*EFFORTS, *OWN_PEERS[:2]], "cells": (N_QUICK,)},
        set=f"tasks of a set: {', '.join(SETS)}",
        tasks=TASKS,
        methods=METHODS,
        seeds=(0,),
        cells=(N_CELLS,),
    )
    options.tasks = chosen(options)
    rows = Rows(options.results, FILE, KEYS)
    done = set() if options.again else rows.known()
    for seed in options.seeds:
        for n_cells in options.cells:
            measure(rows, options, seed, n_cells, done)
    if options.results is not None and (options.results / FILE).exists():
        with_divergence = [task for task in TASKS if task.split("-")[0] in SHIFTS]
        _ratio_tables.write(options.results / FILE, list(TASKS), list(METHODS), with_divergence)


if __name__ == "__main__":
    main()
