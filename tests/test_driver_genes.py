"""Driver genes and the gradient of the log ratio: known answers, decoders, what is refused, what is drawn."""

from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.container import BarContainer

import scratio
from scratio.model import ScRatio

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}


@pytest.fixture(scope="module")
def model() -> ScRatio:
    """Treated cells lie 1 further along two of four genes; the embedding is a rotation of the first three."""
    rng = np.random.default_rng(0)
    treated = rng.integers(0, 2, 3_000)
    genes = rng.normal(size=(3_000, 4)) * [1.0, 1.0, 1.0, 0.0] + treated[:, None] * [1.0, -1.0, 0.0, 0.0]
    loadings = np.zeros((4, 3))
    loadings[:3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    obs = pd.DataFrame({"condition": np.where(treated == 1, "treated", "control"), "half": np.arange(3_000) % 2})
    obs.index = obs.index.astype(str)
    adata = AnnData(
        genes, obs=obs, var=pd.DataFrame(index=["up", "down", "flat", "silent"]), obsm={"X_pca": genes @ loadings},
        varm={"PCs": np.column_stack([loadings, np.ones(4)])},
    )  # fmt: skip
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=32, n_members=2, n_folds=2)
    model.train(max_steps=300, batch_size=256, warmup_steps=20, progress_bar=False)
    return model


def test_the_gradient_is_that_of_the_closed_form(model):
    # log r = x_up - x_down in the units of the genes, whatever the rotation.
    gradients = model.log_ratio_gradient(**CONTRAST)
    assert gradients.shape == (2, 3_000, 3)
    genes = gradients.mean(0) @ model.adata.varm["PCs"][:, :3].T
    np.testing.assert_allclose(genes.mean(0), [1.0, -1.0, 0.0, 0.0], atol=0.12)


def test_the_gradient_is_the_slope_of_the_log_ratio(model):
    cells = model.adata[:40].copy()
    # New cells, as those beside them are: all of one model.
    cells.obsm["X_pca"] = cells.obsm["X_pca"] + 1e-3
    gradients = model.log_ratio_gradient(cells, **CONTRAST, noise_level=0.02).mean(0)
    assert np.abs(gradients).max() > 0.1
    step = 0.02
    for axis in range(3):
        ends = []
        for sign in (1.0, -1.0):
            moved = cells.copy()
            moved.obsm["X_pca"] = cells.obsm["X_pca"] + sign * step * np.eye(3)[axis]
            ends.append(model.log_ratio(moved, **CONTRAST))
        np.testing.assert_allclose(gradients[:, axis], (ends[0] - ends[1]) / (2.0 * step), atol=0.02)


def test_training_cells_are_judged_by_networks_that_did_not_see_them(model):
    rows = np.array([5, 2_000, 17])
    whole = model.log_ratio_gradient(**CONTRAST)
    np.testing.assert_allclose(model.log_ratio_gradient(**CONTRAST, rows=rows), whole[:, rows], rtol=1e-4, atol=1e-5)
    new = model.adata.copy()
    new.obsm["X_pca"] = new.obsm["X_pca"] + 1e-3
    assert model.log_ratio_gradient(new, **CONTRAST).shape == (4, 3_000, 3)


@pytest.mark.parametrize("decoder", ["key", "array", "function"])
def test_genes_that_differ_are_found_with_every_kind_of_decoder(model, decoder):
    adata = model.adata.copy()
    loadings = adata.varm["PCs"][:, :3]
    chosen = {"key": "PCs", "array": loadings, "function": lambda x: x @ loadings.T}[decoder]
    scratio.tl.driver_genes(adata, model, **CONTRAST, decoder=chosen)
    table = adata.uns["drivers"]["table"].set_index("gene")
    assert set(table.index[:2]) == {"up", "down"}
    np.testing.assert_allclose(table.loc[["up", "down", "flat", "silent"], "mean"], [1.0, -1.0, 0.0, 0.0], atol=0.12)
    np.testing.assert_allclose(adata.varm["drivers"].loc[table.index, "all cells"], table["mean"])
    assert table.loc["silent", "standard_error"] == pytest.approx(0.0, abs=1e-9)
    assert (table.loc[["up", "down", "flat"], "standard_error"] > 0.0).all()


