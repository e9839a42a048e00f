"""Order of cells that are read from disk: blocks at random, many in memory at a time, shuffled together."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from torch import Tensor

from scratio._random import child_seed
from scratio.train._cells import StandardisedCells

_BLOCKS, _WITHIN = 5, 6

BLOCK, BLOCKS_PER_GROUP, N_GROUPS = 1_024, 512, 2
"""Successive rows that are read at once, blocks that are shuffled together, and such groups that stay in memory:
210 MB of 50 dimensions in single precision."""


class BlockStream:
    """Cells of an embedding on disk in an order that depends on (seed, member, epoch) alone.

    In every epoch the blocks of the file are put in a random order, the same for all members, and cut into groups. A
    group's rows that a member trains on are shuffled by the member on its own. Files are often sorted by sample, so
    that a group is of as many blocks as make up a random sample of the file. Members whose rows are spread unevenly
    may be in groups next to each other, for which the last group is kept.

    Parameters
    ----------
    cells
        All cells.
    rows
        Rows that each member trains on, sorted.
    random_state
        Seed.
    block, blocks_per_group
        Rows of a block and blocks of a group.
    """

    def __init__(
        self,
        cells: StandardisedCells,
        rows: list[np.ndarray],
        random_state: int,
        block: int = BLOCK,
        blocks_per_group: int = BLOCKS_PER_GROUP,
    ) -> None:
        self.cells, self.rows, self.random_state = cells, rows, random_state
        self.block, self.per_group = block, blocks_per_group
        edges = np.arange(0, len(cells) + block, block)
        self.n_blocks = len(edges) - 1
        known: dict[int, np.ndarray] = {}
        # Candidates of a fold share their rows.
        for own in rows:
            known.setdefault(id(own), np.searchsorted(own, edges))
        self._edges = [known[id(own)] for own in rows]
        self._blocks: dict[int, np.ndarray] = {}
        self._ends: dict[tuple[int, int], np.ndarray] = {}
        self._orders: dict[tuple[int, int, int], np.ndarray] = {}
        self._groups: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def take(self, member: int, position: int, size: int) -> tuple[np.ndarray, Tensor]:
        """``size`` cells from a position in a member's endless order of its rows: their rows, and themselves."""
        rows, cells = [], []
        while size:
            epoch, offset = divmod(position, len(self.rows[member]))
            ends = self._ends_of_groups(member, epoch)
            group = int(np.searchsorted(ends, offset, side="right"))
            begin = ends[group - 1] if group else 0
            part = self._order(member, epoch, group)[offset - begin : offset - begin + size]
            rows.append(part)
            cells.append(self._cells(epoch, group, part))
            position, size = position + len(part), size - len(part)
        return np.concatenate(rows), self.cells.standardise(np.concatenate(cells))

    def _order_of_blocks(self, epoch: int) -> np.ndarray:
        if epoch not in self._blocks:
            self._blocks = {known: order for known, order in self._blocks.items() if known == epoch - 1}
            rng = np.random.default_rng(child_seed(self.random_state, _BLOCKS, epoch))
            self._blocks[epoch] = rng.permutation(self.n_blocks)
        return self._blocks[epoch]

    def _blocks_of(self, epoch: int, group: int) -> np.ndarray:
        return self._order_of_blocks(epoch)[group * self.per_group : (group + 1) * self.per_group]

    def _ends_of_groups(self, member: int, epoch: int) -> np.ndarray:
        """Number of the member's rows up to the end of each group."""
        if (member, epoch) not in self._ends:
            self._ends = {key: ends for key, ends in self._ends.items() if key[0] != member or key[1] == epoch - 1}
            counts = np.diff(self._edges[member])[self._order_of_blocks(epoch)]
            self._ends[member, epoch] = np.cumsum(np.add.reduceat(counts, np.arange(0, len(counts), self.per_group)))
        return self._ends[member, epoch]

    def _order(self, member: int, epoch: int, group: int) -> np.ndarray:
        """The member's rows of a group, shuffled."""
        key = (member, epoch, group)
        if key not in self._orders:
            # A batch reaches into the next group at most.
            mine = [known for known in self._orders if known[0] == member]
            for old in mine[:-1]:
                del self._orders[old]
            own, edges = self.rows[member], self._edges[member]
            parts = [own[edges[block] : edges[block + 1]] for block in self._blocks_of(epoch, group)]
            rng = np.random.default_rng(child_seed(self.random_state, _WITHIN, member, epoch, group))
            self._orders[key] = rng.permutation(np.concatenate(parts))
        return self._orders[key]

    def _cells(self, epoch: int, group: int, rows: np.ndarray) -> np.ndarray:
        """Cells of a group, as they lie on disk."""
        blocks = self._blocks_of(epoch, group)
        if (epoch, group) not in self._groups:
            while len(self._groups) >= N_GROUPS:
                self._groups.popitem(last=False)
            self._groups[epoch, group] = self._read(blocks)
        self._groups.move_to_end((epoch, group))
        order = np.argsort(blocks)
        place = order[np.searchsorted(blocks, rows // self.block, sorter=order)]
        return self._groups[epoch, group][place * self.block + rows % self.block]

    def _read(self, blocks: np.ndarray) -> np.ndarray:
        n, source = len(self.cells), self.cells.source
        found = np.empty((len(blocks) * self.block, *source.shape[1:]), dtype=source.dtype)
        # In the order of the file, for disks that prefer it.
        for place in np.argsort(blocks):
            start = int(blocks[place]) * self.block
            stop = min(start + self.block, n)
            found[place * self.block : place * self.block + stop - start] = np.asarray(source[start:stop])
        return found
