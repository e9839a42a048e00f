"""Progress and remaining time: a bar in a terminal, one output in a notebook, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm.std import TqdmWarning, tqdm

LONG = 10**6
"""Cells from which on progress is shown unasked."""
LINE_EVERY, UPDATE_EVERY = 10.0, 0.5
"""Seconds between two lines of a log file, and between two updates of a notebook's output."""
WITHOUT_BAR = "{desc}: {percentage:3.0f}% of {total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"

Block = TypeVar("Block")


class Progress:
    """Where one call shows how far it is; the phases of the call, one after the other, share the place.

    Parameters
    ----------
    shown
        Whether anything is shown.
    """

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown
        self._output: Any = None

    def bar(self, total: int, description: str, unit: str, *, initial: int = 0, scaled: bool = False) -> tqdm:
        """What counts one phase; its ``update`` and ``set_postfix`` are those of tqdm.

        Parameters
        ----------
        total, initial
            Number of units in all, and of those already done.
        description, unit
            Name of the phase, and of what is counted, in the singular.
        scaled
            Whether numbers are shortened, as in 1.2M.
        """
        settings: dict[str, Any] = {"total": total, "initial": initial, "desc": description, "unit": unit}
        settings |= {"unit_scale": scaled, "disable": not self.shown}
        if self.shown and _is_notebook():
            if self._output is None:
                self._output = _new_output()
            return _InNotebook(self._output, **settings)
        return tqdm(**settings) if _is_terminal() else _InLog(bar_format=WITHOUT_BAR, **settings)


class _Seldom(tqdm):
    """A bar that shows itself at most once in an interval."""

    interval: float
    disable: bool

    def __init__(self, **settings: Any) -> None:
        self.shown_at: float | None = None
        # Every update reaches display(), which decides.
        super().__init__(mininterval=0.0, miniters=1, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the bar if the interval is over."""
        now = time.monotonic()
        if self.shown_at is None:
            self.shown_at = now - self.first_after()
        if now - self.shown_at >= self.interval:
            self.shown_at = now
            self.show()
        return True

    def first_after(self) -> float:
        """How much of the first interval counts as over at the beginning."""
        return 0.0

    def show(self) -> None:
        """Show the bar as it is."""
        raise NotImplementedError

    def close(self) -> None:
        """End the bar."""
        if not self.disable:
            self.disable = True
            self._decr_instances(self)


class _InLog(_Seldom):
    """Lines; work that takes less than the interval leaves none."""

    interval = LINE_EVERY

    def show(self) -> None:
        """Write a line."""
        self.fp.write(f"{self}\n")
        self.fp.flush()


class _InNotebook(_Seldom):
    """One output of a cell, which is replaced; it needs no widgets."""

    interval = UPDATE_EVERY

    def __init__(self, output: Any, **settings: Any) -> None:
        self.output = output
        super().__init__(**settings)

    def first_after(self) -> float:
        """The first update comes at once."""
        return self.interval

    def show(self) -> None:
        """Replace what the output shows."""
        self.output.update({"text/plain": str(self)}, raw=True)

    def close(self) -> None:
        """Show the last state and end the bar."""
        if not self.disable:
            self.show()
        super().close()


def import_tqdm() -> None:
    """Import what warns in a notebook that widgets are missing, on behalf of those dependencies that use it.

    Scratio shows progress without widgets.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        import tqdm.auto  # noqa: F401


def _is_terminal() -> bool:
    return bool(getattr(sys.stderr, "isatty", bool)())


def _is_notebook() -> bool:
    """Whether a kernel shows what is displayed; IPython is not imported for that."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _new_output() -> Any:
    """An output of the cell that runs, with ``update``."""
    return sys.modules["IPython"].display.display({"text/plain": ""}, raw=True, display_id=True)


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
    with Progress(is_shown).bar(n, description, "cell", scaled=True) as bar:
        for start, block in blocks:
            bar.update(start - bar.n)
            yield start, block
        bar.update(n - bar.n)
