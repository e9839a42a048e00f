"""Sphinx extension: the type of every parameter, taken from the signature and linked.

Docstrings name no types, because the signature has them. Numpydoc shows only what the docstring says, so each line of
the section "Parameters" gets its type here, before numpydoc reads it.
"""

from __future__ import annotations

import inspect
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


def add_types(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Write the types behind the names of the parameters."""
    rows = section(lines, "Parameters")
    hints = hints_of(obj) if rows else {}
    for row in rows:
        if NAMES.match(lines[row]):
            names = lines[row].split(", ")
            types = dict.fromkeys(restify(hints[n], mode="smart") for n in names if n in hints)
            if types:
                lines[row] += " : " + ", ".join(types)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect before numpydoc, which has Sphinx's usual priority of 500."""
    app.connect("autodoc-process-docstring", add_types, priority=400)
    return {"parallel_read_safe": True}
