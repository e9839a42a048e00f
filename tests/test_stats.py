"""Cross-fitting folds, held-out rows, closed forms, shrinkage, support."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.neighbors import NearestNeighbors

from scratio.stats import (
    abundances,
    class_gaussian,
    common_components,
    common_responsibility,
    disjoint_parts,
    is_supported,
    mean_and_error,
    robust_coordinates,
    shared_gaussian,
    shared_mixture,
    stratified_folds,
    typicality,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scale_of(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return robust_coordinates(x, generator).scale


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


@pytest.mark.parametrize(("fraction", "n_parts"), [(0.1, 3), (0.25, 4)])
def test_held_out_parts_are_the_stated_share_and_do_not_overlap(fraction, n_parts):
    rows = np.arange(100, 300, 2)
    parts = disjoint_parts(rows, np.zeros(100, dtype=int), fraction, n_parts, rng())
    assert [len(part) for part in parts] == [100 * fraction] * n_parts
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert set(together) <= set(rows)


def test_parts_that_do_not_all_fit_hold_no_cell_more_often_than_they_must():
    parts = disjoint_parts(np.arange(100), np.zeros(100, dtype=int), 0.4, 5, rng())
    assert [len(np.unique(part)) for part in parts] == [40] * 5
    assert set(np.bincount(np.concatenate(parts), minlength=100)) == {2}


def test_every_part_has_a_cell_of_every_condition_that_can_spare_one():
    strata = np.repeat([0, 1, 2, 3], [6_000, 5, 2, 1])
    parts = disjoint_parts(np.arange(len(strata)), strata, 0.1, 2, rng())
    counts = [np.bincount(strata[part], minlength=4).tolist() for part in parts]
    assert counts[0] == counts[1]
    assert counts[0] == [600, 1, 1, 0]
    assert not set(parts[0]) & set(parts[1])


def test_many_small_strata_hold_out_the_stated_share_together():
    strata = np.arange(3_000) // 3
    parts = disjoint_parts(np.arange(3_000), strata, 0.1, 2, rng())
    assert all(abs(len(part) - 300) <= 1 for part in parts)


# --- closed forms --------------------------------------------------------------------------------------------------

MEANS = np.array([[0.0, 0.0, 0.0], [1.0, -0.5, 0.3]])
COVARIANCES = np.stack([np.diag([1.0, 0.5, 2.0]), np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.2], [0.0, 0.2, 0.5]])])


def two_gaussians(n: int, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = rng(1).integers(0, 2, n)
    roots = np.linalg.cholesky(covariances)
    return MEANS[codes] + np.einsum("nij,nj->ni", roots[codes], rng(2).normal(size=(n, 3))), codes


def ratio(mixture, x: np.ndarray) -> np.ndarray:
    """Log p(x | 1) - log p(x | 0), by scipy."""
    logs = []
    for code in (0, 1):
        covariance = mixture.covariance[code if len(mixture.covariance) > 1 else 0]
        each = [
            multivariate_normal(m, s).logpdf(x) + w
            for m, s, w in zip(mixture.mean[code], covariance, mixture.log_weight[code], strict=True)
        ]
        logs.append(logsumexp(each, axis=0))
    return logs[1] - logs[0]


def test_class_gaussians_have_the_means_and_covariances_of_the_conditions():
    x, codes = two_gaussians(20_000, COVARIANCES)
    fitted = class_gaussian(x, codes, 2)
    np.testing.assert_allclose(fitted.mean[:, 0], MEANS, atol=0.06)
    np.testing.assert_allclose(fitted.covariance[:, 0], COVARIANCES, atol=0.08)


def test_the_inverse_of_a_class_covariance_is_unbiased():
    # 30 draws of 25 cells in 8 dimensions; the inverse of the usual covariance is too large by 24 / (25 - 8 - 2) = 1.6.
    truth = np.diag(np.linspace(0.3, 2.0, 8))
    codes = np.repeat([0, 1], 25)
    inverses = [
        np.linalg.inv(class_gaussian(rng(seed).normal(size=(50, 8)) @ truth**0.5, codes, 2).covariance[code, 0])
        for seed in range(30)
        for code in (0, 1)
    ]
    factor = np.trace(np.mean(inverses, 0) @ truth) / 8
    assert abs(factor - 1.0) < 0.1


def test_a_condition_with_fewer_cells_than_dimensions_has_the_shared_covariance():
    x, codes = rng(0).normal(size=(60, 4)), np.repeat([0, 1], [54, 6])
    fitted = class_gaussian(x, codes, 2)
    np.testing.assert_array_equal(fitted.covariance[1, 0], shared_gaussian(x, codes, 2).covariance[0, 0])
    assert np.abs(fitted.covariance[0] - fitted.covariance[1]).max() > 1e-3


@pytest.mark.parametrize(("errors", "shared"), [(np.array([0.3, 0.4]), 0.125), (np.full(2, np.nan), 0.0)])
def test_the_error_of_a_mean_has_the_spread_of_the_cells_and_what_they_share(errors, shared):
    mean, error = mean_and_error(np.array([1.0, 3.0]), errors)
    assert mean == 2.0
    assert error == pytest.approx(np.sqrt(2.0 / 2 + shared))


def test_the_error_of_the_mean_of_one_cell_is_its_own():
    assert mean_and_error(np.array([1.5]), np.array([0.2])) == (1.5, pytest.approx(0.2))


def test_abundances_of_cell_types_that_the_conditions_share():
    # Three cell types far apart, with other shares under each condition: the log ratio in a type is that of its shares.
    shares = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    codes = rng(1).integers(0, 2, 6_000)
    kinds = (rng(2).uniform(size=6_000)[:, None] > shares.cumsum(1)[codes]).sum(1)
    x = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])[kinds] + rng(3).normal(size=(6_000, 2))
    fitted = abundances(*common_components(x, common_responsibility(x, 3, rng(4))), codes, 2)
    found = ratio(fitted, x)
    for kind in range(3):
        truth = np.log(shares[1, kind] / shares[0, kind])
        assert abs(np.median(found[kinds == kind]) - truth) < 0.12
    # The positions are those of all cells.
    np.testing.assert_array_equal(fitted.mean[0], fitted.mean[1])


def test_abundances_do_not_depend_on_the_labels_of_other_conditions():
    x, codes = rng(0).normal(size=(900, 2)), np.repeat([0, 1, 2], 300)
    responsibility = common_responsibility(x, 3, rng(1))
    swapped = np.where(codes == 2, 1, np.where(codes == 1, 2, codes))
    one, other = (abundances(*common_components(x, responsibility), c, 3) for c in (codes, swapped))
    np.testing.assert_array_equal(one.log_weight[0], other.log_weight[0])
    np.testing.assert_array_equal(one.log_weight[1], other.log_weight[2])


def test_a_shared_gaussian_has_a_linear_log_ratio_that_is_near_the_truth():
    x, codes = two_gaussians(20_000, np.stack([COVARIANCES[1]] * 2))
    fitted = shared_gaussian(x, codes, 2)
    slope = np.linalg.solve(COVARIANCES[1], MEANS[1] - MEANS[0])
    truth = x @ slope - 0.5 * (MEANS[1] + MEANS[0]) @ slope
    assert np.mean((ratio(fitted, x) - truth) ** 2) < 0.005
    assert truth.var() > 1.0
    middle = ratio(fitted, 0.5 * (x[:100] + x[100:200]))
    np.testing.assert_allclose(middle, 0.5 * (ratio(fitted, x[:100]) + ratio(fitted, x[100:200])), atol=1e-9)


def test_a_mixture_finds_abundances_and_shifts_of_cell_types():
    # Three cell types; the second condition has other shares of them and moves the first along one axis.
    centres, shares = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]]), np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    codes = rng(1).integers(0, 2, 6_000)
    kinds = (rng(2).uniform(size=6_000)[:, None] > np.cumsum(shares[codes], axis=1)).sum(1)
    move = np.array([0.8, 0.0]) * ((codes == 1) & (kinds == 0))[:, None]
    x = centres[kinds] + move + rng(3).normal(size=(6_000, 2))
    fitted = shared_mixture(x, codes, 2, common_responsibility(x, 3, rng(4)))
    log_p = [
        logsumexp(
            [
                np.log(shares[c, k]) + multivariate_normal(centres[k] + [0.8 * (c == 1 and k == 0), 0.0]).logpdf(x)
                for k in range(3)
            ],
            axis=0,
        )
        for c in (0, 1)
    ]
    assert np.mean((ratio(fitted, x) - (log_p[1] - log_p[0])) ** 2) < 0.01
    np.testing.assert_allclose(np.exp(fitted.log_weight).sum(1), 1.0)


# --- shrinkage -----------------------------------------------------------------------------------------------------


def labels(logits: np.ndarray) -> np.ndarray:
    return (rng(5).uniform(size=len(logits)) < 1.0 / (1.0 + np.exp(-logits))).astype(int)


def two_logits(difference: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(difference), difference], axis=1)


# --- support -------------------------------------------------------------------------------------------------------


def overlap_support(x: np.ndarray, is_treatment: np.ndarray) -> np.ndarray:
    return is_supported(np.minimum(typicality(x, x[is_treatment]), typicality(x, x[~is_treatment])))


@pytest.fixture
def two_conditions() -> tuple[np.ndarray, np.ndarray]:
    """400 cells of N(0, I) in two dimensions, of either condition at random."""
    return rng().normal(size=(400, 2)), rng(1).uniform(size=400) < 0.5


def test_cells_in_the_overlap_are_supported(two_conditions):
    x, is_treatment = two_conditions
    support = overlap_support(x, is_treatment)
    # Of either condition's own cells one percent is beyond it.
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
        expected &= (fifteenth[None, group] >= fifteenth[:, None]).mean(1) >= 0.01
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


@pytest.mark.parametrize("d", [2, 20])
def test_typicality_of_fresh_cells_is_uniform(d):
    draws = [rng(seed).normal(size=(2_000, d)) for seed in range(5)]
    found = np.concatenate([typicality(x[1_000:], x[:1_000]) for x in draws])
    shares = [(found <= level).mean() for level in (0.01, 0.05, 0.25)]
    np.testing.assert_allclose(shares, [0.01, 0.05, 0.25], atol=0.015)
    assert 0.005 < shares[0] < 0.02


def test_typicality_of_a_cell_does_not_depend_on_how_often_it_is_asked_for():
    cells, fresh = rng().normal(size=(200, 3)), rng(1).normal(size=(50, 3))
    both = typicality(np.vstack([cells, fresh]), cells)
    np.testing.assert_array_equal(both, np.r_[typicality(cells, cells), typicality(fresh, cells)])
    # Among the cells themselves they are ranks: each is as far out as itself.
    assert typicality(cells, cells).min() == pytest.approx(1 / 200)


def test_cells_on_top_of_each_other_are_supported():
    # The distance to the nearest neighbours is 0 throughout; a cell need not find itself first.
    x = np.zeros((80, 2))
    assert overlap_support(x, np.arange(80) % 2 == 0).all()


# --- scale


def test_the_scale_of_noise_is_its_deviation():
    x = rng().normal(size=(1_000, 3)) * [5.0, 0.1, 1.0]
    np.testing.assert_allclose(scale_of(x, rng()), [5.0, 0.1, 1.0], rtol=0.1)


def test_a_dimension_that_separates_clusters_has_the_smaller_scale():
    # Two clusters 20 deviations apart along the first of 20 dimensions: neighbours differ by a tenth of that.
    x = rng().normal(size=(1_000, 20))
    x[:, 0] += 20.0 * (np.arange(1_000) % 2)
    separating, *noise = scale_of(x, rng()) / x.std(0)
    assert separating < 0.2 * min(noise)
    assert max(noise) < 1.2 * min(noise)


def share_of_own_cluster(z: np.ndarray, cluster: np.ndarray) -> float:
    near = NearestNeighbors(n_neighbors=10).fit(z).kneighbors(return_distance=False)
    return float((cluster[near] == cluster[:, None]).mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n_cells", "n_noise"), [(300, 20), (700, 35)])
def test_clusters_are_found_where_dimensions_of_noise_outnumber_theirs(n_cells, n_noise, seed):
    # As in principal components of few cells: noise has the smaller variance, which standardising hides.
    generator = rng(seed)
    cluster = generator.choice(6, n_cells, p=[0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
    centres = 3.0 * generator.normal(size=(6, 3))
    x = 0.5 * generator.normal(size=(n_cells, 3 + n_noise))
    x[:, :3] += centres[cluster]
    alike, found = share_of_own_cluster(x / x.std(0), cluster), share_of_own_cluster(x / scale_of(x, rng()), cluster)
    assert found > share_of_own_cluster(x, cluster) - 0.05
    # A column in far larger units hides all others in the embedding itself.
    x[:, -1] *= 1_000.0
    assert share_of_own_cluster(x / scale_of(x, rng()), cluster) > alike - 0.02


def test_the_mean_square_of_the_scaled_dimensions_is_one():
    x = rng().normal(size=(1_000, 4)) * [3.0, 1.0, 0.2, 1.0] + 5.0
    x[:, 0] += 20.0 * (np.arange(1_000) % 2)
    central = np.clip(x, *np.quantile(x, [0.01, 0.99], axis=0))
    assert np.mean(central.var(0) / scale_of(x, rng()) ** 2) == pytest.approx(1.0)


def test_the_scale_follows_any_rescaling():
    x = rng().normal(size=(500, 3))
    stretch = np.array([7.0, 1e-3, 100.0])
    np.testing.assert_allclose(scale_of(x * stretch + 4.0, rng()), scale_of(x, rng()) * stretch, rtol=1e-6)


def test_the_scale_does_not_depend_on_the_order_of_the_cells():
    x = rng().normal(size=(500, 3))
    np.testing.assert_allclose(scale_of(x[::-1], rng()), scale_of(x, rng()), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_a_constant_dimension_does_not_change_the_scale_of_the_others(value):
    x = rng().normal(size=(500, 2))
    scale = scale_of(np.hstack([x, np.full((500, 1), value)]), rng())
    np.testing.assert_allclose(scale[:2], scale_of(x, rng()), rtol=1e-6)
    assert scale[2] > 1e-6
