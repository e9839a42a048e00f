"""Files that appear under their name whole or not at all, also where another program has one of them open."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

logger = logging.getLogger(__name__)

WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts. On Windows virus scanners and indexers open new files for moments."""
STEM = 40
"""Characters of a name that its temporary name repeats: systems limit the length of names, Windows of whole paths."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Name to write to instead; what lies there at the end takes the place of ``path`` in one step.

    After an error, or if the process is killed, what was at ``path`` is still there.

    Parameters
    ----------
    path
        Final name; its folder must exist.

    Raises
    ------
    PermissionError
        If another program has the file at ``path`` open, and the system does not replace open files (Windows).
    """
    target = Path(path)
    partial = target.with_name(f"{temporary(target.stem)}.partial{target.suffix}")
    try:
        yield partial
        # Windows flushes files that are open for writing alone.
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        put_in_place(partial, target)
    finally:
        # Whoever failed may have left it open; the first error is the one to tell.
        with suppress(PermissionError):
            partial.unlink(missing_ok=True)


def temporary(name: str) -> str:
    """Name for a hidden file or folder that becomes another one, and that no other process uses."""
    return f".{name[:STEM]}.{uuid4().hex[:12]}"


def put_in_place(source: Path, target: Path) -> None:
    """Give a file or a folder its final name, in one step.

    Raises
    ------
    PermissionError
        If another program has one of them open for longer than a moment.
    """
    try:
        _patiently(lambda: os.replace(source, target))
    except PermissionError as error:
        raise _in_use(target, error) from error


def check_replaceable(path: Path) -> None:
    """Refuse a file that cannot be replaced later.

    Windows does not replace a file that is open. Elsewhere nothing stands in the way, and this does nothing.

    Raises
    ------
    PermissionError
        If another program has the file open, or it is protected.
    """
    try:
        _patiently(lambda: os.replace(path, path))
    except PermissionError as error:
        raise _in_use(path, error) from error


def discard(path: Path) -> bool:
    """Remove a file that is not needed any more. A file that is in use or protected stays, and a warning says so.

    Returns
    -------
    Whether it is gone.
    """
    try:
        _patiently(lambda: path.unlink(missing_ok=True))
    except PermissionError:
        logger.warning("%s is not needed any more, but is in use or protected; delete it later", path)
        return False
    return True


def discard_folder(folder: Path) -> None:
    """Remove an empty folder that is not needed any more. If the system refuses, it stays, and a warning says so."""
    try:
        _patiently(folder.rmdir)
    except OSError:
        # Windows removes a folder only once nothing looks into it.
        logger.warning("%s is empty and not needed any more, but cannot be removed; delete it later", folder)


def _patiently(change: Callable[[], None]) -> None:
    for wait in WAITS:
        try:
            return change()
        except PermissionError:
            time.sleep(wait)
    return change()


def _in_use(path: Path, error: PermissionError) -> PermissionError:
    return PermissionError(
        f"{path} cannot be replaced ({error.strerror}): a program has it open, or it is protected. Close it, or choose "
        "another name"
    )
