"""Packages that only the real data need."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(package: str) -> ModuleType:
    """Import a package of the extra ``datasets``.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        message = f'{package} is needed to download and read this data set: pip install "scratio[datasets]"'
        raise ImportError(message, name=package) from error
