"""Cells per second of every estimator, beside the naive one and the research code's procedure on the same networks.

    python benchmarks/estimators.py            # writes benchmarks/results/estimators.csv and .png
    python benchmarks/estimators.py --quick    # two minutes; the figures mean nothing

Gaussians whose log ratio is known, so that speed is never shown without the error it is bought with. The research
procedure is timed on few cells and given up after 1,000 calls: its probes are drawn anew at every call, so that its
adaptive solver meets a right-hand side that never settles. Its speed is then an upper bound.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from _research import Budget, research_log_ratio

import scratio
from scratio.module import Condition, PotentialNetwork

RESULTS = Path(__file__).parent / "results"
CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
N_TRAIN, DISTANCE = 10_000, {10: 1.0, 50: 0.5}
N_CELLS = {"head": 200_000, "research": 256}
"""Cells to score; 2,000 for the other methods."""
MAX_CALLS = 1_000
"""Calls of the network after which the research procedure is given up; its speed is then an upper bound."""
RESEARCH = "research procedure"


def train(parametrization: str, n_dims: int, *, quick: bool) -> scratio.model.ScRatio:
    """One member, so that a cell costs one network; the other settings are the defaults."""
    adata = scratio.datasets.gaussians(
        n_cells=2_000 if quick else N_TRAIN, n_dims=n_dims, distance=DISTANCE[n_dims], random_state=0
    )
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, parametrization=parametrization, n_members=1)
    model.train(max_steps=50 if quick else None)
    return model


def research(model: scratio.model.ScRatio, cells, max_calls: int) -> tuple[np.ndarray, float, int]:
    """Log ratios by the restated procedure (NaN where it was given up), its progress from 0 to 1, and its calls."""
    x = torch.from_numpy(model.embedding(cells))
    # Codes are alphabetical: control 0, treated 1.
    ends = [Condition(torch.tensor([[code]]), torch.empty((1, 0))) for code in (1, 0)]
    budget = Budget(max_calls)
    found = research_log_ratio(model.module, x, *ends, torch.Generator().manual_seed(0), budget)
    return found.mean(0).double().numpy(), budget.progress, budget.calls


def methods(model: scratio.model.ScRatio) -> dict[str, Callable]:
    """Estimators by name, from cells to log ratios."""

    def of(**kwargs) -> Callable:
        return lambda cells: model.log_ratio(cells, **CONTRAST, **kwargs)

    found = {
        "naive": of(method="naive"),
        "ode S1": of(method="ode"),
        "ode S2": of(method="ode", field="unconditional"),
        "ode S1, 4 probes": of(method="ode", divergence="rademacher"),
        "quadrature": of(method="quadrature"),
        "ito": of(method="ito"),
    }
    return {**found, "head": of(method="head")} if isinstance(model.module, PotentialNetwork) else found


def measure(parametrization: str, n_dims: int, *, quick: bool) -> list[dict]:
    """Speed and error of every method; a first call warms up."""
    model, rows = train(parametrization, n_dims, quick=quick), []

    def record(name: str, n: int, seconds: float, found: np.ndarray, cells, calls: int | None = None) -> None:
        error = float(np.mean((found - cells.obs["true_log_ratio"].to_numpy()) ** 2))
        rows.append(
            {
                "parametrization": parametrization,
                "d": n_dims,
                "method": name,
                "n_cells": n,
                "cells_per_s": n / seconds,
                "s_per_10000": 1e4 * seconds / n,
                "mse": error,
                "calls": calls,
            }
        )
        print(f"{parametrization:10s} d={n_dims} {name:20s} {n / seconds:12.1f} cells/s   mse {error:.4f}", flush=True)

    def cells_of(name: str):
        n = 64 if quick else N_CELLS.get(name, 2_000)
        return n, scratio.datasets.gaussians(n_cells=n, n_dims=n_dims, distance=DISTANCE[n_dims], random_state=1)

    for name, estimate in methods(model).items():
        n, cells = cells_of(name)
        estimate(cells[:50].copy())
        start = time.perf_counter()
        found = estimate(cells)
        record(name, n, time.perf_counter() - start, found, cells)
    n, cells = cells_of("research")
    start = time.perf_counter()
    found, progress, calls = research(model, cells, 200 if quick else MAX_CALLS)
    seconds = time.perf_counter() - start
    # Given up part of the way: the rest would have taken time in proportion at least, so this is an upper bound.
    record(RESEARCH, n, seconds / max(progress, 1e-9) if progress < 1.0 else seconds, found, cells, calls)
    return rows


def draw(table: pd.DataFrame) -> None:
    """Speed of every method, one panel for each network and dimension."""
    groups = list(table.groupby(["parametrization", "d"]))
    figure, axes = plt.subplots(1, len(groups), figsize=(4.5 * len(groups), 3.6), sharex=True, layout="constrained")
    for ax, ((name, d), part) in zip(np.atleast_1d(axes), groups, strict=True):
        part = part.sort_values("cells_per_s")
        ax.barh(
            part["method"], part["cells_per_s"], color=["0.6" if m == RESEARCH else "tab:blue" for m in part["method"]]
        )
        for y, error in enumerate(part["mse"]):
            label = "did not arrive" if np.isnan(error) else f"{error:.2g}"
            ax.text(1.2 * part["cells_per_s"].iloc[y], y, label, va="center", fontsize=8)
        ax.margins(x=0.3)
        ax.set(xscale="log", xlabel="cells per second (label: MSE)", title=f"{name}, d = {d}")
    figure.savefig(RESULTS / "estimators.png", dpi=150)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rows = [row for d in DISTANCE for kind in ("potential", "heads") for row in measure(kind, d, quick=quick)]
    table = pd.DataFrame(rows)
    for name, reference in (("times_research", RESEARCH), ("times_naive", "naive")):
        base = table[table["method"] == reference].set_index(["parametrization", "d"])["cells_per_s"]
        keys = pd.MultiIndex.from_frame(table[["parametrization", "d"]])
        table[name] = table["cells_per_s"].to_numpy() / base.loc[keys].to_numpy()
    print(table.round(4).to_string(index=False))
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        table.to_csv(RESULTS / "estimators.csv", index=False, float_format="%.5g")
        draw(table)


if __name__ == "__main__":
    main()
