"""Plots: what is drawn where, and in which colour; that the user's AnnData is left alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import Normalize, to_hex, to_rgba

import scratio
from scratio.pl._base import DIVERGING, UNSUPPORTED
from scratio.pl._names import write_names

GREY = UNSUPPORTED


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture
def adata() -> AnnData:
    """40 cells with a result made up by hand: groups "up", "none", "down"; every fifth cell without support."""
    rng = np.random.default_rng(0)
    cells = scratio.datasets.gaussians(n_cells=40, n_dims=2, random_state=0)
    cells.obs["group"] = np.repeat(["none", "up", "down", "up"], 10)
    shift = cells.obs["group"].map({"up": 2.0, "none": 0.1, "down": -1.0}).astype(float)
    cells.obs["da_log_ratio"] = shift + 0.3 * rng.normal(size=40)
    cells.obs["da_std"] = 0.1
    cells.obs["da_support"] = np.arange(40) % 5 > 0
    cells.obsm["X_umap"] = rng.normal(size=(40, 2))
    cells.uns["da"] = {
        "history": {
            "step": np.array([10, 20, 30]),
            "train_loss": np.array([[3.0, 5.0], [2.0, 2.5], [1.0, 1.0]]),
            "validation_loss": np.array([[4.0, 6.0], [3.0, 3.0], [2.5, 3.5]]),
        }
    }
    return cells


def points(ax) -> list[PathCollection]:
    """Clouds of points in the order in which they are drawn."""
    return [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets())]


def rows_of(cloud: PathCollection, coordinates: np.ndarray) -> np.ndarray:
    """Which cells a cloud shows, in its order."""
    offsets = np.asarray(cloud.get_offsets())
    distance = np.abs(offsets[:, None] - coordinates[None]).sum(-1)
    assert distance.min(axis=1).max() < 1e-6
    return distance.argmin(axis=1)


def drawn(ax, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells in the order in which they are drawn, the last on top, and their colours."""
    ax.figure.canvas.draw()
    clouds = points(ax)
    assert [cloud.get_zorder() for cloud in clouds] == sorted(cloud.get_zorder() for cloud in clouds)
    rows = np.concatenate([rows_of(cloud, coordinates) for cloud in clouds])
    colours = [np.broadcast_to(c.get_facecolors(), (len(c.get_offsets()), 4)) for c in clouds]
    return rows, np.concatenate(colours)


# --- embedding -----------------------------------------------------------------------------------------------------


def test_embedding_shows_supported_cells_in_the_colour_of_their_log_ratio(adata):
    rows, colours = drawn(scratio.pl.embedding(adata), adata.obsm["X_umap"])
    assert sorted(rows) == list(range(40))
    values, supported = adata.obs["da_log_ratio"].to_numpy()[rows], adata.obs["da_support"].to_numpy()[rows]
    limit = np.quantile(np.abs(values[supported]), 0.99)
    expected = DIVERGING(0.5 + 0.5 * np.clip(values / limit, -1.0, 1.0))
    np.testing.assert_allclose(colours[supported], expected[supported], atol=0.02)


def test_embedding_has_a_symmetric_scale_with_its_centre_at_zero(adata):
    norm = points(scratio.pl.embedding(adata))[-1].norm
    limit = np.quantile(np.abs(adata.obs["da_log_ratio"][adata.obs["da_support"]]), 0.99)
    assert (norm.vmin, norm.vmax) == (-limit, limit)
    assert float(norm(0.0)) == 0.5


def test_more_likely_under_the_treatment_is_red_and_less_likely_blue(adata):
    ax = scratio.pl.embedding(adata)
    cloud = points(ax)[-1]
    red, _, blue, _ = cloud.cmap(cloud.norm(2.0))
    assert red > blue
    red, _, blue, _ = cloud.cmap(cloud.norm(-2.0))
    assert blue > red


def test_cells_without_support_are_grey_and_drawn_first(adata):
    ax = scratio.pl.embedding(adata)
    rows, colours = drawn(ax, adata.obsm["X_umap"])
    assert sorted(rows[:8]) == np.flatnonzero(~adata.obs["da_support"]).tolist()
    assert [to_hex(colour) == GREY for colour in colours] == [True] * 8 + [False] * 32
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no support"]


def test_cells_without_a_value_are_grey(adata):
    adata.obs.loc[adata.obs_names[1], "da_log_ratio"] = np.nan
    rows, colours = drawn(scratio.pl.embedding(adata), adata.obsm["X_umap"])
    assert to_hex(colours[rows.tolist().index(1)]) == GREY


