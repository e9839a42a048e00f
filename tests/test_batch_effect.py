"""Batch effects: known answers, tables, what is left out, what is refused, what is drawn."""

from __future__ import annotations

import warnings

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import norm

import scratio


def two_batches(n: int = 2_000, seed: int = 0) -> AnnData:
    """Two cell types three apart, two batches that move cells of type A by 1.5 and those of type B not at all."""
    rng = np.random.default_rng(seed)
    batch, kind = rng.integers(0, 2, n), rng.integers(0, 2, n)
    centre = 4.0 * kind
    moved = centre + 1.5 * batch * (kind == 0)
    noise = rng.normal(size=n)
    obs = pd.DataFrame({"batch": batch.astype(str), "kind": np.where(kind == 0, "A", "B")})
    obs.index = [f"cell{i}" for i in range(n)]
    corrected, before = centre + noise, moved + noise
    truth = norm(1.5 * batch).logpdf(before) - np.log(0.5 * norm(0.0).pdf(before) + 0.5 * norm(1.5).pdf(before))
    obs["truth"] = np.where(kind == 0, truth, 0.0)
    return AnnData(obs=obs, obsm={"X_before": before[:, None], "X_after": corrected[:, None]})


@pytest.fixture(scope="module")
def result() -> AnnData:
    adata = two_batches()
    scratio.tl.batch_effect(
        adata, batch_key="batch", label_key="kind", use_rep=["X_before", "X_after"], n_folds=2,
        model_kwargs={"n_hidden": 32, "n_members": 2},
        train_kwargs={"max_steps": 300, "batch_size": 256, "warmup_steps": 20, "progress_bar": False},
    )  # fmt: skip
    return adata


def test_the_batch_effect_is_near_the_closed_form(result):
    found, truth = result.obs["batch_effect_X_before_log_ratio"], result.obs["truth"]
    assert truth.var() > 0.1
    assert np.mean((found - truth) ** 2) < 0.15 * truth.var()
    assert result.obs["batch_effect_X_before_std"].gt(0.0).any()


def test_without_a_batch_effect_there_is_none(result):
    after = result.obs["batch_effect_X_after_log_ratio"]
    assert np.mean(after**2) < 0.01
    assert abs(after.median()) < 0.01


def test_the_summary_is_that_of_the_columns(result):
    summary = result.uns["batch_effect"]["summary"].set_index(["embedding", "by", "group"])
    assert len(summary) == 2 * (1 + 2 + 2)
    values = result.obs["batch_effect_X_before_log_ratio"]
    for by, group, part in (("all", "all cells", values), ("kind", "A", values[result.obs["kind"] == "A"]),
                            ("batch", "1", values[result.obs["batch"] == "1"])):  # fmt: skip
        row = summary.loc[("X_before", by, group)]
        assert row["n_cells"] == len(part)
        assert row["mean"] == pytest.approx(part.mean())
        assert row["median"] == pytest.approx(part.median())
        assert row["median_magnitude"] == pytest.approx(part.abs().median())
    medians = summary.loc["X_before"].loc["kind", "median_magnitude"]
    assert medians["A"] > 5 * medians["B"]


def test_the_standard_error_is_a_jackknife_over_batches(result):
    values, batch = result.obs["batch_effect_X_before_log_ratio"], result.obs["batch"]
    without = [values[batch != name].median() for name in ("0", "1")]
    expected = abs(without[0] - without[1]) / 2.0  # sqrt((n - 1) / n * sum of squares) for two
    summary = result.uns["batch_effect"]["summary"]
    found = summary.loc[(summary["embedding"] == "X_before") & (summary["by"] == "all"), "standard_error"]
    assert float(found.iloc[0]) == pytest.approx(expected)


def test_the_ceiling_is_the_mean_of_batches_that_do_not_overlap():
    # Unequal batches, in other shares of the types; type C is of one batch alone.
    rng = np.random.default_rng(0)
    design = [("0", "A", 60), ("1", "A", 240), ("2", "A", 300), ("0", "B", 200), ("1", "B", 100), ("2", "C", 80)]
    obs = pd.DataFrame([row[:2] for row in design for _ in range(row[2])], columns=["batch", "kind"])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    x = 30.0 * obs["batch"].astype(int).to_numpy() + rng.normal(size=len(obs))
    adata = AnnData(obs=obs, obsm={"X_apart": x[:, None], "X_mixed": rng.normal(size=(len(obs), 1))})
    scratio.tl.batch_effect(
        adata, batch_key="batch", label_key="kind", use_rep=["X_apart", "X_mixed"], n_folds=2,
        train_kwargs={"effort": "quick", "progress_bar": False},
    )  # fmt: skip
    summary = adata.uns["batch_effect"]["summary"].set_index(["embedding", "group"])
    shares = {"A": [0.1, 0.4, 0.5], "B": [2.0 / 3.0, 1.0 / 3.0], "C": [1.0]}
    entropy = {kind: -np.dot(share, np.log(share)) for kind, share in shares.items()}
    entropy["all cells"] = (600 * entropy["A"] + 300 * entropy["B"]) / 980
    for group, expected in entropy.items():
        for name, mean, left in (("X_apart", expected, 1.0), ("X_mixed", 0.0, np.exp(expected))):
            row = summary.loc[(name, group)]
            assert row["ceiling"] == pytest.approx(expected)
            assert row["mean"] == pytest.approx(mean, abs=0.05)
            assert row["batches_left"] == pytest.approx(left, abs=0.1)
    of_batches = summary.loc["X_apart"].loc[["0", "1", "2"]]
    assert of_batches["batches_left"].isna().all()
    np.testing.assert_allclose(of_batches["mean"], of_batches["ceiling"], atol=0.05)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_the_result_survives_writing(result, tmp_path, kind):
    path = tmp_path / f"cells.{kind}"
    (result.write_h5ad if kind == "h5ad" else result.write_zarr)(path)
    again = (anndata.read_h5ad if kind == "h5ad" else anndata.read_zarr)(path)
    pd.testing.assert_frame_equal(
        again.uns["batch_effect"]["summary"].reset_index(drop=True).astype({"group": str, "by": str, "embedding": str}),
        result.uns["batch_effect"]["summary"].astype({"group": str, "by": str, "embedding": str}),
        check_dtype=False, check_index_type=False, check_column_type=False,
    )  # fmt: skip
    np.testing.assert_array_equal(
        again.obs["batch_effect_X_after_log_ratio"], result.obs["batch_effect_X_after_log_ratio"]
    )


