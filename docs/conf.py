"""Configuration of the Sphinx documentation."""

from __future__ import annotations

import filecmp
import importlib.metadata
import os
import shutil
from pathlib import Path

from anndata import AnnData
from matplotlib.axes import Axes
from sphinx.application import Sphinx

HERE = Path(__file__).parent


def package_version() -> str:
    """Version of the installed package; "unknown" when it is only on the module search path."""
    try:
        return importlib.metadata.version("scratio")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def copy_tutorials(source: Path, target: Path) -> None:
    """Mirror the notebooks of ``source`` in ``target`` and list them, because Sphinx reads nothing outside its folder.

    Files that are the same keep their time stamp, so that an incremental build skips them.
    """
    target.mkdir(exist_ok=True)
    order = [f"{name}.ipynb" for name in ("kang", "melanoma", "synovium", "sachs", "glioblastoma")]
    notebooks = {path.name: path for path in sorted(source.glob("*.ipynb"), key=lambda p: order.index(p.name))}
    for path in target.glob("*.ipynb"):
        if path.name not in notebooks:
            path.unlink()
    for name, path in notebooks.items():
        if not (target / name).exists() or not filecmp.cmp(path, target / name, shallow=False):
            shutil.copy2(path, target / name)
    # Written here because a glob in a toctree that finds nothing is a warning, and warnings are errors.
    lines = ["# Tutorials", "", "```{toctree}", ":maxdepth: 1", "", *notebooks, "```", ""]
    (target / "index.md").write_text("\n".join(lines), encoding="utf-8")


def skip_foreign_member(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out what a class inherits from another package, such as scvi-tools or torch."""
    module = getattr(getattr(obj, "fget", obj), "__module__", None) or "scratio"
    return None if module.split(".")[0] == "scratio" else True


def setup(app: Sphinx) -> None:
    """Connect the hooks of this file."""
    app.connect("autodoc-skip-member", skip_foreign_member)


copy_tutorials(HERE.parent / "tutorials", HERE / "tutorials")

project = "scratio"
author = "The scratio developers"
copyright = f"2026, {author}"
version = release = package_version()

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store", "**.ipynb_checkpoints"]

# Notebooks carry their outputs; the build runs none of them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_inherit_docstrings = False  # an override has its own parameters, and needs its own docstring
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False

html_theme = "sphinx_book_theme"
html_title = "scratio"
html_theme_options = {"show_navbar_depth": 1}

# References to other projects need the network, so an offline build neither resolves nor checks them.
if os.environ.get("SCRATIO_DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable", None),
    }
    nitpicky = True
    # Classes that their packages document under a shorter name than the one they report.
    AnnData.__module__, Axes.__module__ = "anndata", "matplotlib.axes"
