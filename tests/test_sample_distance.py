"""Distances between samples: known answers, unequal sizes, what is refused, what is written, what is drawn."""

from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from scipy.spatial.distance import squareform

import scratio
from scratio.model import ScRatio
from scratio.stats import divergences

SIZES = {"a": 900, "b": 90, "c": 600, "d": 300}
SHIFT = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 2.0}
TRAINING = {"max_steps": 300, "batch_size": 256, "warmup_steps": 20, "progress_bar": False, "accelerator": "cpu"}
QUICK = {"effort": "quick", "n_folds": 2, "train_kwargs": {"progress_bar": False}}


def samples(sizes: dict[str, int] = SIZES, shift: dict[str, float] = SHIFT, n_dims: int = 3, seed: int = 0) -> AnnData:
    """Standard Gaussians, moved along the first axis, in an order that says nothing."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    x = rng.normal(size=(len(names), n_dims))
    x[:, 0] += [shift[name] for name in names]
    obs = pd.DataFrame({"sample": names}, index=[f"cell{i}" for i in range(len(names))])
    return AnnData(obs=obs, obsm={"X_pca": x})


def off_diagonal(table: pd.DataFrame | np.ndarray) -> np.ndarray:
    return squareform(np.asarray(table, dtype=float), checks=False)


@pytest.fixture(scope="module")
def result() -> AnnData:
    adata = samples()
    adata.obs["group"] = np.where(adata.obs["sample"].isin(["a", "b"]), "near", "far")
    scratio.tl.sample_distance(
        adata, sample_key="sample", n_folds=2, model_kwargs={"n_hidden": 32, "n_members": 2}, train_kwargs=TRAINING
    )
    return adata


def test_the_distance_of_gaussians_is_the_square_of_their_shift(result):
    names = list(SIZES)
    truth = (np.array([SHIFT[one] for one in names])[:, None] - [SHIFT[one] for one in names]) ** 2
    distance = result.uns["sample_distance"]["distance"]
    assert distance.index.tolist() == distance.columns.tolist() == names
    np.testing.assert_allclose(distance, truth, atol=0.15 + 0.2 * truth.max())
    error = result.uns["sample_distance"]["standard_error"]
    z = (off_diagonal(distance) - off_diagonal(truth)) / off_diagonal(error)
    assert np.abs(z).max() < 3.5
    # Two of one distribution, ten times as many cells in one.
    assert distance.loc["a", "b"] < 0.15


def test_a_distance_is_symmetric_and_none_to_itself(result):
    for name in ("distance", "standard_error"):
        table = result.uns["sample_distance"][name].to_numpy()
        np.testing.assert_array_equal(table, table.T)
        np.testing.assert_array_equal(np.diag(table), 0.0)
        assert (off_diagonal(table) >= 0.0).all()


@pytest.mark.parametrize("effort", ["default", "quick"])
def test_shares_of_cell_types_make_a_distance(effort):
    # Types that do not overlap: the divergence is that of the shares.
    shares, sizes = {"a": 0.2, "b": 0.5, "c": 0.5}, {"a": 800, "b": 500, "c": 100}
    rng, adata = np.random.default_rng(1), samples(sizes, dict.fromkeys(sizes, 0.0))
    is_second = np.zeros(adata.n_obs, dtype=bool)
    for name, share in shares.items():
        own = np.flatnonzero(adata.obs["sample"] == name)
        is_second[rng.permutation(own)[: round(share * len(own))]] = True
    adata.obsm["X_pca"][:, 1] += 12.0 * is_second
    settings = QUICK if effort == "quick" else {"n_folds": 2, "train_kwargs": TRAINING}
    scratio.tl.sample_distance(adata, sample_key="sample", **settings)
    distance = adata.uns["sample_distance"]["distance"]
    expected = (0.5 - 0.2) * np.log(0.5 / 0.2) + (0.5 - 0.8) * np.log(0.5 / 0.8)
    assert distance.loc["a", "b"] == pytest.approx(expected, abs=0.1)
    assert distance.loc["b", "c"] == pytest.approx(0.0, abs=0.1)


def test_no_difference_is_no_distance_however_unequal_the_sizes():
    sizes = {"a": 1_000, "b": 40, "c": 300, "d": 12}
    adata = samples(sizes, dict.fromkeys(sizes, 0.0), n_dims=5)
    scratio.tl.sample_distance(adata, sample_key="sample", n_folds=3, train_kwargs=TRAINING)
    stored = adata.uns["sample_distance"]
    distance, error = off_diagonal(stored["distance"]), off_diagonal(stored["standard_error"])
    assert (distance < 2.5 * error).all()
    # That of means a third of a standard deviation apart.
    assert distance.max() < 0.1


@pytest.fixture(scope="module")
def crossed():
    """A model of two crossed keys, unequally often."""
    adata = samples()
    adata.obs["group"] = np.where(np.arange(adata.n_obs) % 3, "x", "y")
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["group", "sample"])
    model = scratio.model.ScRatio(adata, n_hidden=16, n_members=2, n_folds=2)
    model.train(**{**TRAINING, "max_steps": 60})
    return model


def test_divergences_are_means_of_log_ratios_over_the_cells_of_a_category(crossed):
    found = crossed.divergences(key="sample")
    assert found.groups == list(SIZES)
    np.testing.assert_array_equal(found.n_cells, list(SIZES.values()))
    for i, own in enumerate(found.groups):
        cells = (crossed.adata.obs["sample"] == own).to_numpy()
        for k, other in enumerate(found.groups):
            ratio = crossed.log_ratio(numerator={"sample": own}, denominator={"sample": other})[cells]
            assert found.kl[i, k] == pytest.approx(ratio.mean(), abs=1e-6)
    np.testing.assert_allclose(found.symmetric, found.kl + found.kl.T)


def test_divergences_do_not_depend_on_blocks(crossed, monkeypatch):
    whole = crossed.divergences(key="sample")
    monkeypatch.setattr("scratio.model._divergence.ENTRIES", 1_000)
    parts = crossed.divergences(key="sample")
    for name in ("kl", "kl_error", "symmetric", "symmetric_error"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-6)


def test_the_error_of_a_divergence_is_that_of_cells_and_of_networks():
    mean = np.array([[0.0, 1.0], [2.0, 0.0]])
    variance, n_cells = np.array([[0.0, 4.0], [9.0, 0.0]]), np.array([16, 900])
    # Networks that differ by a term that all log ratios share: it moves one direction up and the other one down.
    shift = np.array([-0.3, 0.0, 0.3])[:, None, None] * np.array([[0.0, 1.0], [-1.0, 0.0]])
    nothing = {"parts": np.zeros((0, 2, 2)), "shares": np.zeros(0)}
    found = divergences(["a", "b"], n_cells, mean, variance, mean + shift, 2.0, **nothing)
    np.testing.assert_allclose(found.kl_error[0, 1] ** 2, 4.0 / 16 + 2.0 * 0.09)
    np.testing.assert_allclose(found.kl_error[1, 0] ** 2, 9.0 / 900 + 2.0 * 0.09)
    np.testing.assert_allclose(found.symmetric_error, np.sqrt(4.0 / 16 + 9.0 / 900) * (1.0 - np.eye(2)))
    np.testing.assert_allclose(found.symmetric, [[0.0, 3.0], [3.0, 0.0]])
    # Two parts that disagree by .3 on one direction and by .1 on the other.
    parts = np.array([[[0.0, 0.3], [0.1, 0.0]], [[0.0, -0.3], [-0.1, 0.0]]])
    biased = divergences(["a", "b"], n_cells, mean, variance, mean + shift, 2.0, parts, np.array([0.25, 0.75]))
    np.testing.assert_allclose(biased.kl_error[0, 1] ** 2 - found.kl_error[0, 1] ** 2, 0.09)
    np.testing.assert_allclose(biased.symmetric_error[0, 1] ** 2 - found.symmetric_error[0, 1] ** 2, 0.16)
    alone = divergences(["a", "b"], n_cells, mean, variance, mean[None], np.nan, **nothing)
    assert np.isnan(off_diagonal(alone.symmetric_error)).all()


def test_a_saved_model_has_its_divergences_once_it_has_cells(crossed, tmp_path):
    crossed.save(tmp_path / "model")
    loaded = scratio.model.ScRatio.load(tmp_path / "model", adata=crossed.adata)
    np.testing.assert_allclose(loaded.divergences(key="sample").symmetric, crossed.divergences(key="sample").symmetric)
    with pytest.raises(ValueError, match="load it with adata"):
        scratio.model.ScRatio.load(tmp_path / "model").divergences(key="sample")


def test_divergences_are_refused_where_there_are_none(crossed):
    with pytest.raises(KeyError, match="'donor', which is not registered"):
        crossed.divergences(key="donor")
    adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
    adata.obs["age"] = np.linspace(0.0, 1.0, 200)
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"], continuous_keys=["age"])
    brief = {**TRAINING, "max_steps": 5}
    model = scratio.model.ScRatio(adata, n_hidden=8)
    with pytest.raises(RuntimeError, match="train"):
        model.divergences(key="condition")
    model.train(**brief)
    with pytest.raises(ValueError, match="continuous key"):
        model.divergences(key="age")
    heads = scratio.model.ScRatio(adata, parametrization="heads", n_hidden=8)
    heads.train(**brief)
    with pytest.raises(ValueError, match="parametrization='potential'"):
        heads.divergences(key="condition")


def test_the_table_has_every_pair_once(result):
    stored, table = result.uns["sample_distance"], scratio.get.table(result, key="sample_distance")
    assert list(zip(table["first"], table["second"], strict=True)) == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d"),
    ]  # fmt: skip
    for row in table.itertuples():
        assert (row.n_first, row.n_second) == (SIZES[row.first], SIZES[row.second])
        assert row.distance == stored["distance"].loc[row.first, row.second]
        assert row.standard_error == stored["standard_error"].loc[row.first, row.second]
        assert max(row.kl_first + row.kl_second, 0.0) == pytest.approx(row.distance)
    pd.testing.assert_frame_equal(
        scratio.get.samples(result, key="sample_distance"),
        pd.DataFrame({"sample": list(SIZES), "n_cells": list(SIZES.values()), "left_out": ""}),
        check_dtype=False,
    )


def test_small_samples_are_left_out_by_name():
    adata = samples({**SIZES, "tiny": 7}, {**SHIFT, "tiny": 0.0})
    with pytest.warns(UserWarning, match=r"1 of 5 samples in obs\['sample'\].*fewer than 8 cells: 'tiny' \(7 cells\)"):
        scratio.tl.sample_distance(adata, sample_key="sample", min_cells=8, **QUICK)
    assert adata.uns["sample_distance"]["distance"].index.tolist() == list(SIZES)
    table = scratio.get.samples(adata, key="sample_distance").set_index("sample")
    assert table.loc["tiny", "left_out"] == "fewer than 8 cells"
    # As many cells as there are folds are needed in any case.
    with pytest.warns(UserWarning, match="fewer than 9 cells"):
        scratio.tl.sample_distance(adata, sample_key="sample", **{**QUICK, "n_folds": 9})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sample_key": "donor"}, KeyError, "donor"),
        ({"use_rep": "X_umap"}, KeyError, "X_umap"),
        ({"min_cells": 700}, ValueError, "1 samples with at least 700 cells"),
        ({"min_cells": 0}, ValueError, "min_cells must be at least 1"),
        ({"n_folds": 1}, ValueError, "n_folds must be at least 2"),
        ({"effort": "slow"}, ValueError, "effort must be one of"),
        ({"model_kwargs": {"parametrization": "heads"}}, ValueError, "parametrization='heads'"),
        ({"key_added": "mine"}, ValueError, "would be overwritten"),
        ({"key_added": "a/b"}, ValueError, "slash"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_changes_nothing(change, error, message, unchanged):
    adata = samples()
    adata.uns["mine"] = {"notes": 1}
    with unchanged(adata), pytest.raises(error, match=message):
        scratio.tl.sample_distance(adata, **{"sample_key": "sample", **QUICK, **change})


def test_one_seed_is_one_result_and_a_second_call_replaces_the_first():
    adata = samples()
    scratio.tl.sample_distance(adata, sample_key="sample", **QUICK)
    first = adata.uns["sample_distance"]["distance"]
    other = scratio.tl.sample_distance(adata, sample_key="sample", copy=True, **QUICK)
    scratio.tl.sample_distance(adata, sample_key="sample", **QUICK)
    for again in (other, adata):
        pd.testing.assert_frame_equal(again.uns["sample_distance"]["distance"], first)


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")
@pytest.mark.parametrize("container", ["h5ad", "zarr"])
def test_distances_are_written_and_read(result, container, tmp_path):
    path = tmp_path / f"cells.{container}"
    getattr(result, f"write_{container}")(path)
    found = getattr(anndata, f"read_{container}")(path)
    pd.testing.assert_frame_equal(
        scratio.get.table(found, key="sample_distance"), scratio.get.table(result, key="sample_distance")
    )
    stored = found.uns["sample_distance"]["distance"]
    np.testing.assert_array_equal(stored, result.uns["sample_distance"]["distance"])
    ax = scratio.pl.sample_distance(found, "group")
    assert [label.get_text() for label in ax.get_yticklabels()] == shown_order(result)
    plt.close("all")


def shown_order(adata: AnnData) -> list[str]:
    names = list(adata.uns["sample_distance"]["distance"].index)
    return [names[place] for place in adata.uns["sample_distance"]["tree"]["order"]]


def test_the_summary_says_what_was_measured(result):
    summary = scratio.tl.summary(result, key="sample_distance")
    assert summary.title.startswith("distances between sample, 1,890 cells, X_pca")
    assert "Kullback-Leibler" in summary.notes[-1]
    assert "unchanged since" in summary.details.facts["computed from"]


def test_similar_samples_are_drawn_side_by_side(result):
    ax = scratio.pl.sample_distance(result)
    order = [label.get_text() for label in ax.get_xticklabels()]
    assert order == shown_order(result) == [label.get_text() for label in ax.get_yticklabels()]
    assert abs(order.index("a") - order.index("b")) == 1
    drawn = ax.collections[0].get_array().reshape(4, 4)
    np.testing.assert_allclose(drawn, result.uns["sample_distance"]["distance"].loc[order, order])
    assert ax.collections[0].norm.vmin == 0.0
    # The last merger of the tree is drawn at its height.
    heights = np.concatenate([line.get_xdata() for line in ax.child_axes[0].lines])
    assert heights.max() == pytest.approx(result.uns["sample_distance"]["tree"]["linkage"][-1, 2])
    plain = scratio.pl.sample_distance(result, cluster=False)
    assert [label.get_text() for label in plain.get_xticklabels()] == list(SIZES)
    assert not plain.child_axes
    plt.close("all")


def test_groups_of_samples_are_coloured_as_scanpy_colours_them(result):
    adata = result.copy()
    adata.obs["group"] = pd.Categorical(adata.obs["group"], ["far", "near"])
    adata.uns["group_colors"] = ["#ff0000", "#0000ff"]
    ax = scratio.pl.sample_distance(adata, "group")
    strip = next(child for child in ax.child_axes if child.images).images[0].get_array()[0]
    expected = {"a": "#0000ff", "b": "#0000ff", "c": "#ff0000", "d": "#ff0000"}
    assert [to_hex(colour) for colour in strip] == [expected[name] for name in shown_order(adata)]
    legend = {text.get_text(): to_hex(patch.get_facecolor()) for text, patch in
              zip(ax.get_legend().get_texts(), ax.get_legend().get_patches(), strict=True)}  # fmt: skip
    assert legend == {"far": "#ff0000", "near": "#0000ff"}
    adata.obs["half"] = np.arange(adata.n_obs) % 2
    with pytest.raises(ValueError, match=r"one value for all cells of a sample; '[a-d]' .* has \['0', '1'\]"):
        scratio.pl.sample_distance(adata, "half")
    with pytest.raises(KeyError, match="run scratio.tl.sample_distance"):
        scratio.pl.sample_distance(samples())
    plt.close("all")


# --- what a review found --------------------------------------------------------------------------------------------


def alike(sizes: list[int], shift: float = 0.0, seed: int = 0) -> AnnData:
    """Samples of normal cells, each ``shift`` further along the first of ten dimensions."""
    sample = np.repeat(np.arange(len(sizes)), sizes)
    x = np.random.default_rng(seed).normal(size=(len(sample), 10))
    x[:, 0] += shift * sample
    names = np.array([f"s{number:03d}" for number in range(len(sizes))])[sample]
    obs = pd.DataFrame({"sample": names}, index=[f"cell{i}" for i in range(len(sample))])
    return AnnData(obs=obs, obsm={"X_pca": x})


@pytest.mark.parametrize("sizes", [[10, 14], [30, 10, 20], [40, *[20] * 33]])
def test_where_nothing_is_found_all_distances_are_zero_and_their_errors_unknown(sizes):
    # No closed form takes part: too few cells, or too many samples for abundances.
    adata = alike(sizes)
    scratio.tl.sample_distance(adata, sample_key="sample", effort="quick")
    table = adata.uns["sample_distance"]["table"]
    assert len(table) == len(sizes) * (len(sizes) - 1) // 2
    assert (table["distance"] == 0.0).all()
    assert table["standard_error"].isna().all()


def test_more_samples_than_quick_closed_forms_are_refused_before_training(unchanged):
    adata = alike([6] * 257)
    with unchanged(adata), pytest.raises(ValueError, match=r"at most 256 samples; obs\['sample'\] has 257"):
        scratio.tl.sample_distance(adata, sample_key="sample", effort="quick", min_cells=5)


def test_training_cells_are_scored_out_of_fold_in_any_order_and_company(tmp_path):
    adata = alike([100, 60, 80])
    ScRatio.setup_anndata(adata, condition_keys=["sample"])
    model = ScRatio(adata, n_folds=3)
    # Overfitted, so that scores of networks that saw a cell would be nats too large.
    model.train(max_steps=300, early_stopping=False, progress_bar=False)
    expected = model.divergences(key="sample").symmetric
    model.save(tmp_path / "model")
    reverse = ScRatio.load(tmp_path / "model", adata=adata[::-1].copy()).divergences(key="sample").symmetric
    np.testing.assert_allclose(reverse, expected, atol=1e-4)
    fewer = ScRatio.load(tmp_path / "model", adata=adata[1:].copy()).divergences(key="sample").symmetric
    np.testing.assert_allclose(fewer, expected, atol=0.2)
    # Cells without the last or the middle sample: distances of the others are the same.
    for left_out, kept in (("s002", [0, 1]), ("s001", [0, 2])):
        own = adata[adata.obs["sample"] != left_out].copy()
        found = ScRatio.load(tmp_path / "model", adata=own).divergences(key="sample")
        np.testing.assert_allclose(found.symmetric, expected[np.ix_(kept, kept)], atol=1e-4)


def test_a_sample_called_sample_can_be_written(tmp_path):
    adata = alike([30, 40, 25], shift=1.0)
    adata.obs["sample"] = adata.obs["sample"].replace({"s001": "sample"})
    scratio.tl.sample_distance(adata, sample_key="sample", effort="quick")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad").uns["sample_distance"]["distance"]
    assert list(read.index) == list(read.columns) == ["s000", "s002", "sample"]


def test_groups_of_samples_that_were_renamed_are_refused():
    adata = alike([30, 40, 25], shift=1.0)
    adata.obs["group"] = np.where(adata.obs["sample"] == "s000", "a", "b")
    scratio.tl.sample_distance(adata, sample_key="sample", effort="quick")
    adata.obs["sample"] = "new " + adata.obs["sample"].astype(str)
    with pytest.raises(ValueError, match=r"obs\['sample'\] has none of the samples of the result.*'s000'.*'new s000'"):
        scratio.pl.sample_distance(adata, "group")
