"""The main job on real cells: score them, compare with the planted answer, write the AnnData and the figures.

Without arguments: 700 real PBMCs that ship with scanpy, labelled "treated" or "control" with a known probability for
each cell type. With --data: your own cells.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc
from sklearn.metrics import average_precision_score

import scratio

OUT = Path(__file__).parent
PEERS = {"knn": "nearest neighbours", "logistic": "logistic regression", "meld": "MELD"}
"""Other methods to compare with, and their names in words."""


def planted() -> tuple[ad.AnnData, dict]:
    """Cells with a known answer, and what to ask."""
    adata = scratio.datasets.pbmc68k_planted()
    return adata, {"condition_key": "treatment", "treatment": "treated", "reference": "control", "use_rep": "X_pca"}


def own(arguments: argparse.Namespace) -> tuple[ad.AnnData, dict]:
    """The user's cells, and what to ask."""
    missing = [name for name in ("condition_key", "treatment", "reference") if not getattr(arguments, name)]
    if missing:
        raise SystemExit(f"--data needs {', '.join('--' + name.replace('_', '-') for name in missing)}")
    question = {name: getattr(arguments, name) for name in ("condition_key", "treatment", "reference", "use_rep")}
    return ad.read_h5ad(arguments.data), question


def report_planted(adata: ad.AnnData, question: dict) -> None:
    """Estimated against planted log ratio by cell type, and how other methods do on the same cells."""
    groups = adata.obs.groupby("bulk_labels", observed=True)
    table = pd.DataFrame(
        {
            "cells": groups.size(),
            "planted": groups["true_log_ratio"].mean(),
            "estimated": groups["da_log_ratio"].mean(),
            "sd of cells": groups["da_log_ratio"].std(),
        }
    )
    print(table.sort_values("planted", ascending=False).round(2).to_string())
    others = [name for name in PEERS if name != "meld" or scratio.peers.is_installed("meld")]
    scratio.tl.compare_methods(adata, **question, methods=others, truth_key="true_log_ratio")
    found = adata.obsm["comparison"].assign(scratio=adata.obs["da_log_ratio"], nothing=0.0)
    enriched = adata.obs["treatment_probability"] > 0.5
    rows = {
        PEERS.get(name, name): {
            "mean squared error": ((values - adata.obs["true_log_ratio"]) ** 2).mean(),
            "average precision": average_precision_score(enriched, values),
        }
        for name, values in found[["scratio", *others, "nothing"]].items()
    }
    print(f"\n{pd.DataFrame(rows).T.round(3).to_string()}")
    print(f"(average precision: do cells planted with p > 0.5, {enriched.mean():.0%} of all, come first?)\n")


def report_own(adata: ad.AnnData, question: dict) -> None:
    """Log ratio by cell type where there is one, by condition otherwise."""
    group = next(
        (key for key in ("cell_type", "celltype", "bulk_labels") if key in adata.obs), question["condition_key"]
    )
    ratio = adata.obs["da_log_ratio"]
    table = pd.DataFrame({"cells": ratio.groupby(adata.obs[group], observed=True).count()})
    table["mean"] = ratio.groupby(adata.obs[group], observed=True).mean()
    table["mean magnitude"] = ratio.abs().groupby(adata.obs[group], observed=True).mean()
    table["supported"] = adata.obs["da_support"].groupby(adata.obs[group], observed=True).mean()
    print(table.sort_values("mean magnitude", ascending=False).round(2).to_string())


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="an .h5ad file; the planted PBMCs by default")
    parser.add_argument("--condition-key")
    parser.add_argument("--treatment")
    parser.add_argument("--reference")
    parser.add_argument("--use-rep", default="X_pca")
    arguments = parser.parse_args()
    adata, question = own(arguments) if arguments.data else planted()

    start = time.perf_counter()
    scratio.tl.differential_abundance(adata, **question)
    print(f"scored {adata.n_obs} cells out of fold in {time.perf_counter() - start:.0f} s\n")
    if arguments.data:
        report_own(adata, question)
    else:
        report_planted(adata, question)

    if "X_umap" not in adata.obsm:
        # Exact neighbours: pynndescent 0.7, the default for many cells, does not fit scanpy 1.11.
        sc.pp.neighbors(adata, use_rep=question["use_rep"], transformer="sklearn")
        sc.tl.umap(adata)
    adata.write_h5ad(OUT / "da.h5ad")
    title = f"{question['treatment']} against {question['reference']}"
    scratio.pl.embedding(adata, title=title).figure.savefig(OUT / "da_umap.png", dpi=150)
    scratio.pl.history(adata).figure.savefig(OUT / "da_history.png", dpi=150)
    scratio.pl.calibration(adata).figure.savefig(OUT / "da_calibration.png", dpi=150)
    print(adata.uns["da"]["diagnostics"]["verdict"][0])
    plt.close("all")
    print(f"\nwritten to {OUT}: da.h5ad, da_umap.png, da_history.png, da_calibration.png")


if __name__ == "__main__":
    main()
