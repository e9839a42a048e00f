"""Plots of what was tested across samples: what is drawn where, in which colour, and under which name."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from scipy import sparse

import scratio
from scratio.pl._base import UNSUPPORTED

SIZES = [40, 80, 20, 60, 40]
EFFECTS = np.array([1.5, 0.8, -1.2, 0.2, -0.1])
QVALUES = np.array([0.001, 0.04, 0.02, 0.6, 0.9])
CENTRES = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


def judged(paired: bool = False) -> AnnData:
    """Five neighbourhoods of unequal sizes; the first two are of type 1, the third of type b/c, the fourth of both."""
    rng = np.random.default_rng(0)
    place = np.repeat(np.arange(5), SIZES)
    n = len(place)
    types = np.array(["1", "1", "b/c", "1", "b/c"])[place]
    types[np.flatnonzero(place == 3)] = np.repeat(["1", "b/c", "d"], 20)
    sample = rng.permutation(np.resize(np.arange(6), n))
    is_case = sample % 2 == 0 if paired else sample < 3
    obs = pd.DataFrame(
        {
            "donor": [f"d{s // 2}" if paired else f"d{s}" for s in sample],
            "sample": [f"s{s}" for s in sample],
            "group": np.where(is_case, "case", "control"),
            "type": pd.Categorical(types, ["1", "b/c", "d", "unused"]),
            "da_log_ratio": EFFECTS[place],
            "da_neighborhood": pd.Categorical(place.astype(str)),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    table = pd.DataFrame(
        {
            "treatment": "case",
            "neighborhood": [str(i) for i in range(5)],
            "n_cells": SIZES,
            "effect": EFFECTS,
            "effect_std": 0.3,
            "pvalue": QVALUES / 3,
            "qvalue": QVALUES,
            "familywise_pvalue": QVALUES,
            "effect_without_one": [1.0, 0.1, -1.0, np.nan, np.nan],
            "carried_by": ["", "d1", "", "", ""],
        }
    )
    samples = obs.groupby(["sample", "donor", "group"], as_index=False).size().rename(columns={"size": "n_cells"})
    samples["group"] = samples["group"].map({"case": "treatment", "control": "reference"})
    design = "within donors" if paired else "between donors"
    samples = samples.assign(treatment="case", design=design, left_out="", variance_factor=1.0)
    params = {"use_rep": "X_pca", "sample_key": "sample", "condition_key": "group", "reference": "control"}
    uns = {
        "scratio": {},
        "analysis": "differential_abundance",
        "params": params,
        "neighborhoods": table,
        "samples": samples,
        "diagnostics": pd.DataFrame({"treatment": ["case"]}),
    }
    x = CENTRES[place] + rng.normal(size=(n, 2)) * 0.3
    return AnnData(obs=obs, obsm={"X_pca": x, "X_umap": x}, uns={"da": uns})


def points(ax) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Positions, colours and areas of all points, the last on top."""
    clouds = [c for c in sorted(ax.collections, key=lambda c: c.get_zorder()) if isinstance(c, PathCollection)]
    clouds = [c for c in clouds if len(c.get_offsets())]
    positions = np.concatenate([np.asarray(c.get_offsets()) for c in clouds])
    colours = [to_hex(v) for c in clouds for v in np.broadcast_to(c.get_facecolors(), (len(c.get_offsets()), 4))]
    sizes = np.concatenate([np.broadcast_to(c.get_sizes(), len(c.get_offsets())) for c in clouds])
    return positions, colours, sizes


def is_red(colour: str) -> bool:
    return int(colour[1:3], 16) > int(colour[5:7], 16)


# --- volcano -------------------------------------------------------------------------------------------------------


def test_volcano_shows_effects_against_q_values_and_colours_what_is_significant():
    ax = scratio.pl.volcano(judged())
    positions, colours, sizes = points(ax)
    order = [int(np.abs(EFFECTS - x).argmin()) for x in positions[:, 0]]
    np.testing.assert_allclose(positions[:, 0], EFFECTS[order])
    np.testing.assert_allclose(positions[:, 1], -np.log10(QVALUES[order]))
    for place, colour in zip(order, colours, strict=True):
        if QVALUES[place] > 0.1:
            assert colour == UNSUPPORTED
        else:
            assert is_red(colour) == (EFFECTS[place] > 0)
    assert sizes[order.index(1)] == 2.0 * sizes[order.index(0)]
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text.rsplit("(", 1)[1] for text in said] == ["2)", "1)", "2)"]
    assert ax.get_title() == "case over control"


def test_volcano_names_the_most_significant_neighbourhood_of_each_type_and_sign():
    texts = scratio.pl.volcano(judged(), "type").texts
    assert sorted(text.get_text().strip() for text in texts) == ["1", "b/c"]
    assert {text.get_text(): text.get_position()[0] for text in texts}["1"] == pytest.approx(1.5)


def test_volcano_shows_p_values_where_there_are_no_q_values():
    adata = judged()
    adata.uns["da"]["neighborhoods"]["qvalue"] = np.nan
    ax = scratio.pl.volcano(adata, "type")
    assert "p-value" in ax.get_ylabel()
    assert set(points(ax)[1]) == {UNSUPPORTED}
    assert len(ax.texts) == 0


