"""Messages and exit codes of a command: notes, warnings and errors."""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import typer
from rich.console import Console
from rich.text import Text

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes; 0 is success."""
WIDTH = 120
"""Width of a table that goes to a file or a pipe."""
OF_INPUT = (KeyError, ValueError, TypeError, FileNotFoundError, FileExistsError)
"""Errors that scratio raises about its input."""
OF_PROGRAMMERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
"""Warnings that a user of a command cannot act on."""


class RefusedError(Exception):
    """Arguments or files that a command cannot use. The message says what was found and what to do."""


@dataclass(frozen=True)
class Talk:
    """Streams that a command writes to.

    Parameters
    ----------
    results
        Stream for tables: stdout, or stderr if a program reads stdout.
    log
        Stream for everything else: stderr.
    stdout
        The true stdout. Within a session ``sys.stdout`` is stderr.
    quiet, verbose
        Values of ``--quiet`` and ``--verbose``.
    """

    results: Console
    log: Console
    stdout: TextIO
    quiet: bool
    verbose: bool

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown: as a bar in a terminal, as occasional lines in a log file."""
        return not self.quiet

    def note(self, text: str) -> None:
        """Tell the user what is being done."""
        if not self.quiet:
            self.say("", text, "dim")

    def say(self, label: str, text: str, style: str) -> None:
        """Write a message as one line of the log, so that programs can search it. Markup in it stays as it is."""
        self.log.print(Text.assemble((label, style), text if label else (text, style)), soft_wrap=True)


@contextlib.contextmanager
def session(*, quiet: bool, verbose: bool, stdout_is_taken: bool) -> Iterator[Talk]:
    """Turn warnings and errors within the block into messages on stderr, and errors into exit codes.

    Parameters
    ----------
    quiet, verbose
        Values of ``--quiet`` and ``--verbose``.
    stdout_is_taken
        Whether a program reads stdout, so that tables go to stderr.

    Raises
    ------
    typer.Exit
        After an error: 2 if scratio cannot use the input, 1 if something went wrong during the work, 130 after Ctrl-C.
    """
    log, stdout = Console(file=sys.stderr, highlight=False), sys.stdout
    shown = sys.stderr if stdout_is_taken else stdout
    # Rich assumes 80 columns for everything that is not a terminal.
    results = Console(file=shown, highlight=False, width=None if shown.isatty() else WIDTH)
    talk = Talk(results, log, stdout, quiet, verbose)
    try:
        if quiet and verbose:
            raise RefusedError("--quiet and --verbose exclude each other; pass one of them")
        # Dependencies may print; that is not part of the result.
        with _warnings_shown(talk), contextlib.redirect_stdout(sys.stderr):
            yield talk
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        code = exit_code(error)
        if verbose and (error.__cause__ or not isinstance(error, RefusedError)):
            log.print(Text("".join(traceback.format_exception(error))), soft_wrap=True)
        text = "interrupted" if code == INTERRUPTED else message(error)
        if code == FAILED and not verbose:
            text += " (--verbose shows where)"
        talk.say("Error: ", text, "bold red")
        raise typer.Exit(code) from error


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error.

    Examples
    --------
    >>> exit_code(RefusedError("no such file")), exit_code(MemoryError()), exit_code(KeyboardInterrupt())
    (2, 1, 130)
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, RefusedError):
        return BAD_INPUT
    return BAD_INPUT if isinstance(error, OF_INPUT) and _is_raised_by_scratio(error) else FAILED


def message(error: BaseException) -> str:
    """Return the message of an error, with the name of its class if the message is empty or not scratio's.

    Examples
    --------
    >>> message(RefusedError("no key 'x'")), message(MemoryError())
    ("no key 'x'", 'MemoryError')
    """
    # str() of a KeyError is its repr, with quotes around the message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, RefusedError) or exit_code(error) == BAD_INPUT:
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_raised_by_scratio(error: BaseException) -> bool:
    """Whether the innermost frame is scratio's, so that scratio raised the error on purpose."""
    innermost = list(traceback.walk_tb(error.__traceback__))[-1:]
    return any(frame.f_globals.get("__name__", "").startswith("scratio.") for frame, _ in innermost)


@contextlib.contextmanager
def _warnings_shown(talk: Talk) -> Iterator[None]:
    """Show each warning once as a message. Restore Python's own handling of warnings after the block."""
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if str(message) not in seen:
            seen.add(str(message))
            talk.say("Warning: ", str(message), "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for category in () if talk.verbose else OF_PROGRAMMERS:
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        yield
