"""Batches that depend on (seed, step) alone, so that a resumed run sees what the uninterrupted one would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from scratio._random import child_seed
from scratio.module import Condition
from scratio.train._cells import StandardisedCells
from scratio.train._config import TrainConfig
from scratio.train._stream import BlockStream

_ORDER, _VALIDATION_ORDER = 1, 2

VALIDATION_BATCH, FIRST_INTERVAL, MAX_ROUNDS = 1_024, 10, 8

MOST_NUMBERS = 2**25
"""Entries of an embedding up to which a copy is standardised beforehand: 134 MB."""

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class MemberSplit:
    """Rows that one member trains on, and rows that decide when it stops."""

    train: np.ndarray
    validation: np.ndarray


class CellDataModule(pl.LightningDataModule):
    """Cells, in memory or on disk; every member draws batches from rows of its own.

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
    noisy_validation
        Whether the held-out loss draws noise, so that few cells have to come again.
    """

    def __init__(
        self,
        x: Tensor | StandardisedCells,
        condition: Condition,
        splits: list[MemberSplit],
        config: TrainConfig,
        *,
        noisy_validation: bool = True,
    ) -> None:
        super().__init__()
        self.noisy_validation = noisy_validation
        if isinstance(x, StandardisedCells) and x.is_in_memory and len(x) * x.shape[1] <= MOST_NUMBERS:
            # Once here, and not again in every batch that a cell is in.
            x = x.standardise(x.source)
        self.x, self.condition, self.splits, self.config = x, condition, splits, config
        self.batch_size = min(config.batch_size, min(len(split.train) for split in splits))

    def train_dataloader(self) -> TrainBatches:
        """Batches up to the next validation."""
        trainer = self.trainer
        step = trainer.global_step
        # Few cells are overfitted within tens of steps, so the first validations come close together.
        interval = min(self.config.validate_every, max(FIRST_INTERVAL, step // 5))
        # One where none is left: Lightning ends a resumed training itself, and warns of nothing to iterate over.
        n_steps = max(min(interval, self.config.max_steps - step), 1)
        return TrainBatches(self, step, n_steps, trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> ValidationBatches:
        """Held-out cells, which do not change between validations."""
        return self._validation

    @cached_property
    def _validation(self) -> ValidationBatches:
        return ValidationBatches(self)

    @cached_property
    def order(self) -> PermutedRows | BlockStream:
        """Order in which every member sees its rows."""
        rows, seed = [split.train for split in self.splits], self.config.random_state
        if isinstance(self.x, StandardisedCells) and not self.x.is_in_memory:
            return BlockStream(self.x, rows, seed)
        return PermutedRows(rows, seed)

    @property
    def n_validation_cells(self) -> int:
        """Held-out cells of every member that are validated."""
        return min(self.config.n_validation, min(len(split.validation) for split in self.splits))

    def gather(self, rows: np.ndarray) -> Batch:
        """Cells and conditions of rows (n_members, n)."""
        index = torch.from_numpy(rows)
        return self.x[index], self.condition.codes[index], self.condition.values[index]

    def batch(self, position: int) -> Batch:
        """Cells and conditions of every member's batch from a position in its order."""
        if isinstance(self.order, PermutedRows):
            return self.gather(np.stack([self.order.take(m, position, self.batch_size) for m in self._members]))
        found = [self.order.take(member, position, self.batch_size) for member in self._members]
        index = torch.from_numpy(np.stack([rows for rows, _ in found]))
        x = torch.stack([cells for _, cells in found])
        return x, self.condition.codes[index], self.condition.values[index]

    @property
    def _members(self) -> range:
        return range(len(self.splits))


class ValidationBatches:
    """Held-out cells of every member, the same number for each; few cells come again, for other noise."""

    def __init__(self, data: CellDataModule) -> None:
        n = data.n_validation_cells
        size, rows = data.config.ensemble_size, []
        for member, split in enumerate(data.splits):
            key = (_VALIDATION_ORDER, member // size, member % size)
            rng = np.random.default_rng(child_seed(data.config.random_state, *key))
            rows.append(rng.permutation(split.validation)[:n])
        self.data, self.n_cells = data, n
        self.n_rounds = min(-(-data.config.n_validation // n), MAX_ROUNDS) if data.noisy_validation else 1
        self.rows = np.stack(rows)
        self._parts = np.array_split(np.arange(n), -(-n // VALIDATION_BATCH))

    def __len__(self) -> int:
        return self.n_rounds * len(self._parts)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.n_rounds):
            for part in self._parts:
                x, codes, values = self.cells
                yield x[:, part], codes[:, part], values[:, part]

    @cached_property
    def cells(self) -> Batch:
        """Cells and conditions of all members, shape (n_members, n, ...); read once."""
        return self.data.gather(self.rows)


class TrainBatches:
    """Batches of steps ``start`` to ``start + n_steps``: a walk through one permutation of the rows after the other."""

    def __init__(self, data: CellDataModule, start: int, n_steps: int, rank: int, world_size: int) -> None:
        self.data, self.start, self.n_steps, self.rank, self.world_size = data, start, n_steps, rank, world_size

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start, self.start + self.n_steps):
            yield self.data.batch((step * self.world_size + self.rank) * self.data.batch_size)


class PermutedRows:
    """Rows of every member in random order, one permutation after the other."""

    def __init__(self, rows: list[np.ndarray], random_state: int) -> None:
        self.rows, self.random_state = rows, random_state
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def take(self, member: int, position: int, size: int) -> np.ndarray:
        """``size`` rows from a position in a member's endless order."""
        epoch, offset = divmod(position, len(self.rows[member]))
        rows = self._order(member, epoch)[offset : offset + size]
        if len(rows) < size:
            rows = np.concatenate([rows, self._order(member, epoch + 1)[: size - len(rows)]])
        return rows

    def _order(self, member: int, epoch: int) -> np.ndarray:
        if (member, epoch) not in self._orders:
            self._orders = {
                key: order for key, order in self._orders.items() if key[0] != member or key[1] == epoch - 1
            }
            rng = np.random.default_rng(child_seed(self.random_state, _ORDER, member, epoch))
            self._orders[member, epoch] = rng.permutation(self.rows[member])
        return self._orders[member, epoch]
