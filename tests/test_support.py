"""What a trained model keeps of its cells: support of new ones, moderated errors, samples held out whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import scratio
from scratio.model import OWN, Rest, ScRatio
from scratio.model._splits import Splits
from scratio.module import Condition
from scratio.scoring import KeptCells, _kept
from scratio.stats import grouped_folds, is_supported, moderated_error, most_folds, typicality
from scratio.train import MemberSplit

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
CENTRES = 6.0 * np.eye(4, 5)


def blobs(n_cells: int, types: list[int], seed: int, effect: float = 1.0) -> AnnData:
    """Types far apart; the first is more frequent, and the second moved a little, in treated cells."""
    rng = np.random.default_rng(seed)
    treated = rng.uniform(size=n_cells) < 0.5
    weight = np.ones((n_cells, 4)) * np.isin(np.arange(4), types)
    weight[:, 0] *= np.exp(effect * treated)
    kind = (rng.uniform(size=(n_cells, 1)) > np.cumsum(weight / weight.sum(1, keepdims=True), 1)).sum(1)
    x = CENTRES[kind] + rng.normal(size=(n_cells, 5))
    x[:, 4] += 0.8 * (treated & (kind == 1))
    names = np.where(treated, "treated", "control")
    obs = pd.DataFrame(
        {"condition": names, "kind": kind.astype(str)}, index=[f"cell{seed}_{i}" for i in range(n_cells)]
    )
    return AnnData(obs=obs, obsm={"X_pca": x})


@pytest.fixture(scope="module")
def model(thorough) -> ScRatio:
    adata = blobs(2_000, [0, 1, 2], seed=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    trained = ScRatio(adata, n_hidden=32, n_members=2)
    trained.train(**{**thorough, "max_steps": 200})
    return trained


# --- support of new cells ------------------------------------------------------------------------------------------


def test_a_type_that_is_absent_from_training_is_flagged_and_ordinary_cells_are_not(model):
    fresh = blobs(4_000, [0, 1, 2, 3], seed=1)
    scratio.tl.log_ratio(fresh, model, **CONTRAST)
    is_absent = (fresh.obs["kind"] == "3").to_numpy()
    assert (~fresh.obs["log_ratio_support"][is_absent]).mean() > 0.95
    assert (~fresh.obs["log_ratio_support"][~is_absent]).mean() < 0.05
    assert np.isfinite(fresh.obs["log_ratio"]).all()


def test_a_type_that_is_absent_changes_nothing_for_the_other_cells(model):
    fresh = blobs(1_000, [0, 1, 2, 3], seed=2)
    ordinary = fresh[fresh.obs["kind"] != "3"].copy()
    for function in (model.log_ratio, model.typicality):
        kept = function(fresh, **CONTRAST)[(fresh.obs["kind"] != "3").to_numpy()]
        np.testing.assert_allclose(function(ordinary, **CONTRAST), kept, atol=1e-5)
    _, errors = model.log_ratio(fresh, **CONTRAST, return_std=True)
    _, alone = model.log_ratio(ordinary, **CONTRAST, return_std=True)
    np.testing.assert_allclose(alone, errors[(fresh.obs["kind"] != "3").to_numpy()], rtol=1e-4)


def test_adding_a_type_of_a_third_condition_to_training_changes_ratios_within_their_errors(thorough):
    ordinary, absent = blobs(2_000, [0, 1, 2], seed=0), blobs(300, [3], seed=3)
    absent.obs["condition"] = "other"
    both = AnnData(
        obs=pd.concat([ordinary.obs, absent.obs]),
        obsm={"X_pca": np.vstack([ordinary.obsm["X_pca"], absent.obsm["X_pca"]])},
    )
    found = []
    for adata in (ordinary, both):
        short = {**thorough, "max_steps": 200, "weight_decay": 0.1}
        kwargs = {"n_folds": 2, "model_kwargs": {"n_hidden": 16, "n_members": 2}, "train_kwargs": short}
        groups = {"condition_key": "condition", "treatment": "treated", "reference": "control"}
        scratio.tl.differential_abundance(adata, **groups, **kwargs)
        found.append(adata.obs.loc[ordinary.obs_names, ["da_log_ratio", "da_std"]])
    assert both.obs.loc[absent.obs_names, "da_log_ratio"].isna().all()
    assert not both.obs.loc[absent.obs_names, "da_support"].any()
    difference = (found[0]["da_log_ratio"] - found[1]["da_log_ratio"]).abs()
    assert (difference <= 2.0 * np.hypot(found[0]["da_std"], found[1]["da_std"])).mean() > 0.95


def test_typicality_is_the_smaller_of_both_conditions(model):
    fresh = blobs(200, [0, 1, 2, 3], seed=4)
    x, labels = model.embedding(fresh), model.adata.obs["condition"]
    cells = {name: model.embedding(model.adata)[(labels == name).to_numpy()] for name in ("treated", "control")}
    expected = np.minimum(*(typicality(x, own) for own in cells.values()))
    np.testing.assert_array_equal(model.typicality(fresh, **CONTRAST), expected)
    np.testing.assert_array_equal(
        model.typicality(fresh, **{"numerator": CONTRAST["denominator"], "denominator": CONTRAST["numerator"]}),
        expected,
    )
    everything = typicality(x, model.embedding(model.adata))
    np.testing.assert_array_equal(model.typicality(fresh, numerator={}, denominator={}), everything)


def test_a_cell_is_compared_with_cells_of_its_own_label_and_of_the_rest(quick):
    adata = blobs(400, [0, 1, 2], seed=5)
    ScRatio.setup_anndata(adata, condition_keys=["condition", "kind"])
    trained = ScRatio(adata, n_hidden=8, n_members=1)
    trained.train(**quick)
    x, kind = trained.embedding(adata), adata.obs["kind"].to_numpy()
    found = trained.typicality(numerator={"kind": OWN}, denominator={"kind": Rest(OWN)})
    for name in "012":
        own = kind == name
        np.testing.assert_array_equal(found[own], np.minimum(typicality(x[own], x[own]), typicality(x[own], x[~own])))
    assert not is_supported(found).any()  # the types are far apart


def test_support_travels_with_a_saved_model(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = ScRatio.load(tmp_path / "model")
    fresh = blobs(200, [0, 1, 2, 3], seed=4)
    np.testing.assert_array_equal(loaded.typicality(fresh, **CONTRAST), model.typicality(fresh, **CONTRAST))
    for mine, theirs in zip(
        loaded.log_ratio(fresh, **CONTRAST, return_std=True),
        model.log_ratio(fresh, **CONTRAST, return_std=True),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("analysis", "column", "kwargs"),
    [
        (scratio.tl.batch_effect, "batch_effect_support", {"batch_key": "b", "use_rep": "X_pca"}),
        (
            scratio.tl.combination_effect,
            "combination_support",
            {"condition_keys": ["a", "b"], "combination": ("a", "b"), "reference": ("none", "none")},
        ),
        (scratio.tl.treatment_response, "response_support", {"treatment_key": "a", "donor_key": "b", "reference": "a"}),
    ],
)
def test_every_analysis_flags_outliers_and_what_only_one_side_has(analysis, column, kwargs, quick):
    rng = np.random.default_rng(0)
    a, b = (np.array(["none", name])[np.arange(800) // size % 2] for name, size in (("a", 1), ("b", 2)))
    x = rng.normal(size=(800, 2))
    x[:3] = 40.0 + 20.0 * np.arange(3)[:, None]
    alone = np.flatnonzero((a == "a") & (b == "b"))[-40:]
    x[alone] = rng.normal(size=(40, 2)) * 0.3 - 12.0  # a state that no other group has
    obs = pd.DataFrame({"a": a, "b": b}, index=[f"cell{i}" for i in range(800)])
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    analysis(adata, **kwargs, n_folds=2, model_kwargs={"n_hidden": 8, "n_members": 1}, train_kwargs=quick)
    support = adata.obs[column].to_numpy()
    others = np.setdiff1d(np.arange(3, 800), alone)
    assert support.dtype == bool
    assert not support[:3].any()
    assert support[others].mean() > 0.95
    # Of the batch effect both sides have the state: the batch itself, and all cells.
    assert support[alone].mean() > 0.9 if analysis is scratio.tl.batch_effect else not support[alone].any()


def test_a_model_without_cells_to_judge_others_by_says_so(model, tmp_path):
    model.save(tmp_path / "model")
    older = ScRatio.load(tmp_path / "model")
    older.kept = None
    with pytest.raises(ValueError, match="train it again"):
        older.typicality(blobs(20, [0, 1], seed=4), **CONTRAST)


# --- standard errors -----------------------------------------------------------------------------------------------


def test_errors_are_moderated_by_those_of_the_training_cells(model):
    fresh = blobs(200, [0, 1, 2, 3], seed=4)
    x, kept = model.embedding(fresh), model.embedding(model.adata)
    own = model._evaluate(fresh, CONTRAST, *_head(), with_std=True)[1]
    theirs = model._evaluate(None, CONTRAST, *_head(), with_std=True)[1]
    mean, disagreement = model.log_ratio(**CONTRAST), np.zeros(len(kept))
    weights = model.module.weights.clone()
    for part in range(weights.shape[1]):
        # This part alone, with the weights of all.
        model.module.weights.data = torch.zeros_like(weights)
        model.module.weights.data[:, part] = weights.sum(1)
        share = float(weights[:, part].sum() / weights.sum())
        disagreement += share * (model.log_ratio(**CONTRAST) - mean) ** 2
    model.module.weights.data = weights
    expected = moderated_error(x, own, kept, theirs, disagreement, model.module.n_members)
    assert (disagreement > 0.0).any()
    np.testing.assert_allclose(model.log_ratio(fresh, **CONTRAST, return_std=True)[1], expected)
    assert not np.allclose(expected, own)


def _head() -> tuple:
    from scratio.scoring import log_ratio_estimator

    return log_ratio_estimator("head", "numerator", None)[0], "exact", None, 4_096


def test_errors_of_questions_about_own_labels_leave_out_what_was_never_observed(quick):
    adata = blobs(400, [0, 1, 2], seed=5)
    adata = adata[(adata.obs["kind"] != "2") | (adata.obs["condition"] == "control")].copy()
    ScRatio.setup_anndata(adata, condition_keys=["condition", "kind"])
    trained = ScRatio(adata, n_hidden=8, n_members=2)
    trained.train(**quick)
    rows = np.flatnonzero(adata.obs["kind"] != "2")
    fixed = {"kind": OWN}
    ends = {"numerator": {"condition": "treated", **fixed}, "denominator": {"condition": "control", **fixed}}
    _, errors = trained.log_ratio(**ends, return_std=True, rows=rows)
    assert (errors > 0.0).all()
    with pytest.raises(ValueError, match="no training cell had the combination"):
        trained.log_ratio(**ends)


# --- the cells that are kept ---------------------------------------------------------------------------------------


def test_rare_conditions_are_kept_whole(monkeypatch):
    monkeypatch.setattr(_kept, "MOST", 60)
    codes = torch.from_numpy((np.arange(1_000) % 50 == 0).astype(np.int64))[:, None]
    x = torch.arange(1_000.0)[:, None]
    kept = KeptCells.drawn(x, Condition(codes, torch.empty((1_000, 0))), np.arange(1_000) % 5, np.random.default_rng(0))
    is_rare = kept.condition.codes[:, 0].numpy() == 1
    assert len(kept.x) == 60
    assert is_rare.sum() == 20
    np.testing.assert_array_equal(kept.x[is_rare, 0], np.arange(0, 1_000, 50))
    np.testing.assert_array_equal(kept.folds, kept.x[:, 0] % 5)
    others = kept.x[~is_rare, 0]
    assert len(np.unique(others)) == 40
    assert others.min() < 250 < 750 < others.max()


# --- samples held out whole ----------------------------------------------------------------------------------------


def test_folds_of_samples_hold_all_conditions():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), rng.integers(20, 60, size=12))
    strata = (groups < 5).astype(int)
    folds = grouped_folds(strata, groups, 5, random_state=0)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in range(12))
    pairs = {(fold, stratum) for fold, stratum in zip(folds, strata, strict=True)}
    assert len(pairs) == 10
    np.testing.assert_array_equal(folds, grouped_folds(strata, groups, 5, random_state=0))
    assert most_folds(strata, groups) == 5


def cohort(n_donors: int = 8, n_cells: int = 60, seed: int = 0) -> AnnData:
    """Donors far apart from each other, half of them treated, and no effect of the treatment."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), n_cells)
    x = rng.normal(0.0, 1.5, size=(n_donors, 3))[donor] + rng.normal(size=(len(donor), 3))
    obs = pd.DataFrame(
        {"donor": [f"d{d}" for d in donor], "condition": np.where(donor % 2 == 0, "treated", "control")},
        index=[f"cell{i}" for i in range(len(donor))],
    )
    return AnnData(obs=obs, obsm={"X_pca": x})


