"""Response of donors to treatments: known answers, tables, incomplete designs, what is refused, what is drawn."""

from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scratio

SHIFT = {("d0", "a"): 2.0, ("d1", "a"): 1.0, ("d2", "a"): 0.0, ("d0", "b"): -1.0, ("d1", "b"): 0.0}
"""Where a treatment moves a donor's cells; donor d2 never had b."""
CALL = {"treatment_key": "drug", "donor_key": "donor", "reference": "none"}


def donors(n: int = 4_000, seed: int = 0) -> AnnData:
    """Donors lie 5 apart; cells are N(5 donor + shift, 1)."""
    rng = np.random.default_rng(seed)
    designs = [("d0", "none"), ("d1", "none"), ("d2", "none"), *SHIFT]
    design = rng.integers(0, len(designs), n)
    obs = pd.DataFrame([designs[k] for k in design], columns=["donor", "drug"], index=[f"cell{i}" for i in range(n)])
    shift = obs.apply(lambda row: SHIFT.get((row["donor"], row["drug"]), 0.0), axis=1)
    centre = 5.0 * obs["donor"].str[1].astype(int)
    x = (centre + shift).to_numpy() + rng.normal(size=n)
    return AnnData(obs=obs, obsm={"X_pca": np.stack([x, rng.normal(size=n)], axis=1)})


@pytest.fixture(scope="module")
def result() -> AnnData:
    adata = donors()
    scratio.tl.treatment_response(
        adata, **CALL, n_folds=2, model_kwargs={"n_hidden": 32, "n_members": 2},
        train_kwargs={"max_steps": 400, "batch_size": 256, "warmup_steps": 20, "progress_bar": False},
    )  # fmt: skip
    return adata


def test_the_mean_of_treated_cells_is_the_divergence(result):
    # KL(N(m + s, 1), N(m, 1)) = s^2 / 2, and minus that for the untreated cells.
    table = result.uns["response"]["table"].set_index(["donor", "treatment"])
    assert set(table.index) == set(SHIFT)
    for pair, shift in SHIFT.items():
        assert table.loc[pair, "mean_treated"] == pytest.approx(0.5 * shift**2, abs=0.2 + 0.1 * shift**2)
        assert table.loc[pair, "mean_reference"] == pytest.approx(-0.5 * shift**2, abs=0.2 + 0.1 * shift**2)


def test_cells_have_the_log_ratio_of_their_own_donor(result):
    x, table = result.obsm["X_pca"][:, 0], result.obsm["response_log_ratio"]
    for (donor, drug), shift in SHIFT.items():
        cells = (result.obs["donor"] == donor).to_numpy()
        truth = shift * (x[cells] - 5.0 * int(donor[1])) - 0.5 * shift**2
        assert np.mean((table.loc[cells, drug] - truth) ** 2) < 0.15 + 0.1 * shift**2


def test_the_table_is_that_of_the_cells(result):
    table = result.uns["response"]["table"].set_index(["donor", "treatment"])
    row = table.loc[("d0", "a")]
    cells = (result.obs["donor"] == "d0") & (result.obs["drug"] == "a")
    values, errors = result.obs["response_log_ratio"][cells], result.obs["response_std"][cells]
    assert row["n_treated"] == cells.sum()
    assert row["mean_treated"] == pytest.approx(values.mean())
    assert row["standard_error_treated"] == pytest.approx(np.sqrt(values.var() / len(values) + (errors**2).mean()))
    pd.testing.assert_series_equal(
        result.uns["response"]["matrix"].stack().dropna().rename("mean_treated"),
        table["mean_treated"].sort_index(),
        check_names=False,
    )


def test_what_was_not_observed_has_no_value(result):
    table = result.obsm["response_log_ratio"]
    assert table.loc[result.obs["donor"] == "d2", "b"].isna().all()
    assert table["a"].notna().all()
    # With two treatments the untreated cells have no single one to be compared with.
    untreated = result.obs["drug"] == "none"
    assert result.obs.loc[untreated, "response_log_ratio"].isna().all()
    assert result.obs.loc[~untreated, "response_log_ratio"].notna().all()


