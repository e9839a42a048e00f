"""Downloads and conversions that are kept in a folder, so that they happen once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import anndata
from anndata import AnnData

from scratio._atomic import atomic, put_in_place
from scratio.datasets._optional import require
from scratio.datasets._sources import RAW_FILES

logger = logging.getLogger(__name__)


def cache_folder(cache_dir: str | Path | None) -> Path:
    """Folder of the data sets, made if it does not exist.

    ``cache_dir`` if given, else the environment variable ``SCRATIO_CACHE``, else the user's cache folder of the system.

    Raises
    ------
    ImportError
        If the last of these is needed and pooch is not installed.
    OSError
        If the folder cannot be made.
    """
    folder = Path(cache_dir or os.environ.get("SCRATIO_CACHE") or require("pooch").os_cache("scratio")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the cache folder {folder} cannot be made ({error}); pass another cache_dir, or set SCRATIO_CACHE to one"
        ) from error
    return folder


def fetch(name: str, folder: Path) -> Path:
    """Path of a public file in the cache, downloaded if it is not there or is not what it should be.

    Another file of this name is renamed, not lost.

    Parameters
    ----------
    name
        Its name in the cache, a key of ``RAW_FILES``.
    folder
        The cache.

    Raises
    ------
    ImportError
        If pooch is not installed.
    OSError
        If it cannot be downloaded or written.
    ValueError
        If what was downloaded has another sha256; it is not kept.
    """
    pooch, file, target = require("pooch"), RAW_FILES[name], folder / name
    is_other = target.exists() and pooch.file_hash(str(target)) != file.sha256
    fname = f".{uuid4().hex}.{name}" if is_other else name
    try:
        retrieved = Path(pooch.retrieve(file.url, known_hash=f"sha256:{file.sha256}", fname=fname, path=folder))
    except ValueError as error:
        raise ValueError(f"{file.url} is not the file it was, its sha256 should be {file.sha256}: {error}") from error
    except OSError as error:
        found = "a file with another sha256 is there" if target.exists() else "no file is there"
        raise OSError(
            f"{file.url} cannot be downloaded to {target}, and {found} ({error}). Without a network, put the file "
            f"there by hand; its sha256 is {file.sha256}"
        ) from error
    if is_other:
        _set_aside(target)
        put_in_place(retrieved, target)
    return target


def load(
    name: str, *, version: int, raw: tuple[str, ...], convert: Callable[..., AnnData], cache_dir: str | Path | None
) -> AnnData:
    """Data set from the cache; converted from public files, and kept, if it is not there or cannot be read.

    A file of its name that cannot be read is renamed, not lost.

    Parameters
    ----------
    name
        Name of the data set.
    version
        Version of its conversion. It is in the name of the cached file, so that another conversion reads nothing of
        this one.
    raw
        Names of the public files in the cache.
    convert
        From the paths of these files to cells.
    cache_dir
        The cache; see ``cache_folder``.

    Raises
    ------
    ImportError
        If it has to be converted and pooch or rdata is not installed.
    OSError, ValueError
        If a public file cannot be had; see ``fetch``.
    """
    folder = cache_folder(cache_dir)
    path = folder / f"{name}-v{version}.h5ad"
    cached = _read(path)
    if cached is not None:
        return cached
    require("rdata")  # before anything is downloaded
    with atomic(path) as partial:
        convert(*[fetch(file, folder) for file in raw]).write_h5ad(partial, compression="gzip")
        if path.exists():
            _set_aside(path)
    # Read back, so that the first call returns what every later one does.
    return anndata.read_h5ad(path)


def _set_aside(path: Path) -> None:
    """Rename a file whose name is needed: scratio may not have written it."""
    number = 1
    while (other := path.with_name(f"{path.name}.replaced-{number}")).exists():
        number += 1
    logger.warning("%s is not what scratio keeps under this name; renamed to %s", path, other.name)
    put_in_place(path, other)


def _read(path: Path) -> AnnData | None:
    """Cells of a cached file; None if there is none, or if it is cut off or damaged."""
    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, RuntimeError, ValueError):
        return None
