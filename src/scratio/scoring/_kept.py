"""A sample of the training cells that stays with a trained model, to judge other cells by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from scratio.conditions import ConditionSchema, distinct_rows
from scratio.module import MARGINAL, Condition, all_but
from scratio.stats import TypicalityIndex, balanced_rows
from scratio.train import StandardisedCells

MOST = 10_000


@dataclass(frozen=True)
class KeptCells:
    """Training cells without their names and genes.

    Parameters
    ----------
    x
        Standardised embedding, shape (n, d), float32.
    condition
        Their labels.
    folds
        Fold of each, shape (n,); None without folds.
    """

    x: np.ndarray
    condition: Condition
    folds: np.ndarray | None

    @classmethod
    def drawn(
        cls, cells: Tensor | StandardisedCells, condition: Condition, folds: np.ndarray | None, rng: np.random.Generator
    ) -> KeptCells:
        """Draw at most 10,000 cells, equally many of every combination of categories if it has so many."""
        rows = balanced_rows(distinct_rows(condition.codes.numpy())[1], MOST, rng)
        index = torch.from_numpy(rows)
        own = Condition(condition.codes[index], condition.values[index])
        return cls(cells[index].numpy(), own, None if folds is None else folds[rows])

    def having(self, codes: np.ndarray) -> np.ndarray:
        """Return the embedding of the cells of a condition, given its categories. Continuous keys are ignored."""
        own = self.condition.codes.numpy()
        excluded = all_but(codes)
        fits = np.where(codes >= 0, own == codes, (codes == MARGINAL) | (own != excluded))
        return self.x[fits.all(1)]

    def part(self, rows: np.ndarray) -> KeptCells:
        """Return the kept cells of the given rows."""
        folds = None if self.folds is None else self.folds[rows]
        return KeptCells(self.x[rows], self.condition[torch.from_numpy(rows)], folds)

    def to_tensors(self) -> dict[str, Tensor]:
        """Form in which a model is saved."""
        found = {"x": torch.from_numpy(self.x), "codes": self.condition.codes, "values": self.condition.values}
        return found if self.folds is None else {**found, "folds": torch.from_numpy(self.folds)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> KeptCells:
        """Inverse of :meth:`to_tensors`."""
        folds = tensors["folds"].numpy() if "folds" in tensors else None
        return cls(tensors["x"].numpy(), Condition(tensors["codes"], tensors["values"]), folds)

    def labels(self, schema: ConditionSchema) -> AnnData:
        """Return the labels of the kept cells in ``obs``, as in the user's data."""
        return AnnData(obs=schema.labels(self.condition))


class Judges:
    """Typicality of cells by what was kept of their condition; each condition's index is made once."""

    def __init__(self, kept: KeptCells) -> None:
        self.kept = kept
        self._known: dict[bytes, TypicalityIndex | None] = {}

    def __call__(self, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Typicality of cells (n, d) of conditions (n, n_keys), or of one condition (1, n_keys).

        NaN where fewer than 2 cells of the condition were kept.
        """
        found = np.full(len(x), np.nan)
        kinds, kind, _ = distinct_rows(np.broadcast_to(codes, (len(x), codes.shape[1])))
        for place, own in enumerate(kinds):
            judge = self._judge(own)
            if judge is not None:
                found[kind == place] = judge(x[kind == place])
        return found

    def _judge(self, codes: np.ndarray) -> TypicalityIndex | None:
        key = codes.tobytes()
        if key not in self._known:
            fellows = self.kept.having(codes)
            self._known[key] = TypicalityIndex(fellows) if len(fellows) > 1 else None
        return self._known[key]
