"""Input that does not fit is refused by name before anything is trained or written; input that fits is read right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scratio
from scratio import _check
from scratio._check import check_embedding
from scratio.model import ScRatio


def with_obsm(value):
    def change(adata) -> None:
        adata.obsm["X_new"] = value(adata.obsm["X_pca"].copy())

    return change


def with_obs(value):
    def change(adata) -> None:
        adata.obs["new"] = value(adata.n_obs)

    return change


def one_entry(number: float):
    def spoil(x: np.ndarray) -> np.ndarray:
        x[3, 1] = number
        return x

    return spoil


def nothing(adata) -> None:
    """The cells as they are."""


NEW_REP, NEW_KEY = {"obsm_key": "X_new"}, {"condition_keys": ["new"]}

BAD = {
    "no such embedding": (nothing, NEW_REP, KeyError, "X_new"),
    "no such key": (nothing, NEW_KEY, KeyError, "new"),
    "no such sample key": (nothing, {"sample_key": "new"}, KeyError, "new"),
    "no such continuous key": (nothing, {"continuous_keys": ["new"]}, KeyError, "new"),
    "one condition": (with_obs(lambda n: ["a"] * n), NEW_KEY, ValueError, "new"),
    "no key": (nothing, {"condition_keys": []}, ValueError, "nothing to compare"),
    "NaN in the embedding": (with_obsm(one_entry(np.nan)), NEW_REP, ValueError, r"X_new.*1 of 200.*'cell3'"),
    "infinite embedding": (with_obsm(one_entry(np.inf)), NEW_REP, ValueError, "X_new"),
    "sparse embedding": (with_obsm(sparse.csr_matrix), NEW_REP, TypeError, "X_new.*toarray"),
    "three-dimensional embedding": (with_obsm(lambda x: x[:, :, None]), NEW_REP, ValueError, "X_new"),
    "embedding without dimensions": (with_obsm(lambda x: x[:, :0]), NEW_REP, ValueError, "X_new"),
    "embedding of truth values": (with_obsm(lambda x: x > 0), NEW_REP, TypeError, "X_new"),
    "complex embedding": (with_obsm(lambda x: x * 1j), NEW_REP, TypeError, "X_new"),
    "one string for the keys": (nothing, {"condition_keys": "condition"}, TypeError, "'condition'"),
    "key twice": (nothing, {"condition_keys": ["condition", "condition"]}, ValueError, "twice.*condition"),
    "condition and sample key the same": (nothing, {"sample_key": "condition"}, ValueError, "twice.*condition"),
    "missing label": (with_obs(lambda n: pd.Categorical(["a", "b", None, "a"] * (n // 4))), NEW_KEY, ValueError, "new"),
    "missing label as None": (with_obs(lambda n: ["a", None] * (n // 2)), NEW_KEY, ValueError, "'new'.*100 of 200"),
    "continuous key of text": (with_obs(lambda n: ["1"] * n), {"continuous_keys": ["new"]}, TypeError, "new"),
    "continuous key with NaN": (
        with_obs(lambda n: np.r_[np.nan, np.ones(n - 1)]),
        {"continuous_keys": ["new"]},
        ValueError,
        "new",
    ),
}


@pytest.mark.parametrize(("change", "kwargs", "error", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_by_name_and_changes_nothing(gaussian_cells, unchanged, change, kwargs, error, named):
    change(gaussian_cells)
    with unchanged(gaussian_cells), pytest.raises(error, match=named):
        ScRatio.setup_anndata(gaussian_cells, **{"condition_keys": ["condition"], **kwargs})


def test_a_one_dimensional_embedding_is_refused(monkeypatch):
    # AnnData turns a vector into a column, so one can only come from elsewhere.
    monkeypatch.setattr(_check, "source_of", lambda adata, key: np.arange(5.0))
    with pytest.raises(ValueError, match=r"'X_pca'.*\(5,\)"):
        check_embedding(scratio.datasets.gaussians(n_cells=5, n_dims=2), "X_pca")


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"parametrization": "vector"}, "parametrization"),
        ({"block": "resnet"}, "block"),
        ({"schedule": "cosine"}, "schedule"),
        ({"n_members": 0}, "n_members"),
        ({"n_folds": 0}, "n_folds"),
        ({"condition_dropout": 1.0}, "condition_dropout"),
        ({"condition_dropout": -0.1}, "condition_dropout"),
        ({"sigma_min": 1.0}, "sigma_min"),
        ({"sigma": -1.0}, "sigma"),
        ({"parametrization": "heads", "block": "mlp", "separate_heads": True}, "separate_heads"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(gaussian_cells, kwargs, named):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    with pytest.raises(ValueError, match=named):
        ScRatio(gaussian_cells, **kwargs)


def test_the_papers_network_has_heads(gaussian_cells):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    with pytest.raises(ValueError, match="mlp.*heads"):
        ScRatio(gaussian_cells, parametrization="potential", block="mlp")


def test_setup_leaves_the_users_own_columns(gaussian_cells):
    before = gaussian_cells.copy()
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    pd.testing.assert_frame_equal(gaussian_cells.obs[before.obs.columns], before.obs)
    np.testing.assert_array_equal(gaussian_cells.obsm["X_pca"], before.obsm["X_pca"])
    assert all(column.startswith("_scvi") for column in set(gaussian_cells.obs) - set(before.obs))
    assert all(key.startswith("_scvi") for key in set(gaussian_cells.uns) - set(before.uns))


# --- what fits -----------------------------------------------------------------------------------------------------


def log_ratios(adata, parametrization, settings, numerator="treated", denominator="control", **setup) -> np.ndarray:
    """Log ratios of a short training on one key."""
    setup = {"condition_keys": ["condition"], **setup}
    key = setup["condition_keys"][0]
    ScRatio.setup_anndata(adata, **setup)
    model = ScRatio(adata, parametrization=parametrization, n_hidden=8, n_members=1)
    model.train(**settings)
    return model.log_ratio(numerator={key: numerator}, denominator={key: denominator})


LABELS = {
    "categories": lambda c: pd.Categorical(np.where(c, "treated", "control")),
    "categories with unused ones": lambda c: pd.Categorical(
        np.where(c, "treated", "control"), categories=["another", "treated", "control"]
    ),
    "strings": lambda c: np.where(c, "treated", "control").astype(object),
    "pandas strings": lambda c: pd.array(np.where(c, "treated", "control"), dtype="string"),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_labels_may_be_of_any_type(gaussian_cells, parametrization, quick, labels):
    expected = log_ratios(gaussian_cells.copy(), parametrization, quick)
    gaussian_cells.obs["condition"] = labels((gaussian_cells.obs["condition"] == "treated").to_numpy())
    np.testing.assert_array_equal(log_ratios(gaussian_cells, parametrization, quick), expected)


@pytest.mark.parametrize("dtype", [int, bool, float])
def test_labels_may_be_numbers_and_are_then_named_by_themselves(gaussian_cells, parametrization, quick, dtype):
    # "control" < "treated" and 0 < 1 alike, hence the same codes and the same bits.
    expected = log_ratios(gaussian_cells.copy(), parametrization, quick)
    gaussian_cells.obs["condition"] = (gaussian_cells.obs["condition"] == "treated").to_numpy().astype(dtype)
    ratios = log_ratios(gaussian_cells, parametrization, quick, dtype(1), dtype(0))
    np.testing.assert_array_equal(ratios, expected)


@pytest.mark.parametrize("key", ["cell.type", "cell type", "cell/type", "Treatment (µM)"])
def test_keys_may_have_any_name(gaussian_cells, parametrization, quick, key):
    expected = log_ratios(gaussian_cells.copy(), parametrization, quick)
    gaussian_cells.obs[key] = gaussian_cells.obs["condition"]
    np.testing.assert_array_equal(log_ratios(gaussian_cells, parametrization, quick, condition_keys=[key]), expected)


def test_an_embedding_may_be_a_data_frame(gaussian_cells, parametrization, quick):
    expected = log_ratios(gaussian_cells.copy(), parametrization, quick)
    x = gaussian_cells.obsm["X_pca"]
    gaussian_cells.obsm["X_pca"] = pd.DataFrame(x, index=gaussian_cells.obs_names, columns=["PC1", "PC2"])
    np.testing.assert_array_equal(log_ratios(gaussian_cells, parametrization, quick), expected)


def test_an_embedding_may_be_of_whole_numbers(gaussian_cells, parametrization, quick):
    whole = np.round(4.0 * gaussian_cells.obsm["X_pca"])
    gaussian_cells.obsm["X_pca"] = whole
    expected = log_ratios(gaussian_cells.copy(), parametrization, quick)
    gaussian_cells.obsm["X_pca"] = whole.astype(np.int64)
    np.testing.assert_array_equal(log_ratios(gaussian_cells, parametrization, quick), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_dimension_has_no_say(gaussian_cells, parametrization, quick, dtype):
    # In float64 the computed standard deviation of a constant 0.1 is about 1e-17, not 0.
    constant = np.full((200, 1), 0.1, dtype=dtype)
    gaussian_cells.obsm["X_pca"] = np.hstack([gaussian_cells.obsm["X_pca"].astype(dtype), constant])
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1)
    model.train(**quick)
    contrast = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
    moved = gaussian_cells.copy()
    moved.obsm["X_pca"][:, 2] += 1e-6  # what a round trip through single precision may do
    np.testing.assert_allclose(model.log_ratio(moved, **contrast), model.log_ratio(**contrast), atol=1e-4)


def test_a_sample_key_is_one_more_key(parametrization, quick):
    adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
    adata.obs["donor"] = np.arange(200) % 3
    ScRatio.setup_anndata(adata, condition_keys=["condition"], sample_key="donor")
    model = ScRatio(adata, parametrization=parametrization, n_hidden=8, n_members=1)
    model.train(**quick)
    ratio = model.log_ratio(numerator={"condition": "treated", "donor": 1}, denominator={"donor": 1})
    other = model.log_ratio(numerator={"condition": "treated", "donor": 2}, denominator={"donor": 2})
    assert np.abs(ratio - other).max() > 0.0
