"""Writing results into an AnnData."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio.model import ScRatio

logger = logging.getLogger(__name__)

RESULT_MARK = "scratio"


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    names = ("scratio", "torch", "lightning", "scvi-tools", "anndata", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def record(
    analysis: str,
    params: Mapping[str, Any],
    data: Mapping[str, Any],
    model: ScRatio | None = None,
    **contents: Any,
) -> dict[str, Any]:
    """What goes to ``uns``: function, versions, parameters, hashes of the data, the training of its model, and more."""
    trained = {"training": training_of(model), "history": history_tables(model.history)} if model is not None else {}
    made = {RESULT_MARK: versions(), "analysis": analysis, "params": storable(params), "data": dict(data)}
    return {**made, **trained, **contents}


def finish(target: AnnData, key_added: str, result: Mapping[str, Any], copy: bool) -> AnnData | None:
    """Last step of an analysis: its record goes to ``uns``, and what was added is logged."""
    target.uns[key_added] = result
    added = [f"uns[{key_added!r}]"]
    for name in ("obs", "obsm", "varm"):
        keys = [str(key) for key in getattr(target, name) if key == key_added or str(key).startswith(f"{key_added}_")]
        added += [f"{name}[{key!r}]" for key in keys]
    logger.info("%s: wrote %s", result["analysis"], ", ".join(added))
    return target if copy else None


def training_of(model: ScRatio) -> dict[str, Any]:
    """What was chosen in a training and why, in a form that can be stored."""
    return storable(model.training_)


def check_key_added(
    adata: AnnData, key_added: str, columns: Sequence[str], *, obsm: Sequence[str] = (), varm: Sequence[str] = ()
) -> None:
    """Refuse to overwrite what scratio did not write; an earlier result under the same key is replaced.

    Raises
    ------
    ValueError
        If ``uns[key_added]``, one of the columns of ``obs``, or a key of ``obsm`` or ``varm`` is the user's own.
    """
    earlier = adata.uns.get(key_added)
    if isinstance(earlier, Mapping) and RESULT_MARK in earlier:
        return
    taken = [f"uns[{key_added!r}]"] if earlier is not None else []
    for name, wanted in (("obs", columns), ("obsm", obsm), ("varm", varm)):
        taken += [f"{name}[{key!r}]" for key in wanted if key in getattr(adata, name)]
    if taken:
        raise ValueError(f"{', '.join(taken)} would be overwritten; choose another key_added")


def copied(adata: AnnData) -> AnnData:
    """Copy of cells; embeddings on disk, which nothing here writes to, are shared."""
    on_disk = {key: value for key, value in adata.obsm.items() if not hasattr(value, "copy")}
    if not on_disk:
        return adata.copy()
    names = ("X", "obs", "var", "uns", "varm", "layers", "raw", "obsp", "varp")
    parts = {name: getattr(adata, name) for name in names}
    in_memory = {key: value for key, value in adata.obsm.items() if key not in on_disk}
    copy = AnnData(**parts, obsm=in_memory).copy()
    for key, value in on_disk.items():
        copy.obsm[key] = value
    return copy


def drop_earlier(adata: AnnData, key_added: str, names: Sequence[str]) -> None:
    """Remove columns of an earlier result of scratio's under the same key, which the new one may not have.

    Parameters
    ----------
    adata
        Cells.
    key_added
        Prefix of the columns.
    names
        Rest of their names, in ``obs`` and ``obsm``.
    """
    if RESULT_MARK not in adata.uns.get(key_added, {}):
        return
    for column in (f"{key_added}_{name}" for name in names):
        if column in adata.obs:
            del adata.obs[column]
        if column in adata.obsm:
            del adata.obsm[column]


def storable(value: Any) -> Any:
    """Form of a parameter that h5ad and zarr can hold: None as a string, sequences as arrays, dicts throughout."""
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return {str(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return np.asarray([str(item) for item in value]) if _has_text(value) else np.asarray(value)
    if isinstance(value, str | bool | int | float | np.ndarray | pd.DataFrame):
        return value
    return str(value)


def history_tables(history: dict[str, pd.DataFrame] | None) -> dict[str, Any]:
    """Training history as plain arrays: steps, and losses of shape (n_validations, n_members)."""
    tables: dict[str, Any] = {}
    for name, frame in (history or {}).items():
        tables["step"] = frame.index.to_numpy()
        tables[name] = frame.to_numpy()
    return tables


def _has_text(values: list | tuple) -> bool:
    return any(
        _has_text(item) if isinstance(item, list | tuple) else not isinstance(item, int | float) for item in values
    )
