"""The score against autograd of the log density, and against the velocity of the same network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scratio.module import MARGINAL
from scratio.paths import GaussianPath

TIMES = (0.0, 0.2, 0.5, 0.8, 0.95, 1.0)


@pytest.mark.parametrize("sigma_min_and_sigma", [(0.02, 0.0), (0.0, 0.0), (0.1, 0.5)], ids=["II", "I", "II and III"])
@pytest.mark.parametrize("code", [1, MARGINAL], ids=["condition", "marginal"])
@pytest.mark.parametrize("t", TIMES)
def test_score_is_the_gradient_of_the_log_density(make_analytic, codes, sigma_min_and_sigma, code, t):
    network = make_analytic(*sigma_min_and_sigma)
    x = torch.from_numpy(network.draw(12)).requires_grad_()
    means, covariances, weights = (torch.from_numpy(part) for part in network.numpy_parts)
    time = network.path.clamp(torch.tensor(t, dtype=torch.float64))  # schedule I ends where its noise is 0.01
    noise = network.path.lambda_(time) ** 2 * torch.eye(3)
    each = MultivariateNormal(time * means, time**2 * covariances + noise)
    if code == MARGINAL:
        density = MixtureSameFamily(Categorical(weights), each).log_prob(x)
    else:
        density = MultivariateNormal(each.loc[code], each.covariance_matrix[code]).log_prob(x)
    expected = torch.autograd.grad(density.sum(), x)[0]
    score = network.score(x.detach()[None], torch.full((1, 1, 1), t, dtype=torch.float64), codes(code))
    torch.testing.assert_close(score[0], expected, rtol=1e-6, atol=1e-6)


def test_every_cell_has_its_own_time(analytic, codes):
    x = torch.from_numpy(analytic.draw(6))[None]
    t = torch.tensor(TIMES, dtype=torch.float64).reshape(1, 6, 1)
    together = analytic.score(x, t, codes(1))
    for cell in range(6):
        alone = analytic.score(x[:, cell : cell + 1], t[:, cell : cell + 1], codes(1))
        torch.testing.assert_close(together[:, cell], alone[:, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("condition", [{"condition": "treated"}, {}], ids=["treated", "marginal"])
def test_a_trained_models_score_is_the_one_its_velocity_implies(trained, t, condition):
    # c_t s = t u - x in standardised coordinates: one denoiser gives both.
    x = np.random.default_rng(0).normal(size=(30, 3))
    velocity, score = (function(x, t, condition).numpy() for function in (trained.velocity, trained.score))
    path = GaussianPath(0.02)
    weight = float(path.score_weight(torch.tensor(t, dtype=torch.float64)))
    standardised = (x - trained.location) / trained.scale
    implied = (t * velocity / trained.scale - standardised) / weight
    np.testing.assert_allclose(score * trained.scale, implied, rtol=1e-4, atol=1e-4)


def test_a_trained_models_score_points_to_the_conditions_mean(trained):
    # At t = 0.5 the state is N(t m, (t^2 + lambda^2) I) in the units of the embedding, m = 1 for treated cells.
    x = np.random.default_rng(0).normal(size=(200, 3)) * 0.8 + 0.5
    score = trained.score(x, 0.5, {"condition": "treated"}).numpy()
    # In standardised coordinates treated cells are N((1 - location) / scale, 1 / scale^2).
    location, scale = trained.location, trained.scale
    mean, variance, lambda_ = (1.0 - location) / scale, 1.0 / scale**2, 1.0 - 0.98 * 0.5
    expected = -((x - location) / scale - 0.5 * mean) / (0.25 * variance + lambda_**2) / scale
    error = ((score - expected) ** 2).mean() / ((expected - expected.mean(0)) ** 2).mean()
    assert error < 0.02
