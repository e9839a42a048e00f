"""Fixtures shared by the tests: cells with a known answer, exact networks, a small trained model, guards."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import anndata
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from benchmark_scripts import BENCHMARKS, load
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

import scratio
import scratio.pl
import scratio.tl  # now, since importing dependencies draws from global generators
from scratio.module import MARGINAL, Condition, FlowNetwork, FlowWithDivergence
from scratio.paths import GaussianPath

matplotlib.use("Agg")

collect_ignore = ["support"]
"""Not searched for doctests, which would import it a second time under another name."""

FOLDERS = [os.environ.get("SCRATIO_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data"]
"""Where real data may lie: the path setting, or beside the checkout."""

PARAMETRIZATIONS = ("heads", "potential")
"""Every parametrization that has to pass the tests of the model; one more is one more word here."""

QUICK = {
    "max_steps": 40,
    "batch_size": 64,
    "warmup_steps": 5,
    "validate_every": 10,
    "n_validation": 64,
    "early_stopping": False,
    "accelerator": "cpu",
    "progress_bar": False,
}
"""A training that ends at once: for what does not depend on how well the model is trained."""

THOROUGH = {
    "max_steps": 500,
    "batch_size": 256,
    "warmup_steps": 20,
    "validation_size": 0.1,
    "accelerator": "cpu",
    "progress_bar": False,
}
"""A training that reaches the known answer on a few cells in a few dimensions."""


@pytest.fixture(autouse=True)
def global_random_state_unchanged() -> Iterator[None]:
    """Fail a test that draws from, or seeds, a global generator."""
    before = torch.random.get_rng_state().clone(), np.random.get_state(), random.getstate()
    yield
    assert torch.equal(before[0], torch.random.get_rng_state()), "the global state of torch's generator changed"
    legacy = np.random.get_state()
    assert before[1][2:] == legacy[2:], "the global state of numpy's generator changed"
    assert np.array_equal(before[1][1], legacy[1]), "the global state of numpy's generator changed"
    assert before[2] == random.getstate(), "the global state of Python's generator changed"


@pytest.fixture
def unchanged() -> Callable[[AnnData], contextlib.AbstractContextManager[None]]:
    """Context manager that fails if an AnnData is not left as it was."""

    @contextlib.contextmanager
    def guard(adata: AnnData) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # AnnData's own, about what a test spoils on purpose
            before = adata.copy()
        yield
        pd.testing.assert_frame_equal(adata.obs, before.obs)
        assert list(adata.uns) == list(before.uns)
        assert list(adata.obsm) == list(before.obsm)
        for key, value in before.obsm.items():
            now, then = (v.toarray() if hasattr(v, "toarray") else v for v in (adata.obsm[key], value))
            np.testing.assert_array_equal(now, then)

    return guard


def read_real_data(name: str) -> AnnData:
    """Real cells by the name of their file; says so and skips where they are absent."""
    file = f"{name}.h5ad"
    found = [Path(folder) / file for folder in FOLDERS if folder is not None and (Path(folder) / file).exists()]
    if not found:
        pytest.skip(f"{file} not found: set the environment variable SCRATIO_DATA to the folder that holds it")
    return anndata.read_h5ad(found[0])


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], AnnData]:
    """Reads real cells by the name of their file."""
    return read_real_data


@pytest.fixture
def gaussian_cells() -> AnnData:
    """200 cells of N(0, I) (control) or N(1, I) (treated) in two dimensions."""
    return scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], ModuleType]:
    """Loader of benchmarks that write to an empty folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def get(name: str) -> ModuleType:
        module = load(name, monkeypatch)
        monkeypatch.setattr(module, "RESULTS", tmp_path, raising=False)
        return module

    return get


@pytest.fixture(scope="session", params=PARAMETRIZATIONS)
def parametrization(request: pytest.FixtureRequest) -> str:
    """Each parametrization in turn."""
    return request.param


