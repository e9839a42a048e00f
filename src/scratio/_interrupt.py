"""Ctrl-C during a training by Lightning reaches the caller as a KeyboardInterrupt."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Undo what Lightning does on Ctrl-C within the block.

    Lightning answers a KeyboardInterrupt with ``sys.exit(1)``, which ends a script without a word and a notebook's
    cell with an error that nobody catches, and it leaves SIGINT ignored, so that no later Ctrl-C has an effect.

    Raises
    ------
    KeyboardInterrupt
        In place of Lightning's SystemExit.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from None
    finally:
        # Handlers can be set in the main thread alone; None stands for one that was not set from Python.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
