"""Write a small file of simulated cells, on which the pipelines of this folder can be tried."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import scratio


def main(out: Path) -> None:
    """Write 1,200 cells of two conditions and six donors to a file."""
    adata = scratio.datasets.gaussians(n_cells=1200, n_dims=2, random_state=0)
    adata.obs["donor"] = np.array([f"donor {number}" for number in range(6)])[np.arange(adata.n_obs) % 6]
    out.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
