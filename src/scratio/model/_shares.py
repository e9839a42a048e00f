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
        return torch.from_numpy(np.stack([shares_of(index[own], n) for own in rows])).float()

    network.set_shares(shares([split.train for split in data.splits]), shares(list(data.val_dataloader().rows)))


def shares_of(codes: np.ndarray, n_combinations: int) -> np.ndarray:
    """Share of each combination among cells, from the combination of every cell."""
    # A combination without a cell has no share that could be divided out.
    kept = np.maximum(np.bincount(codes, minlength=n_combinations), 0.5)
    return kept / kept.sum()


def combination_of(network: PotentialNetwork, condition: Condition) -> np.ndarray:
    """Combination of every cell, shape (n_cells,)."""
    parts = [slice(start, start + SLAB) for start in range(0, len(condition.codes), SLAB)]
    return np.concatenate([network.index(condition[part]).numpy() for part in parts]).astype(np.int32)
