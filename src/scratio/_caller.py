"""What the caller of a training finds as it was: modes of torch, Ctrl-C, loggers and warnings."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Switch derivatives on within the block, and put the caller's mode back after it.

    Users call analyses within ``torch.inference_mode()`` or ``torch.no_grad()``. Tensors that are made in the former
    can never be differentiated, so networks have to be made within this block too. Serves as a decorator as well.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


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


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Raise the named loggers to WARNING, and ignore deprecations inside dependencies, within the block."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    try:
        for logger in found:
            logger.setLevel(max(logger.level, logging.WARNING))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # A checkpoint folder is meant to be used again.
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            warnings.filterwarnings("ignore", message="You passed in a `val_dataloader` but have no `validation_step`")
            # The CPU was asked for.
            warnings.filterwarnings("ignore", message="GPU available but not used")
            yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
