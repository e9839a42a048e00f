"""The command line: the library's numbers in files, a message and an exit code for whatever goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from scipy import sparse
from typer.testing import CliRunner

import scratio
from scratio import OWN, Rest, tl
from scratio.cli import _cells, _conditions, _plots, _summary, app
from scratio.cli._options import Method, SeveralValues
from scratio.io import read_lazy
from scratio.model import ScRatio
from scratio.scoring import METHODS

TRAINING = {"max_steps": 2, "batch_size": 64, "accelerator": "cpu", "progress_bar": True}
QUICK = "--n-folds 2 --max-steps 2 --batch-size 64 --accelerator cpu --random-state 3".split()
SETTINGS = {"n_folds": 2, "train_kwargs": TRAINING, "random_state": 3}
DA = ["--condition-key", "condition", "--treatment", "treated", "--reference", "control"]
SCORE = ["--numerator", "condition=treated", "donor=OWN", "--denominator", "condition=control", "donor=OWN"]
DOCS = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def cells(n: int = 240) -> ad.AnnData:
    """Cells with all that an analysis could ask for, and all that none may touch."""
    adata = scratio.datasets.gaussians(n_cells=n, n_dims=2, random_state=0)
    place = np.arange(n)
    adata.obs["donor"] = np.array(["d1", "d2"])[place % 2]
    adata.obs["sample"] = np.array(list("abcdefgh"))[place % 8]
    adata.obs["drug"] = np.array(["none", "a", "b", "a+b"])[place % 4]
    adata.obs["dose"] = np.linspace(0.0, 1.0, n)
    rng = np.random.default_rng(0)
    whole = ad.AnnData(
        X=sparse.random(n, 5, density=0.4, format="csr", random_state=0),
        obs=adata.obs,
        obsm={"X_pca": adata.obsm["X_pca"], "X_turned": adata.obsm["X_pca"] @ np.array([[0.6, -0.8], [0.8, 0.6]])},
        layers={"counts": rng.poisson(1.0, (n, 5)).astype(np.float32)},
        obsp={"connectivities": sparse.identity(n, format="csr")},
        uns={"mine": {"colours": np.array(["red", "blue"])}},
    )
    whole.obsm["X_umap"] = whole.obsm["X_pca"][:, ::-1] * 2.0
    whole.strings_to_categoricals()
    return whole


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cells().write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model(source: Path) -> Path:
    """Folder of a cross-fitted model of the cells."""
    adata = ad.read_h5ad(source)
    ScRatio.setup_anndata(adata, condition_keys=["condition", "donor"], continuous_keys=["dose"])
    fitted = ScRatio(adata, n_folds=2, n_members=2, n_hidden=8)
    # What early stopping keeps of so few steps is a network that knows of no difference.
    fitted.train(**{**TRAINING, "max_steps": 20}, early_stopping=False)
    fitted.save(source.parent / "model")
    return source.parent / "model"


def invoke(*args: Any) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def refused(result: Any, code: int = 2) -> str:
    """Message of a command that must have ended with an error, and not by accident."""
    assert result.exit_code == code, result.stderr
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if "partial" in path.name]


def fake(column: str = "da_log_ratio") -> Callable[..., None]:
    """A tool that trains nothing: log ratio 1 in every cell, and what it was called with."""

    def tool(adata: ad.AnnData, **kwargs: Any) -> None:
        tool.calls.append(kwargs)  # type: ignore[attr-defined]
        adata.obs[column] = 1.0
        adata.obs[column.replace("log_ratio", "support")] = True
        adata.obs[column.replace("log_ratio", "neighborhood")] = pd.Categorical(["7"] * adata.n_obs)
        params = {"combination": np.array(["a+b"])}
        key = column.removesuffix("_log_ratio")
        if not isinstance(kwargs.get("treatment", ""), str):
            for kind in ("log_ratio", "support"):
                adata.obsm[f"{key}_{kind}"] = pd.DataFrame({"a": adata.obs[f"{key}_{kind}"]})
        adata.uns[key] = {"scratio": {"scratio": "0"}, "analysis": "fake", "params": params, "data": {}}

    tool.calls = []  # type: ignore[attr-defined]
    return tool


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces differential abundance by what trains nothing."""
    tool = fake()
    monkeypatch.setattr(tl, "differential_abundance", tool)
    return tool


def breaks(error: BaseException) -> Callable[..., None]:
    def tool(adata: ad.AnnData, **kwargs: Any) -> None:
        raise error

    return tool


# --- the library's numbers -----------------------------------------------------------------------------------------

ANALYSES: dict[str, tuple[list[str], str, dict[str, Any], str, str]] = {
    "da": (
        ["da", *DA, "--sample-key", "sample", "--covariate-key", "donor", "--min-cells", "3"],
        "differential_abundance",
        {"condition_key": "condition", "treatment": "treated", "reference": "control", "sample_key": "sample",
         "covariate_keys": ["donor"], "min_cells": 3},
        "da",
        ".png",
    ),
    "groups": (
        ["da", "--condition-key", "drug", "--treatment", "a", "--treatment", "b", "--reference", "rest",
         "--key-added", "drugs", "--basis", "X_turned"],
        "differential_abundance",
        {"condition_key": "drug", "treatment": ["a", "b"], "reference": "rest", "key_added": "drugs"},
        "drugs",
        ".png",
    ),
    "batch": (
        ["batch", "--batch-key", "donor", "--label-key", "condition", "--use-rep", "X_pca", "--use-rep", "X_turned"],
        "batch_effect",
        {"batch_key": "donor", "label_key": "condition", "use_rep": ["X_pca", "X_turned"]},
        "batch_effect",
        ".pdf",
    ),
    "combination": (
        ["combination", "--condition-key", "drug", "--combination", "a+b", "--reference", "none"],
        "combination_effect",
        {"condition_keys": "drug", "combination": "a+b", "reference": "none"},
        "combination",
        ".svg",
    ),
    "response": (
        ["response", "--treatment-key", "condition", "--donor-key", "donor", "--reference", "control"],
        "treatment_response",
        {"treatment_key": "condition", "donor_key": "donor", "reference": "control"},
        "response",
        ".png",
    ),
}  # fmt: skip


class Run:
    """A command that was run with everything it can write, and the same by the library."""

    def __init__(self, name: str, source: Path, folder: Path) -> None:
        arguments, tool, question, self.key, suffix = ANALYSES[name]
        self.command, self.tool, self.question = arguments[0], tool, question
        self.source, self.before = source, digest(source)
        self.out, self.plot, self.json = folder / "out.h5ad", folder / f"plot{suffix}", folder / "summary.json"
        written = ["--out", self.out, "--plot", self.plot, "--json", self.json]
        self.result = invoke(arguments[0], source, *arguments[1:], *QUICK, *written)
        assert self.result.exit_code == 0, self.result.output
        self.written = ad.read_h5ad(self.out)
        expected = ad.read_h5ad(source)
        getattr(tl, tool)(expected, **question, **SETTINGS)
        expected.write_h5ad(folder / "expected.h5ad")
        self.expected = ad.read_h5ad(folder / "expected.h5ad")
        self.summary = strict_json(self.json.read_text(encoding="utf-8"))


def strict_json(text: str) -> dict[str, Any]:
    def forbidden(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=forbidden)


