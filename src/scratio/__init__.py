"""Per-cell log density ratios between conditions, from one conditional flow-matching model."""

import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from scratio._settings import settings
from scratio._versions import show_versions

if TYPE_CHECKING:
    from scratio import datasets, get, io, model, peers, pl, tl
    from scratio.model import OWN, Rest

__version__ = version("scratio")

if "ipykernel" in sys.modules:
    import_module("scratio._progress").import_tqdm()

__all__ = [
    "OWN",
    "Rest",
    "__version__",
    "datasets",
    "get",
    "io",
    "model",
    "peers",
    "pl",
    "settings",
    "show_versions",
    "tl",
]


if not TYPE_CHECKING:  # which would take any name for one that exists

    def __getattr__(name: str) -> Any:
        # Imported when first used: torch and scvi-tools take seconds, which `scratio --help` has no need of.
        if name in {"OWN", "Rest"}:
            return getattr(import_module("scratio.model"), name)
        if not name.startswith("_") and find_spec(f"scratio.{name}"):
            return import_module(f"scratio.{name}")
        raise AttributeError(f"module 'scratio' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
