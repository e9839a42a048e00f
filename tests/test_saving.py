"""Models on disk: the same bits back, nothing in the folder that could be executed, no silent overwriting."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import scratio
from scratio.model import ScRatio

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}


@pytest.fixture(scope="module")
def folded(parametrization, quick) -> ScRatio:
    """A cross-fitted model with keys of every kind."""
    adata = scratio.datasets.gaussians(n_cells=120, n_dims=2, random_state=0)
    adata.obs["dose"] = np.random.default_rng(0).normal(3.0, 2.0, 120)
    adata.obs["donor"] = np.arange(120) % 3
    ScRatio.setup_anndata(adata, condition_keys=["condition"], continuous_keys=["dose"], sample_key="donor")
    model = ScRatio(adata, parametrization=parametrization, n_hidden=8, n_members=2, n_folds=2, sigma=0.1)
    model.train(**quick)
    return model


@pytest.fixture
def folder(folded, tmp_path):
    path = tmp_path / "model"
    folded.save(path)
    return path


def test_a_loaded_model_gives_the_same_bits(folded, folder):
    loaded = ScRatio.load(folder, folded.adata)
    for contrast in (CONTRAST, {"numerator": {"dose": 1.0, "donor": scratio.OWN}, "denominator": {"donor": 2}}):
        mean, std = folded.log_ratio(**contrast, return_std=True)
        again = loaded.log_ratio(**contrast, return_std=True)
        np.testing.assert_array_equal(again[0], mean)
        np.testing.assert_array_equal(again[1], std)
    np.testing.assert_array_equal(loaded.sample(5, condition={}), folded.sample(5, condition={}))


def test_a_model_loaded_without_cells_scores_new_ones(folded, folder):
    loaded = ScRatio.load(folder)
    cells = folded.adata.copy()
    np.testing.assert_array_equal(loaded.log_ratio(cells, **CONTRAST), folded.log_ratio(cells, **CONTRAST))
    with pytest.raises(ValueError, match="adata"):
        loaded.log_ratio(**CONTRAST)


def test_training_cells_are_scored_out_of_fold_after_loading(folded, folder):
    loaded = ScRatio.load(folder, folded.adata.copy())
    np.testing.assert_array_equal(loaded.log_ratio(**CONTRAST), folded.log_ratio(**CONTRAST))


def test_other_cells_are_scored_by_all_networks_after_loading(folded, folder):
    cells = folded.adata[::-1].copy()
    loaded = ScRatio.load(folder, cells)
    np.testing.assert_array_equal(loaded.log_ratio(**CONTRAST), folded.log_ratio(cells, **CONTRAST))


def test_history_and_training_are_kept(folded, folder):
    loaded = ScRatio.load(folder)
    assert loaded.training_ == folded.training_
    for name, frame in folded.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], frame, check_exact=True)


def test_an_untrained_model_stays_untrained(gaussian_cells, parametrization, tmp_path):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1).save(tmp_path / "model")
    with pytest.raises(RuntimeError, match="train"):
        ScRatio.load(tmp_path / "model", gaussian_cells).log_ratio(**CONTRAST)


def test_the_folder_holds_text_and_plain_arrays_alone(folder):
    assert sorted(file.suffix for file in folder.iterdir()) == [".json", ".safetensors"]
    assert not any(b"pickle" in file.read_bytes() for file in folder.iterdir())
    description = json.loads(next(folder.glob("*.json")).read_text("utf-8"))
    assert description["schema"]["categories"] == {"condition": ["control", "treated"], "donor": ["0", "1", "2"]}
    assert description["obsm_key"] == "X_pca"
    # Names of cells do not leave the machine with the model; coordinates of up to 10,000 do, to judge others by.
    assert "cell0" not in next(folder.glob("*.json")).read_text("utf-8")


def test_loading_does_not_unpickle(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled something")

    for name in ("torch.load", "pickle.load", "pickle.loads", "numpy.load"):
        monkeypatch.setattr(name, refuse)
    assert ScRatio.load(folder).is_trained


def test_saving_refuses_to_overwrite_a_model(folded, folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        folded.save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_saving_overwrites_when_told_to(folded, folder, gaussian_cells, parametrization, quick):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    other = ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1)
    other.train(**quick)
    other.save(folder, overwrite=True)
    loaded = ScRatio.load(folder, gaussian_cells)
    np.testing.assert_array_equal(loaded.log_ratio(**CONTRAST), other.log_ratio(**CONTRAST))


@pytest.mark.parametrize("version", [99, "2", None])
def test_a_newer_or_unknown_format_is_refused(folder, version):
    file = next(folder.glob("*.json"))
    description = json.loads(file.read_text("utf-8"))
    description["format_version"] = version
    file.write_text(json.dumps(description), "utf-8")
    with pytest.raises(ValueError, match="format version"):
        ScRatio.load(folder)


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def one_bit_flipped(folder: Path) -> None:
    content = bytearray(weights_of(folder).read_bytes())
    content[-9] ^= 1
    weights_of(folder).write_bytes(content)


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))


SPOILT = {
    "one bit of the weights": (one_bit_flipped, ValueError, "changed or cut off"),
    "weights cut off": (lambda f: weights_of(f).write_bytes(weights_of(f).read_bytes()[:-100]), ValueError, "cut off"),
    "empty weights": (lambda f: weights_of(f).write_bytes(b""), ValueError, "cut off"),
    "pickled weights": (lambda f: pickled(weights_of(f)), ValueError, "changed or cut off"),
    "pickled description": (lambda f: pickled(f / "scratio.json"), ValueError, "does not describe a model"),
    "description cut off": (
        lambda f: (f / "scratio.json").write_text((f / "scratio.json").read_text("utf-8")[:200], "utf-8"),
        ValueError,
        "does not describe a model",
    ),
    "a list as description": (
        lambda f: (f / "scratio.json").write_text("[1, 2]", "utf-8"),
        ValueError,
        "does not describe",
    ),
    "somebody else's JSON": (
        lambda f: (f / "scratio.json").write_text('{"name": "x"}', "utf-8"),
        ValueError,
        "format version",
    ),
    "a settings missing": (lambda f: without(f, "settings"), ValueError, "settings"),
    "weights elsewhere": (lambda f: replaced(f, "weights", "../../../etc/passwd"), FileNotFoundError, "passwd"),
}


def without(folder: Path, name: str) -> None:
    description = json.loads((folder / "scratio.json").read_text("utf-8"))
    del description[name]
    (folder / "scratio.json").write_text(json.dumps(description), "utf-8")


def replaced(folder: Path, name: str, value: str) -> None:
    description = json.loads((folder / "scratio.json").read_text("utf-8"))
    (folder / "scratio.json").write_text(json.dumps({**description, name: value}), "utf-8")


@pytest.mark.parametrize(("spoil", "error", "said"), SPOILT.values(), ids=SPOILT.keys())
def test_files_that_were_tampered_with_are_refused(folder, spoil, error, said):
    spoil(folder)
    with pytest.raises(error, match=said):
        ScRatio.load(folder)


def test_a_model_of_the_first_format_still_scores():
    # Written by commit 19549b2, with what it found for three points.
    model = ScRatio.load(Path(__file__).parent / "data" / "model_format_1")
    points = ad.AnnData(obsm={"X_pca": np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 2.0]])})
    np.testing.assert_allclose(
        model.log_ratio(points, **CONTRAST),
        [-0.008228182792663574, -0.0073223114013671875, -0.0073778629302978516],
        atol=1e-5,
    )


def test_a_model_of_the_second_format_still_scores():
    # Written by commit 21364be, when all members trained under the shares of all cells.
    model = ScRatio.load(Path(__file__).parent / "data" / "model_format_2")
    points = ad.AnnData(obsm={"X_pca": np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 2.0]])})
    contrast = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
    expected = [-0.7786304354667664, 0.9913124889135361, 0.17045874893665314]
    np.testing.assert_allclose(model.log_ratio(points, **contrast), expected, atol=1e-4)


def test_a_folder_without_a_model_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="empty"):
        ScRatio.load(tmp_path / "empty")
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match="safetensors"):
        ScRatio.load(folder)


def test_cells_that_do_not_fit_are_refused_at_loading(folded, folder):
    cells = folded.adata.copy()
    cells.obs["donor"] = "nobody"
    with pytest.raises(ValueError, match="donor.*nobody"):
        ScRatio.load(folder, cells)
    del cells.obsm["X_pca"]
    with pytest.raises(KeyError, match="X_pca"):
        ScRatio.load(folder, cells)


def test_saving_leaves_the_model_as_it_was(folded, tmp_path):
    before = [p.detach().clone() for p in folded.module.parameters()]
    folded.save(tmp_path / "model")
    assert all(torch.equal(p, b) for p, b in zip(folded.module.parameters(), before, strict=True))


def test_own_stays_one_object_through_copies():
    import copy
    import pickle

    for twin in (copy.copy(scratio.OWN), copy.deepcopy(scratio.OWN), pickle.loads(pickle.dumps(scratio.OWN))):
        assert twin is scratio.OWN
