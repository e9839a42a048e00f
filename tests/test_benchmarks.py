"""What the benchmarks compare with has to be right itself."""

from __future__ import annotations

import logging
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from benchmark_scripts import BENCHMARKS, load
from scipy.integrate import quad
from scipy.special import digamma, expit, gammaln, logit
from scipy.stats import multivariate_normal
from sklearn.neighbors import NearestNeighbors

import scratio


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


@pytest.mark.parametrize("name", ["far-1", "far-2", "far-4"])
def test_labels_far_apart_follow_their_log_ratio(benchmark, name):
    # Bayes, with classes of unequal size.
    mixtures = benchmark("far_apart").CONFIGURATIONS[name]
    _, is_treated, truth = mixtures.draw(np.random.default_rng(0), 200_000)
    assert is_treated.mean() == pytest.approx(mixtures.share, abs=0.005)
    odds = truth + logit(mixtures.share)
    for low, high in ((-3.0, -1.0), (-0.5, 0.5), (1.0, 3.0)):
        inside = (odds > low) & (odds < high)
        assert is_treated[inside].mean() == pytest.approx(expit(odds[inside]).mean(), abs=0.02)


def test_the_information_of_sharp_edges_is_that_of_the_convolution(benchmark):
    module = benchmark("far_apart")
    w = module.WIDTH

    def density(y: float) -> float:
        # Share of the noise that leaves x between 0 and 1.
        return max(min(y + w / 2.0, 1.0) - max(y - w / 2.0, 0.0), 0.0) / w

    kinks = [w / 2.0, 1.0 - w / 2.0]
    assert quad(density, -w / 2.0, 1.0 + w / 2.0, points=kinks)[0] == pytest.approx(1.0)
    entropy = quad(lambda y: -density(y) * np.log(density(y)), -w / 2.0 + 1e-12, 1.0 + w / 2.0 - 1e-12, points=kinks)[0]
    assert module.information_of_edges(1) == pytest.approx(entropy - np.log(w), abs=1e-6)
    x, truth = module.edges(np.random.default_rng(0), 50_000, 5, np.arange(50_000) % 2 == 0)
    assert truth[0::2].mean() == pytest.approx(module.information_of_edges(5), abs=0.02)
    first = density(x[0, 5])
    assert np.prod([first, *map(density, x[0, 6:])]) * w**5 == pytest.approx(np.exp(-truth[0]))
    # A tenth of those with y of another lie in the band of each dimension, and their density is not that of pairs.
    assert np.isinf(truth[1::2]).mean() > 0.99


@pytest.mark.parametrize("name", ["t1-d2", "t4-d5"])
def test_the_information_of_heavy_tails_is_that_of_their_entropies(benchmark, name):
    module = benchmark("heavy_tails")
    df, half = module.TASKS[name]

    def entropy(d: int) -> float:
        # Of a standard multivariate t.
        both = (df + d) / 2.0
        shape = both * (digamma(both) - digamma(df / 2.0))
        return gammaln(df / 2.0) - gammaln(both) + 0.5 * d * np.log(df * np.pi) + shape

    truth = 2.0 * entropy(half) - entropy(2 * half) - 0.5 * half * np.log(1.0 - 0.8**2)
    found, error = module.information(df, half, 100_000)
    assert found == pytest.approx(truth, abs=4.0 * error)
    assert error < 0.01


def test_cells_are_moved_by_standard_deviations_and_others_stay(benchmark):
    module, x = benchmark("heavy_tails"), np.random.default_rng(0).normal(size=(1_000, 4)) * [1.0, 2.0, 3.0, 4.0]
    found, is_moved = module.moved_out(np.random.default_rng(1), x, 100.0)
    assert is_moved.sum() == 10
    np.testing.assert_array_equal(found[~is_moved], x[~is_moved])
    np.testing.assert_allclose(np.linalg.norm((found - x)[is_moved] / x.std(0), axis=1), 100.0)
    again, same = module.moved_out(np.random.default_rng(1), x, 0.0)
    np.testing.assert_array_equal(again, x)
    np.testing.assert_array_equal(same, is_moved)


