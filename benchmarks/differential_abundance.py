"""Planted differential abundance on real PBMCs, with the log ratio of every cell known (table 2 of arXiv 2602.24201).

    SCRATIO_DATA=folder python benchmarks/differential_abundance.py            # writes benchmarks/results/
    python benchmarks/differential_abundance.py --quick                        # a minute, on the PBMCs of scanpy
    SCRATIO_DATA=folder python benchmarks/differential_abundance.py --methods scratio knn --levels 0.5 0.9

The paper's protocol on Kang's cells (its own are not among our data): at each of eight levels p a cell of one type is
"treated" with probability p, of a second with 1 - p, of all others with a half. The two types are monocytes and B
cells, 22% and 10% of the cells; the paper's clusters had 22% and 7%.

``pr_auc``, ``nar``, ``csp`` are the paper's: average precision of the two types by the size of the log odds, its mean
there over its mean elsewhere, and the share of cells of the two types with the right sign. Its authors average them
over p > .8 and correlate them with p. What the paper leaves out is that the truth of every cell is known: ``rmse`` and
``slope`` against it (for p < 1), and ``false_positives``, unchanged cells that seem at least as different as the least
effect planted. All methods score cells out of fold, but for MELD.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _methods import line_styles, merged
from scipy.special import logit
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

import scratio
from scratio import peers

RESULTS = Path(__file__).parent / "results"
FOLDER = Path(os.environ.get("SCRATIO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
KANG, N_DIMS = "kang2018_pbmc_ifnb_pca.h5ad", 20
TYPES = {"cell_type": ("CD14+ Monocytes", "B cells"), "bulk_labels": ("CD14+ Monocyte", "CD19+ B")}
"""The type that gains with the treatment and the one that loses, by the column that has them."""
LEVELS = (0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
GROUPS = {"condition_key": "treatment", "treatment": "treated", "reference": "control"}
METHODS = ("scratio", "logistic", "boosting", "mlp", "qda", "knn", "meld")
MEASURES = ("pr_auc", "nar", "csp", "rmse", "slope", "false_positives")
PAPER = {
    "paper, scRatio": (0.958, 11.4, 0.980, 0.992, 1.000, 0.952),
    "paper, MELD": (0.933, 6.45, 0.996, 0.476, 0.167, 0.268),
    "paper, MrVI": (0.885, 7.33, 0.975, 0.714, 0.833, 0.675),
}
"""Means of pr_auc, nar and csp over p > .8, then their correlations with p; from the notebook that evaluates them."""


def real_cells(quick: bool) -> ad.AnnData:
    """PBMCs with types in ``obs["type"]``."""
    if quick:
        adata, key = scratio.datasets.pbmc68k_planted(), "bulk_labels"
    else:
        adata, key = ad.read_h5ad(FOLDER / KANG), "cell_type"
    gaining, losing = TYPES[key]
    change = adata.obs[key].map({gaining: 1.0, losing: -1.0}).astype(float).fillna(0.0)
    obs = pd.DataFrame({"change": change.to_numpy()}, index=adata.obs_names)
    return ad.AnnData(obs=obs, obsm={"X_pca": adata.obsm["X_pca"][:, :N_DIMS]})


def planted(cells: ad.AnnData, level: float, seed: int) -> ad.AnnData:
    """Cells labelled as treated with probability ``level``, 1 - ``level`` or a half."""
    adata = cells.copy()
    p = 0.5 + (level - 0.5) * adata.obs["change"].to_numpy()
    is_treated = np.random.default_rng(seed).uniform(size=len(p)) < p
    adata.obs["treatment"] = np.where(is_treated, "treated", "control")
    adata.obs["log_odds"] = logit(p)
    # log r = log odds of the cell - log odds of all cells.
    adata.obs["log_ratio"] = logit(p) - logit(p.mean())
    return adata


def measures(found: np.ndarray, adata: ad.AnnData) -> dict[str, float]:
    """What a method gets right."""
    truth, change = adata.obs["log_ratio"].to_numpy(), adata.obs["change"].to_numpy()
    odds = found + (adata.obs["log_odds"] - adata.obs["log_ratio"]).to_numpy()[change == 0.0][0]
    size, is_changed, known = np.abs(odds), change != 0.0, np.isfinite(truth)
    elsewhere = size[~is_changed].mean()
    has_effect = known.all() and np.ptp(truth) > 0.0
    return {
        "pr_auc": float(average_precision_score(is_changed, size)),
        # Where nothing is found anywhere, the two types are as different as the others, and signs a matter of chance.
        "nar": float(size[is_changed].mean() / elsewhere) if elsewhere > 0.0 else 1.0,
        "csp": float(0.5 + 0.5 * np.sign(odds * change)[is_changed].mean()),
        "rmse": float(np.sqrt(np.mean((found - truth)[known] ** 2))),
        "slope": float(np.polyfit(truth, found, 1)[0]) if has_effect else np.nan,
        "false_positives": float((size[~is_changed] >= logit(LEVELS[1])).mean()),
    }


def means(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's means over p > .8 and correlations with p; and the means of what it leaves out, over p < 1."""
    rows = [
        {
            "method": name,
            **{column: own.loc[own["p"] > 0.8, column].mean() for column in MEASURES[:3]},
            **{f"{column}_correlation": spearmanr(own["p"], own[column]).statistic for column in MEASURES[:3]},
            **{column: own.loc[own["p"] < 1.0, column].mean() for column in MEASURES[3:]},
            "false_positives_at_half": own.loc[own["p"] == 0.5, "false_positives"].mean(),
            "seconds": own["seconds"].mean(),
        }
        for name, own in table.groupby("method", sort=False)
    ]
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The means, and the figures of the paper below them."""
    columns = [*MEASURES[:3], *(f"{column}_correlation" for column in MEASURES[:3])]
    paper = [{"method": name, **dict(zip(columns, values, strict=True))} for name, values in PAPER.items()]
    return pd.concat([means(table), pd.DataFrame(paper)], ignore_index=True)


def plot(table: pd.DataFrame) -> None:
    """Every measure by level."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 7), layout="constrained")
    wide = {"nar", "rmse"}
    styles = line_styles(list(table["method"].unique()))
    for column, ax in zip(MEASURES, axes.flat, strict=True):
        for name, own in table.groupby("method", sort=False):
            line = own.groupby("p")[column].mean()
            ax.plot(line.index, line, label=name, **styles[name])
        ax.set(xlabel="probability p", ylabel=column.replace("_", " "), yscale="log" if column in wide else "linear")
    axes[1, 1].axhline(1.0, color="#999999", linewidth=0.8)
    axes[1, 1].set_ylim(0.0, 2.0)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(RESULTS / "differential_abundance.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--levels", nargs="+", type=float, default=LEVELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    quick = options.quick
    if not quick and not (FOLDER / KANG).exists():
        parser.error(f"{FOLDER / KANG} not found; set SCRATIO_DATA to the folder that holds it")
    methods = [name for name in options.methods if name != "meld" or peers.is_installed("meld")]
    kwargs = {"scratio": {"max_steps": 30}} if quick and "scratio" in methods else {}
    cells = real_cells(quick)
    for seed in options.seeds:
        for level in (0.5, 0.9) if quick else options.levels:
            adata = planted(cells, level, seed)
            scratio.tl.compare_methods(
                adata, **GROUPS, methods=methods, method_kwargs=kwargs, random_state=seed, key_added="c"
            )
            label_loss = adata.uns["c"]["table"].set_index("method")
            rows = [
                {
                    "method": name,
                    "p": level,
                    "seed": seed,
                    **measures(adata.obsm["c"][name].to_numpy(), adata),
                    **label_loss.loc[name, ["label_loss", "seconds"]],
                }
                for name in methods
            ]
            print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)
            if not quick:
                table = merged(RESULTS / "differential_abundance.csv", rows, ["method", "p", "seed"])
                found = summary(table)
                found.to_csv(RESULTS / "differential_abundance_summary.csv", index=False, float_format="%.3g")
                plot(table)


if __name__ == "__main__":
    main()
