"""Parts of R's data files as Python objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from scratio.datasets._optional import require


@dataclass(frozen=True)
class Counts:
    """R's sparse matrix of genes by cells (``dgCMatrix``), transposed."""

    x: csr_matrix  # (n_cells, n_genes), float32
    genes: np.ndarray | None
    cells: np.ndarray | None


def read_parts(path: Path, *parts: str) -> list[Any]:
    """Parts of an ``.rda`` or ``.RData`` file, which is parsed once; only the parts are converted.

    What lies beside them is left alone: rdata cannot convert all that these files hold, such as tables whose dimensions
    have empty names.

    Parameters
    ----------
    path
        The file.
    parts
        Names from the outside in, joined by slashes: an object of the file, then elements of lists, columns of data
        frames, or slots.

    Returns
    -------
    What each part is: a dictionary, an array, a data frame, or :class:`Counts`.

    Raises
    ------
    ImportError
        If rdata is not installed.
    KeyError
        If there is no such part.
    """
    rdata = require("rdata")
    constructors = {**rdata.conversion.DEFAULT_CLASS_MAP, "dgCMatrix": _counts}
    whole = rdata.parser.parse_file(path).object
    return [
        rdata.conversion.convert(_find(whole, part, path), constructors, default_encoding="utf-8") for part in parts
    ]


def _find(whole: Any, part: str, path: Path) -> Any:
    """Parsed object at the end of the names."""
    found = whole
    for name in part.split("/"):
        members = _members(found)
        if name not in members:
            raise KeyError(f"{path} has no {part!r}: {name!r} is not among {sorted(members)}")
        found = members[name]
    return found


def _members(parsed: Any) -> dict[str, Any]:
    """What a parsed object consists of, by name: attributes (slots are attributes in R) and elements."""
    members = {}
    # A file is itself a linked list of named objects; of anything else the attributes are one.
    node = parsed if parsed.info.type.name == "LIST" else parsed.attributes
    while node is not None and node.info.type.name == "LIST":
        tag = node.tag.referenced_object or node.tag  # a name that was used before is a reference to it
        members[tag.value.value.decode()] = node.value[0]
        node = node.value[1]
    if parsed.info.type.name == "VEC" and "names" in members:
        names = [name.value.decode() for name in members["names"].value]
        members |= dict(zip(names, parsed.value, strict=True))
    return members


def _counts(matrix: Any, attributes: dict[str, Any]) -> Counts:
    """Constructor of rdata for ``dgCMatrix``."""
    genes, cells = attributes["Dimnames"]
    columns = csc_matrix((matrix.x, matrix.i, matrix.p), shape=tuple(matrix.Dim))
    return Counts(columns.T.tocsr().astype(np.float32), genes, cells)
