"""Cross-fitting folds, held-out rows, support."""

from __future__ import annotations

import numpy as np
import pytest

from scratio.stats import local_scale, overlap_support, split_rows, stratified_folds


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- folds ---------------------------------------------------------------------------------------------------------


def test_every_stratum_is_spread_evenly_over_the_folds():
    strata = np.repeat([0, 1, 7], [23, 10, 4])
    folds = stratified_folds(strata, 5, rng())
    for stratum, n in ((0, 23), (1, 10), (7, 4)):
        counts = np.bincount(folds[strata == stratum], minlength=5)
        assert counts.sum() == n
        assert counts.max() - counts.min() <= 1


def test_folds_are_even_over_many_small_strata():
    # Starting every stratum in fold 0 would put all 40 single cells there.
    folds = stratified_folds(np.arange(40), 4, rng())
    np.testing.assert_array_equal(np.bincount(folds), [10] * 4)


def test_folds_are_random_and_depend_on_the_generator_alone():
    strata = np.repeat([0, 1], 50)
    first, again, other = (stratified_folds(strata, 5, rng(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[:50], np.arange(50) % 5)


@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_held_out_rows_are_the_stated_share_and_no_row_is_lost(fraction):
    rows = np.arange(100, 300, 2)
    rest, held_out = split_rows(rows, fraction, rng())
    assert len(held_out) == 100 * fraction
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, held_out])), rows)


# --- support -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_conditions() -> tuple[np.ndarray, np.ndarray]:
    """400 cells of N(0, I) in two dimensions, of either condition at random."""
    return rng().normal(size=(400, 2)), rng(1).uniform(size=400) < 0.5


def test_cells_in_the_overlap_are_supported(two_conditions):
    x, is_treatment = two_conditions
    support = overlap_support(x, is_treatment)
    # One percent of either condition's own cells is beyond its quantile.
    assert support.mean() > 0.95
    assert not support.all()


def test_support_is_the_definition_written_out():
    is_treatment = np.arange(1_000) < 100  # few and in the middle, so that many of the others lie beyond their edge
    x = np.where(is_treatment[:, None], 0.5, 1.0) * rng().normal(size=(1_000, 2))
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    np.fill_diagonal(distances, np.inf)  # no cell is its own neighbour
    expected = np.ones(1_000, dtype=bool)
    for group in (is_treatment, ~is_treatment):
        fifteenth = np.sort(distances[:, group], axis=1)[:, 14]
        expected &= fifteenth <= np.quantile(fifteenth[group], 0.99)
    np.testing.assert_array_equal(overlap_support(x, is_treatment), expected)
    assert 100 < (~expected).sum() < 900


def test_an_outlier_is_not_supported(two_conditions):
    x, is_treatment = two_conditions
    far = np.vstack([x, [[30.0, 0.0]], [[0.0, -30.0]]])
    support = overlap_support(far, np.r_[is_treatment, True, False])
    np.testing.assert_array_equal(support[-2:], [False, False])
    assert support[:-2].mean() > 0.95


@pytest.mark.parametrize("condition", [True, False])
def test_a_region_of_one_condition_alone_is_not_supported(two_conditions, condition):
    x, is_treatment = two_conditions
    far = np.vstack([x, rng(2).normal(size=(60, 2)) * 0.3 + 8.0])
    support = overlap_support(far, np.r_[is_treatment, np.full(60, condition)])
    assert not support[400:].any()
    assert support[:400].mean() > 0.95


def test_support_treats_the_conditions_alike(two_conditions):
    x, is_treatment = two_conditions
    np.testing.assert_array_equal(overlap_support(x, is_treatment), overlap_support(x, ~is_treatment))


def test_support_does_not_depend_on_the_order_of_the_cells(two_conditions):
    x, is_treatment = two_conditions
    order = rng(3).permutation(400)
    np.testing.assert_array_equal(
        overlap_support(x[order], is_treatment[order]), overlap_support(x, is_treatment)[order]
    )


def test_few_cells_of_a_condition_still_have_a_support():
    x = np.r_[np.zeros((3, 1)) + [[0.0], [0.1], [0.2]], np.linspace(-0.5, 0.5, 30)[:, None], [[50.0]]]
    support = overlap_support(x, np.arange(34) < 3)
    assert support[:3].all()
    assert not support[-1]


def test_cells_on_top_of_each_other_are_supported():
    # The distance to the nearest neighbours is 0 throughout; a cell need not find itself first.
    x = np.zeros((80, 2))
    assert overlap_support(x, np.arange(80) % 2 == 0).all()


# --- scale


def test_the_scale_of_noise_is_its_deviation():
    x = rng().normal(size=(1_000, 3)) * [5.0, 0.1, 1.0]
    np.testing.assert_allclose(local_scale(x, rng()), [5.0, 0.1, 1.0], rtol=0.1)


def test_a_dimension_that_separates_clusters_has_the_smaller_scale():
    # Two clusters 20 deviations apart along the first of 20 dimensions: neighbours differ by a tenth of that.
    x = rng().normal(size=(1_000, 20))
    x[:, 0] += 20.0 * (np.arange(1_000) % 2)
    separating, *noise = local_scale(x, rng()) / x.std(0)
    assert separating < 0.2 * min(noise)
    assert max(noise) < 1.2 * min(noise)


def test_the_mean_square_of_the_scaled_dimensions_is_one():
    x = rng().normal(size=(1_000, 4)) * [3.0, 1.0, 0.2, 1.0] + 5.0
    x[:, 0] += 20.0 * (np.arange(1_000) % 2)
    assert np.mean(x.var(0) / local_scale(x, rng()) ** 2) == pytest.approx(1.0)


def test_the_scale_follows_any_rescaling():
    x = rng().normal(size=(500, 3))
    stretch = np.array([7.0, 1e-3, 100.0])
    np.testing.assert_allclose(local_scale(x * stretch + 4.0, rng()), local_scale(x, rng()) * stretch, rtol=1e-6)


def test_the_scale_does_not_depend_on_the_order_of_the_cells():
    x = rng().normal(size=(500, 3))
    np.testing.assert_allclose(local_scale(x[::-1], rng()), local_scale(x, rng()), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_a_constant_dimension_does_not_change_the_scale_of_the_others(value):
    x = rng().normal(size=(500, 2))
    scale = local_scale(np.hstack([x, np.full((500, 1), value)]), rng())
    np.testing.assert_allclose(scale[:2], local_scale(x, rng()), rtol=1e-6)
    assert scale[2] > 1e-6