@pytest.mark.parametrize(
    ("compared", "supported", "said"),
    [
        (True, False, ["no support"]),
        (False, True, ["not compared"]),
        (False, False, ["not compared, or no support"]),
        (True, True, []),
    ],
)
def test_the_legend_says_why_cells_are_grey(compared, supported, said, adata):
    adata.obs["da_support"] = supported | (np.arange(40) % 5 > 0)
    if not compared:
        # Cells of other conditions, which have neither a log ratio nor support.
        others = np.arange(40) % 4 == 0
        adata.obs["da_log_ratio"] = adata.obs["da_log_ratio"].where(~others)
        adata.obs["da_support"] &= ~others
    legend = scratio.pl.embedding(adata).get_legend()
    assert [text.get_text() for text in (legend.get_texts() if legend else [])] == said


def test_neither_sign_covers_the_other():
    rng = np.random.default_rng(0)
    n = 4_000
    values = np.where(np.arange(n) % 2, 2.0, -2.0) + 0.1 * rng.normal(size=n)
    cells = AnnData(obsm={"X_umap": rng.normal(size=(n, 2))})
    cells.obs["da_log_ratio"] = values
    shown = np.asarray(points(scratio.pl.embedding(cells))[-1].get_array())
    np.testing.assert_allclose(np.sort(shown), np.sort(values))
    for part in np.array_split(shown, 8):
        # Four standard errors of a share of 500 cells.
        assert abs((part > 0.0).mean() - 0.5) < 4.0 * 0.5 / np.sqrt(500)
        # Nor does the magnitude decide, which would hide the cells without a difference.
        assert abs(np.abs(part).mean() - np.abs(values).mean()) < 4.0 * 0.1 / np.sqrt(500)


def test_a_mask_and_transparencies_stay_those_of_the_cells(adata):
    mask = np.arange(40) < 20
    rows, colours = drawn(scratio.pl.embedding(adata, mask_obs=mask), adata.obsm["X_umap"])
    is_coloured = np.array([to_hex(colour) != GREY for colour in colours])
    assert set(rows[is_coloured]) == set(np.flatnonzero(mask & adata.obs["da_support"].to_numpy()))


def test_cells_joined_with_others_that_have_no_result_are_not_compared(adata):
    other = scratio.datasets.gaussians(n_cells=20, n_dims=2, random_state=1)
    other.obsm["X_umap"] = np.random.default_rng(1).normal(size=(20, 2))
    joined = anndata.concat([adata, other], join="outer", index_unique="-", uns_merge="first")
    legend = scratio.pl.embedding(joined).get_legend()
    assert legend.get_texts()[0].get_text() == "not compared, or no support"


def test_references_of_several_treatments_have_no_log_ratio_of_their_own(adata):
    is_reference = adata.obs["condition"] == "control"
    adata.obsm["da_log_ratio"] = adata.obs[["da_log_ratio"]].set_axis(["treated"], axis=1)
    adata.obs["da_log_ratio"] = adata.obs["da_log_ratio"].where(~is_reference)
    adata.obs["da_support"] = True
    assert scratio.pl.embedding(adata).get_legend().get_texts()[0].get_text() == "reference or not compared"


def test_sizes_of_cells_stay_those_of_the_cells(adata):
    sizes = 10.0 + np.arange(40)
    for cloud in points(scratio.pl.embedding(adata, size=sizes)):
        np.testing.assert_array_equal(cloud.get_sizes(), sizes[rows_of(cloud, adata.obsm["X_umap"])])


def test_where_all_cells_are_supported_nothing_is_grey(adata):
    adata.obs["da_support"] = True
    ax = scratio.pl.embedding(adata)
    assert GREY not in {to_hex(colour) for colour in drawn(ax, adata.obsm["X_umap"])[1]}
    assert ax.get_legend() is None


def test_unsupported_cells_have_no_say_in_the_limits(adata):
    expected = points(scratio.pl.embedding(adata))[-1].norm.vmax
    adata.obs.loc[~adata.obs["da_support"], "da_log_ratio"] = 1e6
    assert points(scratio.pl.embedding(adata))[-1].norm.vmax == expected


def test_a_plain_column_can_be_shown(adata):
    ax = scratio.pl.embedding(adata, key="true_log_ratio", basis="X_pca")
    rows = rows_of(points(ax)[-1], adata.obsm["X_pca"])
    assert sorted(rows) == list(range(40))
    values = np.asarray(points(ax)[-1].get_array())
    np.testing.assert_allclose(values, adata.obs["true_log_ratio"].to_numpy()[rows])


def test_limits_and_titles_can_be_chosen(adata):
    ax = scratio.pl.embedding(adata, vmax=7.0, title="Stimulated")
    norm = points(ax)[-1].norm
    assert (norm.vmin, norm.vmax) == (-7.0, 7.0)
    assert ax.get_title() == "Stimulated"
    assert points(ax)[-1].colorbar.ax.get_ylabel() == "log ratio (nats)"


