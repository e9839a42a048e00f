"""The pages: their examples are Python, name what exists, and pass arguments that are taken."""

from __future__ import annotations

import ast
import csv
import inspect
import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from typer.testing import CliRunner

import scratio
from scratio.cli import app
from scratio.model import ScRatio

SHORT = {"max_steps": 10, "progress_bar": False}
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
    assert 3 <= len(outputs) < 60
    texts = ["".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs]
    assert not any("<Axes" in text for text in texts)


def test_the_example_of_the_readme_is_the_first_tutorial():
    block = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), flags=re.S | re.M)[0]
    tutorial = (ROOT / "tutorials" / "first_steps.py").read_text("utf-8")
    calls = [line.split("  #")[0].split(", groupby")[0] for line in block.splitlines() if line]
    assert len(calls) >= 7
    assert all(call.rstrip(")") in tutorial for call in calls)


# --- Pages whose code is run ------------------------------------------------------------------------------------------


def blocks_of(page: str) -> list[str]:
    """Blocks of Python on a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), flags=re.S | re.M)


def tasks_page() -> ModuleType:
    """The script that counts the lines of the page of tasks."""
    spec = spec_from_file_location("scratio_docs_tasks", ROOT / "docs" / "_tasks.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def short_trainings(monkeypatch, tmp_path):
    """Ten steps for every training, figures that are closed, and a folder of its own for what is written."""
    train = ScRatio.train
    monkeypatch.setattr(ScRatio, "train", lambda self, **kwargs: train(self, **{**kwargs, **SHORT}))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    plt.close("all")


@pytest.fixture
def counts() -> AnnData:
    """Counts of six patients with four samples each: type A is more frequent where drug a was given."""
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 24, 1200)
    patient, drug = sample // 4, np.array(["none", "a", "b", "ab"])[sample % 4]
    has_a = np.isin(drug, ["a", "ab"])
    is_a = rng.uniform(size=len(sample)) < np.where(has_a, 0.85, 0.2)
    obs = pd.DataFrame(
        {
            "sample": [f"p{p} {d}" for p, d in zip(patient, drug, strict=True)],
            "patient": [f"p{p}" for p in patient],
            "condition": np.where(has_a, "treated", "control"),
            "drug": drug,
            "drug_a": np.where(has_a, "yes", "no"),
            "drug_b": np.where(np.isin(drug, ["b", "ab"]), "yes", "no"),
            "age": 30.0 + 10.0 * patient,
            "sex": np.where(patient % 2 == 0, "f", "m"),
            "batch": np.where((sample % 4 // 2 + patient) % 2 == 0, "b0", "b1"),
            "cell_type": np.where(is_a, "A", "B"),
        },
        index=[f"cell {number}" for number in range(len(sample))],
    )
    rates = np.exp(1.0 + 0.7 * rng.normal(size=(2, 20))[is_a.astype(int)])
    adata = AnnData(rng.poisson(rates).astype(np.float32), obs=obs)
    adata.layers["counts"] = adata.X.copy()
    return adata


def test_the_tasks_run_in_scratio_and_find_what_was_put_in(counts, short_trainings):
    names: dict[str, object] = {"adata": counts}
    for of in tasks_page().code((ROOT / "docs" / "tasks.md").read_text("utf-8")).values():
        exec(of["scratio"], names)
    regions = scratio.get.regions(counts)
    assert {"A", "B"} <= set(regions["region"].str[0])
    assert (regions.loc[regions["region"].str.startswith("A"), "effect"] > 0.0).all()
    assert (regions.loc[regions["region"].str.startswith("B"), "effect"] < 0.0).all()
    assert {"neighborhoods.csv", "scored.h5ad", "model"} <= {path.name for path in short_trainings.iterdir()}


def test_the_table_of_tasks_is_that_of_the_page():
    module = tasks_page()
    with module.TABLE.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == module.table(module.PAGE.read_text("utf-8"))


def test_lines_of_code_leave_out_imports_comments_and_empty_lines():
    block = "import a\n\n# a comment\nfrom b import (\n    c,\n)\nf(\n    x,\n    y,\n)\ng()  # another\n"
    assert tasks_page().n_lines(block) == 5


def test_every_tool_has_code_or_a_reason_for_every_task():
    module = tasks_page()
    text = module.PAGE.read_text("utf-8")
    tasks = module.code(text)
    assert len(tasks) == 15
    for task, of in tasks.items():
        section = text.split(f"## {task}\n")[1].split("\n## ")[0]
        for tool in module.TOOLS:
            assert of[tool] or re.search(rf"^\*\*{tool}\*\*: not possible", section, flags=re.M), (task, tool)
        assert of["scratio"], task


def test_code_of_the_tasks_is_formatted_alike(tmp_path):
    tasks = tasks_page().code((ROOT / "docs" / "tasks.md").read_text("utf-8"))
    blocks = [block for of in tasks.values() for block in of.values() if block]
    for number, block in enumerate(blocks):
        (tmp_path / f"block{number}.py").write_text(block, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--check",
        "--config",
        str(ROOT / "pyproject.toml"),
        str(tmp_path),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert number > 30
    assert checked.returncode == 0, checked.stdout


def test_code_for_agents_runs_on_a_design_with_donors(short_trainings, capsys):
    adata = scratio.datasets.mixture(n_cells=1200, n_dims=4)
    number = np.arange(adata.n_obs)
    adata.obs["donor"] = adata.obs["condition"].astype(str) + (number % 4).astype(str)
    adata.obs["batch"] = np.where(number % 8 < 4, "b0", "b1")
    if "cell_type" not in adata.obs:
        adata.obs["cell_type"] = np.where(adata.obsm["X_pca"][:, 0] > 0.0, "A", "B")
    names: dict[str, object] = {"adata": adata}
    for block in blocks_of("docs/agents.md"):
        exec(block, names)
    assert scratio.get.diagnostics(adata)["verdict"].iloc[0] in capsys.readouterr().out


def test_the_example_of_the_readme_runs(short_trainings):
    names: dict[str, object] = {}
    exec(blocks_of("README.md")[0], names)
    adata = names["adata"]
    # With ten steps nothing is resolved, but cells of the types that were planted as frequent rank above the others.
    assert adata.obs[["da_log_ratio", "true_log_ratio"]].corr("spearman").iloc[0, 1] > 0.3


def test_r_users_get_text_files_of_a_file_without_counts(short_trainings):
    cells = scratio.datasets.gaussians(n_cells=800, n_dims=3)
    bare = AnnData(obs=cells.obs, obsm={"X_pca": cells.obsm["X_pca"]})
    bare.obs["donor"] = bare.obs["condition"].astype(str) + (np.arange(800) % 4).astype(str)
    bare.write_h5ad("cells.h5ad")
    command = "da cells.h5ad --condition-key condition --treatment treated --reference control --sample-key donor"
    called = CliRunner().invoke(app, [*command.split(), "--effort", "quick", "--out", "scored.h5ad"])
    assert called.exit_code == 0, called.output
    for block in blocks_of("docs/r.md"):
        exec(block, {})
    assert pd.read_csv("diagnostics.csv")["verdict"].notna().all()
    assert pd.read_csv("neighborhoods.csv")["effect"].abs().max() > 0.5


def test_llms_txt_names_pages_that_exist_and_all_of_the_guide():
    text = (ROOT / "docs" / "llms.txt").read_text("utf-8")
    assert re.match(r"# scratio\n\n> ", text)
    linked = {path.removesuffix(".html") for path in re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", text, flags=re.M)}
    for name in linked:
        assert (ROOT / "docs" / f"{name}.md").exists(), name
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages - {"index", "install", "changelog", "contributing"} <= linked
