"""The examples of pipelines run the command line as it is. `make pipelines` runs the one of Snakemake itself."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pytest
import typer
import yaml

from scratio.cli import _app

ROOT = Path(__file__).resolve().parents[1]
NEXTFLOW = (ROOT / "packaging" / "nextflow" / "main.nf").read_text(encoding="utf-8")
SNAKEFILE = (ROOT / "packaging" / "snakemake" / "Snakefile").read_text(encoding="utf-8")
CONFIG = yaml.safe_load((ROOT / "packaging" / "snakemake" / "config.yaml").read_text(encoding="utf-8"))
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")


def options_of_da() -> set[str]:
    command = typer.main.get_command(_app.app).commands["da"]
    return {name for parameter in command.params for name in parameter.opts}


def words(text: str) -> str:
    """The words of the command `scratio` in a text, on one line and without quotes."""
    return re.sub(r"[\s\"'\\]+", " ", text[text.index("scratio da ") :])


@pytest.mark.parametrize(
    "text",
    [
        words(re.search(r'script:\s*"""(.*?)"""', NEXTFLOW, flags=re.S)[1]),
        words(re.search(r"shell:(.*)", SNAKEFILE, flags=re.S)[1]),
        " ".join(f"--{name}" for name in CONFIG["options"]),
        re.search(r"params\.options = '(.*)'", NEXTFLOW)[1],
    ],
    ids=["Nextflow", "Snakemake", "options of Snakemake", "options of Nextflow"],
)
def test_a_pipeline_names_options_that_exist(text):
    named = set(OPTION.findall(text))
    assert len(named) >= 3
    assert named <= options_of_da()


def test_both_pipelines_ask_the_same_question():
    asked = " ".join(f"--{name} {value}" for name, value in CONFIG["options"].items())
    assert re.search(r"params\.options = '(.*)'", NEXTFLOW)[1] == asked


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Cells of packaging/example_cells.py."""
    file = ROOT / "packaging" / "example_cells.py"
    spec = importlib.util.spec_from_file_location("example_cells", file)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    out = tmp_path_factory.mktemp("cells") / "example.h5ad"
    example.main(out)
    return out


def run(script: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-ue", "-c", script], cwd=folder, env={**os.environ, "PATH": path}, check=True)


def check(folder: Path, h5ad: str, summary: str, plot: str) -> None:
    assert {"da_log_ratio", "da_qvalue"} <= set(ad.read_h5ad(folder / h5ad).obs.columns)
    assert json.loads((folder / summary).read_text(encoding="utf-8"))["results"][0]["n_scored"] == 1200
    assert (folder / plot).stat().st_size > 1000


def test_the_script_of_nextflow_runs_and_writes_what_the_process_promises(source, tmp_path):
    # As Nextflow does it: values for ${...}, and \\ is one \ in a text of Groovy.
    script = re.search(r'script:\s*"""\n(.*?)"""', NEXTFLOW, flags=re.S)[1].replace("\\\\", "\\")
    params = dict(re.findall(r"^params\.(\w+) = '(.*)'$", NEXTFLOW, flags=re.M))
    values = {"cells": source, "cells.baseName": source.stem, "task.cpus": 1, "params.options": params["options"]}
    run(re.sub(r"\$\{([\w.]+)\}", lambda match: str(values[match[1]]), script), tmp_path)
    promised = re.findall(r'^\s*path "\$\{cells\.baseName\}(\.\S+)", emit: (\w+)$', NEXTFLOW, flags=re.M)
    files = {kind: f"{source.stem}{ending}" for ending, kind in promised}
    check(tmp_path, files["h5ad"], files["json"], files["plot"])


def test_the_command_of_snakemake_runs(source, tmp_path):
    outputs = dict(re.findall(r'^\s+(h5ad|json|plot)=(?:report\()?"([^"]+)"', SNAKEFILE, flags=re.M))
    outputs = {kind: name.format(dataset=source.stem) for kind, name in outputs.items()}
    for name in (*outputs.values(), "logs/da/log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    values = {f"output.{kind}": name for kind, name in outputs.items()}
    options = " ".join(f"--{name} {value}" for name, value in CONFIG["options"].items())
    values |= {"input": source, "threads": 1, "log": "logs/da/log", "params.options": options}
    command = "".join(re.findall(r'"(.*)"', re.search(r"shell:(.*)", SNAKEFILE, flags=re.S)[1]))
    run(re.sub(r"\{([\w.]+?)(?::q)?\}", lambda match: str(values[match[1]]), command), tmp_path)
    check(tmp_path, outputs["h5ad"], outputs["json"], outputs["plot"])