def test_a_result_of_zeros_can_be_shown(adata):
    adata.obs["da_log_ratio"] = 0.0
    cloud = points(scratio.pl.embedding(adata))[-1]
    assert (cloud.norm.vmin, cloud.norm.vmax) == (-1.0, 1.0)


# --- violin --------------------------------------------------------------------------------------------------------


def violins(ax) -> list[PolyCollection]:
    return [c for c in ax.collections if isinstance(c, PolyCollection)]


def test_violin_orders_the_groups_by_their_median(adata):
    ax = scratio.pl.violin(adata, groupby="group")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["up (16)", "none (8)", "down (8)"]
    adata.obs["da_log_ratio"] *= -1
    ax = scratio.pl.violin(adata, groupby="group")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["down (8)", "none (8)", "up (16)"]


def test_violin_spans_the_values_of_each_group_and_marks_their_quartiles(adata):
    ax = scratio.pl.violin(adata, groupby="group")
    supported = adata.obs[adata.obs["da_support"]]
    lines = [line for line in ax.lines if len(set(line.get_xdata())) == 1 and line.get_zorder() > 0]
    for position, group in enumerate(["up", "none", "down"]):
        values = supported["da_log_ratio"][supported["group"] == group]
        x = violins(ax)[position].get_paths()[0].vertices[:, 0]
        np.testing.assert_allclose([x.min(), x.max()], [values.min(), values.max()], rtol=1e-6)
        drawn = [line.get_xdata()[0] for line in lines if abs(np.mean(line.get_ydata()) - position) < 0.01]
        np.testing.assert_allclose(sorted(drawn), np.quantile(values, [0.25, 0.5, 0.75]), rtol=1e-6)


def test_violin_refuses_a_number_of_each_cell_at_once():
    adata = scratio.datasets.gaussians(n_cells=200, n_dims=2)
    adata.obs["n_counts"] = np.arange(200) + 1_000.0
    with pytest.raises(ValueError, match=r"obs\['n_counts'\] has 200 values, too many for a violin each.*pandas.cut"):
        scratio.pl.violin(adata, groupby="n_counts", key="true_log_ratio")
    ax = scratio.pl.violin(adata, groupby="n_counts", key="true_log_ratio", order=[1_000.0, 1_001.0])
    assert len(ax.get_yticklabels()) == 2


def test_violin_is_coloured_by_the_median(adata):
    ax = scratio.pl.violin(adata, groupby="group", saturation=1.0)
    supported = adata.obs[adata.obs["da_support"]]
    limit = np.quantile(supported["da_log_ratio"].abs(), 0.99)
    for drawn, group in zip(violins(ax), ["up", "none", "down"], strict=True):
        median = supported["da_log_ratio"][supported["group"] == group].median()
        expected = DIVERGING(Normalize(-limit, limit)(median))
        np.testing.assert_allclose(drawn.get_facecolor()[0], expected, atol=1e-6)


def test_violin_leaves_out_unsupported_cells_unless_told_otherwise(adata):
    adata.obs.iloc[0, adata.obs.columns.get_loc("da_log_ratio")] = 3.5  # a cell of "none" without support
    widths = []
    for supported_only in (True, False):
        ax = scratio.pl.violin(adata, groupby="group", supported_only=supported_only)
        widths.append(max(v.get_paths()[0].vertices[:, 0].max() for v in violins(ax)))
    assert widths[0] < 3.0
    assert widths[1] == pytest.approx(3.5)


def test_violin_leaves_out_cells_without_a_value(adata):
    adata.obs.loc[adata.obs["group"] == "down", "da_log_ratio"] = np.nan
    ax = scratio.pl.violin(adata, groupby="group")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["up (16)", "none (8)"]


def test_violin_marks_zero(adata):
    ax = scratio.pl.violin(adata, groupby="group")
    assert any(list(line.get_xdata()) == [0.0, 0.0] and line.get_linestyle() == "--" for line in ax.lines)
    assert ax.get_xlabel() == "log ratio (nats)"


# --- history -------------------------------------------------------------------------------------------------------


