"""Seconds of a whole analysis of differential abundance, beside boosting, MELD and Milo on the same cells.

    python benchmarks/speed.py                        # hours; writes benchmarks/results/speed.csv and speed.png
    python benchmarks/speed.py --quick                # seconds, on few cells; the figures mean nothing
    python benchmarks/speed.py --cells 1000 10000 --methods scratio boosting
    python benchmarks/speed.py --old ../old/bin/python    # with the scratio of another environment beside it

Cells of two mixtures in 20 dimensions, whose log ratio is known: ``mse`` is the mean square error, so that speed is not
shown without what it buys. ``scratio`` is `tl.differential_abundance` with its defaults: cross-fitted, with standard
errors. ``boosting`` is the peer, out of fold, in the same process; it fits five calibrated classifiers in each fold, so
that ``boosting-plain`` stands beside it: one HistGradientBoostingClassifier a fold. MELD scores the cells it is fitted
on; Milo gets six random samples. Both are left out where they are not installed.

``times_boosting`` and ``times_boosting_plain`` are ratios of seconds on the wall, where boosting is in the same run. A
row with a ``stage`` other than "all" says what scratio spends there, where its version tells. ``--old`` runs
`tl.differential_abundance` of another Python on the same cells, in a process of its own, within the same run; the
variables PYTHON... of the environment do not reach it. Every method is called once on few cells before it is timed. Set
OMP_NUM_THREADS for the number of threads. Rows are written as they are measured, and replace earlier ones.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _labels import EFFORTS, N_FOLDS, QUICK, available, log_odds
from _methods import cells, line_styles
from _rows import Clock, Rows, parsed
from _simulate import mixtures
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from scratio import peers

RESULTS = Path(__file__).parent / "results"
BOOSTING = ("boosting", "boosting-plain")
METHODS = (*BOOSTING, "scratio", "scratio-quick", "meld", "milo")
PACKAGE = {"boosting": "scikit-learn", "boosting-plain": "scikit-learn", "meld": "meld", "milo": "pertpy"}
OLD = "scratio-old"
N_THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
CELLS, N_QUICK, N_SAMPLES = (1_000, 10_000, 100_000), 300, 6
MOST_CELLS = {"milo": 30_000}
"""Beyond this the peer's dense matrix of cells and neighbourhoods takes more memory than most machines have."""

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cells, whether they are treated, true log ratios."""


def worker(file: str, arguments: dict) -> dict:
    """Seconds and error of `tl.differential_abundance` on cells of a file; sent as text to other interpreters."""
    import logging
    import time

    import anndata

    import scratio

    adata = anndata.read_h5ad(file)
    call = {"condition_key": "condition", "treatment": "treated", "reference": "control", **arguments}
    train_kwargs = {"progress_bar": False, **call.pop("train_kwargs", {})}
    # The first call loads what is loaded late.
    scratio.tl.differential_abundance(adata[:200].copy(), **call, train_kwargs={**train_kwargs, "max_steps": 5})
    found_stages: dict = {}
    listener = logging.Handler(logging.INFO)
    listener.emit = lambda record: found_stages.update(getattr(record, "seconds", {}))  # type: ignore[method-assign]
    log = logging.getLogger("scratio")
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    wall, processor = time.perf_counter(), time.process_time()
    scratio.tl.differential_abundance(adata, **call, train_kwargs=train_kwargs)
    found = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    found["mse"] = float(((adata.obs["da_log_ratio"] - adata.obs["true_log_ratio"]) ** 2).mean())
    found["stages"] = {str(stage): float(seconds) for stage, seconds in found_stages.items()}
    return {"version": scratio.__version__, **found}


def by_another(python: str, file: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The worker in another interpreter."""
    call = "import json, sys\nprint(json.dumps(worker(sys.argv[1], json.loads(sys.argv[2]))))"
    command = [python, "-I", "-c", f"{inspect.getsource(worker)}\n{call}", file, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def by_peer(name: str, x: np.ndarray, is_treated: np.ndarray, seed: int) -> np.ndarray:
    """Log ratio of every cell, out of fold but for MELD and Milo."""
    odds = np.log(is_treated.sum() / (~is_treated).sum())
    if name == "boosting":
        return log_odds(name, x, is_treated, seed)[0] - odds
    if name == "boosting-plain":
        model = HistGradientBoostingClassifier(early_stopping=True, random_state=seed)
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
        return cross_val_predict(model, x, is_treated, cv=folds, method="decision_function") - odds
    if name == "meld":
        return peers.make(name, random_state=seed).fit(x[is_treated], x[~is_treated]).log_ratio(x)
    sample = np.random.default_rng(seed).integers(N_SAMPLES // 2, size=len(x)) + N_SAMPLES * is_treated
    return peers.milo(x, sample, is_treated, random_state=seed).log_ratio


def peer_row(name: str, drawn: Drawn, seed: int) -> dict[str, Any]:
    """Seconds and error of a peer."""
    x, is_treated, truth = drawn
    by_peer(name, x[:200], is_treated[:200], seed)
    clock = Clock()
    found = by_peer(name, x, is_treated, seed)
    return {"version": metadata.version(PACKAGE[name]), **clock.read(), "mse": float(np.mean((found - truth) ** 2))}


def methods_of(options: argparse.Namespace) -> list[str]:
    """Methods that there are, boosting first, which the others are compared with; says which are left out."""
    found = available(options.methods) + ([OLD] if options.old else [])
    for name in [name for name in found if name in ("meld", "milo") and not peers.is_installed(PACKAGE[name])]:
        print(f"{name} is left out: {PACKAGE[name]} is not installed", flush=True)
        found.remove(name)
    return sorted(found, key=lambda name: name not in BOOSTING)


def measure(rows: Rows, methods: list[str], n_cells: int, seed: int, options: argparse.Namespace) -> None:
    """Seconds of all methods on the same cells."""
    x, is_treated, truth = drawn = mixtures(np.random.default_rng(seed), n_cells)
    arguments = {"random_state": seed, "train_kwargs": QUICK if options.quick else {}}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        file, adata = str(Path(folder) / "cells.h5ad"), cells(x, is_treated)
        adata.obs["true_log_ratio"] = truth
        adata.write_h5ad(file)
        for name in methods:
            if n_cells > MOST_CELLS.get(name, n_cells):
                print(f"{name} is left out at {n_cells} cells: it would take too much memory", flush=True)
                continue
            if name in EFFORTS:
                found = worker(file, {**arguments, **EFFORTS[name]})
            else:
                found = by_another(options.old, file, arguments) if name == OLD else peer_row(name, drawn, seed)
            seconds[name] = found["seconds"]
            key = {"n_cells": n_cells, "d": x.shape[1], "method": name, "seed": seed, "threads": N_THREADS}
            stages = found.pop("stages", {})
            # Known from the start or not at all, since boosting is measured first.
            bases = [base for base in BOOSTING if base in methods and base in seconds]
            ratios = {f"times_{base.replace('-', '_')}": found["seconds"] / seconds[base] for base in bases}
            rows.add(**key, stage="all", **found, **ratios)
            for stage, spent in stages.items():
                rows.add(**key, stage=stage, version=found["version"], seconds=spent)


def draw(table: pd.DataFrame, file: Path) -> None:
    """Seconds by number of cells."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharex=True)
    table = table[table["stage"] == "all"]
    styles = line_styles(list(table["method"].unique()))
    for column, ax in zip(("seconds", "cpu_seconds"), axes, strict=True):
        for name, own in table.groupby("method", sort=False):
            line = own.groupby("n_cells")[column].mean()
            ax.plot(line.index, line, label=name, **styles[name])
        ax.set(xscale="log", yscale="log", xlabel="cells", ylabel=column.replace("_", " ").replace("cpu", "CPU"))
    axes[0].legend(frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, write, draw."""
    old = "Python of an environment with another scratio, which is timed on the same cells"
    options = parsed(__doc__, RESULTS, {"cells": (N_QUICK,)}, cells=CELLS, methods=METHODS, seeds=(0,), old=old)
    rows = Rows(options.results, "speed.csv", ["n_cells", "method", "seed", "threads", "stage"])
    methods = methods_of(options)
    for n_cells in options.cells:
        for seed in options.seeds:
            measure(rows, methods, n_cells, seed, options)
    if options.results is not None:
        draw(pd.read_csv(options.results / "speed.csv"), options.results / "speed.png")


if __name__ == "__main__":
    main()
