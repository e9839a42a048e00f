"""Estimators against the closed form, on a network whose velocity, score and divergence are exact.

A cell is read at the smallest noise level s of the path, so what the estimators return is the log ratio of the
densities smoothed by s: of N(m_c, S_c + s^2 I) instead of N(m_c, S_c). The expectations below are of the smoothed
densities.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from scratio.estimators import (
    Divergence,
    log_density,
    log_ratio_ito,
    log_ratio_naive,
    log_ratio_ode,
    log_ratio_quadrature,
    normal_noise,
    rademacher_probes,
    sample,
)
from scratio.module import MARGINAL

TOLERANCE = 1e-4
FINE = 64
"""Steps at which the solver's own error is far below the tolerance."""


@pytest.fixture
def cells(analytic) -> torch.Tensor:
    return torch.from_numpy(analytic.draw(60))


def ode(field: int | str):
    """The ODE with a simulating field: "numerator" or the code of a condition."""

    def estimate(network, x, numerator, denominator, codes, **kwargs):
        given = field if isinstance(field, str) else codes(field)
        return log_ratio_ode(network, x, codes(numerator), codes(denominator), field=given, **kwargs)

    return estimate


def naive(network, x, numerator, denominator, codes, **kwargs):
    return log_ratio_naive(network, x, codes(numerator), codes(denominator), **kwargs)


def quadrature(network, x, numerator, denominator, codes, *, n_steps=None, **kwargs):
    return log_ratio_quadrature(network, x, codes(numerator), codes(denominator), n_nodes=n_steps, **kwargs)


ESTIMATORS = {
    "S1": ode("numerator"),
    "S2": ode(MARGINAL),
    "arbitrary field": ode(2),
    "denominator's field": ode(0),
    "naive": naive,
    "quadrature": quadrature,
}
"""Every estimator as function(network, x, numerator, denominator, codes); one more is one more line here."""


@pytest.fixture(params=ESTIMATORS.values(), ids=ESTIMATORS.keys())
def estimate(request: pytest.FixtureRequest):
    return request.param


# --- right answers


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 0), (2, 1), (1, MARGINAL), (MARGINAL, 2)])
def test_log_ratio_is_that_of_the_smoothed_gaussians(estimate, analytic, cells, codes, numerator, denominator):
    expected = analytic.truth(cells.numpy(), numerator) - analytic.truth(cells.numpy(), denominator)
    ratio = estimate(analytic, cells, numerator, denominator, codes, n_steps=FINE)
    np.testing.assert_allclose(ratio[0].numpy(), expected, atol=TOLERANCE)
    assert expected.std() > 0.3


@pytest.mark.parametrize(("sigma_min", "sigma"), [(0.0, 0.0), (0.1, 0.0), (0.02, 0.5)])
def test_log_ratio_does_not_depend_on_the_schedule_but_for_the_smallest_noise(
    estimate, make_analytic, codes, sigma_min, sigma
):
    network = make_analytic(sigma_min, sigma)
    x = torch.from_numpy(network.draw(30))
    level = max(sigma_min, 0.01)
    expected = network.truth(x.numpy(), 1, level) - network.truth(x.numpy(), 0, level)
    ratio = estimate(network, x, 1, 0, codes, n_steps=FINE)
    np.testing.assert_allclose(ratio[0].numpy(), expected, atol=TOLERANCE)


def test_the_smoothing_is_that_of_the_smallest_noise_level(make_analytic, codes):
    # At sigma_min = 0.5 the smoothed ratio is far from the one of the data, and it is the smoothed one that comes out.
    network = make_analytic(0.5)
    x = torch.from_numpy(network.draw(30))
    ratio = log_ratio_ode(network, x, codes(1), codes(0), n_steps=FINE)[0].numpy()
    smoothed, data = (network.truth(x.numpy(), 1, s) - network.truth(x.numpy(), 0, s) for s in (0.5, 0.0))
    np.testing.assert_allclose(ratio, smoothed, atol=TOLERANCE)
    assert np.abs(smoothed - data).max() > 0.1