def test_history_shows_the_mean_over_the_networks_and_their_range(adata):
    ax = scratio.pl.history(adata)
    assert [line.get_label() for line in ax.lines] == [
        "training cells, all noise levels",
        "held-out cells, without noise",
    ]
    for line, mean in zip(ax.lines, ([4.0, 2.25, 1.0], [5.0, 3.0, 3.0]), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
        np.testing.assert_allclose(line.get_ydata(), mean)
    vertices = {tuple(vertex) for vertex in ax.collections[1].get_paths()[0].vertices.tolist()}
    assert {(10.0, 4.0), (10.0, 6.0), (20.0, 3.0), (30.0, 2.5), (30.0, 3.5)} <= vertices
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert to_rgba(ax.lines[1].get_color())[:3] == tuple(ax.collections[1].get_facecolor()[0][:3])


# --- all plots -----------------------------------------------------------------------------------------------------


PLOTS = {
    "embedding": lambda adata, **kwargs: scratio.pl.embedding(adata, **kwargs),
    "violin": lambda adata, **kwargs: scratio.pl.violin(adata, groupby="group", **kwargs),
    "history": lambda adata, **kwargs: scratio.pl.history(adata, **kwargs),
}


@pytest.fixture(params=PLOTS.values(), ids=PLOTS.keys())
def plot(request: pytest.FixtureRequest):
    return request.param


def test_a_plot_leaves_the_users_cells_alone(adata, unchanged, plot):
    with unchanged(adata):
        plot(adata)


def test_a_plot_goes_into_the_given_axes(adata, plot):
    figure, (left, right) = plt.subplots(1, 2)
    assert plot(adata, ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


def test_a_plot_without_axes_makes_one_figure(adata, plot):
    ax = plot(adata)
    assert plt.get_fignums() == [ax.figure.number]
    assert ax.has_data()


def test_a_plot_is_shown_only_when_told_to(adata, plot, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: shown.append(1))
    plot(adata)
    plot(adata, show=False)
    assert shown == []
    plot(adata, show=True)
    assert shown == [1]


def test_a_plot_leaves_the_users_settings_alone(adata, plot):
    before = dict(plt.rcParams)
    plot(adata)
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda a: scratio.pl.embedding(a, key="none"), "none_log_ratio.*differential_abundance"),
        (lambda a: scratio.pl.embedding(a, basis="X_tsne"), "X_tsne"),
        (lambda a: scratio.pl.violin(a, groupby="group", key="none"), "none_log_ratio"),
        (lambda a: scratio.pl.violin(a, groupby="cluster"), "cluster"),
        (lambda a: scratio.pl.history(a, key="none"), "none"),
    ],
)
def test_a_missing_key_is_named_and_leaves_no_figure(adata, call, named):
    with pytest.raises(KeyError, match=named):
        call(adata)
    assert plt.get_fignums() == []


# --- what users pass through ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def analysed() -> AnnData:
    """Cells with a small result of every analysis that has a plot."""
    quick = {"max_steps": 20, "progress_bar": False}
    made = scratio.datasets.gaussians(n_cells=300, n_dims=2, random_state=0)
    genes = pd.DataFrame(index=["g1", "g2", "g3"])
    cells = AnnData(np.zeros((300, 3)), obs=made.obs, var=genes, obsm={"X_pca": made.obsm["X_pca"]})
    cells.obsm["X_umap"] = cells.obsm["X_pca"]
    cells.obs["drug"] = np.array(["none", "a", "b", "a+b"])[np.arange(300) % 4]
    cells.obs["donor"] = np.where(np.arange(300) % 3, "d1", "d2")
    cells.obs["dose"] = np.arange(300) % 7
    question = {"condition_key": "condition", "treatment": "treated", "reference": "control"}
    scratio.tl.differential_abundance(cells, **question, train_kwargs=quick)
    scratio.tl.batch_effect(cells, batch_key="donor", train_kwargs=quick)
    scratio.tl.combination_effect(cells, condition_keys="drug", combination="a+b", reference="none", train_kwargs=quick)
    scratio.tl.treatment_response(
        cells, treatment_key="condition", donor_key="donor", reference="control", train_kwargs=quick
    )
    scratio.tl.compare_methods(cells, **question, methods=["qda", "knn"])
    scratio.model.ScRatio.setup_anndata(cells, condition_keys=[], continuous_keys=["dose"])
    model = scratio.model.ScRatio(cells)
    model.train(max_steps=20, progress_bar=False)
    scratio.tl.covariate_curve(cells, model, covariate_key="dose", reference=0.0, values=[1.0, 5.0])
    loadings = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]])
    ends = {"numerator": {"dose": 5.0}, "denominator": {"dose": 0.0}}
    scratio.tl.driver_genes(cells, model, **ends, decoder=loadings)
    return cells


ALL_PLOTS = {
    "embedding": {},
    "violin": {"groupby": "donor"},
    "history": {},
    "calibration": {},
    "batch_effect": {},
    "combination_effect": {},
    "treatment_response": {},
    "compare_methods": {},
    "covariate_curve": {},
    "driver_genes": {},
}
PASSED = {
    "cmap": "PiYG",
    "color_map": "PiYG",
    "vmin": -3.0,
    "vmax": "p99",
    "vcenter": 0.0,
    "norm": Normalize(-1, 1),
    "color": "k",
    "palette": "Set2",
    "order": ["d1", "d2"],
    "linewidth": 2.0,
    "lw": 2.0,
    "size": 20.0,
    "save": "figure.png",
    "x": "value",
    "hue": "donor",
    "nonsense": 1,
}


