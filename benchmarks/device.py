"""Training and scoring on the accelerator of this machine and on its CPU: seconds, memory, and whether they agree.

    python benchmarks/device.py                          # writes benchmarks/results/device.csv
    python benchmarks/device.py --quick                  # seconds, on few cells; the figures mean nothing
    python benchmarks/device.py --cells 10000 --accelerators cuda cpu

Cells of two mixtures in 20 dimensions, whose log ratio is known. Each number of cells and accelerator has a row:
seconds of training the networks (``training_seconds``), of the calibration by held-out cells
(``calibration_seconds``), of the log ratios with standard errors (``score_seconds``), and for up to 10,000 cells of
quadrature along the flow for 2,000 of them with the training of the denoiser (``flow_seconds``); the most memory that
the accelerator held; the mean square error against the truth. ``difference`` is the root mean square difference
between the log ratios of this row and those of the run's first accelerator, in standard errors. ``scored_on`` is
where the network lay when it scored: where it was trained. ``score_cpu_seconds`` is the same scoring by the CPU.
Accelerators that this machine has not are left out, and the script says so.
"""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _methods import CONTRAST, cells
from _rows import Clock, Rows, parsed
from _simulate import mixtures

from scratio.model import ScRatio

RESULTS = Path(__file__).parent / "results"
N_FLOW, MOST_WITH_FLOW, N_FOLDS = 2_000, 10_000, 5
CELLS, N_QUICK, QUICK_STEPS = (10_000, 100_000, 1_000_000), 400, 20


def found_accelerators(asked: list[str]) -> list[str]:
    """Those of the asked that this machine has; says which it has not."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name in [name for name in asked if not has[name]]:
        print(f"{name} is left out: this machine has none", flush=True)
    return [name for name in asked if has[name]]


def trained(model: ScRatio, accelerator: str, max_steps: int | None) -> dict[str, float]:
    """Train, and return the seconds of the stages, which scratio logs."""
    stages: dict[str, float] = {}
    listener = logging.Handler(logging.INFO)
    listener.emit = lambda record: stages.update(getattr(record, "seconds", {}))  # type: ignore[method-assign]
    log = logging.getLogger("scratio")
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    clock = Clock()
    model.train(max_steps=max_steps, random_state=0, accelerator=accelerator, progress_bar=False)
    log.removeHandler(listener)
    return {**{f"{name}_seconds": value for name, value in stages.items()}, "cpu_seconds": clock.read()["cpu_seconds"]}


def measure(n_cells: int, accelerator: str, max_steps: int | None) -> tuple[dict[str, Any], np.ndarray, Any]:
    """Seconds, memory and error on one accelerator; the log ratios and their standard errors."""
    x, is_treated, truth = mixtures(np.random.default_rng(0), n_cells)
    adata = cells(x, is_treated)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_folds=N_FOLDS)
    if accelerator == "cuda":
        torch.cuda.reset_peak_memory_stats()
    row: dict[str, Any] = trained(model, accelerator, max_steps)
    clock = Clock()
    values, errors = model.log_ratio(**CONTRAST, return_std=True)
    row["score_seconds"] = clock.read()["seconds"]
    if accelerator != "cpu":
        clock = Clock()
        model.log_ratio(**CONTRAST, return_std=True, accelerator="cpu")
        row["score_cpu_seconds"] = clock.read()["seconds"]
    clock = Clock()
    if n_cells <= MOST_WITH_FLOW and max_steps is None:
        model.log_ratio(**CONTRAST, method="quadrature", rows=np.arange(min(N_FLOW, n_cells)))
        row["flow_seconds"] = clock.read()["seconds"]
    row["accelerator_gib"] = torch.cuda.max_memory_allocated() / 2**30 if accelerator == "cuda" else 0.0
    row["scored_on"] = str(next(model.module.parameters()).device)
    row["mse"] = float(np.mean((values - truth) ** 2))
    return row, values, errors


def main() -> None:
    """Measure and write."""
    options = parsed(__doc__, RESULTS, {"cells": (N_QUICK,)}, cells=CELLS, accelerators=("cpu", "cuda", "mps"))
    rows = Rows(options.results, "device.csv", ["n_cells", "accelerator", "device"])
    for n_cells in options.cells:
        first = None
        for accelerator in found_accelerators(options.accelerators):
            row, values, errors = measure(n_cells, accelerator, QUICK_STEPS if options.quick else None)
            first = values if first is None else first
            difference = float(np.sqrt(np.mean(((values - first) / errors) ** 2)))
            device = torch.cuda.get_device_name() if accelerator == "cuda" else platform.machine()
            used = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
            rows.add(n_cells=n_cells, accelerator=accelerator, device=device, **used, **row, difference=difference)


if __name__ == "__main__":
    main()
