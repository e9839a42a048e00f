"""Checks of an AnnData, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scratio._blocks import slabs


def check_at_least(least: float, **values: float | None) -> None:
    """Refuse numbers below a bound, or NaN; None stands for a default."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


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
        If it is sparse or does not hold numbers.
    ValueError
        If it is not two-dimensional, is empty, or has NaN or infinite entries.
    """
    if obsm_key not in adata.obsm:
        raise KeyError(
            f"obsm has no key {obsm_key!r}; found: {list(adata.obsm)}. Compute an embedding first, for example "
            "scanpy.pp.pca(adata), and name it."
        )
    x = adata.obsm[obsm_key]
    if sparse.issparse(x):
        raise TypeError(f"obsm[{obsm_key!r}] is sparse; scratio needs a dense embedding: store x.toarray()")
    if isinstance(x, np.ndarray | pd.DataFrame) or not hasattr(x, "dtype"):
        x = np.asarray(x)
    if len(x.shape) != 2 or 0 in x.shape:
        raise ValueError(f"obsm[{obsm_key!r}] must have shape (n_cells, n_dimensions), got {tuple(x.shape)}")
    if not np.issubdtype(x.dtype, np.number) or np.issubdtype(x.dtype, np.complexfloating):
        raise TypeError(f"obsm[{obsm_key!r}] must hold real numbers, got dtype {x.dtype}")
    if finite:
        n_bad, first = 0, -1
        for start, part in slabs(x):
            bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
            first = start + bad[0] if len(bad) and first < 0 else first
            n_bad += len(bad)
        if n_bad:
            raise _not_finite(adata, obsm_key, n_bad, first)
    return x


def check_finite(part: np.ndarray, start: int, adata: AnnData, obsm_key: str) -> None:
    """Refuse a block of rows of the embedding, from row ``start`` on, that has NaN or infinite entries."""
    bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
    if len(bad):
        raise _not_finite(adata, obsm_key, len(bad), start + bad[0])


def _not_finite(adata: AnnData, obsm_key: str, n_bad: int, first: int) -> ValueError:
    return ValueError(
        f"obsm[{obsm_key!r}] has NaN or infinite entries in {n_bad} of {adata.n_obs} cells, the first being "
        f"{adata.obs_names[first]!r}; remove those cells or compute the embedding again"
    )


def check_obs_key(adata: AnnData, key: str) -> pd.Series:
    """Column of ``obs``."""
    if key not in adata.obs:
        raise KeyError(f"obs has no key {key!r}; found: {list(adata.obs.columns)}")
    return adata.obs[key]


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


def check_groups(adata: AnnData, key: str, names: Sequence[str], n_folds: int = 1) -> pd.Series:
    """Labels of all cells (missing ones stay missing), with every named category present often enough for the folds."""
    labels = check_obs_key(adata, key)
    # Missing labels must stay missing: "nan" is not a category.
    labels = labels.astype(str).where(labels.notna())
    counts = labels.value_counts()
    for name in names:
        if str(name) not in counts.index:
            raise ValueError(f"obs[{key!r}] has no category {str(name)!r}; found: {sorted(counts.index)}")
        if counts[str(name)] < max(n_folds, 2):
            raise ValueError(
                f"obs[{key!r}] has {counts[str(name)]} cells in category {str(name)!r}, fewer than n_folds={n_folds} "
                "folds need; use fewer folds or more cells"
            )
    return labels
