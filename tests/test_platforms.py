"""What other systems do otherwise than Linux, played here: open files on Windows, names, consoles."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from sklearn.cluster import KMeans, MiniBatchKMeans
from typer.testing import CliRunner

import scratio
from scratio import _atomic, tl
from scratio._atomic import atomic
from scratio.cli import _paths as cli_paths
from scratio.cli import app
from scratio.datasets import _cache
from scratio.model import ScRatio
from scratio.stats import common_responsibility, neighborhoods
from scratio.tl import _score_file

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
DA = ["--condition-key", "condition", "--treatment", "treated", "--reference", "control"]
GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}
OLD = b"what was there"


def cells(n: int = 200, **columns: object) -> ad.AnnData:
    adata = scratio.datasets.gaussians(n_cells=n, n_dims=2, random_state=0)
    adata.obs = adata.obs.assign(**columns)
    return adata


# --- what is written down ------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "benchmarks", "demo", "docs", "tutorials")
SCRIPTS = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")) if "_build" not in file.parts]
OF_ONE_SYSTEM = {"fcntl", "grp", "msvcrt", "posix", "pwd", "resource", "termios", "winreg"}
"""Modules that Python has on some systems alone: imported where they are used, if at all."""
OF_UNIX = {"SIGALRM", "SIGKILL", "fork", "getuid", "killpg", "mkfifo", "sched_getaffinity", "setsid", "uname"}
OPENS_NO_TEXT = {"Image", "webbrowser", "zarr"}


def text_without_encoding(code: str) -> list[int]:
    """Lines that open a file as text, but leave the encoding to the system: not UTF-8 on Windows."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        of = getattr(function.value, "id", "path") if isinstance(function, ast.Attribute) else ""
        if name not in {"open", "fdopen", "read_text", "write_text"} or of in OPENS_NO_TEXT:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        # read_text(encoding), write_text(text, encoding); Path.open(mode), open(file, mode)
        place = {"read_text": 0, "write_text": 1}.get(name, 1 if of in {"", "io", "os"} else 0)
        positional = node.args[place] if len(node.args) > place else None
        mode = given.get("mode", positional) if name in {"open", "fdopen"} else None
        is_binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
        if not ("encoding" in given or is_binary or (name.endswith("_text") and positional is not None)):
            found.append(node.lineno)
    return found


def of_one_system(code: str) -> list[int]:
    """Lines that need what Python has on some systems alone, wherever the file is imported."""
    tree = ast.parse(code)
    found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in OF_UNIX]
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [node.lineno for alias in node.names if alias.name in OF_ONE_SYSTEM]
        elif isinstance(node, ast.ImportFrom) and node.module in OF_ONE_SYSTEM:
            found.append(node.lineno)
    return sorted(found)


@pytest.mark.parametrize("check", [text_without_encoding, of_one_system])
def test_no_script_is_for_one_system_alone(check):
    assert len(SCRIPTS) > 150
    found = {file.relative_to(ROOT).as_posix(): check(file.read_text("utf-8")) for file in SCRIPTS}
    assert {name: lines for name, lines in found.items() if lines} == {}


GOOD = """open(p, 'rb')
p.open('wb')
(p / q).open('rb')
p.read_text('utf-8')
p.write_text(t, 'utf-8')
p.write_text(t, encoding='utf-8')
open(p, encoding='utf-8')
p.open(newline='', encoding='utf-8')
Image.open(p)
def f(): import resource"""
BAD = {
    text_without_encoding: ["open(p)", "open(p, 'w')", "(p / q).open()", "p.read_text()", "p.write_text(t)"],
    of_one_system: ["import resource", "from fcntl import flock", "os.fork()", "process.send_signal(signal.SIGKILL)"],
}


@pytest.mark.parametrize("check", BAD)
def test_what_is_for_one_system_alone_is_found(check):
    assert check(GOOD) == []
    assert check("\n".join(BAD[check])) == [line + 1 for line in range(len(BAD[check]))]


# --- open files on Windows -----------------------------------------------------------------------------------------


