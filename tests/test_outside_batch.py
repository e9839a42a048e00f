"""Batch effects with a known answer: designs, exact log ratios, criteria and what a nat means have to be right."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch) -> Callable[[str], ModuleType]:
    """Import a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    return importlib.import_module


# --- batch effects: cells whose exact log ratio is known


@pytest.fixture
def designs(module) -> ModuleType:
    return module("_batch_designs")


def densities(designs, shape, offsets, scales, n_types: int, x: np.ndarray) -> np.ndarray:
    """Densities of every type and batch, by scipy."""
    found = np.empty((len(x), n_types, offsets.shape[1]))
    for kind in range(n_types):
        spread = shape.axes[kind] * shape.widths[kind]
        for batch in range(offsets.shape[1]):
            mean = shape.centres[kind] + spread @ offsets[kind, batch]
            covariance = scales[kind, batch] ** 2 * spread @ spread.T
            found[:, kind, batch] = multivariate_normal(mean, covariance).pdf(x)
    return found


@pytest.mark.parametrize("kind", ["shift", "scale"])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_exact_log_ratio_of_a_batch_is_that_of_its_densities(designs, kind, labelled):
    design = designs.Design(1.5, kind, own_share=0.1, uneven=True, labelled=labelled)
    shape, rng = designs.Geometry(3), np.random.default_rng(0)
    offsets, scales = design._effects(shape)
    label, batch = np.array([0, 0, 1, 2, 3, 4, 5]), np.array([0, 1, 2, 0, 1, 2, 0])
    x = shape.place(offsets[label, batch] + scales[label, batch, None] * rng.normal(size=(7, 10)), label)
    counts = np.array([[40, 3, 9], [5, 20, 11], [7, 2, 30], [6, 6, 1], [4, 8, 3], [25, 0, 0]])
    found = designs.log_ratio(shape.log_density(x, offsets, scales, 6), counts, label if labelled else None, batch)
    density, rows = densities(designs, shape, offsets, scales, 6, x), np.arange(7)
    if labelled:
        own = density[rows, label]
        every = (own * counts[label]).sum(1) / counts[label].sum(1)
    else:
        own = (density * counts).sum(1) / counts.sum(0)
        every = (density * counts).sum((1, 2)) / counts.sum()
    np.testing.assert_allclose(found, np.log(own[rows, batch] / every), rtol=1e-6, atol=1e-8)


def test_bending_the_cells_leaves_their_volume_and_with_it_every_ratio(designs):
    shape, x, step = designs.Geometry(0), np.random.default_rng(1).normal(size=10), 1e-6
    jacobian = [(shape.bend((x + step * e)[None]) - shape.bend((x - step * e)[None]))[0] for e in np.eye(10)]
    assert abs(np.linalg.det(np.array(jacobian) / (2.0 * step))) == pytest.approx(1.0, abs=1e-6)


def test_only_the_moved_type_has_a_batch_effect(designs):
    cells = designs.DESIGNS["local-5"].draw(0, "local-5", 3_000)
    assert np.mean(cells.label == 0) == pytest.approx(0.05, abs=0.015)
    np.testing.assert_allclose(cells.truth[cells.label != 0], 0.0, atol=1e-10)
    assert cells.truth[cells.label == 0].mean() > 0.05


def test_a_type_of_one_batch_has_no_batch_effect_unless_types_are_unknown(designs):
    known, unknown = (designs.DESIGNS[name].draw(0, "same", 3_000) for name in ("own-type-1", "own-type-unlabelled"))
    own = known.label == 5
    assert np.mean(own) == pytest.approx(0.15, abs=0.03)
    assert set(known.batch[own]) == {0}
    np.testing.assert_allclose(known.truth[own], 0.0, atol=1e-10)
    assert not unknown.label.any()
    # Nothing but the type tells batches apart: each batch has the density of the others and a share of this type.
    share = (0.15 + 0.85 * 0.5, 0.85 * 0.3, 0.85 * 0.2)
    of_type, others = 0.15 / share[0], (1.0 - 0.15 / share[0]) / 0.85
    expected = 0.15 * np.log(of_type / 0.15) + 0.85 * 0.5 * np.log(others) + (share[1] + share[2]) * np.log(1.0 / 0.85)
    assert unknown.truth.mean() == pytest.approx(expected, abs=0.01)


