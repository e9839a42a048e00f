"""Writing results into an AnnData."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

RESULT_MARK = "scratio"


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    names = ("scratio", "torch", "lightning", "scvi-tools", "anndata", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def check_key_added(adata: AnnData, key_added: str, columns: list[str]) -> None:
    """Refuse to overwrite what scratio did not write; an earlier result under the same key is replaced.

    Raises
    ------
    ValueError
        If ``uns[key_added]`` or one of the columns is the user's own.
    """
    earlier = adata.uns.get(key_added)
    if isinstance(earlier, Mapping) and RESULT_MARK in earlier:
        return
    taken = [f"uns[{key_added!r}]"] if earlier is not None else []
    taken += [f"obs[{column!r}]" for column in columns if column in adata.obs]
    if taken:
        raise ValueError(f"{', '.join(taken)} would be overwritten; choose another key_added")


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
    return any(not isinstance(item, int | float) for item in values)