class Windows:
    """Windows' rule: a file that is open is neither replaced, renamed nor deleted.

    Open is what ``held`` names, and what this process has open by HDF5.
    """

    def __init__(self) -> None:
        self.held: set[Path] = set()

    def is_open(self, path: Any) -> bool:
        parts = h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_GROUP | h5py.h5f.OBJ_DATASET)
        names = {h5py.h5f.get_name(part).decode() for part in parts}
        files = {file.resolve() for file in (*self.held, *map(Path, names)) if file.exists()}
        found = Path(path).resolve()
        return found in files or any(found in file.parents for file in files)

    def refusing(self, change: Callable[..., Any], n_paths: int) -> Callable[..., Any]:
        def refused(*args: Any, **kwargs: Any) -> Any:
            for path in args[:n_paths]:
                if self.is_open(path):
                    raise PermissionError(13, "in use by another process", str(path))
            return change(*args, **kwargs)

        return refused


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    rule = Windows()
    for name, n_paths in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
        monkeypatch.setattr(os, name, rule.refusing(getattr(os, name), n_paths))
    monkeypatch.setattr(_atomic, "WAITS", (0.0, 0.0), raising=False)
    return rule


def test_what_is_open_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    # A virus scanner opens what has just been written.
    path, replace, refusals = tmp_path / "file", os.replace, []

    def scanned(source: Any, target: Any) -> None:
        if len(refusals) < 3:
            refusals.append(target)
            raise PermissionError(13, "in use by another process")
        replace(source, target)

    monkeypatch.setattr(os, "replace", scanned)
    with atomic(path) as partial:
        partial.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert len(refusals) == 3


