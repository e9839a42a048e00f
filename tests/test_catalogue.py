"""What users hand over: every odd input either works, with the right answer, or is refused by name and changes nothing.

More refusals stand beside what they belong to: `BAD` of test_setup.py and test_tl.py, the ends of test_training.py.
"""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scratio
from scratio.model import ScRatio

pytestmark = [
    pytest.mark.filterwarnings("ignore:Transforming to str index:anndata.ImplicitModificationWarning"),
    pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning"),
]

GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}
MODEL = {"n_hidden": 8, "n_members": 2}
TRAINING = {
    "max_steps": 60,
    "batch_size": 64,
    "warmup_steps": 5,
    "validate_every": 20,
    "n_validation": 64,
    "early_stopping": False,
    "accelerator": "cpu",
    "progress_bar": False,
}


def cells(n: int = 300, n_dims: int = 2) -> ad.AnnData:
    return scratio.datasets.gaussians(n_cells=n, n_dims=n_dims, distance=1.5, random_state=0)


def compare(adata: ad.AnnData, **changes) -> None:
    settings = {"model_kwargs": MODEL, "train_kwargs": TRAINING, **GROUPS}
    scratio.tl.differential_abundance(adata, **{**settings, **changes})


def labelled(treated, control, dtype=None, **kwargs) -> Callable[[ad.AnnData], None]:
    """Change the labels to others."""

    def change(adata: ad.AnnData) -> None:
        is_treated = (adata.obs["condition"] == "treated").to_numpy()
        adata.obs["condition"] = pd.Series(np.where(is_treated, treated, control), index=adata.obs_names, dtype=dtype)
        if kwargs:
            adata.obs["condition"] = pd.Categorical(adata.obs["condition"], **kwargs)

    return change


def embedded(function: Callable[[np.ndarray], object]) -> Callable[[ad.AnnData], None]:
    """Change the embedding to another array."""

    def change(adata: ad.AnnData) -> None:
        adata.obsm["X_pca"] = function(np.asarray(adata.obsm["X_pca"]))

    return change


def in_x(function: Callable[[np.ndarray], object]) -> Callable[[ad.AnnData], None]:
    """Put the embedding, changed, into X, and leave none in obsm."""

    def change(adata: ad.AnnData) -> None:
        x = function(np.asarray(adata.obsm["X_pca"]))
        other = ad.AnnData(X=x, obs=adata.obs.copy(), var=pd.DataFrame(index=[f"marker{k}" for k in range(x.shape[1])]))
        adata.__dict__.update(other.__dict__)

    return change


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def renamed(adata: ad.AnnData) -> None:
    adata.obs = adata.obs.rename(columns={"condition": "Behandlung µ/ü.1"})


def numbers_as_names(adata: ad.AnnData) -> None:
    adata.obs_names = [str(k) for k in range(adata.n_obs)][::-1]


