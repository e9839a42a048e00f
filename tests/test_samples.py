"""Differential abundance across samples: what is found, error rates with donor effects, designs, what is refused."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import fisher_exact

import scratio
from scratio.stats import compare_samples, effects_without, neighbor_counts, neighborhoods
from scratio.tl._diagnostics import _across_samples
from scratio.tl._sample_design import SampleSettings, samples_of, samples_with_numbers
from scratio.tl._samples import NeighborhoodTest, _without_each, compare

CALL = {"condition_key": "group", "treatment": "case", "reference": "control", "sample_key": "donor", "n_folds": 2}
SETTINGS = {"model_kwargs": {"n_hidden": 8, "n_members": 1}, "train_kwargs": {"max_steps": 10, "progress_bar": False}}
CENTRES = np.random.default_rng(99).normal(0.0, 3.0, size=(10, 5))


def cohort(
    effect: float, *, seed: int = 0, n_donors: int = 12, n_cells: int = 100, paired: bool = False, spread: float = 0.3
) -> AnnData:
    """Ten types in shares of each donor's own; with the effect more cells of the first type in cases."""
    rng = np.random.default_rng(seed)
    parts = []
    for donor in range(n_donors):
        own = rng.normal(0.0, spread, size=10)
        for group in ("control", "case") if paired else (("case",) if donor < n_donors / 2 else ("control",)):
            log_share = own + rng.normal(0.0, 0.1, size=10)
            log_share[0] += 0.5 * effect * (1.0 if group == "case" else -1.0)
            kind = rng.choice(10, size=n_cells, p=np.exp(log_share) / np.exp(log_share).sum())
            parts.append(pd.DataFrame({"donor": f"d{donor:02d}", "group": group, "kind": kind}))
    obs = pd.concat(parts, ignore_index=True)
    obs.index = [f"cell{i}" for i in range(len(obs))]
    x = CENTRES[obs["kind"]] + rng.normal(size=(len(obs), 5))
    return AnnData(obs=obs, obsm={"X_pca": x})


def score(adata: AnnData, **kwargs) -> None:
    scratio.tl.differential_abundance(adata, **{**CALL, **SETTINGS, **kwargs})


@pytest.fixture(scope="module")
def planted() -> AnnData:
    adata = cohort(2.0, seed=1)
    score(adata)
    return adata


# --- what is found -------------------------------------------------------------------------------------------------


def test_neighbourhoods_are_categories_in_the_order_of_their_numbers(planted):
    names = planted.obs["da_neighborhood"].cat.categories
    assert list(names) == [str(number) for number in range(len(names))]
    assert len(names) > 10


def test_a_planted_difference_is_found_and_little_else(planted):
    found, is_planted = planted.obs["da_qvalue"] < 0.1, planted.obs["kind"] == 0
    assert found[is_planted].mean() > 0.8
    assert (found & ~is_planted).sum() / found.sum() < 0.2
    row = planted.uns["da"]["diagnostics"].iloc[0]
    assert row["global_pvalue"] < 0.05
    assert "Across samples something differs (global p = 0.0" in row["verdict"]


def test_what_is_tested_is_shown(planted):
    table = planted.uns["da"]["neighborhoods"].set_index("neighborhood")
    assert len(table) == 24  # 1,200 cells
    own = table.loc[planted.obs["da_neighborhood"].astype(str)]
    for name in ("effect", "effect_std", "pvalue", "qvalue"):
        np.testing.assert_array_equal(planted.obs[f"da_{name}"], own[name])
    sizes = planted.obs["da_neighborhood"].value_counts()
    np.testing.assert_array_equal(sizes[table.index], table["n_cells"])
    # Large effects in units of their error have the small p-values.
    z = np.abs(table["effect"] / table["effect_std"])
    bands = [table.loc[(z >= low) & (z < high), "pvalue"] for low, high in ((2.0, np.inf), (1.0, 2.0), (0.0, 1.0))]
    assert all(len(band) > 2 for band in bands)
    assert bands[0].max() < bands[1].min()
    assert bands[1].max() < bands[2].min()
    assert bands[0].max() < 0.05
    assert (table["qvalue"] >= planted.uns["da"]["diagnostics"]["global_pvalue"][0]).all()


