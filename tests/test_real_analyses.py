"""Every analysis on a part of the real cells it is made for; benchmarks/ runs them on all cells."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from anndata import AnnData

import scratio
from scratio.stats import is_supported, robust_coordinates, typicality

SMALL = {
    "n_folds": 2,
    "model_kwargs": {"n_hidden": 32, "n_members": 2},
    "train_kwargs": {"max_steps": 200, "batch_size": 256, "warmup_steps": 20, "progress_bar": False},
}
INTERFERON = {"ISG15", "IFI6", "ISG20", "LY6E", "IFIT1", "IFIT2", "IFIT3", "MX1", "IFITM3", "IRF7", "CXCL10"}


def part(adata: AnnData, rows: np.ndarray) -> AnnData:
    return adata[np.flatnonzero(rows)].copy()


@contextlib.contextmanager
def global_generators_seeded():
    """For other tools, which draw from global generators; they are restored."""
    states = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            for seed in (torch.manual_seed, np.random.seed, random.seed):
                seed(0)
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


# --- batch correction ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def synovium(real_data) -> AnnData:
    """Four batches of two cell types with permuted batches beside them."""
    adata = real_data("zhang2019_ra_synovium_harmony")
    is_type = adata.obs["celltype"].isin(["Fibroblast", "T cell"])
    batches = adata.obs["batch"][is_type].value_counts().index[:4]
    adata = part(adata, (is_type & adata.obs["batch"].isin(batches)).to_numpy())
    rng = np.random.default_rng(0)
    shuffled = adata.obs.groupby("celltype", observed=True)["batch"].transform(rng.permutation)
    adata.obs["permuted"] = shuffled.astype(str).to_numpy()
    for key in ("batch", "permuted"):
        scratio.tl.batch_effect(
            adata, batch_key=key, label_key="celltype", use_rep=["X_pca", "X_pca_harmony"], key_added=key + "_effect",
            **SMALL,
        )  # fmt: skip
    return adata


def medians(adata: AnnData, key: str, column: str) -> pd.Series:
    summary = adata.uns[key]["summary"]
    return summary[summary["by"] == "all"].set_index("embedding")[column]


def test_harmony_halves_the_batch_effect(synovium):
    found = medians(synovium, "batch_effect", "median_magnitude")
    assert found["X_pca_harmony"] <= 0.5 * found["X_pca"]
    assert medians(synovium, "batch_effect", "median")["X_pca"] > 0.5


def test_permuted_batches_have_no_effect(synovium):
    found = medians(synovium, "permuted_effect", "median")
    assert (found.abs() <= 0.05).all(), found


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_scvi_removes_a_batch_effect_from_counts(real_data):
    # Unstimulated cells in two random halves, in one of which a third of the genes lose three counts of ten. How much
    # scVI removes depends on its own seed and machine: a larger loss, or fewer epochs, leave a quarter to a half here.
    import scvi

    cells = real_data("kang2018_pbmc_ifnb_counts2k")
    cells = part(cells, (cells.obs["condition"] == "ctrl").to_numpy())
    rng = np.random.default_rng(0)
    counts = np.asarray(cells.layers["counts"].todense())
    counts = counts[:, np.argsort(-counts.mean(0))[:500]]
    is_second = rng.random(len(counts)) < 0.5
    efficiency = np.where(rng.random(500) < 1 / 3, 0.7, 1.0)
    counts = rng.binomial(counts.astype(int), np.where(is_second[:, None], efficiency, 1.0)).astype(np.float32)
    adata = AnnData(counts, obs=pd.DataFrame({"batch": np.where(is_second, "b2", "b1")}, index=cells.obs_names))
    logged = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e3, copy=True), copy=True)
    adata.obsm["X_pca"] = sc.pp.pca(logged.X, n_comps=10)
    with global_generators_seeded():
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
        model = scvi.model.SCVI(adata, n_latent=10)
        model.train(max_epochs=100, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"lr": 5e-3})
        adata.obsm["X_scVI"] = model.get_latent_representation()
    scratio.tl.batch_effect(adata, batch_key="batch", use_rep=["X_pca", "X_scVI"], **SMALL)
    found = medians(adata, "batch_effect", "median_magnitude")
    assert found["X_pca"] > 0.5, found
    assert found["X_scVI"] <= 0.5 * found["X_pca"], found


# --- combinations --------------------------------------------------------------------------------------------------


def test_effects_of_combinations_follow_the_classifier(real_data):
    adata = real_data("sachs2005_flow")
    inhibitors = ["ly", "aktinhib", "u0126"]
    rows = (adata.obs["stim"] == "cd3cd28") & adata.obs["inhibitor"].isin(["none", *inhibitors])
    adata = part(adata, rows.to_numpy())
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)[:2_400]].copy()
    scratio.tl.combination_effect(
        adata, condition_keys=["inhibitor", "icam2"], combination=[(name, "icam2") for name in inhibitors],
        reference=("none", "none"), use_rep="X_scaled", **SMALL,
    )  # fmt: skip
    table = adata.uns["combination"]["summary"]
    found = table.set_index(table["combination"].str.removesuffix("+icam2"))
    assert list(found["mean_magnitude"].sort_values().index) == inhibitors
    assert list(found["classifier_magnitude"].sort_values().index) == inhibitors


# --- donors --------------------------------------------------------------------------------------------------------


def test_every_patient_responds_and_swapped_labels_flip_the_sign(real_data):
    adata = real_data("zhao2021_gbm_panobinostat")
    patients = ["PW030", "PW034", "PW040"]
    adata = part(adata, adata.obs["patient_id"].isin(patients).to_numpy())
    labels = adata.obs["condition"].astype(str)
    swapped = (adata.obs["patient_id"] == "PW034").to_numpy()
    adata.obs["swapped"] = labels.where(~swapped, labels.map({"ctrl": "panobinostat", "panobinostat": "ctrl"}))
    adata.obsm["X_pca"] = adata.obsm["X_pca"][:, :10]
    ratios = {}
    for key in ("condition", "swapped"):
        scratio.tl.treatment_response(
            adata, treatment_key=key, donor_key="patient_id", reference="ctrl", key_added=key + "_response", **SMALL
        )
        table = adata.uns[f"{key}_response"]["table"]
        # Two divergences, of the treated cells from the others and, with the other sign, the reverse.
        assert (table["mean_treated"] > 1.0).all()
        assert (table["mean_reference"] < -1.0).all()
        ratios[key] = adata.obsm[f"{key}_response_log_ratio"]["panobinostat"].to_numpy()
    for patient in patients:
        cells = (adata.obs["patient_id"] == patient).to_numpy()
        correlation = np.corrcoef(ratios["condition"][cells], ratios["swapped"][cells])[0, 1]
        assert np.sign(correlation) == (-1.0 if patient == "PW034" else 1.0)
        assert abs(correlation) > 0.8


# --- genes ---------------------------------------------------------------------------------------------------------


def test_interferon_drives_the_stimulated_cells(real_data):
    cells = real_data("kang2018_pbmc_ifnb_counts2k")
    adata = AnnData(cells.layers["counts"].copy(), obs=cells.obs[["condition"]], var=cells.var[[]])
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=1_000)
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.pca(adata, n_comps=10)
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, n_folds=2, **SMALL["model_kwargs"])
    model.train(**{**SMALL["train_kwargs"], "max_steps": 100, "early_stopping": False})
    scratio.tl.driver_genes(adata, model, numerator={"condition": "stim"}, denominator={"condition": "ctrl"})
    first = adata.uns["drivers"]["table"].head(20)
    found = first[first["gene"].isin(INTERFERON)]
    assert len(found) >= 3, list(first["gene"])
    assert (found["mean"] > 0.0).all()


# --- support -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ["B cell", "Fibroblast", "Monocyte", "T cell"])
def test_a_cell_type_that_is_absent_from_both_conditions_is_not_supported(real_data, absent):
    adata = real_data("zhang2019_ra_synovium_harmony")
    x = np.asarray(adata.obsm["X_pca_harmony"], dtype=float)
    x = robust_coordinates(x, np.random.default_rng(0)).forward(x)
    is_absent = (adata.obs["celltype"] == absent).to_numpy()
    order = np.random.default_rng(1).permutation(np.flatnonzero(~is_absent))
    fresh, training = np.split(order, [len(order) // 10])
    is_first = (adata.obs["disease"] == adata.obs["disease"].iloc[0]).to_numpy()[training]
    judged = np.r_[np.flatnonzero(is_absent), fresh]
    found = np.minimum(*(typicality(x[judged], x[training][side]) for side in (is_first, ~is_first)))
    flagged = ~is_supported(found)
    assert flagged[: is_absent.sum()].mean() > 0.95
    assert flagged[is_absent.sum() :].mean() < 0.05
