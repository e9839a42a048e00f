"""Score blocks of cells without the model itself, so that the scorer can be sent to other processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scratio._coordinates import Coordinates
from scratio.estimators import Divergence, rademacher_probes
from scratio.module import Condition, FlowNetwork
from scratio.scoring._known import KnownCells
from scratio.scoring._methods import Estimate, Estimator
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
    coordinates
        What the embedding is standardised by.
    estimate, divergence, batch_size
        Estimator, its divergence, cells per batch.
    variance_factors
        For each of the networks, by how much the squared standard error exceeds the variance between its members; None
        if no standard errors are asked for.
    obsm_key
        Key of the embedding, for errors.
    moderation
        Standardised cells that the model keeps, their own errors, the variance between the parts of the potential
        there, and how many networks the errors come from, where errors are moderated by those of similar cells.
    judge
        All networks, whose spread is the standard error of every cell, and their factor; by default a cell's standard
        error is the spread of the networks that score it. Networks that saw a cell say as much about
        how the log ratio varies between samples of cells as those that did not, and they are more.
    known
        Training cells, where cells without folds may be among them; the last of the networks scores those that are not.
    """

    networks: Sequence[FlowNetwork]
    coordinates: Coordinates
    estimate: Estimator
    divergence: str
    batch_size: int
    variance_factors: Sequence[float] | None
    obsm_key: str
    moderation: tuple[np.ndarray, np.ndarray, np.ndarray, int] | None = None
    judge: tuple[FlowNetwork, float] | None = None
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
        x = StandardisedCells(cells, self.coordinates).standardise(cells).numpy()
        mean, error = self.score(x, folds, given)
        if self.moderation is not None:
            error = moderated_error(x, error, *self.moderation)
        return mean, error

    def score(
        self, x: np.ndarray, folds: np.ndarray | None, given: dict[str, Condition]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score standardised cells. The standard error of a cell is not moderated by similar cells."""
        mean, error = np.empty(len(x)), np.full(len(x), np.nan)
        for place, rows in networks_and_rows(self.networks, folds, len(x), self.batch_size):
            members, noise = self._members(self.networks[place], x[rows], rows, given)
            mean[rows] = members.mean(0).numpy()
            if self.variance_factors is not None and self.judge is None:
                error[rows] = standard_error(members, noise, self.variance_factors[place])
        if self.judge is not None:
            network, factor = self.judge
            for _, rows in networks_and_rows([network], None, len(x), self.batch_size):
                error[rows] = standard_error(*self._members(network, x[rows], rows, given), factor)
        return mean, error

    def _members(
        self, network: FlowNetwork, cells: np.ndarray, rows: np.ndarray, given: dict[str, Condition]
    ) -> Estimate:
        """Values of every member for some of the cells, and their Monte-Carlo variances, float64 on the CPU."""
        device = next(network.parameters()).device
        here = {name: value[torch.from_numpy(rows)].to(device) for name, value in given.items()}
        probes = rademacher_probes(cells, N_PROBES, _PROBES) if self.divergence == "rademacher" else None
        with torch.no_grad():
            values, noise = self.estimate(network, torch.from_numpy(cells).to(device), here, Divergence(probes), cells)
        # In this order: not every accelerator has double precision.
        return values.cpu().double(), None if noise is None else noise.cpu().double()

    def on(self, device: torch.device) -> Scorer:
        """Return a scorer whose networks lie on a device."""
        # The network that judges may be among those that score; it is copied once.
        every = [*self.networks, *([] if self.judge is None else [self.judge[0]])]
        there = {id(network): placed(network, device) for network in every}
        judge = None if self.judge is None else (there[id(self.judge[0])], self.judge[1])
        return replace(self, networks=[there[id(network)] for network in self.networks], judge=judge)


def placed(network: FlowNetwork, device: torch.device) -> FlowNetwork:
    """Return a network that lies on a device: a copy, unless the network lies there itself."""
    own = next(network.parameters()).device
    is_there = own.type == device.type and device.index in (None, own.index)
    return network if is_there else deepcopy(network).to(device)


def standard_error(members: Tensor, noise: Tensor | None, variance_factor: float) -> np.ndarray:
    """Variance between members times its factor, plus the Monte-Carlo error of their mean.

    Two members that have the share 1 - u of their training cells in common differ by u times twice the variance of the
    log ratio over samples of cells, so that the factor is 1 / u; the members' initial weights make the estimate too
    large rather than too small. With members that leave out a share h each, 1 / u = (1 - h) / h: the delete-a-group
    jackknife.

    Parameters
    ----------
    members
        Values of every member, shape (n_members, n).
    noise
        Their Monte-Carlo variances, of the same shape, where there are any.
    variance_factor
        1 / u.
    """
    size = len(members)
    variance = members.new_zeros(members.shape[1:])
    if size > 1:
        variance = variance + members.var(0, correction=1) * variance_factor
    elif noise is None:
        variance = torch.full_like(variance, torch.nan)
    if noise is not None:
        variance = variance + noise.sum(0) / size**2
    return variance.sqrt().numpy()


def networks_and_rows(
    networks: Sequence[FlowNetwork], folds: np.ndarray | None, n: int, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of rows with the place of the network that scores them: with folds, one that never saw them."""
    for fold in range(len(networks)):
        rows = np.arange(n) if folds is None else np.flatnonzero(folds == fold)
        for start in range(0, len(rows), batch_size):
            yield fold, rows[start : start + batch_size]
