"""Planted differential abundance on the protocol of others: labels, batches and measures have to be right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit


@pytest.fixture
def designs(benchmark):
    return benchmark("_abundance_designs")


def populations(n: int = 4_000) -> tuple[np.ndarray, np.ndarray]:
    """Three populations of unequal sizes around centres of their own, two of them near each other."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [40.0, 0.0]])
    return centres[kind] + rng.normal(size=(n, 2)), np.array(["a", "b", "c"])[kind]


def test_cells_near_the_target_are_the_most_probable_ones(designs):
    x, kind = populations()
    p = designs.probabilities(x, kind, "c", 0.95, is_discrete=False)
    assert p.mean() == pytest.approx(0.5)
    # One factor of all: the range of the protocol, from one half to the enrichment, is kept as a ratio.
    assert p.max() / p.min() == pytest.approx(0.95 / 0.5)
    assert p[kind == "c"].min() > p[kind == "b"].max()
    assert p[kind == "b"].mean() > p[kind == "a"].mean()
    # The membership by hand, for one cell.
    centres = np.stack([x[kind == name].mean(0) for name in "abc"])

    def membership(cell: np.ndarray) -> float:
        distance = np.linalg.norm(cell - centres, axis=1)
        return 1.0 / (distance[2] / distance).sum() ** 2

    weights = np.array([membership(cell) for cell in x])
    assert np.corrcoef(np.argsort(np.argsort(weights)), np.argsort(np.argsort(p)))[0, 1] == pytest.approx(1.0)


def test_populations_apart_have_one_probability_each(designs):
    x, kind = populations()
    p = designs.probabilities(x, kind, "b", 0.85, is_discrete=True)
    assert p.mean() == pytest.approx(0.5)
    assert len(np.unique(np.round(p, 12))) == 2
    assert p[kind == "b"].mean() / p[kind == "a"].mean() == pytest.approx(0.85 / 0.5)


def test_labels_follow_the_exact_log_ratio_and_batches_move_their_samples(designs):
    x, kind = populations(40_000)
    found = designs.design(x, kind, 1, 0.95, 0.5, is_discrete=False)
    still = designs.design(x, kind, 1, 0.95, 0.0, is_discrete=False)
    is_treated = found.group[found.sample] == 1
    # Bayes: among cells of one log ratio r, the odds of the label are exp(r) times those of all cells.
    for low, high in ((-0.3, 0.0), (0.1, 0.4), (0.4, 2.0)):
        inside = (found.log_ratio > low) & (found.log_ratio < high)
        if inside.sum() > 500:
            odds = logit(is_treated[inside].mean()) - logit(is_treated.mean())
            assert odds == pytest.approx(found.log_ratio[inside].mean(), abs=0.1)
    np.testing.assert_array_equal(found.sample, still.sample)
    np.testing.assert_allclose(still.x, x, rtol=1e-6)
    moves = found.x - still.x
    for batch in (0, 1):
        own = found.batch[found.sample] == batch
        np.testing.assert_allclose(moves[own], np.broadcast_to(moves[own][0], moves[own].shape), atol=1e-4)
        assert set(found.group[found.batch == batch]) == {0, 1}
    assert np.ptp(np.bincount(found.sample)[found.group == 0]) <= 0.1 * len(x)


def test_seeds_take_populations_that_are_large_enough_in_turn(designs):
    kind = np.repeat(["a", "b", "c", "d"], [50, 30, 17, 3])
    taken = [designs.target_of(kind, seed) for seed in range(6)]
    assert set(taken[:3]) == {"a", "b", "c"}
    assert taken[3:] == taken[:3]


def test_classes_are_as_many_as_the_target_has_and_as_far_below(designs):
    p = np.linspace(0.3, 0.7, 1_001)
    truth = designs.true_classes(p, share=0.2)
    assert (truth == 1).sum() == pytest.approx(200, abs=1)
    # Upper limit .62, so that the lower one is 1 - .2 - .62 = .18: none is so low.
    assert (truth == -1).sum() == 0
    assert (designs.true_classes(p - 0.2, share=0.2) == -1).sum() == pytest.approx((p - 0.2 <= 0.38).sum(), abs=2)


