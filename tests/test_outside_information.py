"""Mutual information on tasks that others made: samples, exact log ratios and tables have to be right."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import dblquad
from scipy.stats import multivariate_normal


@pytest.mark.parametrize("n_samples", [7, 40, 43])
def test_samples_exchange_their_y_within_their_group_and_never_keep_it(benchmark, n_samples):
    partner, group = benchmark("outside_information").exchanged(np.random.default_rng(0), n_samples)
    np.testing.assert_array_equal(np.sort(partner), np.arange(n_samples))
    assert (partner != np.arange(n_samples)).all()
    np.testing.assert_array_equal(group[partner], group)
    # Tens; the last one has what is left.
    assert sorted(np.bincount(group)) == {7: [7], 40: [10] * 4, 43: [10] * 3 + [13]}[n_samples]


def test_neither_the_x_nor_the_y_of_a_scored_pair_was_in_training(benchmark):
    module, n, seed = benchmark("outside_information"), 203, 3
    drawn = module.made_up(seed, n)
    found, model = module.log_ratios(drawn["x"], drawn["y"], seed, {"effort": "quick"}, {})
    pairs, is_joint = model.adata.obsm["X_pca"], (model.adata.obs["condition"] == "treated").to_numpy()
    np.testing.assert_array_equal(pairs[is_joint], np.hstack([drawn["x"], drawn["y"]]))
    np.testing.assert_array_equal(np.sort(pairs[is_joint], axis=0), np.sort(pairs[~is_joint], axis=0))
    for fold in range(module.N_FOLDS):
        own, others = pairs[model.folds == fold], pairs[model.folds != fold]
        for values in (0, 1):
            assert not np.intersect1d(own[:, values], others[:, values]).size
    # The exact log ratios are of the pairs that are scored: those of another exchange would not go with the estimates.
    for estimate, exact in zip(found, (drawn["joint"], drawn["exchanged"]), strict=True):
        assert np.corrcoef(estimate, exact)[0, 1] > 0.9


def test_errors_of_single_pairs_leave_out_what_is_infinite(benchmark):
    exact = np.array([[1.0, 2.0, 3.0], [-1.0, -np.inf, 0.0]])
    found = benchmark("outside_information").pointwise(0.5 * exact + [[1.0], [1.0]], exact)
    assert found["n_outside"] == 1
    assert found["slope"] == pytest.approx(0.5)
    assert found["correlation"] == pytest.approx(1.0)
    # Joint pairs are off by .5, 0 and -.5, exchanged ones by 1.5 and 1.
    assert found["rmse"] == pytest.approx(np.sqrt(0.5 / 3.0))
    assert found["rmse_exchanged"] == pytest.approx(np.sqrt(3.25 / 2.0))


def test_exact_log_ratios_of_the_suite_are_those_of_the_densities(benchmark, monkeypatch):
    monkeypatch.setattr("os.environ", dict(os.environ))
    rng, suite = np.random.default_rng(0), benchmark("outside_peers/bmi")
    root = rng.normal(size=(5, 5))
    matrix, mean = root @ root.T + np.eye(5), rng.normal(size=5)
    x, y = np.split(rng.normal(size=(30, 5)), [2], axis=1)
    normal = SimpleNamespace(_covariance=matrix, _mean=mean)
    alone = multivariate_normal(
        mean, np.block([[matrix[:2, :2], np.zeros((2, 3))], [np.zeros((3, 2)), matrix[2:, 2:]]])
    )
    pairs = np.hstack([x, y])
    expected = multivariate_normal(mean, matrix).logpdf(pairs) - alone.logpdf(pairs)
    np.testing.assert_allclose(suite.pointwise(normal, x, y), expected)
    # A transformed sampler is that of what it transforms.
    around = SimpleNamespace(_base_sampler=SimpleNamespace(_base_sampler=SimpleNamespace(_sampler=normal)))
    assert suite.latent(around) is normal
    # Student-t, against a benchmark that writes its densities in another way.
    tails, half = benchmark("heavy_tails"), rng.standard_t(2, size=(30, 4))
    student = SimpleNamespace(_dispersion=tails.correlated(2), _mean=np.zeros(4), df=2)
    np.testing.assert_allclose(suite.pointwise(student, half[:, :2], half[:, 2:]), tails.log_ratio(half, 2, 2))


@pytest.mark.parametrize(("width", "information"), [(0.1, 0.1 - np.log(0.2)), (0.75, 1.0 / 3.0)])
def test_the_exact_log_ratio_of_additive_noise_gives_its_mutual_information(benchmark, monkeypatch, width, information):
    monkeypatch.setattr("os.environ", dict(os.environ))
    ratio = benchmark("outside_peers/bmi").of_noise

    def weighted(y: float, x: float) -> float:
        return float(ratio(np.array([x]), np.array([y]), width)[0]) / (2.0 * width)

    found, _ = dblquad(weighted, 0.0, 1.0, lambda x: x - width, lambda x: x + width, epsabs=1e-5)
    assert found == pytest.approx(information, abs=1e-3)
    assert ratio(np.array([0.5]), np.array([0.52 + width]), width)[0] == -np.inf


def test_methods_are_compared_on_the_seeds_that_all_of_them_have(benchmark):
    module = benchmark("_information")
    rows = [
        ("easy", "scratio", 0, 0.3),
        ("easy", "scratio", 1, -0.1),
        ("easy", "scratio", 2, 9.0),
        ("easy", "KSG", 0, -0.1),
        ("easy", "KSG", 1, -0.2),
        ("hard", "scratio", 0, -0.4),
        ("hard", "KSG", 0, np.nan),
    ]
    table = pd.DataFrame(rows, columns=["task", "method", "seed", "error"])
    table = table.assign(family="normal", version="first", information=1.0, of_sample=0.9, seconds=[*range(7)])
    table["cpu_seconds"] = 2 * table["seconds"]
    methods = ["scratio", "KSG", "CCA"]
    found = module.by_task(table, methods, absolute=True).set_index("task")
    assert found.columns.tolist() == ["family", "information", "n_seeds", "best", "behind", "exact", "scratio", "KSG"]
    assert found["n_seeds"].tolist() == [2, 1]
    assert found["best"].tolist() == ["KSG", "scratio"]
    np.testing.assert_allclose(found[["behind", "exact", "scratio"]], [[0.05, 0.1, 0.2], [0.0, 0.1, 0.4]])
    np.testing.assert_allclose(found["KSG"], [0.15, np.nan])
    signed = module.by_task(table, methods, absolute=False)
    np.testing.assert_allclose(signed[["exact", "scratio", "KSG"]], [[-0.1, 0.1, -0.15], [-0.1, -0.4, np.nan]])
    of_methods = module.by_method(table, methods).set_index("method")
    assert of_methods.index.tolist() == ["scratio", "KSG"]
    expected = {"n_tasks": [2, 1], "n_failed": [0, 1], "error": [0.3, 0.15], "bias": [-0.15, -0.15]}
    expected |= {"largest": [0.4, 0.15], "n_best": [1, 1], "seconds": [1.5, 4.0], "cpu_seconds": [3.0, 8.0]}
    pd.testing.assert_frame_equal(of_methods[[*expected]], pd.DataFrame(expected, index=of_methods.index))


def test_errors_are_compared_seed_by_seed_with_those_peers_that_have_several(benchmark):
    module = benchmark("_information")
    rows = [("easy", "scratio", seed, error) for seed, error in enumerate((0.3, -0.1, 0.2))]
    rows += [("easy", "KSG", seed, error) for seed, error in enumerate((-0.1, -0.1, 0.4))]
    # Left out: a seed that one method alone has, methods and tasks with one seed.
    rows += [("easy", "CCA", 0, 0.0), ("easy", "scratio", 7, 9.0), ("hard", "scratio", 0, 1.0), ("hard", "KSG", 0, 0.0)]
    table = pd.DataFrame(rows, columns=["task", "method", "seed", "error"]).assign(family="normal")
    found = module.by_seeds(table, ["scratio", "KSG", "CCA"]).set_index("task")
    assert found.index.tolist() == ["easy"]
    assert found.loc["easy", ["n_seeds", "best_peer"]].tolist() == [3, "KSG"]
    behind = np.array([0.2, 0.0, -0.2])
    expected = [behind.mean(), behind.std(ddof=1) / np.sqrt(3), 0.2, 0.2]
    columns = ["behind", "behind_standard_error", "scratio", "KSG"]
    np.testing.assert_allclose(found.loc["easy", columns].astype(float), expected, atol=1e-12)