@pytest.fixture(scope="module", params=ANALYSES)
def run(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(request.param, source, tmp_path_factory.mktemp(request.param))


def test_results_are_those_of_the_library_to_the_last_bit(run):
    added = [name for name in run.expected.obs if name.startswith(f"{run.key}_")]
    assert f"{run.key}_support" in added or run.command == "batch"
    assert any(run.expected.obs[name].nunique() > 20 for name in added), "nothing was estimated"
    pd.testing.assert_frame_equal(run.written.obs, run.expected.obs, check_exact=True)
    assert list(run.written.obsm) == list(run.expected.obsm)
    for key, value in run.expected.obsm.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(run.written.obsm[key], value, check_exact=True)
        else:
            np.testing.assert_array_equal(run.written.obsm[key], value)
    assert _summary.plain(run.written.uns[run.key]) == _summary.plain(run.expected.uns[run.key])


def test_nothing_else_of_the_file_has_changed(run):
    assert digest(run.source) == run.before
    with h5py.File(run.source) as before, h5py.File(run.out) as after:
        names: list[str] = []
        before.visit(names.append)
        for name in names:
            assert name in after
            if isinstance(before[name], h5py.Dataset):
                np.testing.assert_array_equal(after[name][()], before[name][()])
        added = set()
        after.visit(lambda name: added.add(name) if name not in before else None)
    assert {name.split("/")[0] for name in added} <= {"obs", "obsm", "uns"}
    assert all(name.split("/")[1].startswith(run.key) for name in added)
    assert not left_over(run.out.parent)


def test_the_summary_says_what_was_asked_and_on_how_many_cells(run):
    found = run.summary
    assert (found["command"], found["analysis"]) == (run.command, run.tool)
    assert (found["input"], found["output"], found["key_added"]) == (str(run.source), str(run.out), run.key)
    assert found["parameters"]["random_state"] == 3
    assert found["parameters"]["train_kwargs"] == TRAINING
    for name, value in run.question.items():
        # The record has the combinations as a list, and no name of the result.
        if name not in {"key_added", "combination", "condition_keys"}:
            assert found["parameters"][name] == value
    assert found["n_cells"] == 240
    for key, sizes in found["n_cells_by_key"].items():
        assert sizes == run.expected.obs[key].value_counts().to_dict()
    assert found["versions"]["scratio"] == scratio.__version__
    assert found["seconds"] > 0.0


def parts(run: Run) -> dict[str, list[pd.Series]]:
    """Log ratio, support and q-value of every comparison, from the file."""
    obs, obsm = run.written.obs, run.written.obsm
    if run.key == "drugs":
        return {name: [obsm["drugs_log_ratio"][name], obsm["drugs_support"][name]] for name in ("a", "b")}
    prefixes = {
        "da": {"treated": "da"},
        "batch": {"X_pca": "batch_effect_X_pca", "X_turned": "batch_effect_X_turned"},
        "combination": {"a+b": "combination"},
        "response": {"response": "response"},
    }[run.command]
    kinds = ("log_ratio", "support", "qvalue")
    return {
        name: [obs[f"{prefix}_{kind}"] for kind in kinds if f"{prefix}_{kind}" in obs]
        for name, prefix in prefixes.items()
    }


def test_the_summary_has_the_numbers_of_the_file(run):
    expected = parts(run)
    assert [row["name"] for row in run.summary["results"]] == list(expected)
    for row, (values, support, *qvalue) in zip(run.summary["results"], expected.values(), strict=True):
        scored = values.dropna()
        assert row["n_scored"] == len(scored) > 0
        assert row["mean"] == pytest.approx(scored.mean(), rel=1e-9)
        for level, value in row["quantiles"].items():
            assert value == pytest.approx(scored.quantile(float(level)), rel=1e-9)
        assert row["n_supported"] == support.sum()
        assert row["n_significant"] == ((qvalue[0] <= 0.1).sum() if qvalue else None)
        assert row["fdr"] == (0.1 if qvalue else None)
    record = run.written.uns[run.key]
    shown = {name for name in ("table", "summary", "diagnostics") if name in record}
    assert run.summary["tables"].keys() == shown
    for name in shown:
        assert len(run.summary["tables"][name]) == len(record[name])
        assert list(run.summary["tables"][name][0]) == list(record[name].columns)


def test_a_parameter_that_was_not_given_is_null_in_json(run):
    absent = [name for name, value in run.summary["parameters"].items() if value is None]
    expected = {"drugs": ["sample_key", "covariates", "donor_key"], "da": ["covariates", "donor_key"]}
    assert absent == expected.get(run.key, [])
    assert "None" not in run.summary["parameters"].values()


def test_the_table_has_a_row_for_every_comparison(run):
    for row in run.summary["results"]:
        line = next(line for line in run.result.stdout.splitlines() if line.startswith(f"│ {row['name']} "))
        assert f"{row['n_scored']} " in line
        assert f"{row['mean']:.2f}" in line
    assert "Wrote" in run.result.stderr
    assert "Warning" not in run.result.stderr
    for row in run.summary["tables"].get("diagnostics", []):
        assert row["verdict"][:40] in run.result.stdout


def test_the_figure_is_not_blank(run):
    if run.plot.suffix == ".png":
        image = imread(run.plot)[..., :3]
        assert min(image.shape[:2]) > 200
        assert (image < 0.9).any(axis=2).mean() > 0.01
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    elif run.plot.suffix == ".svg":
        text = run.plot.read_text(encoding="utf-8")
        assert text.count("<path") > 5
        assert "second treatment" in text
    else:
        content = run.plot.read_bytes()
        assert content.startswith(b"%PDF")
        assert content.count(b"stream") > 4


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "removed", "expected"),
    [([], [], "X_umap"), ([], ["X_umap"], "X_pca"), (["--basis", "X_turned"], [], "X_turned")],
    ids=["umap", "embedding", "asked for"],
)
def test_a_figure_is_of_the_coordinates_asked_for_or_there(
    arguments, removed, expected, tmp_path, no_training, monkeypatch
):
    adata = cells()
    for key in removed:
        del adata.obsm[key]
    adata.write_h5ad(tmp_path / "in.h5ad")
    seen = {}
    monkeypatch.setattr(_plots, "draw", lambda result, coordinates, path: seen.update(coordinates))
    paths = ["--out", tmp_path / "out.h5ad", "--plot", tmp_path / "plot.png"]
    assert invoke("da", tmp_path / "in.h5ad", *DA, *paths, *arguments).exit_code == 0
    assert list(seen) == [expected]
    np.testing.assert_array_equal(seen[expected], adata.obsm[expected][:, :2])


def test_an_embedding_of_one_dimension_cannot_be_drawn(tmp_path, no_training):
    adata = cells()
    del adata.obsm["X_umap"]
    adata.obsm["X_pca"] = adata.obsm["X_pca"][:, :1]
    adata.write_h5ad(tmp_path / "in.h5ad")
    arguments = ["da", tmp_path / "in.h5ad", *DA, "--out", tmp_path / "out.h5ad"]
    message = refused(invoke(*arguments, "--plot", tmp_path / "plot.png"))
    assert "fewer than two dimensions" in message
    assert no_training.calls == []
    assert invoke(*arguments).exit_code == 0


def test_capital_letters_in_the_suffix_of_a_figure(source, tmp_path, no_training):
    result = invoke("da", source, *DA, "--out", tmp_path / "out.h5ad", "--plot", tmp_path / "plot.PNG")
    assert result.exit_code == 0, result.stderr
    assert imread(tmp_path / "plot.PNG", format="png").std() > 0.01


