"""Response of every donor to a treatment (a question of arXiv 2602.24201).

    SCRATIO_DATA=folder python benchmarks/donors.py      # writes benchmarks/results/donors.csv and .png
    python benchmarks/donors.py --quick                  # a minute, on made-up cells

Glioblastoma slices of five patients with and without panobinostat (Zhao et al. 2021). Swapping the labels of two
patients has to turn the sign of their cells and leave the others'; a classifier of each patient's cells and the
divergence of two Gaussians say how far apart the conditions are. The paper's data (ten million PBMCs) are others, so
that its figures do not compare.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _analysis import frame, run
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scratio

RESULTS = Path(__file__).parent / "results"


def analyse(adata: ad.AnnData, train_kwargs: dict[str, Any]) -> tuple[pd.DataFrame, Figure]:
    """Response of each patient, and the same with the labels of two patients swapped."""
    call = {"donor_key": "patient_id", "reference": "ctrl", "train_kwargs": train_kwargs}
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
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for key, ax in zip(("response", "swapped_response"), axes, strict=True):
        scratio.pl.treatment_response(adata, key=key, ax=ax)
        ax.set_title(key.replace("_", " "))
    return pd.DataFrame(rows), figure


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


def simulate(rng: np.random.Generator) -> ad.AnnData:
    """Two patients, of whom the second responds less."""
    patient, treated = rng.integers(2, size=(2, 400))
    x = rng.normal(size=(400, 3)) + (2.0 - patient[:, None]) * treated[:, None]
    obs = {"patient_id": np.array(["P1", "P2"])[patient], "condition": np.array(["ctrl", "panobinostat"])[treated]}
    return frame(x, obs)


def main() -> None:
    """Measure, write, draw."""
    run(__doc__, RESULTS / "donors", "zhao2021_gbm_panobinostat.h5ad", analyse, simulate)


if __name__ == "__main__":
    main()
