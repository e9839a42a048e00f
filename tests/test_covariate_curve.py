"""Curves over a dose: known answers, also between the doses that were observed; what is refused, what is drawn."""

from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scratio
from scratio.model import ScRatio

DOSES = np.array([0.0, 1.0, 2.0, 4.0, 6.0])


def shift(dose: np.ndarray) -> np.ndarray:
    """Where a dose moves the cells to: it saturates."""
    return 2.0 * dose / (2.0 + dose)


def log_ratio(x: np.ndarray, dose: float, reference: float) -> np.ndarray:
    return -0.5 * (x - shift(dose)) ** 2 + 0.5 * (x - shift(reference)) ** 2


@pytest.fixture(scope="module")
def model() -> ScRatio:
    rng = np.random.default_rng(0)
    dose = rng.choice(DOSES, 5_000)
    x = np.stack([shift(dose) + rng.normal(size=5_000), rng.normal(size=5_000)], axis=1)
    obs = pd.DataFrame({"dose": dose, "side": np.where(x[:, 0] > 1.0, "right", "left")})
    obs.index = [f"cell{i}" for i in range(5_000)]
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    ScRatio.setup_anndata(adata, condition_keys=[], continuous_keys=["dose"])
    model = ScRatio(adata, n_hidden=32, n_members=2)
    model.train(max_steps=400, batch_size=512, warmup_steps=20, progress_bar=False)
    return model


@pytest.mark.parametrize("dose", [1.0, 3.0, 5.0, 6.0])
def test_the_log_ratio_of_a_dose_is_near_the_closed_form_also_between_observed_ones(model, dose):
    x = model.adata.obsm["X_pca"][:, 0]
    truth = log_ratio(x, dose, 0.0)
    found = model.log_ratio(numerator={"dose": dose}, denominator={"dose": 0.0})
    assert np.mean((found - truth) ** 2) < 0.1 * truth.var()


def test_the_curve_is_the_mean_of_the_cells(model):
    adata = model.adata.copy()
    scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=0.0, values=[5.0, 1.0], groupby="side")
    table = adata.uns["curve"]["table"]
    assert table["group"].tolist() == ["left", "left", "right", "right"]
    assert table["value"].tolist() == [1.0, 5.0, 1.0, 5.0]
    right = (adata.obs["side"] == "right").to_numpy()
    values, std = model.log_ratio(adata, numerator={"dose": 5.0}, denominator={"dose": 0.0}, return_std=True)
    row = table.iloc[3]
    assert row["n_cells"] == right.sum()
    assert row["mean"] == pytest.approx(values[right].mean())
    expected = np.sqrt(values[right].var(ddof=1) / right.sum() + np.mean(std[right] ** 2))
    assert row["standard_error"] == pytest.approx(expected)
    truth = log_ratio(adata.obsm["X_pca"][right, 0], 5.0, 0.0).mean()
    assert row["mean"] == pytest.approx(truth, abs=0.15)


def test_by_default_the_curve_is_over_the_observed_values(model):
    adata = model.adata.copy()
    scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=0.0)
    table = adata.uns["curve"]["table"]
    np.testing.assert_array_equal(table["value"], DOSES)
    assert table["mean"].iloc[0] == 0.0  # the reference over itself
    assert (table["group"] == "all cells").all()


def test_the_result_survives_writing(model, tmp_path):
    adata = model.adata.copy()
    scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=0.0, values=[1.0])
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.uns["curve"]["table"]["mean"], adata.uns["curve"]["table"]["mean"])


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"covariate_key": "age"}, ValueError, "age.*dose"),
        ({"values": []}, ValueError, "values"),
        ({"values": ["high"]}, ValueError, "dose"),
        ({"fixed": {"dose": 1.0}}, ValueError, "fixed"),
        ({"fixed": {"donor": "1"}}, KeyError, "donor"),
        ({"groupby": "cell_type"}, KeyError, "cell_type"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(model, unchanged, kwargs, error, named):
    adata = model.adata.copy()
    with unchanged(adata), pytest.raises(error, match=named):
        scratio.tl.covariate_curve(adata, model, **{"covariate_key": "dose", "reference": 0.0, **kwargs})


def test_the_plot_has_a_line_and_a_band_for_each_group(model):
    adata = model.adata.copy()
    scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=1.0, groupby="side")
    ax = scratio.pl.covariate_curve(adata)
    table = adata.uns["curve"]["table"]
    for line, band, name in zip(ax.lines, ax.collections, ("left", "right"), strict=False):
        part = table[table["group"] == name]
        np.testing.assert_array_equal(line.get_xdata(), part["value"])
        np.testing.assert_array_equal(line.get_ydata(), part["mean"])
        edges = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose(edges.max(), (part["mean"] + 1.645 * part["standard_error"]).max())
        np.testing.assert_allclose(edges.min(), (part["mean"] - 1.645 * part["standard_error"]).min())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["left", "right"]
    assert ax.get_ylabel() == "log ratio to 1 (nats)"
    with pytest.raises(ValueError, match="middle"):
        scratio.pl.covariate_curve(adata, groups=["middle"])
    with pytest.raises(KeyError, match="nothing"):
        scratio.pl.covariate_curve(adata, key="nothing")
    plt.close("all")
