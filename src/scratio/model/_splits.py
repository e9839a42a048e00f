"""Folds of the cells, and which cells every member trains on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scratio._random import child_seed
from scratio.stats import disjoint_parts, grouped_folds, most_folds, stratified_folds
from scratio.train import MemberSplit

_FOLDS, _VALIDATION, _UNSEEN = 11, 12, 24

ROW = np.int32
"""Type of row numbers, of which every member has a list. It takes half the memory of the default type."""
FEWEST_PARTS = 4
"""Smallest number of parts into which samples are split for validation. Fewer parts would be too large."""


@dataclass(frozen=True)
class Splits:
    """Fold of every cell, and rows of every member, one fold after the other.

    Parameters
    ----------
    n_cells
        Number of cells.
    folds
        Shape (n_cells,); None without folds.
    n_folds
        Number of folds.
    members
        Rows that each member trains on and holds out.
    validation_size
        Share of a fold's training cells that a member was to hold out.
    """

    n_cells: int
    folds: np.ndarray | None
    n_folds: int
    members: list[MemberSplit]
    validation_size: float

    @classmethod
    def drawn(
        cls,
        strata: np.ndarray,
        groups: np.ndarray | None,
        n_folds: int,
        n_members: int,
        validation_size: float,
        random_state: int,
    ) -> Splits:
        """Draw folds, stratified or of whole groups, and what every member holds out.

        Parameters
        ----------
        strata, groups
            Combination of categories, and sample (or None), of every cell.
        n_folds, n_members
            Folds, and members of each.
        validation_size
            Share of the training cells that each member holds out.
        random_state
            Seed.

        Raises
        ------
        ValueError
            If there are too few cells.
        """
        n = len(strata)
        if n < 2 * n_folds or n < 10:
            raise ValueError(
                f"{n} cells are too few for n_folds={n_folds} folds; at least {max(2 * n_folds, 10)} needed"
            )
        folds, seed = None, child_seed(random_state, _FOLDS)
        if n_folds > 1:
            if groups is None:
                folds = stratified_folds(strata, n_folds, np.random.default_rng(seed))
            else:
                folds = grouped_folds(strata, groups, n_folds, int(seed % 2**32))
        members = []
        for fold in range(n_folds):
            rows = np.arange(n) if folds is None else np.flatnonzero(folds != fold)
            # Each member holds out different cells, so the members of a fold are judged by many cells.
            own_seed = child_seed(random_state, _VALIDATION, fold)
            held_out = _held_out(rows, strata, groups, n_members, validation_size, own_seed)
            members += [MemberSplit(_without(rows, part), part.astype(ROW)) for part in held_out]
        return cls(n, folds, n_folds, members, validation_size)

    def distinct(self) -> np.ndarray:
        """Share of the training cells of two members that they do not have in common, (n_networks, n_networks).

        For the standard error of a log ratio, the variance between members is divided by this share, because members
        that train on common cells make common errors.
        """
        known = np.zeros((len(self.members), self.n_cells), dtype=np.float32)
        for own, split in zip(known, self.members, strict=True):
            own[split.train] = 1.0
        size = known.sum(1)
        return 1.0 - (known @ known.T) / np.sqrt(np.outer(size, size))

    def unseen(self, groups: np.ndarray | None, most: int, random_state: int) -> list[np.ndarray] | None:
        """Cells of samples that the members of a fold have not seen: those of the fold itself.

        Parameters
        ----------
        groups
            Sample of every cell.
        most
            Largest number of cells of a member.
        random_state
            Seed.

        Returns
        -------
        Rows of each fold, dealt to its members, each of shape (n_members, n). None without samples or folds, and where
        members hold out whole samples of their own, which tell the same.
        """
        if groups is None or self.folds is None:
            return None
        n_members = len(self.members) // self.n_folds
        if all(_is_apart(groups, split) for split in self.members[::n_members]):
            return None
        found = []
        for fold in range(self.n_folds):
            rng = np.random.default_rng(child_seed(random_state, _UNSEEN, fold))
            rows = rng.permutation(np.flatnonzero(self.folds == fold))
            # Fewer cells than members come again.
            found.append(np.resize(rows, (n_members, min(max(len(rows) // n_members, 1), most))))
        return found


def _is_apart(groups: np.ndarray, split: MemberSplit) -> bool:
    """Whether a member holds out whole samples."""
    return not np.intersect1d(groups[split.train], groups[split.validation]).size


def check_groups(strata: np.ndarray, groups: np.ndarray, n_folds: int, group_key: str) -> None:
    """Refuse more folds than a condition has groups."""
    most = most_folds(strata, groups)
    if n_folds > most:
        raise ValueError(
            f"n_folds={n_folds} folds by obs[{group_key!r}] are too many: some condition has cells in only {most} "
            "groups"
        )


def _held_out(
    rows: np.ndarray,
    strata: np.ndarray,
    groups: np.ndarray | None,
    n_members: int,
    validation_size: float,
    seed: int,
) -> list[np.ndarray]:
    """Draw the rows that each member holds out: whole samples if there are enough of them, otherwise cells."""
    if groups is not None:
        wanted = round(1.0 / validation_size)
        n_parts = min(wanted, most_folds(strata[rows], groups[rows]))
        if n_parts >= max(n_members, min(wanted, FEWEST_PARTS)):
            parts = grouped_folds(strata[rows], groups[rows], n_parts, int(seed % 2**32))
            return [rows[parts == part] for part in range(n_members)]
    return disjoint_parts(rows, strata[rows], validation_size, n_members, np.random.default_rng(seed))


def _without(rows: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Remove a part of sorted rows."""
    kept = np.ones(len(rows), dtype=bool)
    kept[np.searchsorted(rows, part)] = False
    return rows[kept].astype(ROW)
