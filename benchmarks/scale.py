"""Cells against seconds and memory, on disk: training, scoring, one process and two.

    python benchmarks/scale.py                      # writes benchmarks/results/scale*, needs 3 GB of disk
    python benchmarks/scale.py --parts training     # one of scoring, training, processes, dask, combinations, flops
    python benchmarks/scale.py --quick              # a minute; the figures mean nothing

A mixture of 20 cell types in 50 dimensions with known log ratio is written to an ``.h5ad`` file block by block. Every
measurement is a process of its own: its peak memory is all of it, libraries included. ``scoring``: ``log_ratio`` of the
whole file by "head", with and without the file in memory. ``training``: 300 steps from the file (the steps do not
depend on the number of cells; what comes before them does), without and with early stopping and its choice of a
configuration, and once through all cells by a small network. ``processes``: the same training by one process and by two
at the same total batch. ``dask``: a lazy log ratio by a cluster of two processes. ``combinations``: 12 donors x 91
treatments, and fewer. ``flops``: operations per cell, from which docs/scale.md plans beyond.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from _methods import merged
from _processes import peak_gigabytes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import scratio
from scratio.model import ScRatio
from scratio.module import Condition

RESULTS = Path(__file__).parent / "results"
N_DIMS, N_TYPES, BLOCK = 50, 20, 2**18
SIZES = (10**4, 10**5, 10**6, 10**7)
CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
STEPS, WARM_UP = 300, 20
BARE = {"early_stopping": False, "n_validation": 1_024}


def mixture() -> tuple[np.ndarray, np.ndarray]:
    """Means of the cell types, and the shares of treated cells in each."""
    rng = np.random.default_rng(0)
    return 2.0 * rng.normal(size=(N_TYPES, N_DIMS)) / np.sqrt(np.arange(1, N_DIMS + 1)), rng.uniform(0.2, 0.8, N_TYPES)


def block_of_cells(number: int, n: int, n_treatments: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Embedding and treatment of a block of cells."""
    mean, share = mixture()
    rng = np.random.default_rng([1, number])
    kind = rng.integers(N_TYPES, size=n)
    x = (mean[kind] + rng.normal(size=(n, N_DIMS))).astype(np.float32)
    return x, (rng.uniform(size=n) < share[kind]).astype(np.int8)


