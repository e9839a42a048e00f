"""What held-out labels say about parts of logits: slopes, posterior weights, bounded losses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.special import log_softmax
from scipy.stats import multivariate_normal

from scratio.stats import bounded_loss, label_slopes, posterior_weights
from scratio.stats._label_weights import _mean_above_zero


def drawn(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels with the probabilities softmax(logits)."""
    probability = np.exp(log_softmax(logits, axis=1))
    return (probability.cumsum(1) > rng.random((len(logits), 1))).argmax(1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_terms_have_slopes_of_their_own(rng):
    parts = rng.normal(size=(2, 20_000, 4))
    found = label_slopes(np.zeros((20_000, 4)), parts, drawn(0.5 * parts[0], rng))
    assert found.slope[0] == pytest.approx(0.5, abs=4.0 * found.standard_error[0])
    assert found.slope[1] == pytest.approx(0.0, abs=4.0 * found.standard_error[1])


def test_a_weight_is_one_where_labels_support_it_and_small_but_never_zero_where_they_do_not(rng):
    base, part = np.log(np.full((6_000, 3), [0.2, 0.3, 0.5])), rng.normal(size=(1, 6_000, 3))
    supported = posterior_weights(base, part, drawn(base + part[0], rng))[0]
    assert supported == pytest.approx(1.0, abs=0.08)
    nothing = [posterior_weights(base, part, drawn(base, np.random.default_rng(seed)))[0] for seed in range(20)]
    # A half normal of the slope's standard error, 1 / sqrt(6,000 x .62).
    assert 0.0 < min(nothing)
    assert np.mean(nothing) == pytest.approx(0.016, abs=0.01)
    against = posterior_weights(base, part, drawn(base - part[0], rng))[0]
    assert 0.0 < against < 0.01


def test_parts_of_different_quality_are_weighed_by_it(rng):
    truth = rng.normal(size=(8_000, 2)) * 2.0
    good, bad = (truth + rng.normal(size=truth.shape) * size for size in (0.3, 3.0))
    weights = posterior_weights(np.zeros((8_000, 2)), np.stack([good, bad]), drawn(truth, rng))
    assert weights[0] > 0.85
    assert weights[1] < 0.1
    # The same part twice: each gets half, whatever the other's sign is at the mode.
    halves = posterior_weights(np.zeros((8_000, 2)), np.stack([good, good]), drawn(truth, rng))
    np.testing.assert_allclose(halves, halves.mean(), rtol=1e-6)
    assert halves.sum() == pytest.approx(weights.sum(), abs=0.1)


def test_where_labels_say_nothing_the_weights_are_those_of_the_prior(rng):
    certain = np.zeros((200, 2))
    certain[:, 1] = 1e-9 * rng.normal(size=200)
    # A normal with mean 1 and standard deviation 1 above 0 has the mean 1.2876.
    assert posterior_weights(np.zeros((200, 2)), certain[None], rng.integers(0, 2, 200))[0] == pytest.approx(
        1.2876, rel=1e-3
    )


def test_the_mean_above_zero_is_that_of_the_distribution_where_weights_do_not_depend_on_each_other():
    mode, precision = np.array([0.4, -0.7]), np.diag([4.0, 9.0])
    density = multivariate_normal(mode, np.linalg.inv(precision)).pdf
    total = dblquad(lambda b, a: density([a, b]), 0.0, 4.0, 0.0, 3.0)[0]
    expected = [dblquad(lambda b, a, k=k: (a, b)[k] * density([a, b]), 0.0, 4.0, 0.0, 3.0)[0] / total for k in range(2)]
    np.testing.assert_allclose(_mean_above_zero(mode, precision), expected, rtol=1e-3)


def test_weights_that_replace_each_other_are_pulled_by_those_that_are_cut_off():
    # Together the two are 1; one would be negative. The other must not keep what it had to make up for.
    precision = 400.0 * np.array([[1.0, 0.95], [0.95, 1.0]])
    first, second = _mean_above_zero(np.array([1.5, -0.5]), precision)
    assert second < 0.05
    assert first == pytest.approx(1.0, abs=0.06)


def test_groups_whose_labels_agree_count_less(rng):
    groups = np.repeat(np.arange(30), 100)
    part = np.zeros((1, 3_000, 2))
    part[0, :, 1] = rng.normal(size=30)[groups]
    own = rng.normal(size=30)[groups]
    codes = (rng.uniform(size=3_000) < 1.0 / (1.0 + np.exp(-own))).astype(int)
    slope = label_slopes(np.zeros((3_000, 2)), part, codes, groups)
    by_cell = label_slopes(np.zeros((3_000, 2)), part, codes)
    assert slope.standard_error[0] > 3.0 * by_cell.standard_error[0]
    # Fewer independent labels: nearer to the prior's 1.
    alone, together = (posterior_weights(np.zeros((3_000, 2)), part, codes, g)[0] for g in (None, groups))
    assert abs(together - 1.0) < abs(alone - 1.0)


def test_each_cell_a_group_of_its_own_is_no_groups(rng):
    part = rng.normal(size=(1, 500, 2))
    codes = drawn(part[0], rng)
    with_groups = label_slopes(np.zeros((500, 2)), part, codes, np.arange(500))
    assert with_groups.standard_error[0] == label_slopes(np.zeros((500, 2)), part, codes).standard_error[0]


def test_no_outlier_makes_losses_uncertain(rng):
    truth = np.stack([np.zeros(2_000), rng.normal(size=2_000)], axis=1)
    codes = drawn(truth, rng)
    wild = -truth
    wild[0, 1] = 1e6 * (1 - 2 * codes[0])
    assert bounded_loss(wild, codes).max() == pytest.approx(np.log(4_000.0))
    loss = -log_softmax(truth, axis=1)[np.arange(2_000), codes]
    np.testing.assert_array_equal(bounded_loss(truth, codes), loss)
