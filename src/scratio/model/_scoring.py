"""How queries of `ScRatio` reach the networks: conditions, folds, batches, members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from scratio.estimators import Divergence, rademacher_probes
from scratio.model._check import check_at_least
from scratio.model._methods import DEFAULT_BATCH_SIZE, Estimator, choose
from scratio.model._reference import ReferenceCells
from scratio.model._schema import ConditionDict, ConditionSchema
from scratio.module import MARGINAL, Condition, FlowNetwork, PotentialNetwork, select_members
from scratio.stats import moderated_error

DIVERGENCES = ("exact", "rademacher")
N_PROBES = 4
_PROBES = 20


class ScoringMixin:
    """What the queries of `ScRatio` share."""

    adata: AnnData | None
    folds: np.ndarray | None
    reference: ReferenceCells | None
    training_: dict[str, Any]
    module: FlowNetwork
    schema: ConditionSchema
    _settings: dict[str, Any]
    embedding: Callable[[AnnData], np.ndarray]
    _check_if_trained: Callable[..., None]

    @property
    def n_members(self) -> int:
        """Networks that score a cell."""
        return self._settings["n_members"]

    def _check_ensemble(self) -> None:
        if self.n_members < 2:
            raise ValueError(
                "return_std=True needs the spread of an ensemble, or method='ito': make the model with n_members >= 2"
            )

    def _encode(self, condition: ConditionDict, adata: AnnData | None, name: str) -> Condition:
        """Tensors for a condition; one that no training cell had is refused where the model has no answer to it."""
        encoded = self.schema.encode(condition, adata, name)
        network = self.module
        if isinstance(network, PotentialNetwork):
            observed = network.combinations_in(encoded.to(self._device)).any(-1)
            if not bool(observed.all()):
                cells = f" (in {int((~observed).sum())} cells)" if len(encoded) > 1 else ""
                raise ValueError(
                    f"{name}: no training cell had the combination {dict(condition)}{cells}; the potential knows the "
                    "observed combinations alone. Leave a key out to marginalise over it."
                )
        elif bool((encoded.codes < MARGINAL).any()):
            raise ValueError(
                f"{name}: Rest needs parametrization='potential', whose marginals over some of the categories are "
                f"exact; this model has {self._settings['parametrization']!r}"
            )
        return encoded

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _evaluate(
        self,
        adata: AnnData | None,
        conditions: dict[str, ConditionDict],
        estimate: Estimator,
        divergence: str,
        n_steps: int | None,
        batch_size: int | None,
        *,
        with_std: bool = False,
        moderate: bool = False,
        rows: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the members of a per-cell quantity and, where asked for, its standard error (else NaN).

        The error is that of the cell alone or, where that is asked for, moderated by those of similar cells.
        """
        choose("divergence", divergence, DIVERGENCES)
        check_at_least(1, n_steps=n_steps, batch_size=batch_size)
        size = batch_size or DEFAULT_BATCH_SIZE
        cells, folds = self._cells(adata, rows)
        x = self.embedding(cells)
        given = {name: self._encode(value, cells, name) for name, value in conditions.items()}
        mean, error = self._estimate(x, folds, given, estimate, divergence, size, with_std)
        known = self._known_reference(conditions) if with_std and moderate else None
        if known is not None:
            reference, asked = known
            of_reference = self._estimate(reference.x, reference.folds, asked, estimate, divergence, size, True)[1]
            error = moderated_error(x, error, reference.x, of_reference)
        return mean, error

    def _estimate(
        self,
        x: np.ndarray,
        folds: np.ndarray | None,
        given: dict[str, Condition],
        estimate: Estimator,
        divergence: str,
        batch_size: int,
        with_std: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean over the members that may score a cell, and each cell's own standard error."""
        means, errors, places = [], [], []
        for network, batch, here in self._batches(x, folds, given, batch_size):
            cells = x[batch]
            probes = rademacher_probes(cells, N_PROBES, _PROBES) if divergence == "rademacher" else None
            z = torch.from_numpy(cells).to(self._device)
            with torch.no_grad():
                members, noise = estimate(network, z, here, Divergence(probes), cells)
                spread = members
                if with_std and isinstance(network, PotentialNetwork) and network.is_shrunk:
                    # What the held-out cells do not support is left out of the log ratio, not of its error.
                    spread, noise = estimate(network.unshrunk(), z, here, Divergence(probes), cells)
            means.append(members.mean(0).cpu().numpy())
            errors.append(self._standard_error(spread, noise) if with_std else np.full(len(cells), np.nan))
            places.append(batch)
        return in_order(means, places), in_order(errors, places)

    def _cells(self, adata: AnnData | None, rows: np.ndarray | None) -> tuple[AnnData, np.ndarray | None]:
        """Cells to score, and their folds if the model was trained on them."""
        self._check_if_trained(warn=False)
        cells = self.adata if adata is None else adata
        if cells is None:
            raise ValueError("the model was loaded without cells: pass adata")
        is_training = cells is self.adata
        if not is_training:
            self.schema.check_cells(cells)
        folds: np.ndarray | None = self.folds if is_training else None
        if rows is None:
            return cells, folds
        return cells[rows], None if folds is None else folds[rows]

    def _batches(
        self, x: np.ndarray, folds: np.ndarray | None, given: dict[str, Condition], batch_size: int
    ) -> Iterator[tuple[FlowNetwork, np.ndarray, dict[str, Condition]]]:
        """Batches of cells: the network that may score them, their places, their conditions."""
        for network, batch in self._networks_and_rows(folds, len(x), batch_size):
            yield network, batch, {name: value[batch].to(self._device) for name, value in given.items()}

    def _known_reference(
        self, conditions: dict[str, ConditionDict]
    ) -> tuple[ReferenceCells, dict[str, Condition]] | None:
        """Cells of the reference that a question can be asked of, and the question.

        Left out are those for which `OWN` makes a combination that was never observed.
        """
        network, reference = self.module, self.reference
        if reference is None or not isinstance(network, PotentialNetwork):
            return None
        labels = reference.labels(self.schema)
        given = {name: self.schema.encode(value, labels, name) for name, value in conditions.items()}
        known = np.ones(len(reference.x), dtype=bool)
        for value in given.values():
            known &= network.combinations_in(value.to(self._device)).any(-1).cpu().numpy()
        rows = np.flatnonzero(known)
        if not len(rows):
            return None
        return reference.part(rows), {name: value[torch.from_numpy(rows)] for name, value in given.items()}

    def _standard_error(self, members: Tensor, noise: Tensor | None) -> np.ndarray:
        """Delete-a-group jackknife over the members, plus the Monte-Carlo error of their mean.

        Each member leaves out another share h of the training cells, so that (1 - h) / h times the members' variance
        estimates the variance of the log ratio over samples of cells; the members' initial weights make it too large
        rather than too small.
        """
        size = len(members)
        share = self.training_["validation_size"]
        variance = members.new_zeros(members.shape[1:])
        if size > 1:
            variance = variance + (1.0 - share) / share * members.var(0, correction=1)
        elif noise is None:
            variance = torch.full_like(variance, torch.nan)
        if noise is not None:
            variance = variance + noise.sum(0) / size**2
        return variance.sqrt().cpu().numpy()

    def _networks_and_rows(
        self, folds: np.ndarray | None, n: int, batch_size: int
    ) -> Iterator[tuple[FlowNetwork, np.ndarray]]:
        """Batches of rows with the network that may score them: one that never saw them, where there are folds."""
        groups: list[tuple[FlowNetwork, np.ndarray]] = [(self.module, np.arange(n))]
        if folds is not None:
            n_members = self.n_members
            groups = [
                (
                    select_members(self.module, range(fold * n_members, (fold + 1) * n_members)),
                    np.flatnonzero(folds == fold),
                )
                for fold in range(self._settings["n_folds"])
            ]
        for network, rows in groups:
            for start in range(0, len(rows), batch_size):
                yield network, rows[start : start + batch_size]


def in_order(parts: Sequence[np.ndarray], places: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    """Batches of cells put together in the order of the cells."""
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.take(np.concatenate(parts, axis=axis), order, axis=axis)