# --- beeswarm ------------------------------------------------------------------------------------------------------


def test_beeswarm_has_a_row_for_each_type_sorted_by_its_median():
    adata = judged()
    ax = scratio.pl.beeswarm(adata, "type")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1 (2)", "mixed (1)", "b/c (2)"]
    positions, colours, _ = points(ax)
    rows = dict(zip(positions[:, 0].round(6), positions[:, 1].round().astype(int), strict=True))
    assert rows == {1.5: 0, 0.8: 0, 0.2: 1, -1.2: 2, -0.1: 2}
    for x, colour in zip(positions[:, 0], colours, strict=True):
        assert (colour == UNSUPPORTED) == (abs(x) < 0.5)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    scratio.pl.beeswarm(adata, "type", order=["b/c", "1"])
    with pytest.raises(ValueError, match="'d'.*'1'"):
        scratio.pl.beeswarm(adata, "type", order=["d"])


def test_points_of_a_beeswarm_lie_beside_each_other():
    adata = judged()
    table = pd.DataFrame(np.repeat(adata.uns["da"]["neighborhoods"].to_numpy()[:1], 30, axis=0))
    table.columns = adata.uns["da"]["neighborhoods"].columns
    table = table.infer_objects().assign(neighborhood=[str(i) for i in range(30)])
    adata.uns["da"]["neighborhoods"] = table
    adata.obs["da_neighborhood"] = pd.Categorical((np.arange(adata.n_obs) % 30).astype(str))
    adata.obs["type"] = "one"
    positions, _, _ = points(scratio.pl.beeswarm(adata, "type"))
    assert len(np.unique(positions[:, 1].round(6))) == 30
    assert np.abs(positions[:, 1]).max() < 0.5


# --- regions -------------------------------------------------------------------------------------------------------


def test_regions_are_drawn_in_the_colour_of_their_sign_with_name_and_effect():
    adata = judged()
    scratio.tl.regions(adata, annotation_key="type")
    ax = scratio.pl.regions(adata, basis="umap")
    positions, colours, _ = points(ax)
    for position, colour in zip(positions, colours, strict=True):
        region = adata.obs["da_region"].iloc[np.abs(adata.obsm["X_umap"] - position).sum(1).argmin()]
        if pd.isna(region):
            assert colour == UNSUPPORTED
        else:
            assert is_red(colour) == (region == "1")
    assert {text.get_text() for text in ax.texts} == {"1 (+1.0)", "b/c (-1.2)"}
    assert ax.get_title() == "case over control: 2 regions"


def test_no_region_is_said_and_missing_regions_are_refused_by_the_call():
    adata = judged()
    with pytest.raises(KeyError, match=r"scratio\.tl\.regions"):
        scratio.pl.regions(adata)
    assert plt.get_fignums() == []
    scratio.tl.regions(adata, max_qvalue=1e-9)
    ax = scratio.pl.regions(adata)
    assert set(points(ax)[1]) == {UNSUPPORTED}
    assert "no significant region" in ax.get_title()


# --- neighbourhoods ------------------------------------------------------------------------------------------------


def test_neighborhoods_lie_at_the_medians_of_their_cells():
    adata = judged()
    ax = scratio.pl.neighborhoods(adata)
    positions, colours, sizes = points(ax)
    own = positions[-5:], colours[-5:], sizes[-5:]
    for place in range(5):
        middle = np.median(adata.obsm["X_umap"][adata.obs["da_neighborhood"] == str(place)], axis=0)
        nearest = np.abs(own[0] - middle).sum(1).argmin()
        np.testing.assert_allclose(own[0][nearest], middle, atol=1e-6)
        if QVALUES[place] > 0.1:
            assert own[1][nearest] == "#ffffff"
        else:
            assert is_red(own[1][nearest]) == (EFFECTS[place] > 0)


def test_lines_join_neighbourhoods_that_are_linked_in_the_graph_of_the_cells():
    adata = judged()
    place = adata.obs["da_neighborhood"].astype(int).to_numpy()
    links = np.zeros((adata.n_obs, adata.n_obs))
    links[np.ix_(place == 0, place == 0)] = 1.0
    links[np.ix_(place == 0, place == 1)] = links[np.ix_(place == 1, place == 0)] = 1.0
    adata.obsp["connectivities"] = sparse.csr_matrix(links)
    (lines,) = [c for c in scratio.pl.neighborhoods(adata).collections if hasattr(c, "get_segments")]
    (segment,) = lines.get_segments()
    middle = [np.median(adata.obsm["X_umap"][place == i], axis=0) for i in (0, 1)]
    np.testing.assert_allclose(segment, middle, atol=1e-6)


