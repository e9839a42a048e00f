"""Configuration of the Sphinx documentation. The build needs no network, and neither do the pages."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))


def package_version() -> str:
    """Version of the installed package; "unknown" when it is only on the module search path."""
    try:
        return importlib.metadata.version("scratio")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


project = "scratio"
author = "The scratio developers"
copyright = f"2026, {author}"
version = release = package_version()

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    # In docs/extensions:
    "citation_labels",
    "figures_in_reference",
    "listed_inventories",
    "parameter_types",
    "scratio_members",
    "tutorial_cards",
]
templates_path = ["_templates"]
# The last two are written by docs/extensions and included by other pages.
exclude_patterns = [
    "_build",
    "Thumbs.db",
    ".DS_Store",
    "**.ipynb_checkpoints",
    "api/generated/gallery.md",
    "tutorials/cards.md",
]
nitpicky = True
nitpick_ignore_regex = [("py:class", r"scratio(\.\w+)?\._\w+\.\w+")]  # types of results that have no page of their own

# Notebooks carry their outputs; the build runs none of them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_inherit_docstrings = False  # an override has its own parameters, and needs its own docstring
autodoc_typehints = "none"  # types stand beside the parameters
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "author_year_labels"
bibtex_reference_style = "author_year"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# MathJax is served with the pages: one file, whose formulas are drawings and need no fonts.
mathjax = importlib.metadata.distribution("sphinx-mathjax-offline")
mathjax_path = "tex-svg.js"

html_theme = "sphinx_book_theme"
html_title = "scratio"
html_static_path = ["_static", str(mathjax.locate_file(f"sphinx-mathjax-offline/static/mathjax/{mathjax_path}"))]
html_extra_path = ["llms.txt"]  # for LLM agents, at the root of the site
html_css_files = ["scratio.css"]
html_theme_options = {
    "show_navbar_depth": 1,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # one search box: that of the sidebar
}
