"""What holds for any dimension, schedule, mixture, condition and file, not for the examples of other tests alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scratio
from scratio.conditions import distinct_rows
from scratio.estimators import Divergence, log_ratio_head, log_ratio_naive, log_ratio_ode, log_ratio_quadrature
from scratio.io import read_lazy
from scratio.module import MARGINAL, Condition, PotentialNetwork, all_but
from scratio.paths import GaussianPath

FEW, MANY = (
    settings(
        max_examples=n, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    for n in (15, 100)
)

seeds = st.integers(0, 2**31 - 1)


def mixture(seed: int, n_dims: int, n_parts: int) -> dict[str, np.ndarray]:
    """Overlapping Gaussians with any covariances."""
    rng = np.random.default_rng(seed)
    factors = 0.4 * rng.normal(size=(n_parts, n_dims, n_dims))
    return {
        "means": 0.6 * rng.normal(size=(n_parts, n_dims)),
        "covariances": factors @ factors.swapaxes(1, 2) + 0.4 * np.eye(n_dims),
        "weights": rng.dirichlet(np.full(n_parts, 5.0)),
    }


def code(value: int) -> Condition:
    return Condition(torch.tensor([[value]]), torch.empty((1, 0)))


ESTIMATORS = {
    "S1": lambda network, x, *ends: log_ratio_ode(network, x, *ends, divergence=Divergence(None)),
    "S2": lambda network, x, *ends: log_ratio_ode(network, x, *ends, field=code(MARGINAL), divergence=Divergence(None)),
    "naive": lambda network, x, *ends: log_ratio_naive(network, x, *ends, divergence=Divergence(None)),
    "quadrature": lambda network, x, *ends: log_ratio_quadrature(network, x, *ends, divergence=Divergence(None)),
}


@pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS.keys())
@FEW
@given(
    seed=seeds,
    n_dims=st.integers(1, 6),
    n_parts=st.integers(2, 4),
    sigma_min=st.floats(0.0, 0.3),
    sigma=st.floats(0.0, 1.0),
    data=st.data(),
)
def test_estimators_find_the_ratio_of_any_gaussians_on_any_path(
    make_analytic, estimate, seed, n_dims, n_parts, sigma_min, sigma, data
):
    network = make_analytic(sigma_min, sigma, **mixture(seed, n_dims, n_parts))
    top, bottom = (data.draw(st.integers(MARGINAL, n_parts - 1)) for _ in range(2))
    x = torch.from_numpy(network.draw(20, seed))
    found = estimate(network, x, code(top), code(bottom))[0].numpy()
    expected = network.truth(x.numpy(), top) - network.truth(x.numpy(), bottom)
    np.testing.assert_allclose(found, expected, atol=5e-3, rtol=5e-3)
    np.testing.assert_allclose(found, -estimate(network, x, code(bottom), code(top))[0].numpy(), atol=1e-2)


def potential(seed: int, sizes: list[int], n_dims: int) -> PotentialNetwork:
    """Untrained network whose outputs are random, over random shares of all combinations of keys."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.cartesian_prod(*[torch.arange(size) for size in sizes]).reshape(-1, len(sizes))
    weights = torch.rand(len(codes), generator=generator) + 0.1
    network = PotentialNetwork(
        n_features=n_dims,
        combinations=codes,
        weights=weights / weights.sum(),
        path=GaussianPath(0.02),
        generator=generator,
        n_members=2,
        n_hidden=8,
        n_embed=6,
    )
    with torch.no_grad():
        for parameter in network.classifier.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return network


@FEW
@given(seed=seeds, sizes=st.lists(st.integers(2, 7), min_size=1, max_size=3), n_dims=st.integers(1, 5), data=st.data())
def test_any_conditions_are_antisymmetric_transitive_and_mix_to_their_marginal(seed, sizes, n_dims, data):
    # In double precision: in single precision large log densities leave errors of their own size.
    network = potential(seed, sizes, n_dims).double()
    x = torch.randn((10, n_dims), generator=torch.Generator().manual_seed(seed))

    def drawn() -> Condition:
        def of_key(size: int) -> st.SearchStrategy:
            named = st.integers(MARGINAL, size - 1)
            return st.one_of(named, st.integers(0, size - 1).map(all_but))

        return Condition(torch.tensor([[data.draw(of_key(size)) for size in sizes]]), torch.empty((1, 0)))

    def ratio(top: Condition, bottom: Condition) -> np.ndarray:
        with torch.no_grad():
            return log_ratio_head(network, x, top, bottom).numpy()

    a, b, c = drawn(), drawn(), drawn()
    np.testing.assert_allclose(ratio(a, b), -ratio(b, a), atol=1e-12)
    np.testing.assert_allclose(ratio(a, b) + ratio(b, c), ratio(a, c), atol=1e-9)
    np.testing.assert_array_equal(ratio(a, a), 0.0)
    # The densities of the categories of a key, by their shares, are the density without the key.
    key = data.draw(st.integers(0, len(sizes) - 1))
    everything = Condition(torch.full((1, len(sizes)), MARGINAL), torch.empty((1, 0)))
    mixed = np.zeros((2, 10))
    for value in range(sizes[key]):
        codes = everything.codes.clone()
        codes[0, key] = value
        share = network.log_weights.exp()[network.combinations[:, key] == value].sum()
        mixed += float(share) * np.exp(ratio(Condition(codes, everything.values), everything))
    # The shares were rounded to single precision.
    np.testing.assert_allclose(mixed, 1.0, rtol=1e-6)


@MANY
@given(data=st.data(), n=st.integers(1, 30), n_keys=st.integers(1, 3))
def test_distinct_rows_are_those_of_numpy(data, n, n_keys):
    values = st.one_of(st.integers(-3, 3), st.integers(-(2**40), 2**40))
    codes = np.array([[data.draw(values) for _ in range(n_keys)] for _ in range(n)])
    rows, inverse, counts = distinct_rows(codes)
    expected, times = np.unique(codes, axis=0, return_counts=True)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(counts, times)
    np.testing.assert_array_equal(rows[inverse], codes)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("files") / "cells.h5ad"
    scratio.datasets.gaussians(n_cells=30, n_dims=2, random_state=0).write_h5ad(path)
    return path.read_bytes()


@MANY
@given(content=st.binary(max_size=2_000))
def test_files_of_random_bytes_are_refused_in_words(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "cells.h5ad"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"neither an \.h5ad file"):
        read_lazy(path)


@MANY
@given(share=st.floats(0.0, 0.999))
def test_files_that_were_cut_off_are_refused_in_words(file, share, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "cells.h5ad"
    path.write_bytes(file[: int(share * len(file))])
    with pytest.raises(ValueError, match=r"neither an \.h5ad file"):
        read_lazy(path)
