"""Sphinx extension: links to other projects without a network.

Intersphinx reads a compressed inventory of each project, which it would download. Here docs/inventories/<project>.txt
lists the names that scratio's pages refer to, after a first line with the address of the project's pages; this writes
the inventories from the lists. A name that is not listed is a warning of the build: add it, with its page.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from anndata import AnnData
from matplotlib.axes import Axes
from sphinx.application import Sphinx
from sphinx.config import Config

DOCS = Path(__file__).parents[1]
LISTS, TARGET = DOCS / "inventories", DOCS / "_build" / "inventories"


def inventory(project: str, lines: list[str]) -> bytes:
    """Inventory in version 2 of Sphinx's format, from lines "name domain:role page"."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# compressed with zlib\n"
    rows = []
    for line in lines:
        name, role, page = line.split()
        rows.append(f"{name} {role} 1 {page} -\n")
    return head.encode() + zlib.compress("".join(rows).encode())


def write_inventories(app: Sphinx, config: Config) -> None:
    """Write the inventories and tell intersphinx where they are."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in sorted(LISTS.glob("*.txt")):
        address, *lines = path.read_text(encoding="utf-8").split("\n")
        file = TARGET / f"{path.stem}.inv"
        file.write_bytes(inventory(path.stem, [line for line in lines if line]))
        config.intersphinx_mapping[path.stem] = (address, str(file))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect before intersphinx reads its configuration."""
    app.connect("config-inited", write_inventories, priority=100)
    # Classes that their packages document under a shorter name than the one they report.
    AnnData.__module__, Axes.__module__ = "anndata", "matplotlib.axes"
    return {"parallel_read_safe": True}