def test_the_effect_of_a_neighbourhood_is_its_log_ratio(planted):
    table = planted.uns["da"]["neighborhoods"]
    first = table.sort_values("pvalue").iloc[0]
    share = planted.obs.groupby("donor")["kind"].apply(lambda kinds: np.log((kinds == 0).mean()))
    truth = share.iloc[:6].mean() - share.iloc[6:].mean()
    assert first["effect"] == pytest.approx(truth, abs=0.5)
    assert table["n_cells"].sum() == planted.n_obs


def test_a_difference_within_donors_is_found():
    adata = cohort(1.5, n_donors=8, paired=True, spread=1.0)
    score(adata)
    found, is_planted = adata.obs["da_qvalue"] < 0.1, adata.obs["kind"] == 0
    assert found[is_planted].mean() > 0.8
    assert set(adata.uns["da"]["samples"]["design"]) == {"within donors"}


def test_three_against_three_have_qvalues_and_two_against_two_do_not():
    adata = cohort(3.0, n_donors=6, n_cells=200, spread=0.1)
    score(adata)
    assert (adata.obs["da_qvalue"][adata.obs["kind"] == 0] < 0.1).mean() > 0.5
    few = cohort(3.0, n_donors=4)
    with pytest.warns(UserWarning, match="2 samples of a group and 2 degrees of freedom are too few for q-values"):
        score(few)
    assert few.obs["da_qvalue"].isna().all()
    assert few.obs["da_pvalue"].between(0.0, 1.0).all()
    assert np.isfinite(few.uns["da"]["diagnostics"]["global_pvalue"][0])


def test_covariates_that_leave_too_little_leave_no_qvalues():
    obs = cohort(0.0, n_donors=6).obs.copy()
    number = obs["donor"].str[1:].astype(int)
    for name in ("u", "v", "w"):
        obs[name] = np.random.default_rng(ord(name)).normal(size=6)[number]
    settings = SampleSettings("donor", covariates="~ u + v + w")
    with pytest.warns(UserWarning, match="3 samples of a group and 1 degrees of freedom are too few"):
        found = samples_of(obs, "donor", "group", "case", "control", [], settings=settings)
    assert not found.has_enough


def test_a_donor_that_carries_a_finding_alone_is_named():
    # Where all cases have twice the cells, and where one has twenty times as many; both are taken for findings.
    names = [f"d{i:02d}" for i in range(10)]
    obs = pd.DataFrame({"donor": np.repeat(names, 300), "group": np.repeat(["case", "control"], 1_500)})
    samples = samples_of(obs, "donor", "group", "case", "control", [])
    is_case = samples.design.tested > 0.0
    counts = np.full((1, 10, 3), 20.0)
    counts[0, is_case, 0] = 40.0
    counts[0, samples.donors == "d02", 1] = 400.0
    test = compare_samples(counts, samples.design, np.random.default_rng(0), n_rotations=50)
    # As if nobody had been told apart as an outlier.
    test = replace(test, qvalue=np.array([0.01, 0.01, 0.9]), variance_factor=np.ones(10), global_pvalue=0.01)
    test = replace(test, effect=effects_without(counts, samples.design, test, np.array([], dtype=int)))
    assert test.effect[1] > 1.0
    weakest, carried_by = _without_each(counts, samples, test)
    assert carried_by.tolist() == ["", "d02", ""]
    assert weakest[0] == pytest.approx(np.log(2.0), abs=0.05)
    assert weakest[1] == pytest.approx(0.0, abs=0.1)
    assert np.isnan(weakest[2])
    said = _across_samples(NeighborhoodTest(test, weakest, carried_by))
    assert "something differs (global p = 0.01)" in said
    assert "In 1 of the 2 neighbourhoods with q <= 0.1 more than half of the effect comes from one donor" in said
    assert "most often 'd02'" in said
    nothing = _across_samples(NeighborhoodTest(replace(test, global_pvalue=0.4), weakest, carried_by))
    assert nothing == "Across samples nothing differs more than chance allows (global p = 0.4)."