def test_standard_gaussians_one_apart_have_the_linear_log_ratio(make_analytic, codes):
    # The issue's own example, N(0, I) and N(1, I): the log ratio is sum_i x_i - d / 2, here by hand with s^2 smoothing.
    network = make_analytic(covariances=np.stack([np.eye(3)] * 3))
    network.means = torch.tensor([[0.0] * 3, [1.0] * 3, [0.0] * 3], dtype=torch.float64)
    x = torch.randn((50, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratio = log_ratio_ode(network, x, codes(1), codes(0), n_steps=FINE)
    torch.testing.assert_close(ratio[0], (x.sum(1) - 1.5) / (1 + 0.02**2), rtol=0.0, atol=TOLERANCE)


def test_default_number_of_steps_suffices_for_overlapping_gaussians(estimate, make_analytic, codes):
    network = make_analytic(covariances=np.stack([np.eye(3), 0.7 * np.eye(3), np.eye(3)]))
    x = torch.from_numpy(network.draw(60))
    expected = network.truth(x.numpy(), 1) - network.truth(x.numpy(), 0)
    np.testing.assert_allclose(estimate(network, x, 1, 0, codes)[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("estimate", [e for n, e in ESTIMATORS.items() if n != "quadrature"])
def test_the_solver_is_of_fourth_order(estimate, analytic, cells, codes):
    expected = analytic.truth(cells.numpy(), 1) - analytic.truth(cells.numpy(), 0)
    errors = [
        np.abs(estimate(analytic, cells, 1, 0, codes, n_steps=n)[0].numpy() - expected).max() for n in (32, 64, 128)
    ]
    assert errors[0] / errors[1] > 12.0
    assert errors[1] / errors[2] > 12.0


def test_quadrature_needs_few_nodes(analytic, cells, codes):
    expected = analytic.truth(cells.numpy(), 1) - analytic.truth(cells.numpy(), 0)
    errors = [
        np.abs(quadrature(analytic, cells, 1, 0, codes, n_steps=n)[0].numpy() - expected).max() for n in (8, 16, 24)
    ]
    assert errors[2] < 1e-4
    assert errors[1] < 0.2 * errors[0]


# --- the pathwise identity


def ito(network, x, numerator, denominator, codes, n_paths=8, n_steps=64, seed=0):
    noise = normal_noise(x.numpy(), (n_paths, n_steps + 1, x.shape[1]), seed)
    return log_ratio_ito(network, x, codes(numerator), codes(denominator), noise=noise)


def test_the_pathwise_identity_is_right_within_its_standard_error(analytic, cells, codes):
    expected = analytic.truth(cells.numpy(), 1) - analytic.truth(cells.numpy(), 0)
    ratio, variance = ito(analytic, cells, 1, 0, codes, n_paths=32, n_steps=256)
    z = (ratio[0].numpy() - expected) / np.sqrt(variance[0].numpy())
    # The standard error is itself from 32 paths, hence the tails of a t distribution.
    assert 0.7 < z.std() < 1.4
    assert abs(z.mean()) < 4.0 / np.sqrt(len(z))
    assert np.sqrt(variance.mean()) < 0.2


def test_more_paths_have_a_smaller_error(analytic, cells, codes):
    variances = [float(ito(analytic, cells, 1, 0, codes, n_paths=n)[1].mean()) for n in (4, 64)]
    assert 8.0 < variances[0] / variances[1] < 32.0


def test_the_pathwise_identity_is_antisymmetric_and_transitive_to_rounding(analytic, cells, codes):
    # On the same paths every condition's denoiser enters linearly but for its square, which telescopes too.
    parts = {pair: ito(analytic, cells, *pair, codes, n_steps=16)[0] for pair in ((1, 0), (0, 1), (2, 1), (2, 0))}
    torch.testing.assert_close(parts[1, 0], -parts[0, 1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts[2, 1] + parts[1, 0], parts[2, 0], rtol=1e-9, atol=1e-9)


def test_paths_belong_to_the_cell(analytic, cells, codes):
    whole = ito(analytic, cells, 1, 0, codes, n_steps=16)[0][0]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ito(analytic, cells[order], 1, 0, codes, n_steps=16)[0][0], whole[order])
    torch.testing.assert_close(ito(analytic, cells[5:9], 1, 0, codes, n_steps=16)[0][0], whole[5:9])
    assert not torch.equal(ito(analytic, cells, 1, 0, codes, n_steps=16, seed=1)[0][0], whole)


def test_every_cell_of_a_path_has_its_own_pair_of_conditions(analytic, cells, codes):
    numerators, denominators = np.arange(60) % 3, np.arange(60) // 2 % 3
    mixed = ito(analytic, cells, numerators, denominators, codes, n_steps=16)[0][0]
    for i in (0, 7, 23, 59):
        alone = ito(analytic, cells[i : i + 1], int(numerators[i]), int(denominators[i]), codes, n_steps=16)[0][0]
        torch.testing.assert_close(alone, mixed[i : i + 1])


def test_noise_of_cells_is_standard_normal():
    x = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    noise = normal_noise(x, (4, 50), seed=0).flatten().numpy()
    assert kstest(noise, "norm").pvalue > 1e-3


@pytest.mark.parametrize("code", [0, 1, 2, MARGINAL])
def test_log_density_is_that_of_the_smoothed_gaussian(analytic, cells, codes, code):
    density = log_density(analytic, cells, codes(code), n_steps=FINE)
    np.testing.assert_allclose(density[0].numpy(), analytic.truth(cells.numpy(), code), atol=TOLERANCE)


# --- identities


def test_log_ratio_is_antisymmetric(estimate, analytic, cells, codes):
    forward, backward = (estimate(analytic, cells, *pair, codes, n_steps=FINE) for pair in ((1, 0), (0, 1)))
    torch.testing.assert_close(forward, -backward, rtol=0.0, atol=TOLERANCE)


@pytest.mark.parametrize("field", [MARGINAL, 2])
def test_log_ratio_along_a_common_field_is_antisymmetric_to_rounding(analytic, cells, codes, field):
    # Along one and the same path the two directions differ by their sign alone, at any number of steps.
    forward, backward = (ode(field)(analytic, cells, *pair, codes, n_steps=5) for pair in ((1, 0), (0, 1)))
    torch.testing.assert_close(forward, -backward, rtol=1e-10, atol=1e-10)


def test_log_ratio_is_transitive(estimate, analytic, cells, codes):
    parts = [estimate(analytic, cells, *pair, codes, n_steps=FINE) for pair in ((2, 1), (1, 0), (2, 0))]
    torch.testing.assert_close(parts[0] + parts[1], parts[2], rtol=0.0, atol=TOLERANCE)


@pytest.mark.parametrize("probes", ["exact", "rademacher"])
@pytest.mark.parametrize("code", [1, MARGINAL])
def test_log_ratio_of_a_condition_to_itself_is_exactly_zero(estimate, analytic, cells, codes, probes, code):
    how = Divergence(rademacher_probes(cells.numpy(), 2, seed=0) if probes == "rademacher" else None)
    ratio = estimate(analytic, cells, code, code, codes, divergence=how, n_steps=8)
    assert torch.equal(ratio, torch.zeros_like(ratio))


def test_every_cell_has_its_own_pair_of_conditions(estimate, analytic, cells, codes):
    numerators, denominators = np.arange(60) % 3, np.arange(60) // 2 % 3
    expected = [
        analytic.truth(x[None], a)[0] - analytic.truth(x[None], b)[0]
        for x, a, b in zip(cells.numpy(), numerators, denominators, strict=True)
    ]
    ratio = estimate(analytic, cells, numerators, denominators, codes, n_steps=FINE)
    np.testing.assert_allclose(ratio[0].numpy(), expected, atol=TOLERANCE)


@pytest.mark.parametrize("probes", ["exact", "rademacher"])
def test_results_do_not_depend_on_batches_or_order(estimate, analytic, cells, codes, probes):
    def score(x: torch.Tensor) -> torch.Tensor:
        how = Divergence(rademacher_probes(x.numpy(), 2, seed=0) if probes == "rademacher" else None)
        return estimate(analytic, x, 1, 0, codes, divergence=how, n_steps=2)[0]

    whole = score(cells)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(score(cells[order]), whole[order], rtol=1e-9, atol=1e-9)
    parts = torch.cat([score(cells[:1]), score(cells[1:8]), score(cells[8:])])
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)


# --- stochastic divergence


def test_probes_are_signs_with_mean_zero():
    x = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    probes = rademacher_probes(x, 20, seed=0)
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(probes.mean())) < 4.5 / np.sqrt(probes.numel())
    # Neither dimensions nor probes of a cell go together.
    for one, other in ((probes[..., 0], probes[..., 1]), (probes[0], probes[1])):
        assert abs(float((one * other).mean())) < 4.5 / np.sqrt(one.numel())


def test_probes_belong_to_the_cell():
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    probes = rademacher_probes(x, 3, seed=0)
    order = np.random.default_rng(1).permutation(40)
    assert torch.equal(rademacher_probes(x[order], 3, seed=0), probes[:, order])
    assert torch.equal(rademacher_probes(x[7:9], 3, seed=0), probes[:, 7:9])
    assert torch.equal(rademacher_probes(x, 3, seed=0), probes)


def test_probes_differ_between_cells_and_seeds():
    x = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)
    probes = rademacher_probes(x, 1, seed=0)[0]
    assert len(np.unique(probes.numpy(), axis=0)) == 40
    assert not torch.equal(rademacher_probes(x, 1, seed=1)[0], probes)


def test_probes_stay_the_same_throughout_a_solve(analytic, cells, codes):
    # Redrawing them at every call, as the research code does, would make two runs differ.
    how = Divergence(rademacher_probes(cells.numpy(), 1, seed=0))
    runs = [log_ratio_ode(analytic, cells, codes(1), codes(0), divergence=how, n_steps=8) for _ in range(2)]
    assert torch.equal(*runs)
    exact = log_ratio_ode(analytic, cells, codes(1), codes(0), n_steps=8)
    assert not torch.equal(runs[0], exact)


def test_one_probe_is_exact_where_the_jacobian_is_diagonal(make_analytic, codes):
    network = make_analytic(covariances=np.stack([np.diag(v) for v in ([1.0, 0.5, 2.0], [0.7, 1.0, 0.4], [1.0] * 3)]))
    x = torch.from_numpy(network.draw(20))
    how = Divergence(rademacher_probes(x.numpy(), 1, seed=0))
    exact, probed = (log_ratio_ode(network, x, codes(1), codes(0), divergence=d) for d in (Divergence(), how))
    torch.testing.assert_close(probed, exact, rtol=1e-9, atol=1e-9)


def test_the_mean_over_probes_approaches_the_exact_divergence(analytic, cells, codes):
    z, q, n_probes = cells[None, :20], torch.full((1, 1, 1), 1.2, dtype=torch.float64), 100
    probes = rademacher_probes(cells[:20].numpy(), n_probes, seed=0)
    exact = analytic.flow_and_divergence(z, q, codes(MARGINAL)).divergence
    each = torch.stack([Divergence(p[None]).flow(analytic, z, q, codes(MARGINAL)).divergence for p in probes])
    together = Divergence(probes).flow(analytic, z, q, codes(MARGINAL)).divergence
    torch.testing.assert_close(together, each.mean(0), rtol=1e-10, atol=1e-10)
    error = (together - exact) / (each.std(0) / np.sqrt(n_probes))
    assert float(error.abs().max()) < 4.0
    assert float(error.abs().max()) > 0.0


def test_stochastic_log_ratio_approaches_the_exact_one(analytic, cells, codes):
    exact = log_ratio_ode(analytic, cells, codes(1), codes(0), n_steps=2)
    errors = []
    for n_probes in (1, 16):
        how = Divergence(rademacher_probes(cells.numpy(), n_probes, seed=0))
        ratio = log_ratio_ode(analytic, cells, codes(1), codes(0), divergence=how, n_steps=2)
        errors.append(float((ratio - exact).square().mean()))
    # 16 times the probes, a 16th of the mean squared error, as far as 60 cells can tell.
    assert 8.0 < errors[0] / errors[1] < 32.0


# --- sampling


@pytest.mark.parametrize("code", [0, 1, 2])
def test_sampling_has_the_mean_and_covariance_of_the_condition(analytic, codes, code):
    # The flow of a Gaussian is affine, so its value at 0 and at the unit vectors is all of it: no sampling error.
    # The last step is the posterior mean, which shrinks S to S (S + s^2 I)^-1 S.
    noise = torch.cat([torch.zeros((1, 3)), torch.eye(3)]).double()[None]
    drawn = sample(analytic, noise, codes(code), n_steps=FINE)[0].numpy()
    factor = (drawn[1:] - drawn[0]).T
    means, covariances, _ = analytic.numpy_parts
    smoothed = covariances[code] + 0.02**2 * np.eye(3)
    np.testing.assert_allclose(drawn[0], means[code], atol=TOLERANCE)
    expected = covariances[code] @ np.linalg.solve(smoothed, covariances[code])
    np.testing.assert_allclose(factor @ factor.T, expected, atol=TOLERANCE)


def test_sampling_the_marginal_has_the_mean_and_covariance_of_the_mixture(analytic, codes):
    n = 4_000
    noise = torch.randn((1, n, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = sample(analytic, noise, codes(MARGINAL), n_steps=32)[0].numpy()
    means, covariances, weights = analytic.numpy_parts
    mean = weights @ means
    covariance = np.einsum("k,kij->ij", weights, covariances + np.einsum("ki,kj->kij", means, means))
    covariance -= np.outer(mean, mean)
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(drawn.mean(0) - mean) < 4.0 * sd / np.sqrt(n)).all()
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=5.0 * sd.max() ** 2 / np.sqrt(n))


def test_sampling_undoes_the_way_from_the_data_to_the_noise(analytic, codes):
    # Densities through change of variables: log p(x) + log |dx / dnoise| = log N(noise).
    noise = torch.randn((1, 30, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = sample(analytic, noise, codes(1), n_steps=FINE)
    factor = sample(analytic, torch.eye(3).double()[None], codes(1), n_steps=FINE)
    factor = factor - sample(analytic, torch.zeros((1, 1, 3)).double(), codes(1), n_steps=FINE)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(noise[0]).sum(-1)
    # The posterior mean at noise s is within s^2 of the state itself, hence the tolerance.
    density = log_density(analytic, x[0], codes(1), n_steps=FINE)[0]
    torch.testing.assert_close(density + torch.linalg.slogdet(factor[0])[1], normal, rtol=0.0, atol=2e-2)
