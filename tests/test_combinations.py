"""Observed combinations of condition keys, and what the potential learns of many of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

import scratio
from scratio.conditions._combinations import levels_of, observed_combinations
from scratio.model import OWN, ScRatio
from scratio.module import Condition


def labels(codes, values=None) -> Condition:
    codes = torch.as_tensor(codes)
    values = torch.empty((len(codes), 0)) if values is None else torch.as_tensor(values, dtype=torch.float32)
    return Condition(codes, values)


def test_combinations_are_those_that_occur_with_their_shares():
    found = observed_combinations(labels([[1, 0], [0, 0], [1, 0], [1, 2]]))
    assert found.codes.tolist() == [[0, 0], [1, 0], [1, 2]]
    assert found.weights.tolist() == [0.25, 0.5, 0.25]
    assert found.values.shape == (3, 0)


def test_few_numbers_are_their_own_levels():
    found = observed_combinations(labels([[0], [0], [1], [1]], [[0.5], [0.1], [0.5], [0.5]]))
    assert found.codes.tolist() == [[0], [0], [1]]
    np.testing.assert_allclose(found.values.numpy().ravel(), [0.1, 0.5, 0.5])
    assert found.weights.tolist() == [0.25, 0.25, 0.5]


def test_many_numbers_are_cut_into_equal_groups():
    values = np.random.default_rng(0).permutation(np.arange(1_000.0) ** 2)
    levels = levels_of(values, 10)
    np.testing.assert_allclose(levels, [np.mean(np.arange(k, k + 125.0) ** 2) for k in range(0, 1_000, 125)])


def test_a_number_belongs_to_the_nearest_level():
    values = np.linspace(0.0, 1.0, 101, dtype=np.float32)[:, None]
    found = observed_combinations(labels(np.zeros((101, 1), dtype=int), values))
    nearest = np.abs(values - found.values.numpy().T).argmin(1)
    np.testing.assert_allclose(found.weights, np.bincount(nearest) / 101)
    assert len(found.weights) == 8


def test_two_continuous_keys_have_fewer_levels_each():
    values = np.random.default_rng(0).normal(size=(4_000, 2))
    found = observed_combinations(labels(np.zeros((4_000, 0), dtype=int), values))
    assert len(np.unique(found.values[:, 0])) == len(np.unique(found.values[:, 1])) == 8
    assert len(found.weights) == 64
    assert float(found.weights.sum()) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def grid() -> ScRatio:
    """Nine donors move cells along one axis, eight drugs along another; 72 combinations in 6,000 cells."""
    rng = np.random.default_rng(0)
    adata = scratio.datasets.gaussians(n_cells=6_000, n_dims=2, random_state=0)
    donor, drug = rng.integers(0, 9, 6_000), rng.integers(0, 8, 6_000)
    adata.obs["donor"], adata.obs["drug"] = donor.astype(str), drug.astype(str)
    adata.obsm["X_pca"] = np.stack([donor / 4.0, drug / 4.0], axis=1) + rng.normal(size=(6_000, 2))
    ScRatio.setup_anndata(adata, condition_keys=["donor", "drug"])
    model = ScRatio(adata, n_hidden=32, n_members=1)
    model.train(max_steps=400, batch_size=512, warmup_steps=20, validation_size=0.1, progress_bar=False)
    return model


def test_many_combinations_have_the_log_ratio_of_what_differs(grid):
    assert len(grid.module.combinations) == 72
    assert grid.module.basis is not None
    cells, (x, y) = grid.adata, grid.adata.obsm["X_pca"].T
    drug = grid.log_ratio(numerator={"donor": "3", "drug": "7"}, denominator={"donor": "3", "drug": "1"})
    truth = norm(7 / 4).logpdf(y) - norm(1 / 4).logpdf(y)
    assert np.mean((drug - truth) ** 2) < 0.05 * truth.var()
    own = grid.log_ratio(cells, numerator={"donor": OWN, "drug": "7"}, denominator={"donor": OWN, "drug": "1"})
    assert np.mean((own - truth) ** 2) < 0.05 * truth.var()
    marginal = grid.log_ratio(numerator={"donor": "0"}, denominator={})
    mixture = np.mean([norm(k / 4).pdf(x) for k in range(9)], axis=0)
    truth = norm(0.0).logpdf(x) - np.log(mixture)
    assert np.mean((marginal - truth) ** 2) < 0.05 * truth.var()


@pytest.mark.parametrize("method", ["ode", "quadrature", "ito"])
def test_the_flow_of_many_combinations_has_the_same_log_ratio(grid, method):
    cells = grid.adata[:100].copy()
    contrast = {"numerator": {"donor": "3", "drug": "6"}, "denominator": {"drug": "1"}}
    head = grid.log_ratio(cells, **contrast)
    assert np.mean((grid.log_ratio(cells, method=method, **contrast) - head) ** 2) < 0.1 * head.var()


def test_twelve_donors_and_ninety_one_treatments_train():
    # Seven cells of each combination: what a treatment does can be learned from all donors together alone.
    rng = np.random.default_rng(0)
    adata = scratio.datasets.gaussians(n_cells=8_000, n_dims=2, random_state=0)
    donor, drug = rng.integers(0, 12, 8_000), rng.integers(0, 91, 8_000)
    adata.obs["donor"], adata.obs["drug"] = donor.astype(str), drug.astype(str)
    adata.obsm["X_pca"] = np.stack([donor / 6.0, drug / 45.0], axis=1) + rng.normal(size=(8_000, 2))
    ScRatio.setup_anndata(adata, condition_keys=["donor", "drug"])
    model = ScRatio(adata, n_hidden=16, n_members=1)
    model.train(
        max_steps=200, batch_size=512, warmup_steps=20, weight_decay=0.1, early_stopping=False, progress_bar=False
    )
    assert len(model.module.combinations) > 1_000
    y = adata.obsm["X_pca"][:, 1]
    truth = norm(80 / 45).logpdf(y) - norm(10 / 45).logpdf(y)
    ratio = model.log_ratio(numerator={"drug": "80"}, denominator={"drug": "10"})
    assert np.mean((ratio - truth) ** 2) < 0.2 * truth.var()