def test_an_outlier_weighs_less_and_carries_nothing():
    adata = cohort(0.0, seed=3, n_donors=16, n_cells=150, spread=0.05)
    # One case is full of the first type, which the others have in equal shares.
    rng = np.random.default_rng(0)
    rows = np.flatnonzero((adata.obs["donor"] == "d02") & (adata.obs["kind"] > 0) & (rng.random(adata.n_obs) < 0.4))
    adata.obsm["X_pca"][rows] = CENTRES[0] + rng.normal(size=(len(rows), 5))
    x, obs = adata.obsm["X_pca"], adata.obs
    neighborhood = neighborhoods(x, 0)
    samples = samples_of(obs, "donor", "group", "case", "control", [])
    found = compare(x, neighborhood, obs, samples, obs["group"], 0)
    assert samples.donors[found.test.variance_factor.argmax()] == "d02"
    assert found.test.variance_factor.max() > 2.0
    # Where it is found in spite of that, nothing is left without it.
    planted = cohort(2.0, seed=1)
    neighborhood = neighborhoods(planted.obsm["X_pca"], 0)
    samples = samples_of(planted.obs, "donor", "group", "case", "control", [])
    honest = compare(planted.obsm["X_pca"], neighborhood, planted.obs, samples, planted.obs["group"], 0)
    called = honest.test.qvalue <= 0.1
    assert called.any()
    assert (honest.carried_by == "").all()
    remaining = honest.weakest[called] / honest.test.effect[called]
    assert ((remaining > 0.5) & (remaining < 1.0)).all()


# --- error rates ---------------------------------------------------------------------------------------------------