def write_cells(path: Path, n: int) -> None:
    """A file of cells, of which no more than a block is ever in memory, but for their labels."""
    treated = np.concatenate([block_of_cells(k, min(BLOCK, n - k * BLOCK))[1] for k in range(-(-n // BLOCK))])
    obs = pd.DataFrame({"condition": pd.Categorical.from_codes(treated, ["control", "treated"])})
    obs["donor"] = pd.Categorical.from_codes(
        (12 * np.arange(n) // n).astype(np.int8), [f"donor {k}" for k in range(12)]
    )
    obs.index = obs.index.astype(str)
    ad.AnnData(obs=obs).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        x = file["obsm"].create_dataset("X_pca", (n, N_DIMS), np.float32)
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for k in range(-(-n // BLOCK)):
            x[k * BLOCK : (k + 1) * BLOCK] = block_of_cells(k, min(BLOCK, n - k * BLOCK))[0]


def opened(folder: Path, n: int) -> ad.AnnData:
    """The file's cells, on disk."""
    return scratio.io.read_lazy(folder / f"{n}.h5ad", obs_keys=["condition"])


def fitted(adata: ad.AnnData, steps: int, **kwargs) -> tuple[ScRatio, float]:
    """A trained model and the seconds of training."""
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata)
    start = time.perf_counter()
    model.train(max_steps=steps, accelerator="cpu", progress_bar=False, **kwargs)
    return model, time.perf_counter() - start


# --- measurements, each a process ------------------------------------------------------------------------------------


def measure_cells(folder: Path, n: int, steps: int) -> dict:
    """Write the file."""
    write_cells(folder / f"{n}.h5ad", n)
    return {}


def measure_model(folder: Path, n: int, steps: int) -> dict:
    """Train the model that scores."""
    fitted(opened(folder, n), steps)[0].save(folder / "model")
    return {}


def measure_open(folder: Path, n: int, steps: int) -> dict:
    """Memory of the libraries and the labels, before anything is done."""
    return {"n_obs": opened(folder, n).n_obs}


def measure_scoring(folder: Path, n: int, steps: int) -> dict:
    """Score the file."""
    model, adata = ScRatio.load(folder / "model"), opened(folder, n)
    start = time.perf_counter()
    found = model.log_ratio(adata, **CONTRAST)
    seconds = time.perf_counter() - start
    np.save(folder / f"{n}.npy", found)
    return {"seconds": seconds}


def measure_scoring_in_memory(folder: Path, n: int, steps: int) -> dict:
    """Score the same cells in memory; how far scores from the file are from these."""
    model, adata = ScRatio.load(folder / "model"), opened(folder, n)
    adata.obsm["X_pca"] = adata.obsm["X_pca"][:]
    start = time.perf_counter()
    found = model.log_ratio(adata, **CONTRAST)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "difference": float(np.abs(found - np.load(folder / f"{n}.npy")).max())}


def measure_training(folder: Path, n: int, steps: int) -> dict:
    """Train from the file, steps alone."""
    adata = opened(folder, n)
    seconds = fitted(adata, WARM_UP, **BARE)[1], fitted(adata, WARM_UP + steps, **BARE)[1]
    return {"seconds": seconds[1], "seconds_per_step": (seconds[1] - seconds[0]) / steps}


def measure_training_whole(folder: Path, n: int, steps: int) -> dict:
    """Train from the file with all that held-out cells decide."""
    return {"seconds": fitted(opened(folder, n), steps)[1]}


def measure_epoch(folder: Path, n: int, steps: int) -> dict:
    """Every cell of the file once, by a small network, so that reading is what is measured."""
    adata, batch_size = opened(folder, n), 4_096
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model, max_steps = ScRatio(adata, n_members=1, n_hidden=16), -(-9 * n // (10 * batch_size))
    start = time.perf_counter()
    model.train(max_steps=max_steps, batch_size=batch_size, accelerator="cpu", progress_bar=False, **BARE)
    return {"seconds": time.perf_counter() - start}


def measure_processes(folder: Path, n: int, steps: int, n_processes: int = 1) -> dict:
    """Train by one process, or as one of several."""
    torch.set_num_threads(1)
    several = {"strategy": "ddp", "devices": n_processes} if n_processes > 1 else {}
    settings = {"batch_size": 512 // n_processes, "early_stopping": False, "precision": "32-true"}
    model, seconds = fitted(opened(folder, n), 2 * steps, **settings, **several)
    loss = float(model.history["validation_loss"].iloc[-1].mean())
    return {"seconds": seconds, "validation_loss": loss, "rank": int(os.environ.get("LOCAL_RANK", 0))}


def measure_two_processes(folder: Path, n: int, steps: int) -> dict:
    """Train by two processes."""
    return measure_processes(folder, n, steps, 2)


def measure_dask(folder: Path, n: int, steps: int) -> dict:
    """Score by a cluster of two processes."""
    from dask.distributed import Client, LocalCluster

    model, adata = ScRatio.load(folder / "model"), opened(folder, n)
    with h5py.File(folder / f"{n}.h5ad") as file:
        adata.obsm["X_pca"] = ad.experimental.read_elem_lazy(file["obsm/X_pca"], chunks=(BLOCK // 4, N_DIMS))
        lazy = model.log_ratio(adata, **CONTRAST)
        with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
            client.run(torch.set_num_threads, 1)
            start = time.perf_counter()
            found = lazy.compute()
            seconds = time.perf_counter() - start
            tasks = list(client.run(lambda dask_worker: dask_worker.state.executed_count).values())
    return {
        "seconds": seconds,
        "difference": float(np.abs(found - np.load(folder / f"{n}.npy")).max()),
        "fewest_tasks_of_a_worker": min(tasks),
    }


def measure_combinations(folder: Path, n: int, steps: int) -> dict:
    """Steps and scores with n combinations of 12 donors and n / 12 treatments, 20,000 cells."""
    n_cells = 20_000
    x, _ = block_of_cells(0, n_cells)
    rng = np.random.default_rng(0)
    code = rng.permutation(np.arange(n_cells) % n)
    obs = {"donor": [f"d{c % 12}" for c in code], "drug": [f"t{c // 12}" for c in code]}
    adata = ad.AnnData(obs=pd.DataFrame(obs, index=[str(k) for k in range(n_cells)]), obsm={"X_pca": x})
    ScRatio.setup_anndata(adata, condition_keys=["donor", "drug"])
    model, seconds = ScRatio(adata), []
    for max_steps in (WARM_UP, WARM_UP + steps):
        start = time.perf_counter()
        model.train(max_steps=max_steps, accelerator="cpu", progress_bar=False, **BARE)
        seconds.append(time.perf_counter() - start)
    asked = {
        "one": ({"donor": "d1", "drug": "t1"}, {"donor": "d1", "drug": "t0"}),
        "marginal": ({"drug": "t1"}, {"drug": "t0"}),
        "own donor": ({"donor": scratio.OWN, "drug": "t1"}, {"donor": scratio.OWN, "drug": "t0"}),
    }
    row = {"seconds_per_step": (seconds[1] - seconds[0]) / steps}
    for name, (numerator, denominator) in asked.items():
        start = time.perf_counter()
        model.log_ratio(numerator=numerator, denominator=denominator)
        row[f"score, {name}"] = time.perf_counter() - start
    return row


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products; torch's own counter refuses second derivatives."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count, and compute."""
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=found)
        return found


def measure_flops(folder: Path, n: int, steps: int) -> dict:
    """Operations per cell and member, of a step and of a score."""
    model = ScRatio.load(folder / "model")
    x = torch.randn((model.module.n_members, 512, N_DIMS), generator=torch.Generator().manual_seed(0))
    condition = Condition(torch.zeros((model.module.n_members, 512, 1), dtype=torch.int64), torch.empty((3, 512, 0)))
    top, bottom = (Condition(torch.tensor([[k]]), torch.empty((1, 0))) for k in (0, 1))
    per_cell = x.shape[0] * x.shape[1]
    with Operations() as step:
        model.module.loss(x, condition, torch.Generator().manual_seed(0)).sum().backward()
    with Operations() as score, torch.no_grad():
        scratio.estimators.log_ratio_head(model.module, x[0], top, bottom)
    return {"step": step.total / per_cell, "score": score.total / per_cell}


MEASURES: dict[str, Callable[[Path, int, int], dict]] = {
    name.removeprefix("measure_"): function for name, function in globals().items() if name.startswith("measure_")
}


# --- running them ----------------------------------------------------------------------------------------------------

Measure = Callable[[str, int], dict]


def by_a_process(folder: Path) -> Measure:
    """Measure in a process of its own, whose peak memory is told."""

    def run(name: str, n: int) -> dict:
        command = [sys.executable, __file__, "--measure", name, "--folder", str(folder), "--n", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}, {n}: {done.stderr[-2_000:]}")
        lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        first = next(found for found in map(json.loads, lines) if found.pop("rank", 0) == 0)
        row = {"what": name.replace("_", " "), "n": n, **first}
        print(row, flush=True)
        return row

    return run


def quickly(folder: Path) -> Measure:
    """Measure a few steps here."""

    def run(name: str, n: int) -> dict:
        row = {"what": name, "n": n, **MEASURES[name](folder, n, 5)}
        print(row, flush=True)
        return row

    return run


def parts_of(run: Measure, sizes: tuple[int, ...], quick: bool) -> dict[str, Callable[[], list[dict]]]:
    """What is measured, by part."""
    middle = sizes[1]
    # What needs processes of its own is left to the tests.
    processes = () if quick else ("processes", "two_processes")
    return {
        "scoring": lambda: [run(m, n) for n in sizes for m in ("open", "scoring", "scoring_in_memory")],
        "training": lambda: [run(m, n) for n in sizes for m in ("training", "training_whole", "epoch")],
        "processes": lambda: [run(m, middle) for m in processes],
        "dask": lambda: [] if quick else [run("dask", sizes[-2])],
        "combinations": lambda: [run("combinations", n) for n in ((24, 36) if quick else (24, 120, 1_092))],
        "flops": lambda: [run("flops", middle)],
    }


def picture() -> None:
    """Seconds and memory against cells."""
    scoring, training = (pd.read_csv(RESULTS / f"scale_{name}.csv") for name in ("scoring", "training"))
    table = pd.concat([scoring, training])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name, rows in table[table["what"] != "open"].groupby("what", sort=False):
        axes[0].plot(rows["n"], rows["seconds"], "o-", label=name)
        axes[1].plot(rows["n"], rows["gigabytes"], "o-", label=name)
    axes[0].set(xscale="log", yscale="log", xlabel="cells", ylabel="seconds")
    axes[1].set(xscale="log", xlabel="cells", ylabel="peak memory, GB", ylim=(0, None))
    axes[1].axhline(3.0, color="0.6", linestyle="--", linewidth=1)
    axes[0].legend(frameon=False)
    figure.savefig(RESULTS / "scale.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, write, draw; or be one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["scoring", "training", "processes", "dask", "combinations", "flops"]
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", default=names, choices=names)
    parser.add_argument("--folder", type=Path, help="where the cells are written; by default a temporary folder")
    parser.add_argument("--measure", choices=sorted(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        row = MEASURES[options.measure](options.folder, options.n, STEPS)
        print("RESULT " + json.dumps({**row, "gigabytes": round(peak_gigabytes(), 3)}), flush=True)
        return
    sizes = (2_000, 4_000) if options.quick else SIZES
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        run = quickly(folder) if options.quick else by_a_process(folder)
        parts = parts_of(run, sizes, options.quick)
        for n in sizes:
            if not (folder / f"{n}.h5ad").exists():
                run("cells", n)
        if not (folder / "model").exists():
            run("model", sizes[1])
        for name in options.parts:
            rows = parts[name]()
            if rows and not options.quick:
                merged(RESULTS / f"scale_{name}.csv", rows, ["what", "n"])
    if not options.quick and {"scoring", "training"} & set(options.parts):
        picture()


if __name__ == "__main__":
    main()
