"""Planted differential abundance on real PBMCs (Kang et al. 2018), with the log ratio of every cell known.

    SCRATIO_DATA=folder python benchmarks/differential_abundance.py            # writes benchmarks/results/
    python benchmarks/differential_abundance.py --quick                        # a minute, on the PBMCs of scanpy
    SCRATIO_DATA=folder python benchmarks/differential_abundance.py --methods scratio knn meld

As in section 5.3 of arXiv 2602.24201 every cell type has a probability of its own with which its cells are labelled as
treated, of eight levels from .1 to .9. The paper ranks cells; here the truth of each is known as well, and types of
probability .5 say how much is found where there is nothing. All methods score cells out of fold, but for MELD.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

import scratio
from scratio import peers

RESULTS = Path(__file__).parent / "results"
FOLDER = Path(os.environ.get("SCRATIO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
KANG, N_DIMS = "kang2018_pbmc_ifnb_pca.h5ad", 20
GROUPS = {"condition_key": "treatment", "treatment": "treated", "reference": "control"}
METHODS = ("scratio", "logistic", "boosting", "mlp", "qda", "knn", "ctsm-v-sb", "meld")


def planted(seed: int, quick: bool) -> ad.AnnData:
    """Real cells with planted labels."""
    if quick:
        return scratio.datasets.pbmc68k_planted(random_state=seed)
    kang = ad.read_h5ad(FOLDER / KANG)
    adata = ad.AnnData(obs=kang.obs[["cell_type"]].copy(), obsm={"X_pca": kang.obsm["X_pca"][:, :N_DIMS]})
    scratio.datasets.plant_labels(adata, groupby="cell_type", random_state=seed)
    return adata


def measures(found: np.ndarray, adata: ad.AnnData) -> dict[str, float]:
    """What the table of the comparison does not hold; of log odds, which are 0 where the probability is a half."""
    truth, p = adata.obs["true_log_ratio"].to_numpy(), adata.obs["treatment_probability"].to_numpy()
    is_changed = p != 0.5
    log_odds = found + (logit(p) - truth)
    levels = pd.Series(log_odds).groupby(p).mean()
    return {
        "slope_on_truth": float(np.polyfit(truth, found, 1)[0]),
        "pr_auc": float(average_precision_score(is_changed, np.abs(log_odds))) if not is_changed.all() else np.nan,
        "sign_right": float((np.sign(log_odds) == np.sign(p - 0.5))[is_changed].mean()),
        "level_correlation": float(spearmanr(levels.index, levels).statistic),
        "magnitude_where_unchanged": float(np.abs(log_odds[~is_changed]).mean()) if not is_changed.all() else np.nan,
    }


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    quick, tables = options.quick, []
    if not quick and not (FOLDER / KANG).exists():
        parser.error(f"{FOLDER / KANG} not found; set SCRATIO_DATA to the folder that holds it")
    methods = [name for name in options.methods if name != "meld" or peers.is_installed("meld")]
    settings = {"scratio": {"max_steps": 30}, "ctsm-v-sb": {"n_steps": 20}} if quick else {}
    for seed in range(1 if quick else options.seeds):
        adata = planted(seed, quick)
        kwargs = {name: settings[name] for name in methods if name in settings}
        scratio.tl.compare_methods(
            adata, **GROUPS, methods=methods, method_kwargs=kwargs, truth_key="true_log_ratio", random_state=seed
        )
        table, values = adata.uns["comparison"]["table"], adata.obsm["comparison"]
        further = pd.DataFrame([measures(values[name].to_numpy(), adata) for name in methods])
        tables.append(pd.concat([table, further], axis=1).assign(seed=seed))
        print(tables[-1].round(3).to_string(index=False), flush=True)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        pd.concat(tables).to_csv(RESULTS / "differential_abundance.csv", index=False, float_format="%.4g")
        scratio.pl.compare_methods(adata).figure.savefig(
            RESULTS / "differential_abundance.png", dpi=150, bbox_inches="tight"
        )
        plt.close("all")


if __name__ == "__main__":
    main()
