"""Peers that run in environments of their own: where these are, and what they answered.

An environment is made by ``make .venv-peer-NAME/.installed`` from the pinned list ``NAME.txt`` beside its script.
Arrays are exchanged by files (`_exchange.py`), in `benchmarks/cache`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "benchmarks" / "cache"
SCRIPTS = (ROOT / "benchmarks" / "outside_peers", ROOT / "benchmarks" / "significance_peers")

COHORT_PEERS = ("milo_pertpy", "milo_edgepython", "cna", "kompot")
"""Methods of `significance_peers`, each in an environment of its own."""
MELD = Path(sys.prefix) / "meld"
"""Where `make demo` installs MELD."""


def cohort_command(method: str, cohorts: Sequence[Path], out: Path) -> tuple[list[Any], dict[str, str]] | None:
    """Command that runs a method on cohorts, and the variables of its environment; None if that is not there.

    Parameters
    ----------
    method
        One of `COHORT_PEERS`, or of the methods of `outside_peers/analyses.py`.
    cohorts
        Files of arrays.
    out
        Folder of the results, which become ``out/method/FILE.npz``.
    """
    variables = dict(os.environ)
    if method in COHORT_PEERS:
        variables.pop("PYTHONPATH", None)
        python = python_of(method)
        command = [python, SCRIPTS[1] / f"{method}.py", *cohorts, "--out", out / method]
        return None if python is None else (command, variables)
    if method == "meld":
        variables["PYTHONPATH"] = os.pathsep.join([str(MELD), variables.get("PYTHONPATH", "")])
    return [sys.executable, SCRIPTS[0] / "analyses.py", *cohorts, "--out", out, "--methods", method], variables


def python_of(environment: str) -> Path | None:
    """Interpreter of a peer's environment; None, and a line on the console, if the environment is not there."""
    folder = "Scripts" if os.name == "nt" else "bin"
    found = ROOT / f".venv-peer-{environment}"
    # Written last: an environment without it was not finished.
    if (found / ".installed").exists():
        return found / folder / "python"
    print(f"{environment} is left out: make .venv-peer-{environment}/.installed makes its environment", flush=True)
    return None


def ask(script: str, methods: Sequence[str], questions: Sequence[Path], out: Path, environment: str = "") -> None:
    """Run methods of a peer's script on files; nothing happens if its environment is not there.

    Parameters
    ----------
    script
        Name of a script in `outside_peers`.
    methods
        Methods of the script.
    questions
        Files of arrays.
    out
        Folder of the results.
    environment
        Name of the environment; by default that of the script.
    """
    python = python_of(environment or script)
    if python is not None and questions:
        command = [python, SCRIPTS[0] / f"{script}.py", *questions, "--out", out, "--methods", *methods]
        subprocess.run(list(map(str, command)), check=True)


def answered(out: Path, method: str, question: Path) -> dict[str, np.ndarray] | None:
    """What a method found in a file; None if it was not run. A method that failed has an entry ``error``."""
    file = out / method / f"{question.stem}.npz"
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as content:
        return dict(content)


def put(arrays: dict[str, np.ndarray], file: Path) -> Path:
    """Write a question, unless it is there already."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        with unfinished.open("wb") as opened:
            np.savez_compressed(opened, **arrays)
        unfinished.replace(file)
    return file