def test_with_one_treatment_untreated_cells_have_its_log_ratio(quick):
    adata = donors(600)
    adata = adata[adata.obs["drug"] != "b"].copy()
    scratio.tl.treatment_response(
        adata, **CALL, n_folds=2, model_kwargs={"n_hidden": 8, "n_members": 1}, train_kwargs=quick
    )
    np.testing.assert_array_equal(adata.obs["response_log_ratio"], adata.obsm["response_log_ratio"]["a"])
    assert adata.obs["response_log_ratio"].notna().all()


def test_a_donor_without_enough_cells_takes_no_part(quick):
    adata = donors(600)
    drop = np.flatnonzero((adata.obs["donor"] == "d1") & (adata.obs["drug"] == "none"))[2:]
    adata = adata[np.setdiff1d(np.arange(600), drop)].copy()
    scratio.tl.treatment_response(
        adata, **CALL, n_folds=3, model_kwargs={"n_hidden": 8, "n_members": 1}, train_kwargs=quick
    )
    assert list(adata.uns["response"]["matrix"].index) == ["d0", "d2"]
    assert adata.obsm["response_log_ratio"].loc[adata.obs["donor"] == "d1"].isna().all(axis=None)


def test_the_result_survives_writing(result, tmp_path):
    result.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.obsm["response_log_ratio"], result.obsm["response_log_ratio"])
    np.testing.assert_array_equal(again.uns["response"]["matrix"], result.uns["response"]["matrix"])
    assert list(again.uns["response"]["table"]["donor"].astype(str)) == list(result.uns["response"]["table"]["donor"])


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"donor_key": "patient"}, KeyError, "patient"),
        ({"treatment_key": "dose"}, KeyError, "dose"),
        ({"reference": "DMSO"}, ValueError, "DMSO.*none"),
        ({"donor_key": "drug"}, ValueError, "drug"),
        ({"use_rep": "X_umap"}, KeyError, "X_umap"),
        ({"n_folds": 1}, ValueError, "n_folds"),
        ({"n_folds": 500}, ValueError, "no donor"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(unchanged, kwargs, error, named):
    adata = donors(100)
    with unchanged(adata), pytest.raises(error, match=named):
        scratio.tl.treatment_response(adata, **{**CALL, **kwargs})


# --- the plot


def test_the_heat_map_shows_the_matrix(result):
    ax = scratio.pl.treatment_response(result)
    matrix = result.uns["response"]["matrix"]
    rows = [label.get_text() for label in ax.get_yticklabels()]
    columns = [label.get_text() for label in ax.get_xticklabels()]
    assert sorted(rows) == ["d0", "d1", "d2"]
    mesh = ax.collections[0]
    drawn = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(3, 2)
    np.testing.assert_array_equal(drawn, matrix.loc[rows, columns])
    low, high = mesh.get_clim()
    assert low == -high
    assert high == pytest.approx(np.nanmax(np.abs(matrix.to_numpy())))
    assert len(ax.child_axes) == 1  # a tree of the donors; two treatments need none
    plt.close("all")


def test_three_treatments_have_a_tree_of_their_own(result):
    adata = result.copy()
    response = adata.uns["response"]
    response["matrix"] = response["matrix"].assign(c=[2.0, 4.0, 6.0])
    # a and c join at height 1, then b at height 3.
    linkage = np.array([[0.0, 2.0, 1.0, 2.0], [1.0, 3.0, 3.0, 3.0]])
    response["trees"] = {"treatments": {"linkage": linkage, "order": np.array([1, 0, 2])}}
    ax = scratio.pl.treatment_response(adata)
    (top,) = ax.child_axes
    heights = sorted(max(line.get_ydata()) for line in top.lines)
    assert heights == [1.0, 3.0]
    assert top.get_xlim() == (0.0, 3.0)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "a", "c"]
    plt.close("all")


def test_without_clusters_the_order_is_that_of_the_table(result):
    ax = scratio.pl.treatment_response(result, cluster=False)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["d0", "d1", "d2"]
    assert not ax.child_axes
    plt.close("all")


def test_the_plot_refuses_what_is_not_there(result):
    with pytest.raises(KeyError, match="nothing"):
        scratio.pl.treatment_response(result, key="nothing")
