"""Read the part of an ``.h5ad`` file that an analysis needs, and add results to a copy of the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem, write_elem

from scratio._atomic import atomic
from scratio._constants import X
from scratio.cli._session import RefusedError, message
from scratio.tl._write import recorded_in

UMAP = "X_umap"
"""Usual coordinates of a figure."""
CURRENT = "0.2.0"
"""Version of anndata's encoding of tables that columns can be added to. Other tables are written again."""
_NEW_COLUMNS = "scratio_new_columns"


@dataclass(frozen=True)
class CellFile:
    """An open ``.h5ad`` file.

    Parameters
    ----------
    path
        Path of the file.
    file
        The open file.
    """

    path: Path
    file: h5py.File

    @cached_property
    def obs(self) -> pd.DataFrame:
        """Labels of the cells.

        Raises
        ------
        RefusedError
            If ``obs`` is not a table.
        """
        found = read_elem(self.file["obs"])
        if not isinstance(found, pd.DataFrame):
            raise RefusedError(f"{self.path} holds no cells: its obs is not a table")
        return found

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.obs)

    @property
    def obsm(self) -> Mapping[str, Any]:
        """Embeddings, as stored in the file."""
        return self.file.get("obsm", {})

    def source_name(self, key: str) -> str:
        """Name of the place of an embedding, for messages."""
        return X if key == X and X not in self.obsm else f"obsm[{key!r}]"

    def stored(self, key: str) -> h5py.Dataset | h5py.Group:
        """Stored embedding. ``"X"`` is the matrix of the file itself."""
        return self.file[X] if self.source_name(key) == X else self.obsm[key]

    def check(self, *, obs: Sequence[str], obsm: Sequence[str]) -> None:
        """Raise an error for a file without these columns and embeddings, or without cells.

        Raises
        ------
        RefusedError
            If a key is missing. The message lists the keys that were found.
        """
        if self.n_cells == 0:
            raise RefusedError(f"{self.path} holds no cells")
        if any(self.source_name(key) == X for key in obsm) and isinstance(self.file.get(X), h5py.Group):
            raise RefusedError(
                f"{self.path}: X is sparse; a dense embedding is needed, for example scanpy.pp.pca(adata) and "
                "--use-rep X_pca"
            )
        embeddings = [key for key in obsm if self.source_name(key) != X or X not in self.file]
        for name, wanted, found in (("obs", obs, list(self.obs)), ("obsm", embeddings, sorted(self.obsm))):
            for key in wanted:
                if key not in found:
                    raise RefusedError(f"{self.path}: {name} has no key {key!r}; found: {found}")

    def basis(self, asked: str | None, use_rep: str) -> str:
        """Return the key in ``obsm`` of the coordinates of a figure.

        Parameters
        ----------
        asked
            Key that the user asked for, if any.
        use_rep
            Embedding of the analysis.

        Raises
        ------
        RefusedError
            If there are no such coordinates, or they have fewer than two dimensions.
        """
        key = asked or (UMAP if UMAP in self.obsm else use_rep)
        self.check(obs=[], obsm=[key])
        if self._width(key) < 2:
            raise RefusedError(
                f"{self.path}: {self.source_name(key)} has fewer than two dimensions to draw; name others with --basis"
            )
        return key

    def coordinates(self, key: str) -> np.ndarray:
        """Return the first two columns of an embedding, shape (n_cells, 2)."""
        stored = self.stored(key)
        return np.asarray(stored[:, :2] if isinstance(stored, h5py.Dataset) else _dense(read_elem(stored))[:, :2])

    def read(self, representations: Iterable[str], key_added: str, *, backed: bool = False) -> AnnData:
        """Read labels, embeddings and an earlier result, but neither counts nor graphs.

        Parameters
        ----------
        representations
            Embeddings.
        key_added
            Prefix of the results.
        backed
            Whether embeddings stay on disk while the file is open.
        """
        uns = self.file.get("uns", {})
        parts: dict[str, Any] = {}
        for key in representations:
            stored = self.stored(key)
            parts[key] = stored if backed and isinstance(stored, h5py.Dataset) else read_elem(stored)
        results = {key_added: read_elem(uns[key_added])} if key_added in uns else {}
        # Columns of an earlier result, and columns that look like them.
        earlier = [key for key in self.obsm if key not in parts and _is_of(key, key_added)]
        parts |= {key: read_elem(self.obsm[key]) for key in earlier}
        return AnnData(obs=self.obs, obsm=parts, uns=results)

    def _width(self, key: str) -> int:
        stored = self.stored(key)
        shape = stored.shape if isinstance(stored, h5py.Dataset) else _dense(read_elem(stored)).shape
        return shape[1] if len(shape) == 2 else 0


