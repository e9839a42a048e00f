"""Tables of results: their rows, their types, also after writing and reading; modalities of a MuData."""

from __future__ import annotations

import random
import warnings

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype

import scratio

GETTERS = {
    name: getattr(scratio.get, name)
    for name in ("table", "diagnostics", "calibration", "neighborhoods", "regions", "samples")
}
QUESTION = {"condition_key": "condition", "treatment": None, "reference": "control", "effort": "quick"}


def cells() -> AnnData:
    """Two drugs and a control, unequal donors; drug "1" has more cells of type b."""
    rng = np.random.default_rng(0)
    sizes = {"control": [60, 90, 40, 70], "1": [50, 30, 80, 60], "2": [40, 60, 50, 45]}
    parts = []
    for condition, donors in sizes.items():
        for number, size in enumerate(donors):
            is_b = rng.uniform(size=size) < (0.8 if condition == "1" else 0.2)
            parts.append(pd.DataFrame({"condition": condition, "donor": f"{condition}-{number}", "is_b": is_b}))
    obs = pd.concat(parts, ignore_index=True)
    obs["type"] = np.where(obs.pop("is_b"), "b", "a")
    x = 4.0 * (obs["type"] == "b").to_numpy()[:, None] + rng.normal(size=(len(obs), 2))
    return AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X_pca": x})


@pytest.fixture(scope="module")
def scored() -> AnnData:
    adata = cells()
    scratio.tl.differential_abundance(adata, **QUESTION, sample_key="donor")
    scratio.tl.regions(adata, annotation_key="type", group="1")
    return adata


@pytest.mark.parametrize("name", GETTERS)
def test_a_table_is_a_copy_with_the_rows_that_are_stored(name, scored):
    stored = scored.uns["da"][name]
    found = GETTERS[name](scored)
    pd.testing.assert_frame_equal(found, stored.reset_index(drop=True), check_dtype=False)
    found.iloc[:, 0] = "changed"
    assert not (scored.uns["da"][name].iloc[:, 0] == "changed").any()


@pytest.mark.parametrize("name", GETTERS)
def test_a_group_has_its_own_rows_and_may_be_named_by_a_number(name, scored):
    every = GETTERS[name](scored)
    own = GETTERS[name](scored, group=1)
    pd.testing.assert_frame_equal(own, every[every["treatment"] == "1"].reset_index(drop=True))
    assert len(own) > 0
    with pytest.raises(KeyError, match="'3'.*found.*'1'"):
        GETTERS[name](scored, group="3")


@pytest.mark.filterwarnings("ignore:Writing zarr")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.parametrize("max_qvalue", [0.1, 1e-12])
def test_a_file_returns_the_tables_with_their_types(form, max_qvalue, scored, tmp_path):
    adata = scored.copy()
    scratio.tl.regions(adata, annotation_key="type", group="1", max_qvalue=max_qvalue)
    assert (len(scratio.get.regions(adata)) == 0) == (max_qvalue < 0.1)
    getattr(adata, f"write_{form}")(tmp_path / f"cells.{form}")
    again = (anndata.read_h5ad if form == "h5ad" else anndata.read_zarr)(tmp_path / f"cells.{form}")
    for name, getter in GETTERS.items():
        found, before = getter(again), getter(adata)
        pd.testing.assert_frame_equal(found, before, check_dtype=False)
        for column in before:
            kinds = [
                (is_bool_dtype(t), is_integer_dtype(t), is_float_dtype(t)) for t in (found[column], before[column])
            ]
            assert kinds[0] == kinds[1], (name, column)


def test_samples_of_a_region_are_counted(scored):
    found = scratio.get.samples(scored, region="b", group="1").set_index("sample")
    obs = scored.obs[scored.obs["condition"] != "2"]
    inside = (obs["da_region"] == "b").groupby(obs["donor"], observed=True).sum()
    sizes = obs["donor"].value_counts()
    assert sorted(found.index) == sorted(sizes.index)
    np.testing.assert_array_equal(found["n_inside"], inside[found.index])
    np.testing.assert_array_equal(found["n_cells"], sizes[found.index])
    np.testing.assert_allclose(found["share"], inside[found.index] / sizes[found.index])
    share = found.groupby("group")["share"].mean()
    assert share["treatment"] > 0.6 > 0.4 > share["reference"]
    with pytest.raises(KeyError, match="no region 'c'.*'a', 'b'|no region 'c'.*'b', 'a'"):
        scratio.get.samples(scored, region="c")


