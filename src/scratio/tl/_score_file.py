"""Scores of many cells written as they are found, so that a killed process goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._atomic import atomic, check_replaceable, discard, discard_folder, put_in_place, temporary
from scratio._check import source_of
from scratio._progress import with_progress
from scratio.model import ScRatio
from scratio.tl._write import written_before

logger = logging.getLogger(__name__)

CHUNK = 2**18
"""Cells that are scored between two writes."""
_QUESTION = "question.json"
_OWN = re.compile(r"\d{12}\.npy|\.(question|\d{12})\.([0-9a-f]{12}|[0-9a-f]{32})\.partial\.(json|npy)")
"""Names of what lies beside the question; the latter are of writes that were cut short."""


def check_out(out: str | Path, overwrite: bool, adata: AnnData) -> Path:
    """Path of a result file, refused before anything is scored if it cannot be written.

    Raises
    ------
    FileExistsError
        If it exists and may not be replaced, or if the folder of the chunks is not scratio's.
    PermissionError
        If another program has it open, and the system does not replace open files (Windows).
    ValueError
        If it is not an ``.h5ad`` file in a folder that exists, or if it is the file that the cells are read from.
    """
    path = Path(out)
    if path.suffix != ".h5ad":
        raise ValueError(f"out must name an .h5ad file, got {str(out)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"out: there is no folder {path.parent}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it, or choose another out")
    if odd := [name for name in adata.obs if not isinstance(name, str)]:
        raise ValueError(f"out: obs has columns whose names are not text, {odd}, which no file can hold; rename them")
    if path.exists() and any(source.exists() and path.samefile(source) for source in _sources(adata)):
        raise ValueError(f"out: the cells are read from {path}; choose another out")
    if path.exists():
        check_replaceable(path)
    folder = partial_folder(path)
    if folder.exists() and not (folder / _QUESTION).exists():
        raise FileExistsError(
            f"{folder}, where chunks of the result would be kept, exists and was not made by scratio; move it, or "
            "choose another out"
        )
    return path


def _sources(adata: AnnData) -> list[Path]:
    """Files that cells on disk are read from."""
    arrays = [adata.X, *adata.obsm.values()]
    files = [adata.filename, *(getattr(getattr(x, "file", None), "filename", None) for x in arrays)]
    return [Path(file) for file in files if file is not None]


def scored_columns(
    adata: AnnData,
    model: ScRatio,
    out: Path,
    question: dict[str, Any],
    score: Callable[[slice], dict[str, np.ndarray]],
    progress_bar: bool | None,
) -> dict[str, np.ndarray]:
    """Columns of scores; each chunk is written to a folder beside ``out`` before the next is scored.

    Parameters
    ----------
    adata, model
        Cells and a trained model.
    out
        Where the result will go.
    question
        What is asked; chunks of another question are refused.
    score
        From rows to columns.
    progress_bar
        Whether to show a bar.

    Raises
    ------
    ValueError
        If the folder holds the chunks of another question, other cells or another model.
    """
    folder = partial_folder(out)
    identity = {"question": question, "model": model.fingerprint(), "cells": _cells(adata, model), "chunk": CHUNK}
    asked = json.dumps(identity, indent=1, default=repr)
    if not folder.exists():
        score(slice(0, 1))  # a question that makes no sense is refused before anything is written
        _make(folder, asked)
    elif (folder / _QUESTION).read_text(encoding="utf-8") != asked:
        raise ValueError(
            f"{folder} holds part of another result (another question, model or cells). Finish that result, or "
            "delete the folder"
        )
    parts = [
        _chunk(folder, rows, score)
        for _, rows in with_progress(_chunks(adata.n_obs), adata.n_obs, "scoring", progress_bar)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _make(folder: Path, asked: str) -> None:
    """Make the folder of the chunks: it appears with its question, which marks it as scratio's."""
    made = folder.with_name(temporary(folder.name))
    made.mkdir()
    (made / _QUESTION).write_text(asked, encoding="utf-8", newline="\n")
    try:
        put_in_place(made, folder)
    except OSError:
        if discard(made / _QUESTION):
            discard_folder(made)
        raise


def partial_folder(out: Path) -> Path:
    """Folder of the chunks that are done."""
    return out.with_name(out.name + ".partial")


def write_result(adata: AnnData, out: Path, columns: dict[str, np.ndarray], key_added: str, result: dict) -> None:
    """Write the columns of ``obs`` and the scores, in one step, and drop the chunks."""
    replaced = {*columns, *written_before(adata, key_added).get("obs", ())}
    obs = adata.obs[[name for name in adata.obs if not name.startswith("_scvi") and name not in replaced]]
    table = AnnData(obs=pd.concat([obs, pd.DataFrame(columns, index=obs.index)], axis=1), uns={key_added: result})
    with atomic(out) as partial:
        table.write_h5ad(partial)
    _remove(partial_folder(out))


def _remove(folder: Path) -> None:
    """Remove the chunks, and their folder unless something else lies in it.

    The question goes last. A folder without it would not be known as scratio's, and would refuse the next result.
    """
    # The first chunk that stays ends it: each would be waited for.
    if not all(discard(file) for file in folder.iterdir() if _OWN.fullmatch(file.name)):
        return
    if discard(folder / _QUESTION) and not any(folder.iterdir()):
        discard_folder(folder)


def _chunks(n: int) -> Iterator[tuple[int, slice]]:
    return ((start, slice(start, min(start + CHUNK, n))) for start in range(0, n, CHUNK))


def _chunk(folder: Path, rows: slice, score: Callable[[slice], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    file = folder / f"{rows.start:012d}.npy"
    if not file.exists():
        found = pd.DataFrame(score(rows)).to_records(index=False)
        with atomic(file) as partial, partial.open("wb") as stream:
            np.save(stream, np.asarray(found), allow_pickle=False)
    stored = np.load(file, allow_pickle=False)
    return {name: stored[name] for name in stored.dtype.names}


def _cells(adata: AnnData, model: ScRatio) -> str:
    """What tells these cells from others: their names, and the first and last of the embedding."""
    x = source_of(adata, model.obsm_key)
    digest = hashlib.sha256(repr((tuple(x.shape), str(getattr(x, "dtype", "")))).encode())
    for rows in (slice(0, 100), slice(max(adata.n_obs - 100, 0), adata.n_obs)):
        digest.update(np.asarray(x[rows]).tobytes())
        digest.update("\0".join(adata.obs_names[rows]).encode())
    return digest.hexdigest()
