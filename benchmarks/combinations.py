"""Combined treatments against single ones (a question of arXiv 2602.24201).

    SCRATIO_DATA=folder python benchmarks/combinations.py      # writes benchmarks/results/combinations.csv and .png
    python benchmarks/combinations.py --quick                  # a minute, on made-up cells

T cells (Sachs et al. 2005) with the stimulus cd3cd28: ICAM2 with each of five inhibitors, either of the two held fixed.
``spearman`` compares the mean magnitude of each pair with that of a cross-validated classifier's log odds. The paper's
data (combosciplex) are others, so that its figures do not compare.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _analysis import frame, run
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import scratio

RESULTS = Path(__file__).parent / "results"


def analyse(adata: ad.AnnData, train_kwargs: dict[str, Any]) -> tuple[pd.DataFrame, Figure]:
    """Every pair against each of its parts."""
    adata = adata[adata.obs["stim"] == "cd3cd28"].copy()
    inhibitors = [name for name in adata.obs["inhibitor"].unique() if name != "none"]
    tables, figure, axes = [], *plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for fixed, added, ax in (("inhibitor", "icam2", axes[0]), ("icam2", "inhibitor", axes[1])):
        pairs = [(name, "icam2") if fixed == "inhibitor" else ("icam2", name) for name in inhibitors]
        scratio.tl.combination_effect(
            adata,
            condition_keys=[fixed, added],
            combination=pairs,
            reference=("none", "none"),
            use_rep="X_scaled",
            key_added=fixed,
            train_kwargs=train_kwargs,
        )
        table = adata.uns[fixed]["summary"]
        rho = spearmanr(table["mean_magnitude"], table["classifier_magnitude"]).statistic
        tables.append(table.assign(fixed=fixed, spearman=rho))
        scratio.pl.combination_effect(adata, key=fixed, ax=ax)
        ax.set_title(f"{fixed} held fixed")
    return pd.concat(tables, ignore_index=True), figure


def simulate(rng: np.random.Generator) -> ad.AnnData:
    """Two inhibitors with and without ICAM2, which moves cells more with the second."""
    inhibitors, parts = ("none", "akt", "mek"), []
    obs: dict[str, list] = {"inhibitor": [], "icam2": [], "stim": []}
    for (code, inhibitor), icam2 in itertools.product(enumerate(inhibitors), ("none", "icam2")):
        parts.append(rng.normal(size=(80, 3)) + 0.5 * (1 + code) * (icam2 == "icam2"))
        obs["inhibitor"] += 80 * [inhibitor]
        obs["icam2"] += 80 * [icam2]
        obs["stim"] += 80 * ["cd3cd28"]
    x = np.concatenate(parts)
    return frame(x, obs, X_scaled=x)


def main() -> None:
    """Measure, write, draw."""
    run(__doc__, RESULTS / "combinations", "sachs2005_flow.h5ad", analyse, simulate)


if __name__ == "__main__":
    main()