def one_gaussian(
    seed: int, sizes: list[tuple[int, int]], donors: list[int] | None = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """Cells of one Gaussian; sizes are the numbers of case and control cells of each sample."""
    rng, parts = np.random.default_rng(seed), []
    for sample, (n_case, n_control) in enumerate(sizes):
        donor = sample if donors is None else donors[sample]
        group = ["case"] * n_case + ["control"] * n_control
        parts.append(pd.DataFrame({"sample": f"s{sample:02d}", "donor": f"d{donor:02d}", "group": group}))
    obs = pd.concat(parts, ignore_index=True)
    return rng.normal(size=(len(obs), 5)), obs


UNEQUAL = {
    "4 of 60 against 12 of 300": [(60, 0)] * 4 + [(0, 300)] * 12,
    "6 of 50 against 6 of 500": [(50, 0)] * 6 + [(0, 500)] * 6,
    "6 pairs, 5 against 300": [(5, 300)] * 6,
    "stray labels": [(297, 3)] * 6 + [(0, 300)] * 6,
    "many stray labels": [(290, 10)] * 6 + [(0, 300)] * 6,
    "one donor of 4 cells": [(4, 0)] + [(200, 0)] * 4 + [(0, 200)] * 5,
}


@pytest.mark.filterwarnings("ignore:.*take no part")
@pytest.mark.parametrize("name", UNEQUAL)
def test_nothing_is_found_where_nothing_differs_whatever_the_sizes(name):
    pvalues, discoveries = [], []
    for seed in range(30):
        x, obs = one_gaussian(seed, UNEQUAL[name])
        neighborhood = neighborhoods(x, seed)
        samples = samples_of(obs, "donor", "group", "case", "control", [])
        test = compare(x, neighborhood, obs, samples, obs["group"], seed, n_rotations=1_000).test
        pvalues.append(np.average(test.pvalue <= 0.05, weights=np.bincount(neighborhood)))
        discoveries.append((test.qvalue < 0.1).any())
    assert np.mean(pvalues) < 0.085  # standard error .012
    assert np.mean(discoveries) <= 0.2  # at most .1, with a standard error of .055; it was .45 to 1


def test_error_rates_without_an_effect_are_those_stated_and_cells_as_units_have_others():
    pvalues, discoveries, naive = [], [], []
    for seed in range(60):
        adata = cohort(0.0, seed=seed, n_cells=60, spread=1.0)
        x, obs = adata.obsm["X_pca"], adata.obs
        neighborhood = neighborhoods(x, seed)
        samples = samples_of(obs, "donor", "group", "case", "control", [])
        test = compare(x, neighborhood, obs, samples, obs["group"], seed, n_rotations=1_000).test
        pvalues.append(test.pvalue)
        discoveries.append((test.qvalue < 0.1).any())
        is_case = (obs["group"] == "case").to_numpy()
        tables = [[[sum(is_case & here), sum(is_case & ~here)], [sum(~is_case & here), sum(~is_case & ~here)]]
                  for here in (neighborhood == r for r in range(neighborhood.max() + 1))]  # fmt: skip
        naive.append(np.mean([fisher_exact(table).pvalue <= 0.05 for table in tables]))
    rate = np.mean([np.mean(p <= 0.05) for p in pvalues])
    assert 0.02 < rate < 0.08  # standard error .012 over 60 data sets
    assert np.mean(discoveries) < 0.19  # at most .1, with standard error .04
    assert np.mean(naive) > 2.0 * rate


def test_samples_of_a_donor_are_one_replicate():
    error = {"donors": [], "samples": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n_samples = rng.integers(1, 5, size=10)
        donors = np.repeat(np.arange(10), n_samples).tolist()
        sizes = [
            (int(n), 0) if donor < 5 else (0, int(n))
            for donor, n in zip(donors, rng.integers(40, 200, len(donors)), strict=True)
        ]
        x, obs = one_gaussian(seed, sizes, donors)
        x = x + 0.5 * rng.normal(size=(10, 5))[obs["donor"].str[1:].astype(int)]
        neighborhood = neighborhoods(x, seed)
        for name, donor_key in (("donors", "donor"), ("samples", None)):
            settings = SampleSettings("sample", donor_key=donor_key)
            samples = samples_of(obs, "sample", "group", "case", "control", [], settings=settings)
            test = compare(x, neighborhood, obs, samples, obs["group"], seed, n_rotations=1_000).test
            error[name].append(np.mean(test.pvalue <= 0.05))
    assert np.mean(error["donors"]) < 0.085  # .05 with a standard error of .012
    assert np.mean(error["samples"]) > 0.15


def test_numbers_of_samples_have_the_right_error_rates_and_slopes():
    slopes, errors, discoveries = [], [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, obs = one_gaussian(seed, [(int(n), 0) for n in np.exp(rng.normal(4.5, 0.8, size=14)).astype(int) + 10])
        x = x + 0.3 * rng.normal(size=(14, 5))[obs["sample"].str[1:].astype(int)]
        obs["age"] = rng.uniform(20.0, 80.0, size=14)[obs["sample"].str[1:].astype(int)]
        neighborhood = neighborhoods(x, seed)
        samples = samples_with_numbers(obs, "age", SampleSettings("sample"))
        test = compare(x, neighborhood, obs, samples, None, seed, n_rotations=1_000).test
        errors.append(np.mean(test.pvalue <= 0.05))
        discoveries.append((test.qvalue < 0.1).any())
        slopes.append(np.average(test.effect, weights=np.bincount(neighborhood)))
    assert 0.015 < np.mean(errors) < 0.085
    assert np.mean(discoveries) <= 0.2
    assert abs(np.mean(slopes)) < 4.0 * np.std(slopes) / np.sqrt(30)


# --- designs -------------------------------------------------------------------------------------------------------


def sizes_of(samples) -> dict[tuple[str, str], int]:
    used = samples.table[samples.table["left_out"] == ""]
    return {(row.sample, row.group): row.n_cells for row in used.itertuples()}


def test_donors_are_compared_with_themselves_where_most_of_the_comparison_lies():
    adata = cohort(0.0, n_donors=6, paired=True)
    alone = adata[~((adata.obs["donor"] == "d00") & (adata.obs["group"] == "case"))]
    with pytest.warns(UserWarning, match=r"no sample of the other condition: 'd00' \(0 of 'case', 100 of 'control'\)"):
        found = samples_of(alone.obs, "donor", "group", "case", "control", [])
    assert found.within
    assert set(found.donors) == {"d01", "d02", "d03", "d04", "d05"}
    assert found.has_enough


@pytest.mark.parametrize("n_stray", [1, 3, 8])
def test_a_handful_of_stray_labels_changes_nothing(n_stray):
    x, clean = one_gaussian(0, [(300, 0)] * 6 + [(0, 300)] * 6)
    dirty = clean.copy()
    for donor in range(6):
        dirty.loc[300 * donor : 300 * donor + n_stray - 1, "group"] = "control"
    neighborhood, tests = neighborhoods(x, 0), []
    for obs in (clean, dirty):
        settings = SampleSettings("donor")
        if obs is dirty:
            with pytest.warns(UserWarning, match=f"'d00' \\({300 - n_stray} of 'case', {n_stray} of 'control'\\)"):
                samples = samples_of(obs, "donor", "group", "case", "control", [], settings=settings)
        else:
            samples = samples_of(obs, "donor", "group", "case", "control", [], settings=settings)
        assert not samples.within
        assert len(sizes_of(samples)) == 12
        tests.append(compare(x, neighborhood, obs, samples, obs["group"], 0).test)
    same = tests[0].scale == tests[1].scale
    assert same.mean() > 0.8
    np.testing.assert_allclose(tests[1].effect[same], tests[0].effect[same], atol=0.15)
    np.testing.assert_allclose(tests[1].pvalue, tests[0].pvalue, atol=0.25)
    assert np.corrcoef(tests[1].pvalue, tests[0].pvalue)[0, 1] > 0.95


def test_samples_with_too_few_cells_are_left_out_and_named():
    _, obs = one_gaussian(0, [(4, 0), (7, 0), (50, 0), (60, 0), (40, 0), (0, 80), (0, 70), (0, 90)])
    message = (
        r"1 of 8 samples of a condition in obs\['sample'\] take no part.*min_cells=5 cells: 's00' \(4 of 'case', 0 of"
    )
    with pytest.warns(UserWarning, match=message):
        found = samples_of(obs, "sample", "group", "case", "control", [])
    assert ("s00", "treatment") not in sizes_of(found)
    assert ("s01", "treatment") in sizes_of(found)
    assert (found.codes(obs, (obs["group"] == "case").to_numpy())[:4] == -1).all()
    with pytest.warns(UserWarning, match="2 of 8 samples"):
        stricter = samples_of(
            obs, "sample", "group", "case", "control", [], settings=SampleSettings("sample", min_cells=8)
        )
    assert len(sizes_of(stricter)) == 6
    with pytest.raises(ValueError, match="min_cells must be at least 1"):
        SampleSettings("sample", min_cells=0)


def test_the_samples_of_one_donor_and_condition_are_added_up():
    _, obs = one_gaussian(0, [(20, 0), (30, 0), (0, 40), (50, 0), (0, 60), (0, 25)], [0, 0, 0, 1, 1, 1])
    settings = SampleSettings("sample", donor_key="donor")
    with pytest.warns(UserWarning, match="2 samples of a group"):
        found = samples_of(obs, "sample", "group", "case", "control", [], settings=settings)
    assert found.within
    assert sorted(found.design.sizes) == [40.0, 50.0, 50.0, 85.0]
    obs.loc[obs.index[:5], "donor"] = "d01"
    with pytest.raises(ValueError, match=r"a sample must be of one donor; 's00' in obs\['sample'\] has cells of"):
        samples_of(obs, "sample", "group", "case", "control", [], settings=settings)


def test_covariates_of_samples_are_adjusted_for_and_those_of_cells_are_not():
    obs = cohort(0.0).obs.copy()
    obs["site"] = np.where(obs["donor"].isin(["d00", "d01", "d02", "d06"]), "s1", "s2")
    obs["phase"] = np.where(np.arange(len(obs)) % 2, "G1", "S")
    by_keys = samples_of(obs, "donor", "group", "case", "control", ["site", "phase"])
    assert by_keys.design.nuisance.shape == (12, 1)
    is_first = np.isin(by_keys.donors, ["d00", "d01", "d02", "d06"])
    assert len(set(by_keys.design.nuisance[is_first, 0])) == len(set(by_keys.design.nuisance[~is_first, 0])) == 1
    settings = SampleSettings("donor", covariates="~ C(site)")
    by_formula = samples_of(obs, "donor", "group", "case", "control", [], settings=settings)
    # The same space of columns, whatever their coding.
    np.testing.assert_allclose(
        by_formula.design.basis @ by_formula.design.basis.T, by_keys.design.basis @ by_keys.design.basis.T, atol=1e-9
    )


def test_a_formula_of_numbers_does_not_depend_on_their_unit():
    obs = cohort(0.0).obs.copy()
    age = np.random.default_rng(0).uniform(20.0, 80.0, size=12)[obs["donor"].str[1:].astype(int)]
    bases = []
    for unit in (1.0, 3.15e7):
        settings = SampleSettings("donor", covariates="~ age + np.power(age, 2)" if unit < 0 else "~ age")
        found = samples_of(obs.assign(age=unit * age), "donor", "group", "case", "control", [], settings=settings)
        bases.append(found.design.basis @ found.design.basis.T)
    np.testing.assert_allclose(bases[0], bases[1], atol=1e-9)


@pytest.mark.parametrize(
    ("covariates", "n_columns"),
    [
        ("~ bs(age, df=3)", 3),
        ("~ poly(age, 2)", 2),
        ("~ scale(age)", 1),
        ("~ sex:age", 2),
        ("~ 1", 0),
        ("~ `body mass`", 1),
    ],
)
def test_formulas_of_every_kind_are_read(covariates, n_columns):
    obs = cohort(0.0, n_cells=20).obs.copy()
    number = obs["donor"].str[1:].astype(int)
    obs["age"] = np.random.default_rng(0).uniform(20.0, 80.0, size=12)[number]
    obs["sex"] = pd.Series(np.where(number % 2, "f", "m"), index=obs.index).astype("string")
    obs["body mass"] = np.random.default_rng(1).uniform(20.0, 30.0, size=12)[number]
    settings = SampleSettings("donor", covariates=covariates)
    adata = AnnData(obs=obs)
    keys = settings.keys(adata, ["group"])["further_keys"]
    found = samples_of(obs[["donor", "group", *keys]], "donor", "group", "case", "control", [], settings=settings)
    assert found.design.basis.shape[1] - 1 == n_columns


def test_a_site_that_explains_the_difference_takes_it_away():
    # Cases are mostly of site s1, whose samples have more cells of the first type.
    adata = cohort(0.0, seed=3, spread=0.1)
    site = np.where(adata.obs["donor"].isin(["d00", "d01", "d02", "d03", "d04", "d06"]), "s1", "s2")
    rng = np.random.default_rng(0)
    more = (site == "s1") & (adata.obs["kind"] > 5) & (rng.random(adata.n_obs) < 0.5)
    adata.obsm["X_pca"][more] = CENTRES[0] + rng.normal(size=(more.sum(), 5))
    obs, x = adata.obs.assign(site=site), adata.obsm["X_pca"]
    neighborhood = neighborhoods(x, 0)
    smallest = []
    for covariates in (None, "~ site"):
        settings = SampleSettings("donor", covariates=covariates)
        samples = samples_of(obs, "donor", "group", "case", "control", [], settings=settings)
        smallest.append(compare(x, neighborhood, obs, samples, obs["group"], 0).test.global_pvalue)
    assert smallest[0] < 0.1 < smallest[1]


@pytest.mark.parametrize(
    ("covariates", "error", "message"),
    [
        ("~ sex", KeyError, "obs has no key 'sex'"),
        ("~ age +", ValueError, r"covariates='~ age \+' is not a formula"),
        ("group ~ age", ValueError, "has a left side"),
        ("~ age | kind", ValueError, "or several parts"),
        ("~ group", ValueError, "names 'group', which is already part of the question"),
        ("~ donor", ValueError, "names 'donor', which is already part of the question"),
        ("~ kind", ValueError, r"obs\['kind'\] must be the same for all cells of a sample, and one has \["),
        ("~ weight", ValueError, r"obs\['weight'\] is missing for 1 of 12 samples"),
        ("~ C(copy)", ValueError, "cannot be told apart from the covariates"),
        (["age"], TypeError, "must be a formula such as '~ age"),
    ],
)
def test_covariates_that_cannot_be_held_fixed_are_refused_before_training(covariates, error, message, unchanged):
    adata = cohort(0.0, n_cells=20)
    number = adata.obs["donor"].str[1:].astype(float)
    adata.obs["age"], adata.obs["weight"] = 20.0 + number % 5, number.where(number > 0.0)
    adata.obs["copy"] = adata.obs["group"].map({"case": "x", "control": "y"})
    with unchanged(adata), pytest.raises(error, match=message):
        score(adata, covariates=covariates)


def test_arguments_about_samples_need_samples(unchanged):
    adata = cohort(0.0, n_cells=20)
    for name, value in (("covariates", "~ kind"), ("donor_key", "donor")):
        with unchanged(adata), pytest.raises(ValueError, match=f"{name}=.* needs sample_key too"):
            score(adata, sample_key=None, **{name: value})


def test_donors_share_a_fold_and_parameters_are_recorded(monkeypatch, tmp_path):
    adata = cohort(0.0, n_donors=6, n_cells=40)
    adata.obs["sample"] = adata.obs["donor"] + np.where(np.arange(adata.n_obs) % 2, " early", " late")
    adata.obs["age"] = 30.0 + adata.obs["donor"].str[1:].astype(float) % 4
    seen = {}
    train = scratio.model.ScRatio.train

    def watched(self, **kwargs):
        train(self, **kwargs)
        seen["folds"] = pd.Series(self.folds).groupby(self.adata.obs["donor"].to_numpy()).nunique()

    monkeypatch.setattr(scratio.model.ScRatio, "train", watched)
    score(adata, sample_key="sample", donor_key="donor", covariates="~ age", min_cells=10)
    assert (seen["folds"] == 1).all()
    samples = adata.uns["da"]["samples"]
    assert len(samples) == 12
    assert set(samples["n_cells"]) == {20}
    params = adata.uns["da"]["params"]
    assert (params["covariates"], params["donor_key"], params["min_cells"]) == ("~ age", "donor", 10)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(again.uns["da"]["samples"], samples, check_dtype=False)


def test_what_an_earlier_result_had_is_not_left_beside_a_new_one():
    adata = cohort(2.0, n_donors=8, n_cells=40)
    score(adata, treatment=["case"])
    scratio.tl.regions(adata, annotation_key="kind")
    assert {"da_pvalue", "da_neighborhood", "da_region"} <= set(adata.obs)
    assert "da_qvalue" in adata.obsm
    score(adata, sample_key=None)
    written = {"da_log_ratio", "da_std", "da_typicality", "da_support"}
    assert {name for name in adata.obs if name.startswith("da_")} == written
    assert list(adata.obsm) == ["X_pca"]


def test_without_samples_there_is_no_pvalue():
    adata = cohort(0.0, n_cells=20)
    score(adata, sample_key=None)
    assert [name for name in adata.obs if name.startswith("da_")] == [
        "da_log_ratio",
        "da_std",
        "da_typicality",
        "da_support",
    ]


def test_several_treatments_are_tested_each(tmp_path):
    adata = cohort(2.0, n_donors=12)
    other = cohort(0.0, seed=1, n_donors=12)
    other = other[other.obs["group"] == "case"].copy()
    other.obs["group"], other.obs["donor"] = "other", "o" + other.obs["donor"]
    adata = anndata.concat([adata, other], index_unique="-")
    score(adata, treatment=None)
    tables = adata.obsm["da_qvalue"]
    is_planted = (adata.obs["kind"] == 0).to_numpy()
    assert (tables["case"][is_planted & (adata.obs["group"] != "other").to_numpy()] < 0.1).mean() > 0.7
    assert tables["case"][(adata.obs["group"] == "other").to_numpy()].isna().all()
    table = adata.uns["da"]["neighborhoods"].query("treatment == 'case'").set_index("neighborhood")
    cells = tables["case"].notna().to_numpy()
    np.testing.assert_array_equal(
        tables["case"][cells], table.loc[adata.obs["da_neighborhood"][cells].astype(str), "qvalue"]
    )
    assert (adata.uns["da"]["samples"]["treatment"] == "other").sum() == 12
    adata.write_h5ad(tmp_path / "cells.h5ad")


def test_one_sample_of_a_condition_is_refused_before_training(unchanged):
    adata = cohort(0.0, n_donors=2)
    with (
        unchanged(adata),
        pytest.raises(ValueError, match="at least 2 samples of each condition, or 2 with both.*not replicates"),
    ):
        score(adata)


def test_a_site_of_its_own_for_each_sample_is_refused_before_training(unchanged):
    adata = cohort(0.0, n_cells=40)
    adata.obs["site"] = "site of " + adata.obs["donor"]
    message = r"covariate_keys=\['site'\]: cells with the labels"
    with unchanged(adata), pytest.raises(ValueError, match=message):
        score(adata, covariate_keys=["site"])
    with pytest.raises(ValueError, match=r"covariate_keys=\['site'\] across the samples of obs\['donor'\]: 12 samples"):
        samples_of(adata.obs, "donor", "group", "case", "control", ["site"])


def test_a_site_with_one_sample_of_a_condition_is_refused_with_a_way_out(unchanged):
    adata = cohort(0.0, n_donors=8, n_cells=40)
    # Sites of unequal sizes: of the cases one sample is at the second site, of the controls three are.
    adata.obs["site"] = adata.obs["donor"].isin(["d00", "d04", "d05", "d06"]).map({True: "second", False: "first"})
    message = r"all come from one of obs\['donor'\].*hold it fixed in the test alone: covariates='~ site'"
    with unchanged(adata), pytest.raises(ValueError, match=message):
        score(adata, covariate_keys=["site"])
    score(adata, covariates="~ site")
    assert adata.obs["da_qvalue"].notna().all()
    # What differs within samples cannot be held fixed by the test, so nobody is told to.
    adata.obs["kind"] = adata.obs["kind"].astype(str)
    adata.obs.loc[adata.obs_names[:2], "kind"] = "rare"
    adata.obs.loc[adata.obs["donor"].isin(["d04", "d05"]) & (adata.obs["kind"] == "1"), "kind"] = "rare"
    with pytest.raises(ValueError, match="Leave these cells or a covariate out$"):
        score(adata, covariate_keys=["kind"])


@pytest.mark.parametrize("at_once", [2**23, 700, 100])
def test_the_counts_are_those_of_the_nearest_cells(at_once, monkeypatch):
    # All centres in one search, in parts, and less at once than the distances of one centre.
    monkeypatch.setattr("scratio.stats._neighborhoods.DISTANCES", at_once)
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(500, 2)), rng.integers(-1, 3, size=500)
    neighborhood = np.digitize(x[:, 0], [0.5, 1.2])
    assert np.bincount(neighborhood).max() > 4 * np.bincount(neighborhood).min()
    found = neighbor_counts(x, neighborhood, codes)
    # 10 cells for each of three samples; then the tenth of all cells that no neighbourhood exceeds.
    assert found.shape == (2, 3, 3)
    for scale, k in enumerate((30, 50)):
        for place in range(3):
            nearest = np.argsort(((x - x[neighborhood == place].mean(0)) ** 2).sum(1))[:k]
            for sample in range(3):
                assert found[scale, sample, place] == (codes[nearest] == sample).sum()


def test_the_memory_of_the_counts_does_not_grow_with_the_number_of_neighbourhoods():
    rng, peaks = np.random.default_rng(0), []
    x, codes = rng.normal(size=(40_000, 16)).astype(np.float32), rng.integers(3, size=40_000)
    for n_places in (250, 1_000):
        neighborhood = np.arange(40_000) % n_places
        tracemalloc.start()
        neighbor_counts(x, neighborhood, codes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # All distances at once take 320 MB for 1,000 neighbourhoods, and their order as much again.
    assert peaks[1] < 1.2 * peaks[0] < 250e6