WORKS = {
    "labels as objects": (labelled("treated", "control", object), {}),
    "labels as an ordered category": (
        labelled("treated", "control", categories=["treated", "control"], ordered=True),
        {},
    ),
    "labels with categories nobody has": (labelled("treated", "control", categories=["x", "treated", "control"]), {}),
    "labels as nullable strings": (labelled("treated", "control", "string"), {}),
    "labels as truth values": (labelled(True, False, bool), {"treatment": True, "reference": False}),
    "labels as nullable truth values": (labelled(True, False, "boolean"), {"treatment": True, "reference": False}),
    "labels as whole numbers": (labelled(1, 0, int), {"treatment": 1, "reference": 0}),
    "labels as nullable whole numbers": (labelled(1, 0, "Int64"), {"treatment": 1, "reference": 0}),
    "labels as numbers": (labelled(1.5, 0.5, float), {"treatment": 1.5, "reference": 0.5}),
    "labels 1.0 and 0.0, named by 1 and 0": (labelled(1.0, 0.0, float), {"treatment": 1, "reference": 0}),
    "labels 1 and 0, named by 1.0 and 0.0": (labelled(1, 0, int), {"treatment": 1.0, "reference": 0.0}),
    "labels 1.0 and 0.0 in single precision, named by numpy's": (
        labelled(1.0, 0.0, np.float32),
        {"treatment": np.int64(1), "reference": np.float32(0.0)},
    ),
    "labels 1.0 and 0.0 as categories, named by 1 and 0": (
        labelled(1.0, 0.0, float, categories=[0.0, 1.0]),
        {"treatment": 1, "reference": 0},
    ),
    "X itself": (in_x(np.asarray), {"use_rep": "X"}),
    "X as a data frame's values in double precision": (in_x(lambda x: x.astype(np.float64)), {"use_rep": "X"}),
    "numbers named by text": (labelled(1, 0, int), {"treatment": "1", "reference": "0"}),
    "categories with spaces": (labelled("IFN beta 10 U/ml", " "), {"treatment": "IFN beta 10 U/ml", "reference": " "}),
    "categories in unicode": (labelled("β-IFN ☂", "対照"), {"treatment": "β-IFN ☂", "reference": "対照"}),
    "a category named nan": (labelled("treated", "nan"), {"reference": "nan"}),
    "a category named None": (labelled("None", "control"), {"treatment": "None"}),
    "a category named -1": (labelled("treated", "-1"), {"reference": "-1"}),
    "a category named rest": (labelled("treated", "rest"), {"reference": "rest"}),
    "an empty name": (labelled("treated", ""), {"reference": ""}),
    "an odd key": (renamed, {"condition_key": "Behandlung µ/ü.1"}),
    "names that are numbers": (numbers_as_names, {}),
    "double precision": (embedded(lambda x: x.astype(np.float64)), {}),
    "half precision": (embedded(lambda x: x.astype(np.float16)), {}),
    "bytes in the other order": (embedded(lambda x: x.astype(">f4")), {}),
    "whole numbers": (embedded(lambda x: np.round(20.0 * x).astype(np.int16)), {}),
    "unsigned whole numbers": (embedded(lambda x: np.round(20.0 * x + 200.0).astype(np.uint16)), {}),
    "columns first": (embedded(np.asfortranarray), {}),
    "every second column of another": (embedded(lambda x: np.repeat(x, 2, axis=1)[:, ::2]), {}),
    "rows backwards in memory": (embedded(lambda x: x[::-1].copy()[::-1]), {}),
    "read-only": (embedded(read_only), {}),
    "a data frame": (embedded(lambda x: pd.DataFrame(x, index=[f"cell{k}" for k in range(len(x))])), {}),
    "one dimension": (embedded(lambda x: x[:, :1]), {}),
    "a constant column": (embedded(lambda x: np.c_[x, np.full(len(x), 7.0)]), {}),
    "a column twice": (embedded(lambda x: np.c_[x, x[:, 0]]), {}),
    "every cell twice": (embedded(lambda x: np.repeat(x[::2], 2, axis=0)), {}),
    "huge numbers": (embedded(lambda x: 1e15 * x.astype(np.float64)), {}),
    "tiny numbers": (embedded(lambda x: 1e-15 * x.astype(np.float64)), {}),
    "far from the origin": (embedded(lambda x: x.astype(np.float64) + 1e6), {}),
    "dimensions of different units": (embedded(lambda x: x * np.array([1e6, 1e-6])), {}),
    "an outlier": (embedded(lambda x: np.r_[x[:-1], [[50.0, -50.0]]]), {}),
    "no shrinkage to speak of": (lambda adata: None, {"train_kwargs": {**TRAINING, "early_stopping": True}}),
}


@pytest.mark.parametrize(("change", "kwargs"), WORKS.values(), ids=WORKS.keys())
def test_odd_input_works_and_has_the_right_sign(change, kwargs):
    adata = cells()
    truth = adata.obs["true_log_ratio"].to_numpy()
    change(adata)
    compare(adata, **kwargs)
    found = adata.obs["da_log_ratio"].to_numpy()
    assert np.isfinite(found).all()
    assert np.isfinite(adata.obs["da_std"]).all()
    # Doubled cells have the truth of one of the two; what says nothing takes a little away.
    assert np.corrcoef(found, truth)[0, 1] > 0.4


def test_cells_without_a_label_get_no_score():
    adata = cells()
    adata.obs["condition"] = adata.obs["condition"].astype(object).where(np.arange(300) % 10 > 0, np.nan)
    compare(adata)
    np.testing.assert_array_equal(np.isnan(adata.obs["da_log_ratio"]), np.arange(300) % 10 == 0)


