"""Opening a file of cells without reading its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem

from scratio._constants import RESULT_MARK, X

ENCODING = "0.2.0"
"""Version of the tables whose columns are read one by one."""


def read_lazy(path: str | Path, *, obsm_key: str = "X_pca", obs_keys: Sequence[str] | None = None) -> AnnData:
    """Open an ``.h5ad`` or ``.zarr`` file with its labels in memory and its embedding on disk.

    Models train on such cells and score them block by block, so that any number of cells fits. Counts, other embeddings
    and graphs are not read. ``uns`` holds only results of scratio. The file stays open as long as the cells are in use.

    Parameters
    ----------
    path
        File, or folder of a zarr store.
    obsm_key
        Key of ``obsm`` with the embedding. ``"X"`` is the file's own matrix, which must be dense.
    obs_keys
        Columns of ``obs`` to read; by default all.

    Returns
    -------
    Cells whose ``obsm[obsm_key]`` is an :class:`h5py.Dataset` or a :class:`zarr.Array`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    KeyError
        If the file has no such embedding or column.
    ValueError
        If the file is neither an ``.h5ad`` file nor a zarr store, holds no cells, or its embedding is not dense.

    See Also
    --------
    scratio.model.ScRatio.setup_anndata : Register the cells for training.
    scratio.tl.differential_abundance : Compare two conditions.

    Examples
    --------
    >>> import tempfile, scratio
    >>> path = tempfile.mkdtemp() + "/cells.h5ad"
    >>> scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0).write_h5ad(path)
    >>> adata = scratio.io.read_lazy(path, obs_keys=["condition"])
    >>> type(adata.obsm["X_pca"]).__name__
    'Dataset'
    """
    store = _opened(Path(path))
    try:
        return _cells(store, path, obsm_key, obs_keys)
    except BaseException:
        # The error's traceback would keep the file open, and an open file can be neither written anew nor deleted.
        if isinstance(store, h5py.File):
            store.close()
        raise


def _cells(store: Any, path: str | Path, obsm_key: str, obs_keys: Sequence[str] | None) -> AnnData:
    for name in ("obs", "obsm"):
        if name not in store:
            raise ValueError(f"{path} holds no cells: it has no {name}")
    obs, obsm = store["obs"], store["obsm"]
    is_x = obsm_key == X and X not in obsm and X in store
    if obsm_key not in obsm and not is_x:
        raise KeyError(f"{path}: obsm has no key {obsm_key!r}; found: {sorted(obsm)}")
    embedding = store[X] if is_x else obsm[obsm_key]
    if not isinstance(embedding, h5py.Dataset | zarr.Array):
        name = X if is_x else f"obsm[{obsm_key!r}]"
        raise ValueError(f"{path}: {name} is not a dense matrix; store it as one")
    table = read_elem(obs) if obs_keys is None else _columns(obs, obs_keys, path)
    return AnnData(obs=table, obsm={obsm_key: embedding}, uns=_records(store))


def _opened(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return zarr.open_group(path, mode="r") if path.is_dir() else h5py.File(path, "r")
    except (OSError, zarr.errors.GroupNotFoundError) as error:
        raise ValueError(f"{path} is neither an .h5ad file nor a zarr store: {error}") from error


def _records(store: Any) -> dict[str, Any]:
    """Results of scratio in ``uns``, which say what it has written."""
    groups, uns = h5py.Group | zarr.Group, store["uns"] if "uns" in store else {}
    return {key: read_elem(uns[key]) for key in uns if isinstance(uns[key], groups) and RESULT_MARK in uns[key]}


def _columns(obs: Any, keys: Sequence[str], path: str | Path) -> pd.DataFrame:
    """Some columns of a table, with its index."""
    if isinstance(keys, str):
        raise TypeError(f"obs_keys must be a list of keys, got the string {keys!r}")
    # Columns one by one as anndata's format has them since 0.8; tables of any other are read whole.
    is_known = obs.attrs.get("encoding-type") == "dataframe" and obs.attrs.get("encoding-version") == ENCODING
    table = None if is_known else read_elem(obs)
    found = list(obs.attrs["column-order"]) if table is None else list(table)
    absent = [key for key in keys if key not in found]
    if absent:
        raise KeyError(f"{path}: obs has no key {absent[0]!r}; found: {found}")
    if table is not None:
        return table[list(keys)]
    index = pd.Index(read_elem(obs[obs.attrs["_index"]]))
    return pd.DataFrame({key: read_elem(obs[key]) for key in keys}, index=index)