@pytest.mark.parametrize(
    ("name", "named"),
    [("neighborhoods", "sample_key"), ("samples", "sample_key"), ("regions", "sample_key")],
)
def test_a_table_that_was_not_computed_is_refused_with_the_way_to_it(name, named):
    adata = cells()
    scratio.tl.differential_abundance(adata, **QUESTION)
    with pytest.raises(KeyError, match=named):
        GETTERS[name](adata)
    with pytest.raises(KeyError, match="no result of scratio under 'other'.*'da'"):
        GETTERS[name](adata, key="other")


def test_regions_that_were_not_looked_for_are_refused_by_the_call_that_finds_them():
    adata = cells()
    scratio.tl.differential_abundance(adata, **QUESTION, sample_key="donor")
    with pytest.raises(KeyError, match=r"scratio\.tl\.regions"):
        scratio.get.regions(adata)


def test_other_analyses_have_their_main_table():
    adata = cells()
    scratio.tl.batch_effect(adata, batch_key="condition", train_kwargs={"max_steps": 20, "progress_bar": False})
    assert set(scratio.get.table(adata, key="batch_effect")["by"]) == {"all", "condition"}
    for name in ("diagnostics", "neighborhoods", "regions"):
        # Not "pass sample_key", which this analysis does not take.
        with pytest.raises(KeyError, match="is of the analysis 'batch_effect', which has no table") as refused:
            GETTERS[name](adata, key="batch_effect")
        assert "sample_key" not in str(refused.value)
    with pytest.raises(KeyError, match="is of the analysis 'batch_effect' and has no table 'diagnostics'"):
        scratio.pl.calibration(adata, key="batch_effect")


def test_log_ratios_of_several_embeddings_are_found_by_the_keys_that_the_refusal_names():
    adata = cells()
    adata.obsm["X_other"] = adata.obsm["X_pca"] + 1.0
    representations = ["X_pca", "X_other"]
    scratio.tl.batch_effect(adata, batch_key="condition", use_rep=representations, train_kwargs={"effort": "quick"})
    keys = r"Keys with log ratios: \['batch_effect_X_pca', 'batch_effect_X_other'\]"
    with pytest.raises(KeyError, match=keys):
        scratio.pl.violin(adata, groupby="donor", key="batch_effect")
    assert scratio.pl.violin(adata, groupby="donor", key="batch_effect_X_other") is not None
    plt.close("all")


# --- a modality of a MuData ------------------------------------------------------------------------------------------


@pytest.fixture
def mdata() -> MuData:
    # MuData draws from the global generator, and warns of columns that both modalities have.
    state = random.getstate()
    with warnings.catch_warnings(action="ignore"):
        made = MuData({"rna": cells(), "protein": cells()})
    random.setstate(state)
    return made


def test_a_modality_is_analysed_in_place(mdata):
    alone = cells()
    scratio.tl.differential_abundance(alone, **QUESTION)
    assert scratio.tl.differential_abundance(mdata, **QUESTION, mod="rna") is None
    pd.testing.assert_series_equal(mdata["rna"].obs["da_log_ratio"], alone.obs["da_log_ratio"])
    assert "da" not in mdata["protein"].uns
    pd.testing.assert_frame_equal(scratio.get.table(mdata, mod="rna"), scratio.get.table(alone))
    assert scratio.tl.summary(mdata, mod="rna").title == scratio.tl.summary(alone).title


def test_a_modality_has_to_be_named_and_to_exist(mdata):
    with pytest.raises(TypeError, match=r"mod='rna'.*mdata\['rna'\], mdata\['protein'\]"):
        scratio.tl.differential_abundance(mdata, **QUESTION)
    with pytest.raises(KeyError, match="no modality 'atac'.*'rna', 'protein'"):
        scratio.tl.differential_abundance(mdata, **QUESTION, mod="atac")
    with pytest.raises(TypeError, match="mod='rna' is for a MuData.*AnnData"):
        scratio.get.table(cells(), mod="rna")
