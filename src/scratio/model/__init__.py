"""The model: setup, training, queries, saving."""

from scratio.model._schema import OWN
from scratio.model._scratio import ScRatio

__all__ = ["OWN", "ScRatio"]
