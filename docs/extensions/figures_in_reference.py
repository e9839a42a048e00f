"""Sphinx extension: the figure of a function in the API reference, where there is one, and a gallery of them.

``docs/make_figures.py`` draws images/api/<room>.<function>.png.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
FOLDER = DOCS / "images" / "api"
SAME = {
    "tl.batch_effect": "pl.batch_effect",
    "tl.combination_effect": "pl.combination_effect",
    "tl.compare_methods": "pl.compare_methods",
    "tl.covariate_curve": "pl.covariate_curve",
    "tl.differential_abundance": "pl.embedding",
    "tl.driver_genes": "pl.driver_genes",
    "tl.log_ratio": "pl.embedding",
    "tl.regions": "pl.regions",
    "tl.sample_distance": "pl.sample_distance",
    "tl.translate": "pl.translate",
    "tl.treatment_response": "pl.treatment_response",
}
"""Tools whose result a plot shows: its figure stands on their page too."""


def add_figure(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put the figure below the description, above the parameters."""
    short = name.removeprefix("scratio.")
    stem = SAME.get(short, short)
    if not (FOLDER / f"{stem}.png").exists():
        return
    below = next((i for i, line in enumerate(lines) if line.startswith((":Parameters:", ":Returns:"))), len(lines))
    figure = [f".. figure:: /images/api/{stem}.png", f"   :alt: What scratio.{stem} draws"]
    if stem != short:
        figure += ["", f"   Drawn by :func:`scratio.{stem}`."]
    lines[below:below] = ["", *figure, ""]


def write_gallery(app: Sphinx) -> None:
    """Write a card for each figure of a plot, which api/pl.md includes."""
    lines = ["::::{grid} 2 3 3 4", ":gutter: 2", ""]
    for figure in sorted(FOLDER.glob("pl.*.png")):
        name = figure.stem
        options = [f":img-top: /images/api/{name}.png", f":img-alt: What {name} draws", ":class-title: gallery"]
        lines += [f":::{{grid-item-card}} {name}", f":link: scratio.{name}", ":link-type: any", *options, ":::", ""]
    target = DOCS / "api" / "generated" / "gallery.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join([*lines, "::::", ""]), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect after numpydoc, so that the lines are reStructuredText."""
    app.connect("builder-inited", write_gallery, priority=100)
    app.connect("autodoc-process-docstring", add_figure, priority=600)
    return {"parallel_read_safe": True}