@pytest.mark.parametrize("argument", PASSED)
@pytest.mark.parametrize("name", ALL_PLOTS)
def test_an_argument_is_used_or_refused_by_name(name, argument, analysed):
    plot = getattr(scratio.pl, name)
    try:
        plot(analysed, **ALL_PLOTS[name], **{argument: PASSED[argument]})
    except TypeError as error:
        # Python's own words where a plot passes nothing on.
        assert f"{argument!r}" in str(error) or f"{argument}=" in str(error)
        assert "multiple values" not in str(error)
        assert plt.get_fignums() == []
    else:
        assert argument not in {"save", "nonsense", "x", "hue"}


@pytest.mark.parametrize("name", ALL_PLOTS)
def test_a_title_is_drawn_and_the_figure_returned_if_asked_for(name, analysed):
    ax = getattr(scratio.pl, name)(analysed, **ALL_PLOTS[name], title="What it shows")
    assert ax.get_title() == "What it shows"
    figure = getattr(scratio.pl, name)(analysed, **ALL_PLOTS[name], return_fig=True)
    assert figure is plt.gcf() and len(plt.get_fignums()) == 2


@pytest.mark.parametrize("name", ALL_PLOTS)
def test_a_notebook_prints_nothing_below_a_figure(name, analysed):
    ax = getattr(scratio.pl, name)(analysed, **ALL_PLOTS[name])
    assert ax._ipython_display_() is None
    assert pickle.loads(pickle.dumps(ax.figure)).axes


def test_words_around_small_axes_do_not_cover_each_other(analysed):
    for size in ((3.5, 3.5), (6.0, 6.0)):
        ax = plt.subplots(figsize=size, layout="constrained")[1]
        scratio.pl.calibration(analysed, ax=ax)
        ax.figure.canvas.draw()
        verdict = ax.texts[-1].get_window_extent()
        assert not verdict.overlaps(ax.xaxis.get_tightbbox())
        matrix, responses = pd.DataFrame(np.eye(3), list("abc"), list("def")), AnnData(np.zeros((2, 1)))
        tree = {"order": np.arange(3), "linkage": np.array([[0, 1, 0.5, 2], [3, 2, 1.0, 3]])}
        responses.uns["response"] = {"matrix": matrix, "trees": {"treatments": tree}}
        ax = scratio.pl.treatment_response(
            responses, ax=plt.subplots(figsize=size, layout="constrained")[1], title="Response"
        )
        ax.figure.canvas.draw()
        top, title = ax.child_axes[-1].get_window_extent(), ax.title.get_window_extent()
        assert top.y1 <= title.y0 < top.y1 + 30.0
        assert title.y1 <= ax.figure.bbox.y1