def test_log_odds_out_of_fold_are_those_of_the_class_sizes_where_cells_do_not_differ(benchmark):
    module, rng = benchmark("_labels"), np.random.default_rng(0)
    x, is_treated = rng.normal(size=(2_000, 2)), np.arange(2_000) < 400
    found, seconds = module.log_odds("logistic", x, is_treated, 0)
    assert found.mean() == pytest.approx(logit(0.2), abs=0.1)
    loss, _ = module.mean_and_error(module.losses(found, is_treated))
    assert loss == pytest.approx(-0.2 * np.log(0.2) - 0.8 * np.log(0.8), abs=0.01)
    assert seconds.keys() == {"seconds", "cpu_seconds"}


def fake_analysis(adata, *, effort="default", **kwargs):
    """Stands for `tl.differential_abundance` of a later version."""
    adata.obs["da_log_ratio"] = adata.obs["true_log_ratio"]
    adata.uns["da"] = {"effort": effort}
    stages = {"pilot": 1.0, "folds": np.float64(2.0)}
    logging.getLogger("scratio.model").info("seconds by stage", extra={"seconds": stages})


def test_speed_tells_the_stages_and_the_effort_where_the_version_has_them(benchmark, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scratio.tl, "differential_abundance", fake_analysis)
    module = benchmark("speed")
    methods = ["boosting-plain", "scratio", "scratio-quick"]
    monkeypatch.setattr("sys.argv", ["speed.py", "--quick", "--results", str(tmp_path / "new"), "--methods", *methods])
    module.main()
    table = pd.read_csv(tmp_path / "new" / "speed.csv")
    assert table["method"].tolist() == ["boosting-plain", *3 * ["scratio"], *3 * ["scratio-quick"]]
    assert table["stage"].tolist() == ["all", *2 * ["all", "pilot", "folds"]]
    assert table.loc[table["stage"] == "folds", "seconds"].tolist() == [2.0, 2.0]
    own = table[(table["stage"] == "all") & (table["method"] != "boosting-plain")]
    assert (own["mse"] == 0.0).all()
    assert own["times_boosting_plain"].gt(0.0).all()
    assert (tmp_path / "new" / "speed.png").exists()


def test_a_row_that_is_measured_again_replaces_the_first(benchmark, tmp_path, capsys):
    for loss in (1.0, 2.0):
        rows = benchmark("_rows").Rows(tmp_path / "new", "table.csv", ["method", "seed"])
        rows.add(method="a", seed=0, loss=loss)
        rows.add(method="b", seed=int(loss), loss=loss)
    assert pd.read_csv(tmp_path / "new" / "table.csv").values.tolist() == [["b", 1, 1.0], ["a", 0, 2.0], ["b", 2, 2.0]]


def test_data_that_are_absent_are_named_and_left_out(benchmark, monkeypatch, tmp_path, capsys):
    module = benchmark("real_labels")
    monkeypatch.setattr(sys.modules["_rows"], "FOLDER", tmp_path)
    assert list(module.contrasts(["melanoma"], quick=False)) == []
    assert "sadefeldman2018_melanoma_icb.h5ad not found" in capsys.readouterr().out


