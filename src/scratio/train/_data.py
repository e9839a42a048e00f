"""Batches that depend on (seed, step) alone, so that a resumed run sees what the uninterrupted one would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from scratio._seed import child_seed
from scratio.module import Condition
from scratio.train._config import TrainConfig

_ORDER, _VALIDATION_ORDER = 1, 2

VALIDATION_BATCH, FIRST_INTERVAL, MAX_ROUNDS = 1_024, 10, 8

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class MemberSplit:
    """Rows that one member trains on, and rows that decide when it stops."""

    train: np.ndarray
    validation: np.ndarray


class CellDataModule(pl.LightningDataModule):
    """Cells in memory; every member draws batches from rows of its own.

    Parameters
    ----------
    x
        Standardised cells, (n_cells, d).
    condition
        Conditions of all cells.
    splits
        Rows of each member.
    config
        Batch size, validation size, seed.
    """

    def __init__(
        self,
        x: Tensor,
        condition: Condition,
        splits: list[MemberSplit],
        config: TrainConfig,
    ) -> None:
        super().__init__()
        self.x, self.condition, self.splits, self.config = x, condition, splits, config
        self.batch_size = min(config.batch_size, min(len(split.train) for split in splits))

    def train_dataloader(self) -> TrainBatches:
        """Batches up to the next validation."""
        trainer = self.trainer
        step = trainer.global_step
        # Few cells are overfitted within tens of steps, so the first validations come close together.
        interval = min(self.config.validate_every, max(FIRST_INTERVAL, step // 5))
        n_steps = min(interval, self.config.max_steps - step)
        return TrainBatches(self, step, n_steps, trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> ValidationBatches:
        """The same held-out cells every time."""
        return ValidationBatches(self)

    @property
    def n_validation_cells(self) -> int:
        """Held-out cells of every member that are validated."""
        return min(self.config.n_validation, min(len(split.validation) for split in self.splits))

    def gather(self, rows: np.ndarray) -> Batch:
        """Cells and conditions of rows (n_members, n)."""
        index = torch.from_numpy(rows)
        return self.x[index], self.condition.codes[index], self.condition.values[index]


class ValidationBatches:
    """Held-out cells of every member, the same number for each; few cells come again, for other noise."""

    def __init__(self, data: CellDataModule) -> None:
        n = data.n_validation_cells
        size, n_candidates = data.config.ensemble_size, len(data.config.weight_decays)
        rows = []
        for member, split in enumerate(data.splits):
            # The candidates of a fold hold out the same cells; without a common order they could not be compared.
            key = (_VALIDATION_ORDER, member // (size * n_candidates), member % size)
            rng = np.random.default_rng(child_seed(data.config.random_state, *key))
            rows.append(rng.permutation(split.validation)[:n])
        self.data, self.n_cells = data, n
        self.n_rounds = min(-(-data.config.n_validation // n), MAX_ROUNDS)
        self.parts = np.array_split(np.stack(rows), -(-n // VALIDATION_BATCH), axis=1)

    def __len__(self) -> int:
        return self.n_rounds * len(self.parts)

    def __iter__(self) -> Iterator[Batch]:
        return (self.data.gather(rows) for _ in range(self.n_rounds) for rows in self.parts)


class TrainBatches:
    """Batches of steps ``start`` to ``start + n_steps``: a walk through one permutation of the rows after the other."""

    def __init__(self, data: CellDataModule, start: int, n_steps: int, rank: int, world_size: int) -> None:
        self.data, self.start, self.n_steps, self.rank, self.world_size = data, start, n_steps, rank, world_size
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start, self.start + self.n_steps):
            position = (step * self.world_size + self.rank) * self.data.batch_size
            rows = [self._rows(member, position) for member in range(len(self.data.splits))]
            yield self.data.gather(np.stack(rows))

    def _rows(self, member: int, position: int) -> np.ndarray:
        n, size = len(self.data.splits[member].train), self.data.batch_size
        epoch, offset = divmod(position, n)
        rows = self._order(member, epoch)[offset : offset + size]
        if len(rows) < size:
            rows = np.concatenate([rows, self._order(member, epoch + 1)[: size - len(rows)]])
        return rows

    def _order(self, member: int, epoch: int) -> np.ndarray:
        if (member, epoch) not in self._orders:
            self._orders = {
                key: order for key, order in self._orders.items() if key[0] != member or key[1] == epoch - 1
            }
            rng = np.random.default_rng(child_seed(self.data.config.random_state, _ORDER, member, epoch))
            self._orders[member, epoch] = rng.permutation(self.data.splits[member].train)
        return self._orders[member, epoch]
