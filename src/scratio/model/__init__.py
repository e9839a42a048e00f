"""The model: setup, training, queries, saving."""

from scratio.model._schema import OWN, Rest
from scratio.model._scratio import ScRatio

__all__ = ["OWN", "Rest", "ScRatio"]