QUICK = [
    "ablation",
    "batch_correction",
    "combinations",
    "device",
    "differential_abundance",
    "differential_abundance_counts",
    "donors",
    "driver_genes",
    "far_apart",
    "fdrl",
    "few_samples",
    "gaussians",
    "heavy_tails",
    "mutual_information",
    "non_gaussian",
    "outside_abundance",
    "outside_batch",
    "outside_information",
    "outside_samples",
    "outside_seconds",
    "real_labels",
    "replicates",
    "scale",
    "large_cohort",
    "significance",
    "significance_compared",
    "significance_designs",
    "speed",
    "standard_errors",
]


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_benchmark_runs_through_and_writes_nothing(benchmark, name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--quick"])
    benchmark(name).main()
    said = capsys.readouterr().out
    assert len(said.splitlines()) >= 3
    # Where nothing is planted, neither the power of a test nor a slope on the truth is defined; a group of cells has
    # no standard error across batches; real cells are not moved; most designs of batches have no moved type; most
    # methods of distances between samples are not in nats; and only Milo calls cells by single neighbourhoods.
    undefined = ("batch_correction", "differential_abundance", "differential_abundance_counts", "fdrl")
    undefined += ("significance", "significance_compared", "outside_abundance", "outside_batch", "outside_samples")
    assert ("nan" in said.lower()) == (name in undefined)
    assert not list(tmp_path.iterdir())


def test_what_is_switched_off_changes_what_it_is_about_and_nothing_else(benchmark):
    module = benchmark("ablation")
    x, is_treated, truth = (part[:400] for part in module.TASKS["mixtures"](0))
    x[0] = 1e3
    training = module.Training()

    def score(variant: str) -> dict[str, np.ndarray]:
        return module.score((x, is_treated, truth), variant, 0, training, quick=True)

    default = score("default")
    for variant in ("no bent tails", "network alone", "likelihood weights", "one member"):
        assert np.abs(score(variant)["log_ratio"] - default["log_ratio"]).max() > 1e-3, variant
    for variant in ("no moderation", "bias not counted"):
        found = score(variant)
        np.testing.assert_array_equal(found["log_ratio"], default["log_ratio"])
        assert np.abs(found["std"] - default["std"]).max() > 1e-3, variant
    # What was replaced is back.
    np.testing.assert_array_equal(score("default")["log_ratio"], default["log_ratio"])


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


def test_cell_types_that_are_told_by_markers_are_those_of_the_neighbours(benchmark, real_data):
    shares = real_data("kang2018_pbmc_ifnb_pca").obs["cell_type"].value_counts(normalize=True)
    real_data("kang2018_pbmc_ifnb_counts2k")
    module = benchmark("differential_abundance_counts")
    cells = module.real_cells()
    change, x = cells.obs["change"].to_numpy(), cells.obsm["X_pca"]
    # Other cells of the same experiment, with the types that were published.
    monocytes = shares[["CD14+ Monocytes", "FCGR3A+ Monocytes"]].sum()
    assert (change == 1.0).mean() == pytest.approx(monocytes, abs=0.04)
    assert (change == -1.0).mean() == pytest.approx(shares["B cells"], abs=0.03)
    near = NearestNeighbors(n_neighbors=15).fit(x).kneighbors(return_distance=False)
    for kind in (1.0, -1.0, 0.0):
        assert (change[near[change == kind]] == kind).mean() > 0.9


def test_mrvi_gets_samples_of_one_condition_and_nearly_one_size(benchmark, monkeypatch):
    module = benchmark("differential_abundance_counts")
    adata = module.planted(module.made_up_cells(), 0.9, 0)
    given = []
    monkeypatch.setattr(module.peers, "mrvi", lambda *args, **kwargs: given.append((args, kwargs)))
    module.by_mrvi(adata, "mrvi-early", 0, False)
    (counts, samples, is_treated), kwargs = given[0]
    table = pd.crosstab(samples, is_treated).to_numpy()
    assert counts.shape == adata.shape
    assert table.shape == (8, 2)
    assert ((table > 0).sum(axis=1) == 1).all()
    assert np.ptp(table[table[:, 0] > 0, 0]) <= 1
    assert kwargs["early_stopping"]


def test_peak_memory_is_told_in_the_unit_of_the_system(benchmark, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "resource", None)  # as on Windows, where it cannot be imported
        module = benchmark("_processes")
    (tmp_path / "12").write_text("VmPeak:\t 9999999 kB\nVmHWM:\t 3145728 kB\nVmRSS:\t 1048576 kB\n", encoding="utf-8")
    monkeypatch.setattr(module, "STATUS", str(tmp_path / "{}"))
    assert module.peak_gigabytes(12) == 3.0
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda who: type("Usage", (), {"ru_maxrss": 3 * 2**30}))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert module.peak_gigabytes() == 3.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_memory_of_a_process_is_not_that_of_the_one_that_started_it(benchmark):
    large = np.ones(2**26)  # half a GiB
    module = benchmark("_processes")
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from _processes import *; print(peak_gigabytes())"
    row = module.watched([sys.executable, "-c", code], module.Limits(300.0, 20.0))
    assert row["outcome"] == module.FINISHED
    assert max(float(row["said"]), row["peak_gib"]) < 0.1
    assert module.peak_gigabytes() > large.nbytes / 2**30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_process_beyond_its_limits_is_ended_and_its_row_says_why(benchmark):
    module = benchmark("_processes")

    def run(code: str, seconds: float, gibibytes: float) -> dict[str, Any]:
        return module.watched([sys.executable, "-c", code], module.Limits(seconds, gibibytes))

    row = run("import time\nwhile True: time.sleep(1)", 1.0, 20.0)
    assert row["outcome"] == module.TOO_SLOW
    assert row["seconds"] >= 1.0
    # A quarter of a GiB, of which every page is written.
    row = run("import time\nx = b'1' * 2**28\nwhile True: time.sleep(1)", 300.0, 0.2)
    assert row["outcome"] == module.TOO_LARGE
    assert row["peak_gib"] > 0.2
    row = run("print('first')\nraise SystemExit('no such thing')", 300.0, 20.0)
    assert (row["outcome"], row["said"]) == (module.FAILED, "no such thing")
    # As the system does where the memory is used up.
    assert run("import os; os.kill(os.getpid(), 9)", 300.0, 20.0)["outcome"] == module.TOO_LARGE


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