def test_what_stays_open_is_named_and_stays_as_it_was(windows, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    windows.held.add(path)
    with pytest.raises(PermissionError) as caught, atomic(path) as partial:
        partial.write_bytes(b"new")
    assert f"{path} cannot be replaced (in use by another process): a program has it open" in str(caught.value)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_of_who_wrote_is_told_though_the_file_is_still_open(windows, tmp_path):
    with pytest.raises(RuntimeError, match="disk full"), atomic(tmp_path / "file") as partial:
        partial.write_bytes(b"new")
        windows.held.add(partial)
        raise RuntimeError("disk full")
    assert not (tmp_path / "file").exists()


def test_a_temporary_name_is_short_though_the_name_is_long(tmp_path):
    # 255 bytes are the longest name on most systems, and 259 characters the longest path on Windows.
    path = tmp_path / ("x" * 240 + ".h5ad")
    with atomic(path) as partial:
        partial.write_bytes(b"new")
        assert len(partial.name) < 80
        assert partial.suffix == ".h5ad"
    assert path.read_bytes() == b"new"


def weights_of(folder: Path) -> Path:
    (found,) = folder.glob("*.safetensors")
    return found


def test_a_model_is_saved_over_the_one_whose_weights_are_mapped(windows, models, tmp_path, caplog):
    first, second = models
    first.save(tmp_path)
    mapped = weights_of(tmp_path)
    with safe_open(mapped, framework="pt") as file:
        windows.held.add(mapped)
        loaded = ScRatio.load(tmp_path, first.adata.copy())
        loaded.save(tmp_path, overwrite=True)  # the same weights
        assert caplog.records == []
        second.save(tmp_path, overwrite=True)  # others
        assert any(name.startswith("network.") for name in file.keys())
    assert ScRatio.load(tmp_path).fingerprint() == second.fingerprint() != first.fingerprint()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{mapped} is not needed any more, but is in use or protected" in caplog.text
    assert mapped.exists()


def test_weights_that_were_changed_are_written_again(models, tmp_path):
    models[0].save(tmp_path)
    weights_of(tmp_path).write_bytes(b"changed")
    models[0].save(tmp_path, overwrite=True)
    assert ScRatio.load(tmp_path).fingerprint() == models[0].fingerprint()


def test_loading_a_model_keeps_none_of_its_files(models, tmp_path):
    models[0].save(tmp_path)
    loaded = ScRatio.load(tmp_path)
    for file in list(tmp_path.iterdir()):
        # What was mapped, and cut off afterwards, would end the process.
        file.write_bytes(b"")
    assert np.isfinite(loaded.log_ratio(models[0].adata, **CONTRAST)).all()
    loaded.save(tmp_path / "other")


def test_a_result_that_is_open_is_refused_before_anything_is_scored(windows, models, tmp_path, monkeypatch):
    adata, out = models[0].adata.copy(), tmp_path / "scores.h5ad"
    cells().write_h5ad(out)
    viewed = scratio.io.read_lazy(out)
    monkeypatch.setattr(ScRatio, "log_ratio", lambda *args, **kwargs: pytest.fail("scored"))
    with pytest.raises(PermissionError, match="scores.h5ad cannot be replaced"):
        scratio.tl.log_ratio(adata, models[0], **CONTRAST, out=out, overwrite=True)
    assert viewed.n_obs == 200
    assert [file.name for file in tmp_path.iterdir()] == ["scores.h5ad"]


def test_a_result_is_whole_though_a_chunk_cannot_be_removed(windows, models, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_score_file, "CHUNK", 100)
    adata, out = models[0].adata.copy(), tmp_path / "scores.h5ad"
    folder = tmp_path / "scores.h5ad.partial"
    windows.held.add(folder / "000000000100.npy")
    scratio.tl.log_ratio(adata, models[0], **CONTRAST, out=out)
    assert "000000000100.npy is not needed any more" in caplog.text
    np.testing.assert_array_equal(ad.read_h5ad(out).obs["log_ratio"], adata.obs["log_ratio"])
    # What is left is still known as scratio's, and goes with the next result.
    assert sorted(file.name for file in folder.iterdir()) == ["000000000100.npy", "question.json"]
    windows.held.clear()
    again = models[0].adata.copy()
    scratio.tl.log_ratio(again, models[0], **CONTRAST, out=out, overwrite=True)
    pd.testing.assert_frame_equal(again.obs, adata.obs)
    assert not folder.exists()


def test_a_clean_up_that_was_cut_short_does_not_refuse_the_next_result(models, tmp_path, monkeypatch):
    monkeypatch.setattr(_score_file, "CHUNK", 50)
    adata, out = models[0].adata.copy(), tmp_path / "scores.h5ad"
    unlink, removed = Path.unlink, []

    def cut(self: Path, **kwargs: Any) -> None:
        if self.parent.name == "scores.h5ad.partial" and self.name[0] != ".":
            if len(removed) == 2:
                raise KeyboardInterrupt
            removed.append(self.name)
        unlink(self, **kwargs)

    # Systems list files in an order of their own.
    listed = Path.iterdir
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
        patch.setattr(Path, "unlink", cut)
        scratio.tl.log_ratio(adata, models[0], **CONTRAST, out=out)
    scratio.tl.log_ratio(models[0].adata.copy(), models[0], **CONTRAST, out=out, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["scores.h5ad"]


def test_a_file_that_could_not_be_opened_as_asked_is_closed(tmp_path):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    for asked, error in (({"obsm_key": "X_umap"}, KeyError), ({"obs_keys": ["dose"]}, KeyError)):
        with pytest.raises(error) as caught:
            scratio.io.read_lazy(path, **asked)
        # The notebook keeps the error; the user computes what was missing, and writes the file again.
        cells().write_h5ad(path)
        assert caught.value.__traceback__ is not None


def test_a_file_of_the_cache_is_put_in_place_when_the_scanner_is_done(windows, tmp_path, monkeypatch):
    path, tries = tmp_path / "cells.h5ad", []
    path.write_bytes(OLD)
    windows.held.add(path)
    monkeypatch.setattr(_atomic.time, "sleep", lambda seconds: tries.append(windows.held.clear()))
    _cache._set_aside(path)
    assert (tmp_path / "cells.h5ad.replaced-1").read_bytes() == OLD
    assert len(tries) == 1


# --- the command line ----------------------------------------------------------------------------------------------


def scored(adata: ad.AnnData, **kwargs: Any) -> None:
    """An analysis that trains nothing."""
    adata.obs["da_log_ratio"], adata.obs["da_support"] = 1.0, True
    adata.uns["da"] = {"scratio": {"scratio": "0"}, "analysis": "fake", "params": {}, "data": {}}


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def tool(adata: ad.AnnData, **kwargs: Any) -> None:
        calls.append("da")
        scored(adata)

    monkeypatch.setattr(tl, "differential_abundance", tool)
    return calls


def invoke(*args: Any) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize("backed", [[], ["--backed"]], ids=["in memory", "backed"])
def test_results_are_added_to_the_input_itself(backed, windows, no_training, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    result = invoke("da", path, *DA, "--out", path, "--force", *backed)
    assert result.exit_code == 0, result.output
    assert (ad.read_h5ad(path).obs["da_log_ratio"] == 1.0).all()


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_an_output_that_is_open_is_refused_before_any_work(option, windows, no_training, tmp_path):
    names = {"--out": tmp_path / "out.h5ad", "--json": tmp_path / "out.json"}
    cells().write_h5ad(tmp_path / "cells.h5ad")
    names[option].write_bytes(OLD)
    windows.held.add(names[option])
    written = [text for pair in names.items() for text in pair]
    result = invoke("da", tmp_path / "cells.h5ad", *DA, *written, "--force")
    assert result.exit_code == 2
    assert f"{option}: {names[option]} cannot be replaced" in result.stderr
    assert no_training == []
    assert names[option].read_bytes() == OLD


def test_a_folder_that_takes_no_files_is_refused_before_any_work(no_training, tmp_path, monkeypatch):
    # Windows says of every folder that it may be written to.
    cells().write_h5ad(tmp_path / "cells.h5ad")
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda *args: True)
    touch = Path.touch

    def refusing(self: Path, **kwargs: Any) -> None:
        if self.parent == closed:
            raise PermissionError(13, "access is denied")
        touch(self, **kwargs)

    monkeypatch.setattr(Path, "touch", refusing)
    result = invoke("da", tmp_path / "cells.h5ad", *DA, "--out", closed / "out.h5ad")
    assert result.exit_code == 2
    assert f"--out: no permission to write into the folder {closed}" in result.stderr
    assert no_training == []


def test_an_input_that_another_program_keeps_is_named(no_training, tmp_path, monkeypatch):
    path = tmp_path / "cells.h5ad"
    cells().write_h5ad(path)
    monkeypatch.setattr(os, "access", lambda *args: True)
    original = Path.open

    def refusing(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == path:
            raise PermissionError(13, "in use by another process")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)
    result = invoke("da", path, *DA, "--out", tmp_path / "out.h5ad")
    assert result.exit_code == 2
    assert f"INPUT: no permission to read {path}" in result.stderr


def test_outputs_that_differ_in_case_alone_are_one_file(no_training, tmp_path):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    outputs = ["--out", tmp_path / "Out.h5ad", "--plot", tmp_path / "a.svg", "--json", tmp_path / "A.SVG"]
    result = invoke("da", tmp_path / "cells.h5ad", *DA, *outputs)
    assert result.exit_code == 2
    assert "must be different files, and not only in upper and lower case" in result.stderr


def test_looking_at_the_folder_of_an_output_leaves_nothing(tmp_path):
    assert cli_paths._can_write(tmp_path)
    assert not cli_paths._can_write(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


ODD = "Δ-drug → 5 µM"
COMMAND = """
from scratio import tl
import test_platforms

tl.differential_abundance = test_platforms.judged
from scratio.cli import main

main()
"""


def judged(adata: ad.AnnData, *, treatment: str, reference: str, **kwargs: Any) -> None:
    """An analysis that trains nothing, with a verdict."""
    scored(adata)
    row = {"treatment": [treatment], "reference": [reference], "verdict": ["slope 1 ± 0.2"]}
    adata.uns["da"]["diagnostics"] = pd.DataFrame(row)


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "utf-8"])
def test_the_command_line_speaks_to_consoles_that_do_not_know_all_characters(encoding, tmp_path):
    adata = cells()
    adata.obs["condition"] = adata.obs["condition"].astype(str).replace("treated", ODD)
    adata.write_h5ad(tmp_path / "cells µ.h5ad")
    script = tmp_path / "command.py"
    script.write_text(COMMAND, "utf-8")
    out = tmp_path / "out Δ.h5ad"
    arguments = ["--condition-key", "condition", "--treatment", ODD, "--reference", "control"]
    run = subprocess.run(
        [sys.executable, script, "da", tmp_path / "cells µ.h5ad", *arguments, "--out", out],
        capture_output=True,
        check=False,
        timeout=300,
        env={
            **os.environ,
            "PYTHONIOENCODING": encoding,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
        },
    )
    said, talked = run.stdout.decode(encoding), run.stderr.decode(encoding)
    assert run.returncode == 0, talked
    assert ad.read_h5ad(out).obs["da_log_ratio"].notna().all()
    shown = ODD.encode(encoding, "backslashreplace").decode(encoding)
    assert f"{shown} against control: slope 1 ± 0.2" in said
    assert "cells µ.h5ad: 200 cells" in talked
    # Boxes are drawn by what every console has, unless it knows all characters.
    assert bool(set("━─") & set(said)) == (encoding == "utf-8")


# --- names in stores -----------------------------------------------------------------------------------------------

RESERVED = set('<>:"\\|?*')
DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}


