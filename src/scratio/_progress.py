"""Progress and remaining time: a bar in a terminal, one output in a notebook, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

from tqdm.std import TqdmWarning, tqdm

LONG = 10**6
"""Cells from which on progress is shown unasked."""
LINE_EVERY, UPDATE_EVERY = 10.0, 0.5
"""Seconds between two lines of a log file, and between two updates of a notebook's output."""
WITHOUT_BAR = "{desc}: {percentage:3.0f}% of {total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"

PHASES = {
    "training": "training networks",
    "calibrating": "weighing networks",
    "denoising": "training a denoiser",
    "scoring": "scoring cells",
    "typicality": "judging support",
    "testing": "testing across samples",
}
"""What a call does, in order, and in words that leave room for the bar in 80 columns."""
OF_A_CALL = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
OF_A_CALL_WITHOUT_BAR = "{desc}: {percentage:3.0f}% [{elapsed}<{remaining}]"
# Seconds of the phases in units of a training step, as measured by benchmarks/speed.py at 1,000 to 100,000 cells.
CALIBRATION, SCORING, SCORED_PER_STEP, TESTED_PER_STEP = 80.0, 100.0, 140.0, 200.0
DENOISING = 0.3
"""Seconds of a step of the denoiser, which is one network, in units of a training step."""
PLANNED_FROM, WARM_UP, TIMED = 60.0, 5, 25
"""Seconds from which on a call says beforehand what it takes; training steps between which it is measured."""
BASE, PER_VALUE = 1.0e9, 150.0
"""Peak bytes of the process: at least, and for every number of the embedding; measured at 2,000 to 100,000 cells."""

Block = TypeVar("Block")
Function = TypeVar("Function", bound=Callable[..., Any])


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
        self._said = ""

    def say(self, text: str) -> None:
        """Show a line above the bar."""
        if not self.shown:
            return
        if self._output is not None:
            self._said += f"{text}\n"
        elif _is_terminal():
            tqdm.write(text, file=sys.stderr)
        else:
            _line(text)

    def _show(self, text: str) -> None:
        """Replace the notebook's output."""
        if self._output is None:
            self._output = _new_output()
        self._output(self._said + text)

    def bar(
        self, total: int, description: str, unit: str, *, initial: int = 0, scaled: bool = False, **settings: Any
    ) -> Any:
        """Return a bar for one phase, with tqdm's ``update`` and ``set_postfix``.

        Parameters
        ----------
        total, initial
            Number of units in all, and of those already done.
        description, unit
            Name of the phase, and of what is counted, in the singular.
        scaled
            Whether numbers are shortened, as in 1.2M.
        **settings
            Further settings of tqdm.
        """
        settings |= {"total": total, "initial": initial, "desc": description, "unit": unit}
        settings |= {"unit_scale": scaled, "disable": not self.shown}
        if self.shown and _is_notebook():
            return _Seldom(self._show, UPDATE_EVERY, at_ends=True, **settings)
        if _is_terminal():
            return tqdm(**settings)
        return _Seldom(_line, LINE_EVERY, at_ends=False, **{"bar_format": WITHOUT_BAR, **settings})


class CallProgress(Progress):
    """One bar for all phases of a call, in percent, with the time that is left of the whole call.

    Parameters
    ----------
    title
        What the call does.
    """

    def __init__(self, title: str) -> None:
        super().__init__(shown=False)
        self.title = title
        self.costs: dict[str, float] = {}
        self.rounds, self.n_cells, self.n_features, self.n_questions = 1, 0, 0, 1
        self._round, self._phase, self._asked, self._is_planned = 0, 0, 0, False
        self._whole: Any = None
        self._words = ""

    def bar(self, total: int, description: str, unit: str, *, initial: int = 0, **settings: Any) -> Any:
        """Return the part of the call's bar that belongs to one phase."""
        place = list(PHASES).index(description)
        if description == "training":
            self.costs["training"] = float(total)
        elif description == "denoising":
            self.costs["denoising"] = total * DENOISING
        elif description == "scoring":
            self._asked += 1
        # An embedding after another one starts with the first phase again, a question after another one with scoring.
        if place < self._phase and description in ("training", "calibrating") and self._round + 1 < self.rounds:
            self._round, self._asked = self._round + 1, 0
        self._phase = place
        if self._whole is None:
            form = OF_A_CALL if _is_terminal() or _is_notebook() else OF_A_CALL_WITHOUT_BAR
            # Every update is looked at: after fast phases tqdm would pass over those of a slow one.
            self._whole = super().bar(100, self.title, "%", bar_format=form, smoothing=0.0, miniters=0)
        self._name(f"{self.title}, {PHASES[description]}")
        return _Part(self, description, total, initial)

    def _name(self, words: str) -> None:
        """Say what is done from now on, at once: it may take long until the next update."""
        if not self.shown or words == self._words:
            return
        self._words = words
        self._whole.set_description_str(words, refresh=False)
        if isinstance(self._whole, _Seldom):
            self._whole.show_change()
        else:
            self._whole.refresh()

    def move(self, phase: str, share: float) -> None:
        """Show that a share of a phase is done. The bar never goes back."""
        if phase == "scoring":
            share = (min(self._asked, self.n_questions) - 1 + share) / self.n_questions
        whole = sum(self.costs.values()) or 1.0
        before = sum(cost for name, cost in self.costs.items() if list(PHASES).index(name) < list(PHASES).index(phase))
        # Between questions the support of their cells is judged, which has no cost of its own.
        done = 0.0 if phase == "typicality" else (before + share * self.costs.get(phase, 0.0)) / whole
        percent = 100.0 * (self._round + min(done, 1.0)) / self.rounds
        if percent > self._whole.n:
            self._whole.update(percent - self._whole.n)

    def plan(self, seconds_per_cost: float) -> None:
        """Say once what a long call takes at most, as measured in the first steps; a training may end early."""
        seconds = seconds_per_cost * sum(self.costs.values()) * self.rounds
        if self._is_planned or seconds < PLANNED_FROM:
            return
        self._is_planned = True
        memory = (BASE + PER_VALUE * self.n_cells * self.n_features) / 2**30
        what = f"{self.title[:1].upper()}{self.title[1:]}, {self.n_cells:,} cells"
        self.say(f"{what}: at most about {_minutes(seconds)}, {memory:.1f} GiB of memory")

    def close(self, *, is_done: bool) -> None:
        """End the bar, full if the call came to its end."""
        if self._whole is None:
            return
        if is_done:
            self._whole.set_description_str(self.title, refresh=False)
            self._whole.update(100.0 - self._whole.n)
        self._whole.close()