def test_batches_with_too_few_cells_of_a_label_have_no_value(quick):
    adata = two_batches(120)
    few = np.flatnonzero((adata.obs["batch"] == "1") & (adata.obs["kind"] == "B"))[2:]
    adata.obs.iloc[few, adata.obs.columns.get_loc("batch")] = "0"
    scratio.tl.batch_effect(
        adata, batch_key="batch", label_key="kind", use_rep="X_before", n_folds=3,
        model_kwargs={"n_hidden": 8, "n_members": 1}, train_kwargs=quick,
    )  # fmt: skip
    small = (adata.obs["batch"] == "1") & (adata.obs["kind"] == "B")
    assert small.sum() == 2
    assert adata.obs["batch_effect_log_ratio"].isna().tolist() == small.tolist()
    assert adata.uns["batch_effect"]["summary"]["n_cells"].iloc[0] == 118


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"batch_key": "run"}, KeyError, "run"),
        ({"label_key": "run"}, KeyError, "run"),
        ({"use_rep": "X_umap"}, KeyError, "X_umap"),
        ({"use_rep": ["X_after", "X_after"]}, ValueError, "once"),
        ({"use_rep": []}, ValueError, "at least one"),
        ({"label_key": "batch"}, ValueError, "batch"),
        ({"n_folds": 1}, ValueError, "n_folds"),
        ({"method": "magic"}, ValueError, "magic"),
        ({"batch_key": "one"}, ValueError, "one.*1 batches"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(unchanged, kwargs, error, named):
    adata = two_batches(60)
    adata.obs["one"] = "same"
    call = {"batch_key": "batch", "use_rep": ["X_before", "X_after"], **kwargs}
    with unchanged(adata), pytest.raises(error, match=named):
        scratio.tl.batch_effect(adata, **call)


# --- the plot


def test_the_plot_has_a_box_for_each_embedding_and_its_median(result):
    ax = scratio.pl.batch_effect(result)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["X_before", "X_after"]
    texts = [text.get_text() for text in ax.texts]
    columns = [f"batch_effect_{name}_log_ratio" for name in ("X_before", "X_after")]
    assert texts == [f"median {result.obs[column].median():.2f}" for column in columns]
    boxes = [patch.get_path().vertices[:, 0] for patch in ax.patches]
    for vertices, column in zip(boxes, columns, strict=True):
        np.testing.assert_allclose([vertices.min(), vertices.max()], result.obs[column].quantile([0.25, 0.75]))
    assert "label" in ax.get_xlabel()
    plt.close("all")


def test_the_plot_by_group_has_a_box_for_each_embedding_and_group(result):
    ax = scratio.pl.batch_effect(result, groupby="kind")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B"]
    assert len(ax.patches) >= 4
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["X_before", "X_after"]
    plt.close("all")


def test_the_plot_refuses_what_is_not_there(result):
    with pytest.raises(KeyError, match="nothing"):
        scratio.pl.batch_effect(result, key="nothing")
    with pytest.raises(KeyError, match="donor"):
        scratio.pl.batch_effect(result, groupby="donor")


def test_a_column_that_leaves_most_cells_out_is_asked_about():
    rng = np.random.default_rng(0)
    batch = np.r_[np.repeat(["a", "b"], [40, 25]), [f"alone {number}" for number in range(100)]]
    adata = AnnData(obs=pd.DataFrame({"batch": batch}, index=[f"cell{i}" for i in range(165)]))
    adata.obsm["X_pca"] = rng.normal(size=(165, 2))
    quick = {"train_kwargs": {"effort": "quick"}}
    with pytest.warns(UserWarning, match=r"100 of 165 cells are not scored.*fewer than n_folds=5 cells. Are these"):
        scratio.tl.batch_effect(adata, batch_key="batch", **quick)
    assert adata.obs["batch_effect_log_ratio"].notna().sum() == 65
    # A few cells of small batches are usual.
    few = adata[:67].copy()
    with warnings.catch_warnings(action="error", category=UserWarning):
        scratio.tl.batch_effect(few, batch_key="batch", **quick)