@contextmanager
def opened(path: Path) -> Iterator[CellFile]:
    """Open an ``.h5ad`` file for reading within the block.

    Raises
    ------
    RefusedError
        If the file is not an ``.h5ad`` file, is damaged, or is older than anndata 0.7.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise RefusedError(f"{path} is not an .h5ad file, or is damaged: {error}") from error
    with file:
        cells = CellFile(path, file)
        with reading(path):
            _check_parts(path, file)
            cells.obs  # noqa: B018 (read once, here, so that a table that cannot be read raises an error)
        yield cells


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error of a reader within the block into a message about the file.

    Raises
    ------
    RefusedError
        Instead of any other error.
    """
    try:
        yield
    except (RefusedError, MemoryError):
        raise
    except Exception as error:
        raise RefusedError(
            f"{path} cannot be read with anndata {version('anndata')}: {message(error)}. If anndata.read_h5ad reads "
            "it, this is a fault of scratio: please report it. If not, the file is damaged or needs a newer anndata"
        ) from error


@dataclass(frozen=True)
class Snapshot:
    """Contents of ``obs`` and ``obsm`` before an analysis, and what an earlier result wrote to ``varm``."""

    obs: pd.DataFrame
    obsm: dict[str, Any]
    varm: list[str]

    @classmethod
    def of(cls, adata: AnnData, key_added: str) -> Snapshot:
        """Take the snapshot of cells. Embeddings are not copied."""
        return cls(adata.obs.copy(), dict(adata.obsm), recorded_in(adata.uns.get(key_added)).get("varm", []))


def write_with_results(source: Path, out: Path, before: Snapshot, after: AnnData, key_added: str) -> None:
    """Copy a file and add the results of an analysis to the copy. The file appears complete or not at all.

    Everything else is copied byte by byte and never read. It needs no memory and stays as it is.

    Parameters
    ----------
    source, out
        Files of the input and the result; they may be one file.
    before, after
        Snapshot of the cells as they were read, and the cells with the results.
    key_added
        Prefix of the results.
    """
    with atomic(out) as partial:
        shutil.copyfile(source, partial)
        with h5py.File(partial, "r+") as file:
            _write_columns(file, before.obs, after.obs)
            for key in before.obsm.keys() - after.obsm.keys():
                del file["obsm"][key]
            if "obsm" not in file:
                write_elem(file, "obsm", {})
            for key, value in after.obsm.items():
                if _is_of(key, key_added) and (key not in before.obsm or before.obsm[key] is not value):
                    write_elem(file["obsm"], key, value)
            for key in before.varm:
                file.pop(f"varm/{key}", None)
            if "uns" not in file:
                write_elem(file, "uns", {})
            write_elem(file["uns"], key_added, after.uns[key_added])


def _write_columns(file: h5py.File, before: pd.DataFrame, after: pd.DataFrame) -> None:
    obs = file["obs"]
    if obs.attrs.get("encoding-version") != CURRENT:
        write_elem(file, "obs", after)
        return
    for name in before.columns.difference(after.columns):
        del obs[name]
    changed = [name for name in after if name not in before or not after[name].equals(before[name])]
    # Write a table of the new columns alone, so that they have the encoding of this version of anndata.
    write_elem(file, _NEW_COLUMNS, after[changed])
    for name in changed:
        if name in obs:
            del obs[name]
        file.move(f"{_NEW_COLUMNS}/{name}", f"obs/{name}")
    del file[_NEW_COLUMNS]
    obs.attrs["column-order"] = [str(name) for name in after]


def _check_parts(path: Path, file: h5py.File) -> None:
    if "obs" not in file:
        raise RefusedError(f"{path} holds no cells: it has no obs")
    if isinstance(file["obs"], h5py.Dataset) or isinstance(file.get("obsm"), h5py.Dataset):
        raise RefusedError(
            f"{path} was written by an anndata older than 0.7; write it again with "
            "anndata.read_h5ad(path).write_h5ad(path)"
        )


def _is_of(key: str, key_added: str) -> bool:
    """Whether a key is one that an analysis may write."""
    return key == key_added or key.startswith(f"{key_added}_")


def _dense(values: Any) -> np.ndarray:
    return values.toarray() if hasattr(values, "toarray") else np.asarray(values)
