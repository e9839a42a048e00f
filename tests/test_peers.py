"""Other estimators: each finds a known log ratio; paths and conditional scores; the table that compares them."""

from __future__ import annotations

import random
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from packaging.version import Version
from scipy.sparse import csr_matrix

import scratio
from scratio import peers
from scratio._random import seeded_globals
from scratio.peers._base import Standardiser
from scratio.peers._paths import BridgePath, GaussianToData

SHORT = {"n_steps": 600, "n_hidden": 64}
SETTINGS = {name: SHORT if name.startswith(("tsm", "ctsm", "naive")) else {} for name in peers.PEERS}
NAMES = [name for name in peers.PEERS if name != "meld" or peers.is_installed("meld")]
WITHIN = {"boosting": 0.2, "ctsm-v-sb": 0.08, "knn": 0.2, "mlp": 0.08, "meld": 0.4}
"""Mean square error that is reached on two dimensions, by those above .04; the variance of the truth is 1.25."""


def gaussians(n: int, seed: int, d: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of N(+-m, I), a distance of 1 apart; in other units, which must not matter."""
    rng = np.random.default_rng(seed)
    return tuple(
        5.0 + 3.0 * (rng.normal(size=(size, d)) + shift / np.sqrt(d)) for size, shift in ((n, 0.5), (n // 2, -0.5))
    )


def truth(x: np.ndarray) -> np.ndarray:
    return (x - 5.0).sum(1) / 3.0 / np.sqrt(x.shape[1])


@pytest.fixture(scope="module", params=NAMES)
def fitted(request) -> tuple[str, peers.RatioEstimator]:
    return request.param, peers.make(request.param, **SETTINGS[request.param]).fit(*gaussians(4_000, seed=0))


def test_a_peer_finds_the_log_ratio_of_two_gaussians(fitted):
    name, peer = fitted
    x = np.concatenate(gaussians(4_000, seed=0) if name in peers.IN_SAMPLE else gaussians(1_000, seed=1))
    found = peer.log_ratio(x)
    assert found.shape == (len(x),)
    assert found.dtype == np.float64
    assert np.mean((found - truth(x)) ** 2) < WITHIN.get(name, 0.04)
    # Twice as many cells of the numerator are no part of the ratio.
    assert abs(np.mean(found - truth(x))) < 0.12


@pytest.mark.parametrize("name", ["tsm", "ctsm-v-sb", "naive", "mlp", "boosting", "qda", "knn"])
def test_the_same_seed_gives_the_same_bits_and_another_other_ones(name):
    samples, x = gaussians(200, seed=2), gaussians(20, seed=3)[0]
    settings = {"n_steps": 5, "n_hidden": 8} if SETTINGS[name] else {}
    found = [peers.make(name, random_state=s, **settings).fit(*samples).log_ratio(x) for s in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    if name not in ("qda", "knn", "boosting"):
        assert not np.array_equal(found[0], found[2])


needs_mrvi = pytest.mark.skipif(
    Version(version("scvi-tools")) < Version("1.4.1"), reason="MrVI on torch does not learn in scvi-tools 1.4.0"
)
MRVI = {"max_epochs": 15, "accelerator": "cpu"}


def planted_counts() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts of two cell types in 3 treated and 3 other samples, the samples, which are treated, and the first type."""
    rng = np.random.default_rng(0)
    sample = np.arange(600) % 6
    is_first = rng.uniform(size=600) < np.where(sample < 3, 0.5, 0.15)
    rate = np.where(is_first[:, None] == (np.arange(30) < 15), 12.0, 2.0)
    return rng.poisson(rate), sample, sample < 3, is_first


@needs_mrvi
def test_mrvi_finds_a_planted_difference():
    counts, sample, is_treated, is_first = planted_counts()
    found = peers.mrvi(counts, sample, is_treated, **MRVI)
    assert found.dtype == np.float64
    for is_type, sign in ((is_first, 1.0), (~is_first, -1.0)):
        # Of two types that do not overlap, the log ratio is that of their shares.
        truth = np.log(is_type[is_treated].mean() / is_type[~is_treated].mean())
        assert found[is_type].mean() == pytest.approx(truth, abs=0.25)
        assert (sign * found[is_type] > 0.0).mean() > 0.95


@needs_mrvi
def test_mrvi_turns_its_sign_with_the_labels_and_repeats_itself(tmp_path, monkeypatch, capfd):
    counts, sample, is_treated, _ = planted_counts()
    monkeypatch.chdir(tmp_path)
    with torch.inference_mode():
        found = peers.mrvi(csr_matrix(counts), sample, is_treated, **MRVI)
    np.testing.assert_array_equal(peers.mrvi(counts, sample, is_treated, **MRVI), found)
    np.testing.assert_allclose(peers.mrvi(counts, sample, ~is_treated, **MRVI), -found)
    assert not np.array_equal(peers.mrvi(counts, sample, is_treated, random_state=1, **MRVI), found)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_global_generators_are_seeded_within_the_block_and_restored_after_an_error():
    def drawn() -> tuple[float, float, float]:
        return float(torch.rand(())), np.random.uniform(), random.random()

    before, found = (torch.random.get_rng_state(), np.random.get_state()[2], random.getstate()), []
    for seed in (3, 3, 4):
        with pytest.raises(ZeroDivisionError), seeded_globals(seed):
            found.append(drawn())
            raise ZeroDivisionError
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1:] == (np.random.get_state()[2], random.getstate())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_treatment": np.ones(8, dtype=bool)}, "must hold both conditions"),
        ({"samples": np.array([0, 1, 2, 3, 4, 5, 6, 0])}, r"both are in \['0'\]"),
        ({"samples": np.array([0, 0, 0, 0, 1, 1, 2, 2])}, "each condition must have at least two samples"),
        ({"counts": np.full((8, 3), 0.5)}, "whole numbers of at least 0"),
        ({"counts": csr_matrix(-np.eye(8))}, "whole numbers of at least 0"),
    ],
)
def test_what_mrvi_cannot_compare_is_refused(change, message):
    given = {"counts": np.ones((8, 3)), "samples": np.arange(8) // 2, "is_treatment": np.arange(8) < 4}
    with pytest.raises(ValueError, match=message):
        peers.mrvi(**{**given, **change})


def test_an_mrvi_that_does_not_learn_is_refused(monkeypatch):
    monkeypatch.setattr("scratio._compat.version", lambda package: "1.4.0.post1")
    with pytest.raises(ImportError, match=r"does not learn in scvi-tools 1.4.0.post1: install scvi-tools>=1.4.1"):
        peers.mrvi(np.ones((8, 3)), np.arange(8) // 2, np.arange(8) < 4)


@pytest.mark.skipif(not peers.is_installed("pertpy"), reason="Milo needs pertpy, which is no requirement of scratio")
def test_milo_finds_a_planted_difference():
    rng = np.random.default_rng(0)
    sample = np.repeat(np.arange(12), 100)
    is_first = rng.uniform(size=1_200) < np.where(sample < 6, 0.5, 0.15)
    x = rng.normal(size=(1_200, 3)) + 8.0 * is_first[:, None]
    found = peers.milo(x, sample, sample < 6)
    assert found.log_ratio[is_first].mean() == pytest.approx(np.log(0.5 / 0.15), abs=0.4)
    assert (found.qvalue[is_first] < 0.1).mean() > 0.8


# --- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [BridgePath(), BridgePath(sigma=0.5), GaussianToData()])
def test_rates_are_the_derivatives_of_the_coefficients(path):
    u = torch.linspace(path.low + 0.1, path.high - 0.1, 20, dtype=torch.float64)[:, None].requires_grad_()
    at = path.coefficients(u)
    for value, rate in ((at.a, at.a_rate), (at.b, at.b_rate), (at.root_k.log(), at.k_rate)):
        if value.requires_grad:
            expected = torch.autograd.grad(value.sum(), u, retain_graph=True)[0]
            torch.testing.assert_close(rate, expected)
        else:
            assert not rate.any()


@pytest.mark.parametrize("path", [BridgePath(), GaussianToData()])
@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_the_regression_target_is_the_conditional_time_score(path, position):
    # d/du log N(x; a x0 + b x1, k I) at a fixed x, by automatic differentiation.
    u = torch.tensor([[path.low + position * (path.high - path.low)]], dtype=torch.float64, requires_grad=True)
    x0, x1, noise = torch.randn((3, 1, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = path.coefficients(u)
    x = (at.a * x0 + at.b * x1 + at.root_k * noise).detach()

    log_density = -0.5 * ((x - at.a * x0 - at.b * x1) / at.root_k).square().sum() - 4 * at.root_k.log().sum()
    expected = torch.autograd.grad(log_density, u)[0]
    target = at.k_rate * (noise**2 - 1.0) + noise * (at.a_rate * x0 + at.b_rate * x1) / at.root_k
    torch.testing.assert_close(target.sum(1, keepdim=True), expected)


@pytest.mark.parametrize("path", [BridgePath(), GaussianToData()])
def test_the_variance_of_the_conditional_time_score_is_as_stated(path):
    rng = torch.Generator().manual_seed(0)
    x0, x1, noise = torch.randn((3, 100_000, 2), generator=rng)
    x1 = x1 + 2.0
    moved = x1 if path.is_one_sided else x1 - x0
    for position in (0.1, 0.5, 0.9):
        u = torch.full((1, 1), path.low + position * (path.high - path.low))
        at = path.coefficients(u)
        target = at.k_rate * (noise**2 - 1.0) + noise * (at.a_rate * x0 + at.b_rate * x1) / at.root_k
        stated = path.time_score_variance(u, 2, float(moved.square().sum(1).mean()))
        assert float(target.sum(1).square().mean()) == pytest.approx(float(stated), rel=0.05)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name != "meld"])
@pytest.mark.parametrize(
    ("num", "den", "message"),
    [
        (np.zeros((5, 2)), np.full((5, 2), np.nan), "x_den holds values that are not finite"),
        (np.zeros((1, 2)), np.zeros((5, 2)), "x_num must have shape"),
        (np.zeros((5, 3)), np.zeros((5, 2)), "3 columns and x_den has 2"),
    ],
)
def test_bad_samples_are_refused_by_every_peer(name, num, den, message):
    with pytest.raises(ValueError, match=message):
        peers.make(name).fit(num, den)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="no method 'lda'; there are"):
        peers.make("lda")
    with pytest.raises(ValueError, match="path must be one of"):
        peers.CTSM(path="straight")
    with pytest.raises(ValueError, match="kind must be one of"):
        peers.Classifier(kind="forest")
    with pytest.raises(ValueError, match="covariance of x_num, of shape"):
        peers.make("qda").fit(np.zeros((5, 2)), np.random.default_rng(0).normal(size=(5, 2)))


def test_a_package_that_is_absent_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("scratio.peers._adapters.find_spec", lambda package: None)
    with pytest.raises(ImportError, match="meld is not installed: pip install --no-deps meld"):
        peers.make("meld")
    with pytest.raises(ImportError, match="pertpy is not installed: pip install pertpy pydeseq2"):
        peers.milo(np.zeros((4, 2)), np.arange(4), np.arange(4) < 2)


def test_the_standardiser_counts_both_samples_half():
    num, den = gaussians(4_000, seed=4)
    standardise = Standardiser.of(num, den)
    both = 0.5 * (standardise(num).mean(0) + standardise(den).mean(0))
    np.testing.assert_allclose(both, 0.0, atol=1e-5)
    second = 0.5 * ((standardise(num) ** 2).mean(0) + (standardise(den) ** 2).mean(0))
    np.testing.assert_allclose(second, 1.0, rtol=1e-4)


# --- the comparison ------------------------------------------------------------------------------------------------


GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control"}


@pytest.fixture(scope="module")
def compared() -> AnnData:
    adata = scratio.datasets.gaussians(n_cells=1_500, n_dims=2, random_state=0)
    adata.obs["condition"] = adata.obs["condition"].astype(str)
    adata.obs.iloc[:5, adata.obs.columns.get_loc("condition")] = "other"
    scratio.tl.compare_methods(
        adata,
        **GROUPS,
        methods=["scratio", "qda", "knn", "ctsm-sb"],
        method_kwargs={"scratio": {"max_steps": 100}, "ctsm-sb": SHORT, "knn": {"n_neighbors": 30}},
        truth_key="true_log_ratio",
        n_folds=3,
    )
    return adata


def test_every_method_has_its_log_ratios_and_its_row(compared):
    values, table = compared.obsm["comparison"], compared.uns["comparison"]["table"].set_index("method")
    assert list(values) == list(table.index) == ["scratio", "qda", "knn", "ctsm-sb"]
    assert values.iloc[:5].isna().all().all()
    truth = compared.obs["true_log_ratio"].to_numpy()[5:]
    for name in values:
        error = values[name].to_numpy()[5:] - truth
        assert table.loc[name, "rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
        assert table.loc[name, "bias"] == pytest.approx(error.mean())
    # The truth is a ratio of Gaussians: whoever assumes that is nearest.
    assert table["rmse"].drop("knn").max() < table.loc["knn", "rmse"]
    assert (table["label_loss"] < table["label_loss_of_nothing"]).all()
    assert table["out_of_fold"].all()


def test_no_cell_is_scored_by_a_peer_that_saw_it(monkeypatch):
    adata = scratio.datasets.gaussians(n_cells=100, n_dims=2, random_state=0)
    seen = []

    class Spy:
        def fit(self, x_num, x_den):
            self.known = {tuple(row) for row in np.concatenate([x_num, x_den])}
            return self

        def log_ratio(self, x):
            seen.append((len(x), len(self.known), any(tuple(row) in self.known for row in x)))
            return np.zeros(len(x))

    monkeypatch.setitem(peers.PEERS, "spy", lambda random_state=0: Spy())
    scratio.tl.compare_methods(adata, **GROUPS, methods=["spy"], n_folds=4)
    assert seen == [(25, 75, False)] * 4


def test_the_comparison_can_be_stored_and_drawn(compared, tmp_path):
    compared.write_h5ad(tmp_path / "cells.h5ad")
    table = compared.uns["comparison"]["table"].set_index("method")["rmse"].sort_values(ascending=False)
    ax = scratio.pl.compare_methods(compared)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(table.index)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], table)
    assert ax.get_xscale() == "linear"
    wide = compared.copy()
    wide.uns["comparison"]["table"].loc[0, "rmse"] = 1e3
    assert scratio.pl.compare_methods(wide).get_xscale() == "log"
    by_labels = scratio.pl.compare_methods(compared, measure="label_loss")
    assert by_labels.get_xlabel() == "cross-entropy of held-out labels (nats)"
    with pytest.raises(KeyError, match="no measure 'mse'; found"):
        scratio.pl.compare_methods(compared, measure="mse")
    plt.close("all")


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"methods": ["lda"]}, ValueError, "no method 'lda'"),
        ({"methods": "qda"}, ValueError, "a list of different names"),
        ({"methods": ["qda", "qda"]}, ValueError, "a list of different names"),
        ({"methods": ["qda"], "method_kwargs": {"knn": {}}}, ValueError, "not among the methods"),
        ({"methods": ["qda"], "truth_key": "truth"}, KeyError, "truth"),
        ({"methods": ["qda"], "treatment": "stim"}, ValueError, "no category 'stim'"),
    ],
)
def test_mistakes_are_named_before_anything_is_fitted(kwargs, error, message):
    adata = scratio.datasets.gaussians(n_cells=100, n_dims=2, random_state=0)
    before = adata.obs.copy()
    with pytest.raises(error, match=message):
        scratio.tl.compare_methods(adata, **{**GROUPS, **kwargs})
    pd.testing.assert_frame_equal(adata.obs, before)
    assert not adata.uns
