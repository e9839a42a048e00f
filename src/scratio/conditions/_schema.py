"""Which keys a model knows, and how a contrast written as dicts becomes tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scratio._check import category_of, check_categories, check_numbers
from scratio.module import MARGINAL, Condition, all_but


class _Own:
    """Type of `OWN`; there is one instance."""

    _instance: _Own | None = None

    def __new__(cls) -> _Own:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "scratio.OWN"

    def __reduce__(self) -> tuple[type[_Own], tuple]:
        return _Own, ()


OWN: Final = _Own()
"""Value of a condition that stands for each cell's own label."""


@dataclass(frozen=True)
class Rest:
    """Value of a condition that stands for every category but one, marginalised over by their shares of the cells.

    Parameters
    ----------
    category
        The category left out, or `OWN` for each cell's own.

    Examples
    --------
    >>> import scratio
    >>> numerator, denominator = {"cell_type": "B cell"}, {"cell_type": scratio.Rest("B cell")}
    """

    category: Any


ConditionDict = Mapping[str, Any]


@dataclass(frozen=True)
class ConditionSchema:
    """Registered keys of a model.

    Parameters
    ----------
    categories
        Categories of each categorical key, in the order of their codes.
    continuous
        Mean and standard deviation of each continuous key among the registered cells.
    """

    categories: dict[str, list[str]]
    continuous: dict[str, tuple[float, float]]

    @property
    def keys(self) -> list[str]:
        """All registered keys."""
        return [*self.categories, *self.continuous]

    @property
    def n_categories(self) -> list[int]:
        """Number of categories of each categorical key."""
        return [len(names) for names in self.categories.values()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON and ``uns``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ConditionSchema:
        """Inverse of :meth:`to_dict`."""
        return cls(data["categories"], {key: tuple(pair) for key, pair in data["continuous"].items()})

    def own(self, adata: AnnData) -> Condition:
        """Every cell's own labels for all keys, n rows."""
        return self.encode(dict.fromkeys(self.keys, OWN), adata, "condition")

    def labels(self, condition: Condition) -> pd.DataFrame:
        """Categories and numbers of every cell, nothing being marginalised over."""
        columns: dict[str, Any] = {}
        for k, (key, names) in enumerate(self.categories.items()):
            columns[key] = np.asarray(names, dtype=object)[condition.codes[:, k].numpy()]
        for k, (key, (mean, sd)) in enumerate(self.continuous.items()):
            columns[key] = condition.values[:, k].numpy() * sd + mean
        return pd.DataFrame(columns, index=[str(row) for row in range(len(condition))])

    def encode(self, condition: ConditionDict, adata: AnnData | None, name: str) -> Condition:
        """Tensors for a condition: one row if it is the same for all cells, else one row per cell of ``adata``.

        Parameters
        ----------
        condition
            Dict from a registered key to a category, a number, `OWN` or `Rest`; a key left out is marginalised over.
        adata
            Cells, needed where the condition holds `OWN`.
        name
            Name of the argument, for errors.

        Raises
        ------
        TypeError
            If ``condition`` is not a dict.
        KeyError
            If a key is not registered, or missing in ``obs``.
        ValueError
            If a category is unknown or a value is not a finite number.
        """
        if not isinstance(condition, Mapping):
            raise TypeError(f"{name} must be a dict from a registered key to a value, got {type(condition).__name__}")
        unknown = [key for key in condition if key not in self.keys]
        if unknown:
            raise KeyError(f"{name} names {unknown[0]!r}, which is not registered; registered keys: {self.keys}")
        is_own = any(value is OWN or value == Rest(OWN) for value in condition.values())
        n = adata.n_obs if adata is not None and is_own else 1
        codes = np.full((n, len(self.categories)), MARGINAL, dtype=np.int64)
        values = np.full((n, len(self.continuous)), np.nan, dtype=np.float32)
        for k, (key, names) in enumerate(self.categories.items()):
            if key in condition:
                codes[:, k] = self._codes(key, names, condition[key], adata, name)
        for k, (key, (mean, sd)) in enumerate(self.continuous.items()):
            if key in condition:
                values[:, k] = (self._numbers(key, condition[key], adata, name) - mean) / sd
        return Condition(torch.from_numpy(codes), torch.from_numpy(values))

    def having(self, condition: ConditionDict, adata: AnnData, name: str) -> np.ndarray:
        """Which cells have a condition of categories alone, shape (n_cells,), bool.

        Raises
        ------
        KeyError, TypeError, ValueError
            As :meth:`encode`, or if the condition holds a number, `OWN` or `Rest`, or no cell has it.
        """
        values = condition.values() if isinstance(condition, Mapping) else ()
        if any(value is OWN or isinstance(value, Rest) for value in values) or set(condition) & set(self.continuous):
            raise ValueError(f"{name} must name categories alone, got {dict(condition)}")
        asked = self.encode(condition, None, name).codes[0].numpy()
        found = np.ones(adata.n_obs, dtype=bool)
        for code, (key, names) in zip(asked, self.categories.items(), strict=True):
            if code != MARGINAL:
                found &= self._own_codes(key, names, adata) == code
        if not found.any():
            raise ValueError(f"{name}: no cell has {dict(condition)}")
        return found

    def check_cells(self, adata: AnnData) -> None:
        """Refuse new cells whose labels the model does not know; keys that are absent are not looked at."""
        for key, names in self.categories.items():
            if key in adata.obs:
                self._own_codes(key, names, adata)

    def _codes(self, key: str, names: list[str], value: Any, adata: AnnData | None, name: str) -> np.ndarray | int:
        if isinstance(value, Rest):
            return all_but(self._codes(key, names, value.category, adata, name))
        if value is OWN:
            return self._own_codes(key, names, _required(adata, key, name))
        category = category_of(value, names)
        if category not in names:
            raise ValueError(f"{name}: obs[{key!r}] has no category {value!r}; found: {names}")
        return names.index(category)

    def _own_codes(self, key: str, names: list[str], adata: AnnData) -> np.ndarray:
        labels = check_categories(adata, key)
        unseen = sorted(set(labels.unique()) - set(names))
        if unseen:
            raise ValueError(
                f"obs[{key!r}] holds categories the model was not trained on: {unseen}; it knows: {names}. "
                f"Leave those cells out, or train a model on them."
            )
        return pd.Index(names).get_indexer(pd.Index(labels))

    def _numbers(self, key: str, value: Any, adata: AnnData | None, name: str) -> np.ndarray | float:
        if value is OWN:
            return check_numbers(_required(adata, key, name), key)
        if isinstance(value, bool | str | Rest) or not np.isfinite(value):
            raise ValueError(
                f"{name}[{key!r}] must be a finite number, since obs[{key!r}] is continuous; got {value!r}"
            )
        return float(value)


def _required(adata: AnnData | None, key: str, name: str) -> AnnData:
    if adata is None:
        raise ValueError(f"{name}[{key!r}] is OWN, which needs cells: pass adata")
    return adata