def test_tables_to_read_have_means_over_seeds_and_their_standard_errors(benchmark, tmp_path):
    methods = benchmark("_methods")
    rows = [{"method": "peer", "d": 2, "seed": seed, "bias": bias} for seed, bias in enumerate((1.0, 2.0, 3.0))]
    rows += [{"method": "scratio", "d": 2, "seed": 0, "bias": 0.25}, {"method": "paper", "d": 2, "bias": 4.0}]
    keys = ["method", "d", "seed"]
    # The paper's figures have no seed, and are there once however often they are written.
    for _ in range(2):
        table = methods.merged(tmp_path / "rows.csv", rows, keys)
    assert len(table) == 5
    methods.write_wide(table, tmp_path / "wide.csv", ["d"], "bias", with_errors=True)
    # The standard error of the mean of 1, 2 and 3 is 1 / sqrt(3).
    lines = (tmp_path / "wide.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["d,scratio,paper,peer", "2,0.25,4,2 ± 0.58"]


def test_peers_answer_files_and_a_failure_is_kept_to_its_file(benchmark, tmp_path, monkeypatch, capsys):
    # Of the session of the tests nothing is to change.
    monkeypatch.setattr("os.environ", dict(os.environ))
    exchange, environments = benchmark("_exchange"), benchmark("_environments")
    sizes = {"small": 3, "large": 5}
    files = [environments.put({"x": np.arange(size)}, tmp_path / f"{name}.npz") for name, size in sizes.items()]

    def total(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(arrays["x"]) > 3:
            raise ValueError("too many numbers")
        return {"total": arrays["x"].sum()}

    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS / "outside_peers")])
    monkeypatch.setattr("sys.argv", ["peer.py", *map(str, files), "--out", str(tmp_path / "out")])
    exchange.serve({"sum": total})
    assert str(BENCHMARKS) not in sys.path
    assert str(BENCHMARKS / "outside_peers") not in sys.path
    assert environments.answered(tmp_path / "out", "sum", files[0])["total"] == 3
    assert environments.answered(tmp_path / "out", "sum", files[1])["error"] == "too many numbers"
    assert environments.answered(tmp_path / "out", "other", files[0]) is None
    # What is there is left alone.
    exchange.serve({"sum": lambda arrays: {"total": np.array(0)}})
    assert environments.answered(tmp_path / "out", "sum", files[0])["total"] == 3
