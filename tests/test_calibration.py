"""Diagnostics of a comparison: known slopes, overlaps, errors; what the verdict and the plot say."""

from __future__ import annotations

from itertools import product

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import digamma, expit
from scipy.stats import norm

import scratio
from scratio.stats import (
    label_slope,
    moderated_error,
    overlap,
    reliability,
    residual_inflation,
)
from scratio.tl._diagnostics import verdict

GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labelled(n: int = 20_000, prior: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log ratios, labels that follow them, log odds of the class sizes."""
    log_ratio = rng(seed).normal(size=n)
    offset = np.full(n, np.log(prior / (1.0 - prior)))
    return log_ratio, rng(seed + 1).uniform(size=n) < expit(offset + log_ratio), offset


# --- slope ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_slope_says_by_what_factor_a_log_ratio_is_wrong(factor):
    log_ratio, is_treatment, offset = labelled()
    found = label_slope(log_ratio * factor, is_treatment, offset)
    assert abs(found.slope - 1.0 / factor) < 3.0 * found.standard_error
    assert found.standard_error < 0.05 / factor


def test_the_slope_does_not_mind_a_constant():
    log_ratio, is_treatment, offset = labelled()
    shifted = label_slope(log_ratio, is_treatment, offset + 2.0)
    assert shifted.slope == pytest.approx(label_slope(log_ratio, is_treatment, offset).slope, rel=1e-6)


def test_errors_across_samples_are_those_of_the_samples():
    # Every sample has labels that depend on a value of its own, so that cells are no independent evidence.
    slopes, cells, samples = [], [], []
    for seed in range(60):
        sample = np.repeat(np.arange(20), 50)
        log_ratio = rng(seed).normal(size=20)[sample]
        own = rng(seed + 1_000).normal(size=20)[sample]
        is_treatment = rng(seed + 2_000).uniform(size=1_000) < expit(log_ratio + own)
        nothing = np.zeros(1_000)
        found = label_slope(log_ratio, is_treatment, nothing, sample)
        slopes.append(found.slope)
        samples.append(found.standard_error)
        cells.append(label_slope(log_ratio, is_treatment, nothing).standard_error)
    spread = np.std(slopes)
    assert np.median(samples) == pytest.approx(spread, rel=0.4)
    assert np.median(cells) < 0.5 * spread


def test_a_log_ratio_that_is_the_same_everywhere_has_no_slope():
    _, is_treatment, offset = labelled(100)
    assert np.isnan(label_slope(np.zeros(100), is_treatment, offset).slope)


# --- reliability ---------------------------------------------------------------------------------------------------


def test_the_curve_of_a_right_log_ratio_is_the_diagonal():
    curve = reliability(*labelled())
    assert curve["n_cells"].sum() == 20_000
    z = (curve["observed"] - curve["expected"]) / curve["standard_error"]
    assert np.abs(z).max() < 3.5
    assert np.ptp(curve["expected"]) > 2.5


def test_bars_across_samples_are_wider_where_cells_of_a_sample_agree():
    sample = np.repeat(np.arange(40), 100)
    log_ratio, nothing = rng().normal(size=4_000), np.zeros(4_000)
    alone = rng(1).uniform(size=4_000) < 0.5
    together = (rng(1).uniform(size=40) < 0.5)[sample]
    for is_treatment, least, most in ((alone, 1.0, 1.6), (together, 2.0, 5.0)):
        by_cell = reliability(log_ratio, is_treatment, nothing)["standard_error"]
        by_sample = reliability(log_ratio, is_treatment, nothing, sample)["standard_error"]
        assert (by_sample >= by_cell).all()
        # Samples of 10 cells in each bin: if they all agree, the bars are sqrt(10) times as wide.
        assert least <= np.median(by_sample / by_cell) <= most


def test_the_curve_of_a_log_ratio_that_is_twice_too_large_is_half_as_steep():
    log_ratio, is_treatment, offset = labelled()
    curve = reliability(2.0 * log_ratio, is_treatment, offset)
    assert np.polyfit(curve["expected"], curve["observed"], 1)[0] == pytest.approx(0.5, abs=0.05)


# --- overlap -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_overlap_of_two_gaussians(distance):
    x = np.r_[rng().normal(size=20_000), rng(1).normal(size=30_000) + distance]
    is_treatment = np.arange(50_000) >= 20_000
    found = overlap(distance * x - 0.5 * distance**2, is_treatment)
    assert found["overlap"] == pytest.approx(2.0 * norm.cdf(-distance / 2.0), abs=0.01)
    # E[w]^2 / E[w^2] = exp(-distance^2) of two Gaussians with variance 1; few cells carry it at distance 3.
    if distance < 2.0:
        assert found["effective_cells_reference"] == pytest.approx(20_000 * np.exp(-(distance**2)), rel=0.1)
        assert found["effective_cells_treatment"] == pytest.approx(30_000 * np.exp(-(distance**2)), rel=0.1)


# --- standard errors -----------------------------------------------------------------------------------------------


def test_errors_that_are_right_are_left_alone_and_smooth_errors_that_are_too_small_are_found():
    x = rng().uniform(-2.0, 2.0, size=(8_000, 2))
    truth = 1.5 * np.sin(x[:, 0])
    is_treatment = rng(1).uniform(size=8_000) < expit(truth)
    folds = np.arange(8_000) % 4
    wave = 0.6 * np.sqrt(2.0) * np.sin(3.0 * x[:, 1] + folds)  # an error of .36 on average
    nothing = np.zeros(8_000)
    claimed = {size: np.full(8_000, size) for size in (0.2, 0.6, 1.0)}
    found = {
        size: residual_inflation(x, folds, truth + wave, error, is_treatment, nothing)
        for size, error in claimed.items()
    }
    assert found[0.2] == pytest.approx((0.6 / 0.2) ** 2, rel=0.35)
    assert found[0.6] == 1.0
    assert found[1.0] == 1.0
    assert residual_inflation(x, folds, truth, claimed[0.2], is_treatment, nothing) == 1.0


def test_the_moderated_error_is_the_definition_written_out():
    kept, errors = rng().normal(size=(300, 3)), rng(1).uniform(0.1, 1.0, size=300)
    disagreement = rng(4).uniform(size=300)
    x, own = rng(2).normal(size=(20, 3)), rng(3).uniform(0.1, 3.0, size=20)
    expected = []
    for cell, error in zip(x, own, strict=True):
        nearest = np.argsort(((kept - cell) ** 2).sum(1))[:50]
        moderated = np.exp(np.log(errors[nearest] ** 2).mean() - digamma(1.0) + np.log(1.0))
        expected.append(np.sqrt(max(moderated, error**2 / 3.0) + disagreement[nearest].mean()))
    np.testing.assert_allclose(moderated_error(x, own, kept, errors, disagreement, 3), expected)
    without = moderated_error(x, own, kept, errors, np.zeros(300), 3)
    assert (own**2 / 3.0 > np.square(without) - 1e-9).any()


@pytest.mark.parametrize("n_networks", [2, 3, 10])
def test_moderated_errors_are_right_for_spreads_of_any_number_of_networks(n_networks):
    kept, sd, nothing = rng().normal(size=(2_000, 2)), 0.7, np.zeros(2_000)
    spread = sd * rng(1).normal(size=(n_networks, 2_000)).std(axis=0, ddof=1)
    found = moderated_error(kept[:200], spread[:200], kept, spread, nothing, n_networks)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(sd, rel=0.12)
    # One cell in which the networks drift apart leaves all others as they were.
    spread[1_999] = 1e4
    again = moderated_error(kept[:200], spread[:200], kept, spread, nothing, n_networks)
    assert np.median(again / found) == pytest.approx(1.0, abs=1e-9)


# --- in an analysis ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored() -> AnnData:
    adata = scratio.datasets.gaussians(n_cells=2_000, n_dims=2, random_state=0)
    kwargs = {"n_folds": 2, "model_kwargs": {"n_hidden": 32}, "train_kwargs": {"max_steps": 150, "progress_bar": False}}
    scratio.tl.differential_abundance(adata, **GROUPS, **kwargs)
    return adata


def test_diagnostics_of_an_analysis_agree_with_the_truth(scored):
    row = scored.uns["da"]["diagnostics"].iloc[0]
    is_treatment = (scored.obs["condition"] == "treated").to_numpy()
    truth = overlap(scored.obs["true_log_ratio"].to_numpy(), is_treatment)
    assert row["overlap"] == pytest.approx(truth["overlap"], abs=0.05)
    assert abs(row["slope"] - 1.0) < 0.3
    assert row["n_treatment"] == is_treatment.sum()
    assert row["supported_fraction"] == pytest.approx(scored.obs["da_support"].mean())
    assert row["closed_form"] == scored.uns["da"]["training"]["closed_form"]
    assert row["verdict"].startswith("Calibrated")
    assert "sample_key" in row["verdict"]
    curve = scored.uns["da"]["calibration"]
    assert curve["n_cells"].sum() == 2_000


def test_too_short_a_training_has_larger_errors_and_says_so():
    adata = scratio.datasets.gaussians(n_cells=3_000, n_dims=2, random_state=0)
    adata.obsm["X_pca"] = np.sign(adata.obsm["X_pca"]) * adata.obsm["X_pca"] ** 2  # no closed form has this shape
    kwargs = {"n_folds": 2, "model_kwargs": {"n_hidden": 8}}
    settings = {"max_steps": 2, "early_stopping": False, "progress_bar": False}
    scratio.tl.differential_abundance(adata, **GROUPS, **kwargs, train_kwargs=settings)
    row = adata.uns["da"]["diagnostics"].iloc[0]
    error = np.sqrt(np.mean((adata.obs["da_log_ratio"] - adata.obs["true_log_ratio"]) ** 2))
    assert row["variance_inflation"] > 1.0
    assert "train longer" in row["verdict"]
    assert np.sqrt((adata.obs["da_std"] ** 2).mean()) == pytest.approx(error, rel=0.5)


GOOD = {
    "slope": 1.0,
    "slope_standard_error": 0.05,
    "variance_inflation": 1.0,
    "overlap": 0.6,
    "supported_fraction": 0.98,
    "n_treatment": 1_000,
    "n_reference": 1_000,
    "effective_cells_treatment": 500.0,
    "effective_cells_reference": 500.0,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "Calibrated"),
        ({"slope": 0.5}, "Too bold"),
        ({"slope": 1.6}, "Too cautious"),
        ({"slope": 0.2, "slope_standard_error": 0.2}, "Not borne out"),
        ({"slope": float("nan")}, "No difference"),
        # Real answers that used to be called calibrated: nothing known, or five standard errors away from 1.
        ({"slope": -0.59, "slope_standard_error": 2.05}, "Cannot be told"),
        ({"slope": 10.0, "slope_standard_error": 434.0}, "Cannot be told"),
        ({"slope": 0.87, "slope_standard_error": 0.02}, "Too bold"),
        ({"slope": 1.0, "slope_standard_error": 0.08}, "Cannot be told"),
        ({"variance_inflation": 4.0}, "enlarged by 2.0"),
        ({"overlap": 0.03}, "hardly overlap"),
        ({"supported_fraction": 0.7}, "30% of the cells"),
        ({"n_treatment": 10}, "smaller condition"),
        ({"effective_cells_reference": 12.0}, "effective number 12"),
        # A slope near 1 says nothing of states that one condition alone has.
        ({"effective_cells_treatment": 1.0}, "Cannot be told"),
        ({"overlap": 0.03}, "Cannot be told"),
    ],
)
def test_the_verdict_says_what_is_the_matter(change, said):
    others = verdict(GOOD, "samples") if change else ""
    text = verdict({**GOOD, **change}, "samples")
    assert said in text
    assert said not in others
    assert "sample_key" not in text
    assert "sample_key" in verdict({**GOOD, **change}, "cells")


def test_no_verdict_says_more_than_the_slope_and_its_error_do():
    assert verdict({**GOOD, "slope": 1.1, "slope_standard_error": 0.02}, "cells").startswith("Calibrated")
    grid = product(
        np.linspace(-3.0, 6.0, 37), (0.01, 0.05, 0.1, 0.3, 1.0, 10.0, 400.0), (0.02, 0.5), (1.0, 40.0, 400.0)
    )
    for slope, error, shared, effective in grid:
        change = {"slope": slope, "slope_standard_error": error, "overlap": shared}
        for held_out in ("cells", "samples"):
            text = verdict({**GOOD, **change, "effective_cells_treatment": effective}, held_out)
            possible = slope - 2 * error, slope + 2 * error
            assert f"slope of held-out {held_out} {slope:.2f} ± {error:.2f}" in text
            # The slope comes first, then what limits it.
            assert ("hardly overlap" in text) == (shared < 0.1)
            assert ("A few cells carry" in text) == (effective < 50.0)
            if text.startswith("Calibrated"):
                assert shared >= 0.1
                assert effective >= 50.0
            if text.startswith("Calibrated"):
                assert 0.85 <= possible[0] and possible[1] <= 1.15
            elif text.startswith("Too cautious"):
                assert possible[0] > 1.0
            elif text.startswith("Too bold"):
                assert 0.0 < possible[0] and possible[1] < 1.0
            elif text.startswith("Not borne out"):
                assert possible[0] <= 0.0 and possible[1] < 1.0
            else:
                assert text.startswith("Cannot be told")
                is_near = 0.85 <= possible[0] and possible[1] <= 1.15
                assert possible[0] <= 1.0 <= possible[1] or is_near
                assert f"More {held_out} would tell" in text or "Only more cells of such states would tell" in text


@pytest.mark.parametrize("n", [12, 40])
def test_a_few_cells_are_never_called_calibrated(n):
    adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)[:n].copy()
    settings = {"max_steps": 10, "n_validation": 64, "early_stopping": False, "progress_bar": False}
    scratio.tl.differential_abundance(adata, **GROUPS, n_folds=2, train_kwargs=settings)
    assert adata.uns["da"]["diagnostics"]["verdict"][0].startswith("Cannot be told")


# --- the plot ------------------------------------------------------------------------------------------------------


def test_the_plot_shows_the_curve_and_the_verdict(scored):
    ax = scratio.pl.calibration(scored)
    curve, line = scored.uns["da"]["calibration"], ax.containers[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), curve["expected"])
    np.testing.assert_allclose(line.get_ydata(), curve["observed"])
    assert ax.get_title() == "treated over control"
    text = ax.texts[0].get_text().replace("\n", " ")
    assert text == scored.uns["da"]["diagnostics"]["verdict"][0]
    plt.close("all")


def test_the_plot_draws_where_it_is_told_to_and_names_what_is_missing(scored):
    _, given = plt.subplots()
    assert scratio.pl.calibration(scored, ax=given, verdict=False) is given
    assert not given.texts
    with pytest.raises(KeyError, match=r"no group 'other'; found: \['treated'\]"):
        scratio.pl.calibration(scored, group="other")
    with pytest.raises(KeyError, match="uns has no result 'mine'"):
        scratio.pl.calibration(scored, key="mine")
    plt.close("all")


def test_diagnostics_can_be_stored(scored, tmp_path):
    scored.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(again.uns["da"]["diagnostics"], scored.uns["da"]["diagnostics"], check_dtype=False)
