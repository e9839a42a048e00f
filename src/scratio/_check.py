"""Checks of an AnnData, before anything is trained or written."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from scratio._blocks import slabs
from scratio._constants import RESULT_MARK, X


def warn_user(message: str) -> None:
    """Warn with the user's line of code, the first one outside of scratio."""
    frame, level = sys._getframe(1), 2
    while frame is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "scratio":
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    warnings.warn(message, UserWarning, stacklevel=level)


def check_at_least(least: float, **values: float | None) -> None:
    """Refuse numbers below a bound, or NaN; None stands for a default."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_anndata(adata: Any, *, copy: bool | None = None) -> None:
    """Refuse what is not an AnnData in memory or in an open file, and, with ``copy``, what cannot take results.

    Parameters
    ----------
    adata
        What the user passed.
    copy
        Whether results go to a copy; None where nothing is written.

    Raises
    ------
    TypeError
        If it is a MuData, was opened by :func:`anndata.experimental.read_lazy`, or is something else.
    ValueError
        If it is backed by a file and is a view, or would have to be copied.
    """
    if not isinstance(adata, AnnData):
        if isinstance(modalities := getattr(adata, "mod", None), Mapping):
            raise TypeError(
                f"adata is a MuData; name one of its modalities, for example mod={next(iter(modalities), '')!r}, or "
                f"pass it alone: {', '.join(f'mdata[{name!r}]' for name in modalities)}"
            )
        raise TypeError(f"adata must be an AnnData, got {type(adata).__name__}")
    if not isinstance(adata.obs, pd.DataFrame):
        raise TypeError(
            "adata was opened with anndata.experimental.read_lazy, so its obs is not in memory. Open the file with "
            "scratio.io.read_lazy(path), which leaves the embedding on disk, or pass adata.to_memory()"
        )
    if copy is None or not adata.isbacked:
        return
    if adata.is_view:
        raise ValueError(
            "adata is a view of a file opened with backed='r', and such a view cannot take results. Pass "
            "adata.to_memory(), or copy the view into a file with adata.copy(filename=...)"
        )
    if copy:
        raise ValueError(
            "copy=True cannot copy adata, because it is backed by a file. Leave copy out, or pass adata.to_memory()"
        )


def is_result(value: Any) -> bool:
    """Whether an entry of ``uns`` is a result of scratio."""
    return isinstance(value, Mapping) and RESULT_MARK in value


def check_unique_names(adata: AnnData) -> None:
    """Refuse names by which results could not be written back."""
    if not adata.obs_names.is_unique:
        raise ValueError("obs_names are not unique; call adata.obs_names_make_unique() first")


def check_embedding(adata: AnnData, obsm_key: str) -> np.ndarray:
    """Embedding as a dense two-dimensional array of finite numbers in memory.

    Raises
    ------
    KeyError, TypeError, ValueError
        As :func:`check_source`.
    """
    return np.asarray(check_source(adata, obsm_key))


def check_source(adata: AnnData, obsm_key: str, *, finite: bool = True) -> Any:
    """Embedding as it is, dense, two-dimensional and finite: in memory, or a dask, HDF5 or zarr array.

    ``"X"`` stands for ``adata.X``, unless ``obsm`` has that key.

    Parameters
    ----------
    adata
        Cells.
    obsm_key
        Key of the embedding.
    finite
        Whether to read it all for entries that are not finite; otherwise who reads it calls :func:`check_finite`.

    Raises
    ------
    KeyError
        If ``obsm`` has no such key.
    TypeError
        If the key is not a string, or the embedding is sparse or does not hold numbers.
    ValueError
        If it is not two-dimensional, is empty, or has NaN or infinite entries.
    """
    check_anndata(adata)
    if not isinstance(obsm_key, str):
        raise TypeError(
            f"the name of an embedding must be a string, got {obsm_key!r}; found in obsm: {list(adata.obsm)}. 'X' is "
            "adata.X"
        )
    if not has_source(adata, obsm_key):
        raise KeyError(
            f"obsm has no key {obsm_key!r}; found: {list(adata.obsm)}. Compute an embedding first, for example "
            "scanpy.pp.pca(adata), and name it."
        )
    x, name = source_of(adata, obsm_key), source_name(adata, obsm_key)
    # Of a dask array the type of its blocks counts.
    if sparse.issparse(getattr(x, "_meta", x)) or isinstance(x, CSRDataset | CSCDataset):
        of_x = "compute one, for example scanpy.pp.pca(adata), or with few features set adata.X = adata.X.toarray()"
        how = of_x if name == X else "store x.toarray()"
        raise TypeError(f"{name} is sparse; scratio needs a dense embedding: {how}")
    if isinstance(x, np.ndarray | pd.DataFrame) or not hasattr(x, "dtype"):
        x = np.asarray(x)
    if len(x.shape) != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape (n_cells, n_dimensions), got {tuple(x.shape)}")
    if not np.issubdtype(x.dtype, np.number) or np.issubdtype(x.dtype, np.complexfloating):
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if finite:
        n_bad, first = 0, -1
        for start, part in slabs(x):
            bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
            first = start + bad[0] if len(bad) and first < 0 else first
            n_bad += len(bad)
        if n_bad:
            raise _not_finite(adata, obsm_key, n_bad, first)
    return x


def has_source(adata: AnnData, obsm_key: str) -> bool:
    """Whether there is an embedding of this name."""
    return obsm_key in adata.obsm or (obsm_key == X and adata.X is not None)


def source_of(adata: AnnData, obsm_key: str) -> Any:
    """The embedding of this name, unchecked."""
    return adata.X if source_name(adata, obsm_key) == X else adata.obsm[obsm_key]


def source_name(adata: AnnData, obsm_key: str) -> str:
    """Where the embedding of this name lies, for messages."""
    return X if obsm_key == X and X not in adata.obsm else f"obsm[{obsm_key!r}]"


def check_spread(x: Any, name: str) -> None:
    """Refuse an embedding that is the same for all cells.

    Raises
    ------
    ValueError
        If no dimension has two different values.
    """
    first = np.asarray(x[:1])
    if not any((part != first).any() for _, part in slabs(x)):
        raise ValueError(
            f"{name} is the same for all {x.shape[0]} cells, so they cannot be told apart; compute the embedding again"
        )


def check_finite(part: np.ndarray, start: int, adata: AnnData, obsm_key: str) -> None:
    """Refuse a block of rows of the embedding, from row ``start`` on, that has NaN or infinite entries."""
    bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
    if len(bad):
        raise _not_finite(adata, obsm_key, len(bad), start + bad[0])


def _not_finite(adata: AnnData, obsm_key: str, n_bad: int, first: int) -> ValueError:
    return ValueError(
        f"{source_name(adata, obsm_key)} has NaN or infinite entries in {n_bad} of {adata.n_obs} cells, the first "
        f"being {adata.obs_names[first]!r}; remove those cells or compute the embedding again"
    )


def check_obs_key(adata: AnnData, key: str) -> pd.Series:
    """Column of ``obs``."""
    if key not in adata.obs:
        raise KeyError(f"obs has no key {key!r}; found: {list(adata.obs.columns)}")
    column = adata.obs[key]
    if isinstance(column, pd.DataFrame):
        raise ValueError(f"obs has {column.shape[1]} columns named {key!r}; rename or remove all but one")
    return column


def check_categories(adata: AnnData, key: str) -> pd.Series:
    """Labels of all cells as strings; none may be missing."""
    labels = check_obs_key(adata, key)
    if labels.isna().any():
        raise ValueError(
            f"obs[{key!r}] is missing in {int(labels.isna().sum())} of {len(labels)} cells; label or remove those cells"
        )
    return labels.astype(str)


def check_numbers(adata: AnnData, key: str) -> np.ndarray:
    """Values of a continuous key; all must be finite."""
    column = check_obs_key(adata, key)
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise TypeError(f"obs[{key!r}] is used as a continuous key but has dtype {column.dtype}")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(values).all():
        raise ValueError(f"obs[{key!r}] has missing or infinite values; remove those cells")
    return values


def category_of(value: Any, found: Collection[str]) -> str:
    """Return the name of the category that a user means. The numbers 1 and 1.0 both mean the category ``"1.0"``.

    Parameters
    ----------
    value
        Text or a number.
    found
        Names of the categories. If none fits, the value as text is returned.
    """
    name = str(value)
    if name in found or isinstance(value, str | bool | np.bool_) or not isinstance(value, Real):
        return name
    same = [other for other in found if _as_number(other) == value]
    return same[0] if len(same) == 1 else name


def _as_number(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None


def check_groups(adata: AnnData, key: str, names: Sequence[str], n_folds: int = 1) -> pd.Series:
    """Labels of all cells (missing ones stay missing), with every named category present often enough for the folds."""
    labels = check_obs_key(adata, key)
    # Missing labels must stay missing: "nan" is not a category.
    labels = labels.astype(str).where(labels.notna())
    counts = labels.value_counts()
    for name in names:
        if name not in counts.index:
            raise ValueError(f"obs[{key!r}] has no category {name!r}; found: {sorted(counts.index)}")
        if counts[name] < max(n_folds, 2):
            raise ValueError(
                f"obs[{key!r}] has {counts[name]} cells in category {name!r}, fewer than n_folds={n_folds} "
                "folds need; use fewer folds or more cells"
            )
    return labels