def test_no_cell_is_scored_by_networks_that_saw_its_sample(quick):
    adata = cohort()
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    trained = ScRatio(adata, n_hidden=8, n_members=2, n_folds=3)
    given = []
    original = trained._take

    def spy(plan, fitted):
        given.append(plan.splits)
        return original(plan, fitted)

    trained._take = spy
    trained.train(**quick, group_key="donor")
    folds, splits = given[-1].folds, given[-1].members
    donor = adata.obs["donor"].to_numpy()
    np.testing.assert_array_equal(folds, trained.folds)
    for place, split in enumerate(splits):
        seen = set(donor[split.train]) | set(donor[split.validation])
        assert not seen & set(donor[folds == place // 2])
        assert seen | set(donor[folds == place // 2]) == set(donor)


def test_what_is_held_out_for_validation_are_samples_where_there_are_enough(quick):
    for n_donors, whole in ((24, True), (6, False)):
        adata = cohort(n_donors, n_cells=20)
        ScRatio.setup_anndata(adata, condition_keys=["condition"])
        trained = ScRatio(adata, n_hidden=8, n_members=2, n_folds=2)
        trained.train(**quick, group_key="donor")
        donor = adata.obs["donor"].to_numpy()
        shared = set(donor[trained.train_indices_]) & set(donor[trained.validation_indices_])
        assert (not shared) == whole


def test_cells_of_unseen_samples_are_those_of_the_fold_dealt_to_its_members():
    sizes = [50, 20, 31, 40, 25, 60]
    groups = np.repeat(np.arange(6), sizes)
    splits = Splits.drawn(groups % 2, groups, 3, 2, 0.1, 0)
    found = splits.unseen(groups, 1_000, 0)
    for fold, rows in enumerate(found):
        assert (splits.folds[rows] == fold).all()
        assert len(np.unique(rows)) == rows.size == 2 * ((splits.folds == fold).sum() // 2)
    assert [rows.shape for rows in splits.unseen(groups, 7, 0)] == [(2, 7)] * 3
    # A fold of fewer cells than members has them come again.
    folds, few = np.repeat([0, 1], [12, 3]), np.repeat(np.arange(4), [6, 6, 2, 1])
    others = [np.flatnonzero(folds != fold) for fold in np.repeat([0, 1], 4)]
    members = [MemberSplit(rows[::2], rows) for rows in others]
    first, second = Splits(15, folds, 2, members, 0.5).unseen(few, 1_000, 0)
    assert (first.shape, second.shape) == ((4, 3), (4, 1))
    assert set(second.ravel()) == {12, 13, 14}
    # Nobody asks without samples, without folds, or where members hold out whole samples.
    assert Splits.drawn(groups % 2, None, 3, 2, 0.1, 0).unseen(None, 1_000, 0) is None
    assert Splits.drawn(groups % 2, groups, 1, 2, 0.1, 0).unseen(groups, 1_000, 0) is None
    many = np.repeat(np.arange(24), 20)
    assert Splits.drawn(many % 2, many, 3, 2, 0.1, 0).unseen(many, 1_000, 0) is None


@pytest.mark.parametrize("seed", range(3))
def test_three_samples_a_condition_in_two_batches_are_not_taken_for_an_effect(seed):
    # Nothing differs but the batches. The second has one sample of the controls, whose cells no other control is like.
    rng = np.random.default_rng(seed)
    sizes, batch = [60, 90, 50, 40, 120, 80], np.array([0, 0, 1, 1, 1, 0])
    sample = np.repeat(np.arange(6), sizes)
    names = {"sample": np.array(list("abcdef"))[sample], "condition": np.where(sample < 3, "control", "treated")}
    x = rng.normal(size=(len(sample), 10)) + 8.0 * batch[sample][:, None]
    adata = AnnData(obs=pd.DataFrame(names, index=[f"cell{i}" for i in range(len(sample))]), obsm={"X_pca": x})
    groups = {"condition_key": "condition", "treatment": "treated", "reference": "control"}
    scratio.tl.differential_abundance(adata, **groups, sample_key="sample", effort="quick")
    # The shares of the batches differ by .9 nats. Held-out cells of the same samples supported 4 nats.
    assert np.sqrt((adata.obs["da_log_ratio"] ** 2).mean()) < 1.5


def test_an_effect_that_three_samples_a_condition_share_is_found():
    # One type is e times as frequent in treated samples, of unequal sizes.
    rng = np.random.default_rng(0)
    sample = np.repeat(np.arange(6), [300, 120, 500, 200, 400, 150])
    weight = np.where(np.arange(4) == 0, np.exp(1.0 * (sample[:, None] >= 3)), 1.0)
    share = weight / weight.sum(1, keepdims=True)
    kind = (rng.uniform(size=(len(sample), 1)) > np.cumsum(share, 1)).sum(1)
    names = {"sample": np.array(list("abcdef"))[sample], "condition": np.where(sample < 3, "control", "treated")}
    x = CENTRES[kind] + rng.normal(size=(len(sample), 5))
    adata = AnnData(obs=pd.DataFrame(names, index=[f"cell{i}" for i in range(len(sample))]), obsm={"X_pca": x})
    groups = {"condition_key": "condition", "treatment": "treated", "reference": "control"}
    scratio.tl.differential_abundance(adata, **groups, sample_key="sample", effort="quick")
    truth = np.log(share[-1] / share[0])[kind]
    assert np.sqrt(((adata.obs["da_log_ratio"] - truth) ** 2).mean()) < 0.5 * np.sqrt((truth**2).mean())


def test_differences_between_donors_are_not_taken_for_an_effect(thorough):
    rms = {}
    for sample_key in (None, "donor"):
        sizes = []
        for seed in range(2):
            adata = cohort(16, n_cells=40, seed=seed)
            groups = {"condition_key": "condition", "treatment": "treated", "reference": "control"}
            short = {**thorough, "max_steps": 200, "weight_decay": 0.1}
            kwargs = {"n_folds": 4, "model_kwargs": {"n_hidden": 16, "n_members": 2}, "train_kwargs": short}
            scratio.tl.differential_abundance(adata, **groups, **kwargs, sample_key=sample_key)
            sizes.append((adata.obs["da_log_ratio"] ** 2).mean())
        rms[sample_key] = np.sqrt(np.mean(sizes))
    assert rms["donor"] < 0.5 * rms[None]
    assert rms[None] > 0.5


def test_more_folds_than_samples_are_refused_by_the_model_and_lowered_by_the_analysis(quick):
    adata = cohort(6)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    trained = ScRatio(adata, n_hidden=8, n_members=1, n_folds=5)
    with pytest.raises(ValueError, match=r"n_folds=5 folds by obs\['donor'\] are too many: .* only 3 groups"):
        trained.train(**quick, group_key="donor")
    with pytest.raises(KeyError, match="obs has no key 'dnor'"):
        trained.train(**quick, group_key="dnor")
    groups = {"condition_key": "condition", "treatment": "treated", "reference": "control", "sample_key": "donor"}
    settings = {"model_kwargs": {"n_hidden": 8, "n_members": 1}, "train_kwargs": quick}
    scratio.tl.differential_abundance(adata, **groups, **settings)
    assert adata.obs["da_log_ratio"].notna().all()
