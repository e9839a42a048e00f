"""Tools: what they write, what they leave, what they refuse, and that the answer is right."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import scratio
from scratio import OWN
from scratio.model import ScRatio

GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control"}


def score(adata, parametrization: str, settings: dict, **kwargs):
    """Differential abundance with small networks."""
    model_kwargs = {"parametrization": parametrization, "n_hidden": 8, "n_members": 1, **kwargs.pop("model_kwargs", {})}
    return scratio.tl.differential_abundance(
        adata, **{**GROUPS, "n_folds": 2, "model_kwargs": model_kwargs, "train_kwargs": settings, **kwargs}
    )


@pytest.fixture(scope="module")
def accurate(parametrization, thorough):
    """1,500 cells of N(0, I) and N(1, I), 100 of a third category, scored by well trained networks."""
    adata = scratio.datasets.gaussians(n_cells=1_600, n_dims=2, random_state=0)
    adata.obs["condition"] = adata.obs["condition"].astype(str)
    adata.obs.iloc[::16, 0] = "another"
    score(adata, parametrization, thorough, model_kwargs={"n_hidden": 32, "n_members": 2})
    return adata


# --- the answer ----------------------------------------------------------------------------------------------------


def test_log_ratios_are_near_the_closed_form_and_positive_under_the_treatment(accurate):
    scored = accurate.obs[accurate.obs["condition"] != "another"]
    error = scored["da_log_ratio"] - scored["true_log_ratio"]
    assert float((error**2).mean()) < 0.15  # of a variance of d (1 + d / 4) = 3
    assert scored["da_log_ratio"][scored["condition"] == "treated"].mean() > 0.5
    assert scored["da_log_ratio"][scored["condition"] == "control"].mean() < -0.5


def test_swapping_treatment_and_reference_changes_the_sign(gaussian_cells, parametrization, quick):
    swapped = gaussian_cells.copy()
    method = {"heads": "naive", "potential": "head"}[parametrization]  # S1 takes another path in each direction
    for adata, groups in ((gaussian_cells, {}), (swapped, {"treatment": "control", "reference": "treated"})):
        score(adata, parametrization, quick, method=method, **groups)
    np.testing.assert_allclose(swapped.obs["da_log_ratio"], -gaussian_cells.obs["da_log_ratio"], rtol=0, atol=1e-9)


def test_cells_of_other_categories_are_neither_used_nor_scored(accurate, parametrization, quick):
    other = (accurate.obs["condition"] == "another").to_numpy()
    assert other.sum() == 100
    assert accurate.obs["da_log_ratio"].isna().to_numpy().tolist() == other.tolist()
    assert accurate.obs["da_std"].isna().to_numpy().tolist() == other.tolist()
    assert not accurate.obs["da_support"][other].any()
    assert accurate.uns["da"]["table"][["n_treatment", "n_reference"]].to_numpy().sum() == 1_500
    # The others might as well not be there.
    both = [scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=3) for _ in range(2)]
    extra = scratio.datasets.gaussians(n_cells=40, n_dims=2, random_state=4)
    extra.obs["condition"] = "another"
    extra.obs_names = [f"extra{i}" for i in range(40)]
    both[1] = anndata.concat([extra[:20], both[1], extra[20:]])
    for adata in both:
        score(adata, parametrization, quick)
    np.testing.assert_array_equal(both[1].obs["da_log_ratio"][20:-20], both[0].obs["da_log_ratio"])


def test_cells_without_a_label_are_like_cells_of_other_categories(gaussian_cells, parametrization, quick):
    gaussian_cells.obs.loc[gaussian_cells.obs_names[:7], "condition"] = np.nan
    score(gaussian_cells, parametrization, quick)
    assert gaussian_cells.obs["da_log_ratio"].isna().tolist() == [True] * 7 + [False] * 193


def test_scores_are_out_of_fold(parametrization, quick):
    # 60 cells whose labels mean nothing, learnt by heart: a network knows the labels it was given and no others.
    adata = scratio.datasets.gaussians(n_cells=60, n_dims=10, distance=0.0, random_state=2)
    settings = {
        **quick,
        "max_steps": 200,
        "learning_rate": 1e-2,
        "weight_decay": 0.01,
        "validate_every": 200,
        "validation_size": 0.1,
    }
    sizes = {"parametrization": parametrization, "n_hidden": 64, "n_members": 1}
    treated = adata.obs["condition"] == "treated"
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    in_sample = ScRatio(adata, **sizes)
    in_sample.train(**settings)
    contrast = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
    assert roc_auc_score(treated, in_sample.log_ratio(**contrast)) > 0.9
    score(adata, parametrization, settings, model_kwargs=sizes, n_folds=3)
    # The standard error of an area of one half is about .075 here.
    assert roc_auc_score(treated, adata.obs["da_log_ratio"]) < 0.75


def test_the_std_is_that_of_the_networks_which_scored_the_cell(gaussian_cells, parametrization, quick, monkeypatch):
    models = []
    original = ScRatio.train

    def spy(self, *args, **kwargs):
        models.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ScRatio, "train", spy)
    score(gaussian_cells, parametrization, quick, model_kwargs={"n_members": 3})
    mean, std = models[0].log_ratio(
        numerator={"condition": "treated"}, denominator={"condition": "control"}, return_std=True
    )
    np.testing.assert_array_equal(gaussian_cells.obs["da_log_ratio"], mean)
    inflation = gaussian_cells.uns["da"]["diagnostics"]["variance_inflation"][0]
    np.testing.assert_allclose(gaussian_cells.obs["da_std"], std * np.sqrt(inflation))
    assert inflation >= 1.0
    assert (std > 0.0).all()


def test_a_single_network_has_no_std(gaussian_cells, parametrization, quick):
    score(gaussian_cells, parametrization, quick)
    assert gaussian_cells.obs["da_std"].isna().all()


def test_covariates_hold_their_own_labels_fixed(parametrization, thorough):
    # The batch moves the cells and goes with the treatment; within a batch the treatment does nothing.
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 2, 1_500)
    treated = rng.uniform(size=1_500) < np.where(batch == 1, 0.8, 0.2)
    adata = scratio.datasets.gaussians(n_cells=1_500, n_dims=1)
    x = 2.0 * batch + rng.normal(size=1_500)
    adata.obsm["X_pca"] = x[:, None]
    adata.obs["condition"], adata.obs["batch"] = np.where(treated, "treated", "control"), batch.astype(str)
    small, settings = {"model_kwargs": {"n_hidden": 32}}, {**thorough, "max_steps": 300}
    score(adata, parametrization, settings, covariate_keys=["batch"], key_added="within", **small)
    score(adata, parametrization, settings, key_added="across", **small)
    densities = norm([[0.0], [2.0]], 1.0).pdf(x)
    across = np.log(0.2 * densities[0] + 0.8 * densities[1]) - np.log(0.8 * densities[0] + 0.2 * densities[1])
    assert float(np.mean((adata.obs["across_log_ratio"] - across) ** 2)) < 0.1
    assert across.var() > 0.8
    assert float(np.mean(adata.obs["within_log_ratio"] ** 2)) < 0.1


# --- support -------------------------------------------------------------------------------------------------------


def test_support_flags_outliers_and_regions_of_one_condition(parametrization, quick):
    adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, distance=0.0, random_state=0)
    x = adata.obsm["X_pca"].copy()
    x[0] = [60.0, 0.0]
    x[1:41] = [0.0, 25.0] + 0.3 * x[1:41]
    adata.obsm["X_pca"] = x
    condition = adata.obs["condition"].astype(str).to_numpy()
    condition[1:41] = "treated"
    adata.obs["condition"] = condition
    score(adata, parametrization, quick)
    support = adata.obs["da_support"].to_numpy()
    assert not support[:41].any()
    assert support[41:].mean() > 0.95
    assert adata.uns["da"]["table"]["supported_fraction"].item() == pytest.approx(support.mean())


def test_support_does_not_depend_on_the_scale_of_a_dimension(parametrization, quick):
    supports = []
    for stretch in (1.0, 1e3):
        adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
        adata.obsm["X_pca"] = adata.obsm["X_pca"].astype(float) * [1.0, stretch]
        score(adata, parametrization, quick)
        supports.append(adata.obs["da_support"].to_numpy())
    np.testing.assert_array_equal(*supports)


# --- what is written -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(parametrization, quick):
    """Cells with a result."""
    adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
    adata.uns["note"] = "the user's"
    score(adata, parametrization, quick, random_state=7)
    return adata


def test_results_are_written_where_stated_and_nothing_else_is(scored):
    assert list(scored.obs) == ["condition", "true_log_ratio", "da_log_ratio", "da_std", "da_typicality", "da_support"]
    assert [scored.obs[f"da_{name}"].dtype for name in ("log_ratio", "std", "support")] == [float, float, bool]
    assert list(scored.uns) == ["note", "da"]
    assert list(scored.obsm) == ["X_pca"]
    before = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
    pd.testing.assert_frame_equal(scored.obs[["condition", "true_log_ratio"]], before.obs)
    np.testing.assert_array_equal(scored.obsm["X_pca"], before.obsm["X_pca"])


def test_the_record_says_what_was_done(scored, parametrization, quick):
    record = scored.uns["da"]
    params = record["params"]
    assert {name: params[name] for name in GROUPS} == GROUPS
    assert (params["use_rep"], params["n_folds"], params["random_state"], params["method"]) == ("X_pca", 2, 7, "auto")
    assert params["model_kwargs"]["parametrization"] == parametrization
    assert params["train_kwargs"]["max_steps"] == quick["max_steps"]
    assert record["scratio"]["scratio"] == scratio.__version__
    treated = int((scored.obs["condition"] == "treated").sum())
    row = record["table"].iloc[0]
    assert row[["treatment", "reference", "n_treatment", "n_reference"]].to_list() == [
        "treated", "control", treated, 200 - treated,
    ]  # fmt: skip
    assert record["training"]["random_state"] == 7
    assert record["history"]["step"].tolist() == [10, 20, 30, 40]
    # One loss per network and validation, or per fold where the networks of a fold are validated together.
    assert record["history"]["validation_loss"].shape == record["history"]["train_loss"].shape == (4, 2)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_results_survive_writing_and_reading(scored, kind, tmp_path):
    getattr(scored, f"write_{kind}")(tmp_path / f"cells.{kind}")
    again = getattr(anndata, f"read_{kind}")(tmp_path / f"cells.{kind}")
    for column in ("da_log_ratio", "da_std", "da_support"):
        np.testing.assert_array_equal(again.obs[column].to_numpy(), scored.obs[column].to_numpy())
    assert_same(again.uns["da"], scored.uns["da"])
    ax = scratio.pl.history(again)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [10, 20, 30, 40])


def assert_same(one, other) -> None:
    if isinstance(other, dict):
        assert set(one) == set(other)
        for key, value in other.items():
            assert_same(one[key], value)
    elif isinstance(other, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(other, pd.DataFrame):
        one.index = one.index.astype(other.index.dtype)  # h5ad stores the numbers of rows as text
        pd.testing.assert_frame_equal(one, other, check_dtype=False, check_index_type=False)
    else:
        assert one == other


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_every_kind_of_parameter_can_be_written(gaussian_cells, parametrization, quick, kind, tmp_path):
    gaussian_cells.obs["batch"] = np.arange(200) % 2
    score(
        gaussian_cells,
        parametrization,
        {**quick, "checkpoint_dir": tmp_path / "run"},
        covariate_keys=["batch"],
        model_kwargs={"n_layers": None, "sigma": 0.1, "separate_heads": True},
    )
    getattr(gaussian_cells, f"write_{kind}")(tmp_path / f"cells.{kind}")
    params = getattr(anndata, f"read_{kind}")(tmp_path / f"cells.{kind}").uns["da"]["params"]
    assert list(params["covariate_keys"]) == ["batch"]
    assert params["model_kwargs"]["n_layers"] == "None"
    assert params["model_kwargs"]["sigma"] == 0.1
    assert bool(params["model_kwargs"]["separate_heads"]) is True
    assert params["train_kwargs"]["checkpoint_dir"] == str(tmp_path / "run")


def test_a_copy_leaves_the_input_untouched(gaussian_cells, unchanged, parametrization, quick):
    with unchanged(gaussian_cells):
        result = score(gaussian_cells, parametrization, quick, copy=True)
    assert score(gaussian_cells, parametrization, quick) is None
    pd.testing.assert_frame_equal(result.obs, gaussian_cells.obs)


def test_the_same_seed_gives_the_same_bits(scored, parametrization, quick):
    same, other = (scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0) for _ in range(2))
    score(same, parametrization, quick, random_state=7)
    score(other, parametrization, quick, random_state=8)
    np.testing.assert_array_equal(same.obs["da_log_ratio"], scored.obs["da_log_ratio"])
    assert np.abs(other.obs["da_log_ratio"] - scored.obs["da_log_ratio"]).max() > 1e-6


def test_an_earlier_result_is_replaced(scored, parametrization, quick):
    adata = scored.copy()
    score(adata, parametrization, quick, random_state=8)
    assert adata.uns["da"]["params"]["random_state"] == 8
    assert not np.array_equal(adata.obs["da_log_ratio"], scored.obs["da_log_ratio"])
    assert list(adata.obs) == list(scored.obs)


def test_two_results_live_side_by_side(scored, parametrization, quick):
    adata = scored.copy()
    score(adata, parametrization, quick, key_added="again", random_state=7)
    np.testing.assert_array_equal(adata.obs["again_log_ratio"], scored.obs["da_log_ratio"])
    np.testing.assert_array_equal(adata.obs["da_log_ratio"], scored.obs["da_log_ratio"])


def test_the_users_own_is_not_overwritten(gaussian_cells, unchanged, parametrization, quick):
    gaussian_cells.obs["da_support"] = "mine"
    with unchanged(gaussian_cells), pytest.raises(ValueError, match="da_support.*key_added"):
        score(gaussian_cells, parametrization, quick)
    gaussian_cells.uns["mine"] = {"params": 1}
    with unchanged(gaussian_cells), pytest.raises(ValueError, match="uns.*mine.*key_added"):
        score(gaussian_cells, parametrization, quick, key_added="mine")


# --- refusals ------------------------------------------------------------------------------------------------------


def with_obsm(value):
    def change(adata) -> None:
        adata.obsm["X_new"] = value(adata.obsm["X_pca"].copy())

    return change


def with_obs(value):
    def change(adata) -> None:
        adata.obs["new"] = value(adata.obs["condition"].astype(str).to_numpy())

    return change


def one_entry(number: float):
    def spoil(x: np.ndarray) -> np.ndarray:
        x[3, 1] = number
        return x

    return spoil


def nothing(adata) -> None:
    """The cells as they are."""


def repeat_a_name(adata) -> None:
    adata.obs_names = ["twin", "twin", *adata.obs_names[2:]]


def few_treated(labels: np.ndarray) -> np.ndarray:
    labels[np.flatnonzero(labels == "treated")[4:]] = "control"
    return labels


BAD = {
    "no such condition": (nothing, {"condition_key": "new"}, KeyError, "new"),
    "no such embedding": (nothing, {"use_rep": "X_new"}, KeyError, "X_new"),
    "no such covariate": (nothing, {"covariate_keys": ["new"]}, KeyError, "new"),
    "covariates as one string": (with_obs(lambda c: c), {"covariate_keys": "new"}, (TypeError, ValueError), "new"),
    "absent treatment": (nothing, {"treatment": "drug"}, ValueError, "condition.*drug.*control"),
    "absent reference": (nothing, {"reference": "placebo"}, ValueError, "condition.*placebo"),
    "one condition": (
        with_obs(lambda c: np.full(len(c), "treated")),
        {"condition_key": "new"},
        ValueError,
        "new.*control",
    ),
    "the same twice": (nothing, {"reference": "treated"}, ValueError, "treated"),
    "NaN in the embedding": (with_obsm(one_entry(np.nan)), {"use_rep": "X_new"}, ValueError, "X_new.*cell3"),
    "infinite embedding": (with_obsm(one_entry(-np.inf)), {"use_rep": "X_new"}, ValueError, "X_new.*cell3"),
    "sparse embedding": (with_obsm(sparse.csr_matrix), {"use_rep": "X_new"}, TypeError, "X_new"),
    "three-dimensional embedding": (with_obsm(lambda x: x[:, :, None]), {"use_rep": "X_new"}, ValueError, "X_new"),
    "fewer cells than folds": (
        with_obs(few_treated),
        {"condition_key": "new", "n_folds": 5},
        ValueError,
        "new.*4 cells.*treated.*n_folds=5",
    ),
    "folds as an argument of the model": (nothing, {"model_kwargs": {"n_folds": 3}}, ValueError, "n_folds"),
    "one fold": (nothing, {"n_folds": 1}, ValueError, "n_folds"),
    "covariate with a missing label": (
        with_obs(lambda c: pd.Categorical(np.where(c == "treated", "a", None))),
        {"covariate_keys": ["new"]},
        ValueError,
        "new",
    ),
    "the condition as covariate": (nothing, {"covariate_keys": ["condition"]}, ValueError, "condition"),
    "one sample of each condition": (with_obs(lambda c: c), {"sample_key": "new"}, ValueError, "at least 2 samples"),
    "no such sample key": (nothing, {"sample_key": "new"}, KeyError, "no key .new"),
    "the condition as sample": (nothing, {"sample_key": "condition"}, ValueError, "twice.*condition"),
    "a sample with a missing label": (
        with_obs(lambda c: pd.Categorical(np.where(c == "treated", "a", None))),
        {"sample_key": "new"},
        ValueError,
        "new",
    ),
    "names that are not unique": (repeat_a_name, {}, ValueError, "obs_names_make_unique"),
    "unknown method": (nothing, {"method": "magic"}, ValueError, "magic"),
    "unknown setting of the model": (nothing, {"model_kwargs": {"n_hiden": 8}}, TypeError, "n_hiden"),
    "unknown setting of the training": (nothing, {"train_kwargs": {"max_step": 8}}, TypeError, "max_step"),
}


@pytest.mark.parametrize(("change", "kwargs", "error", "named"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("copy", [False, True])
def test_bad_input_is_refused_by_name_before_training_and_changes_nothing(
    gaussian_cells, unchanged, monkeypatch, change, kwargs, error, named, copy
):
    def no_training(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", no_training)
    change(gaussian_cells)
    with unchanged(gaussian_cells), pytest.raises(error, match=named):
        scratio.tl.differential_abundance(gaussian_cells, **{**GROUPS, "copy": copy, **kwargs})


# --- any contrast --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(parametrization, quick) -> ScRatio:
    """A cross-fitted model."""
    adata = scratio.datasets.gaussians(n_cells=120, n_dims=2, random_state=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, parametrization=parametrization, n_hidden=8, n_members=1, n_folds=2)
    model.train(**quick)
    return model


CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {}}


def test_log_ratio_writes_what_the_model_says(model, gaussian_cells):
    assert scratio.tl.log_ratio(gaussian_cells, model, **CONTRAST) is None
    np.testing.assert_array_equal(gaussian_cells.obs["log_ratio"], model.log_ratio(gaussian_cells, **CONTRAST))
    judged = model.typicality(gaussian_cells, **CONTRAST)
    np.testing.assert_array_equal(gaussian_cells.obs["log_ratio_typicality"], judged)
    np.testing.assert_array_equal(gaussian_cells.obs["log_ratio_support"], judged >= 0.01)
    written = ["log_ratio", "log_ratio_typicality", "log_ratio_support"]
    assert list(gaussian_cells.obs) == ["condition", "true_log_ratio", *written]
    record = gaussian_cells.uns["log_ratio"]
    assert record["params"]["numerator"] == {"condition": "treated"}
    assert record["params"]["denominator"] == {}
    assert record["scratio"]["scratio"] == scratio.__version__


def test_training_cells_are_scored_out_of_fold(model, monkeypatch):
    adata = scratio.tl.log_ratio(model.adata, model, **CONTRAST, copy=True)
    np.testing.assert_array_equal(adata.obs["log_ratio"], model.log_ratio(**CONTRAST))
    monkeypatch.setattr(model, "known", None)
    assert not np.array_equal(adata.obs["log_ratio"], model.log_ratio(model.adata.copy(), **CONTRAST))


def test_log_ratio_passes_its_arguments_on(model, gaussian_cells):
    settings = {"method": "ode", "field": "unconditional", "n_steps": 3}
    scratio.tl.log_ratio(gaussian_cells, model, **CONTRAST, **settings, key_added="s2")
    expected = model.log_ratio(gaussian_cells, **CONTRAST, **settings)
    np.testing.assert_array_equal(gaussian_cells.obs["s2"], expected)
    assert gaussian_cells.uns["s2"]["params"]["field"] == "unconditional"


def test_log_ratio_with_own_labels_survives_writing(model, gaussian_cells, tmp_path):
    scratio.tl.log_ratio(gaussian_cells, model, numerator={"condition": OWN}, denominator={}, key_added="own")
    gaussian_cells.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.obs["own"], gaussian_cells.obs["own"])
    assert again.uns["own"]["params"]["numerator"] == {"condition": "scratio.OWN"}


def test_the_standard_error_of_a_contrast_is_written_where_asked_for(model, gaussian_cells):
    scratio.tl.log_ratio(gaussian_cells, model, **CONTRAST, method="ito", n_steps=4, return_std=True)
    mean, std = model.log_ratio(gaussian_cells, **CONTRAST, method="ito", n_steps=4, return_std=True)
    np.testing.assert_array_equal(gaussian_cells.obs["log_ratio"], mean)
    np.testing.assert_array_equal(gaussian_cells.obs["log_ratio_std"], std)
    assert (std > 0).all()


def test_log_ratio_to_a_copy_leaves_the_input_untouched(model, gaussian_cells, unchanged):
    with unchanged(gaussian_cells):
        result = scratio.tl.log_ratio(gaussian_cells, model, **CONTRAST, copy=True)
    np.testing.assert_array_equal(result.obs["log_ratio"], model.log_ratio(gaussian_cells, **CONTRAST))


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"key_added": "true_log_ratio"}, ValueError, "true_log_ratio"),
        ({"numerator": {"donor": 1}}, KeyError, "donor"),
        ({"numerator": {"condition": "placebo"}}, ValueError, "placebo"),
        ({"method": "magic"}, ValueError, "magic"),
    ],
)
def test_bad_contrasts_are_refused_and_change_nothing(model, gaussian_cells, unchanged, kwargs, error, named):
    with unchanged(gaussian_cells), pytest.raises(error, match=named):
        scratio.tl.log_ratio(gaussian_cells, model, **{**CONTRAST, **kwargs})


def test_an_earlier_contrast_is_replaced(model, gaussian_cells):
    scratio.tl.log_ratio(gaussian_cells, model, **CONTRAST)
    scratio.tl.log_ratio(gaussian_cells, model, numerator={"condition": "control"}, denominator={})
    expected = model.log_ratio(gaussian_cells, numerator={"condition": "control"}, denominator={})
    np.testing.assert_array_equal(gaussian_cells.obs["log_ratio"], expected)
