"""Numbers of samples: which cell states go with an age, by how much, and what is refused."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scratio

CENTRES = np.random.default_rng(99).normal(0.0, 3.0, size=(8, 4))
SLOPE = 0.04


def cohort(slope: float = SLOPE, *, seed: int = 0, n_samples: int = 14, visits: int = 1) -> AnnData:
    """Eight types; the log share of the first over the others rises with age; samples of unequal sizes."""
    rng, parts = np.random.default_rng(seed), []
    for donor in range(n_samples):
        age, own = rng.uniform(20.0, 80.0), rng.normal(0.0, 0.15, size=8)
        for visit in range(visits):
            log_share = own + rng.normal(0.0, 0.05, size=8)
            log_share[0] += slope * (age - 50.0)
            n = int(np.exp(rng.normal(4.6, 0.7))) + 20
            kind = rng.choice(8, size=n, p=np.exp(log_share) / np.exp(log_share).sum())
            labels = {"donor": f"d{donor:02d}", "sample": f"d{donor:02d} v{visit}", "age": age, "kind": kind}
            parts.append(pd.DataFrame(labels))
    obs = pd.concat(parts, ignore_index=True)
    obs.index = obs.index.map("cell{}".format)
    return AnnData(obs=obs, obsm={"X_pca": CENTRES[obs["kind"]] + rng.normal(size=(len(obs), 4))})


def test_the_slope_is_found_where_it_is_and_has_its_size():
    adata = cohort(n_samples=24)
    assert scratio.tl.association(adata, key="age", sample_key="sample") is None
    found, is_planted = adata.obs["association_qvalue"] < 0.1, adata.obs["kind"] == 0
    assert found[is_planted].mean() > 0.8
    # The others' shares fall as the first rises, and neighbourhoods at the border hold both.
    assert found[~is_planted].mean() < 0.2
    # The share of the first type rises by the slope less what it takes of the whole.
    assert adata.obs["association_effect"][is_planted].median() == pytest.approx(SLOPE * 0.85, rel=0.35)
    row = adata.uns["association"]["table"].iloc[0]
    ages = adata.obs.groupby("sample")["age"].first()
    assert row["n_samples"] == 24
    assert row["sd"] == pytest.approx(ages.std())
    assert row["global_pvalue"] < 0.05
    assert row["n_cells_found"] == (adata.obs["association_qvalue"] <= 0.1).sum()
    np.testing.assert_allclose(
        adata.obs["association_effect_per_sd"], adata.obs["association_effect"] * ages.std(), rtol=1e-10
    )


def test_nothing_is_found_where_age_says_nothing():
    errors, found = [], []
    for seed in range(12):
        adata = cohort(0.0, seed=seed)
        scratio.tl.association(adata, key="age", sample_key="sample")
        errors.append((adata.obs["association_pvalue"] <= 0.05).mean())
        found.append((adata.obs["association_qvalue"] < 0.1).any())
    assert np.mean(errors) < 0.12
    assert sum(found) <= 4


def test_the_samples_of_a_donor_are_added_up_and_time_is_compared_within_donors():
    adata = cohort(0.0, n_samples=8, visits=3)
    scratio.tl.association(adata, key="age", sample_key="sample", donor_key="donor")
    samples = adata.uns["association"]["samples"]
    assert len(samples) == 24
    assert set(samples["design"]) == {"between donors"}
    adata.obs["week"] = adata.obs["sample"].str[-1].astype(float) * 4.0
    scratio.tl.association(adata, key="week", sample_key="sample", donor_key="donor", key_added="time")
    assert set(adata.uns["time"]["samples"]["design"]) == {"within donors"}


def test_a_covariate_takes_away_what_it_explains():
    adata = cohort()
    adata.obs["copy"] = (
        adata.obs["age"] + np.random.default_rng(0).normal(0.0, 4.0, size=14)[adata.obs["donor"].str[1:].astype(int)]
    )
    scratio.tl.association(adata, key="age", sample_key="sample", covariates="~ copy", key_added="adjusted")
    scratio.tl.association(adata, key="age", sample_key="sample")
    assert adata.uns["adjusted"]["table"]["global_pvalue"][0] > adata.uns["association"]["table"]["global_pvalue"][0]


def test_samples_without_a_number_are_left_out_and_named():
    adata = cohort()
    adata.obs.loc[adata.obs["donor"] == "d03", "age"] = np.nan
    with pytest.warns(
        UserWarning, match=r"1 of 14 samples in obs\['sample'\] take no part.*age is missing or infinite: 'd03 v0'"
    ):
        scratio.tl.association(adata, key="age", sample_key="sample")
    table = adata.uns["association"]["samples"].set_index("sample")
    assert table.loc["d03 v0", "left_out"] == "age is missing or infinite"
    assert adata.uns["association"]["table"]["n_samples"][0] == 13
    assert adata.obs["association_effect"].notna().all()  # its cells have the values of their neighbourhoods


def test_few_samples_have_no_qvalues():
    adata = cohort(n_samples=5)
    with pytest.warns(UserWarning, match="5 replicates leave 3 degrees of freedom, too few for q-values"):
        scratio.tl.association(adata, key="age", sample_key="sample")
    assert adata.obs["association_qvalue"].isna().all()
    assert adata.obs["association_pvalue"].notna().all()


def test_results_can_be_copied_stored_repeated_and_summarised(tmp_path):
    adata = cohort()
    copied = scratio.tl.association(adata, key="age", sample_key="sample", copy=True)
    assert list(adata.uns) == []
    scratio.tl.association(adata, key="age", sample_key="sample")
    pd.testing.assert_frame_equal(copied.obs, adata.obs)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(
        again.uns["association"]["neighborhoods"], adata.uns["association"]["neighborhoods"], check_dtype=False
    )
    assert "(association, key 'association')" in str(scratio.tl.summary(again, key="association"))
    # A second result replaces the first, and nothing else.
    scratio.tl.association(again, key="age", sample_key="sample", random_state=1)


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        (None, {"key": "height"}, KeyError, "obs has no key 'height'"),
        (None, {"key": "donor"}, TypeError, r"obs\['donor'\] must be a column of numbers"),
        (None, {"use_rep": "X_umap"}, KeyError, "obsm has no key 'X_umap'"),
        (None, {"covariates": "~ age"}, ValueError, "names 'age', which is already part of the question"),
        (None, {"min_cells": 10_000}, ValueError, "at least 4 samples, of 2 donors, with different values"),
        ("varies", {}, ValueError, r"obs\['age'\] must be the same for all cells of a sample; 'd00 v0'"),
        ("constant", {}, ValueError, r"with different values. .* 14 samples of 14 donors .*\[50.0\]"),
        ("taken", {}, ValueError, "association_effect.*would be overwritten"),
        ("flat", {}, ValueError, "is the same for all"),
    ],
)
def test_mistakes_are_named_and_nothing_is_changed(change, kwargs, error, message, unchanged):
    adata = cohort()
    if change == "varies":
        adata.obs.iloc[0, adata.obs.columns.get_loc("age")] += 1.0
    elif change == "constant":
        adata.obs["age"] = 50.0
    elif change == "taken":
        adata.obs["association_effect"] = "mine"
    elif change == "flat":
        adata.obsm["X_pca"] = np.zeros((adata.n_obs, 2))
    with unchanged(adata), pytest.raises(error, match=message):
        scratio.tl.association(adata, **{"key": "age", "sample_key": "sample", **kwargs})


def test_donors_seen_once_say_nothing_within_donors():
    adata = cohort(0.0, n_samples=5, visits=3)
    adata.obs["week"] = adata.obs["sample"].str[-1].astype(float) * 4.0
    once = cohort(0.0, seed=1, n_samples=9)
    once.obs["donor"], once.obs["sample"] = "o" + once.obs["donor"], "o" + once.obs["sample"]
    both = anndata.concat([adata, once], index_unique="-")
    both.obs["week"] = both.obs["week"].fillna(4.0) if "week" in both.obs else 4.0
    both.obs.loc[both.obs["donor"].str[0] != "o", "week"] = adata.obs["week"].to_numpy()
    with pytest.warns(UserWarning, match="9 because its donor has no other sample"):
        scratio.tl.association(both, key="week", sample_key="sample", donor_key="donor")
    samples = both.uns["association"]["samples"]
    assert (samples["left_out"] != "").sum() == 9
    assert samples["variance_factor"].max() < 20.0


@pytest.mark.parametrize("kind", ["binary", "many zeros"])
def test_cells_at_the_same_place_are_not_counted_by_their_order(kind):
    # Sorted by sample, as files are; of equal distances a search takes the first cells.
    rng, found = np.random.default_rng(0), []
    for _ in range(4):
        obs = pd.DataFrame({"sample": np.repeat([f"s{i}" for i in range(10)], 150)})
        obs["age"] = rng.uniform(20.0, 80.0, size=10)[np.repeat(np.arange(10), 150)]
        x = rng.integers(0, 2, size=(1_500, 3)).astype(float)
        if kind == "many zeros":
            x = np.where(rng.random((1_500, 1)) < 0.3, 0.0, rng.normal(size=(1_500, 3)))
        adata = AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X_pca": x})
        scratio.tl.association(adata, key="age", sample_key="sample")
        found.append(adata.uns["association"]["table"]["global_pvalue"][0])
    assert np.median(found) > 0.1
