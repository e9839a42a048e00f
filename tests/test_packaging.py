"""The project's own files: what they promise of versions holds together."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import pytest
import yaml
from packaging.version import Version

import scratio
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


IGNORED = ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning")
RAISING = """
import warnings
import pytest

@pytest.mark.parametrize("category", [UserWarning, RuntimeWarning, DeprecationWarning, FutureWarning])
def test_warns(category):
    warnings.warn("something", category)
"""


def make_variable(name: str) -> list[str]:
    """Words of a variable of the Makefile."""
    return re.search(rf"^{name} \?= (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)[1].split()


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (make_variable("WARNINGS"), {"UserWarning": False, "RuntimeWarning": False}),
        ([], {"UserWarning": True, "RuntimeWarning": True}),
    ],
    ids=["make test", "pytest"],
)
@pytest.mark.parametrize("processes", [[], ["--numprocesses", "1"]], ids=["one process", "xdist"])
def test_warnings_are_errors_under_make_test_only(arguments, passed, processes, tmp_path):
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "test_it.py").write_text(RAISING, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *arguments, *processes, "test_it.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = re.findall(r"^(PASSED|FAILED) test_it\.py::test_warns\[(\w+)\]", done.stdout, flags=re.M)
    wanted = passed | {"DeprecationWarning": True, "FutureWarning": True}
    assert {name: outcome == "PASSED" for outcome, name in outcomes} == wanted, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("target", "strict"), [("test", 1), ("coverage", 1), ("test-lowest", 0), ("test-newest", 0)])
def test_warnings_are_errors_with_the_pinned_dependencies_only(target, strict):
    line = ["make", "--dry-run", target, f"NEWEST_PYTHON={sys.executable}"]
    # Where make runs the tests, it hands its own variables on: WARNINGS itself, and MAKEFLAGS.
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    commands = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    (pytest_line,) = [command for command in commands.splitlines() if " -m pytest " in command]
    assert pytest_line.count("-W error") == strict


def test_what_is_ignored_is_the_same_with_and_without_make():
    ini = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    ignored = [f"ignore::{name}" for name in IGNORED]
    assert ini["filterwarnings"] == ignored
    assert make_variable("WARNINGS") == ["-W", "error", *(word for one in ignored for word in ("-W", one))]


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=[file.name for file in WORKFLOWS])
def test_actions_are_pinned_by_commit(file):
    used = re.findall(r"uses:\s*(\S+)", file.read_text(encoding="utf-8"))
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)] == []


def test_read_the_docs_and_pages_publish_what_make_docs_builds():
    target = re.search(r"^docs:\n(.*?)\n\n", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M | re.S)[1]
    built = re.search(r"-b html docs (\S+)$", target, flags=re.M)[1]
    commands = yaml.safe_load((ROOT / ".readthedocs.yaml").read_text(encoding="utf-8"))["build"]["commands"]
    assert commands[1].endswith(" make docs")
    assert commands[-1].startswith(f"cp -r {built} ")
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))["jobs"]["build"][
        "steps"
    ]
    assert steps[-2]["run"] == "make docs"
    assert steps[-1]["with"]["path"] == built


def test_dependabot_leaves_the_lowest_versions_alone():
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    by_kind = {update["package-ecosystem"]: update for update in updates}
    assert by_kind.keys() == {"github-actions", "pip"}
    assert by_kind["pip"]["versioning-strategy"] == "increase-if-necessary"
    assert "constraints-lowest.txt" in by_kind["pip"]["exclude-paths"]


CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_is_of_the_last_release_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, date = re.search(r"^## \[(\d[\w.]*)\] - (\d{4}-\d\d-\d\d)$", text, flags=re.M).groups()
    assert (str(CITATION["version"]), str(CITATION["date-released"])) == (version, date)
    assert CITATION["license"] == PROJECT["license"]
    assert (CITATION["repository-code"], CITATION["url"]) == (REPOSITORY, PROJECT["urls"]["Documentation"])


def test_the_method_paper_is_cited_as_in_the_references():
    entry = re.search(
        r"^@misc\{antipov2026,.*?^\}", (ROOT / "docs" / "references.bib").read_text(encoding="utf-8"), re.M | re.S
    )
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry[0], flags=re.M))
    (paper,) = CITATION["references"]
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert authors == fields["author"].split(" and ")
    assert (paper["title"], str(paper["year"])) == (fields["title"], fields["year"])
    assert paper["url"] == f"https://arxiv.org/abs/{fields['eprint']}"


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


PUBLIC = [
    ROOT / name
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CITATION.cff", ".github/scverse/meta.yaml")
]
REPOSITORY = PROJECT["urls"]["Source"]


def test_the_repository_and_the_pages_have_one_address_everywhere():
    account, name = re.fullmatch(r"https://github\.com/([\w-]+)/([\w-]+)", REPOSITORY).groups()
    assert PROJECT["urls"]["Documentation"] == f"https://{account}.github.io/{name}"
    for file in PUBLIC:
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"https://github\.com/[\w-]+/scratio\b", text)) <= {REPOSITORY}, file
        assert set(re.findall(r"https://[\w-]+\.github\.io/scratio\b", text)) <= {PROJECT["urls"]["Documentation"]}, (
            file
        )


def test_the_licence_is_named_once_and_every_python_that_is_promised_has_a_classifier():
    assert PROJECT["license"] == "BSD-3-Clause"
    assert not [one for one in PROJECT["classifiers"] if one.startswith("License")]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    named = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", one)]
    assert min(named, key=Version) == lowest
    assert "Typing :: Typed" in PROJECT["classifiers"]


RECIPE = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
OF_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge has under another name."""


