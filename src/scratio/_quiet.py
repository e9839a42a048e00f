"""Keep dependencies' remarks out of the notebook while scratio calls them, and put everything back after."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


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
            yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
