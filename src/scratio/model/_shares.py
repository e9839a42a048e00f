"""Shares of the combinations among the cells of every member."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scratio._blocks import SLAB
from scratio.module import Condition, PotentialNetwork
from scratio.train import CellDataModule


def set_shares(network: PotentialNetwork, index: np.ndarray, data: CellDataModule) -> None:
    """Tell every member the shares of the combinations among the cells it trains on and those it holds out.

    Parameters
    ----------
    network
        Untrained network with one member for each split of ``data``.
    index
        Combination of every cell, shape (n_cells,).
    data
        Rows of all members.
    """
    n = len(network.combinations)

    def shares(rows: list[np.ndarray]) -> Tensor:
        counts = np.stack([np.bincount(index[own], minlength=n) for own in rows])
        # A combination that a member has no cell of has no share that could be divided out.
        kept = np.maximum(counts, 0.5)
        return torch.from_numpy(kept / kept.sum(1, keepdims=True)).float()

    network.set_shares(shares([split.train for split in data.splits]), shares(list(data.val_dataloader().rows)))


def combination_of(network: PotentialNetwork, condition: Condition) -> np.ndarray:
    """Combination of every cell, shape (n_cells,)."""
    parts = [slice(start, start + SLAB) for start in range(0, len(condition.codes), SLAB)]
    return np.concatenate([network.index(condition[part]).numpy() for part in parts]).astype(np.int32)
