"""Wherever scratio deletes or replaces something: what is not its own stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

import scratio
from scratio._atomic import atomic
from scratio.model import FDRL, ScRatio
from scratio.tl import _score_file

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}
MINE = b"the user's own"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- saved models --------------------------------------------------------------------------------------------------

STRANGERS = ("weights.safetensors", "weights-best.safetensors", "weights-0123456789ab.safetensors", "notes.txt")


@pytest.mark.parametrize("overwrite", [False, True])
def test_saving_leaves_all_other_files(overwrite, models, tmp_path):
    for name in STRANGERS:
        (tmp_path / name).write_bytes(MINE)
    models[0].save(tmp_path, overwrite=overwrite)
    models[1].save(tmp_path, overwrite=True)
    found = contents(tmp_path)
    assert {name: found[name] for name in STRANGERS} == dict.fromkeys(STRANGERS, MINE)
    # Of the two models the last is there, and nothing of the first.
    assert len(found) == len(STRANGERS) + 2
    np.testing.assert_array_equal(
        ScRatio.load(tmp_path).log_ratio(models[0].adata, **CONTRAST), models[1].log_ratio(**CONTRAST)
    )


@pytest.mark.parametrize(
    "description",
    ['{"name": "another program"}', "[1, 2]", "no JSON", '{"format_version": 1, "weights": "../notes.txt"}'],
)
def test_a_description_that_is_not_scratios_is_not_replaced(description, models, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "scratio.json").write_text(description, "utf-8")
    (tmp_path / "notes.txt").write_bytes(MINE)
    with pytest.raises(FileExistsError, match="not describe a model of scratio"):
        models[0].save(folder, overwrite=True)
    assert contents(folder) == {"scratio.json": description.encode()}
    assert (tmp_path / "notes.txt").read_bytes() == MINE


def test_a_file_in_the_place_of_the_folder_is_not_replaced(models, tmp_path):
    (tmp_path / "model").write_bytes(MINE)
    with pytest.raises(FileExistsError, match="model is a file"):
        models[0].save(tmp_path / "model", overwrite=True)
    assert contents(tmp_path) == {"model": MINE}


# --- scores on disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.npy", "000000000000.npy", None])
def test_a_folder_in_the_place_of_the_chunks_is_not_taken(name, models, tmp_path):
    adata, out = models[0].adata.copy(), tmp_path / "scores.h5ad"
    folder = tmp_path / "scores.h5ad.partial"
    folder.mkdir()
    if name is not None:
        (folder / name).write_bytes(MINE)
    with pytest.raises(FileExistsError, match=r"scores\.h5ad\.partial.*not made by scratio"):
        scratio.tl.log_ratio(adata, models[0], **CONTRAST, out=out)
    assert contents(folder) == ({} if name is None else {name: MINE})
    assert not out.exists()
    assert "log_ratio" not in adata.obs


def test_what_was_put_into_the_folder_of_the_chunks_stays(models, tmp_path, monkeypatch):
    monkeypatch.setattr(_score_file, "CHUNK", 50)
    adata, out = models[0].adata.copy(), tmp_path / "scores.h5ad"
    folder, original = tmp_path / "scores.h5ad.partial", ScRatio.typicality

    def interrupted(self, *args, rows=None, **kwargs):
        if rows == slice(100, 150):
            raise KeyboardInterrupt
        return original(self, *args, rows=rows, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ScRatio, "typicality", interrupted)
        scratio.tl.log_ratio(adata, models[0], **CONTRAST, out=out)
    assert len(contents(folder)) == 3
    for name in ("notes.txt", "mine.npy"):
        (folder / name).write_bytes(MINE)
    # A write that was cut short leaves a file of scratio's.
    (folder / f".000000000100.{'0' * 32}.partial.npy").write_bytes(b"half")
    scratio.tl.log_ratio(adata, models[0], **CONTRAST, out=out)
    assert ad.read_h5ad(out).obs["log_ratio"].notna().all()
    assert contents(folder) == {"notes.txt": MINE, "mine.npy": MINE}


@pytest.mark.parametrize("kind", ["embedding on disk", "backed"])
def test_the_file_that_cells_are_read_from_is_not_replaced(kind, models, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells = ad.AnnData(
        X=np.zeros((200, 1), np.float32), obs=models[0].adata.obs[["condition"]], obsm=models[0].adata.obsm
    )
    cells.write_h5ad(path)
    lazy = scratio.io.read_lazy(path) if kind == "embedding on disk" else ad.read_h5ad(path, backed="r")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"read from .*cells\.h5ad"):
        scratio.tl.log_ratio(lazy, models[0], **CONTRAST, out=path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- checkpoints ---------------------------------------------------------------------------------------------------


def foreign(path: Path) -> None:
    """Checkpoint of somebody else's training."""
    torch.save({"state_dict": {"weight": torch.ones(3)}, "global_step": 7}, path)


