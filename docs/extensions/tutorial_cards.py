"""Sphinx extension: the notebooks of tutorials/, copied into the pages, and a card with a picture for each.

Sphinx reads nothing outside of its folder, so docs/tutorials is written before each build and is not committed.
"""

from __future__ import annotations

import base64
import filecmp
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops
from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
SOURCE, TARGET = DOCS.parent / "tutorials", DOCS / "tutorials"
WIDTH = 560
"""Width of a thumbnail in pixels."""


@dataclass(frozen=True)
class Card:
    """Card of a tutorial.

    Parameters
    ----------
    task
        What the reader wants to do; the sidebar has the same headings.
    text
        What the tutorial shows.
    image
        Which of the images among the notebook's outputs.
    part
        Left and right end of the part of it that is shown, as shares of its width.
    """

    task: str
    text: str
    image: int = 0
    part: tuple[float, float] = (0.0, 1.0)


CARDS = {
    "first_steps": Card(
        "Get started",
        "One call, one table, one figure, on cells that need no download and whose true answer is known.",
    ),
    "kang": Card(
        "Compare conditions",
        "PBMCs with and without interferon beta: which cell states are more likely after stimulation?",
        part=(0.485, 1.0),
    ),
    "melanoma": Card(
        "Compare conditions",
        "Patients who respond to checkpoint therapy and patients who do not: a test with patients as replicates.",
        part=(0.0, 0.29),
    ),
    "synovium": Card(
        "Check a batch correction",
        "Synovial cells before and after Harmony: how much of the batch is left in each cell?",
        part=(0.0, 0.5),
    ),
    "sachs": Card(
        "Combine treatments",
        "Signalling proteins under pairs of stimuli: what do two do together that one does not?",
        part=(0.0, 0.5),
    ),
    "glioblastoma": Card(
        "Compare donors",
        "Five tumours, with and without panobinostat: who responds, and along which genes?",
        part=(0.667, 1.0),
    ),
}
"""The tutorials in the order of the sidebar."""


def thumbnail(notebook: Path, card: Card) -> Image.Image | None:
    """Part of an image among a notebook's outputs; None if it has none."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    images = [found["image/png"] for found in data if "image/png" in found]
    if len(images) <= card.image:
        return None
    image = Image.open(io.BytesIO(base64.b64decode(images[card.image]))).convert("RGB")
    left, right = (round(image.width * share) for share in card.part)
    image = image.crop((left, 0, right, image.height))
    image = image.crop(ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox())
    return image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)


def markdown(name: str, card: Card) -> list[str]:
    """Lines of a card in a grid."""
    notebook = SOURCE / f"{name}.ipynb"
    title = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"][0].removeprefix("# ").strip()
    options = [f":link: /tutorials/{name}", ":link-type: doc"]
    if (TARGET / "thumbnails" / f"{name}.png").exists():
        options += [f":img-top: /tutorials/thumbnails/{name}.png", ":img-alt: Figure of the tutorial"]
    footer = ["", "::::{card-footer}", card.task, "::::"]
    return [f":::::{{grid-item-card}} {title}", *options, "", card.text, *footer, ":::::"]


def write(path: Path, content: bytes) -> None:
    """Write a file if its content is another. Its time stamp tells an incremental build what to skip."""
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def copy_tutorials(app: Sphinx) -> None:
    """Mirror the notebooks, cut their thumbnails, and write their cards."""
    (TARGET / "thumbnails").mkdir(parents=True, exist_ok=True)
    for path in TARGET.glob("*.ipynb"):
        if not (SOURCE / path.name).exists():
            path.unlink()
    lines = ["::::::{grid} 1 2 2 3", ":gutter: 3", ""]
    for name, card in CARDS.items():
        notebook = SOURCE / f"{name}.ipynb"
        if not (TARGET / notebook.name).exists() or not filecmp.cmp(notebook, TARGET / notebook.name, shallow=False):
            shutil.copy2(notebook, TARGET / notebook.name)
        image = thumbnail(notebook, card)
        if image is not None:
            buffer = io.BytesIO()
            image.save(buffer, format="png", optimize=True)
            write(TARGET / "thumbnails" / f"{name}.png", buffer.getvalue())
        lines += [*markdown(name, card), ""]
    write(TARGET / "cards.md", "\n".join([*lines, "::::::", ""]).encode())
    page = ["# Tutorials", "", "Each is a notebook with its outputs.", "", "```{include} cards.md", "```", ""]
    write(TARGET / "index.md", "\n".join(page).encode())


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", copy_tutorials, priority=100)
    return {"parallel_read_safe": True}
