"""Distances between samples beside peers: the divergences that are known, the peers' formulas, and the measures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score

D = 3


@pytest.fixture
def designs(benchmark):
    return benchmark("_sample_designs")


@pytest.fixture
def peers(benchmark):
    return benchmark("_sample_peers")


@pytest.fixture
def measures(benchmark):
    return benchmark("_sample_measures")


def two_populations(designs, move: float, width: float):
    """Gaussians whose means lie so many standard deviations apart, the second one wider."""
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(np.cov(rng.normal(size=(D, 20))))
    mean = np.stack([np.zeros(D), root @ (move * np.eye(D)[1])])[:, None]
    return designs.Populations(np.ones((2, 1)), mean, np.array([[1.0], [width]]), root[None])


@pytest.mark.parametrize(("move", "width"), [(1.5, 1.0), (0.0, 1.3), (1.0, 0.8)])
def test_the_divergence_of_gaussians_is_that_of_the_formula(designs, move, width):
    found = two_populations(designs, move, width).divergences(np.random.default_rng(1), 40_000)
    first = D * np.log(width) + 0.5 * (D + move**2) / width**2 - 0.5 * D
    second = -D * np.log(width) + 0.5 * (D * width**2 + move**2) - 0.5 * D
    np.testing.assert_allclose(found, [[0.0, first], [second, 0.0]], atol=0.04)


def test_densities_of_populations_are_those_of_mixtures(designs):
    which = designs.populations(np.random.default_rng(0), 3, D, shares=1.0, moves=1.0, widths=0.3)
    x = np.random.default_rng(1).normal(size=(20, D))
    expected = np.zeros((20, 3))
    for a in range(3):
        for k, root in enumerate(which.root):
            covariance = which.scale[a, k] ** 2 * root @ root.T
            expected[:, a] += which.share[a, k] * multivariate_normal(which.mean[a, k], covariance).pdf(x)
    np.testing.assert_allclose(which.log_densities(x), np.log(expected))
    # The first population has neither a move nor a width of its own, and moves have the length that is asked for.
    np.testing.assert_allclose(which.scale[0], 1.0)
    move = np.einsum("kde,ke->kd", np.linalg.inv(which.root), which.mean[2] - which.mean[0])
    np.testing.assert_allclose(np.linalg.norm(move, axis=1), 1.0)


def test_bent_cells_can_be_bent_back(designs):
    which = replace(two_populations(designs, 1.0, 1.0), bend=0.3)
    x = np.random.default_rng(0).normal(size=(10, D))
    y = which.bent(x)
    back = y.copy()
    for axis in range(1, D):
        back[:, axis] -= 0.3 * back[:, axis - 1] ** 2
    np.testing.assert_allclose(back, x)
    # The volume stays what it is: densities of all populations change by one factor, 1.
    step = 1e-6
    moved = [(which.bent(x[:1] + step * axis) - y[:1])[0] / step for axis in np.eye(D)]
    assert np.linalg.det(moved) == pytest.approx(1.0, abs=1e-4)


def test_severity_changes_shares_and_states_by_its_strength_and_the_batch_moves_all(designs):
    settings = {"n_dims": D, "batch": 0.7}
    which = designs.severe(np.random.default_rng(0), shares=True, states=True, **settings)
    counts, factors = np.array(list(designs.PBMC.values())).T
    severest, quarter = counts * factors, counts * (0.75 + 0.25 * factors)
    np.testing.assert_allclose(which.share[4], severest / severest.sum())
    np.testing.assert_allclose(which.share[1], quarter / quarter.sum())
    np.testing.assert_allclose(which.share[5:], which.share[:5])
    off = which.mean[5:] - which.mean[:5]
    np.testing.assert_allclose(off, np.broadcast_to(off[0, 0], off.shape), atol=1e-12)
    assert np.linalg.norm(off[0, 0]) == pytest.approx(0.7)
    length = np.linalg.norm(np.linalg.solve(which.root, (which.mean[4] - which.mean[0])[:, :, None])[:, :, 0], axis=1)
    expected = [np.sqrt(designs.N_GENES.get(name, 0)) * np.log(2.0) for name in designs.PBMC]
    np.testing.assert_allclose(length, expected, atol=1e-9)
    alike = designs.severe(np.random.default_rng(0), shares=False, states=False, **settings)
    np.testing.assert_allclose(alike.share[0], counts / counts.sum())
    np.testing.assert_allclose(alike.mean[:5], np.broadcast_to(alike.mean[0], (5, len(counts), D)))


def test_a_cohort_has_unequal_samples_and_the_divergence_of_their_populations(designs):
    which = two_populations(designs, 1.0, 1.0)
    samples = pd.DataFrame({"population": [1, 0, 1], "n_cells": [300, 3_000, 40]})
    found = designs.cohort(np.random.default_rng(0), which, samples)
    np.testing.assert_array_equal(np.bincount(found.sample), [300, 3_000, 40])
    np.testing.assert_allclose(found.truth, [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], atol=0.02)
    # Cells of one distribution have a log ratio of 0; those of others estimate the divergence.
    assert found.exact[0, 2] == 0.0
    assert found.exact[0, 1] == pytest.approx(1.0, abs=0.25)
    assert designs.made("same-10", 0, quick=True).truth.max() == 0.0


def test_the_divergence_by_neighbours_is_that_of_boltz_et_al(peers):
    rng, k = np.random.default_rng(0), 4
    cells = [rng.normal(size=(n, 2)) + shift for n, shift in ((30, 0.0), (50, 0.5), (4, 0.0))]
    found = peers.by_neighbors(cells, k)

    def kl(a: np.ndarray, b: np.ndarray) -> float:
        within, between = np.sort(cdist(a, a), axis=1)[:, k], np.sort(cdist(a, b), axis=1)[:, k - 1]
        return a.shape[1] * np.log(between / within).mean() + np.log(len(b) / (len(a) - 1))

    assert found[0, 1] == pytest.approx(kl(cells[0], cells[1]) + kl(cells[1], cells[0]))
    assert found[1, 0] == pytest.approx(found[0, 1])
    # The last sample has too few cells for k neighbours.
    assert np.isnan(found[2]).all()


def test_spare_runs_fewer_neighbours_and_no_negative_distance(peers):
    rng = np.random.default_rng(0)
    sizes = [30, 200, 90, 26, 25]
    x, sample = rng.normal(size=(sum(sizes), 3)), np.repeat(np.arange(5), sizes)
    x[sample == 2] += 2.0
    found = peers.distances("gloscope-kNN-25", x, sample, np.zeros(len(x), dtype=int), 0)
    raw = peers.by_neighbors([x[sample == own] for own in range(5)], 25)
    # Samples 0, 1 and 3 are of one distribution, whose estimates fall on both sides of 0.
    assert (raw < 0.0).any()
    np.testing.assert_array_equal(found, np.maximum(raw, 0.0))
    assert np.isnan(found[4]).all()
    assert not np.isnan(found[:4, :4]).any()


def test_one_component_is_the_gaussian_of_the_sample(peers):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, D)) @ rng.normal(size=(D, D))
    fitted = peers.AlignedMixture(x, np.zeros(200, dtype=int))
    gaussian = multivariate_normal(x.mean(0), np.cov(x.T, bias=True))
    np.testing.assert_allclose(fitted.log_density(x), gaussian.logpdf(x), atol=0.02)
    # Mean, variances and axes: 3 + 3 + 3 parameters.
    assert fitted.bic == pytest.approx(2.0 * gaussian.logpdf(x).sum() - 9.0 * np.log(200), abs=0.1)


def test_aligned_mixtures_estimate_the_divergence_of_such_mixtures(peers):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(2, 2)))[0]

    def drawn(n: int, share: float) -> np.ndarray:
        kind = rng.random(n) < share
        spread = np.where(kind[:, None], [2.0, 0.3], [0.4, 1.0])
        return (rng.normal(size=(n, 2)) * spread + 8.0 * kind[:, None]) @ axes.T

    cells = [drawn(3_000, 0.2), drawn(1_500, 0.5), drawn(6, 0.5)]
    found = peers.by_mixtures(cells, 0, (2,))
    # The types do not overlap: the divergence is that of the shares. Both have their own variances along shared axes.
    assert found[0, 1] == pytest.approx(0.3 * np.log(0.5 / 0.2) + (0.5 - 0.8) * np.log(0.5 / 0.8), abs=0.06)
    mixture = peers.best_mixture(cells[0], (1, 2, 4))
    assert len(mixture.log_share) == 2
    assert np.abs(mixture.axes.T @ axes).max(0) == pytest.approx([1.0, 1.0], abs=1e-2)
    assert peers.best_mixture(np.repeat(cells[2][:2], 3, axis=0), (2, 3)) is None


def test_peers_without_nats_are_those_of_their_formulas(peers):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 2)), rng.normal(size=(7, 2)) + 1.0
    pairs = [(x, y), (x, x), (y, y)]
    mean = [cdist(a, b).sum() / (len(a) * (len(b) - (a is b))) for a, b in pairs]
    np.testing.assert_allclose(peers.energy([x, y])[0, 1], 2.0 * mean[0] - mean[1] - mean[2])
    every = np.concatenate([x, y])
    width = np.median(cdist(every, every)[np.triu_indices(12, 1)])
    kernel = [np.exp(-0.5 * (cdist(a, b) / width) ** 2) for a, b in pairs]
    within = [(own.sum() - len(own)) / (len(own) * (len(own) - 1)) for own in kernel[1:]]
    np.testing.assert_allclose(peers.discrepancy([x, y], 0)[1, 0], sum(within) - 2.0 * kernel[0].mean())
    counts = np.array([[3.5, 0.5], [1.5, 1.5]])
    expected = np.abs(np.diff(np.log(counts[:, 0] / counts[:, 1])))[0] / np.sqrt(2.0)
    np.testing.assert_allclose(peers.aitchison([np.array([0, 0, 0]), np.array([0, 1])])[0, 1], expected)


def test_errors_and_coverage_by_class_of_pairs(measures):
    pairs = np.triu_indices(4, 1)
    truth, distance, error = np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 4))
    truth[pairs], distance[pairs] = [0.0, 0.0, 0.5, 4.0, 20.0, np.nan], [0.1, 0.3, 0.4, 5.0, 10.0, 3.0]
    error[pairs] = [0.1, 0.1, 0.1, 0.1, 10.0, 1.0]
    found = measures.against_truth(distance, error, truth, np.array([100, 900, 900, 900]), in_nats=True)
    assert found["bias_same"] == pytest.approx(0.2)
    assert found["bias_near"] == pytest.approx(-0.1)
    assert found["bias_middle"] == pytest.approx(1.0)
    assert found["bias_far"] == pytest.approx(-10.0)
    assert found["rmse"] == pytest.approx(np.sqrt((0.01 + 0.09 + 0.01 + 1.0 + 100.0) / 5.0))
    assert found["coverage"] == pytest.approx(0.6)
    assert [found[f"coverage_{name}"] for name in ("same", "near", "middle", "far")] == [0.5, 1.0, 0.0, 1.0]
    assert found["bias_same_small"] == pytest.approx(0.2)
    ranks = measures.against_truth(distance, error, truth, np.array([100, 900, 900, 900]), in_nats=False)
    assert set(ranks) == {"spearman", "size_correlation"}


def test_samples_of_one_label_are_nearer_by_the_area_under_the_curve(measures):
    rng, label = np.random.default_rng(0), np.array(["a", "a", "b", "b", "b", "c"])
    distance = rng.integers(0, 4, size=(6, 6)).astype(float)
    distance += distance.T
    pairs = np.triu_indices(6, 1)
    same = (label[:, None] == label)[pairs]
    assert measures.same_nearer(distance, label) == pytest.approx(roc_auc_score(same, -distance[pairs]))
    without = np.array([pair != (0, 1) for pair in zip(*pairs, strict=True)])
    expected = roc_auc_score(same[without], -distance[pairs][without])
    assert measures.same_nearer(distance, label, [(1, 0)]) == pytest.approx(expected)


def test_neighbours_predict_what_the_distances_know_and_no_sample_is_its_own(measures):
    place = np.concatenate([np.arange(5.0), 100.0 + np.arange(5.0)])
    distance = np.abs(place[:, None] - place)
    distance[:, 3] = distance[3] = np.nan
    group = np.repeat(["a", "b"], 5)
    assert measures.predicted(distance, group, is_class=True) == 1.0
    # Neighbours of alternating labels predict the other one; a sample that sees itself would be right.
    line = np.abs(np.arange(10.0)[:, None] - np.arange(10.0))
    assert measures.predicted(line, np.tile(["a", "b"], 5), is_class=True) == 0.0
    assert measures.predicted(line, np.arange(10.0), is_class=False) > 0.9


def test_twins_and_pseudotime_of_samples_on_a_line(measures):
    place = np.array([0.0, 1.0, 10.0, 14.0, 11.0, 30.0])
    distance = np.abs(place[:, None] - place)
    twin = np.arange(6) ^ 1
    # The twins of the third and fourth are second of five; that of the fifth is the last; that of the sixth the third.
    expected = np.mean([1.0, 1.0, 1 - 1 / 4, 1 - 1 / 4, 0.0, 1 - 1 / 4])
    assert measures.twin_rank(distance, twin) == pytest.approx(expected)
    steps = np.random.default_rng(0).permutation(40)
    time = measures.pseudotime(np.abs(steps[:, None] - steps).astype(float), int(np.argmin(steps)))
    assert measures.rank_correlation(time, steps.astype(float)) > 0.99


def test_real_samples_are_cut_into_parts_that_share_no_cell(benchmark, monkeypatch, tmp_path):
    module = benchmark("outside_samples")
    sizes = {"one": 300, "two": 160, "few": 100}
    names = np.random.default_rng(0).permutation(np.repeat(list(sizes), list(sizes.values())))
    x = np.arange(len(names), dtype=float)[:, None] + np.zeros(12)
    index = [f"c{i}" for i in range(len(names))]
    obs = pd.DataFrame({"sample_id": names, "celltype": names}, index=index)
    AnnData(obs=obs, obsm={"X_pca": x}).write_h5ad(tmp_path / module.GLIOBLASTOMA)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    found = module.real("glioblastoma-parts", 0)
    assert found.samples["name"].tolist() == ["one/1", "one/2", "two/1", "two/2"]
    assert found.samples["n_cells"].tolist() == [100, 200, 53, 107]
    np.testing.assert_array_equal(found.samples["twin"], [1, 0, 3, 2])
    for part, name in enumerate(["one", "one", "two", "two"]):
        assert (names[found.x[found.sample == part, 0].astype(int)] == name).all()
    assert len(np.unique(found.x[:, 0])) == 460
    assert found.x.shape[1] == module.N_DIMS
    np.testing.assert_array_equal(np.argwhere(found.truth == 0.0), [[0, 1], [1, 0], [2, 3], [3, 2]])


def test_the_summary_names_the_best_peer_and_by_how_much_it_is_ahead(benchmark):
    rows = [
        ("task", "scratio", 0, 1.0, 0.5, 0.8),
        ("task", "scratio", 1, 3.0, -0.5, 0.8),
        ("task", "scratio", 2, 9.0, 9.0, 0.8),
        ("task", "exact", 0, 0.1, 0.0, np.nan),
        ("task", "exact", 1, 0.1, 0.0, np.nan),
        ("task", "GMM", 0, 1.0, 0.2, np.nan),
        ("task", "GMM", 1, 1.0, 0.2, np.nan),
    ]
    table = pd.DataFrame(rows, columns=["task", "method", "seed", "rmse", "bias", "coverage"])
    found = benchmark("_sample_summary").summary(table, ["scratio", "exact", "GMM"], ["scratio"]).set_index("measure")
    assert found.index.tolist() == ["rmse", "bias", "coverage"]
    assert found["best_peer"].tolist() == ["GMM", "GMM", ""]
    assert found["n_seeds"].tolist() == [2, 2, 3]
    # Biases of .5 and -.5 do not cancel.
    np.testing.assert_allclose(found["ahead"], [1.0, 0.3, np.nan])
    np.testing.assert_allclose(found["scratio"], [2.0, 0.0, 0.8])
