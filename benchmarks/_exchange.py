"""What peers in environments of their own share: one thread, arrays read from files, results written to files.

Import this module before numpy and others: it limits the threads that they start. It needs nothing but numpy. Methods
import their packages when they are called, after the folders of the benchmarks have left the path of modules, where a
script such as `kompot.py` would hide the package of this name. The seconds of the first file of a process therefore
have the imports in them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib
    "NPROC",  # jax
)
os.environ.update(dict.fromkeys(THREADS, "1"))
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

# isort: split
import numpy as np  # noqa: E402

Arrays = dict[str, np.ndarray]
HERE = Path(__file__).resolve().parent


def answer(method: Callable[[Arrays], Mapping[str, np.ndarray]], question: Path, target: Path) -> None:
    """Write what a method finds in a file of arrays; a result that is there already is left alone.

    The result has ``seconds`` and ``cpu_seconds``. If the method failed, it has a message ``error`` in place of arrays.

    Parameters
    ----------
    method
        From arrays to arrays.
    question, target
        Files in the format of ``numpy.savez``.
    """
    if target.exists():
        return
    with np.load(question, allow_pickle=False) as content:
        arrays = dict(content)
    wall, processor = time.perf_counter(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = dict(method(arrays))
    except Exception as error:  # noqa: BLE001 (whatever a method fails with, the next file has its turn)
        found = {"error": np.array(str(error) or type(error).__name__)}
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, **found, **{name: np.float64(value) for name, value in spent.items()})
    unfinished.replace(target)
    print(target.parent.name, target.stem, found.get("error", f"{spent['seconds']:.1f} s"), flush=True)


def forget_folders() -> None:
    """Take the folders of the benchmarks off the path of modules."""
    sys.path[:] = [entry for entry in sys.path if HERE not in (Path(entry).resolve(), Path(entry).resolve().parent)]


def serve(methods: Mapping[str, Callable[[Arrays], Mapping[str, np.ndarray]]]) -> None:
    """Run methods on the files of the command line, and write their results to ``OUT/METHOD/FILE.npz``.

    Parameters
    ----------
    methods
        Methods by name.
    """
    forget_folders()
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT")
    parser.add_argument("--methods", nargs="+", choices=list(methods), default=list(methods))
    options = parser.parse_args()
    for path in options.files:
        for name in options.methods:
            answer(methods[name], path, options.out / name / f"{path.stem}.npz")
