"""The pages: their examples are Python, name what exists, and pass arguments that are taken."""

from __future__ import annotations

import ast
import inspect
import json
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


# --- what the site is made of -----------------------------------------------------------------------------------------

DOCS = ROOT / "docs"
SITE_PAGES = [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "api").glob("*.md"))]


@pytest.mark.parametrize("name", scratio.pl.__all__)
def test_every_plot_has_a_small_figure_and_is_in_the_reference(name):
    assert (DOCS / "images" / "api" / f"pl.{name}.png").stat().st_size < 80_000
    assert f"   pl.{name}\n" in (DOCS / "api" / "pl.md").read_text("utf-8")


def test_every_figure_of_the_reference_is_drawn_by_the_script():
    text = (DOCS / "make_figures.py").read_text("utf-8")
    drawn = set(re.findall(r'"(?:api/)?([\w.]+)": ', text[text.index("FIGURES: ") :]))
    assert {path.stem for path in (DOCS / "images").rglob("*.png")} <= drawn


def test_cited_works_are_in_the_bibliography_and_its_entries_on_the_page_of_references():
    bibliography = (DOCS / "references.bib").read_text("utf-8")
    keys = re.findall(r"^@\w+\{([\w-]+),", bibliography, flags=re.M)
    assert len(keys) == len(set(keys))
    texts = [path.read_text("utf-8") for path in [*SITE_PAGES, *(ROOT / "src").rglob("*.py")]]
    cited = {
        key.strip()
        for text in texts
        for found in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`|:cite(?::\w+)?:`([^`]+)`", text)
        for key in "".join(found).split(",")
    }
    assert cited <= set(keys)
    shown = set(re.findall(r':filter: keywords % "(\w+)"', (DOCS / "references.md").read_text("utf-8")))
    assert set(re.findall(r"^  keywords = \{(\w+)\},$", bibliography, flags=re.M)) == shown
    assert bibliography.count("  keywords = ") == len(keys)


@pytest.mark.parametrize("path", sorted((DOCS / "inventories").glob("*.txt")), ids=lambda path: path.stem)
def test_an_inventory_is_an_address_and_names_with_their_pages(path):
    address, *lines = path.read_text("utf-8").splitlines()
    assert re.fullmatch(r"https://[\w./-]*[\w]", address)
    assert all(re.fullmatch(r"[\w.]+ py:\w+ [\w./-]+(#[\w.]+)?", line) for line in lines)
    names = [line.split()[0] for line in lines]
    assert len(names) == len(set(names))


def test_every_tutorial_has_a_card_and_a_place_in_the_sidebar():
    cards = (DOCS / "extensions" / "tutorial_cards.py").read_text("utf-8")
    sidebar = (DOCS / "index.md").read_text("utf-8")
    for notebook in (ROOT / "tutorials").glob("*.ipynb"):
        assert f'"{notebook.stem}": Card(' in cards
        assert f"\ntutorials/{notebook.stem}\n" in sidebar


@pytest.mark.parametrize("notebook", sorted((ROOT / "tutorials").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_stores_few_outputs_and_shows_figures_without_their_names(notebook):
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert code and all(cell["execution_count"] for cell in code), "not executed"
    assert 3 <= len(outputs) < 60
    texts = ["".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs]
    assert not any("<Axes" in text for text in texts)
    assert not any(output["output_type"] == "error" for output in outputs)
    # What was executed is what the text beside it says.
    source = (notebook.with_suffix(".py")).read_text("utf-8")
    missing = [cell["source"] for cell in code if "".join(cell["source"]).replace("%matplotlib", "") not in source]
    assert not [text for text in missing if "%matplotlib" not in "".join(text)]


def test_the_example_of_the_readme_is_the_first_tutorial():
    block = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), flags=re.S | re.M)[0]
    tutorial = (ROOT / "tutorials" / "first_steps.py").read_text("utf-8")
    calls = [line.split("  #")[0].split(", groupby")[0] for line in block.splitlines() if line]
    assert len(calls) >= 7
    assert all(call.rstrip(")") in tutorial for call in calls)
