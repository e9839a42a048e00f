"""How much scratio says: ``scratio.settings``."""

from __future__ import annotations

import logging
import sys

NAME = "scratio"
HINT = 15
LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "hint": HINT,
    "debug": logging.DEBUG,
}


class _Stderr(logging.StreamHandler):
    """Writes to what is ``sys.stderr`` at the time, which notebooks replace."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        self.stream = sys.stderr
        super().emit(record)


class Settings:
    """Settings of scratio, in one object: ``scratio.settings``.

    Examples
    --------
    >>> import scratio
    >>> scratio.settings.verbosity = "info"
    >>> scratio.settings.verbosity
    2
    >>> scratio.settings.verbosity = 1
    """

    @property
    def verbosity(self) -> int:
        """How much is said, as in scanpy: 0 or "error", 1 or "warning" (default), 2 "info", 3 "hint", 4 "debug".

        Messages go to the logger ``scratio`` of Python's :mod:`logging`. Setting the verbosity also makes them appear;
        importing scratio sets up nothing.
        """
        level = logging.getLogger(NAME).getEffectiveLevel()
        return sum(level <= least for least in LEVELS.values()) - 1

    @verbosity.setter
    def verbosity(self, value: int | str) -> None:
        names = list(LEVELS)
        if isinstance(value, bool) or value not in (*names, *range(len(names))):
            raise ValueError(f"verbosity must be one of {names} or 0 to {len(names) - 1}, got {value!r}")
        logger = logging.getLogger(NAME)
        logger.setLevel(LEVELS[value if isinstance(value, str) else names[value]])
        if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
            logger.addHandler(_Stderr())
            # A handler of the root logger would show each message again.
            logger.propagate = False

    def __repr__(self) -> str:
        return f"scratio.settings(verbosity={self.verbosity})"


settings = Settings()
