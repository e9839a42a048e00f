"""Regions of significant cells: what is joined, how it is named, who agrees."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scratio

CENTRES = np.array([[0.0, 0.0], [2.5, 0.0], [30.0, 0.0], [0.0, 30.0], [30.0, 30.0]])
"""Neighbourhoods: the first two touch, the others are far from everything."""
EFFECTS, QVALUES = np.array([1.0, 1.0, 1.0, -1.0, 1.0]), np.array([0.01, 0.05, 0.02, 0.03, 0.5])
TYPES = ["T", "T", "B", "B", "NK"]


def judged(*, paired: bool = False, per_place: int = 80) -> AnnData:
    """Cells with a result made up by hand: five neighbourhoods, eight samples or pairs."""
    rng = np.random.default_rng(0)
    place = np.repeat(np.arange(5), per_place)
    x = CENTRES[place] + rng.normal(size=(len(place), 2)) * 0.7
    sample = np.arange(len(place)) % 8
    is_case = np.arange(len(place)) // 8 % 2 == 0 if paired else sample < 4
    obs = pd.DataFrame(
        {
            "donor": [f"d{s}" for s in sample],
            "group": np.where(is_case, "case", "control"),
            "type": np.array(TYPES)[place],
            "da_log_ratio": EFFECTS[place] * 0.5,
            "da_neighborhood": place.astype(str),
        },
        index=[f"cell{i}" for i in range(len(place))],
    )
    table = pd.DataFrame(
        {
            "neighborhood": [str(i) for i in range(5)],
            "n_cells": per_place,
            "effect": EFFECTS,
            "familywise_pvalue": QVALUES / 2,
            "qvalue": QVALUES,
            "treatment": "case",
        }
    )
    samples = obs.groupby(["donor", "group"], as_index=False).size().rename(columns={"size": "n_cells"})
    samples["group"] = samples["group"].map({"case": "treatment", "control": "reference"})
    design = "within donors" if paired else "between donors"
    samples = samples.assign(sample=samples["donor"], treatment="case", design=design, left_out="")
    params = {"use_rep": "X_pca", "sample_key": "donor", "condition_key": "group", "reference": "control"}
    diagnostics = pd.DataFrame({"treatment": ["case"]})
    uns = {"scratio": {}, "params": params, "neighborhoods": table, "samples": samples, "diagnostics": diagnostics}
    return AnnData(obs=obs, obsm={"X_pca": x}, uns={"da": uns})


def table_of(adata: AnnData) -> pd.DataFrame:
    return adata.uns["da"]["regions"].set_index("region")


def test_neighbourhoods_that_touch_are_joined_and_named_by_their_cells():
    adata = judged()
    scratio.tl.regions(adata, annotation_key="type")
    table = table_of(adata)
    assert list(table.index) == ["T", "B 1", "B 2"]
    np.testing.assert_array_equal(table["n_cells"], [160, 80, 80])
    np.testing.assert_array_equal(table["n_neighborhoods"], [2, 1, 1])
    np.testing.assert_allclose(table["mean_log_ratio"], [0.5, 0.5, -0.5])
    np.testing.assert_allclose(table["effect"], [1.0, 1.0, -1.0])
    np.testing.assert_allclose(table["qvalue"], [0.01, 0.02, 0.03])
    np.testing.assert_allclose(table["familywise_pvalue"], [0.005, 0.01, 0.015])
    expected = np.array(["T", "T", "B 1", "B 2", None], dtype=object)[np.repeat(np.arange(5), 80)]
    found = adata.obs["da_region"]
    np.testing.assert_array_equal(found.isna(), pd.isna(expected))
    np.testing.assert_array_equal(found.dropna().astype(str), expected[~pd.isna(expected)])


def test_what_touches_but_goes_the_other_way_is_another_region():
    adata = judged()
    adata.uns["da"]["neighborhoods"].loc[1, "effect"] = -1.0
    scratio.tl.regions(adata, annotation_key="type")
    assert list(table_of(adata).index) == ["T 1", "T 2", "B 1", "B 2"]


def test_the_level_decides_what_is_significant():
    adata = judged()
    scratio.tl.regions(adata, annotation_key="type", max_qvalue=0.02)
    assert list(table_of(adata).index) == ["T", "B"]
    scratio.tl.regions(adata, annotation_key="type", max_qvalue=0.6)
    assert "NK" in table_of(adata).index
    scratio.tl.regions(adata, max_qvalue=0.001)
    assert table_of(adata).empty
    assert adata.obs["da_region"].isna().all()


def test_a_table_without_regions_has_the_types_of_one_with_them(tmp_path):
    some, none = judged(), judged()
    scratio.tl.regions(some, annotation_key="type")
    scratio.tl.regions(none, annotation_key="type", max_qvalue=1e-9)
    table, empty = some.uns["da"]["regions"], none.uns["da"]["regions"]
    assert (len(table), len(empty)) == (3, 0)
    assert dict(empty.dtypes) == dict(table.dtypes)
    # What is found later is added to it.
    scratio.tl.regions(none, annotation_key="type")
    pd.testing.assert_frame_equal(none.uns["da"]["regions"], table)
    scratio.tl.regions(none, annotation_key="type", max_qvalue=1e-9)
    none.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad").uns["da"]["regions"]
    numbers = list(table.select_dtypes("number"))
    assert dict(again[numbers].dtypes) == dict(table[numbers].dtypes)


def test_without_annotation_regions_are_numbered():
    adata = judged()
    scratio.tl.regions(adata)
    assert list(table_of(adata).index) == ["region 1", "region 2", "region 3"]
    assert table_of(adata)["annotation_share"].isna().all()


@pytest.mark.parametrize("paired", [False, True])
def test_samples_that_agree_are_counted(paired):
    adata = judged(paired=paired)
    # In the second place of "T" (cells 80 to 159) six of the eight samples have more cells of cases.
    kept = np.ones(adata.n_obs, dtype=bool)
    is_case, sample = (adata.obs["group"] == "case").to_numpy(), adata.obs["donor"].str[1:].astype(int).to_numpy()
    in_region = np.arange(adata.n_obs) < 160
    if paired:
        kept &= ~(in_region & np.where(sample < 6, ~is_case, is_case) & (np.arange(adata.n_obs) % 3 > 0))
    else:
        thinned = np.isin(sample, [3, 4, 5, 6])  # a case with few, and three of the four controls
        kept &= ~(in_region & thinned & (np.arange(adata.n_obs) % 16 < 8))
    adata = adata[kept].copy()
    scratio.tl.regions(adata, annotation_key="type")
    assert table_of(adata).loc["T", "n_samples"] == 8
    assert table_of(adata).loc["T", "samples_agreeing"] == 6


def test_regions_are_found_in_a_real_result_and_can_be_stored(tmp_path):
    rng = np.random.default_rng(1)
    parts = []
    for donor in range(12):
        log_share = np.r_[1.2 if donor < 6 else -1.2, np.zeros(5)] + rng.normal(0.0, 0.2, 6)
        kind = rng.choice(6, size=100, p=np.exp(log_share) / np.exp(log_share).sum())
        group = "case" if donor < 6 else "control"
        parts.append(pd.DataFrame({"donor": f"d{donor:02d}", "group": group, "kind": kind}))
    obs = pd.concat(parts, ignore_index=True).set_axis([f"cell{i}" for i in range(1_200)])
    x = 8.0 * np.eye(6)[obs["kind"]] + rng.normal(size=(1_200, 6))
    obs["kind"] = "type " + obs["kind"].astype(str)
    adata = AnnData(obs=obs, obsm={"X_pca": x})
    scratio.tl.differential_abundance(
        adata,
        condition_key="group",
        treatment="case",
        reference="control",
        sample_key="donor",
        n_folds=2,
        model_kwargs={"n_hidden": 8, "n_members": 1},
        train_kwargs={"max_steps": 10, "progress_bar": False},
    )
    before = adata.copy()
    assert scratio.tl.regions(adata, annotation_key="kind", copy=True) is not None
    assert list(adata.obs) == list(before.obs)
    scratio.tl.regions(adata, annotation_key="kind")
    first = table_of(adata).loc["type 0"]
    is_first = (adata.obs["kind"] == "type 0").to_numpy()
    assert (adata.obs["da_region"][is_first] == "type 0").mean() > 0.9
    assert first["annotation_share"] > 0.9
    assert first["effect"] > 1.0
    assert first["samples_agreeing"] == 12
    adata.write_h5ad(tmp_path / "cells.h5ad")


@pytest.mark.parametrize(
    ("spoil", "kwargs", "error", "message"),
    [
        (lambda a: a.uns.clear(), {}, KeyError, "has no test across samples"),
        (lambda a: a.uns["da"].pop("neighborhoods"), {}, KeyError, "sample_key"),
        (lambda a: None, {"annotation_key": "typ"}, KeyError, "no key 'typ'; found: .*'type'"),
        (lambda a: None, {"group": "stim"}, KeyError, "no group 'stim'; found: .'case'"),
        (lambda a: None, {"max_qvalue": 10.0}, ValueError, "between 0 and 1"),
        (lambda a: a.obs.insert(0, "da_region", "mine"), {}, ValueError, "would be overwritten"),
        (lambda a: a.uns["da"]["neighborhoods"].__setitem__("qvalue", np.nan), {}, ValueError, "too few samples"),
    ],
)
def test_mistakes_are_named(spoil, kwargs, error, message):
    adata = judged()
    spoil(adata)
    before = adata.copy()
    with pytest.raises(error, match=message):
        scratio.tl.regions(adata, **kwargs)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert list(adata.uns.get("da", {})) == list(before.uns.get("da", {}))


# --- names and samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "name", "share", "covered"),
    [
        ({"T": 70, "B": 10}, "T", 70 / 80, 70 / 80),
        ({"T": 44, "B": 36}, "B + T", 1.0, 1.0),
        ({"T": 36, "B": 19, "NK": 18, "DC": 7}, "T (45%)", 36 / 80, 36 / 46),
        ({"a": 16, "b": 16, "c": 16, "d": 16, "e": 16}, "mixed", 16 / 80, 1.0),
        ({"T": 20, "B": 60}, "B + T", 1.0, 80 / 90),
    ],
)
def test_a_region_is_named_by_every_label_that_holds_a_quarter_of_it(counts, name, share, covered):
    adata = judged()
    labels = np.repeat(list(counts), list(counts.values()))
    # Ten cells of "T" lie elsewhere.
    elsewhere = np.r_[np.full(10, "T"), np.full(70, "other")] if "T" in counts and covered < 1.0 else ["other"] * 80
    adata.obs["type"] = np.r_[["x"] * 160, labels, elsewhere, ["other"] * 80]
    scratio.tl.regions(adata, annotation_key="type", max_qvalue=0.02)
    row = table_of(adata).loc[name]
    assert row["annotation_share"] == pytest.approx(share)
    assert row["annotation_covered"] == pytest.approx(covered)


@pytest.mark.parametrize("paired", [False, True])
def test_the_cells_of_every_sample_in_a_region_are_counted(paired):
    adata = judged(paired=paired)
    adata = adata[np.random.default_rng(2).uniform(size=adata.n_obs) < 0.7].copy()
    samples = adata.obs.groupby(["donor", "group"]).size()
    names = {"treatment": "case", "reference": "control"}
    stored = adata.uns["da"]["samples"]
    stored["n_cells"] = [
        samples[donor, names[group]] for donor, group in zip(stored["donor"], stored["group"], strict=True)
    ]
    stored.loc[0, "left_out"] = "too few cells"
    scratio.tl.regions(adata, annotation_key="type")
    found = adata.uns["da"]["region_samples"]
    assert list(found["region"].unique()) == list(table_of(adata).index)
    assert len(found) == 3 * (len(stored) - 1)
    for row in found.itertuples():
        own = adata.obs[(adata.obs["donor"] == row.sample) & (adata.obs["group"] == names[row.group])]
        assert (row.n_cells, row.n_inside) == (len(own), (own["da_region"] == row.region).sum())
        assert row.share == row.n_inside / row.n_cells
    scratio.tl.regions(adata, annotation_key="type", max_qvalue=1e-9)
    empty = adata.uns["da"]["region_samples"]
    assert len(empty) == 0 and dict(empty.dtypes) == dict(found.dtypes)