def lab(colour: str) -> np.ndarray:
    """CIELAB coordinates of an sRGB colour (D65)."""
    rgb = np.array(to_rgba(colour)[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_grey_cells_are_told_from_cells_without_a_difference_and_both_from_the_page():
    grey, middle, page = lab(GREY), lab(to_hex(DIVERGING(0.5))), lab("white")
    # Two colours are told apart at a glance from a distance of about 10 on.
    assert np.linalg.norm(grey - middle) > 15
    assert np.linalg.norm(middle - page) > 10
    nearest = min(np.linalg.norm(grey - lab(to_hex(DIVERGING(place)))) for place in np.linspace(0, 1, 101))
    assert nearest > 15


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outlier", "extend"), [(18.0, "max"), (-18.0, "min"), (None, "neither")])
def test_a_few_cells_do_not_wash_out_the_rest_and_an_arrow_says_that_they_are_there(outlier, extend):
    rng = np.random.default_rng(0)
    cells = AnnData(obsm={"X_umap": rng.normal(size=(1_000, 2))})
    values = rng.uniform(-2.0, 2.0, size=1_000)
    if outlier is None:
        values[:20] = 2.0
        values[20:40] = -2.0
    else:
        values[:5] = outlier
    cells.obs["da_log_ratio"] = values
    bar = points(scratio.pl.embedding(cells))[-1].colorbar
    assert bar.norm.vmax == -bar.norm.vmin == pytest.approx(2.0, abs=0.05)
    assert bar.extend == extend if outlier is None else bar.extend in {extend, "both"}


def test_limits_are_numbers_or_percentiles(adata):
    adata.obs["da_support"] = True
    values = adata.obs["da_log_ratio"].to_numpy()
    norm = points(scratio.pl.embedding(adata, vmin="p10", vmax="p90"))[-1].norm
    assert (norm.vmin, norm.vmax) == pytest.approx((np.percentile(values, 10), np.percentile(values, 90)))
    assert norm(0.0) == 0.5
    assert points(scratio.pl.embedding(adata, vmin=-3))[-1].norm.vmax == 3.0
    for wrong in ({"vmax": "99"}, {"vmax": "p200"}, {"vmin": 1.0}, {"vmax": -1.0}):
        with pytest.raises(ValueError, match="vmin|vmax"):
            scratio.pl.embedding(adata, **wrong)


def test_several_groups_are_panels_on_one_scale(adata):
    tables = {"a": np.linspace(-1, 1, 40), "b": np.linspace(-5, 5, 40)}
    adata.obsm["da_log_ratio"] = pd.DataFrame(tables, index=adata.obs_names)
    axes = scratio.pl.embedding(adata, group=["a", "b"], basis="umap")
    assert [ax.get_title() for ax in axes] == ["da: a", "da: b"]
    norms = [points(ax)[-1].norm for ax in axes]
    assert {norm.vmax for norm in norms} == {norms[0].vmax}
    assert axes._ipython_display_() is None
    assert len(axes[0].figure.axes) == 3
    with pytest.raises(ValueError, match="names 2"):
        scratio.pl.embedding(adata, group=["a", "b"], ax=axes[0])


def test_axes_are_named_as_in_scanpy_and_groups_are_named_on_the_cells(adata):
    adata.obsm["X_umap"] += 20.0 * adata.obs["group"].map({"up": 1, "none": 2, "down": 3}).to_numpy()[:, None]
    ax = scratio.pl.embedding(adata, basis="umap", groupby="group")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP1", "UMAP2")
    written = {text.get_text(): text.get_position() for text in ax.texts}
    for name in ("up", "none", "down"):
        expected = np.median(adata.obsm["X_umap"][adata.obs["group"] == name], axis=0)
        np.testing.assert_allclose(written[name], expected)
    with pytest.raises(KeyError, match="cluster"):
        scratio.pl.embedding(adata, groupby="cluster")


def test_many_cells_are_stored_as_an_image(adata, monkeypatch):
    assert not points(scratio.pl.embedding(adata))[-1].get_rasterized()
    monkeypatch.setattr("scratio.pl._embedding.RASTERIZED", 40)
    assert points(scratio.pl.embedding(adata))[-1].get_rasterized()


def test_a_few_far_cells_do_not_squeeze_the_violins_and_are_counted():
    rng = np.random.default_rng(0)
    cells = AnnData(
        obs=pd.DataFrame(
            {"type": np.repeat(["a", "b"], 500), "da_log_ratio": rng.normal(size=1_000)},
            [f"cell{i}" for i in range(1_000)],
        )
    )
    cells.obs.iloc[[3, 4, 5], 1] = -65.0
    cells.obs.iloc[700, 1] = 40.0
    ax = scratio.pl.violin(cells, groupby="type")
    low, high = ax.get_xlim()
    assert -7.0 < low < high < 7.0
    assert [label.get_text() for label in ax.get_yticklabels()] in (["a (500)", "b (500)"], ["b (500)", "a (500)"])

    left, right = "\N{BLACK LEFT-POINTING TRIANGLE} 3", "1 \N{BLACK RIGHT-POINTING TRIANGLE}"
    assert {text.get_text() for text in ax.texts} == {left, right}


def test_far_cells_of_small_groups_do_not_squeeze_the_violins_either():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=29), rng.normal(1.0, 1.0, size=200)])
    values[[0, 40]] = -65.0
    values[7] = np.inf
    obs = pd.DataFrame({"type": ["NK"] * 29 + ["B"] * 200, "da_log_ratio": values}, [f"cell{i}" for i in range(229)])
    ax = scratio.pl.violin(AnnData(obs=obs), "type")
    assert -5.0 < ax.get_xlim()[0] < ax.get_xlim()[1] < 6.0
    assert [text.get_text() for text in ax.texts] == ["\N{BLACK LEFT-POINTING TRIANGLE} 1"] * 2
    assert [label.get_text() for label in ax.get_yticklabels()] == ["B (200)", "NK (28)"]


def test_a_sizeable_part_of_a_group_is_never_cut_off():
    rng = np.random.default_rng(0)
    values = rng.normal(size=100)
    values[:20] = -65.0
    obs = pd.DataFrame({"type": "NK", "da_log_ratio": values}, [f"cell{i}" for i in range(100)])
    ax = scratio.pl.violin(AnnData(obs=obs), "type")
    assert ax.get_xlim()[0] < -65.0 and not ax.texts


