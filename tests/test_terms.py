"""Weights for each key: projections, and that a key without an effect is silenced beside one with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import scratio
from scratio import OWN
from scratio.model import ScRatio
from scratio.module._terms import term_projections

GRID = torch.tensor([[a, b] for a in range(3) for b in range(4)])


def test_terms_of_a_full_design_are_its_analysis_of_variance():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(12,)).astype(np.float32))
    first, second, interaction = term_projections(GRID) @ values
    table = values.reshape(3, 4)
    torch.testing.assert_close(first.reshape(3, 4), (table.mean(1, keepdim=True) - table.mean()).expand(3, 4))
    torch.testing.assert_close(second.reshape(3, 4), (table.mean(0, keepdim=True) - table.mean()).expand(3, 4))
    torch.testing.assert_close(first + second + interaction, values - values.mean(), atol=1e-5, rtol=0)


def test_terms_of_an_incomplete_design_sum_to_all_but_a_constant():
    combinations = GRID[[0, 1, 4, 6, 7, 9, 11]]
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(7,)).astype(np.float32))
    rest = values - (term_projections(combinations) @ values).sum(0)
    torch.testing.assert_close(rest, rest.mean().expand(7), atol=1e-5, rtol=0)


def test_there_are_no_terms_where_one_key_says_all():
    assert len(term_projections(torch.arange(5)[:, None])) == 0
    nested = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3]])
    assert len(term_projections(nested)) == 0


@pytest.fixture(scope="module")
def beside() -> ScRatio:
    """Two types 4 apart, and batches that are drawn at random."""
    rng = np.random.default_rng(0)
    n = 3_000
    labels = {"type": rng.choice(["a", "b"], size=n), "batch": rng.choice(["x", "y", "z"], size=n)}
    obs = pd.DataFrame(labels, index=[f"cell{i}" for i in range(n)])
    x = rng.normal(size=(n, 5))
    x[:, 0] += 4.0 * (obs["type"] == "b")
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    ScRatio.setup_anndata(adata, condition_keys=["type", "batch"])
    model = ScRatio(adata, n_hidden=64, n_members=2, n_folds=3)
    model.train(max_steps=300, batch_size=256, warmup_steps=20, progress_bar=False)
    return model


def test_a_key_without_an_effect_is_silenced_beside_one_with(beside):
    assert np.shape(beside.training_["calibration"]["weights"]["network"]) == (3, 3)
    within = {"type": OWN, "batch": OWN}, {"type": OWN}
    found = beside.log_ratio(numerator=within[0], denominator=within[1])
    assert np.sqrt(np.mean(found**2)) < 0.05
    types = beside.log_ratio(numerator={"type": "b"}, denominator={"type": "a"})
    truth = 4.0 * beside.adata.obsm["X_pca"][:, 0] - 8.0
    assert np.mean((types - truth) ** 2) < 0.1 * np.var(truth)


def test_estimators_agree_on_weighted_terms(beside):
    cells = beside.adata[:100]
    contrast = {"numerator": {"type": "b", "batch": "x"}, "denominator": {"type": "a"}}
    head, other = (beside.log_ratio(cells, **contrast, method=method) for method in ("head", "ode"))
    assert np.corrcoef(head, other)[0, 1] > 0.95


def test_log_ratios_stay_transitive_and_marginals_exact(beside):
    a, b, c = {"type": "a"}, {"type": "b", "batch": "x"}, {"batch": "y"}

    def ratio(first: dict, second: dict) -> np.ndarray:
        return beside.log_ratio(numerator=first, denominator=second)

    np.testing.assert_allclose(ratio(a, b) + ratio(b, c), ratio(a, c), atol=1e-5)


def test_the_weights_survive_saving(beside, tmp_path):
    beside.save(tmp_path / "model")
    again = ScRatio.load(tmp_path / "model", adata=beside.adata)
    contrast = {"numerator": {"type": OWN, "batch": OWN}, "denominator": {}}
    np.testing.assert_array_equal(again.log_ratio(**contrast), beside.log_ratio(**contrast))


def test_the_training_of_crossed_keys_can_be_written(tmp_path):
    adata = scratio.datasets.gaussians(n_cells=300, n_dims=2, random_state=0)
    adata.obs["batch"] = np.where(np.arange(300) % 2, "b1", "b2")
    scratio.tl.differential_abundance(
        adata, condition_key="condition", treatment="treated", reference="control", covariate_keys=["batch"], n_folds=2,
        model_kwargs={"n_hidden": 8, "n_members": 1}, train_kwargs={"max_steps": 20, "progress_bar": False},
    )  # fmt: skip
    weights = adata.uns["da"]["training"]["calibration"]["weights"]["network"]
    assert weights.shape == (2, 3)
    assert weights.dtype == float
    adata.write_h5ad(tmp_path / "cells.h5ad")