# --- the matrix itself, and what cannot be read --------------------------------------------------------------------


@pytest.mark.parametrize("backed", [[], ["--backed"]], ids=["memory", "backed"])
def test_the_matrix_itself_can_be_the_embedding(backed, tmp_path):
    adata = cells()
    markers = ad.AnnData(X=adata.obsm["X_pca"].copy(), obs=adata.obs, var=pd.DataFrame(index=["CD4", "CD8"]))
    markers.write_h5ad(tmp_path / "in.h5ad")
    arguments = [*DA, *QUICK, "--use-rep", "X", "--out", tmp_path / "out.h5ad", "--plot", tmp_path / "plot.png"]
    result = invoke("da", tmp_path / "in.h5ad", *arguments, *backed)
    assert result.exit_code == 0, result.stderr
    if backed:
        # Batches come in another order from disk.
        markers = read_lazy(tmp_path / "in.h5ad", obsm_key="X")
    tl.differential_abundance(markers, **ANALYSES["da"][2] | {"sample_key": None, "covariate_keys": []}, **SETTINGS,
                              use_rep="X")  # fmt: skip
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(written.obs["da_log_ratio"], markers.obs["da_log_ratio"])
    assert list(written.obsm) == []
    assert imread(tmp_path / "plot.png").std() > 0.01


def test_a_sparse_matrix_is_refused_as_embedding(source, tmp_path, no_training):
    result = invoke("da", source, *DA, "--use-rep", "X", "--out", tmp_path / "out.h5ad")
    assert "X is sparse; a dense embedding is needed" in refused(result)
    assert no_training.calls == []


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("name", ["cells.zarr", "cells"])
@pytest.mark.parametrize("command", ["da", "score"])
def test_a_zarr_store_is_told_how_to_become_a_file(command, name, model, tmp_path, no_training):
    cells().write_zarr(tmp_path / name)
    further = DA if command == "da" else ["--model", model, *SCORE]
    said = refused(invoke(command, tmp_path / name, *further, "--out", tmp_path / "out.h5ad"))
    assert f"{tmp_path / name} is a zarr store; an .h5ad file is needed: write it with anndata.read_zarr(" in said
    # The line of code in the message does what it says.
    exec(re.search(r"write it with (.*)", said)[1], {"anndata": ad})
    assert invoke("da", tmp_path / "cells.h5ad", *DA, "--out", tmp_path / "out.h5ad").exit_code == 0


def test_a_fault_of_a_reader_is_not_called_a_damage_of_the_file(source, tmp_path, monkeypatch, no_training):
    def broken(*args, **kwargs):
        raise AttributeError("'Group' object has no attribute 'shape'")

    monkeypatch.setattr(_cells, "read_elem", broken)
    said = refused(invoke("da", source, *DA, "--out", tmp_path / "out.h5ad"))
    assert f"cannot be read with anndata {ad.__version__}: AttributeError: 'Group' object" in said
    assert "If anndata.read_h5ad reads it, this is a fault of scratio" in said
    assert "may be damaged" not in said


def test_files_with_labels_as_any_version_writes_them_are_read(tmp_path, no_training):
    # Newer versions write text as groups of values and a mask, which older ones do for nullable text.
    adata = cells()
    for name, dtype in (("condition", "string"), ("donor", object), ("sample", "category")):
        adata.obs[name] = adata.obs[name].astype(dtype)
    with ad.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad") as file:
        assert isinstance(file["obs/condition"], h5py.Group)
    result = invoke("da", tmp_path / "in.h5ad", *DA, "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.stderr
    found = ad.read_h5ad(tmp_path / "out.h5ad").obs
    assert list(found["condition"]) == list(adata.obs["condition"])
    lazy = scratio.io.read_lazy(tmp_path / "in.h5ad", obs_keys=["condition", "sample"])
    assert list(lazy.obs["condition"]) == list(adata.obs["condition"])
    assert list(lazy.obs_names) == list(adata.obs_names)


# --- a saved model -------------------------------------------------------------------------------------------------

CONTRAST = {
    "numerator": {"condition": "treated", "donor": OWN},
    "denominator": {"condition": "control", "donor": OWN},
}


@pytest.mark.parametrize("are_training_cells", [True, False])
def test_scores_are_those_of_the_library_out_of_fold_for_training_cells(are_training_cells, source, model, tmp_path):
    adata = ad.read_h5ad(source)
    if not are_training_cells:
        adata.obs_names = [f"new{k}" for k in range(adata.n_obs)]
        adata.obsm["X_pca"] = adata.obsm["X_pca"] + 0.01
        adata.write_h5ad(tmp_path / "new.h5ad")
    path = source if are_training_cells else tmp_path / "new.h5ad"
    out, summary = tmp_path / "out.h5ad", tmp_path / "summary.json"
    plot = tmp_path / "plot.png"
    result = invoke("score", path, "--model", model, *SCORE, "--std", "--out", out, "--json", summary, "--plot", plot)
    assert result.exit_code == 0, result.stderr
    loaded = ScRatio.load(model, adata)
    tl.log_ratio(adata, loaded, **CONTRAST, return_std=True)
    written = ad.read_h5ad(out)
    pd.testing.assert_frame_equal(written.obs, adata.obs, check_exact=True)
    blind = ScRatio.load(model)
    blind.known = None
    in_fold = blind.log_ratio(adata, **CONTRAST)
    assert np.array_equal(written.obs["log_ratio"], in_fold) is not are_training_cells
    found = strict_json(summary.read_text(encoding="utf-8"))
    assert found["parameters"]["numerator"] == {"condition": "treated", "donor": "OWN"}
    assert found["parameters"]["model"] == str(model)
    assert found["n_cells_by_key"].keys() == {"condition", "donor"}
    assert found["data"] == _summary.plain(adata.uns["log_ratio"]["data"])
    assert found["results"][0]["mean"] == pytest.approx(adata.obs["log_ratio"].mean())
    assert found["results"][0]["n_supported"] == adata.obs["log_ratio_support"].sum()
    assert imread(plot).std() > 0.01


def test_scores_are_computed_on_the_accelerator_that_is_named(source, model, tmp_path, monkeypatch):
    out = tmp_path / "out.h5ad"
    result = invoke("score", source, "--model", model, *SCORE, "--accelerator", "cpu", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert ad.read_h5ad(out).uns["log_ratio"]["params"]["accelerator"] == "cpu"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    result = invoke("score", source, "--model", model, *SCORE, "--accelerator", "cuda", "--out", tmp_path / "no.h5ad")
    assert result.exit_code == 2
    assert "PyTorch finds no device 'cuda' on this machine" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "no.h5ad").exists()


def test_cells_that_are_scored_stay_on_disk(source, model, tmp_path, monkeypatch):
    score, seen = tl.log_ratio, []

    def watched(adata, *args, **kwargs):
        seen.append((adata.n_obs, type(adata.obsm["X_pca"]), kwargs.get("out")))
        return score(adata, *args, **kwargs)

    monkeypatch.setattr(tl, "log_ratio", watched)
    result = invoke("score", source, "--model", model, *SCORE, "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.stderr
    assert seen == [(240, h5py.Dataset, tmp_path / "out.h5ad")]
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert len(written.obsm) == 0
    assert written.X is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--numerator", "condition=treated"], ({"condition": "treated"}, {})),
        (["--numerator", "condition=treated", "--denominator", ""], ({"condition": "treated"}, {})),
        (["--denominator=condition=control"], ({}, {"condition": "control"})),
        (["--numerator=condition=treated", "dose=0.5"], ({"condition": "treated", "dose": 0.5}, {})),
        (["--numerator", "dose=OWN", "--numerator", "donor=OWN"], ({"dose": OWN, "donor": OWN}, {})),
        (
            ["--numerator", "condition=treated", "--denominator", "condition=REST:treated"],
            ({"condition": "treated"}, {"condition": Rest("treated")}),
        ),
        (["--numerator", "donor=OWN", "--denominator", "donor=REST:OWN"], ({"donor": OWN}, {"donor": Rest(OWN)})),
    ],
)
def test_conditions_reach_the_library_as_dicts(arguments, expected, source, model, tmp_path, monkeypatch):
    seen = []

    def fake_log_ratio(adata, model, *, numerator, denominator, key_added, method, out=None, **kwargs):
        seen.append((numerator, denominator))
        adata.obs[key_added], adata.obs[f"{key_added}_support"] = 0.0, True
        adata.uns[key_added] = {"scratio": {}, "analysis": "log_ratio", "params": {}, "data": {}}

    monkeypatch.setattr(tl, "log_ratio", fake_log_ratio)
    result = invoke("score", source, "--model", model, *arguments, "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.stderr
    assert seen == [expected]


BAD_SCORES = {
    "no contrast": ([], "both empty; nothing to compare"),
    "the same twice": (["--numerator", "donor=d1", "--denominator", "donor=d1"], "nothing to compare"),
    "no sign": (["--numerator", "condition"], "--numerator takes key=value, got 'condition'"),
    "no value": (["--numerator", "condition="], "--numerator takes key=value, got 'condition='"),
    "no key": (["--denominator", "=control"], "--denominator takes key=value, got '=control'"),
    "a key twice": (["--numerator", "donor=d1", "donor=d2"], "names 'donor' twice: 'd1' and 'd2'"),
    "unknown key": (["--numerator", "batch=1"], "names 'batch', which is not registered"),
    "unknown category": (["--numerator", "condition=nope"], "has no category 'nope'; found: ['control', 'treated']"),
    "no number": (["--numerator", "dose=high"], "'dose' is continuous and takes a finite number, got 'high'"),
    "infinite": (["--numerator", "dose=inf"], "takes a finite number, got 'inf'"),
    "rest of a number": (["--numerator", "dose=REST:1"], "takes a finite number"),
    "unknown method": (["--numerator", "donor=d1", "--method", "magic"], "magic"),
    "a taken column": (["--numerator", "donor=d1", "--key-added", "dose"], "obs['dose'] would be overwritten"),
    "a folder for a name": (["--numerator", "donor=d1", "--key-added", "a/b"], "--key-added must be a name"),
}


@pytest.mark.parametrize("name", BAD_SCORES)
def test_a_contrast_that_cannot_be_scored_is_refused_and_leaves_nothing(name, source, model, tmp_path):
    arguments, expected = BAD_SCORES[name]
    out = tmp_path / "out.h5ad"
    assert expected in refused(invoke("score", source, "--model", model, *arguments, "--out", out))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_loaded_is_refused(source, model, tmp_path):
    def message(folder: Path) -> str:
        return refused(invoke("score", source, "--model", folder, *SCORE, "--out", tmp_path / "out.h5ad"))

    assert "holds no scratio model" in message(tmp_path)
    assert "holds no scratio model" in message(tmp_path / "nowhere")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "scratio.json").write_bytes((model / "scratio.json").read_bytes()[:500])
    assert "does not describe a model" in message(damaged)
    (damaged / "scratio.json").write_bytes((model / "scratio.json").read_bytes())
    (weights,) = model.glob("*.safetensors")
    (damaged / weights.name).write_bytes(weights.read_bytes()[:-50])
    assert "changed or cut off" in message(damaged)
    settings_file = damaged / "scratio.json"
    settings_file.write_text(
        json.dumps(json.loads(settings_file.read_text("utf-8")) | {"settings": {"n_hidden": "many"}}), "utf-8"
    )
    (damaged / weights.name).write_bytes(weights.read_bytes())
    assert "cannot be loaded" in message(damaged)


