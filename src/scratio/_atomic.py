"""Files that appear under their name whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Name to write to instead; what lies there at the end takes the place of ``path`` in one step.

    After an error, or if the process is killed, what was at ``path`` is still there.

    Parameters
    ----------
    path
        Final name; its folder must exist.
    """
    target = Path(path)
    partial = target.with_name(f".{target.stem}.{uuid4().hex}.partial{target.suffix}")
    try:
        yield partial
        # Windows flushes files that are open for writing alone.
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