@pytest.mark.parametrize("write", [foreign, lambda path: path.write_bytes(MINE)], ids=["checkpoint", "no checkpoint"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_that_is_not_scratios_is_not_replaced(resume, write, quick, tmp_path):
    adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
    path = tmp_path / "last.ckpt"
    write(path)
    before = path.read_bytes()
    for kind in (ScRatio, FDRL):
        kind.setup_anndata(adata, condition_keys=["condition"])
        settings = quick if kind is ScRatio else {"max_steps": 20, "accelerator": "cpu", "progress_bar": False}
        with pytest.raises(FileExistsError, match=r"checkpoint_dir: .*last\.ckpt is not a checkpoint of scratio"):
            kind(adata, n_hidden=8).train(**settings, checkpoint_dir=tmp_path, resume=resume)
    assert path.read_bytes() == before


def test_a_folder_of_checkpoints_is_used_again(quick, tmp_path):
    (tmp_path / "notes.txt").write_bytes(MINE)
    for seed in range(2):
        adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
        ScRatio.setup_anndata(adata, condition_keys=["condition"])
        ScRatio(adata, n_hidden=8).train(**quick, random_state=seed, checkpoint_dir=tmp_path)
    assert contents(tmp_path).keys() == {"notes.txt", "last.ckpt"}
    assert contents(tmp_path)["notes.txt"] == MINE


# --- results in an AnnData -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(quick) -> ad.AnnData:
    adata = scratio.datasets.gaussians(n_cells=240, n_dims=2, random_state=0)
    adata.obs["donor"] = np.repeat(list("abcdefgh"), [4, 8, 12, 20, 30, 40, 56, 70])
    scratio.tl.differential_abundance(adata, **GROUPS, train_kwargs=quick)
    return adata


def user_column(name: str) -> Callable[[ad.AnnData], None]:
    return lambda adata: adata.obs.__setitem__(name, "mine")


def user_matrix(adata: ad.AnnData) -> None:
    adata.obsm["da_log_ratio"] = np.ones((240, 2))


@pytest.mark.parametrize(
    ("change", "named", "question"),
    [
        (user_column("da_pvalue"), "da_pvalue", {"sample_key": "donor", "min_cells": 1}),
        (user_column("da_neighborhood"), "da_neighborhood", {"sample_key": "donor", "min_cells": 1}),
        (user_matrix, "da_log_ratio", {"treatment": None}),
    ],
    ids=["a p-value", "a neighbourhood", "a matrix"],
)
def test_a_second_analysis_replaces_only_what_the_first_has_written(change, named, question, scored, quick, unchanged):
    adata = scored.copy()
    change(adata)
    with unchanged(adata), pytest.raises(ValueError, match=f"{named}.*would be overwritten.*choose another key_added"):
        scratio.tl.differential_abundance(adata, **{**GROUPS, **question}, train_kwargs=quick)
    # Columns of the user's that the second does not write stay, whatever their prefix.
    adata.obs["da_region"] = "mine"
    scratio.tl.differential_abundance(adata, **GROUPS, train_kwargs=quick)
    assert (adata.obs["da_region"] == "mine").all()
    kept = adata.obsm[named] == 1.0 if question == {"treatment": None} else adata.obs[named] == "mine"
    assert np.all(kept)


def test_a_second_analysis_takes_away_what_only_the_first_has_written(scored, quick, tmp_path):
    adata = scored.copy()
    scratio.tl.differential_abundance(adata, **{**GROUPS, "treatment": None}, key_added="other", train_kwargs=quick)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert "other_log_ratio" in again.obsm
    scratio.tl.differential_abundance(again, **GROUPS, key_added="other", train_kwargs=quick)
    assert [key for key in again.obsm if key.startswith("other")] == []
    assert [key for key in again.obs if key.startswith("da_")] == [key for key in adata.obs if key.startswith("da_")]


def test_a_result_is_not_replaced_by_what_is_computed_from_it(scored, quick, unchanged):
    adata = scored.copy()
    scratio.tl.differential_abundance(adata, **GROUPS, sample_key="donor", min_cells=1, train_kwargs=quick)
    with (
        unchanged(adata),
        pytest.raises(ValueError, match="da_neighborhood.*computed from it; choose another key_added"),
    ):
        scratio.tl.batch_effect(adata, batch_key="da_neighborhood", use_rep="X_pca", key_added="da", train_kwargs=quick)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=8, n_members=1)
    model.train(**quick)
    ends = {"source": {"condition": "control"}, "target": {"condition": "treated"}}
    scratio.tl.translate(adata, model, **ends)
    again = {**GROUPS, "use_rep": "X_scratio", "key_added": "X_scratio"}
    adata.obsm["X_scratio"][np.isnan(adata.obsm["X_scratio"])] = 0.0
    with unchanged(adata), pytest.raises(ValueError, match="X_scratio.*computed from it"):
        scratio.tl.differential_abundance(adata, **again, train_kwargs=quick)


def test_keys_that_begin_alike_are_kept_apart(scored, quick):
    adata = scored.copy()
    adata.obs["other"] = np.where(np.arange(240) % 3 == 0, "x", adata.obs["condition"].astype(str))
    scratio.tl.differential_abundance(adata, **{**GROUPS, "condition_key": "other"}, train_kwargs=quick)
    before = str(scratio.tl.summary(adata))
    assert "160 of 240 cells; unchanged since" in before
    scratio.tl.differential_abundance(adata, **GROUPS, key_added="da_x", train_kwargs=quick)
    assert str(scratio.tl.summary(adata)) == before
    scratio.tl.differential_abundance(adata, **GROUPS, train_kwargs=quick)
    assert "da_x_log_ratio" in adata.obs


def test_a_result_of_before_this_was_recorded_says_so(scored, quick, unchanged):
    adata = scored.copy()
    del adata.uns["da"]["written"]
    with unchanged(adata), pytest.raises(ValueError, match="da_log_ratio.*older scratio.*delete them first"):
        scratio.tl.differential_abundance(adata, **GROUPS, train_kwargs=quick)


def test_joined_results_say_how_to_run_again(scored, quick, unchanged):
    joined = ad.concat([scored, scored], index_unique="-")
    with (
        unchanged(joined),
        pytest.raises(ValueError, match=r"da_log_ratio.*anndata\.concat drops it.*delete them first"),
    ):
        scratio.tl.differential_abundance(joined, **GROUPS, train_kwargs=quick)
    joined = ad.concat([scored, scored], index_unique="-", uns_merge="first")
    scratio.tl.differential_abundance(joined, **GROUPS, train_kwargs=quick)
    assert joined.uns["da"]["data"]["n_cells"] == 480


# --- whole or not at all -------------------------------------------------------------------------------------------


def test_a_file_is_flushed_by_what_may_write_to_it(tmp_path, monkeypatch):
    # Windows refuses to flush what is open for reading alone.
    flushed = []
    original = os.fsync

    def fsync(number: int) -> None:
        os.write(number, b"")  # raises EBADF where that is so
        flushed.append(number)
        original(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic(tmp_path / "file") as partial:
        partial.write_bytes(MINE)
    assert len(flushed) == 1
    assert contents(tmp_path) == {"file": MINE}
