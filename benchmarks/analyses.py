"""Every analysis on real cells by its defaults, with figures: what the tables of the paper look like here.

    SCRATIO_DATA=folder python benchmarks/analyses.py              # all
    SCRATIO_DATA=folder python benchmarks/analyses.py sachs        # one

Each writes benchmarks/results/<name>*.csv and <name>*.png. The data sets are named in FILES; an analysis whose file is
absent says so and is left out.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scratio
from scratio.stats import compare_samples, local_scale, log_abundance, weighted_fdr

RESULTS = Path(__file__).parent / "results"
FILES = {
    "synovium": "zhang2019_ra_synovium_harmony.h5ad",
    "sachs": "sachs2005_flow.h5ad",
    "glioblastoma": "zhao2021_gbm_panobinostat.h5ad",
    "interferon": "kang2018_pbmc_ifnb_counts2k.h5ad",
    "melanoma": "sadefeldman2018_melanoma_icb.h5ad",
}
N_PERMUTATIONS, FDR = 200, 0.1
INTERFERON = ("ISG15", "IFI6", "ISG20", "LY6E", "IFIT1", "IFIT2", "IFIT3", "MX1", "IFITM3", "IRF7", "CXCL10", "TNFSF10")


def synovium(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """Batch effect before and after Harmony, with the batches as they are and permuted within cell types."""
    rng = np.random.default_rng(0)
    permuted = adata.obs.groupby("celltype", observed=True)["batch"].transform(rng.permutation)
    adata.obs["permuted batch"] = permuted.astype(str).to_numpy()
    tables, figure, axes = [], *plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for batch, ax in zip(("batch", "permuted batch"), axes, strict=True):
        key = batch.replace(" ", "_") + "_effect"
        scratio.tl.batch_effect(
            adata, batch_key=batch, label_key="celltype", use_rep=["X_pca", "X_pca_harmony"], key_added=key
        )
        tables.append(adata.uns[key]["summary"].assign(batch=batch))
        scratio.pl.batch_effect(adata, key=key, groupby="celltype", ax=ax)
        ax.set_title(batch)
    figure.savefig(RESULTS / "synovium.png", dpi=150)
    return {"synovium": pd.concat(tables, ignore_index=True)}


def sachs(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """ICAM2 with each of five inhibitors, on cells with the stimulus cd3cd28; either of the two held fixed."""
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
        )
        table = adata.uns[fixed]["summary"]
        rho = spearmanr(table["mean_magnitude"], table["classifier_magnitude"]).statistic
        tables.append(table.assign(fixed=fixed, spearman=rho))
        scratio.pl.combination_effect(adata, key=fixed, ax=ax)
        ax.set_title(f"{fixed} held fixed")
    figure.savefig(RESULTS / "sachs.png", dpi=150)
    return {"sachs": pd.concat(tables, ignore_index=True)}


def glioblastoma(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """Response of each patient, and the same with the labels of two patients swapped."""
    call = {"donor_key": "patient_id", "reference": "ctrl", "n_folds": 5}
    scratio.tl.treatment_response(adata, treatment_key="condition", **call)
    swapped = sorted(adata.obs["patient_id"].unique())[1::2]
    other = {"ctrl": "panobinostat", "panobinostat": "ctrl"}
    labels = adata.obs["condition"].astype(str)
    adata.obs["swapped"] = labels.where(~adata.obs["patient_id"].isin(swapped), labels.map(other))
    scratio.tl.treatment_response(adata, treatment_key="swapped", key_added="swapped_response", **call)
    tables = [adata.uns[key]["table"].set_index("donor") for key in ("response", "swapped_response")]
    rows = []
    for donor, row in tables[0].iterrows():
        cells = (adata.obs["patient_id"] == donor).to_numpy()
        ratios = adata.obsm["response_log_ratio"].iloc[:, 0].to_numpy()
        again = adata.obsm["swapped_response_log_ratio"].iloc[:, 0].to_numpy()
        treated = (labels == "panobinostat").to_numpy()
        x = adata.obsm["X_pca"][cells]
        odds = held_out_odds(x, treated[cells])
        rows.append(
            {
                **row,
                "donor": donor,
                "swapped": donor in swapped,
                "mean_treated_after_swap": tables[1].loc[donor, "mean_treated"],
                "correlation_with_swapped": np.corrcoef(ratios[cells], again[cells])[0, 1],
                "classifier_mean_treated": odds[treated[cells]].mean(),
                "classifier_mean_reference": odds[~treated[cells]].mean(),
                "gaussian_divergence": gaussian_divergence(x, treated[cells]),
            }
        )
    table = pd.DataFrame(rows)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for key, ax in zip(("response", "swapped_response"), axes, strict=True):
        scratio.pl.treatment_response(adata, key=key, ax=ax)
        ax.set_title(key.replace("_", " "))
    figure.savefig(RESULTS / "glioblastoma.png", dpi=150)
    return {"glioblastoma": table}


def gaussian_divergence(x: np.ndarray, is_treated: np.ndarray) -> float:
    """Divergence of two Gaussians with one covariance, in either direction, without the bias of few cells."""
    treated, control = x[is_treated], x[~is_treated]
    n, d = len(x), x.shape[1]
    pooled = (np.cov(treated.T) * (len(treated) - 1) + np.cov(control.T) * (len(control) - 1)) / (n - 2)
    difference = treated.mean(0) - control.mean(0)
    distance = difference @ np.linalg.solve(pooled, difference) * (n - d - 3) / (n - 2)
    return float(0.5 * (distance - d * n / (len(treated) * len(control))))


def held_out_odds(x: np.ndarray, is_treated: np.ndarray) -> np.ndarray:
    """Out-of-fold log odds of a logistic regression, classes being of equal size."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    return cross_val_predict(classifier, x, is_treated, cv=5, method="decision_function")


