"""What the benchmarks compare with has to be right itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # As importing it would do; dataclasses look their module up.
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def research(monkeypatch) -> ModuleType:
    return load("_research", monkeypatch)


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


def test_the_divergence_of_two_gaussians_has_no_bias(benchmark):
    rng, found, module = np.random.default_rng(0), [], benchmark("donors")
    for _ in range(400):
        x = rng.normal(size=(100, 10))
        x[:50, 0] += 1.0
        found.append(module.gaussian_divergence(x, np.arange(100) < 50))
    # 1 / 2, within three standard errors of the mean.
    assert abs(np.mean(found) - 0.5) < 3.0 * np.std(found) / 20.0


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Loader of benchmarks that write to an empty folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def get(name: str) -> ModuleType:
        module = load(name, monkeypatch)
        monkeypatch.setattr(module, "RESULTS", tmp_path, raising=False)
        return module

    return get


@pytest.mark.parametrize("distance", [1, 4])
def test_the_ratio_of_gaussians_is_that_of_their_densities(benchmark, distance):
    x, _, truth = benchmark("gaussians").draw(np.random.default_rng(0), 50, 3, distance)
    num, den = (multivariate_normal(np.full(3, mean)).logpdf(x) for mean in (distance, 0.0))
    np.testing.assert_allclose(truth, num - den)


def test_the_ratio_of_correlated_gaussians_is_that_of_their_densities(benchmark):
    module, is_treated = benchmark("mutual_information"), np.arange(100_000) % 2 == 0
    x, truth = module.draw(np.random.default_rng(0), 100_000, 4, is_treated)
    covariance = np.kron(np.eye(2), [[1.0, 0.8], [0.8, 1.0]])
    num, den = multivariate_normal(cov=covariance).logpdf(x), multivariate_normal(cov=np.eye(4)).logpdf(x)
    np.testing.assert_allclose(truth, num - den)
    for cells, expected in ((is_treated, covariance), (~is_treated, np.eye(4))):
        np.testing.assert_allclose(np.cov(x[cells], rowvar=False), expected, atol=0.03)
    assert truth[is_treated].mean() == pytest.approx(-np.log(1.0 - 0.8**2), abs=0.02)


@pytest.mark.parametrize("name", ["mixtures", "bent"])
def test_labels_of_the_mixtures_follow_their_log_ratio(benchmark, name):
    # Bayes: among cells of the same log ratio r the odds of the label are exp(r), the classes being of equal size.
    _, is_treated, truth = getattr(benchmark("_simulate"), name)(np.random.default_rng(0), 200_000)
    for low, high in ((-3.0, -1.0), (-0.5, 0.5), (1.0, 3.0)):
        inside = (truth > low) & (truth < high)
        expected = 1.0 / (1.0 + np.exp(-truth[inside]))
        assert is_treated[inside].mean() == pytest.approx(expected.mean(), abs=0.01)


@pytest.mark.parametrize("sizes", ["equal", "1:10", "lognormal"])
def test_the_planted_effect_of_a_cohort_is_its_log_ratio_whatever_the_sizes(benchmark, sizes):
    module = benchmark("_cohorts")
    population = module.Population(np.random.default_rng(0).normal(size=(4_000, 3)), np.zeros(4_000, dtype=int))
    for cells in (None, population):
        found = [module.cohort(seed, "4v12", sizes, 0.0, 1.0, cells) for seed in range(40)]
        obs = pd.concat([one.obs.assign(planted=one.planted) for one in found])
        # Each sample counts alike, as in the test; large ones would otherwise stand for their group.
        share = obs.groupby("group")["planted"].mean()
        assert np.log(share["treated"] / share["control"]) == pytest.approx(1.0, abs=0.12)
        assert share.mean() == pytest.approx(0.1, abs=0.015)


def test_a_cohort_has_the_sizes_that_it_is_named_for(benchmark):
    module = benchmark("_cohorts")
    sizes = {
        name: module.cohort(0, "3v3", name, 0.2, 0.0).obs.groupby(["donor", "group"]).size() for name in module.SIZES
    }
    assert set(sizes["equal"]) == {200}
    assert sorted(sizes["1:10"].unique()) == [30, 300]
    assert sizes["one of 4 cells"]["d00", "treated"] == 4
    assert sizes["stray labels"]["d00", "control"] == 3
    assert len(sizes["stray labels"]) == 9
    paired = module.cohort(0, "6 pairs", "1:5", 0.2, 0.0).obs.groupby(["donor", "group"]).size()
    assert set(paired.xs("treated", level=1)) == {60}
    assert len(paired) == 12


def test_the_first_versions_cohorts_have_their_log_ratio_too(benchmark):
    module = benchmark("significance")
    cells = pd.concat([module.types_cohort(seed, 1.0, 0.1, spread=0.0).obs for seed in range(40)])
    share = (cells["kind"] == 0).groupby(cells["group"]).mean()
    assert np.log(share["treated"] / share["control"]) == pytest.approx(1.0, abs=0.05)


QUICK = [
    "batch_correction",
    "combinations",
    "differential_abundance",
    "donors",
    "driver_genes",
    "fdrl",
    "gaussians",
    "mutual_information",
    "non_gaussian",
    "replicates",
    "scale",
    "significance",
    "significance_compared",
    "significance_designs",
    "standard_errors",
]


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_benchmark_runs_through_and_writes_nothing(benchmark, name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--quick"])
    benchmark(name).main()
    said = capsys.readouterr().out
    assert len(said.splitlines()) >= 3
    # Where nothing is planted, neither the power of a test nor a slope on the truth is defined; a group of cells has
    # no standard error across batches; and real cells are not moved.
    undefined = ("batch_correction", "differential_abundance", "fdrl", "significance", "significance_compared")
    assert ("nan" in said.lower()) == (name in undefined)
    assert not list(tmp_path.iterdir())


def test_planted_labels_follow_their_log_ratio_and_the_truth_measures_best(benchmark):
    module = benchmark("differential_abundance")
    change = np.repeat([1.0, -1.0, 0.0], [8_000, 4_000, 28_000])
    cells = module.ad.AnnData(obs=pd.DataFrame({"change": change}, index=np.arange(40_000).astype(str)))
    adata = module.planted(cells, 0.8, seed=0)
    is_treated, truth = (adata.obs["treatment"] == "treated").to_numpy(), adata.obs["log_ratio"].to_numpy()
    for kind in (1.0, -1.0, 0.0):
        # Share of the kind among the treated over that among the others.
        share = np.log((change == kind)[is_treated].mean() / (change == kind)[~is_treated].mean())
        assert share == pytest.approx(truth[change == kind][0], abs=0.06)
    found = module.measures(truth, adata)
    expected = {"pr_auc": 1.0, "csp": 1.0, "rmse": 0.0, "slope": 1.0, "false_positives": 0.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    nothing = module.measures(np.zeros(40_000), module.planted(cells, 0.5, seed=0))
    assert nothing["pr_auc"] == pytest.approx(0.3)
    assert (nothing["nar"], nothing["csp"], nothing["false_positives"]) == (1.0, 0.5, 0.0)


def test_what_is_measured_again_replaces_what_was_there(benchmark, tmp_path):
    merged, path, keys = benchmark("_methods").merged, tmp_path / "sub" / "table.csv", ["method", "d", "distance"]
    paper = {"method": "paper", "d": 2, "error": 9.0}
    first, again, other = (
        {"method": "a", "d": d, "distance": 1, "error": error} for d, error in ((2, 1.0), (2, 2.0), (5, 3.0))
    )
    merged(path, [paper, first], keys)
    table = merged(path, [paper, again, other], keys)
    assert table["error"].tolist() == [9.0, 2.0, 3.0]
    pd.testing.assert_frame_equal(pd.read_csv(path), table, check_dtype=False)
