"""Differential abundance across samples: what is found, error rates with donor effects, designs, what is refused."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import fisher_exact

import scratio
from scratio.stats import log_abundance, neighborhoods, weighted_fdr
from scratio.tl._samples import compare, samples_of

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
    # With seed 0 chance makes the smallest p-value 8 or 10 of 924, by the versions of the dependencies; with others 2.
    adata = cohort(2.0, seed=1)
    score(adata)
    return adata


# --- what is found -------------------------------------------------------------------------------------------------


def test_a_planted_difference_is_found_and_little_else(planted):
    found, is_planted = planted.obs["da_qvalue"] < 0.1, planted.obs["kind"] == 0
    assert found[is_planted].mean() > 0.8
    assert (found & ~is_planted).sum() / found.sum() < 0.2
    # 924 ways to choose six of twelve, in each of which some cells may be told apart better on another scale.
    ways = planted.obs["da_pvalue"] * 924
    np.testing.assert_allclose(ways, ways.round(), atol=1e-6)
    assert 2 / 924 <= planted.obs["da_pvalue"].min() < 0.01


def test_the_effect_of_a_region_is_its_log_ratio(planted):
    table = planted.uns["da"]["neighborhoods"]
    first = table.sort_values("pvalue").iloc[0]
    share = planted.obs.groupby("donor")["kind"].apply(lambda kinds: np.log((kinds == 0).mean()))
    truth = share.iloc[:6].mean() - share.iloc[6:].mean()
    assert first["effect"] == pytest.approx(truth, abs=0.5)
    assert table["n_cells"].sum() == planted.n_obs
    pooled, weights = table["pooled_pvalue"].to_numpy(), table["n_cells"].to_numpy()
    np.testing.assert_allclose(table["qvalue"], weighted_fdr(pooled, weights))


def test_a_difference_within_donors_is_found_by_flipped_signs():
    adata = cohort(1.5, n_donors=8, paired=True, spread=1.0)
    score(adata)
    found, is_planted = adata.obs["da_qvalue"] < 0.1, adata.obs["kind"] == 0
    assert found[is_planted].mean() > 0.8
    assert 2 / 2**8 <= adata.obs["da_pvalue"].min() < 0.02
    assert set(adata.uns["da"]["samples"]["group"]) == {"both"}


def test_every_cell_has_the_values_of_its_region(planted):
    table = planted.uns["da"]["neighborhoods"].set_index("neighborhood")
    assert len(table) == 24  # 1,200 cells
    own = table.loc[planted.obs["da_neighborhood"].astype(str)]
    for name in ("pvalue", "qvalue"):
        np.testing.assert_array_equal(planted.obs[f"da_{name}"], own[name])
    sizes = planted.obs["da_neighborhood"].value_counts()
    np.testing.assert_array_equal(sizes[table.index], table["n_cells"])


# --- error rates ---------------------------------------------------------------------------------------------------


def test_error_rates_without_an_effect_are_those_stated_and_cells_as_units_have_others():
    pvalues, discoveries, naive = [], [], []
    for seed in range(100):
        adata = cohort(0.0, seed=seed, n_cells=60, spread=1.0)
        x, obs = adata.obsm["X_pca"], adata.obs
        neighborhood = neighborhoods(x, seed)
        samples = samples_of(obs, "donor", "group", "case", "control", [])
        test = compare(x, neighborhood, obs, samples, obs["group"], seed)
        pvalues.append(test.pvalue)
        discoveries.append((weighted_fdr(test.pooled_pvalue, np.bincount(neighborhood)) < 0.1).any())
        is_case = (obs["group"] == "case").to_numpy()
        tables = [[[sum(is_case & here), sum(is_case & ~here)], [sum(~is_case & here), sum(~is_case & ~here)]]
                  for here in (neighborhood == r for r in range(neighborhood.max() + 1))]  # fmt: skip
        naive.append(np.mean([fisher_exact(table).pvalue <= 0.05 for table in tables]))
    rate = np.mean([np.mean(p <= 0.05) for p in pvalues])
    assert 0.025 < rate < 0.075  # standard error .01 over 100 data sets
    assert np.mean(discoveries) < 0.16  # at most .1, with standard error .03
    assert np.mean(naive) > 2.0 * rate


# --- designs -------------------------------------------------------------------------------------------------------


def test_samples_are_compared_within_where_most_have_both():
    adata = cohort(0.0, n_donors=6, paired=True)
    alone = adata[~((adata.obs["donor"] == "d00") & (adata.obs["group"] == "case"))]
    with pytest.warns(UserWarning, match=r"1 of 6 samples in obs\['donor'\] have cells of one condition alone.*d00"):
        found = samples_of(alone.obs, "donor", "group", "case", "control", [])
    assert found.are_pairs
    assert found.names == ["d01", "d02", "d03", "d04", "d05"]


def test_samples_of_both_conditions_are_left_out_between_samples():
    obs = cohort(0.0).obs.copy()
    obs.loc[obs.index[:3], "group"] = "control"
    with pytest.warns(UserWarning, match=r"1 of 12 samples in obs\['donor'\] have cells of both conditions.*d00"):
        found = samples_of(obs, "donor", "group", "case", "control", [])
    assert not found.are_pairs
    assert found.names == [f"d{k:02d}" for k in range(1, 12)]
    assert found.is_treatment.tolist() == [True] * 5 + [False] * 6


def test_covariates_of_samples_are_adjusted_for_and_those_of_cells_are_not():
    obs = cohort(0.0).obs.copy()
    obs["site"] = np.where(obs["donor"].isin(["d00", "d01", "d02", "d06"]), "s1", "s2")
    obs["phase"] = np.where(np.arange(len(obs)) % 2, "G1", "S")
    found = samples_of(obs, "donor", "group", "case", "control", ["site", "phase"])
    assert found.nuisance.shape == (12, 1)
    assert (found.nuisance[:, 0] == found.nuisance[0, 0]).nonzero()[0].tolist() == [0, 1, 2, 6]


def test_a_site_that_explains_the_difference_takes_it_away():
    # Cases are mostly of site s1, whose samples have more cells of the first type.
    adata = cohort(0.0, seed=3, spread=0.1)
    site = np.where(adata.obs["donor"].isin(["d00", "d01", "d02", "d03", "d04", "d06"]), "s1", "s2")
    rng = np.random.default_rng(0)
    more = (site == "s1") & (adata.obs["kind"] > 5) & (rng.random(adata.n_obs) < 0.5)
    adata.obsm["X_pca"][more] = CENTRES[0] + rng.normal(size=(more.sum(), 5))
    obs, x = adata.obs.assign(site=site), adata.obsm["X_pca"]
    neighborhood = neighborhoods(x, 0)
    smallest = {}
    for covariates in ([], ["site"]):
        samples = samples_of(obs, "donor", "group", "case", "control", covariates)
        smallest[len(covariates)] = compare(x, neighborhood, obs, samples, obs["group"], 0).familywise_pvalue.min()
    assert smallest[0] < 0.1 < smallest[1]


def test_few_samples_have_no_qvalue_and_it_is_said_why():
    adata = cohort(0.0, n_donors=6)
    with pytest.warns(UserWarning, match="3 samples of a group are too few for q-values"):
        score(adata)
    assert adata.obs["da_qvalue"].isna().all()
    assert adata.obs["da_pvalue"].between(2 / 20 - 1e-9, 1.0).all()


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
    with unchanged(adata), pytest.raises(ValueError, match="at least 2 samples of each condition.*not replicates"):
        score(adata)


def test_a_site_of_its_own_for_each_sample_is_refused_before_training(unchanged):
    adata = cohort(0.0, n_cells=40)
    adata.obs["site"] = "site of " + adata.obs["donor"]
    message = r"covariate_keys=\['site'\]: cells with the labels"
    with unchanged(adata), pytest.raises(ValueError, match=message):
        score(adata, covariate_keys=["site"])
    with pytest.raises(ValueError, match=r"covariate_keys=\['site'\] across the samples of obs\['donor'\]: 12 samples"):
        samples_of(adata.obs, "donor", "group", "case", "control", ["site"])


def test_the_log_abundance_counts_the_nearest_cells():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(500, 2)), rng.integers(-1, 3, size=500)
    neighborhood = (x[:, 0] > 0.0).astype(int)
    found = log_abundance(x, neighborhood, codes)
    # 10 cells for each of three samples; then the tenth of all cells that no neighbourhood exceeds.
    assert found.shape == (2, 3, 2)
    for scale, k in enumerate((30, 50)):
        for place in (0, 1):
            nearest = np.argsort(((x - x[neighborhood == place].mean(0)) ** 2).sum(1))[:k]
            for sample in range(3):
                share = ((codes[nearest] == sample).sum() + 0.5) / ((codes == sample).sum() + 0.5)
                assert found[scale, sample, place] == pytest.approx(np.log(share))