@pytest.fixture(scope="session")
def quick() -> dict:
    """Settings of a training that ends at once."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def thorough() -> dict:
    """Settings of a training that reaches the known answer."""
    return dict(THOROUGH)


@pytest.fixture(scope="session")
def trained(parametrization: str) -> scratio.model.ScRatio:
    """Two members trained on 2,000 cells of N(0, I) and N(1, I) in three dimensions. Not to be changed by a test."""
    adata = scratio.datasets.gaussians(n_cells=2_000, n_dims=3, random_state=0)
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, parametrization=parametrization, n_hidden=32, n_members=2)
    model.train(**THOROUGH)
    return model


@pytest.fixture(scope="module")
def models() -> tuple[scratio.model.ScRatio, scratio.model.ScRatio]:
    """Two small models of 200 cells that differ in their seed, for tests of files."""
    found = []
    for seed in (0, 1):
        adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
        scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
        model = scratio.model.ScRatio(adata, n_hidden=8, n_members=1)
        model.train(**QUICK, random_state=seed)
        found.append(model)
    return found[0], found[1]


class AnalyticNetwork(FlowNetwork):
    """Exact flow of conditional Gaussians N(m_c, S_c), float64, nothing learned; the marginal is their mixture.

    ``truth`` gives the log density that estimators have to reproduce, through scipy and so by other code.
    """

    def __init__(
        self,
        means: np.ndarray,
        covariances: np.ndarray,
        weights: np.ndarray,
        path: GaussianPath,
        n_members: int = 1,
    ) -> None:
        super().__init__()
        self.path, self.n_members, self.n_features = path, n_members, means.shape[1]
        self.numpy_parts = means, covariances, weights
        self.means = torch.from_numpy(means)
        self.values, self.vectors = torch.linalg.eigh(torch.from_numpy(covariances))
        # Row c is the prior of "the category is c"; the last row, which code -1 picks, that of the marginal.
        given = torch.full((len(means), len(means)), -torch.inf, dtype=torch.float64).fill_diagonal_(0.0)
        self.log_prior = torch.cat([given, torch.from_numpy(np.log(weights))[None]])

    def truth(self, x: np.ndarray, code: int, noise: float | None = None) -> np.ndarray:
        """Log density of N(m_c, S_c + noise^2 I), or of their mixture; by default at the path's smallest noise
        level.
        """
        noise = self.path.smallest_noise_level if noise is None else noise
        means, covariances, weights = self.numpy_parts
        smoothed = covariances + noise**2 * np.eye(self.n_features)
        each = np.stack(
            [np.atleast_1d(multivariate_normal(m, s).logpdf(x)) for m, s in zip(means, smoothed, strict=True)]
        )
        return logsumexp(each + np.log(weights)[:, None], axis=0) if code == MARGINAL else each[code]

    def draw(self, n: int, seed: int = 0) -> np.ndarray:
        """Cells of the mixture."""
        means, covariances, weights = self.numpy_parts
        rng = np.random.default_rng(seed)
        codes = rng.choice(len(weights), size=n, p=weights)
        return np.stack([rng.multivariate_normal(means[c], covariances[c]) for c in codes])

    def flow(self, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        return self.flow_and_divergence(z, q, condition)

    def flow_and_divergence(self, z: Tensor, q: Tensor, condition: Condition) -> FlowWithDivergence:
        tanh, cosh = torch.tanh(q), torch.cosh(q)
        t = tanh[..., None]
        variance = t**2 * self.values + 1.0 / cosh[..., None] ** 2
        rotated = torch.einsum("...ki,kij->...kj", z[..., None, :] - t * self.means, self.vectors)
        scores = -torch.einsum("...kj,kij->...ki", rotated / variance, self.vectors)
        denoised = self.means + t * torch.einsum("...kj,kij->...ki", self.values * rotated / variance, self.vectors)
        log_normal = -0.5 * (rotated**2 / variance + variance.log()).sum(-1)
        weight = torch.softmax(log_normal + self.log_prior[condition.codes[..., 0]], dim=-1)[..., None]
        mean = (weight * denoised).sum(-2)
        pull = (denoised * (scores - (weight * scores).sum(-2, keepdim=True))).sum(-1)
        trace = (weight.squeeze(-1) * ((t * self.values / variance).sum(-1) + pull)).sum(-1)
        divergence = trace - self.n_features * tanh.squeeze(-1)
        return FlowWithDivergence(mean - tanh * z, (tanh * mean - z) * cosh**2, divergence)

    def loss(self, x1: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
        raise NotImplementedError("there is nothing to train")

    def validation_loss(self, x1: Tensor, condition: Condition, generator: torch.Generator, n_draws=None) -> Tensor:
        raise NotImplementedError("there is nothing to train")


@pytest.fixture
def make_analytic() -> Callable[..., AnalyticNetwork]:
    """Exact network of three Gaussians in three dimensions with full covariances, or of the parts given."""

    def make(
        sigma_min: float = 0.02,
        sigma: float = 0.0,
        covariances: np.ndarray | None = None,
        means: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> AnalyticNetwork:
        rng = np.random.default_rng(3)
        if means is None:
            means = np.array([[0.0, 0.0, 0.0], [1.0, -0.5, 0.3], [-0.4, 0.8, 1.0]])
        if covariances is None:
            factors = rng.normal(size=(3, 3, 3)) * 0.4
            covariances = factors @ factors.swapaxes(1, 2) + 0.3 * np.eye(3)
        weights = np.array([0.5, 0.3, 0.2]) if weights is None else weights
        return AnalyticNetwork(means, covariances, weights, GaussianPath(sigma_min, sigma))

    return make


@pytest.fixture
def analytic(make_analytic: Callable[..., AnalyticNetwork]) -> AnalyticNetwork:
    """Exact network of three Gaussians with the default path."""
    return make_analytic()


@pytest.fixture
def codes() -> Callable[..., Condition]:
    """Condition of categorical codes alone: ``codes(1)`` for all cells, ``codes([0, 1])`` one per cell."""

    def make(values, n_continuous: int = 0) -> Condition:
        rows = torch.as_tensor(np.atleast_1d(values))
        rows = rows if rows.ndim > 1 else rows[:, None]
        return Condition(rows, torch.full((len(rows), n_continuous), torch.nan))

    return make
