"""Sphinx extension: the types of parameters and of what is returned, taken from the signature and linked.

Docstrings name no types, because the signature has them. Numpydoc shows only what the docstring says, so the sections
"Parameters" and "Returns" get their types here, before numpydoc reads them.
"""

from __future__ import annotations

import inspect
import itertools
import re
import typing

from sphinx.application import Sphinx
from sphinx.util.typing import restify

NAMES = re.compile(r"^\w+(?:, \w+)*$")
"""A line that names parameters and nothing else."""


def section(lines: list[str], title: str) -> range:
    """Lines of a section of a numpydoc docstring, without its title."""
    heads = [i for i, line in enumerate(lines[1:]) if re.fullmatch(r"-{3,}", line.strip())]
    for start, end in zip(heads, [*heads, len(lines)][1:], strict=True):
        if lines[start].strip() == title:
            return range(start + 2, end)
    return range(0)


def hints_of(obj: object) -> dict[str, object]:
    """Types of the parameters of a function or of a class; empty if they cannot be told."""
    function = obj.__init__ if inspect.isclass(obj) else obj
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def add_parameter_types(lines: list[str], hints: dict[str, object]) -> None:
    """Write the types behind the names of the parameters."""
    for row in section(lines, "Parameters"):
        if NAMES.match(lines[row]):
            names = lines[row].split(", ")
            types = dict.fromkeys(restify(hints[name], mode="smart") for name in names if name in hints)
            if types:
                lines[row] += " : " + ", ".join(types)


def add_return_type(lines: list[str], hints: dict[str, object]) -> None:
    """Write the type above a first paragraph that describes what is returned; numpydoc would take it for the type."""
    rows = section(lines, "Returns")
    paragraph = list(itertools.takewhile(lambda row: re.match(r"[^\s`]", lines[row]), rows))
    below = lines[paragraph[-1] + 1] if paragraph and paragraph[-1] + 1 < len(lines) else ""
    if not paragraph or below.startswith(" ") or "return" not in hints:
        return
    for row in paragraph:
        lines[row] = f"    {lines[row]}"
    lines.insert(paragraph[0], restify(hints["return"], mode="smart"))


def add_types(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Write the types into a docstring."""
    if section(lines, "Parameters") or section(lines, "Returns"):
        hints = hints_of(obj)
        add_parameter_types(lines, hints)
        add_return_type(lines, hints)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect before numpydoc, which has Sphinx's usual priority of 500."""
    app.connect("autodoc-process-docstring", add_types, priority=400)
    return {"parallel_read_safe": True}
