"""Cells per second of every estimator, beside the naive one and the research code's procedure on the same networks.

    python benchmarks/speed.py            # writes benchmarks/results/speed.csv and speed.png
    python benchmarks/speed.py --quick    # a minute; the figures mean nothing

Gaussians of 50 dimensions whose log ratio is known, so that speed is never shown without the error it is bought with.
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
from _research import research_log_ratio

import scratio
from scratio.module import Condition

RESULTS = Path(__file__).parent / "results"
CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
DISTANCE, N_DIMS, N_TRAIN = 0.5, 50, 30_000
N_CELLS = {"head": 200_000, "research": 500}
"""Cells to score; 4,000 for the other methods."""


def train(parametrization: str, *, quick: bool) -> scratio.model.ScRatio:
    """One member with default settings, so that a cell costs one network."""
    adata = scratio.datasets.gaussians(
        n_cells=2_000 if quick else N_TRAIN, n_dims=N_DIMS, distance=DISTANCE, random_state=0
    )
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, parametrization=parametrization, n_members=1)
    model.train(max_steps=50 if quick else None)
    return model


def research(model: scratio.model.ScRatio, cells) -> np.ndarray:
    """The restated procedure, batch by batch of 512 cells."""
    x = torch.from_numpy(model.embedding(cells))
    ends = [Condition(torch.tensor([[code]]), torch.empty((1, 0))) for code in (1, 0)]
    generator = torch.Generator().manual_seed(0)
    parts = [research_log_ratio(model.module, batch, *ends, generator).mean(0) for batch in x.split(512)]
    return torch.cat(parts).double().numpy()


def methods(model: scratio.model.ScRatio) -> dict[str, Callable]:
    """Estimators by name, from cells to log ratios."""

    def of(**kwargs) -> Callable:
        return lambda cells: model.log_ratio(cells, **CONTRAST, **kwargs)

    found = {
        "research procedure": lambda cells: research(model, cells),
        "naive": of(method="naive"),
        "ode S1": of(method="ode"),
        "ode S2": of(method="ode", field="unconditional"),
        "ode S1, 4 probes": of(method="ode", divergence="rademacher"),
        "quadrature": of(method="quadrature"),
        "ito": of(method="ito"),
    }
    # Condition codes are alphabetical: control 0, treated 1.
    return {**found, "head": of(method="head")} if model._settings["parametrization"] == "potential" else found


def measure(model: scratio.model.ScRatio, parametrization: str, *, quick: bool) -> pd.DataFrame:
    """Speed and error of every method; the first call warms up."""
    rows = []
    for name, estimate in methods(model).items():
        n = 100 if quick else N_CELLS.get(name.split()[0], 4_000)
        cells = scratio.datasets.gaussians(n_cells=n, n_dims=N_DIMS, distance=DISTANCE, random_state=1)
        estimate(cells[:50].copy())
        start = time.perf_counter()
        found = estimate(cells)
        seconds = time.perf_counter() - start
        error = float(np.mean((found - cells.obs["true_log_ratio"].to_numpy()) ** 2))
        rows.append(
            {"parametrization": parametrization, "method": name, "n_cells": n, "cells_per_s": n / seconds, "mse": error}
        )
        print(f"{parametrization:10s} {name:20s} {n / seconds:12.0f} cells/s   mse {error:.4f}", flush=True)
    table = pd.DataFrame(rows)
    speed = table.set_index("method")["cells_per_s"]
    table["times_research"] = table["cells_per_s"] / speed["research procedure"]
    table["times_naive"] = table["cells_per_s"] / speed["naive"]
    return table


def draw(table: pd.DataFrame) -> None:
    """Error against speed, one panel for each network."""
    groups = list(table.groupby("parametrization"))
    figure, axes = plt.subplots(1, len(groups), figsize=(5.5 * len(groups), 4), sharey=True, layout="constrained")
    for ax, (name, part) in zip(np.atleast_1d(axes), groups, strict=True):
        ax.scatter(part["cells_per_s"], part["mse"], color="tab:blue")
        for _, row in part.iterrows():
            ax.annotate(row["method"], (row["cells_per_s"], row["mse"]), xytext=(4, 4), textcoords="offset points")
        ax.set(xscale="log", yscale="log", xlabel="cells per second", title=f'parametrization="{name}"')
    np.atleast_1d(axes)[0].set_ylabel("mean squared error (nats²)")
    figure.savefig(RESULTS / "speed.png", dpi=150)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    kinds = ("potential", "heads")
    table = pd.concat([measure(train(kind, quick=quick), kind, quick=quick) for kind in kinds], ignore_index=True)
    print(table.round(4).to_string(index=False))
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        table.to_csv(RESULTS / "speed.csv", index=False, float_format="%.5g")
        draw(table)


if __name__ == "__main__":
    main()