def test_permuting_keeps_the_batches_of_every_label(designs):
    rng = np.random.default_rng(0)
    label, batch = rng.choice(3, size=6_000, p=[0.7, 0.2, 0.1]), rng.choice(2, size=6_000, p=[0.75, 0.25])
    found = designs.permuted(rng, batch, label, 0.5)
    np.testing.assert_array_equal(np.bincount(2 * label + found), np.bincount(2 * label + batch))
    # Of the half that is permuted, a share of 2 * .75 * .25 gets the other batch.
    assert np.mean(found != batch) == pytest.approx(0.5 * 2 * 0.75 * 0.25, abs=0.02)
    np.testing.assert_array_equal(designs.permuted(rng, batch, label, 0.0), batch)


def test_the_ceiling_is_the_entropy_of_the_batch_within_labels(designs):
    label = np.repeat([0, 1, 2], [40, 60, 20])
    batch = np.concatenate([np.repeat([0, 1], 20), np.repeat([0, 1, 2], 20), np.zeros(20, dtype=int)])
    assert designs.entropy(batch, label) == pytest.approx((40 * np.log(2.0) + 60 * np.log(3.0)) / 120)


# --- batch effects: what a nat means


@pytest.fixture
def scale(module) -> ModuleType:
    return module("_batch_scale")