def test_whole_numbers_that_missing_labels_made_decimal_are_named_by_whole_numbers():
    adata = cells()
    is_treated = (adata.obs["condition"] == "treated").to_numpy()
    adata.obs["condition"] = np.where(np.arange(300) % 10 > 0, is_treated, np.nan)
    for treatment in (1, [1], None):
        compare(adata, treatment=treatment, reference=0)
        scored = adata.obs["da_log_ratio"] if treatment == 1 else adata.obsm["da_log_ratio"]["1.0"]
        np.testing.assert_array_equal(np.isnan(scored), np.arange(300) % 10 == 0)


def test_a_view_is_scored_and_its_parent_is_left_alone(unchanged):
    parent = cells(600)
    with unchanged(parent):
        view = parent[::2]
        with pytest.warns(ad.ImplicitModificationWarning, match="view"):
            compare(view)
    whole = parent[::2].copy()
    compare(whole)
    np.testing.assert_array_equal(view.obs["da_log_ratio"], whole.obs["da_log_ratio"])


def test_a_backed_file_is_scored(tmp_path):
    adata = ad.AnnData(X=np.zeros((300, 3), np.float32), obs=cells().obs, obsm={"X_pca": cells().obsm["X_pca"]})
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    compare(backed)
    compare(adata)
    np.testing.assert_array_equal(backed.obs["da_log_ratio"], adata.obs["da_log_ratio"])
    backed.file.close()


def test_one_treated_cell_in_a_thousand_does_not_shift_the_ratio():
    adata = cells(6_000)
    adata.obs["condition"] = np.where(np.arange(6_000) % 1_000 == 0, "treated", "control")
    compare(adata, train_kwargs={**TRAINING, "early_stopping": True, "max_steps": 100, "n_validation": 4_096})
    # Not log(1 / 1000) = -7: the prior is divided out, and what 6 cells cannot show is shrunk.
    assert np.isfinite(adata.obs["da_log_ratio"]).all()
    assert abs(adata.obs["da_log_ratio"].median()) < 1.0


def test_a_cell_far_out_does_not_hide_the_others():
    settings = {**TRAINING, "early_stopping": True, "max_steps": 100}
    found = []
    for place in (0.0, 1e5):
        adata = cells(600)
        adata.obsm["X_pca"][-1] = place, -place
        compare(adata, train_kwargs=settings)
        found.append(adata.obs["da_log_ratio"].to_numpy()[:-1])
    assert found[0].std() > 0.5
    assert np.sqrt(np.mean((found[1] - found[0]) ** 2)) < 0.35 * found[0].std()


def user_column(adata: ad.AnnData) -> None:
    adata.obs["da_std"] = 1.0


def column_twice(adata: ad.AnnData) -> None:
    adata.obs = pd.concat([adata.obs, adata.obs[["condition"]]], axis=1)


def user_uns(adata: ad.AnnData) -> None:
    adata.uns["da"] = {"my": "own"}


def only(n_treated: int) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        labels = np.where(np.arange(adata.n_obs) < n_treated, "treated", "control")
        adata.obs["condition"] = labels

    return change


def spoilt(value: float) -> Callable[[ad.AnnData], None]:
    def change(adata: ad.AnnData) -> None:
        adata.obsm["X_pca"][7, 0] = value

    return change


def training(**changes) -> dict:
    return {"train_kwargs": {**TRAINING, **changes}}


