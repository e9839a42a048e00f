"""Combinations of treatments: known answers, both ways to name them, what is refused, what is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.linear_model import LogisticRegression

import scratio
from scratio.stats import held_out_log_odds

FIT = {
    "n_folds": 2,
    "model_kwargs": {"n_hidden": 32, "n_members": 2},
    "train_kwargs": {"max_steps": 400, "batch_size": 256, "warmup_steps": 20, "progress_bar": False},
}


def two_drugs(n: int = 4_000, seed: int = 0) -> AnnData:
    """Drug a moves cells by 1, b by .5, both of them by 2.5: one more than the sum. Drug c together with a: the sum."""
    rng = np.random.default_rng(seed)
    shifts = {
        ("none", "none"): 0.0,
        ("a", "none"): 1.0,
        ("none", "b"): 0.5,
        ("a", "b"): 2.5,
        ("none", "c"): 0.5,
        ("a", "c"): 1.5,
    }
    names = list(shifts)
    own = rng.integers(0, len(names), n)
    obs = pd.DataFrame([names[k] for k in own], columns=["one", "two"], index=[f"cell{i}" for i in range(n)])
    drugs = obs.apply(lambda row: [drug for drug in row if drug != "none"], axis=1)
    obs["drug"] = ["+".join(d) or "none" for d in drugs]
    obs["in_medium"] = ["+".join(["medium", *d]) for d in drugs]
    x = np.array([shifts[names[k]] for k in own]) + rng.normal(size=n)
    return AnnData(obs=obs, obsm={"X_pca": np.stack([x, rng.normal(size=n)], axis=1)})


TWO_COLUMNS = {"condition_keys": ["one", "two"], "combination": [("a", "b"), ("a", "c")], "reference": ("none", "none")}


@pytest.fixture(scope="module")
def result() -> AnnData:
    adata = two_drugs()
    scratio.tl.combination_effect(adata, **TWO_COLUMNS, **FIT)
    return adata


def normal(x: np.ndarray, shift: float) -> np.ndarray:
    return -0.5 * (x - shift) ** 2


@pytest.mark.parametrize(("name", "both", "second"), [("a+b", 2.5, 0.5), ("a+c", 1.5, 0.5)])
def test_log_ratio_and_interaction_are_near_the_closed_form(result, name, both, second):
    x = result.obsm["X_pca"][:, 0]
    ratio = normal(x, both) - normal(x, 1.0)
    truth = {"log_ratio": ratio, "interaction": ratio + normal(x, 0.0) - normal(x, second)}
    cells = result.obs["two"].isin(["none", name[-1]]).to_numpy()
    for kind, expected in truth.items():
        found = result.obs[f"combination_{name}_{kind}"].to_numpy()
        np.testing.assert_array_equal(np.isnan(found), ~cells)
        assert np.mean((found[cells] - expected[cells]) ** 2) < 0.12
    assert truth["interaction"].var() > 1.0 or name == "a+c"


def test_the_summary_is_that_of_the_cells(result):
    summary = result.uns["combination"]["summary"].set_index("combination")
    assert list(summary.index) == ["a+b", "a+c"]
    row, values = summary.loc["a+b"], result.obs["combination_a+b_log_ratio"]
    both, first = (result.obs["drug"] == name for name in ("a+b", "a"))
    assert (row["first"], row["second"], row["over"]) == ("a", "b", "a+none")
    assert (row["n_combination"], row["n_first"]) == (both.sum(), first.sum())
    assert row["mean"] == pytest.approx(values[both].mean())
    assert row["mean_magnitude"] == pytest.approx(values[both | first].abs().mean())
    assert row["mean_interaction"] == pytest.approx(result.obs.loc[both, "combination_a+b_interaction"].mean())
    # A logistic regression is right about two Gaussians of one spread.
    assert row["classifier_magnitude"] == pytest.approx(row["mean_magnitude"], rel=0.2)
    assert summary.loc["a+b", "classifier_magnitude"] > summary.loc["a+c", "classifier_magnitude"]


@pytest.mark.parametrize(
    "naming",
    [
        {"condition_keys": "drug", "combination": "a+b", "reference": "none"},
        {"condition_keys": "in_medium", "combination": "medium+a+b", "reference": "medium"},
        {"condition_keys": ["one", "two"], "combination": ("a", "b"), "reference": ("none", "none")},
    ],
    ids=["one column", "reference within", "two columns"],
)
def test_every_way_to_name_a_combination_means_the_same_groups(naming, quick):
    adata = two_drugs(600)
    kwargs = {"n_folds": 2, "model_kwargs": {"n_hidden": 8, "n_members": 1}, "train_kwargs": quick}
    scratio.tl.combination_effect(adata, **naming, **kwargs)
    row = adata.uns["combination"]["summary"].iloc[0]
    assert row["n_combination"] == (adata.obs["drug"] == "a+b").sum()
    assert row["n_first"] == (adata.obs["drug"] == "a").sum()
    known = adata.obs["drug"].isin(["none", "a", "b", "a+b"])
    assert adata.obs["combination_log_ratio"].notna().tolist() == known.tolist()


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"condition_keys": ["one", "dose"]}, KeyError, "dose"),
        ({"condition_keys": "one"}, ValueError, "two treatments"),
        ({"condition_keys": ["one", "one"]}, ValueError, "one column or two"),
        ({"combination": ("a", "none")}, ValueError, "reference"),
        ({"combination": ("a", "z")}, ValueError, "a \\+ z.*0"),
        ({"reference": "none"}, ValueError, "pairs"),
        ({"condition_keys": "drug", "combination": "a+z", "reference": "none"}, ValueError, "a\\+z.*0"),
        ({"n_folds": 1}, ValueError, "n_folds"),
        ({"use_rep": "X_umap"}, KeyError, "X_umap"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(unchanged, kwargs, error, named):
    adata = two_drugs(200)
    with unchanged(adata), pytest.raises(error, match=named):
        scratio.tl.combination_effect(adata, **{**TWO_COLUMNS, **kwargs})


def test_the_classifiers_log_odds_are_near_the_closed_form_and_held_out():
    rng = np.random.default_rng(0)
    first = rng.uniform(size=4_000) < 0.2
    x = rng.normal(size=(4_000, 2)) + first[:, None]
    odds = held_out_log_odds(x, first, 5, 0)
    truth = x.sum(1) - 1.0  # the class sizes do not count
    assert np.mean((odds - truth) ** 2) < 0.02
    noise = rng.normal(size=(60, 40))
    label = rng.integers(0, 2, 60).astype(bool)
    seen = LogisticRegression(C=1e3).fit(noise, label).decision_function(noise)
    held_out = held_out_log_odds(noise, label, 5, 0)
    assert np.corrcoef(seen, label)[0, 1] > 0.6
    assert abs(np.corrcoef(held_out, label)[0, 1]) < 0.4


# --- the plot


@pytest.mark.parametrize(("value", "centred"), [("mean_magnitude", False), ("mean_interaction", True)])
def test_the_matrix_shows_the_summary(result, value, centred):
    ax = scratio.pl.combination_effect(result, value=value)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "c"]
    mesh = ax.collections[0]
    np.testing.assert_array_equal(mesh.get_array().ravel(), result.uns["combination"]["summary"][value])
    low, high = mesh.get_clim()
    assert low == (-high if centred else 0.0)
    plt.close("all")


def test_the_plot_refuses_what_is_not_there(result):
    with pytest.raises(KeyError, match="nothing"):
        scratio.pl.combination_effect(result, key="nothing")
    with pytest.raises(ValueError, match="median"):
        scratio.pl.combination_effect(result, value="median")