def test_names_of_groups_may_be_long_numbers_or_mathematics(adata):
    adata.obs["type"] = pd.Categorical(np.array(["CD4+ cells of the peripheral blood, activated in vitro", "$x_{"]))[
        np.arange(40) % 2
    ]
    ax = scratio.pl.violin(adata, "type")
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert min(box.x0 for box in boxes) >= 0.0
    assert ax.get_window_extent().width > 200.0
    scratio.pl.embedding(adata, groupby="type").figure.canvas.draw()
    adata.obs["cluster"] = np.arange(40) % 3
    ax = scratio.pl.violin(adata, "cluster", order=[2, 0], palette={0: "#112233", 2: "#445566"}, saturation=1.0)
    assert [label.get_text().split()[0] for label in ax.get_yticklabels()] == ["2", "0"]
    assert [to_hex(v.get_facecolor()[0]) for v in violins(ax)] == ["#445566", "#112233"]
    with pytest.raises(ValueError, match="empty"):
        scratio.pl.violin(adata, "cluster", order=[])


def test_names_on_cells_do_not_cover_each_other(adata):
    adata.obs["near"] = np.array(["first", "second", "third", "fourth"])[np.arange(40) % 4]
    ax = scratio.pl.embedding(adata, groupby="near")
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_other_coordinates_name_the_axes_and_place_the_names(adata):
    adata.obsm["X_pca"] = np.random.default_rng(3).normal(size=(40, 4)) * [1.0, 1.0, 5.0, 9.0]
    ax = scratio.pl.embedding(adata, basis="pca", dimensions=(2, 3), groupby="group")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC3", "PC4")
    drawn(ax, adata.obsm["X_pca"][:, 2:])
    for text in ax.texts:
        middle = np.median(adata.obsm["X_pca"][adata.obs["group"] == text.get_text(), 2], axis=0)
        assert text.get_position()[0] == pytest.approx(middle)
    with pytest.raises(ValueError, match="dimensions .0, 4."):
        scratio.pl.embedding(adata, basis="pca", dimensions=(0, 4))
    with pytest.raises(ValueError, match="no cells"):
        scratio.pl.embedding(adata[:0])


def test_cells_whose_names_are_not_unique_can_be_drawn(adata):
    adata.obs_names = ["cell"] * 40
    rows, colours = drawn(scratio.pl.embedding(adata, groupby="group"), adata.obsm["X_umap"])
    grey = [to_hex(colour) == GREY for colour in colours]
    assert set(rows[grey]) == set(np.flatnonzero(~adata.obs["da_support"]))


def test_what_scanpy_passes_to_matplotlib_is_passed_on(adata):
    alpha = np.linspace(0.1, 1.0, 40)
    ax = scratio.pl.embedding(adata, alpha=alpha, edgecolors="black", linewidths=0.5, rasterized=True)
    for cloud in points(ax):
        rows = rows_of(cloud, adata.obsm["X_umap"])
        np.testing.assert_allclose(cloud.get_alpha(), alpha[rows])
        assert to_hex(cloud.get_edgecolors()[0]) == "#000000" and cloud.get_rasterized()
    adata.obs["is_first"] = np.arange(40) < 20
    rows, colours = drawn(scratio.pl.embedding(adata, mask_obs="is_first"), adata.obsm["X_umap"])
    is_coloured = np.array([to_hex(colour) != GREY for colour in colours])
    assert set(rows[is_coloured]) == set(np.flatnonzero(adata.obs["is_first"] & adata.obs["da_support"]))
    assert len(scratio.pl.embedding(adata, colorbar_loc=None).figure.axes) == 1


def test_a_notebook_shows_a_returned_figure_once(adata, monkeypatch):
    figure = scratio.pl.embedding(adata, return_fig=True)
    for backend, left in (("agg", [figure.number]), ("module://matplotlib_inline.backend_inline", [])):
        monkeypatch.setattr("scratio.pl._base.get_backend", lambda backend=backend: backend)
        # By this error IPython is told to print the figure itself.
        with pytest.raises(NotImplementedError):
            figure._ipython_display_()
        assert plt.get_fignums() == left
    assert pickle.loads(pickle.dumps(figure)).axes


def test_batches_are_drawn_by_group_in_the_order_of_the_labels(analysed):
    cells = analysed.copy()
    cells.obs["cluster"] = pd.Series(np.arange(300) % 11, cells.obs_names).astype("Int64").where(np.arange(300) > 5)
    ax = scratio.pl.batch_effect(cells, groupby="cluster")
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(i) for i in range(11)]


