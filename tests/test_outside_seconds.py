"""Benchmarks that others made, and peers in environments of their own: the truth and the measures have to be right."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit
from scipy.stats import multivariate_normal


def test_the_log_ratio_of_a_cohort_is_that_of_its_mixtures(benchmark):
    module, rng = benchmark("outside_seconds"), np.random.default_rng(0)
    x, centres, scales = (rng.normal(size=(n, 2)) for n in (20, 3, 3))
    scales = np.exp(scales)
    weights = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])

    def density(shares: np.ndarray) -> np.ndarray:
        parts = zip(shares, centres, scales, strict=True)
        return sum(share * multivariate_normal(mean, np.diag(scale**2)).pdf(x) for share, mean, scale in parts)

    # Log weights count relative to each other.
    found = module.log_ratio(x, centres, scales, np.log(weights) + [[0.0], [5.0]])
    np.testing.assert_allclose(found, np.log(density(weights[1]) / density(weights[0])))


def test_labels_in_a_cohort_follow_its_log_ratio_and_samples_differ_in_size(benchmark, monkeypatch):
    module = benchmark("outside_seconds")
    monkeypatch.setattr(module, "SPREAD_OF_SHARES", 0.0)
    cells = module.drawn(200_000, 0)
    assert cells.group.sum() == 6
    sizes = np.bincount(cells.sample)
    assert sizes.sum() == pytest.approx(200_000, abs=12)
    assert sizes.max() > 4 * sizes.min()
    # Bayes, with classes of unequal size.
    is_treated = cells.group[cells.sample] == 1
    odds = cells.truth + np.log(is_treated.sum() / (~is_treated).sum())
    planted = cells.truth > module.PLANTED
    for inside in (planted, ~planted):
        assert is_treated[inside].mean() == pytest.approx(expit(odds[inside]).mean(), abs=0.01)
    # The planted state makes a tenth of all cells and is more frequent by a log ratio of 1; others share what is left.
    share = 0.2 * expit([-1.0, 1.0])
    assert cells.truth.max() == pytest.approx(np.log(share[1] / share[0]), abs=0.01)
    assert cells.truth.min() == pytest.approx(np.log((1.0 - share[1]) / (1.0 - share[0])), abs=0.01)


def test_what_a_tool_does_not_answer_is_not_measured(benchmark):
    accuracy = benchmark("outside_seconds").accuracy
    truth = np.array([1.0, 0.8, 0.6, -0.1, -0.1, 0.2])
    assert accuracy({"log_ratio": truth}, truth) == {"rmse": 0.0, "auc": 1.0}
    called = np.array([True, True, False, True, False, True])
    # Of nine pairs of a planted cell and another, eight are in order. The last cell is called less frequent.
    score = np.array([5.0, 4.0, 1.0, 2.0, 0.0, -1.0])
    found = accuracy({"score": score, "found": called}, truth)
    assert found == pytest.approx({"auc": 8 / 9, "power": 2 / 3, "false_share": 1 / 3})


def test_a_tool_that_was_ended_has_its_outcome_in_the_table_to_read(benchmark):
    module = benchmark("outside_seconds")
    rows = [
        ("scratio", 1_000, module.FINISHED, 12.34, 1.0, 0.1),
        ("scratio", 20_000, module.FINISHED, 56.0, 2.0, 0.2),
        ("meld", 1_000, module.TOO_LARGE, 3.0, 20.0, np.nan),
    ]
    table = pd.DataFrame(rows, columns=["method", "n_cells", "outcome", "seconds", "peak_gib", "rmse"])
    found = module.summarise(table)
    expected = pd.DataFrame(
        {"1,000 cells": ["out of memory", "12.3 s, 1 GiB"], "20,000 cells": [np.nan, "56 s, 2 GiB"]},
        index=["meld", "scratio"],
    )
    pd.testing.assert_frame_equal(found["summary"], expected, check_names=False)
    assert found["accuracy"].loc["scratio"].tolist() == [0.1, 0.2]


def test_a_cell_has_the_mean_of_its_neighbourhoods(benchmark, monkeypatch):
    monkeypatch.setattr("os.environ", dict(os.environ))
    module = benchmark("significance_peers/_protocol")
    inside = csr_matrix(np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]]) != 0)
    np.testing.assert_array_equal(module.mean_of_neighbourhoods(inside, np.array([1.0, 3.0, -1.0])), [2.0, 1.0, 0.0])
    # A neighbourhood without a value counts as 0; of calls any one counts.
    np.testing.assert_array_equal(module.mean_of_neighbourhoods(inside, np.array([1.0, np.nan, 4.0])), [0.5, 2.0, 0.0])
    called = module.mean_of_neighbourhoods(inside, np.array([True, False, False])) > 0.0
    np.testing.assert_array_equal(called, [True, False, False])


@pytest.mark.parametrize("name", ["logistic", "boosting", "mlp", "knn"])
def test_log_ratios_of_classifiers_do_not_hold_the_class_sizes(benchmark, monkeypatch, name):
    monkeypatch.setattr("os.environ", dict(os.environ))
    rng, n = np.random.default_rng(0), 3_000
    sample = np.repeat(np.arange(4), [2_000, 500, 300, 200])
    cohort = {"x": rng.normal(size=(n, 2)).astype(np.float32), "sample": sample, "group": np.array([0, 0, 1, 1])}
    cohort["x"][sample >= 2, 0] += 1.0
    found = benchmark("outside_peers/analyses").METHODS[name](cohort)["log_ratio"]
    # N(1, 1) over N(0, 1) in the first dimension.
    np.testing.assert_allclose(np.polyfit(cohort["x"][:, 0] - 0.5, found, 1), [1.0, 0.0], atol=0.35)


def test_nearest_neighbours_are_other_cells(benchmark, monkeypatch):
    monkeypatch.setattr("os.environ", dict(os.environ))
    module, rng = benchmark("outside_peers/analyses"), np.random.default_rng(0)
    x, sample = rng.normal(size=(80, 3)), np.arange(80) % 4
    treated = np.array([1, 0, 0, 0])[sample]
    scaled = x / x.std(0)
    distance = ((scaled[:, None] - scaled) ** 2).sum(2)
    np.fill_diagonal(distance, np.inf)
    number = treated[np.argsort(distance, axis=1)[:, : module.N_NEIGHBORS]].sum(1)
    expected = np.log((number + 0.5) / (module.N_NEIGHBORS - number + 0.5)) - np.log(1 / 3)
    cohort = {"x": x, "sample": sample, "group": np.array([1, 0, 0, 0])}
    np.testing.assert_allclose(module.METHODS["knn"](cohort)["log_ratio"], expected)