def test_measures_count_calls_with_their_sign(benchmark, designs):
    module = benchmark("outside_abundance")
    truth = np.array([1, 1, 1, -1, -1, 0, 0, 0, 0, 0])
    probability = np.array([0.8, 0.8, 0.8, 0.2, 0.2, 0.52, 0.52, 0.48, 0.48, 0.5])
    found = designs.Design(np.zeros((10, 1)), np.arange(10), np.ones(10), np.ones(10), probability, truth)
    answer = {
        "log_ratio": np.array([3.0, 2.0, -1.0, -2.0, 0.5, 0.4, -0.3, 0.2, 0.1, 0.0]),
        "found": np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 0], dtype=bool),
        "seconds": 1.0,
        "cpu_seconds": 2.0,
    }
    row = module.measured(answer, found)
    # Right: cells 0, 1 and 3 of five that changed. Wrong: cell 2 (its sign), 5 and 6 (unchanged).
    assert row["power"] == pytest.approx(3 / 5)
    assert row["fdr"] == pytest.approx(3 / 6)
    # The exact log ratio has the other sign in cells 2 and 6.
    assert row["wrong_sign"] == pytest.approx(2 / 6)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((answer["log_ratio"] - found.log_ratio) ** 2)))
    # Milo's calls count by most neighbourhoods of a cell; those by any of them have columns of their own.
    by_most = {"found_by_most": np.array([1, 0, 0, 1, 0, 0, 1, 0, 0, 0], dtype=bool)}
    milo = module.measured(answer | by_most, found)
    assert (milo["power"], milo["fdr"]) == (pytest.approx(2 / 5), pytest.approx(1 / 3))
    assert (milo["power_any"], milo["fdr_any"]) == (row["power"], row["fdr"])
    assert np.isnan([row["power_any"], row["fdr_any"]]).all()
    # A tool that gives no answer has no share of false calls.
    silent = module.measured({name: answer[name] for name in answer if name != "found"}, found)
    assert np.isnan([silent["power"], silent["fdr"], silent["wrong_sign"]]).all()
    assert silent["auroc"] == row["auroc"]
    # Pairs in the right order: 2 of 3 treated above all seven others but the one below 0.5 ... by counting.
    up = np.mean([[answer["log_ratio"][i] > answer["log_ratio"][k] for k in range(3, 10)] for i in range(3)])
    down = np.mean(
        [[answer["log_ratio"][i] < answer["log_ratio"][k] for k in (0, 1, 2, 5, 6, 7, 8, 9)] for i in (3, 4)]
    )
    assert row["auroc"] == pytest.approx((up + down) / 2)
    failed = module.measured({"error": np.array("no"), "seconds": 0.1, "cpu_seconds": 0.1}, found)
    assert failed["error"] == "no"
    assert np.isnan(failed["power"])


def test_methods_are_compared_on_the_designs_that_all_have(benchmark):
    module = benchmark("outside_abundance")
    rows = [
        {"source": "kang", "seed": seed, "enrichment": 0.95, "strength": 0.0, "method": method, "error": "",
         **dict.fromkeys(module.MEASURES, value)}
        for method, seed, value in (("scratio", 0, 1.0), ("scratio", 1, 3.0), ("meld", 0, 2.0))
    ]  # fmt: skip
    found = module.summarise(pd.DataFrame(rows))
    table = found["summary"].set_index("method")
    assert table["n_designs"].tolist() == [1, 1]
    assert table["power"].to_dict() == {"scratio": 1.0, "meld": 2.0}
    # A method that was run on one of two data sets takes no part in the means over both.
    others = [{**row, "source": "melanoma", "power": 5.0} for row in rows if row["method"] == "scratio"]
    found = module.summarise(pd.DataFrame([*rows, *others]))
    assert found["strengths"].set_index("method")["power"].to_dict() == {"scratio": 3.5}
    assert len(found["summary"]) == 3


def test_without_q_values_nothing_is_called_nor_counted(benchmark):
    # Three samples a group in two batches leave too few degrees of freedom for the test alone.
    analyses = benchmark("outside_peers/analyses")
    rng = np.random.default_rng(0)
    cohort = {
        "x": rng.normal(size=(240, 2)),
        "sample": np.repeat(np.arange(6), [60, 30, 50, 40, 20, 40]),
        "group": np.array([0, 0, 0, 1, 1, 1]),
    }
    assert "found" in analyses.by_association(cohort)
    with pytest.warns(UserWarning, match="too few for q-values"):
        assert "found" not in analyses.by_association(cohort | {"batch": np.array([0, 1, 0, 1, 0, 1])})