REFUSED = {
    "a class with one cell": (only(1), {}, ValueError, "1 cells.*treated"),
    "a class with no cell": (only(0), {}, ValueError, "treated.*control"),
    "no cells": (lambda adata: adata._inplace_subset_obs(np.arange(0)), {}, ValueError, "X_pca|condition"),
    "fewer cells than a training needs": (
        lambda adata: adata._inplace_subset_obs(np.arange(6)),
        {},
        ValueError,
        "cells",
    ),
    "NaN": (spoilt(np.nan), {}, ValueError, "X_pca.*cell7"),
    "infinity": (spoilt(-np.inf), {}, ValueError, "X_pca.*cell7"),
    "text": (embedded(lambda x: x.astype(str)), {}, TypeError, "X_pca.*real numbers"),
    "objects": (embedded(lambda x: x.astype(object)), {}, TypeError, "X_pca.*real numbers"),
    "dates": (embedded(lambda x: x.astype("datetime64[s]")), {}, TypeError, "X_pca.*real numbers"),
    "a column of the user's": (user_column, {}, ValueError, "da_std.*key_added"),
    "a record of the user's": (user_uns, {}, ValueError, "uns.*da.*key_added"),
    "names twice": (lambda adata: setattr(adata, "obs_names", ["same"] * 300), {}, ValueError, "obs_names_make_unique"),
    "an embedding that is not there": (lambda adata: None, {"use_rep": "X_umap"}, KeyError, "X_umap.*X_pca"),
    "X where there is none": (lambda adata: None, {"use_rep": "X"}, KeyError, "'X'"),
    "a sparse X": (in_x(sparse.csr_matrix), {"use_rep": "X"}, TypeError, r"^X is sparse.*scanpy\.pp\.pca.*toarray"),
    "an embedding named by a number": (lambda adata: None, {"use_rep": 3}, TypeError, "string, got 3.*X_pca"),
    "no spread": (embedded(np.ones_like), {}, ValueError, "X_pca.*same for all 300 cells"),
    "a column twice": (column_twice, {}, ValueError, "2 columns named 'condition'"),
    "a key with a slash": (lambda adata: None, {"key_added": "a/b"}, ValueError, "slash.*a/b"),
    "a key that is no text": (lambda adata: None, {"key_added": 3}, TypeError, "key_added.*3"),
    "a number that names no label": (
        labelled(1.0, 0.0, float),
        {"treatment": 2, "reference": 0},
        ValueError,
        "'2'.*1.0",
    ),
    "a treatment in another case": (
        lambda adata: None,
        {"treatment": "Treated"},
        ValueError,
        "Treated.*control.*treated",
    ),
    "no such method": (lambda adata: None, {"method": "fast"}, ValueError, "method.*fast"),
    "folds as text": (lambda adata: None, {"n_folds": "five"}, (TypeError, ValueError), "n_folds|str"),
    "more folds than cells": (lambda adata: None, {"n_folds": 500}, ValueError, "n_folds=500"),
    "no members": (lambda adata: None, {"model_kwargs": {"n_members": 0}}, ValueError, "n_members"),
    "a negative seed": (lambda adata: None, {"random_state": -1}, ValueError, "random_state.*-1"),
    "a seed of text": (lambda adata: None, {"random_state": "one"}, (TypeError, ValueError), "random_state.*one"),
    "negative steps": (lambda adata: None, training(max_steps=-5), ValueError, "max_steps.*-5"),
    "no cells per batch": (lambda adata: None, training(batch_size=0), ValueError, "batch_size.*0"),
    "a negative rate": (lambda adata: None, training(learning_rate=-1.0), ValueError, "learning_rate.*-1"),
    "a negative decay": (lambda adata: None, training(weight_decay=-1.0), ValueError, "weight_decay.*-1"),
    "all cells held out": (lambda adata: None, training(validation_size=1.0), ValueError, "validation_size.*1"),
    "no such device": (lambda adata: None, training(accelerator="abacus"), ValueError, "abacus"),
    "no such precision": (lambda adata: None, training(precision="8"), ValueError, "precision|8"),
    "epochs": (lambda adata: None, training(max_epochs=400), TypeError, "'max_epochs'; use max_steps"),
    "settings of scvi-tools' plan": (
        lambda adata: None,
        training(plan_kwargs={"lr": 1e-3}),
        TypeError,
        "learning_rate",
    ),
    "a setting misspelt": (
        lambda adata: None,
        training(learing_rate=1e-3),
        TypeError,
        "'learing_rate'; use learning_rate",
    ),
    "a size of the ensemble": (lambda adata: None, training(ensemble_size=3), TypeError, "ensemble_size"),
    "a setting of the model misspelt": (
        lambda adata: None,
        {"model_kwargs": {"n_layer": 2}},
        TypeError,
        "n_layer",
    ),
    "resumed from nowhere": (lambda adata: None, training(resume=True), ValueError, "checkpoint_dir"),
}


@pytest.mark.parametrize(("change", "kwargs", "error", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_input_that_makes_no_sense_is_refused_and_changes_nothing(change, kwargs, error, named, unchanged):
    adata = cells()
    change(adata)
    with unchanged(adata), pytest.raises(error, match=named):
        compare(adata, **kwargs)


@pytest.fixture(scope="module")
def model() -> ScRatio:
    adata = cells()
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, **MODEL)
    model.train(**TRAINING)
    return model


CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}