def test_the_conda_recipe_has_the_dependencies_of_the_package():
    run = dict(requirement.split(" >=") for requirement in RECIPE["requirements"]["run"])
    assert run.pop("python") == "${{ python_min }}"
    assert run == {OF_CONDA.get(name, name): low for name, low in lower_bounds().items()}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert RECIPE["requirements"]["host"] == ["python ${{ python_min }}.*", "pip", *build]


def test_the_conda_recipe_is_of_the_same_package():
    assert RECIPE["context"] == {
        "version": str(CITATION["version"]),
        "python_min": PROJECT["requires-python"].removeprefix(">="),
    }
    assert RECIPE["package"]["name"] == PROJECT["name"]
    assert RECIPE["build"]["python"]["entry_points"] == [
        f"{name} = {call}" for name, call in PROJECT["scripts"].items()
    ]
    about = {name: RECIPE["about"][name] for name in ("summary", "license", "repository", "documentation")}
    urls = PROJECT["urls"]
    assert about == {
        "summary": PROJECT["description"],
        "license": PROJECT["license"],
        "repository": REPOSITORY,
        "documentation": urls["Documentation"],
    }


def test_the_image_gets_the_files_it_copies_and_runs_without_root():
    text = (ROOT / "packaging" / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY ([^-].*) \S+$", text, flags=re.M) for name in line.split()}
    let_in = (ROOT / "packaging" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in let_in if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
    needed = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "src", "constraints.txt"}
    assert needed == copied
    assert re.findall(r"^USER (.*)$", text, flags=re.M)[-1] not in {"root", "0"}
    python = re.search(r"^ARG PYTHON=(.*)$", text, flags=re.M)[1]
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="(.*?)"', text))
    assert (labels["source"], labels["licenses"]) == (REPOSITORY, PROJECT["license"])


def test_the_command_is_installed_with_the_package():
    assert PROJECT["scripts"] == {"scratio": "scratio.cli:main"}
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="scratio")
    assert entry.load() is scratio.cli.main


def test_the_version_comes_from_git_and_is_one_that_pip_can_order():
    assert PROJECT["dynamic"] == ["version"]
    assert Version(scratio.__version__) >= Version("0.1.dev0")


def test_show_versions_names_every_dependency_the_system_and_the_accelerators(capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda k: f"GPU number {k}")
    scratio.show_versions()
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert found["scratio"] == scratio.__version__
    needed = {re.split(r"[^\w.-]", text)[0] for text in PROJECT["dependencies"]}
    assert needed <= found.keys()
    assert all(found[name] == importlib.metadata.version(name) for name in needed)
    assert found["accelerators"].startswith("GPU number 0, GPU number 1")
    assert found["system"] == platform.platform()


def test_show_versions_says_which_dependency_is_missing(capsys, monkeypatch):
    def version(name: str) -> str:
        if name in {"torchdiffeq", "igraph"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("scratio._versions.version", version)
    scratio.show_versions()
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert found["torchdiffeq"] == "not installed"
    assert "igraph" not in found
