"""Conditions of cells: names and codes of their categories, and which combinations were observed."""

from scratio.conditions._combinations import Combinations, distinct_rows, observed_combinations
from scratio.conditions._schema import OWN, ConditionDict, ConditionSchema, Rest

__all__ = [
    "OWN",
    "Combinations",
    "ConditionDict",
    "ConditionSchema",
    "Rest",
    "distinct_rows",
    "observed_combinations",
]
