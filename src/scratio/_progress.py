"""A progress bar with the remaining time, for work over many blocks of cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

LONG = 10**6
"""Cells from which on a bar is shown unasked."""

Block = TypeVar("Block")


def with_progress(
    blocks: Iterable[tuple[int, Block]], n: int, description: str, shown: bool | None = None
) -> Iterator[tuple[int, Block]]:
    """Blocks of rows, each with the number of its first row, while a bar counts the rows that are done.

    Parameters
    ----------
    blocks
        In order, as :func:`scratio._blocks.slabs` yields them.
    n
        Number of rows in all.
    description
        Title of the bar.
    shown
        Whether there is a bar; by default from a million rows on.
    """
    is_shown = n >= LONG if shown is None else shown
    with tqdm(total=n, desc=description, unit="cells", unit_scale=True, disable=not is_shown) as bar:
        for start, block in blocks:
            bar.update(start - bar.n)
            yield start, block
        bar.update(n - bar.n)
