"""Log ratios beside packages of others: truths, folds, conversions and tables have to be right."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import betaln, expit, psi
from scipy.stats import beta, multivariate_normal


@pytest.mark.parametrize("step", [0, 1, 4])
def test_a_shift_of_normals_has_the_log_ratio_and_divergence_of_its_densities(benchmark, step):
    shift, variance = benchmark("_ratio_tasks").Shift("gauss_shift", 3, step), 1.0 - 0.05 * step
    x, is_numerator, truth = shift.draw(np.random.default_rng(0), 40_001)
    moved, rest = multivariate_normal(np.full(3, 0.2 * step), variance * np.eye(3)), multivariate_normal(np.zeros(3))
    np.testing.assert_allclose(truth, moved.logpdf(x) - rest.logpdf(x), atol=1e-12)
    expected = 1.5 * (variance - 1.0 - np.log(variance) + 0.04 * step**2)
    assert shift.divergence() == pytest.approx(expected, abs=1e-12)
    # The samples are those of the densities: the mean log ratio is the divergence, and one sample is larger by a cell.
    assert is_numerator.sum() == 20_001
    error = truth[is_numerator].std() / np.sqrt(20_000)
    assert truth[is_numerator].mean() == pytest.approx(expected, abs=4.0 * error + 1e-12)
    np.testing.assert_allclose(x[~is_numerator].std(0), 1.0, atol=0.02)
    np.testing.assert_allclose(x[is_numerator].mean(0), 0.2 * step, atol=0.03)


@pytest.mark.parametrize("step", [1, 3])
def test_a_shift_from_the_uniform_distribution_has_the_divergence_of_a_beta_distribution(benchmark, step):
    shift, (a, b) = benchmark("_ratio_tasks").Shift("beta_shift", 2, step), (1.0 + 2.0 * step, 1.0 + 0.1 * step)
    by_formula = -betaln(a, b) + (a - 1.0) * psi(a) + (b - 1.0) * psi(b) - (a + b - 2.0) * psi(a + b)
    density = beta(a, b)
    by_integral, _ = quad(lambda x: density.pdf(x) * density.logpdf(x), 0.0, 1.0)
    assert shift.divergence() == pytest.approx(2.0 * by_formula)
    assert shift.divergence() == pytest.approx(2.0 * by_integral, abs=1e-4)
    x, _, truth = shift.draw(np.random.default_rng(0), 100)
    np.testing.assert_allclose(truth, density.logpdf(x).sum(1))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("gauss_shift_kl", 3.0),
        ("cifar_c", 0.5 * 4 * (0.9 - np.log(1.9))),
        # OpenDRE adds the logarithm, (6 + log 7) / 2, which is no divergence of these two distributions.
        ("domainbed", 0.5 * (6.0 - np.log(7.0))),
    ],
)
def test_other_shifts_have_the_divergence_of_normal_distributions(benchmark, kind, expected):
    shift = benchmark("_ratio_tasks").Shift(kind, 4, 3)
    assert shift.divergence() == pytest.approx(expected)
    _, is_numerator, truth = shift.draw(np.random.default_rng(1), 60_000)
    error = truth[is_numerator].std() / np.sqrt(30_000)
    assert truth[is_numerator].mean() == pytest.approx(expected, abs=4.0 * error)


def test_scratio_and_its_peers_have_the_same_folds(benchmark):
    module, rng = benchmark("outside_ratios"), np.random.default_rng(0)
    is_treated = rng.uniform(size=103) < 0.3
    x = rng.normal(size=(103, 2)) + is_treated[:, None]
    fold = benchmark("_ratio_tasks").folds(is_treated, seed=4)
    drawn = module.Drawn({"x": x, "is_treated": is_treated, "fold": fold, "seed": np.array(4)}, is_treated, x[:, 0])
    # Other folds would raise an error.
    assert np.isfinite(module.by_scratio("scratio", drawn, 4, quick=True)).all()
    drawn.cells["fold"] = np.roll(fold, 1)
    with pytest.raises(RuntimeError, match="other folds"):
        module.by_scratio("scratio", drawn, 4, quick=True)


def test_every_cell_is_scored_by_a_training_without_its_fold(benchmark):
    module, asked = benchmark("_two_samples"), []
    fold = np.repeat([2, 0, 1], [3, 5, 4])
    x = np.arange(12.0)[:, None]
    cells = {"x": x, "is_treated": fold > 0, "fold": fold, "seed": np.array(7)}

    def estimate(x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int) -> np.ndarray:
        asked.append((set(x[:, 0]), set(fresh[:, 0]), int(is_treated.sum()), seed))
        return 10.0 * fresh[:, 0]

    found = module.scored(estimate, cells)
    np.testing.assert_array_equal(found["log_ratio"], 10.0 * x[:, 0])
    assert found["n_train"] == 9
    assert [len(fresh) for _, fresh, _, _ in asked] == [5, 4, 3]
    assert all(train | fresh == set(range(12)) and not train & fresh for train, fresh, _, _ in asked)
    assert [treated for _, _, treated, _ in asked] == [7, 3, 4]
    # A limit leaves the scored cells as they are.
    asked.clear()
    assert module.scored(estimate, cells, most=6)["n_train"] == 6
    assert [(len(train), len(fresh)) for train, fresh, _, _ in asked] == [(6, 5), (6, 4), (6, 3)]


def test_log_odds_and_ratios_become_log_ratios(benchmark, monkeypatch):
    monkeypatch.setattr("os.environ", dict(os.environ))
    module, kernels = benchmark("_two_samples"), benchmark("outside_peers/densratio")
    log_ratio, is_treated = np.array([-3.0, 0.0, 2.0]), np.arange(10) < 3
    p = expit(log_ratio + np.log(3 / 7))
    found = module.log_odds(np.stack([1.0 - p, p], axis=1)) - module.class_log_odds(is_treated)
    np.testing.assert_allclose(found, log_ratio, atol=1e-12)
    np.testing.assert_allclose(module.log_odds(np.array([[1.0, 0.0], [0.0, 1.0]])), np.log([1e-12, 1e12]))
    np.testing.assert_allclose(module.log_of_ratio(np.array([0.0, 2.0, np.inf]), 50), np.log([0.02, 2.0, 50.0]))
    ratio = np.array([0.0, 0.5, 3.0, 1e3])
    np.testing.assert_allclose(kernels.from_relative(ratio / (0.1 * ratio + 0.9)), ratio)
    np.testing.assert_array_equal(kernels.from_relative(np.array([10.0, 11.0])), np.inf)


def test_cells_without_an_estimate_are_counted_and_left_out(benchmark):
    truth = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    drawn = SimpleNamespace(truth=truth, is_numerator=np.array([False, True, True, False, True]), divergence=None)
    found = benchmark("outside_ratios").measures(np.array([1.0, 1.5, 2.0, 2.5, np.nan]), drawn)
    expected = {"mse": 1.5 / 4, "bias": 0.25, "slope": 0.5, "correlation": 1.0, "mse_numerator": 0.125, "missing": 1}
    expected |= {"divergence": 7 / 3, "divergence_error": 1.75 - 7 / 3, "variance": 2.0}
    assert found == pytest.approx(expected)


def test_the_tables_say_where_a_peer_is_ahead(benchmark, tmp_path):
    rows = [
        ("easy", "scratio", 0, 0.3, 10_000),
        ("easy", "scratio", 1, 0.5, 10_000),
        ("easy", "scratio", 2, 9.0, 10_000),
        ("easy", "scratio-quick", 0, 0.1, 10_000),
        ("easy", "scratio-quick", 1, 0.1, 10_000),
        ("easy", "qda", 0, 0.2, 10_000),
        ("easy", "qda", 1, 0.2, 10_000),
        ("hard", "scratio", 0, 1.0, 10_000),
        ("hard", "scratio-quick", 0, 2.0, 10_000),
        ("hard", "qda", 0, np.nan, 10_000),
        ("hard", "xgboost", 0, 4.0, 10_000),
        ("hard", "scratio", 0, 6.0, 2_000),
        ("hard", "xgboost", 0, 3.0, 2_000),
    ]
    table = pd.DataFrame(rows, columns=["task", "method", "seed", "mse", "n_cells"])
    table = table.assign(variance=4.0, divergence=1.0, divergence_error=-0.5, n_train=100, seconds=2.0, cpu_seconds=1.0)
    table.to_csv(tmp_path / "rows.csv", index=False)
    methods = ["scratio", "scratio-quick", "qda", "xgboost"]
    benchmark("_ratio_tables").write(tmp_path / "rows.csv", ["hard", "easy"], methods, ["hard"])
    found = pd.read_csv(tmp_path / "rows_summary.csv")
    assert found[["task", "n_cells", "n_seeds"]].values.tolist() == [
        ["hard", 10_000, 1], ["easy", 10_000, 2], ["hard", 2_000, 1],
    ]  # fmt: skip
    assert found["best"].tolist() == ["scratio", "scratio-quick", "xgboost"]
    assert found["best_peer"].tolist() == ["xgboost", "qda", "xgboost"]
    # The third seed of the easy task has one method.
    np.testing.assert_allclose(found["times_best_peer"], [0.25, 2.0, 2.0])
    np.testing.assert_allclose(found["qda"], [np.nan, 0.2, np.nan])
    of_methods = pd.read_csv(tmp_path / "rows_methods.csv")
    of_methods = of_methods[of_methods["n_cells"] == 10_000].set_index("method")
    assert of_methods["n_best"].tolist() == [1, 1, 0, 0]
    assert of_methods["n_ahead"].tolist() == [0, 1, 1, 0]
    assert of_methods["n_failed"].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(of_methods["times_scratio"], [1.0, 1.125, 0.5, 4.0], atol=0.006)
    divergence = pd.read_csv(tmp_path / "rows_divergence.csv")
    np.testing.assert_allclose(divergence[["divergence", "scratio", "xgboost"]], [[1.0, 0.5, 0.5]] * 2)
