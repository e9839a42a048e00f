"""What a type checker sees of the package from outside: users' code is accepted, and mistakes are refused."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scratio

HERE = Path(__file__).parent / "typing"
INSTALLED = Path(scratio.__file__).parents[1]
CONFIG = """[mypy]
strict = true
[mypy-anndata.*,pandas.*]
ignore_missing_imports = true
"""
ERROR = re.compile(r"(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", flags=re.M)
REFUSED = re.compile(r"  # refused: ([\w-]+)$")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[set[tuple[str, int, str]], str]:
    """Errors of mypy in the user's files, as (file, line, code), and all that it said."""
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    # On PYTHONPATH a package counts as installed: without py.typed mypy reads nothing of it.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", *map(str, sorted(HERE.glob("*.py")))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(INSTALLED)},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    return {(file, int(line), code) for file, line, code in ERROR.findall(text)}, text


def refusals(file: Path) -> set[tuple[str, int, str]]:
    """Errors that the comments of a file announce."""
    lines = enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
    return {(file.name, number, match[1]) for number, line in lines if (match := REFUSED.search(line))}


def test_mypy_accepts_the_code_of_a_user(found):
    errors, text = found
    assert "2 source files" in text, text
    assert {error for error in errors if error[0] == "user_code.py"} == set(), text


def test_mypy_refuses_every_mistake_and_nothing_else(found):
    errors, text = found
    announced = refusals(HERE / "wrong_code.py")
    assert len(announced) > 10
    assert {error for error in errors if error[0] == "wrong_code.py"} == announced, text


def test_the_code_of_a_user_runs():
    spec = importlib.util.spec_from_file_location("user_code", HERE / "user_code.py")
    user = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(user)
    adata = user.new_cells()
    assert user.compare(adata)["treatment"].tolist() == ["treated"]
    assert user.draw(adata).figure is not None
    mean, error = user.ask_a_model(adata)
    assert mean == pytest.approx(adata.obs["log_ratio"].mean(), rel=1e-9)
    assert error > 0


OF_MODALITIES = [
    (part, name)
    for part in (scratio.tl, scratio.pl, scratio.get)
    for name in part.__all__
    if "mod" in inspect.signature(getattr(part, name)).parameters
]


def test_mod_is_a_parameter_that_a_type_checker_sees():
    assert {part.__name__ for part, _ in OF_MODALITIES} == {"scratio.tl", "scratio.pl", "scratio.get"}
    assert {name for part, name in OF_MODALITIES if part is scratio.get} == set(scratio.get.__all__)
    for part, name in OF_MODALITIES:
        assert inspect.unwrap(getattr(part, name)).__annotations__["mod"] == "str | None", name