# --- samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paired", [False, True])
def test_samples_lie_at_their_share_of_cells_in_the_region(paired):
    adata = judged(paired)
    scratio.tl.regions(adata, annotation_key="type")
    ax = scratio.pl.samples(adata, "1")
    positions, _, _ = points(ax)
    table = scratio.get.samples(adata, region="1")
    for side, name in enumerate(("reference", "treatment")):
        expected = sorted(100.0 * table.loc[table["group"] == name, "share"])
        np.testing.assert_allclose(sorted(positions[positions[:, 0].round() == side, 1]), expected)
    medians = [line for line in ax.lines if line.get_color() == "black"]
    found = sorted(float(line.get_ydata()[0]) for line in medians)
    np.testing.assert_allclose(found, sorted(100.0 * table.groupby("group")["share"].median()))
    # A line for each donor that is compared with itself.
    assert len(ax.lines) - len(medians) == (3 if paired else 0)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["control", "case"]
    assert ax.get_title().startswith("1\n") and "q = 0.001" in ax.get_title()


def test_the_samples_that_stand_out_and_the_donors_that_carry_the_effect_are_named():
    adata = judged()
    scratio.tl.regions(adata, annotation_key="type")
    table = scratio.get.samples(adata, region="1").set_index("sample")
    largest = table.groupby("group")["share"].idxmax()
    named = {text.get_text() for text in scratio.pl.samples(adata, "1").texts}
    assert named == {*largest, "s1"}
    with pytest.raises(KeyError, match="no region 'T'.*'1'"):
        scratio.pl.samples(adata, "T")


# --- translation ---------------------------------------------------------------------------------------------------


def translated() -> AnnData:
    """Sources and targets in three dimensions; the sources were moved by (2, 0, 5)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    obs = pd.DataFrame({"condition": ["ctrl"] * 70 + ["stim"] * 50}, index=[f"cell{i}" for i in range(120)])
    moved = np.full((120, 3), np.nan)
    moved[:70] = x[:70] + [2.0, 0.0, 5.0]
    params = {"source": {"condition": "ctrl"}, "target": {"condition": "stim"}, "model": "FDRL"}
    result = {"scratio": {}, "analysis": "translate", "params": params, "data": {"use_rep": np.array(["X_pca"])}}
    return AnnData(obs=obs, obsm={"X_pca": x, "X_fdrl": moved}, uns={"X_fdrl": result})


def test_translate_shows_sources_targets_and_moved_cells_with_arrows_of_the_mean_displacement():
    adata = translated()
    ax = scratio.pl.translate(adata, components=(1, 3))
    positions, colours, _ = points(ax)
    x, moved = adata.obsm["X_pca"][:, [0, 2]], adata.obsm["X_fdrl"][:70, [0, 2]]
    counts = pd.Series(colours).value_counts()
    assert sorted(counts) == [50, 70, 70]
    for cells in (x[:70], x[70:], moved):
        chosen = [colours[np.abs(positions - cell).sum(1).argmin()] for cell in cells]
        assert len(set(chosen)) == 1
    (arrows,) = [c for c in ax.collections if hasattr(c, "U")]
    np.testing.assert_allclose(arrows.U, 2.0)
    np.testing.assert_allclose(arrows.V, 5.0)
    assert ax.get_title() == "ctrl to stim"
    with pytest.raises(ValueError, match="from 1 to 3"):
        scratio.pl.translate(adata, components=(0, 1))
    with pytest.raises(KeyError, match=r"scratio\.tl\.translate"):
        scratio.pl.translate(adata, key="X_umap")


# --- all of them ---------------------------------------------------------------------------------------------------

CALLS = {
    "volcano": lambda adata, **kwargs: scratio.pl.volcano(adata, "type", **kwargs),
    "beeswarm": lambda adata, **kwargs: scratio.pl.beeswarm(adata, "type", **kwargs),
    "regions": lambda adata, **kwargs: scratio.pl.regions(adata, **kwargs),
    "neighborhoods": lambda adata, **kwargs: scratio.pl.neighborhoods(adata, **kwargs),
    "samples": lambda adata, **kwargs: scratio.pl.samples(adata, "1", **kwargs),
}


@pytest.fixture
def whole() -> AnnData:
    adata = judged()
    scratio.tl.regions(adata, annotation_key="type")
    return adata


@pytest.mark.parametrize("name", CALLS)
def test_a_plot_draws_into_the_given_axes_and_leaves_the_cells_alone(name, whole, unchanged):
    figure, (left, right) = plt.subplots(1, 2)
    with unchanged(whole):
        assert CALLS[name](whole, ax=right, title="What it shows") is right
    assert right.has_data() and not left.has_data() and right.get_title() == "What it shows"
    assert plt.get_fignums() == [figure.number]
    assert CALLS[name](whole, return_fig=True) is plt.gcf()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("argument", ["nonsense", "save", "c", "x"])
def test_an_argument_that_is_not_taken_is_named(name, argument, whole):
    with pytest.raises(TypeError, match=f"'{argument}'"):
        CALLS[name](whole, **{argument: 1})
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", CALLS)
def test_a_result_without_samples_or_of_another_group_is_refused(name, whole):
    with pytest.raises(KeyError, match="other"):
        CALLS[name](whole, group="other")
    del whole.uns["da"]["neighborhoods"], whole.uns["da"]["regions"], whole.uns["da"]["region_samples"]
    with pytest.raises(KeyError, match="sample_key"):
        CALLS[name](whole)
    assert plt.get_fignums() == []
