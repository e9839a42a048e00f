"""Progress and remaining time: a bar in a terminal, one output in a notebook, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm.std import TqdmWarning, tqdm

LONG = 10**6
"""Cells from which on progress is shown unasked."""
LINE_EVERY, UPDATE_EVERY = 10.0, 0.5
"""Seconds between two lines of a log file, and between two updates of a notebook's output."""
WITHOUT_BAR = "{desc}: {percentage:3.0f}% of {total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"

Block = TypeVar("Block")


class Progress:
    """Place where a call shows its progress. The phases of the call share it, one after the other.

    Parameters
    ----------
    shown
        Whether anything is shown.
    """

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown
        self._output: Callable[[str], None] | None = None

    def bar(self, total: int, description: str, unit: str, *, initial: int = 0, scaled: bool = False) -> tqdm:
        """Return a bar for one phase, with tqdm's ``update`` and ``set_postfix``.

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
            return _Seldom(self._output, UPDATE_EVERY, at_ends=True, **settings)
        if _is_terminal():
            return tqdm(**settings)
        return _Seldom(_line, LINE_EVERY, at_ends=False, bar_format=WITHOUT_BAR, **settings)


class _Seldom(tqdm):
    """A bar that shows itself at most once in an interval.

    Parameters
    ----------
    show
        Shows a text.
    interval
        Seconds.
    at_ends
        Whether the first and the last state are shown too, whatever the interval.
    **settings
        For tqdm.
    """

    disable: bool

    def __init__(self, show: Callable[[str], None], interval: float, *, at_ends: bool, **settings: Any) -> None:
        self._show, self._interval, self._at_ends = show, interval, at_ends
        self._shown_at = time.monotonic() - (interval if at_ends else 0.0)
        # Every update reaches display(), which decides.
        super().__init__(mininterval=0.0, miniters=1, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the bar if the interval is over."""
        now = time.monotonic()
        if now - self._shown_at >= self._interval:
            self._shown_at = now
            self._show(str(self))
        return True

    def close(self) -> None:
        """End the bar."""
        if self.disable:
            return
        if self._at_ends:
            self._show(str(self))
        self.disable = True
        self._decr_instances(self)


def _line(text: str) -> None:
    """Write a line to a log file."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def import_tqdm() -> None:
    """Import ``tqdm.auto`` without its warning that a notebook has no widgets, which scratio does not need.

    Dependencies import it later, when it no longer warns.
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


def _new_output() -> Callable[[str], None]:
    """Make an output of the notebook's cell; returns what replaces its text."""
    handle = sys.modules["IPython"].display.display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


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
