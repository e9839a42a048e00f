"""The path, its schedules, and the coordinate in which they are one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scratio.paths import GaussianPath

SCHEDULES = {
    "I": (0.0, 0.0),
    "II": (0.05, 0.0),
    "III": (0.0, 0.25),
    "II and III": (0.1, 0.5),
    "strong bridge": (0.0, 3.0),
}
TIMES = torch.linspace(0.0, 0.99, 34, dtype=torch.float64)


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES.keys())
def path(request: pytest.FixtureRequest) -> GaussianPath:
    return GaussianPath(*request.param)


def derivative(function, t: torch.Tensor) -> torch.Tensor:
    """Derivative of an elementwise function by autograd."""
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum(), t)[0]


def test_lambda_is_the_formula_of_the_paper(path):
    expected = np.sqrt(
        (1 - (1 - path.sigma_min) * TIMES.numpy()) ** 2 + path.sigma * TIMES.numpy() * (1 - TIMES.numpy())
    )
    np.testing.assert_allclose(path.lambda_(TIMES).numpy(), expected, rtol=1e-13)


def test_the_path_begins_in_unit_noise_and_ends_at_sigma_min(path):
    ends = path.lambda_(torch.tensor([0.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(ends.numpy(), [1.0, path.sigma_min], atol=1e-15)


def test_lambda_prime_is_the_derivative_of_lambda(path):
    expected = derivative(path.lambda_, TIMES)
    torch.testing.assert_close(path.lambda_prime(TIMES), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(path.lambda_lambda_prime(TIMES), path.lambda_(TIMES) * expected, rtol=1e-10, atol=1e-12)


def test_lambda_lambda_prime_stays_finite_where_lambda_vanishes():
    # For schedule III lambda' itself is infinite at t = 1; half the derivative of lambda^2 is -sigma / 2.
    last = GaussianPath(0.0, 0.25).lambda_lambda_prime(torch.tensor([1.0], dtype=torch.float64))
    torch.testing.assert_close(last, torch.tensor([-0.125], dtype=torch.float64))


def test_score_weight_is_lambda_squared_minus_t_lambda_times_its_derivative(path):
    # The derivative in the weight is that of lambda, taken times lambda once; not that of lambda squared.
    lambda_, prime = path.lambda_(TIMES), derivative(path.lambda_, TIMES)
    expected = lambda_**2 - TIMES * lambda_ * prime
    torch.testing.assert_close(path.score_weight(TIMES), expected, rtol=1e-10, atol=1e-12)


def test_score_weight_turns_the_score_into_t_times_the_velocity_minus_the_state(path):
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn((2, len(TIMES)), generator=generator, dtype=torch.float64)
    lambda_ = path.lambda_(TIMES)
    x, velocity, score = TIMES * x1 + lambda_ * x0, x1 + derivative(path.lambda_, TIMES) * x0, -x0 / lambda_
    torch.testing.assert_close(path.score_weight(TIMES) * score, TIMES * velocity - x, rtol=1e-9, atol=1e-10)


def test_time_is_the_inverse_of_the_coordinate(path):
    torch.testing.assert_close(path.time(path.coordinate(TIMES)), TIMES, rtol=1e-12, atol=1e-12)


def test_coordinate_is_the_inverse_of_time(path):
    q = torch.linspace(0.0, path.q_end, 21, dtype=torch.float64)
    # At t near 1 the noise is a difference of nearly equal numbers, hence not to full precision.
    torch.testing.assert_close(path.coordinate(path.time(q)), q, rtol=1e-9, atol=1e-12)


def test_coordinate_is_the_inverse_hyperbolic_sine_of_the_signal_to_noise_ratio(path):
    torch.testing.assert_close(torch.sinh(path.coordinate(TIMES)), TIMES / path.lambda_(TIMES), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("sigma_min", "level"), [(0.0, 0.01), (0.004, 0.01), (0.05, 0.05)])
def test_no_time_later_than_the_smallest_noise_level_is_evaluated(sigma_min, level):
    path = GaussianPath(sigma_min, 0.2)
    t = path.clamp(torch.tensor([0.3, 1.0], dtype=torch.float64))
    assert path.smallest_noise_level == level
    assert float(t[0]) == 0.3
    assert float(path.lambda_(t[1]) / t[1]) == pytest.approx(level, rel=1e-6)


def test_schedules_are_one_process(path):
    # z = x_t / scale has coefficients tanh(q) and sech(q), whatever the schedule.
    q = torch.linspace(0.0, path.q_end, 15, dtype=torch.float64)
    t = path.time(q)
    torch.testing.assert_close(t / path.scale(t), torch.tanh(q), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(path.lambda_(t) / path.scale(t), 1.0 / torch.cosh(q), rtol=1e-8, atol=1e-12)


def test_velocity_of_the_path_becomes_denoiser_minus_tanh_in_the_coordinate(path):
    # dz/dq by the chain rule from dx/dt, for an arbitrary denoiser.
    q = torch.linspace(0.05, 4.0, 15, dtype=torch.float64)
    t = path.time(q)
    generator = torch.Generator().manual_seed(1)
    z, denoised = torch.randn((2, 15), generator=generator, dtype=torch.float64)
    scale = path.scale(t)
    velocity = path.velocity_from_denoiser(scale * z, t, denoised)
    dz_dt = velocity / scale - z * derivative(path.scale, t) / scale
    torch.testing.assert_close(dz_dt * derivative(path.time, q), denoised - torch.tanh(q) * z, rtol=1e-7, atol=1e-8)


@pytest.fixture
def gaussian(path):
    """State, time, denoiser, velocity and score of x_t for data from N(m, S), each by conditioning of Gaussians."""
    rng = np.random.default_rng(0)
    m, factor = rng.normal(size=4), rng.normal(size=(4, 4))
    covariance, x = factor @ factor.T + 0.1 * np.eye(4), rng.normal(size=(6, 4))
    t = np.linspace(0.05, 0.95, 6)
    t_ = torch.from_numpy(t)
    lambda_, prime = path.lambda_(t_).numpy(), derivative(path.lambda_, t_).numpy()
    rows = []
    for i in range(6):
        noisy = t[i] ** 2 * covariance + lambda_[i] ** 2 * np.eye(4)
        pull = np.linalg.solve(noisy, x[i] - t[i] * m)
        # Cov(x1, x_t) = t S and Cov(x0, x_t) = lambda I.
        rows.append(
            (m + t[i] * covariance @ pull, m + (t[i] * covariance + prime[i] * lambda_[i] * np.eye(4)) @ pull, -pull)
        )
    denoised, velocity, score = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
    return torch.from_numpy(x), t_[:, None], denoised, velocity, score


def test_velocity_follows_from_the_denoiser(path, gaussian):
    x, t, denoised, velocity, _ = gaussian
    torch.testing.assert_close(path.velocity_from_denoiser(x, t, denoised), velocity, rtol=1e-10, atol=1e-10)


def test_score_follows_from_the_denoiser(path, gaussian):
    x, t, denoised, _, score = gaussian
    torch.testing.assert_close(path.score_from_denoiser(x, t, denoised), score, rtol=1e-10, atol=1e-10)


def test_denoiser_follows_from_the_velocity(path, gaussian):
    x, t, denoised, velocity, _ = gaussian
    torch.testing.assert_close(path.denoiser_from_velocity(x, t, velocity), denoised, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma_min", [-0.1, 1.0, 2.0, float("nan"), float("inf")])
def test_sigma_min_out_of_range_is_refused(sigma_min):
    with pytest.raises(ValueError, match="sigma_min"):
        GaussianPath(sigma_min=sigma_min)


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_sigma_out_of_range_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma must"):
        GaussianPath(sigma=sigma)
