"""The pages: their examples are Python, name what exists, and pass arguments that are taken."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import scratio

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M))
]


def called(node: ast.Call) -> object | None:
    """What a call written as scratio.a.b(...) calls; None if it is something else."""
    names, function = [], node.func
    while isinstance(function, ast.Attribute):
        names.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name) or function.id != "scratio":
        return None
    found: object = scratio
    for name in reversed(names):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_is_python_and_calls_what_exists_with_arguments_it_takes(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "scratio":
            assert hasattr(scratio, node.attr)
        if isinstance(node, ast.Call) and (function := called(node)) is not None:
            parameters = inspect.signature(function).parameters
            takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
            named = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert takes_any or named <= parameters.keys()


def test_there_are_examples_to_check():
    assert len(BLOCKS) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:|#", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve()
        if file == ROOT / "docs" / "tutorials" / "index.md":  # written by the build
            continue
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            labels = set(re.findall(r"^\(([\w-]+)\)=$", file.read_text("utf-8"), flags=re.M))
            assert anchor in slugs | labels, target


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150