class _Part:
    """The part of a call's bar that belongs to one phase, used as tqdm's bars are."""

    def __init__(self, call: CallProgress, phase: str, total: int, initial: int) -> None:
        self.call, self.phase, self.total, self.n = call, phase, max(total, 1), initial
        self._timed_from, self._first = 0.0, initial

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count what is done."""
        self.n += n
        self.call.move(self.phase, self.n / self.total)
        done = self.n - self._first
        if self.phase == "training" and done == WARM_UP:
            self._timed_from = time.monotonic()
        elif self.phase == "training" and done == WARM_UP + TIMED:
            self.call.plan((time.monotonic() - self._timed_from) / TIMED)

    def set_postfix(self, *shown: Any, **settings: Any) -> None:
        """Show nothing: losses are for who calls the model."""

    def close(self) -> None:
        """Count the phase as done, also if it ended early."""
        self.call.move(self.phase, 1.0)


_current: ContextVar[CallProgress | None] = ContextVar("scratio_progress", default=None)


def progress_of_call(shown: bool) -> Progress:
    """Where a training shows itself: on the bar of the call that it is a part of, or on one of its own."""
    current = _current.get()
    return Progress(shown) if current is None else current


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Show that a phase of a call begins, and that it is over; nothing is shown outside of a call with a bar."""
    current = _current.get()
    if current is None:
        yield
        return
    with current.bar(1, name, "phase"):
        yield


def expect_work(
    shape: tuple[int, int], scored: Sequence[int], *, is_tested: bool = False, rounds: int = 1, shown: bool = True
) -> None:
    """Tell the bar of the call what its phases will cost, before the first one begins.

    Parameters
    ----------
    shape
        Numbers of cells that take part, and of dimensions of their embedding.
    scored
        Number of cells of each question that is asked of a model.
    is_tested
        Whether the questions are tested across samples.
    rounds
        How many models are trained, one after the other.
    shown
        Whether the bar is shown.
    """
    current = _current.get()
    if current is None:
        return
    current.shown, current.rounds, current.n_questions = shown, rounds, len(scored)
    current.n_cells, current.n_features = shape
    current.costs = {"calibrating": CALIBRATION, "scoring": SCORING * len(scored) + sum(scored) / SCORED_PER_STEP}
    if is_tested:
        current.costs["testing"] = SCORING * len(scored) + sum(scored) / TESTED_PER_STEP


def one_bar(title: str) -> Callable[[Function], Function]:
    """Show one bar for all that an analysis does from its call of :func:`expect_work` on.

    Parameters
    ----------
    title
        What the analysis does, for the bar.
    """

    def decorated(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if _current.get() is not None:
                return function(*args, **kwargs)
            progress = CallProgress(title)
            token = _current.set(progress)
            is_done = False
            try:
                result = function(*args, **kwargs)
                is_done = True
                return result
            finally:
                progress.close(is_done=is_done)
                _current.reset(token)

        return call  # type: ignore[return-value]

    return decorated


def _minutes(seconds: float) -> str:
    return f"{seconds / 60.0:.0f} min" if seconds < 5_400.0 else f"{seconds / 3_600.0:.1f} h"


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
        super().__init__(mininterval=0.0, **{"miniters": 1, **settings})

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the bar if the interval is over."""
        now = time.monotonic()
        if now - self._shown_at >= self._interval:
            self._shown_at = now
            self._show(str(self))
        return True

    def show_change(self) -> None:
        """Show other words at once, but not in a log file."""
        if self._at_ends:
            self._show(str(self))

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
    with progress_of_call(is_shown).bar(n, description, "cell", scaled=True) as bar:
        for start, block in blocks:
            bar.update(start - bar.n)
            yield start, block
        bar.update(n - bar.n)