def spoilt_on_windows(folder: Path) -> list[str]:
    """Paths of a folder that Windows has no names for, or of which it, or macOS, takes two for one."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    odd = [name for name in names if RESERVED & set(name) or any(part[-1] in ". " for part in name.split("/"))]
    odd += [name for name in names if DEVICES & {part.split(".")[0].casefold() for part in name.split("/")}]
    folded = [name.casefold() for name in names]
    return odd + [name for name in names if folded.count(name.casefold()) > 1]


def all_results(quick: dict) -> ad.AnnData:
    """Results of all analyses in one AnnData."""
    place = np.arange(240)
    made = cells(240, sample=np.array(list("abcdefgh"))[place // 2 % 8], dose=np.linspace(0.0, 1.0, 240))
    adata = ad.AnnData(X=made.obsm["X_pca"], obs=made.obs, obsm=dict(made.obsm), varm={"PCs": np.eye(2)})
    adata.obs["drug"], adata.obs["age"] = np.array(["none", "a", "b", "a+b"])[place % 4], place // 2 % 8 * 1.0
    fitted = {"n_folds": 2, "model_kwargs": {"n_hidden": 8}, "train_kwargs": quick}
    groups = {**GROUPS, **fitted, "sample_key": "sample", "min_cells": 1}
    tl.differential_abundance(adata, **groups)
    tl.regions(adata)
    several = {"condition_key": "drug", "treatment": ["a", "b"], "reference": "none", "key_added": "drugs"}
    tl.differential_abundance(adata, **{**groups, **several})
    tl.association(adata, key="age", sample_key="sample", min_cells=1)
    tl.batch_effect(adata, batch_key="condition", label_key="drug", **fitted)
    tl.combination_effect(adata, condition_keys="drug", combination="a+b", reference="none", **fitted)
    tl.treatment_response(adata, treatment_key="condition", donor_key="sample", reference="control", **fitted)
    tl.compare_methods(adata, **GROUPS, methods=["qda"])
    ScRatio.setup_anndata(adata, condition_keys=["condition"], continuous_keys=["dose"])
    model = ScRatio(adata, n_hidden=8, n_members=2)
    model.train(**quick)
    tl.log_ratio(adata, model, **CONTRAST)
    tl.driver_genes(adata, model, **CONTRAST)
    tl.covariate_curve(adata, model, covariate_key="dose", reference=0.0, values=[0.5, 1.0])
    return adata


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_all_names_of_results_are_names_of_files_everywhere(quick, tmp_path):
    # A zarr store has a folder for every name.
    adata = all_results(quick)
    adata.write_zarr(tmp_path / "cells.zarr")
    assert len([key for key, value in adata.uns.items() if "scratio" in value]) == 10
    assert spoilt_on_windows(tmp_path / "cells.zarr") == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows makes no such folder")
@pytest.mark.parametrize("name", ["a:b", "what?", "end.", "nul", "con.txt"])
def test_a_name_that_windows_has_not_is_found(name, tmp_path):
    (tmp_path / name).mkdir()
    assert spoilt_on_windows(tmp_path) == [name]


# --- libraries -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_the_remark_on_k_means_that_scikit_learn_makes_on_windows_is_not_shown(monkeypatch):
    for kind in (KMeans, MiniBatchKMeans):
        monkeypatch.setattr(kind, "_check_mkl_vcomp", lambda self, *args: self._warn_mkl_vcomp(1))
    x = np.random.default_rng(0).normal(size=(300, 2))
    with pytest.warns(UserWarning, match="memory leak on Windows"):
        KMeans(2, n_init=1, random_state=0).fit(x)
    assert len(np.unique(neighborhoods(x, 0))) == 10
    assert common_responsibility(x, 2, np.random.default_rng(0)).shape == (300, 2)