def test_a_bent_decoder_is_followed_where_the_cells_are(model):
    adata = model.adata.copy()
    loadings = adata.varm["PCs"][:, :3]
    # exp has the slope exp(gene) in each cell.
    scratio.tl.driver_genes(adata, model, **CONTRAST, decoder=lambda x: np.exp(x @ loadings.T), copy=False)
    gradients = model.log_ratio_gradient(adata, **CONTRAST).mean(0)
    genes = np.asarray(adata.obsm["X_pca"]) @ loadings.T
    expected = (np.exp(genes) * (gradients @ loadings.T)).mean(0)
    np.testing.assert_allclose(adata.varm["drivers"]["all cells"], expected, rtol=1e-3, atol=1e-6)


def test_groups_are_averaged_apart(model):
    adata = model.adata.copy()
    scratio.tl.driver_genes(adata, model, **CONTRAST, groupby="half")
    assert list(adata.varm["drivers"].columns) == ["0", "1"]
    gradients = model.log_ratio_gradient(adata, **CONTRAST)
    loadings, rows = adata.varm["PCs"][:, :3], np.flatnonzero(adata.obs["half"] == 1)
    each = gradients[:, rows] @ loadings.T
    mean, by_member = each.mean((0, 1)), each.mean(1)
    np.testing.assert_allclose(adata.varm["drivers"]["1"], mean, rtol=1e-9, atol=1e-12)
    table = adata.uns["drivers"]["table"]
    found = table[table["group"] == "1"].set_index("gene").loc[list(adata.var_names), "standard_error"]
    # Of two members of a fold.
    distinct, size = np.array(model.training_["distinct"]), model.n_members
    pairs = [distinct[a, b] for a in range(len(distinct)) for b in range(a) if a // size == b // size]
    jackknife = by_member.var(0, ddof=1) / np.mean(pairs)
    expected = np.sqrt(each.mean(0).var(0, ddof=1) / len(rows) + jackknife)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_the_result_survives_writing(model, tmp_path):
    adata = model.adata.copy()
    scratio.tl.driver_genes(adata, model, **CONTRAST, groupby="half")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.varm["drivers"], adata.varm["drivers"])
    assert list(again.uns["drivers"]["table"]["gene"]) == list(adata.uns["drivers"]["table"]["gene"])


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"decoder": "loadings"}, KeyError, "loadings.*PCs"),
        ({"decoder": np.ones((4, 2))}, ValueError, "at least 3"),
        ({"decoder": lambda x: x}, ValueError, "decoder"),
        ({"groupby": "cell_type"}, KeyError, "cell_type"),
        ({"noise_level": 0.0}, ValueError, "noise_level"),
        ({"numerator": {"donor": "1"}}, KeyError, "donor"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(model, unchanged, kwargs, error, named):
    adata = model.adata.copy()
    with unchanged(adata), pytest.raises(error, match=named):
        scratio.tl.driver_genes(adata, model, **{**CONTRAST, **kwargs})
    assert "drivers" not in adata.varm


# --- the plot


def test_the_bars_are_the_strongest_genes(model):
    adata = model.adata.copy()
    scratio.tl.driver_genes(adata, model, **CONTRAST)
    ax = scratio.pl.driver_genes(adata, n_genes=3)
    table = adata.uns["drivers"]["table"].head(3).sort_values("mean")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table["gene"])
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], table["mean"])
    (bars,) = (container for container in ax.containers if isinstance(container, BarContainer))
    segments = np.array(bars.errorbar.lines[2][0].get_segments())
    np.testing.assert_allclose(np.ptp(segments[:, :, 0], axis=1) / 2.0, table["standard_error"])
    red, blue = ax.patches[-1].get_facecolor(), ax.patches[0].get_facecolor()
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    plt.close("all")


def test_a_group_has_to_be_named_where_there_are_several(model):
    adata = model.adata.copy()
    scratio.tl.driver_genes(adata, model, **CONTRAST, groupby="half")
    with pytest.raises(ValueError, match="name one"):
        scratio.pl.driver_genes(adata)
    with pytest.raises(ValueError, match="third"):
        scratio.pl.driver_genes(adata, group="third")
    with pytest.raises(KeyError, match="nothing"):
        scratio.pl.driver_genes(adata, key="nothing")
    assert scratio.pl.driver_genes(adata, group="1").get_title() == "1"
    plt.close("all")
