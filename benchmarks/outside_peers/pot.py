"""Optimal transport between samples by POT (Flamary et al. 2021), version 0.9.7, for `outside_samples.py`.

    make .venv-peer-pot/.installed
    .venv-peer-pot/bin/python benchmarks/outside_peers/pot.py QUESTION.npz --out FOLDER --methods transport

Exact transport of all cells of two samples, at the squared Euclidean distances that ``ot.dist`` has by default.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _exchange import Arrays, serve

# isort: split
import numpy as np


def transport(arrays: Arrays) -> Arrays:
    """Costs of transport between every two samples, square."""
    import ot

    cells = [arrays["x"][arrays["sample"] == own] for own in range(arrays["sample"].max() + 1)]
    found = np.zeros((len(cells), len(cells)))
    for row in range(len(cells)):
        for column in range(row):
            cost = ot.dist(cells[row], cells[column])
            found[row, column] = found[column, row] = ot.emd2([], [], cost, numItermax=1_000_000)
    return {"distance": found}


if __name__ == "__main__":
    serve({"transport": transport})
