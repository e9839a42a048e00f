"""Data with a known answer: that the answer is right."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, multivariate_normal, norm

import scratio


@pytest.mark.parametrize("distance", [1.0, 0.5, -2.0])
def test_log_ratio_of_gaussians_is_that_of_their_densities(distance):
    adata = scratio.datasets.gaussians(n_cells=50, n_dims=4, distance=distance)
    x = adata.obsm["X_pca"].astype(float)
    treated, control = (multivariate_normal(np.full(4, mean), np.eye(4)) for mean in (distance, 0.0))
    np.testing.assert_allclose(adata.obs["true_log_ratio"], treated.logpdf(x) - control.logpdf(x), rtol=0, atol=1e-5)


def test_cells_of_gaussians_have_the_stated_distributions():
    adata = scratio.datasets.gaussians(n_cells=4_000, n_dims=3, distance=1.5, random_state=1)
    for name, mean in (("treated", 1.5), ("control", 0.0)):
        x = adata.obsm["X_pca"][adata.obs["condition"] == name]
        assert abs(len(x) - 2_000) < 4 * np.sqrt(1_000)
        assert min(kstest(column - mean, "norm").pvalue for column in x.T) > 1e-4
        assert np.abs(np.corrcoef(x.T) - np.eye(3)).max() < 4.5 / np.sqrt(len(x))


def test_gaussians_depend_on_the_seed_alone():
    first, again, other = (scratio.datasets.gaussians(n_cells=20, random_state=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.obsm["X_pca"], again.obsm["X_pca"])
    assert list(first.obs["condition"]) == list(again.obs["condition"])
    assert not np.array_equal(first.obsm["X_pca"], other.obsm["X_pca"])


# --- correlated Gaussians ------------------------------------------------------------------------------------------


def pairs_covariance(n_dims: int, rho: float) -> np.ndarray:
    """Unit variances; dimensions 0 and 1, 2 and 3, ... are correlated."""
    return np.kron(np.eye(n_dims // 2), [[1.0, rho], [rho, 1.0]])


@pytest.mark.parametrize("rho", [0.8, -0.5, 0.0, 0.99])
def test_log_ratio_of_correlated_gaussians_is_that_of_their_densities(rho):
    adata = scratio.datasets.correlated_gaussians(n_cells=200, n_dims=6, rho=rho)
    x = adata.obsm["X_pca"].astype(float)
    joint = multivariate_normal(np.zeros(6), pairs_covariance(6, rho)).logpdf(x)
    product = norm.logpdf(x).sum(1)
    np.testing.assert_allclose(adata.obs["true_log_ratio"], joint - product, rtol=1e-9, atol=1e-9)


def test_cells_of_correlated_gaussians_have_the_stated_distributions():
    adata = scratio.datasets.correlated_gaussians(n_cells=6_000, n_dims=4, rho=-0.6, random_state=1)
    for name, rho in (("treated", -0.6), ("control", 0.0)):
        x = adata.obsm["X_pca"][adata.obs["condition"] == name]
        assert abs(len(x) - 3_000) < 4 * np.sqrt(1_500)
        assert min(kstest(column, "norm").pvalue for column in x.T) > 1e-4
        assert np.abs(np.corrcoef(x.T) - pairs_covariance(4, rho)).max() < 4.5 / np.sqrt(len(x))


def test_mean_log_ratio_of_correlated_cells_is_the_mutual_information():
    adata = scratio.datasets.correlated_gaussians(n_cells=20_000, n_dims=20, rho=0.8)
    treated = adata.obs.loc[adata.obs["condition"] == "treated", "true_log_ratio"]
    assert abs(treated.mean() + 5 * np.log(1 - 0.8**2)) < 4 * treated.std() / np.sqrt(len(treated))


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [({"n_dims": 3}, "n_dims"), ({"n_dims": 0}, "n_dims"), ({"rho": 1.0}, "rho"), ({"rho": -1.2}, "rho")],
)
def test_impossible_correlations_are_refused(kwargs, named):
    with pytest.raises(ValueError, match=named):
        scratio.datasets.correlated_gaussians(**kwargs)


# --- mixtures ------------------------------------------------------------------------------------------------------


WEIGHTS = {"weights_treated": (0.2, 0.5, 0.3, 0.0), "weights_control": (0.1, 0.0, 0.3, 0.6)}
"""Two types that one condition lacks, and one of the same share in both."""


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_log_ratio_of_a_mixture_is_that_of_its_densities(shift):
    adata = scratio.datasets.mixture(n_cells=300, n_dims=3, shift=shift, **WEIGHTS)
    x, parts = adata.obsm["X_pca"].astype(float), adata.uns["mixture"]
    log_p = {}
    for condition in ("treated", "control"):
        types = zip(WEIGHTS[f"weights_{condition}"], parts["means"][condition], parts["scales"], strict=True)
        densities = [weight * multivariate_normal(mean, np.diag(scale**2)).pdf(x) for weight, mean, scale in types]
        log_p[condition] = np.log(np.sum(densities, axis=0))
    assert np.ptp(adata.obs["true_log_ratio"]) > 1.0
    np.testing.assert_allclose(adata.obs["true_log_ratio"], log_p["treated"] - log_p["control"], rtol=1e-7, atol=1e-7)


def test_cells_of_a_mixture_have_the_stated_distributions():
    adata = scratio.datasets.mixture(n_cells=8_000, n_dims=3, shift=0.7, random_state=1, **WEIGHTS)
    parts = adata.uns["mixture"]
    for condition in ("treated", "control"):
        own = adata[adata.obs["condition"] == condition]
        assert abs(own.n_obs - 4_000) < 4 * np.sqrt(2_000)
        for kind, share in enumerate(WEIGHTS[f"weights_{condition}"]):
            x = own.obsm["X_pca"][own.obs["cell_type"] == f"type{kind}"]
            assert abs(len(x) / own.n_obs - share) <= 4 * np.sqrt(share * (1 - share) / own.n_obs)
            z = (x - parts["means"][condition][kind]) / parts["scales"][kind]
            assert all(kstest(column, "norm").pvalue > 1e-4 for column in z.T if share)
            assert share == 0 or np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 4.5 / np.sqrt(len(z))


def test_shapes_of_a_mixture_spread_and_shift_as_asked():
    # 200 types in 50 dimensions: the standard error of a standard deviation of 10,000 numbers is .7%.
    equal = np.full(200, 1 / 200)
    adata = scratio.datasets.mixture(
        n_cells=1, n_dims=50, weights_treated=equal, weights_control=equal, spread=2.0, shift=0.5
    )
    means = adata.uns["mixture"]["means"]
    assert abs(means["control"].std() / 2.0 - 1) < 0.03
    assert abs((means["treated"] - means["control"]).std() / 0.5 - 1) < 0.03
    assert abs(np.log(adata.uns["mixture"]["scales"]).std() / 0.3 - 1) < 0.03


def test_nothing_differs_between_equal_mixtures():
    same = {"weights_treated": (0.3, 0.7), "weights_control": (0.3, 0.7)}
    np.testing.assert_array_equal(scratio.datasets.mixture(shift=0.0, **same).obs["true_log_ratio"], 0.0)
    assert np.abs(scratio.datasets.mixture(shift=0.5, **same).obs["true_log_ratio"]).min() > 0.0


def test_the_cells_of_a_mixture_have_a_seed_and_its_types_another():
    first, fresh, other = (
        scratio.datasets.mixture(n_cells=50, shape_state=shape, random_state=seed)
        for shape, seed in ((5, 0), (5, 1), (6, 0))
    )
    for part in ("treated", "control"):
        np.testing.assert_array_equal(first.uns["mixture"]["means"][part], fresh.uns["mixture"]["means"][part])
        assert not np.array_equal(first.uns["mixture"]["means"][part], other.uns["mixture"]["means"][part])
    assert not np.array_equal(first.obsm["X_pca"], fresh.obsm["X_pca"])
    assert list(first.obs["cell_type"]) != list(fresh.obs["cell_type"])
    assert list(first.obs["cell_type"]) == list(other.obs["cell_type"])


@pytest.mark.parametrize("make", [scratio.datasets.correlated_gaussians, scratio.datasets.mixture])
def test_cells_depend_on_the_seed_alone(make):
    seeds = (3, 3, np.random.default_rng(3), 4)
    first, again, generator, other = (make(n_cells=20, random_state=seed) for seed in seeds)
    for same in (again, generator):
        np.testing.assert_array_equal(first.obsm["X_pca"], same.obsm["X_pca"])
        pd.testing.assert_frame_equal(first.obs, same.obs)
    assert not np.array_equal(first.obsm["X_pca"], other.obsm["X_pca"])


def test_a_mixture_survives_being_written(tmp_path):
    adata = scratio.datasets.mixture(n_cells=30)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(read.obs, adata.obs)
    for key in ("means", "weights"):
        for condition, values in adata.uns["mixture"][key].items():
            np.testing.assert_array_equal(read.uns["mixture"][key][condition], values)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"weights_treated": (0.5, 0.6)}, "weights_treated"),
        ({"weights_control": (1.5, -0.5)}, "weights_control"),
        ({"weights_control": ()}, "weights_control"),
        ({"weights_control": ((0.5, 0.5),)}, "weights_control"),
        ({"weights_treated": (0.5, 0.5), "weights_control": (0.2, 0.3, 0.5)}, "'weights_control': 3"),
    ],
)
def test_weights_that_are_no_shares_are_refused(kwargs, named):
    with pytest.raises(ValueError, match=named):
        scratio.datasets.mixture(**kwargs)


# --- planted labels ------------------------------------------------------------------------------------------------


LEVELS = (0.2, 0.5, 0.9)


@pytest.fixture
def planted():
    """20,000 cells in three groups of unequal size, labelled at known probabilities."""
    adata = scratio.datasets.gaussians(n_cells=20_000, n_dims=1)
    adata.obs["group"] = np.random.default_rng(5).choice(["x", "y", "z"], size=20_000, p=[0.5, 0.3, 0.2])
    del adata.obs["true_log_ratio"]
    scratio.datasets.plant_labels(adata, groupby="group", levels=LEVELS, random_state=1)
    return adata


def test_each_group_has_one_of_the_levels(planted):
    levels = planted.obs.groupby("group")["treatment_probability"].unique()
    assert sorted(float(level[0]) for level in levels) == list(LEVELS)
    assert all(len(level) == 1 for level in levels)


def test_planted_labels_have_their_groups_frequency(planted):
    for _, cells in planted.obs.groupby("group"):
        p, n = cells["treatment_probability"].iloc[0], len(cells)
        assert abs((cells["treatment"] == "treated").mean() - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_planted_log_ratio_is_that_of_the_cells_frequencies(planted):
    # log p(group | treated) - log p(group | control), counted; the standard error is the delta method's.
    treated = planted.obs["treatment"] == "treated"
    for _, rows in planted.obs.groupby("group").groups.items():
        of_group = treated[rows]
        counts = np.array([of_group.sum(), (~of_group).sum(), treated.sum(), (~treated).sum()])
        counted = np.log(counts[0] / counts[2]) - np.log(counts[1] / counts[3])
        truth = planted.obs.loc[rows, "true_log_ratio"]
        assert truth.nunique() == 1
        assert abs(counted - truth.iloc[0]) < 4 * np.sqrt((1 / counts).sum())


def test_planted_log_ratio_is_the_formula():
    adata = scratio.datasets.gaussians(n_cells=4, n_dims=1)
    adata.obs["group"] = ["a", "a", "a", "b"]
    del adata.obs["true_log_ratio"]
    scratio.datasets.plant_labels(adata, groupby="group", levels=(0.25, 0.75), key_added="drug")
    p = adata.obs["drug_probability"].to_numpy()
    mean = (3 * p[0] + p[3]) / 4  # the levels come in random order
    expected = np.log(p / (1 - p)) - np.log(mean / (1 - mean))
    assert sorted(set(p)) == [0.25, 0.75]
    np.testing.assert_allclose(adata.obs["true_log_ratio"], expected, rtol=1e-12)


def test_planted_labels_depend_on_the_seed_alone():
    columns = []
    for seed in (0, 0, 1):
        adata = scratio.datasets.pbmc68k_planted(random_state=seed)
        columns.append(adata.obs["treatment"].astype(str).to_numpy())
    np.testing.assert_array_equal(columns[0], columns[1])
    assert not np.array_equal(columns[0], columns[2])


def test_planting_adds_three_columns_and_nothing_else(gaussian_cells):
    del gaussian_cells.obs["true_log_ratio"]
    before = gaussian_cells.copy()
    scratio.datasets.plant_labels(gaussian_cells, groupby="condition", key_added="drug")
    assert list(gaussian_cells.obs) == ["condition", "drug", "drug_probability", "true_log_ratio"]
    np.testing.assert_array_equal(gaussian_cells.obsm["X_pca"], before.obsm["X_pca"])
    assert list(gaussian_cells.obs["condition"]) == list(before.obs["condition"])


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"groupby": "cluster"}, KeyError, "cluster"),
        ({"levels": (0.5, 1.0)}, ValueError, "levels"),
        ({"levels": (0.0, 0.5)}, ValueError, "levels"),
        ({"key_added": "condition"}, ValueError, "condition"),
    ],
)
def test_bad_planting_is_refused_and_changes_nothing(gaussian_cells, unchanged, kwargs, error, named):
    del gaussian_cells.obs["true_log_ratio"]
    with unchanged(gaussian_cells), pytest.raises(error, match=named):
        scratio.datasets.plant_labels(gaussian_cells, **{"groupby": "condition", **kwargs})


def test_pbmcs_are_the_ones_shipped_with_scanpy():
    adata = scratio.datasets.pbmc68k_planted()
    assert adata.obsm["X_pca"].shape == (700, 50)
    # Known counts of the shipped file.
    assert adata.obs["bulk_labels"].value_counts().loc["Dendritic"] == 240
    assert adata.obs.groupby("bulk_labels", observed=True)["true_log_ratio"].nunique().eq(1).all()
