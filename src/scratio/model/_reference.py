"""A sample of the training cells that stays with a trained model, to judge other cells by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from scratio.model._schema import ConditionSchema
from scratio.module import MARGINAL, Condition, all_but

MOST = 10_000


@dataclass(frozen=True)
class ReferenceCells:
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
        cls, x: Tensor, condition: Condition, folds: np.ndarray | None, rng: np.random.Generator
    ) -> ReferenceCells:
        """At most 10,000 of the cells, of every combination of categories as many as of any other if it has them."""
        cells = cls(x.numpy(), condition, folds)
        if len(x) <= MOST:
            return cells
        order = rng.permutation(len(x))
        combination = np.unique(condition.codes.numpy()[order], axis=0, return_inverse=True)[1].reshape(-1)
        by_combination = np.argsort(combination, kind="stable")
        sizes = np.bincount(combination)
        rank = np.empty(len(x), dtype=int)
        rank[by_combination] = np.arange(len(x)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return cells.part(np.sort(order[np.argsort(rank, kind="stable")[:MOST]]))

    def having(self, codes: np.ndarray) -> np.ndarray:
        """Embedding of the cells that a condition is about, given its categories; numbers are not looked at."""
        own = self.condition.codes.numpy()
        excluded = all_but(codes)
        fits = np.where(codes >= 0, own == codes, (codes == MARGINAL) | (own != excluded))
        return self.x[fits.all(1)]

    def part(self, rows: np.ndarray) -> ReferenceCells:
        """Some of them."""
        folds = None if self.folds is None else self.folds[rows]
        return ReferenceCells(self.x[rows], self.condition[torch.from_numpy(rows)], folds)

    def to_tensors(self) -> dict[str, Tensor]:
        """Form in which a model is saved."""
        found = {"x": torch.from_numpy(self.x), "codes": self.condition.codes, "values": self.condition.values}
        return found if self.folds is None else {**found, "folds": torch.from_numpy(self.folds)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> ReferenceCells:
        """Inverse of :meth:`to_tensors`."""
        folds = tensors["folds"].numpy() if "folds" in tensors else None
        return cls(tensors["x"].numpy(), Condition(tensors["codes"], tensors["values"]), folds)

    def labels(self, schema: ConditionSchema) -> AnnData:
        """Their labels as an analyst has them, in ``obs``."""
        return AnnData(obs=schema.labels(self.condition))