def test_violins_are_drawn_in_the_order_and_the_colours_that_are_given(adata):
    colours = {"down": "#112233", "up": "#445566"}
    ax = scratio.pl.violin(adata, "group", order=["down", "up"], palette=colours, saturation=1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["down (8)", "up (16)"]
    assert [to_hex(v.get_facecolor()[0]) for v in violins(ax)] == ["#112233", "#445566"]
    with pytest.raises(ValueError, match="'other'.*'up'"):
        scratio.pl.violin(adata, "group", order=["other"])


def test_history_marks_the_steps_that_were_kept(adata):
    adata.uns["da"]["training"] = {"best_step": np.array([20, 30, 20])}
    kept = scratio.pl.history(adata).lines[2]
    assert list(kept.get_xdata()) == [20, 30, 20]
    assert kept.get_marker() == "^" and kept.get_linestyle() == "None"
    adata.uns["da"]["history"] = {"step": np.array([]), "train_loss": np.zeros((0, 2))}
    with pytest.raises(KeyError, match="quick"):
        scratio.pl.history(adata)


# --- spatial -------------------------------------------------------------------------------------------------------


def on_a_tissue(adata: AnnData) -> AnnData:
    """The cells on a section of 100 by 200 pixels, whose image is half as large."""
    adata.obsm["spatial"] = np.random.default_rng(1).uniform([10, 20], [90, 180], size=(40, 2))
    factors = {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 8.0}
    adata.uns["spatial"] = {"one": {"images": {"hires": np.ones((100, 50, 3))}, "scalefactors": factors}}
    return adata


def test_cells_lie_on_their_place_of_the_image_with_y_pointing_down(adata, unchanged):
    on_a_tissue(adata)
    with unchanged(adata):
        ax = scratio.pl.spatial(adata)
    rows, colours = drawn(ax, adata.obsm["spatial"] * 0.5)
    assert sorted(rows) == list(range(40))
    assert ax.get_aspect() == 1.0 and ax.yaxis_inverted() and len(ax.images) == 1
    is_grey = np.array([to_hex(colour) == GREY for colour in colours])
    assert set(rows[is_grey]) == set(np.flatnonzero(~adata.obs["da_support"]))
    up = rows[~is_grey][adata.obs["da_log_ratio"].iloc[rows[~is_grey]] > 1.0]
    assert all(colours[rows.tolist().index(row)][0] > colours[rows.tolist().index(row)][2] for row in up)


def test_without_an_image_the_cells_are_drawn_alone(adata):
    on_a_tissue(adata)
    del adata.uns["spatial"]
    ax = scratio.pl.spatial(adata, s=np.arange(1.0, 41.0))
    rows, _ = drawn(ax, adata.obsm["spatial"])
    assert len(ax.images) == 0 and ax.yaxis_inverted()
    sizes = np.concatenate([np.broadcast_to(cloud.get_sizes(), len(cloud.get_offsets())) for cloud in points(ax)])
    np.testing.assert_array_equal(sizes, rows + 1.0)


def test_a_colour_of_edges_is_not_taken_for_one_value_per_cell_and_many_cells_are_an_image(adata, monkeypatch):
    on_a_tissue(adata)
    monkeypatch.setattr("scratio.pl._spatial.RASTERIZED", 40)
    ax = scratio.pl.spatial(adata, edgecolors=(0.0, 0.0, 1.0), linewidth=1.0, size=9.0)
    for cloud in points(ax):
        assert to_hex(cloud.get_edgecolors()[0]) == "#0000ff" and cloud.get_linewidths()[0] == 1.0
        assert cloud.get_sizes()[0] == 9.0 and cloud.get_rasterized()


def test_one_of_several_images_has_to_be_named(adata):
    on_a_tissue(adata)
    adata.uns["spatial"]["two"] = {"images": {}, "scalefactors": {}}
    with pytest.raises(ValueError, match="library_id.*'one', 'two'"):
        scratio.pl.spatial(adata)
    with pytest.raises(KeyError, match="'three'.*'one', 'two'"):
        scratio.pl.spatial(adata, library_id="three")
    assert len(scratio.pl.spatial(adata, library_id="one").images) == 1
    with pytest.raises(KeyError, match="no key 'tissue'"):
        scratio.pl.spatial(adata, basis="tissue", library_id="one")


@pytest.mark.parametrize("upwards", [False, True])
def test_names_do_not_cover_each_other_and_stay_in_the_axes(upwards):
    fig, ax = plt.subplots(figsize=(4, 4), layout="constrained")
    ax.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    # Long and short names at one place, at both edges, and between two others.
    places = {"CD14+ Monocytes": (0.02, 0.5), "B cells": (0.03, 0.5), "a": (0.04, 0.51), "CD4 T cells": (0.98, 0.5)}
    places |= {f"mixed {number}": (0.5, 0.5 + 0.005 * number) for number in range(5)} | {"alone": (0.3, 0.1)}
    write_names(ax, places, upwards=upwards)
    fig.canvas.draw()
    boxes, inside = [text.get_window_extent() for text in ax.texts], ax.get_window_extent()
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(inside.x0 - 1.0 <= box.x0 and box.x1 <= inside.x1 + 1.0 for box in boxes)
    # A name that hits nothing stays.
    (alone,) = [text for text in ax.texts if text.get_text() == "alone"]
    np.testing.assert_allclose(alone.get_position(), places["alone"])
    plt.close(fig)