def test_cells_that_do_not_fit_the_model_are_refused(source, model, tmp_path):
    adata = ad.read_h5ad(source)
    adata.obsm["X_pca"] = np.ones((240, 3))
    adata.write_h5ad(tmp_path / "wide.h5ad")
    result = invoke("score", tmp_path / "wide.h5ad", "--model", model, *SCORE, "--out", tmp_path / "out.h5ad")
    assert "has 3 dimensions; the model was trained on 2" in refused(result)
    del adata.obsm["X_pca"]
    adata.write_h5ad(tmp_path / "without.h5ad")
    result = invoke("score", tmp_path / "without.h5ad", "--model", model, *SCORE, "--out", tmp_path / "out.h5ad")
    assert "obsm has no key 'X_pca'; found: ['X_turned', 'X_umap']" in refused(result)


def test_input_is_never_replaced_by_scores(source, model, tmp_path):
    path = tmp_path / "in.h5ad"
    path.write_bytes(source.read_bytes())
    message = refused(invoke("score", path, "--model", model, *SCORE, "--out", path, "--force"))
    assert "does not hold everything that INPUT does" in message
    assert digest(path) == digest(source)


# --- arguments -----------------------------------------------------------------------------------------------------

MAPPING: dict[str, tuple[list[str], str, str, dict[str, Any]]] = {
    "one treatment": (
        ["da", *DA],
        "differential_abundance",
        "da_log_ratio",
        {"condition_key": "condition", "treatment": "treated", "reference": "control", "use_rep": "X_pca",
         "covariate_keys": [], "sample_key": None, "key_added": "da", "n_folds": 5, "method": "auto",
         "effort": "default", "random_state": 0, "train_kwargs": {"progress_bar": True}},
    ),
    "all treatments": (
        ["da", "--condition-key", "drug", "--reference", "none", "--covariate-key", "donor", "--covariate-key",
         "sample", "--use-rep", "X_turned", "--key-added", "x", "--random-state", "7", "--n-folds", "3", "--method",
         "ode", "--effort", "quick", "--max-steps", "9", "--batch-size", "11", "--accelerator", "cpu"],
        "differential_abundance",
        "x_log_ratio",
        {"condition_key": "drug", "treatment": None, "reference": "none", "use_rep": "X_turned",
         "covariate_keys": ["donor", "sample"], "sample_key": None, "key_added": "x", "n_folds": 3, "method": "ode",
         "effort": "quick", "random_state": 7,
         "train_kwargs": {"max_steps": 9, "batch_size": 11, "accelerator": "cpu", "progress_bar": True}},
    ),
    "batch by default": (
        ["batch", "--batch-key", "donor"],
        "batch_effect",
        "batch_effect_log_ratio",
        {"batch_key": "donor", "label_key": None, "use_rep": ["X_pca"], "key_added": "batch_effect"},
    ),
    "several combinations": (
        ["combination", "--condition-key", "drug", "--combination", "a+b", "--reference", "none"],
        "combination_effect",
        "combination_log_ratio",
        {"condition_keys": "drug", "combination": "a+b", "reference": "none"},
    ),
    "two columns": (
        ["combination", "--condition-key", "drug", "--condition-key", "donor", "--combination", "a+b+d2",
         "--reference", "none+d1"],
        "combination_effect",
        "combination_log_ratio",
        {"condition_keys": ["drug", "donor"], "combination": ("a+b", "d2"), "reference": ("none", "d1")},
    ),
    "two columns, two combinations": (
        ["combination", "--condition-key", "drug", "--condition-key", "donor", "--combination", "a+d2",
         "--combination", "b+d2", "--reference", "none+d1"],
        "combination_effect",
        "combination_log_ratio",
        {"condition_keys": ["drug", "donor"], "combination": [("a", "d2"), ("b", "d2")], "reference": ("none", "d1")},
    ),
    "response": (
        ["response", "--treatment-key", "drug", "--donor-key", "donor", "--reference", "none"],
        "treatment_response",
        "response_log_ratio",
        {"treatment_key": "drug", "donor_key": "donor", "reference": "none", "use_rep": "X_pca"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPPING)
def test_options_reach_the_library_under_their_names(name, source, tmp_path, monkeypatch):
    arguments, tool, column, expected = MAPPING[name]
    recorder = fake(column)
    monkeypatch.setattr(tl, tool, recorder)
    result = invoke(arguments[0], source, *arguments[1:], "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.output
    (called,) = recorder.calls
    assert {name: called[name] for name in expected} == expected


def test_the_embedding_is_in_memory_or_on_disk_as_asked_for(source, tmp_path, monkeypatch):
    seen = []

    def tool(adata, **kwargs):
        seen.append((type(adata.obsm["X_pca"]), adata.X, list(adata.layers)))
        fake()(adata, **kwargs)

    monkeypatch.setattr(tl, "differential_abundance", tool)
    for backed in ([], ["--backed"]):
        result = invoke("da", source, *DA, "--out", tmp_path / "out.h5ad", "--force", *backed)
        assert result.exit_code == 0, result.output
    assert seen == [(np.ndarray, None, []), (h5py.Dataset, None, [])]


def test_training_from_disk_gives_results_for_every_cell(source, tmp_path):
    out = tmp_path / "out.h5ad"
    result = invoke("da", source, *DA, *QUICK, "--backed", "--out", out)
    assert result.exit_code == 0, result.output
    found, truth = ad.read_h5ad(out).obs["da_log_ratio"], cells().obs["true_log_ratio"]
    assert np.corrcoef(found, truth)[0, 1] > 0.9


def test_methods_are_those_of_the_model():
    assert [method.value for method in Method] == list(METHODS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--numerator", "a=1", "b=2", "--out", "x"], ["--numerator", "a=1", "--numerator", "b=2", "--out", "x"]),
        (["--numerator", "a=1", "in.h5ad", "b=2"], ["--numerator", "a=1", "in.h5ad", "b=2"]),
        (["--numerator=a=1", "b=2"], ["--numerator=a=1", "--numerator", "b=2"]),
        (["--out", "x=1", "y=2"], ["--out", "x=1", "y=2"]),
        (["--numerator", "a=1", "--", "b=2"], ["--numerator", "a=1", "--", "b=2"]),
        (["--numerator"], ["--numerator"]),
    ],
)
def test_further_values_belong_to_the_condition_before(given, expected, monkeypatch):
    seen = []
    monkeypatch.setattr(SeveralValues.__base__, "parse_args", lambda self, ctx, args: seen.append(args) or args)
    SeveralValues(name="score").parse_args(None, given)
    assert seen == [expected]


NO_NUL = st.characters(exclude_characters="\x00", exclude_categories=("Cs",))
"""What an argument of a process can hold: the system ends it at the first zero."""
WORD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@given(st.dictionaries(WORD.filter(lambda key: "=" not in key), WORD, max_size=4))
@settings(max_examples=100, deadline=None)
def test_conditions_are_read_as_they_are_written(condition):
    texts = [f"{key}={value}" for key, value in condition.items()]
    assert _conditions.parse_pairs("--numerator", texts) == condition


@given(st.lists(WORD, min_size=1, max_size=4), st.lists(WORD, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_pair_is_found_where_it_is_the_only_one(firsts, seconds):
    text = f"{firsts[0]}+{seconds[0]}"
    ways = {(a, b) for a in firsts for b in seconds if f"{a}+{b}" == text}
    if len(ways) == 1:
        assert _conditions.split_pair("--combination", text, firsts, seconds) == (firsts[0], seconds[0])
    else:
        with pytest.raises(Exception, match="--combination takes first"):
            _conditions.split_pair("--combination", text, firsts, seconds)


# --- refusals ------------------------------------------------------------------------------------------------------


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no cells, by what is wrong with them, and what is said of them."""
    rng = np.random.default_rng(0)
    (folder / "empty.h5ad").touch()
    (folder / "noise.h5ad").write_bytes(rng.bytes(5_000))
    (folder / "table.csv").write_text("cell,condition\nc1,treated\n", "utf-8")
    with h5py.File(folder / "other.h5ad", "w") as file:
        file["x"] = np.arange(5)
    with h5py.File(folder / "group.h5ad", "w") as file:
        file.create_group("obs")
        file.create_group("obsm")
    with h5py.File(folder / "old.h5ad", "w") as file:
        file["obs"] = np.zeros(3, dtype=[("index", "S5"), ("condition", "i1")])
        file.create_group("obsm")
    no_cells = cells()[:0].copy()
    no_cells.write_h5ad(folder / "none.h5ad")
    (folder / "folder.h5ad").mkdir()
    return {
        "missing": (folder / "nowhere.h5ad", "there is no file"),
        "a folder": (folder / "folder.h5ad", "is a folder"),
        "empty": (folder / "empty.h5ad", "is not an .h5ad file, or is damaged"),
        "noise": (folder / "noise.h5ad", "is not an .h5ad file, or is damaged"),
        "text": (folder / "table.csv", "is not an .h5ad file, or is damaged"),
        "other HDF5": (folder / "other.h5ad", "holds no cells: it has no obs"),
        "empty groups": (folder / "group.h5ad", "holds no cells: its obs is not a table"),
        "older than 0.7": (folder / "old.h5ad", "older than 0.7"),
        "no cells": (folder / "none.h5ad", "holds no cells"),
    }


@pytest.mark.parametrize("command", ["da", "score"])
def test_files_that_hold_no_cells_are_refused(command, tmp_path, model, no_training):
    further = DA if command == "da" else ["--model", model, *SCORE]
    for path, expected in bad_files(tmp_path).values():
        message = refused(invoke(command, path, *further, "--out", tmp_path / "out.h5ad"))
        assert expected in message
        assert path.name in message
    assert no_training.calls == []


BAD_ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "no command": ([], "Usage"),
    "unknown command": (["dance"], "dance"),
    "no input": (["da"], "INPUT"),
    "no condition": (["da", "IN", "--reference", "control", "--out", "OUT"], "--condition-key"),
    "no out": (["da", "IN", *DA], "--out"),
    "unknown option": (["da", "IN", *DA, "--out", "OUT", "--folds", "3"], "--folds"),
    "an argument too many": (["da", "IN", *DA, "--out", "OUT", "more"], "more"),
    "one fold": (["da", "IN", *DA, "--out", "OUT", "--n-folds", "1"], "n-folds"),
    "no whole number": (["da", "IN", *DA, "--out", "OUT", "--max-steps", "few"], "max-steps"),
    "a negative seed": (["da", "IN", *DA, "--out", "OUT", "--random-state", "-1"], "random-state"),
    "unknown method": (["da", "IN", *DA, "--out", "OUT", "--method", "magic"], "magic"),
    "unknown accelerator": (["da", "IN", *DA, "--out", "OUT", "--accelerator", "abacus"], "abacus"),
    "loud and quiet": (["da", "IN", *DA, "--out", "OUT", "-q", "-v"], "exclude each other"),
    "no h5ad": (["da", "IN", *DA, "--out", "out.csv"], "--out must name an .h5ad file, got 'out.csv'"),
    "no folder": (["da", "IN", *DA, "--out", "nowhere/out.h5ad"], "there is no folder nowhere"),
    "unknown suffix": (["da", "IN", *DA, "--out", "OUT", "--plot", "plot.gif"], "--plot must end in .pdf, .png, .svg"),
    "no folder for the plot": (["da", "IN", *DA, "--out", "OUT", "--plot", "no/plot.png"], "there is no folder no"),
    "no folder for the summary": (["da", "IN", *DA, "--out", "OUT", "--json", "no/x.json"], "there is no folder no"),
    "a folder for the summary": (["da", "IN", *DA, "--out", "OUT", "--json", "."], "is a folder"),
    "one file twice": (["da", "IN", *DA, "--out", "OUT", "--json", "OUT"], "must be different files"),
    "unknown basis": (["da", "IN", *DA, "--out", "OUT", "--plot", "x.png", "--basis", "X_no"], "no key 'X_no'"),
    "empty key": (["da", "IN", *DA, "--out", "OUT", "--key-added", ""], "--key-added must be a name"),
    "unknown column": (
        ["da", "IN", "--condition-key", "nope", "--reference", "control", "--out", "OUT"],
        "obs has no key 'nope'; found: ['condition', 'true_log_ratio', 'donor', 'sample', 'drug', 'dose']",
    ),
    "unknown covariate": (["da", "IN", *DA, "--covariate-key", "age", "--out", "OUT"], "obs has no key 'age'"),
    "unknown sample": (["da", "IN", *DA, "--sample-key", "mouse", "--out", "OUT"], "obs has no key 'mouse'"),
    "unknown embedding": (
        ["da", "IN", *DA, "--use-rep", "X_no", "--out", "OUT"],
        "obsm has no key 'X_no'; found: ['X_pca', 'X_turned', 'X_umap']",
    ),
    "unknown category": (
        ["da", "IN", "--condition-key", "condition", "--reference", "placebo", "--out", "OUT"],
        "obs['condition'] has no category 'placebo'; found: ['control', 'treated']",
    ),
    "a taken column": (["da", "IN", *DA, "--key-added", "mine", "--out", "OUT"], "uns['mine'] would be overwritten"),
    "an embedding twice": (
        ["batch", "IN", "--batch-key", "donor", "--use-rep", "X_pca", "--use-rep", "X_pca", "--out", "OUT"],
        "use_rep must name at least one embedding, each once",
    ),
    "one treatment": (
        ["combination", "IN", "--condition-key", "drug", "--combination", "a", "--reference", "none", "--out", "OUT"],
        "must name two treatments joined by '+'",
    ),
    "three columns": (
        ["combination", "IN", *(["--condition-key", "drug"] * 3), "--combination", "a+b", "--reference", "none",
         "--out", "OUT"],
        "--condition-key is given once or twice",
    ),
    "no pair": (
        ["combination", "IN", "--condition-key", "drug", "--condition-key", "donor", "--combination", "a+d9",
         "--reference", "none+d1", "--out", "OUT"],
        "--combination takes first+second, a category of either --condition-key, got 'a+d9'",
    ),
    "unknown donor": (
        ["response", "IN", "--treatment-key", "drug", "--donor-key", "patient", "--reference", "none", "--out", "OUT"],
        "obs has no key 'patient'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_with_a_message(name, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = BAD_ARGUMENTS[name]
    places = {"IN": str(source), "OUT": "out.h5ad"}
    result = invoke(*(places.get(text, text) for text in arguments))
    if name == "no command":
        assert (result.exit_code, expected in result.output) == (2, True)
    else:
        assert expected in refused(result)
        assert "KeyError" not in result.stderr
        assert '"' not in result.stderr  # the quotes around the text of a KeyError
    assert list(tmp_path.iterdir()) == []


def test_files_that_exist_are_replaced_by_force_alone(source, tmp_path, no_training):
    names = {"--out": "out.h5ad", "--plot": "plot.png", "--json": "summary.json"}
    written = {option: tmp_path / name for option, name in names.items()}
    arguments = ["da", source, *DA, *(text for pair in written.items() for text in pair)]
    for option, path in written.items():
        path.write_text("of value", "utf-8")
        message = refused(invoke(*arguments))
        assert f"{option}: {path} exists; pass --force" in message
        assert path.read_text("utf-8") == "of value"
        path.unlink()
    for path in written.values():
        path.write_text("of value", "utf-8")
    assert invoke(*arguments, "--force").exit_code == 0
    assert "da_log_ratio" in ad.read_h5ad(tmp_path / "out.h5ad").obs
    assert imread(tmp_path / "plot.png").std() > 0.01
    assert strict_json((tmp_path / "summary.json").read_text("utf-8"))["command"] == "da"


@pytest.mark.parametrize("link", [False, True], ids=["same name", "symbolic link"])
def test_input_is_replaced_only_where_it_is_named_and_forced(link, source, tmp_path, no_training):
    path = tmp_path / "cells.h5ad"
    path.write_bytes(source.read_bytes())
    out = path
    if link:
        out = tmp_path / "link.h5ad"
        try:
            out.symlink_to(path)
        except OSError:  # on Windows not everyone may
            pytest.skip("this user may not make symbolic links")
    assert "is INPUT; pass --force" in refused(invoke("da", path, *DA, "--out", out))
    assert digest(path) == digest(source)
    assert invoke("da", path, *DA, "--out", out, "--force").exit_code == 0
    after = ad.read_h5ad(out)
    assert (after.obs["da_log_ratio"] == 1.0).all()
    assert after.layers["counts"].sum() == cells().layers["counts"].sum()
    assert (digest(path) == digest(source)) is link


@pytest.mark.parametrize("option", ["--plot", "--json"])
def test_figure_and_summary_never_replace_input(option, source, tmp_path, no_training):
    path = tmp_path / "cells.png"
    path.write_bytes(source.read_bytes())
    result = invoke("da", path, *DA, "--out", tmp_path / "out.h5ad", option, path, "--force")
    assert f"{option}: {path} is INPUT" in refused(result)
    assert digest(path) == digest(source)


def test_an_earlier_result_is_replaced_and_what_it_had_more_goes(source, tmp_path, monkeypatch):
    def first(adata, **kwargs):
        fake()(adata, **kwargs)
        adata.obs["da_qvalue"] = 0.5
        adata.obsm["da_std"] = pd.DataFrame({"a": np.ones(adata.n_obs)}, index=adata.obs_names)
        adata.obsm["da_log_ratio"] = adata.obsm["da_std"]
        adata.obsm["da_support"] = adata.obsm["da_std"] > 0.0

    def second(adata, **kwargs):
        assert "da_std" in adata.obsm
        del adata.obs["da_qvalue"], adata.obsm["da_std"], adata.obsm["da_log_ratio"], adata.obsm["da_support"]
        fake()(adata, **kwargs)
        adata.obs["da_log_ratio"] = 2.0

    for tool, path, out in ((first, source, tmp_path / "1.h5ad"), (second, tmp_path / "1.h5ad", tmp_path / "2.h5ad")):
        monkeypatch.setattr(tl, "differential_abundance", tool)
        result = invoke("da", path, *DA, "--out", out)
        assert result.exit_code == 0, result.output
    found = ad.read_h5ad(tmp_path / "2.h5ad")
    assert (found.obs["da_log_ratio"] == 2.0).all()
    with h5py.File(tmp_path / "2.h5ad") as file:
        assert "da_qvalue" not in file["obs"]
    assert set(found.obsm) == {"X_pca", "X_turned", "X_umap"}
    pd.testing.assert_frame_equal(found.obs[list(cells().obs)], ad.read_h5ad(source).obs)


def test_results_of_other_analyses_under_the_key_go(tmp_path, no_training):
    adata = cells()
    adata.varm["da"] = np.ones((5, 2))
    adata.obsm["da"] = np.ones((240, 2))
    adata.varm["mine"] = np.ones((5, 1))
    adata.uns["da"] = {
        "scratio": {"scratio": "0"}, "analysis": "x", "params": {}, "written": {"varm": ["da"], "obsm": ["da"]},
    }  # fmt: skip
    adata.write_h5ad(tmp_path / "in.h5ad")

    def tool(adata, **kwargs):
        del adata.obsm["da"]
        fake()(adata, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tl, "differential_abundance", tool)
        result = invoke("da", tmp_path / "in.h5ad", *DA, "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.stderr
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(found.varm) == ["mine"]
    assert "da" not in found.obsm


def test_a_file_without_embeddings_lacks_the_one_that_was_asked_for(tmp_path, no_training):
    cells().write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        del file["obsm"]
    arguments = ["da", tmp_path / "in.h5ad", *DA, "--out", tmp_path / "out.h5ad"]
    assert "obsm has no key 'X_pca'; found: []" in refused(invoke(*arguments))


def test_tables_of_older_files_are_written_anew(tmp_path, no_training):
    path = tmp_path / "old.h5ad"
    cells().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        codes, names = obs["condition/codes"][()], obs["condition/categories"].asstr()[()]
        for key in list(obs):
            if key not in ("_index", "dose", "true_log_ratio"):
                del obs[key]
        obs["__categories/condition"] = names.astype(object)
        obs["condition"] = codes
        obs["condition"].attrs["categories"] = obs["__categories/condition"].ref
        obs.attrs["encoding-version"] = "0.1.0"
        obs.attrs["column-order"] = ["condition", "dose"]
    result = invoke("da", path, *DA, "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.output
    found = ad.read_h5ad(tmp_path / "out.h5ad").obs
    assert list(found["condition"]) == list(cells().obs["condition"])
    assert (found["da_neighborhood"] == "7").all()


# --- what goes wrong during the work -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (RuntimeError("no memory on the device"), 1, "Error: RuntimeError: no memory on the device (--verbose"),
        (MemoryError(), 1, "Error: MemoryError (--verbose"),
        (KeyError("inner"), 1, "Error: KeyError: inner (--verbose"),
        (SystemExit(3), 1, "Error: SystemExit: 3"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
        (RuntimeError("[bold]not markup[/bold] [/]"), 1, "[bold]not markup[/bold] [/]"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_failure_has_a_message_and_an_exit_code_and_leaves_no_file(
    error, code, expected, source, tmp_path, monkeypatch
):
    monkeypatch.setattr(tl, "differential_abundance", breaks(error))
    out = tmp_path / "out.h5ad"
    out.write_text("of value", "utf-8")
    message = refused(invoke("da", source, *DA, "--out", out, "--force"), code)
    assert expected in message
    assert out.read_text("utf-8") == "of value"
    assert list(tmp_path.iterdir()) == [out]


def test_verbose_shows_where_it_went_wrong(source, tmp_path, monkeypatch):
    monkeypatch.setattr(tl, "differential_abundance", breaks(RuntimeError("boom")))
    result = invoke("da", source, *DA, "--out", tmp_path / "out.h5ad", "--verbose")
    assert result.exit_code == 1
    assert "in breaks" in result.stderr or "raise error" in result.stderr
    assert result.stderr.rstrip().endswith("Error: RuntimeError: boom")
    (tmp_path / "noise.h5ad").write_bytes(b"no cells" * 100)
    result = invoke("da", tmp_path / "noise.h5ad", *DA, "--out", tmp_path / "out.h5ad", "--verbose")
    assert result.exit_code == 2
    assert "OSError" in result.stderr  # what h5py said


def test_a_message_is_one_line_however_long(source, tmp_path, monkeypatch):
    monkeypatch.setattr(tl, "differential_abundance", breaks(RuntimeError("word " * 100)))
    message = refused(invoke("da", source, *DA, "--out", tmp_path / "out.h5ad"), 1)
    assert "word " * 100 in message


def test_a_result_that_cannot_be_written_whole_is_not_written(source, tmp_path, no_training, monkeypatch):
    write = _cells.write_elem

    def full_disk(group, key, value):
        if group.name == "/uns":
            raise OSError(28, "No space left on device")
        write(group, key, value)

    monkeypatch.setattr(_cells, "write_elem", full_disk)
    out = tmp_path / "out.h5ad"
    out.write_text("of value", "utf-8")
    assert "No space left on device" in refused(invoke("da", source, *DA, "--out", out, "--force"), 1)
    assert out.read_text("utf-8") == "of value"
    assert list(tmp_path.iterdir()) == [out]


def test_warnings_are_shown_once_and_python_is_left_as_it_was(source, tmp_path, monkeypatch):
    def tool(adata, **kwargs):
        for _ in range(2):
            warnings.warn("3 of 8 samples [take] no part", UserWarning, stacklevel=2)
        warnings.warn("some day gone", FutureWarning, stacklevel=2)
        print("a library's remark")
        fake()(adata, **kwargs)

    monkeypatch.setattr(tl, "differential_abundance", tool)
    before = list(warnings.filters), warnings.showwarning
    arguments = ["da", source, *DA, "--out", tmp_path / "out.h5ad", "--force", "--json", "-"]
    result, loud = invoke(*arguments), invoke(*arguments, "--verbose")
    assert (list(warnings.filters), warnings.showwarning) == before
    assert result.stderr.count("Warning: 3 of 8 samples [take] no part\n") == 1
    assert "some day gone" not in result.stderr
    assert "Warning: some day gone\n" in loud.stderr
    assert "a library's remark" in result.stderr
    assert strict_json(result.stdout)["n_cells"] == 240


def test_quiet_says_nothing_where_all_is_well(source, tmp_path, no_training):
    result = invoke("da", source, *DA, "--out", tmp_path / "out.h5ad", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_names_with_brackets_and_letters_of_any_script_are_shown_as_they_are(tmp_path, monkeypatch):
    adata = cells()
    names = {"treated": "[red]βeta[/red]", "control": "ctrl [/]"}
    adata.obs["condition"] = adata.obs["condition"].astype(str).map(names).astype("category")
    adata.write_h5ad(tmp_path / "in.h5ad")
    monkeypatch.setattr(tl, "differential_abundance", fake())
    question = ["--condition-key", "condition", "--treatment", names["treated"], "--reference", names["control"]]
    result = invoke("da", tmp_path / "in.h5ad", *question, "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 0, result.stderr
    assert names["treated"] in result.stdout


def test_a_result_without_a_number_is_null_in_json(source, tmp_path, monkeypatch):
    def tool(adata, **kwargs):
        fake()(adata, **kwargs)
        adata.obs["da_log_ratio"], adata.obs["da_qvalue"] = np.nan, np.nan

    monkeypatch.setattr(tl, "differential_abundance", tool)
    result = invoke("da", source, *DA, "--out", tmp_path / "out.h5ad", "--json", "-")
    (row,) = strict_json(result.stdout)["results"]
    assert (row["n_scored"], row["mean"], row["n_significant"]) == (0, None, None)
    assert set(row["quantiles"].values()) == {None}


# --- damaged files, odd arguments ----------------------------------------------------------------------------------


def check_damaged(path: Path, out: Path, no_training: Callable[..., None]) -> None:
    """A message and exit code 2, unless the damage is where nothing is read."""
    calls = len(no_training.calls)  # type: ignore[attr-defined]
    result = invoke("da", path, *DA, "--out", out, "--force")
    if result.exit_code != 0:
        refused(result, result.exit_code)
        assert result.exit_code == 2 or len(no_training.calls) > calls  # type: ignore[attr-defined]
        assert len(result.stderr.strip()) > 20


def test_files_that_were_cut_off_are_refused(source, tmp_path, no_training):
    content = source.read_bytes()
    lengths = [0, 1, 7, 8, 9, 95, 96, 511, 2048, *np.linspace(3_000, len(content) - 1, 25).astype(int)]
    for length in lengths:
        (tmp_path / "cut.h5ad").write_bytes(content[:length])
        message = refused(invoke("da", tmp_path / "cut.h5ad", *DA, "--out", tmp_path / "out.h5ad"))
        assert "is not an .h5ad file, or is damaged" in message
    assert no_training.calls == []


def test_files_with_wrong_bytes_are_refused_or_read(source, tmp_path, no_training):
    content = np.frombuffer(source.read_bytes(), dtype=np.uint8)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        damaged = content.copy()
        # The first bytes describe the rest.
        places = rng.integers(0, len(content) if seed % 2 else 4_000, rng.integers(1, 60))
        damaged[places] = rng.integers(0, 256, len(places))
        (tmp_path / "damaged.h5ad").write_bytes(damaged.tobytes())
        check_damaged(tmp_path / "damaged.h5ad", tmp_path / "out.h5ad", no_training)


OPTIONS = sorted({
    "--condition-key", "--reference", "--treatment", "--use-rep", "--sample-key", "--key-added", "--out", "--plot",
    "--json", "--basis", "--force", "--n-folds", "--method", "--effort", "--max-steps", "--quiet", "--verbose",
    "--batch-key", "--label-key", "--combination", "--donor-key", "--treatment-key", "--numerator", "--denominator",
    "--model",
})  # fmt: skip
VALUES = ["condition", "treated", "control", "X_pca", "donor", "IN", "out.h5ad", "plot.png", "-", "a=b", "", "=", "--",
          "rest", "1", "-1", "nan", "1e9", "\u2603", "\0", "a" * 300, "..", "[bold]", "%s",
          "condition=treated"]  # fmt: skip


@pytest.fixture(scope="module")
def stubbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty working folder, and tools that train nothing."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, column in (
            ("differential_abundance", "da_log_ratio"),
            ("batch_effect", "batch_effect_log_ratio"),
            ("combination_effect", "combination_log_ratio"),
            ("treatment_response", "response_log_ratio"),
        ):
            patch.setattr(tl, name, fake(column))
        yield folder


@given(
    st.sampled_from(["da", "batch", "combination", "response", "score", "x", ""]),
    st.lists(st.one_of(st.sampled_from(OPTIONS), st.sampled_from(VALUES), st.text(NO_NUL, max_size=6)), max_size=14),
)
@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_arguments_end_with_a_result_or_a_message(source, stubbed, command, arguments):
    before = digest(source)
    result = invoke(command, *(str(source) if text == "IN" else text for text in arguments))
    assert result.exit_code in {0, 1, 2}
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if result.exit_code:
        assert len(result.output.strip()) > 10
        assert "Traceback" not in result.output or {"--verbose", "-v"} & set(arguments)
    elif not {"-h", "--help", "--version"} & set(arguments):
        assert list(stubbed.glob("*.h5ad"))
    assert digest(source) == before


# --- help, versions, true processes --------------------------------------------------------------------------------

COMMANDS = ["da", "batch", "combination", "response", "score"]


def options_of(command: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]*", invoke(command, "--help").stdout))


def test_the_version_is_the_packages():
    assert invoke("--version").stdout == f"scratio {scratio.__version__}\n"


def test_help_lists_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f"│ {command} " in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_the_command_takes(command):
    text = re.sub(r"\s+", " ", invoke(command, "--help").stdout)
    example = text[text.index("Example: scratio ") :].removeprefix("Example: ")
    words = shlex.split(example)
    assert words[:2] == ["scratio", command]
    assert {word for word in words if word.startswith("--")} <= options_of(command)
    # It gets as far as looking for the file.
    assert "there is no file cells.h5ad" in refused(invoke(*words[1:]))


def test_the_documentation_names_options_that_exist():
    text = DOCS.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s*scratio [a-z]+ ", line)]
    assert {line.split()[1] for line in lines} == set(COMMANDS)
    for line in lines:
        assert set(re.findall(r"(?<=\s)--[a-z][a-z-]*", line)) <= options_of(line.split()[1]), line


LIGHT = """
import sys
from scratio.cli import main
try:
    main()
finally:
    heavy = {"torch", "scvi", "lightning", "numpy", "pandas", "anndata", "h5py", "scanpy", "matplotlib"}
    print("imported:", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["da", "--help"]])
def test_help_needs_nothing_heavy(arguments):
    result = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, timeout=300)
    assert "imported: []" in result.stdout, result.stdout + result.stderr
    assert "--condition-key" in result.stdout or len(arguments) == 1


def test_a_true_process_writes_json_to_stdout_and_everything_else_to_stderr(source, model, tmp_path):
    out = tmp_path / "out.h5ad"
    result = subprocess.run(
        [sys.executable, "-m", "scratio.cli", "score", str(source), "--model", str(model), *SCORE, "--out", str(out),
         "--json", "-"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = strict_json(result.stdout)
    assert found["results"][0]["mean"] == pytest.approx(ad.read_h5ad(out).obs["log_ratio"].mean())
    assert "supported" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_an_interrupted_process_leaves_nothing(source, tmp_path):
    arguments = ["da", str(source), *DA, "--max-steps", "1000000", "--out", str(tmp_path / "out.h5ad")]
    with subprocess.Popen(
        [sys.executable, "-m", "scratio.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Processes that a shell starts with "&" ignore the signal, and so do their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            # Dependencies of some versions warn before.
            assert any("reads obs and obsm['X_pca'] into memory" in line for line in process.stderr)
            for _ in range(30):
                # Python drops a signal that falls into the clean-up of an object; a person presses again.
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    stdout, stderr = process.communicate(timeout=10)
                    break
            assert process.returncode == 130
        finally:
            process.kill()
    assert stdout == ""
    assert stderr.rstrip().endswith("Error: interrupted")
    assert list(tmp_path.iterdir()) == []
