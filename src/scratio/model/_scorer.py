"""Scores of blocks of cells by a trained model, without the model: what other processes are sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scratio.estimators import Divergence, rademacher_probes
from scratio.model._known import KnownCells
from scratio.model._methods import Estimator
from scratio.module import Condition, FlowNetwork, PotentialNetwork
from scratio.stats import moderated_error
from scratio.train import StandardisedCells

N_PROBES = 4
_PROBES = 20


@dataclass(frozen=True)
class Scorer:
    """A per-cell quantity and its standard error, for blocks of cells as they are stored.

    Parameters
    ----------
    networks
        Network of every fold's cells, or the one of all.
    location, scale
        What the embedding is standardised by.
    estimate, divergence, batch_size
        Estimator, its divergence, cells per batch.
    share
        Share of the cells that each member held out, for the standard error; None if none is asked for.
    obsm_key
        Key of the embedding, for errors.
    moderation
        Standardised cells of the reference and their own errors, where errors are moderated by those of similar cells.
    known
        Training cells, where cells without folds may be among them; the last of the networks scores those that are not.
    """

    networks: Sequence[FlowNetwork]
    location: np.ndarray
    scale: np.ndarray
    estimate: Estimator
    divergence: str
    batch_size: int
    share: float | None
    obsm_key: str
    moderation: tuple[np.ndarray, np.ndarray] | None = None
    known: KnownCells | None = None

    def __call__(
        self, cells: np.ndarray, folds: np.ndarray | None, given: dict[str, Condition]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the members that may score a cell, and its standard error (NaN if none is asked for).

        Parameters
        ----------
        cells
            Shape (n, d), in units of the embedding.
        folds
            Fold of each cell; None if all networks may score all cells that are not known.
        given
            Conditions by name, of one row or n.
        """
        if folds is None and self.known is not None:
            folds = self.known.folds_of(cells, otherwise=len(self.networks) - 1)
        x = StandardisedCells(cells, self.location, self.scale).standardise(cells).numpy()
        mean, error = self.score(x, folds, given)
        if self.moderation is not None:
            error = moderated_error(x, error, *self.moderation)
        return mean, error

    def score(
        self, x: np.ndarray, folds: np.ndarray | None, given: dict[str, Condition]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same for standardised cells, with each cell's own standard error."""
        mean, error = np.empty(len(x)), np.full(len(x), np.nan)
        for network, rows in networks_and_rows(self.networks, folds, len(x), self.batch_size):
            cells = x[rows]
            device = next(network.parameters()).device
            here = {name: value[torch.from_numpy(rows)].to(device) for name, value in given.items()}
            probes = rademacher_probes(cells, N_PROBES, _PROBES) if self.divergence == "rademacher" else None
            z = torch.from_numpy(cells).to(device)
            with torch.no_grad():
                members, noise = self.estimate(network, z, here, Divergence(probes), cells)
                spread = members
                if self.share is not None and id(network) in self._unshrunk:
                    # What the held-out cells do not support is left out of the log ratio, not of its error.
                    spread, noise = self.estimate(self._unshrunk[id(network)], z, here, Divergence(probes), cells)
            mean[rows] = members.mean(0).cpu().numpy()
            if self.share is not None:
                error[rows] = standard_error(spread, noise, self.share)
        return mean, error

    @cached_property
    def _unshrunk(self) -> dict[int, PotentialNetwork]:
        return {
            id(network): network.unshrunk()
            for network in self.networks
            if isinstance(network, PotentialNetwork) and network.is_shrunk
        }

    def __getstate__(self) -> dict:
        # Named by identities of this process.
        return {name: value for name, value in self.__dict__.items() if name != "_unshrunk"}


def standard_error(members: Tensor, noise: Tensor | None, share: float) -> np.ndarray:
    """Delete-a-group jackknife over the members, plus the Monte-Carlo error of their mean.

    Each member leaves out another share h of the training cells, so that (1 - h) / h times the members' variance
    estimates the variance of the log ratio over samples of cells; the members' initial weights make it too large rather
    than too small.

    Parameters
    ----------
    members
        Values of every member, shape (n_members, n).
    noise
        Their Monte-Carlo variances, of the same shape, where there are any.
    share
        h.
    """
    size = len(members)
    variance = members.new_zeros(members.shape[1:])
    if size > 1:
        variance = variance + (1.0 - share) / share * members.var(0, correction=1)
    elif noise is None:
        variance = torch.full_like(variance, torch.nan)
    if noise is not None:
        variance = variance + noise.sum(0) / size**2
    return variance.sqrt().cpu().numpy()


def networks_and_rows(
    networks: Sequence[FlowNetwork], folds: np.ndarray | None, n: int, batch_size: int
) -> Iterator[tuple[FlowNetwork, np.ndarray]]:
    """Batches of rows with the network that may score them: one that never saw them, where there are folds."""
    for fold, network in enumerate(networks):
        rows = np.arange(n) if folds is None else np.flatnonzero(folds == fold)
        for start in range(0, len(rows), batch_size):
            yield network, rows[start : start + batch_size]
