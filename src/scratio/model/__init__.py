"""The models: setup, training, queries, saving."""

from scratio.model._fdrl import FDRL
from scratio.model._schema import OWN, Rest
from scratio.model._scratio import ScRatio

__all__ = ["FDRL", "OWN", "Rest", "ScRatio"]
