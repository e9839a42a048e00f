"""The models: setup, training, queries, saving."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scratio.conditions import OWN, Rest
from scratio.model._scratio import ScRatio

if TYPE_CHECKING:
    from scratio.fdrl import FDRL

__all__ = ["FDRL", "OWN", "Rest", "ScRatio"]


if not TYPE_CHECKING:  # which would take any name for one that exists

    def __getattr__(name: str) -> Any:
        # Imported when first used: scratio.fdrl is built on this package, and could not be imported while it is.
        if name == "FDRL":
            return import_module("scratio.fdrl").FDRL
        raise AttributeError(f"module 'scratio.model' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