@pytest.mark.parametrize("distance", [0.3, 1.0, 2.5])
def test_the_information_of_a_shift_is_the_expected_log_ratio(scale, distance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    x = nodes + distance / 2.0
    ratio = norm.pdf(x, distance / 2.0) / (0.5 * norm.pdf(x, distance / 2.0) + 0.5 * norm.pdf(x, -distance / 2.0))
    expected = (weights * np.log(ratio)).sum() / weights.sum()
    assert scale.information_of_shift(distance) == pytest.approx(expected, rel=1e-5)


def test_simulated_batches_have_the_nats_and_the_right_guesses_of_the_closed_form(scale, designs, module):
    design = designs.Design(0.8, batches=(0.5, 0.5), types=(1.0,))
    cells, directions = design.draw(1, "closed form", 40_000), designs.Geometry(1).directions[0]
    distance = 0.8 * np.linalg.norm(directions[0] - directions[1])
    error = cells.truth.std() / np.sqrt(40_000)
    assert cells.truth.mean() == pytest.approx(scale.information_of_shift(distance), abs=4 * error)
    assert module("outside_batch").share_guessed(cells, cells.truth) == pytest.approx(norm.cdf(distance / 2), abs=0.01)


def test_no_cells_of_two_batches_break_the_bounds_of_the_mapping(scale):
    rng = np.random.default_rng(0)
    for concentration in (0.05, 0.5, 5.0):
        for n_places in (2, 7, 30):
            batches = rng.dirichlet(np.full(n_places, concentration), size=2) + 1e-12
            batches /= batches.sum(1, keepdims=True)
            information = (0.5 * batches * np.log(batches / batches.mean(0))).sum()
            guessed = 0.5 * batches.max(0).sum()
            assert scale.least_information(guessed) <= information + 1e-9
            assert scale.least_guessed(information) <= guessed + 1e-9
            assert guessed <= scale.most_guessed(information) + 1e-9


def test_the_bounds_are_met_where_all_cells_are_alike_and_where_some_are_certain(scale):
    # Two places, .8 of one batch in one and .8 of the other in the other: every cell is as clear as any other.
    assert scale.least_information(0.8) == pytest.approx(0.8 * np.log(1.6) + 0.2 * np.log(0.4))
    assert scale.most_guessed(scale.least_information(0.8)) == pytest.approx(0.8)
    # .6 of each batch in a place of its own, the rest together: .8 are guessed right.
    assert scale.least_guessed(0.6 * np.log(2.0)) == pytest.approx(0.8)
    assert scale.least_guessed(-0.01) == 0.5
    assert scale.most_guessed(0.0) == 0.5
    assert scale.most_guessed(np.log(2.0)) == 1.0


def test_as_many_batches_are_left_as_a_cell_may_be_of(scale):
    shares = np.array([0.5, 0.3, 0.2])
    entropy = -(shares * np.log(shares)).sum()
    assert scale.batches_left(entropy, entropy) == pytest.approx(1.0)
    assert scale.batches_left(0.0, np.log(24.0)) == pytest.approx(24.0)
    # 24 batches in 8 groups of three that are mixed: of three batches each cell may be.
    assert scale.batches_left(np.log(8.0), np.log(24.0)) == pytest.approx(3.0)


def test_the_table_of_nats_holds_the_closed_form(scale):
    table = scale.scale()
    assert (table["guessed_at_least"] < table["guessed_if_shifted"]).all()
    assert (table["guessed_if_shifted"] < table["guessed_at_most"]).all()
    np.testing.assert_allclose([scale.information_of_shift(distance) for distance in table["shift"]], table["nats"])
    row = table.set_index("nats").loc[0.13]
    assert row["guessed_at_most"] == pytest.approx(0.75, abs=0.001)  # log 2 less the entropy of .75 is .131
    assert row["guessed_at_least"] == pytest.approx(0.594, abs=0.001)
    # Where batches hardly differ, the information of a shift is an eighth of its square.
    assert table["shift"].iloc[0] == pytest.approx(np.sqrt(8 * 0.005), rel=0.01)


# --- batch effects: rules


@pytest.fixture
def rules(module) -> ModuleType:
    return module("_batch_verdicts")


def values_of(table: dict[str, list[float]], **columns: dict[str, list[float]]):
    """Values over seeds by design; other columns by name."""
    return lambda task, column: np.array(columns.get(column, table)[task])


def test_a_score_is_monotone_if_its_mean_rises_at_every_step(rules):
    judge = rules.monotone(["a", "b", "c"])
    risen = judge(values_of({"a": [0.0, 0.1], "b": [0.2, 0.05], "c": [0.3, 0.4]}), "score")
    assert risen.passes is True
    assert risen.value == pytest.approx((1.0 + 0.5) / 2.0)
    assert risen.error == pytest.approx(0.25)
    assert judge(values_of({"a": [0.0], "b": [0.3], "c": [0.2]}), "score").passes is False
    assert judge(values_of({"a": [0.0, 0.1], "b": [0.3], "c": [0.2, 0.3]}), "score").passes is None


def test_rounding_errors_in_order_are_no_rise(rules):
    values = values_of({"a": [-3e-7, -2e-7], "b": [1e-8, 2e-8], "c": [4e-6, 5e-6]})
    assert rules.monotone(["a", "b", "c"])(values, "score") == (0.0, 0.0, False)
    assert rules.sensitive(["a", "b"])(values, "score")[::2] == (pytest.approx(0.0, abs=1e-3), False)
    assert rules.larger("c", "a")(values, "score").passes is False
    clear = values_of({"a": [0.0, 0.004], "b": [0.02, 0.024]})
    # Both means have a standard error of .002.
    assert rules.sensitive(["a", "b"])(clear, "score")[::2] == (pytest.approx(0.02 / np.hypot(0.002, 0.002)), True)


def test_a_score_that_moves_by_more_than_a_tenth_does_not_pass(rules):
    judge = rules.unmoved("a", ["b", "c"])
    found = judge(values_of({"a": [1.0, 2.0], "b": [1.05, 2.1], "c": [0.8, 1.4]}), "score")
    assert found.value == pytest.approx(-0.25)
    assert found.passes is False
    assert judge(values_of({"a": [1.0, 2.0], "b": [1.05, 2.1], "c": [1.0, 1.9]}), "score").passes is True


def test_mixed_cells_are_judged_by_the_share_of_the_most_possible(rules):
    table = {"a": [0.01, 0.03], "b": [-0.06, -0.08]}
    assert rules.mixed(["a"])(values_of({"a": [9.0, 9.0]}, badness=table), "score") == (
        pytest.approx(0.02), pytest.approx(0.01), True,
    )  # fmt: skip
    assert rules.mixed(["a", "b"])(values_of(table), "badness") == (pytest.approx(-0.07), pytest.approx(0.01), False)


def test_an_error_in_nats_is_allowed_a_tenth_of_the_truth_or_a_fiftieth(rules):
    truth = {"none": [0.0], "weak": [0.1], "strong": [1.0]}

    def judge(error: dict[str, list[float]]):
        return rules.known(list(truth))(values_of({}, truth=truth, error=error), "score")

    assert judge({"none": [0.01], "weak": [-0.019], "strong": [0.09]}) == (
        pytest.approx(-0.019),
        pytest.approx(np.nan, nan_ok=True),
        True,
    )
    assert judge({"none": [0.01], "weak": [-0.019], "strong": [0.11]})[::2] == (pytest.approx(0.11), False)


def test_a_difference_has_to_exceed_two_standard_errors(rules):
    judge = rules.larger("a", "b")
    assert judge(values_of({"a": [1.0, 1.2, 1.4], "b": [0.9, 0.9, 0.9]}), "score").passes is True
    assert judge(values_of({"a": [0.5, 1.2, 1.4], "b": [0.9, 0.9, 0.9]}), "score").passes is False


def test_the_verdicts_are_those_of_each_method_alone(rules):
    rows = [
        {"task": "local-5", "method": method, "seed": seed, "rank": rank, "auc": 0.8, "truth": np.nan, "ceiling": 1.0}
        for method, ranks in {"scratio": (1, 2, 1), "bras": (1, 1, 1)}.items()
        for seed, rank in enumerate(ranks)
    ]
    found = rules.verdicts(pd.DataFrame(rows)).set_index(["criterion", "score"])
    criterion = "names the one moved type, 5% of the cells"
    assert found.loc[(criterion, "BRAS"), "passes"]
    assert not found.loc[(criterion, "scratio, nats"), "passes"]
    assert found.loc[(criterion, "scratio, nats"), "value"] == pytest.approx(4 / 3)
    wide = rules.readable(found.reset_index()).set_index("criterion")
    assert wide.loc[criterion, "BRAS"] == "1 ± 0 yes"
    assert wide.loc[criterion, "scratio, share"] == "1.33 ± 0.33 no"


def test_ranks_share_ties_and_areas_leave_out_cells_without_a_value(module):
    outside = module("outside_batch")
    assert outside.rank_of(np.array([0.3, 0.5, 0.1, np.nan])) == 2.0
    assert outside.rank_of(np.array([0.0, 0.0, 0.0])) == 2.0
    assert np.isnan(outside.rank_of(np.array([np.nan, 0.2])))
    cells = SimpleNamespace(label=np.array([0, 0, 1, 1, 2]))
    assert outside.auc_of(cells, np.array([0.9, 0.4, 0.5, np.nan, 0.1])) == pytest.approx(0.75)
    assert np.isnan(outside.auc_of(cells, np.empty(0)))


def test_a_peer_that_fails_has_a_row_that_says_why(module):
    answer = {
        "error": np.array("kBET requires at least two batches"),
        "seconds": np.array(2.0),
        "cpu_seconds": np.array(1.0),
    }
    found = module("outside_batch").read(SimpleNamespace(label=np.zeros(3)), answer, is_local=True)
    assert found == {"seconds": 2.0, "cpu_seconds": 1.0, "failed": "kBET requires at least two batches"}