def interferon(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """Genes along which the log ratio of stimulated cells grows, from counts."""
    adata = ad.AnnData(adata.layers["counts"].copy(), obs=adata.obs[["condition"]].copy(), var=adata.var[[]].copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2_000)
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.pca(adata, n_comps=20)
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, n_folds=5)
    model.train()
    scratio.tl.driver_genes(
        adata, model, numerator={"condition": "stim"}, denominator={"condition": "ctrl"}, key_added="drivers"
    )
    table = adata.uns["drivers"]["table"].head(50).reset_index(drop=True)
    ranks = {gene: int(table.index[table["gene"] == gene][0]) + 1 for gene in INTERFERON if gene in set(table["gene"])}
    print(f"interferon-stimulated genes among the first 50 of {adata.n_vars}, with ranks: {ranks}")
    scratio.pl.driver_genes(adata).figure.savefig(RESULTS / "interferon.png", dpi=150)
    return {"interferon": table}


def melanoma(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """Responders and non-responders with patients as replicates, and with labels permuted across patients."""
    adata.obs["response"] = adata.obs["condition"].map({"R": "responder", "NR": "non-responder"}).astype(str)
    question = {"condition_key": "response", "treatment": "responder", "reference": "non-responder"}
    scratio.tl.differential_abundance(adata, **question, sample_key="patient")
    result = adata.uns["da"]
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
    scratio.pl.calibration(adata, ax=axes[0])
    scratio.pl.embedding(adata, basis="X_tsne", ax=axes[1])
    smallest, found = [], []
    patients = result["samples"]
    is_treatment = (patients["group"] == "treatment").to_numpy()
    used = adata[adata.obs["patient"].astype(str).isin(patients["sample"])].copy()
    sample, place = used.obs["patient"].astype(str), used.obs["da_neighborhood"].astype(str)
    names, neighborhood = np.unique(place, return_inverse=True)
    codes = pd.Categorical(sample, categories=list(patients["sample"])).codes.astype(int)
    x = used.obsm["X_pca"] / local_scale(used.obsm["X_pca"], np.random.default_rng(0))
    values, cells = log_abundance(x, neighborhood, codes), np.bincount(neighborhood)
    for seed in range(N_PERMUTATIONS + 1):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(is_treatment) if seed else is_treatment
        test = compare_samples(values, labels, rng, weights=cells, max_arrangements=2_000)
        smallest.append(test.familywise_pvalue.min())
        found.append(int(cells[weighted_fdr(test.pooled_pvalue, cells) < FDR].sum()))
    axes[2].hist(found[1:], bins=20, color="#999999", label="labels permuted across patients")
    axes[2].axvline(found[0], color="#d55e00", label="as they are")
    axes[2].set(xlabel=f"cells with q < {FDR}", ylabel="permutations")
    axes[2].legend(frameon=False)
    figure.savefig(RESULTS / "melanoma.png", dpi=150)
    table = result["diagnostics"].assign(
        n_samples_treatment=int(is_treatment.sum()),
        n_samples_reference=int((~is_treatment).sum()),
        cells_found=int((adata.obs["da_qvalue"] < FDR).sum()),
        cells_found_here=found[0],
        smallest_familywise_pvalue=result["neighborhoods"]["familywise_pvalue"].min(),
        permutations_with_cells_found=np.mean(np.array(found[1:]) > 0),
        permutations_with_as_many=np.mean(np.array(found[1:]) >= found[0]),
        permutations_with_as_small_a_pvalue=np.mean(np.array(smallest[1:]) <= smallest[0]),
    )
    return {"melanoma": table}


ANALYSES = {
    "synovium": synovium,
    "sachs": sachs,
    "glioblastoma": glioblastoma,
    "interferon": interferon,
    "melanoma": melanoma,
}


def main() -> None:
    """Run the analyses that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one or more of {', '.join(ANALYSES)}")
    names = parser.parse_args().names or list(ANALYSES)
    if unknown := set(names) - set(ANALYSES):
        parser.error(f"no such analysis: {', '.join(sorted(unknown))}; there are {', '.join(ANALYSES)}")
    folder = Path(os.environ.get("SCRATIO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        if not (folder / FILES[name]).exists():
            print(f"{name}: {folder / FILES[name]} not found; set SCRATIO_DATA to the folder that holds it")
            continue
        start = time.perf_counter()
        for stem, table in ANALYSES[name](ad.read_h5ad(folder / FILES[name])).items():
            table.to_csv(RESULTS / f"{stem}.csv", index=False, float_format="%.5g")
            print(table.round(3).to_string(index=False))
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
