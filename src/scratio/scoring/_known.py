"""Training cells, recognised by their embedding in any AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scratio._blocks import slabs
from scratio._random import row_keys


@dataclass(frozen=True)
class KnownCells:
    """Fold of every training cell, by a hash of its embedding. It also works for copies, subsets and saved models.

    Parameters
    ----------
    keys
        Hashes of the embedding in single precision, shape (n,), uint64.
    folds
        Shape (n,).
    """

    keys: np.ndarray
    folds: np.ndarray

    @classmethod
    def of(cls, x: Any, folds: np.ndarray) -> KnownCells:
        """From an embedding (n, d), in memory or not, read a block at a time."""
        return cls(np.concatenate([_keys(part) for _, part in slabs(x)]), folds)

    def folds_of(self, cells: np.ndarray, otherwise: int) -> np.ndarray:
        """Return the fold of each cell (n, d); ``otherwise`` for new cells. Equal cells get the fold of the first."""
        keys, folds = self._sorted
        wanted = _keys(cells)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, folds[place], otherwise)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.keys, kind="stable")
        return self.keys[order], self.folds[order]

    def __getstate__(self) -> dict:
        # Other processes are sent no copy.
        return {"keys": self.keys, "folds": self.folds}


def _keys(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        # Adding 0 turns -0 into 0, so that both get one key.
        return row_keys(np.asarray(x).astype(np.float32) + np.float32(0.0), seed=0)
