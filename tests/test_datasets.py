"""Data with a known answer: that the answer is right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal

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
