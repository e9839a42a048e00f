"""The project's own files: what they promise of versions holds together."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jupytext
import pytest
from packaging.version import Version

import scratio.cli

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[\w,]+\])?>=([\w.]+)$")


def pins(name: str) -> dict[str, str]:
    """Versions by name of a constraints file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def lower_bounds(*extras: str) -> dict[str, str]:
    requirements = [*PROJECT["dependencies"], *(r for extra in extras for r in PROJECT["optional-dependencies"][extra])]
    return dict(REQUIREMENT.match(requirement).groups() for requirement in requirements)


def test_every_requirement_is_a_plain_lower_bound():
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        assert [requirement for requirement in group if not REQUIREMENT.match(requirement)] == []


def test_the_lowest_versions_that_are_tested_are_those_promised():
    promised = lower_bounds("test")
    assert pins("constraints-lowest.txt") == {name: low for name, low in promised.items() if name != "torch"}


def test_torch_alone_is_pinned_for_everyone():
    assert list(pins("constraints.txt")) == ["torch"]


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=[file.name for file in WORKFLOWS])
def test_actions_are_pinned_by_commit(file):
    used = re.findall(r"uses:\s*(\S+)", file.read_text(encoding="utf-8"))
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)] == []


def test_the_workflow_tests_every_python_that_the_package_names():
    named = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'python(?:-version)?: "(3\.\d+)"', text)) == named


MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
USED = {
    "training": r"\.train\(",
    "scoring": r"\.log_ratio\(",
    "saved models": r"\.save\(.*\n(.*\n)*.*ScRatio\.load\(",
    "the command line": r"from scratio\.cli import",
    "a true process": r"subprocess\.run\(",
    "h5ad": r"\.write_h5ad\(",
    "zarr": r"\.write_zarr\(",
    "cells on disk": r"read_lazy\(",
    "plots": r"scratio\.pl\.|scratio import .*pl",
}


def test_the_quick_tests_are_of_all_that_a_system_may_do_otherwise():
    (names,) = re.findall(r"^QUICK := (.*)$", MAKEFILE, flags=re.M)
    files = [ROOT / "tests" / f"test_{name}.py" for name in names.split()]
    assert [file.name for file in files if not file.exists()] == []
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert [name for name, used in USED.items() if not any(re.search(used, text) for text in texts)] == []
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (job,) = re.findall(r"^  platforms:\n((?:    .*\n|\n)+)", text, flags=re.M)
    assert "make test-quick" in job
    assert set(re.findall(r"(?:ubuntu|macos|windows)-latest", job)) == {
        "ubuntu-latest",
        "macos-latest",
        "windows-latest",
    }
    assert "fail-fast: false" in job


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(("system", "folder", "other"), [("Windows_NT", "Scripts", "bin"), ("", "bin", "Scripts")])
def test_make_finds_the_programs_of_an_environment(system, folder, other):
    # Nothing is run: only what would be is printed.
    for target in (
        "test",
        "test-quick",
        "test-newest",
        "coverage",
        "audit",
        "lint",
        "typecheck",
        "demo",
        "docs",
        "dist",
    ):
        arguments = ["make", "--dry-run", f"OS={system}", "VENV=.venv-absent", target]
        said = subprocess.run(arguments, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
        # Every environment that is named, and none by the other system's folder.
        assert re.findall(rf"\.venv[\w-]*/{folder}/python -m", said), said
        assert re.findall(rf"\.venv[\w-]*/{other}/", said) == []


TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))


def test_there_are_six_tutorials_and_every_notebook_has_a_text():
    assert len(TUTORIALS) == 6
    assert {file.stem for file in TUTORIALS} == {file.stem for file in (ROOT / "tutorials").glob("*.ipynb")}


@pytest.mark.parametrize("text", TUTORIALS, ids=[file.stem for file in TUTORIALS])
def test_a_notebook_is_that_of_its_text_executed_in_order_without_an_error(text):
    wanted = jupytext.read(text).cells
    found = json.loads(text.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in found] == [
        (cell.cell_type, cell.source) for cell in wanted
    ]
    code = [cell for cell in found if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_the_command_is_installed_with_the_package():
    assert PROJECT["scripts"] == {"scratio": "scratio.cli:main"}
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="scratio")
    assert entry.load() is scratio.cli.main


def test_the_version_comes_from_git_and_is_one_that_pip_can_order():
    assert PROJECT["dynamic"] == ["version"]
    assert Version(scratio.__version__) >= Version("0.1.dev0")
