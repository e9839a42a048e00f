"""Training cells are scored out of fold wherever they lie: in copies, parts and files, and by saved models."""

from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch

import scratio
from scratio import OWN
from scratio.model import ScRatio
from scratio.scoring import KnownCells

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
OWN_CONTRAST = {"numerator": {"condition": OWN}, "denominator": {}}


@pytest.fixture(scope="module")
def folded(parametrization, quick) -> ScRatio:
    adata = scratio.datasets.gaussians(n_cells=150, n_dims=2, random_state=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, parametrization=parametrization, n_hidden=8, n_members=2, n_folds=3)
    model.train(**{**quick, "validation_size": 0.1})
    return model


@pytest.fixture(scope="module")
def new(folded) -> ad.AnnData:
    """As many cells that the model was not trained on."""
    return scratio.datasets.gaussians(n_cells=150, n_dims=2, random_state=1)


def as_frame(adata):
    adata.obsm["X_pca"] = pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names)
    return adata


def as_single(adata):
    adata.obsm["X_pca"] = adata.obsm["X_pca"].astype(np.float32)
    return adata


def as_dask(adata):
    adata.obsm["X_pca"] = da.from_array(adata.obsm["X_pca"], chunks=(40, 2))
    return adata


def renamed(adata):
    adata.obs_names = [f"another_{name}" for name in adata.obs_names]
    return adata


FORMS = {"copy": lambda adata: adata, "frame": as_frame, "single": as_single, "dask": as_dask, "renamed": renamed}


@pytest.mark.parametrize("contrast", [CONTRAST, OWN_CONTRAST], ids=["named", "own"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_copy_has_the_scores_of_the_training_cells(folded, form, contrast):
    expected = folded.log_ratio(**contrast, return_std=True)
    found = folded.log_ratio(form(folded.adata.copy()), **contrast, return_std=True)
    for values, known in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(values), known, rtol=1e-4, atol=1e-6)


def test_some_of_them_in_another_order_are_still_themselves(folded):
    rows = np.random.default_rng(0).permutation(150)[:70]
    found = folded.log_ratio(folded.adata[rows].copy(), **OWN_CONTRAST)
    np.testing.assert_allclose(found, folded.log_ratio(**OWN_CONTRAST)[rows], rtol=1e-4, atol=1e-6)


def test_a_network_that_saw_a_cell_has_no_part_in_the_score_of_its_copy(folded):
    cells = folded.adata.copy()
    before = folded.log_ratio(cells, **CONTRAST)
    with torch.no_grad():
        kept = [p.clone() for p in folded.module.parameters()]
        for parameter in folded.module.parameters():
            parameter[2:4] = torch.nan  # the members of fold 1
        spoilt = folded.log_ratio(cells, **CONTRAST)
        for parameter, value in zip(folded.module.parameters(), kept, strict=True):
            parameter.copy_(value)
    np.testing.assert_array_equal(np.isnan(spoilt), folded.folds == 1)
    np.testing.assert_array_equal(spoilt[folded.folds != 1], before[folded.folds != 1])


def test_beside_new_cells_each_is_scored_as_it_would_be_alone(folded, new):
    both = ad.concat([new, folded.adata], keys=["new", "known"], index_unique="-")
    mean, error = folded.log_ratio(both, **CONTRAST, return_std=True)
    alone = folded.log_ratio(new, **CONTRAST, return_std=True)
    own = folded.log_ratio(**CONTRAST, return_std=True)
    for values, first, second in zip((mean, error), alone, own, strict=True):
        np.testing.assert_allclose(values, np.concatenate([first, second]), rtol=1e-4, atol=1e-6)


def test_cells_that_are_not_quite_the_same_are_new(folded):
    cells = folded.adata.copy()
    cells.obsm["X_pca"] = cells.obsm["X_pca"] + 1e-4
    near = folded.log_ratio(cells, **CONTRAST)
    assert np.abs(near - folded.log_ratio(**CONTRAST)).max() > 1e-3
    np.testing.assert_array_equal(folded.known.folds_of(cells.obsm["X_pca"], otherwise=-1), -1)


def test_a_saved_model_without_cells_knows_them(folded, tmp_path):
    folded.save(tmp_path / "model")
    loaded = ScRatio.load(tmp_path / "model")
    assert loaded.adata is None
    some = folded.adata[20:90].copy()
    np.testing.assert_allclose(
        loaded.log_ratio(some, **CONTRAST), folded.log_ratio(**CONTRAST)[20:90], rtol=1e-4, atol=1e-6
    )
    # And hands its knowledge on.
    loaded.save(tmp_path / "again")
    np.testing.assert_array_equal(
        ScRatio.load(tmp_path / "again").log_ratio(some, **CONTRAST), loaded.log_ratio(some, **CONTRAST)
    )


def test_a_model_of_before_keys_were_kept_keeps_its_folds(folded, tmp_path, monkeypatch):
    monkeypatch.setattr(folded, "known", None)
    model = folded
    for name in ("model", "again"):
        model.save(tmp_path / name)
        model = ScRatio.load(tmp_path / name, folded.adata)
        assert model.known is None
        np.testing.assert_array_equal(model.folds, folded.folds)


def test_gradients_and_translations_are_out_of_fold_too(folded, new):
    ends = {"source": CONTRAST["denominator"], "target": CONTRAST["numerator"]}
    gradient, moved = folded.log_ratio_gradient(**CONTRAST), folded.translate(**ends, n_steps=4)
    both = ad.concat([new, folded.adata], keys=["new", "known"], index_unique="-")
    for cells, part in ((folded.adata.copy(), slice(None)), (both, slice(150, None))):
        np.testing.assert_allclose(
            folded.log_ratio_gradient(cells, **CONTRAST)[:, part], gradient, rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(folded.translate(cells, **ends, n_steps=4)[part], moved, rtol=1e-3, atol=1e-5)
    assert len(folded.log_ratio_gradient(new, **CONTRAST)) == 6  # all networks


def test_the_tool_scores_a_part_of_the_training_cells_out_of_fold(folded):
    some = folded.adata[:60].copy()
    scratio.tl.log_ratio(some, folded, **CONTRAST)
    np.testing.assert_allclose(some.obs["log_ratio"], folded.log_ratio(**CONTRAST)[:60], rtol=1e-4, atol=1e-6)


def test_a_model_without_folds_knows_no_cells(trained):
    assert trained.known is None


def test_a_cell_is_known_by_its_values_alone():
    x = np.array([[0.0, 1.0], [2.0, 3.0], [2.0, 3.0], [1e300, 5.0]])
    known = KnownCells.of(x, np.array([4, 1, 2, 3]))
    asked = np.array([[-0.0, 1.0], [2.0, 3.0], [1.0, 0.0], [3.0, 2.0], [1e301, 5.0], [2.0, 3.0 + 1e-12]])
    # Of twins the first counts; beyond single precision all is infinite, and the last differs less than it can.
    np.testing.assert_array_equal(known.folds_of(asked, otherwise=-1), [4, 1, -1, -1, 3, 1])


def test_a_million_cells_have_a_million_keys():
    x = np.random.default_rng(0).integers(0, 100, (1_000_000, 5))
    distinct = len(np.unique(x @ 100 ** np.arange(5)))
    assert len(np.unique(KnownCells.of(x, np.zeros(len(x))).keys)) == distinct
