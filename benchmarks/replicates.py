"""Responders to immunotherapy against others, with patients as replicates (Sade-Feldman et al. 2018).

    SCRATIO_DATA=folder python benchmarks/replicates.py      # writes benchmarks/results/replicates.csv, .png
    python benchmarks/replicates.py --quick                  # a minute, on made-up cells

How much is found, how the log ratios hold on patients that the networks did not see, and how much is found with labels
permuted across patients.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _analysis import frame, run
from matplotlib.figure import Figure

import scratio
from scratio.stats import SampleDesign, compare_samples, neighbor_counts, robust_coordinates
from scratio.tl._samples import samples_of

RESULTS = Path(__file__).parent / "results"
N_PERMUTATIONS, FDR = 200, 0.1


def analyse(adata: ad.AnnData, train_kwargs: dict[str, Any]) -> tuple[pd.DataFrame, Figure]:
    """Responders and non-responders with patients as replicates, and with labels permuted across patients."""
    adata.obs["response"] = adata.obs["condition"].map({"R": "responder", "NR": "non-responder"}).astype(str)
    question = {"condition_key": "response", "treatment": "responder", "reference": "non-responder"}
    scratio.tl.differential_abundance(adata, **question, sample_key="patient", train_kwargs=train_kwargs)
    result = adata.uns["da"]
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
    scratio.pl.calibration(adata, ax=axes[0])
    scratio.pl.embedding(adata, basis="X_tsne", ax=axes[1])
    obs, x = adata.obs, adata.obsm["X_pca"]
    x = robust_coordinates(x, np.random.default_rng(0)).forward(x)
    with warnings.catch_warnings():
        # Said once, by the analysis.
        warnings.simplefilter("ignore", UserWarning)
        samples = samples_of(obs, "patient", "response", "responder", "non-responder", [])
    neighborhood = np.unique(obs["da_neighborhood"].astype(str), return_inverse=True)[1]
    codes, cells = samples.codes(obs, (obs["response"] == "responder").to_numpy()), np.bincount(neighborhood)
    counts, design = neighbor_counts(x, neighborhood, codes), samples.design
    found, pvalues = [], []
    for seed in range(N_PERMUTATIONS + 1):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(design.tested) if seed else design.tested
        permuted = SampleDesign(labels, design.nuisance, design.sizes)
        test = compare_samples(counts, permuted, rng, weights=cells, n_rotations=2_000)
        found.append(int(cells[test.qvalue < FDR].sum()))
        pvalues.append(test.global_pvalue)
    axes[2].hist(found[1:], bins=20, color="#999999", label="labels permuted across patients")
    axes[2].axvline(found[0], color="#d55e00", label="as they are")
    axes[2].set(xlabel=f"cells with q < {FDR}", ylabel="permutations")
    axes[2].legend(frameon=False)
    table = result["diagnostics"].assign(
        n_samples_treatment=int(design.tested.sum()),
        n_samples_reference=int((1.0 - design.tested).sum()),
        cells_found=int((adata.obs["da_qvalue"] < FDR).sum()),
        neighborhoods_carried_by_one=int((result["neighborhoods"]["carried_by"] != "").sum()),
        smallest_familywise_pvalue=result["neighborhoods"]["familywise_pvalue"].min(),
        permutations_with_cells_found=np.mean(np.array(found[1:]) > 0),
        permutations_with_as_many=np.mean(np.array(found[1:]) >= found[0]),
        permutations_with_as_small_a_global_pvalue=np.mean(np.array(pvalues[1:]) <= pvalues[0]),
    )
    return table, figure


def simulate(rng: np.random.Generator) -> ad.AnnData:
    """Five patients against five, of whom responders have more cells of the second type."""
    patient = np.repeat(np.arange(10), 60)
    kind = rng.uniform(size=600) < np.where(patient < 5, 0.7, 0.3)
    x = rng.normal(size=(600, 3)) + 3.0 * kind[:, None]
    obs = {"patient": [f"P{i}" for i in patient], "condition": np.where(patient < 5, "R", "NR")}
    return frame(x, obs, X_tsne=x[:, :2])


def main() -> None:
    """Measure, write, draw."""
    run(__doc__, RESULTS / "replicates", "sadefeldman2018_melanoma_icb.h5ad", analyse, simulate)


if __name__ == "__main__":
    main()
