"""What the benchmarks compare with has to be right itself."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def research() -> ModuleType:
    return load("_research")


def diagonal(make_analytic):
    return make_analytic(
        covariances=np.stack([np.diag(v) for v in ([1.0, 0.5, 0.8], [0.7, 1.2, 0.9], [1.0, 0.6, 1.1])])
    )


def test_the_restated_procedure_is_right_where_its_probes_are_exact(research, make_analytic, codes, monkeypatch):
    # A probe of ones has the divergence exactly where the Jacobian is diagonal; then the solver arrives.
    network = diagonal(make_analytic)
    monkeypatch.setattr(research.torch, "randn", lambda shape, generator: torch.ones(shape))
    x, budget = network.draw(20), research.Budget(2_000)
    found = research.research_log_ratio(network, torch.from_numpy(x), codes(1), codes(2), None, budget)
    np.testing.assert_allclose(found[0], network.truth(x, 1) - network.truth(x, 2), atol=0.01)
    assert budget.progress == 1.0
    assert budget.calls < 100


def test_a_solver_that_does_not_arrive_is_given_up(research, make_analytic, codes):
    network = diagonal(make_analytic)
    x, budget = network.draw(5), research.Budget(50)
    found = research.research_log_ratio(
        network, torch.from_numpy(x), codes(1), codes(2), torch.Generator().manual_seed(0), budget
    )
    assert found.isnan().all()
    assert 0.0 < budget.progress < 1.0


def test_the_divergence_of_two_gaussians_has_no_bias():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        x = rng.normal(size=(100, 10))
        x[:50, 0] += 1.0
        found.append(load_once().gaussian_divergence(x, np.arange(100) < 50))
    # 1 / 2, within three standard errors of the mean.
    assert abs(np.mean(found) - 0.5) < 3.0 * np.std(found) / 20.0


@functools.cache
def load_once() -> ModuleType:
    return load("analyses")