QUESTIONS = {
    "fewer dimensions": (embedded(lambda x: x[:, :1]), {}, ValueError, "X_pca.*1 dimensions.*2"),
    "more dimensions": (embedded(lambda x: np.c_[x, x]), {}, ValueError, "X_pca.*4 dimensions.*2"),
    "no embedding": (lambda adata: adata.obsm.pop("X_pca"), {}, KeyError, "X_pca"),
    "NaN": (spoilt(np.nan), {}, ValueError, "X_pca.*cell7"),
    "a label it never saw": (labelled("placebo", "control"), {}, ValueError, "condition.*placebo.*treated"),
    "a key it does not know": (lambda a: None, {"numerator": {"drug": "x"}}, KeyError, "numerator.*drug.*condition"),
    "a category it does not know": (lambda a: None, {"numerator": {"condition": "x"}}, ValueError, "numerator.*'x'"),
    "a category of another type": (lambda a: None, {"numerator": {"condition": None}}, ValueError, "numerator.*None"),
    "text in place of a dict": (lambda a: None, {"numerator": "treated"}, TypeError, "numerator.*dict"),
    "no such method": (lambda a: None, {"method": "heads"}, ValueError, "method.*heads"),
    "no such field": (lambda a: None, {"method": "ode", "field": "S3"}, ValueError, "field.*S3"),
    "no such divergence": (lambda a: None, {"divergence": "gauss"}, ValueError, "divergence.*gauss"),
    "negative steps": (lambda a: None, {"method": "ode", "n_steps": -4}, ValueError, "n_steps.*-4"),
    "an empty batch": (lambda a: None, {"batch_size": 0}, ValueError, "batch_size.*0"),
}


@pytest.mark.parametrize(("change", "kwargs", "error", "named"), QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_question_that_makes_no_sense_is_refused_and_changes_nothing(model, change, kwargs, error, named, unchanged):
    adata = cells()
    change(adata)
    with unchanged(adata), pytest.raises(error, match=named):
        model.log_ratio(adata, **{**CONTRAST, **kwargs})
    with unchanged(adata), pytest.raises(error, match=named):
        scratio.tl.log_ratio(adata, model, **{**CONTRAST, **kwargs})


def test_labels_are_not_needed_to_be_scored(model):
    adata = cells()
    expected = model.log_ratio(adata, **CONTRAST)
    del adata.obs["condition"]
    np.testing.assert_array_equal(model.log_ratio(adata, **CONTRAST), expected)


@pytest.mark.parametrize("method", ["head", "ode", "naive", "quadrature", "ito"])
@pytest.mark.parametrize("distance", [1e6, 1e30, 1e150])
def test_a_cell_however_far_out_has_a_finite_score_and_no_support(model, method, distance):
    adata, far = cells()[:20].copy(), cells()[:20].copy()
    far.obsm["X_pca"] = far.obsm["X_pca"].astype(np.float64)
    far.obsm["X_pca"][7, 0] = distance
    expected = model.log_ratio(adata, **CONTRAST, method=method)
    scratio.tl.log_ratio(far, model, **CONTRAST, method=method)
    others = np.delete(np.arange(20), 7)
    assert np.isfinite(far.obs["log_ratio"].iloc[7])
    assert not far.obs["log_ratio_support"].iloc[7]
    if method not in ("ode", "naive"):  # the steps of the solver are the batch's
        np.testing.assert_allclose(far.obs["log_ratio"].to_numpy()[others], expected[others], atol=1e-5)


def test_the_order_of_cells_and_the_size_of_batches_do_not_matter(model):
    adata = cells()
    expected = model.log_ratio(adata, **CONTRAST)
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_allclose(model.log_ratio(adata[order], **CONTRAST), expected[order], atol=1e-6)
    np.testing.assert_allclose(model.log_ratio(adata, **CONTRAST, batch_size=7), expected, atol=1e-6)


def test_a_model_without_cells_cannot_be_trained_and_says_how_to_get_one(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = scratio.model.ScRatio.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"no cells to train on; make one with ScRatio\(adata\)"):
        loaded.train(max_steps=5)
    with pytest.raises(ValueError, match="loaded without cells: pass adata"):
        loaded.log_ratio(**CONTRAST)
