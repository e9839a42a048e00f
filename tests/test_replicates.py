"""Tests across samples: exact p-values, error rates under the null, moderation, multiplicity."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.special import polygamma
from scipy.stats import false_discovery_control, t, ttest_ind

from scratio.stats import compare_pairs, compare_samples, weighted_fdr
from scratio.stats._replicates import _inverse_trigamma, prior_variance

FIRST_SIX = np.arange(12) < 6


def donors(rng: np.random.Generator, n_places: int = 30, n_samples: int = 12) -> np.ndarray:
    """Values of samples at places that depend on each other."""
    shared = rng.normal(size=(n_samples, 3))
    return shared @ rng.normal(size=(3, n_places)) + rng.normal(size=(n_samples, n_places))


def test_every_choice_of_labels_is_tried_once():
    values, is_treatment = np.random.default_rng(0).normal(size=(6, 1)), np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    found = compare_samples(values, is_treatment, np.random.default_rng(0))
    # With a single place the moderated t orders arrangements as the difference of the means does.
    differences = []
    for chosen in combinations(range(6), 3):
        picked = np.isin(np.arange(6), chosen)
        differences.append(abs(values[picked].mean() - values[~picked].mean()))
    observed = abs(values[is_treatment].mean() - values[~is_treatment].mean())
    assert found.n_arrangements == 20
    assert found.pvalue[0] == pytest.approx(np.mean(np.array(differences) >= observed - 1e-12))
    assert found.effect[0] == pytest.approx(values[is_treatment].mean() - values[~is_treatment].mean())
    assert found.familywise_pvalue[0] == found.pvalue[0]


def test_flips_that_are_drawn_estimate_the_p_values_of_all_flips():
    differences = np.random.default_rng(1).normal(0.3, size=(12, 40))
    every = compare_pairs(differences, np.random.default_rng(0), max_arrangements=2**12)
    drawn = compare_pairs(differences, np.random.default_rng(0), max_arrangements=2_000)
    assert (every.n_arrangements, drawn.n_arrangements) == (2**12, 2_000)
    np.testing.assert_array_equal(drawn.effect, every.effect)
    error = np.sqrt(every.pvalue * (1.0 - every.pvalue) / 2_000) + 1 / 2_000
    assert np.all(np.abs(drawn.pvalue - every.pvalue) < 4.5 * error)
    assert drawn.pvalue.min() >= 1 / 2_000  # the observed signs are one of them


def test_one_pair_is_refused():
    with pytest.raises(ValueError, match="at least 2 pairs, got 1"):
        compare_pairs(np.ones((1, 3)), np.random.default_rng(0))


def test_every_flip_of_signs_is_tried_once():
    differences = np.random.default_rng(0).normal(0.5, size=(5, 1))
    found = compare_pairs(differences, np.random.default_rng(0))
    means = [abs(np.dot(signs, differences[:, 0])) / 5 for signs in product((1, -1), repeat=5)]
    assert found.n_arrangements == 32
    assert found.pvalue[0] == pytest.approx(np.mean(np.array(means) >= abs(differences.mean()) - 1e-12))
    assert found.effect[0] == pytest.approx(differences.mean())


def test_the_statistic_of_one_place_without_prior_is_students():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 400)) * rng.uniform(0.1, 10.0, size=400)
    found = compare_samples(values, FIRST_SIX, rng)
    student = ttest_ind(values[:6], values[6:])
    # Variances that differ by orders of magnitude have a prior that says little.
    own = (found.effect / student.statistic) / found.standard_error
    assert 0.8 < np.median(own) < 1.25
    np.testing.assert_allclose(found.effect, values[:6].mean(0) - values[6:].mean(0))


def test_equal_variances_are_pooled():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(12, 2_000))
    found = compare_samples(values, FIRST_SIX, rng, max_arrangements=50)
    # sqrt(1/6 + 1/6) at every place.
    np.testing.assert_allclose(found.standard_error, np.sqrt(1 / 3), rtol=0.1)


@pytest.mark.parametrize("d0", [3.0, 10.0])
def test_the_prior_of_the_variances_is_recovered(d0):
    rng = np.random.default_rng(0)
    true = 2.0 * d0 / rng.chisquare(d0, size=50_000)
    variances = true * rng.chisquare(8, size=50_000) / 8
    found, location = prior_variance(variances, 8)
    assert found == pytest.approx(d0, rel=0.1)
    assert location == pytest.approx(2.0, rel=0.03)


def test_the_inverse_of_trigamma():
    y = np.geomspace(1e-4, 1e4, 20)
    np.testing.assert_allclose(polygamma(1, _inverse_trigamma(y)), y, rtol=1e-8)


@pytest.mark.parametrize("paired", [False, True])
def test_error_rates_under_the_null(paired):
    rng = np.random.default_rng(3)
    pvalues, any_familywise = [], []
    for _ in range(300):
        if paired:
            found = compare_pairs(donors(rng, n_samples=8), rng)
        else:
            found = compare_samples(donors(rng), FIRST_SIX, rng)
        pvalues.append(found.pvalue)
        any_familywise.append((found.familywise_pvalue <= 0.05).any())
    # Exact at multiples of 2 / 924; 300 data sets of dependent places leave a standard error of .013 or less.
    assert abs(np.mean(np.array(pvalues) <= 0.05) - 0.05) < 0.025
    assert abs(np.mean(any_familywise) - 0.05) < 0.035


def test_the_largest_statistic_of_several_scales_counts_in_every_arrangement():
    rng = np.random.default_rng(7)
    pvalues = []
    for _ in range(200):
        values = np.stack([donors(rng, 10), donors(rng, 10)])
        found = compare_samples(values, FIRST_SIX, rng, max_arrangements=1_000)
        pvalues.append(found.pvalue)
    assert abs(np.mean(np.array(pvalues) <= 0.05) - 0.05) < 0.02
    values[1, :6, 0] += 8.0
    found = compare_samples(values, FIRST_SIX, rng)
    assert found.pvalue[0] < 0.01
    assert found.effect[0] == pytest.approx(values[1, :6, 0].mean() - values[1, 6:, 0].mean())
    # One scale twice is that scale.
    twice, once = (compare_samples(part, FIRST_SIX, rng) for part in (np.stack([values[1]] * 2), values[1]))
    np.testing.assert_array_equal(twice.pvalue, once.pvalue)


def test_a_covariate_that_differs_between_the_groups_is_adjusted_for():
    rng = np.random.default_rng(4)
    rejected = {"adjusted": [], "plain": []}
    for _ in range(150):
        age = rng.normal(size=12) + FIRST_SIX
        values = donors(rng, 10) + np.outer(age, np.full(10, 2.0))
        rejected["plain"].append(compare_samples(values, FIRST_SIX, rng, max_arrangements=1_000).pvalue <= 0.05)
        found = compare_samples(values, FIRST_SIX, rng, nuisance=age[:, None], max_arrangements=1_000)
        rejected["adjusted"].append(found.pvalue <= 0.05)
    assert np.mean(rejected["plain"]) > 0.15
    assert abs(np.mean(rejected["adjusted"]) - 0.05) < 0.03


def test_the_adjusted_effect_is_that_of_least_squares():
    rng = np.random.default_rng(5)
    nuisance = rng.normal(size=(12, 2)) + FIRST_SIX[:, None]
    values = rng.normal(size=(12, 4))
    design = np.column_stack([np.ones(12), nuisance, FIRST_SIX])
    expected = np.linalg.lstsq(design, values, rcond=None)[0][-1]
    found = compare_samples(values, FIRST_SIX, rng, nuisance=nuisance, max_arrangements=20)
    np.testing.assert_allclose(found.effect, expected)


def test_pooled_pvalues_rank_a_place_among_the_arrangements_of_all_places():
    rng = np.random.default_rng(3)
    values, weights = rng.normal(size=(6, 7)) * np.linspace(0.5, 2.0, 7), np.arange(1.0, 8.0)
    groups = np.arange(6) < 3
    found = compare_samples(values, groups, rng, weights=weights)
    statistics = []
    for chosen in combinations(range(6), 3):
        other = compare_samples(values, np.isin(np.arange(6), chosen), rng)
        statistics.append(np.abs(other.effect) / other.standard_error)
    observed = np.abs(found.effect) / found.standard_error
    expected = [np.average(np.array(statistics) >= t - 1e-9, axis=1, weights=weights).mean() for t in observed]
    np.testing.assert_allclose(found.pooled_pvalue, expected)
    alone = compare_samples(values[:, :1], groups, rng)
    np.testing.assert_allclose(alone.pooled_pvalue, alone.pvalue)


def test_a_shift_of_the_group_is_found_at_the_smallest_possible_pvalue():
    rng = np.random.default_rng(6)
    values = rng.normal(size=(12, 50))
    values[:6, :5] += 6.0
    found = compare_samples(values, FIRST_SIX, rng)
    np.testing.assert_allclose(found.pvalue[:5], 2 / 924)
    assert (found.familywise_pvalue[:5] <= 0.05).all()
    assert (weighted_fdr(found.pvalue)[:5] <= 0.1).all()
    # The parametric test agrees where there is no floor.
    moderated = 2.0 * t.sf(np.abs(found.effect / found.standard_error), 10)
    assert np.corrcoef(np.log(found.pvalue[5:]), np.log(moderated[5:]))[0, 1] > 0.95


@pytest.mark.parametrize(
    ("is_treatment", "nuisance", "message"),
    [
        (np.zeros(12, dtype=bool), None, "cannot be told apart"),
        (FIRST_SIX, FIRST_SIX[:, None].astype(float), "cannot be told apart"),
        (FIRST_SIX, np.random.default_rng(0).normal(size=(12, 10)), "no degree of freedom"),
    ],
)
def test_what_cannot_be_tested_is_refused(is_treatment, nuisance, message):
    with pytest.raises(ValueError, match=message):
        compare_samples(np.ones((12, 2)), is_treatment, np.random.default_rng(0), nuisance=nuisance)


# --- multiplicity --------------------------------------------------------------------------------------------------


def test_equal_weights_are_benjamini_and_hochberg():
    pvalues = np.random.default_rng(0).uniform(size=200) ** 2
    np.testing.assert_allclose(weighted_fdr(pvalues), false_discovery_control(pvalues))
    np.testing.assert_allclose(weighted_fdr(pvalues, np.full(200, 7.0)), false_discovery_control(pvalues))


def test_a_weight_of_two_is_two_hypotheses():
    pvalues, weights = np.array([0.01, 0.04, 0.03, 0.5]), np.array([2.0, 1.0, 3.0, 1.0])
    repeated = false_discovery_control(np.repeat(pvalues, weights.astype(int)))
    first = np.concatenate([[0], np.cumsum(weights)[:-1]]).astype(int)
    np.testing.assert_allclose(weighted_fdr(pvalues, weights), repeated[first])


def test_the_expected_share_of_false_discoveries_is_bounded():
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(300):
        z = rng.normal(size=200)
        z[:20] += 3.0
        pvalues = 2.0 * t.sf(np.abs(z), 1e6)
        found = weighted_fdr(pvalues, rng.uniform(0.5, 2.0, size=200)) <= 0.1
        shares.append(found[20:].sum() / max(found.sum(), 1))
    assert 0.05 < np.mean(shares) < 0.12
