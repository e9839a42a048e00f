"""Score cells with the networks of `ScRatio`: choose conditions, folds, batches and members."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from scratio._blocks import slabs
from scratio._caller import differentiable
from scratio._check import check_anndata, check_at_least, check_finite
from scratio._progress import with_progress
from scratio.conditions import ConditionDict, distinct_rows
from scratio.model._denoiser import cells_for, train_denoiser
from scratio.model._embedding_model import EmbeddingModel
from scratio.model._networks import new_denoiser
from scratio.module import MARGINAL, Condition, FlowNetwork, PotentialNetwork, select_members
from scratio.scoring import (
    DEFAULT_BATCH_SIZE,
    Estimator,
    KeptCells,
    KnownCells,
    Scorer,
    choose,
    is_dask,
    lazily,
    networks_and_rows,
    placed,
)
from scratio.train import StandardisedCells
from scratio.train._accelerator import device_of

DIVERGENCES = ("exact", "rademacher")


class ScoringModel(EmbeddingModel):
    """A model whose networks score cells."""

    folds: np.ndarray | None
    known: KnownCells | None
    kept: KeptCells | None
    module: FlowNetwork
    _settings: dict[str, Any]

    @property
    def n_members(self) -> int:
        """Networks that score a cell."""
        return self._settings["n_members"]

    @property
    def variance_factor(self) -> float:
        """Factor by which the squared standard error exceeds the variance between the members of a fold."""
        return self._variance_factor(self._networks(True)[0])

    def _check_ensemble(self) -> None:
        if self.n_members < 2:
            raise ValueError(
                "return_std=True needs the spread of an ensemble, or method='ito': make the model with n_members >= 2"
            )

    def _encode(self, condition: ConditionDict, adata: AnnData | None, name: str) -> Condition:
        """Turn a condition into tensors. Refuse a combination that the model cannot score: no training cell had it."""
        encoded = self.schema.encode(condition, adata, name)
        network = self.module
        if isinstance(network, PotentialNetwork):
            # Every combination of codes once, not every cell.
            codes, kind, _ = distinct_rows(encoded.codes.numpy())
            asked = Condition(torch.from_numpy(codes), torch.full((len(codes), encoded.values.shape[1]), torch.nan))
            observed = network.combinations_in(asked.to(self.device)).any(-1).cpu().numpy()[kind]
            if not observed.all():
                cells = f" (in {int((~observed).sum())} cells)" if len(encoded) > 1 else ""
                raise ValueError(
                    f"{name}: no training cell had the combination {dict(condition)}{cells}; the potential knows only "
                    "the observed combinations. Leave a key out to marginalise over it."
                )
        elif bool((encoded.codes < MARGINAL).any()):
            raise ValueError(
                f"{name}: Rest needs parametrization='potential', whose marginals over some of the categories are "
                f"exact; this model has {self._settings['parametrization']!r}"
            )
        return encoded

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
        denoised: str | None = None,
        rows: np.ndarray | slice | None = None,
        progress_bar: bool | None = None,
        accelerator: str | int | torch.device | None = None,
    ) -> tuple[Any, Any]:
        """Compute a quantity of every cell: its mean over the members, and its standard error (NaN unless `with_std`).

        With `moderate`, the standard errors of similar cells moderate the standard error of a cell. Mean and standard
        error are lazy dask arrays if the embedding is a dask array.
        """
        choose("divergence", divergence, DIVERGENCES)
        check_at_least(1, n_steps=n_steps, batch_size=batch_size)
        device = self.device if accelerator is None else device_of(accelerator)
        cells, folds = self._cells(adata, rows)
        x = self._standardised(cells, finite=False)
        given = {name: self._encode(value, cells, name) for name, value in conditions.items()}
        if denoised is not None:
            self._train_denoiser(denoised)
        known = self.known if folds is None else None
        module = placed(self.module, device)
        networks = self._networks(folds is not None or known is not None, module)
        networks += [] if known is None else [module]
        scorer = Scorer(
            networks=networks,
            coordinates=self.coordinates,
            estimate=estimate,
            divergence=divergence,
            batch_size=batch_size or DEFAULT_BATCH_SIZE,
            variance_factors=[self._variance_factor(network) for network in networks] if with_std else None,
            obsm_key=self.obsm_key,
            known=known,
        )
        similar = self._kept_for(conditions) if with_std and moderate else None
        if similar is not None:
            kept, asked = similar
            scorer = replace(scorer, judge=(module, self._variance_factor(module)))
            mean, error = replace(scorer, networks=[module], known=None).score(kept.x, None, asked)
            spread = _disagreement(module, scorer, kept.x, mean, asked)
            scorer = replace(scorer, moderation=(kept.x, error, spread, self.module.n_members))
        if is_dask(x.source):
            return lazily(scorer, x.source, folds, given)
        parts = []
        for start, raw in with_progress(slabs(x.source), len(x), "scoring", progress_bar):
            check_finite(raw, start, cells, self.obsm_key)
            here = slice(start, start + len(raw))
            labels = {name: value[here] for name, value in given.items()}
            parts.append(scorer(raw, None if folds is None else folds[here], labels))
        mean, error = (np.concatenate(part) for part in zip(*parts, strict=True))
        return mean, error

    def _cells(self, adata: AnnData | None, rows: np.ndarray | slice | None) -> tuple[AnnData, np.ndarray | None]:
        """Cells to score, and their folds if the model was trained on them."""
        self._check_if_trained(warn=False)
        cells = self.adata if adata is None else adata
        if cells is None:
            raise ValueError("the model was loaded without cells: pass adata")
        is_training = cells is self.adata
        if not is_training:
            check_anndata(cells)
            self.schema.check_cells(cells)
        folds: np.ndarray | None = self.folds if is_training else None
        if rows is None:
            return cells, folds
        return cells[rows], None if folds is None else folds[rows]

    def _folds_of_known(self, cells: StandardisedCells, folds: np.ndarray | None) -> np.ndarray | None:
        """Folds of the cells, also of training cells in another AnnData; None if there are none among them."""
        if folds is not None or self.known is None:
            return folds
        found = np.concatenate([self.known.folds_of(raw, otherwise=-1) for _, raw in slabs(cells.source)])
        # If some cells are training cells, new cells are scored by the networks of one fold too. Then all cells have
        # equally many members.
        return np.maximum(found, 0) if (found >= 0).any() else None

    def _batches(
        self, cells: StandardisedCells, folds: np.ndarray | None, given: dict[str, Condition], batch_size: int
    ) -> Iterator[tuple[FlowNetwork, np.ndarray, np.ndarray, dict[str, Condition]]]:
        """Yield batches of cells: the network that may score them, their places, the cells, and their conditions."""
        folds = self._folds_of_known(cells, folds)
        networks = self._networks(folds is not None)
        for start, raw in slabs(cells.source):
            x = cells.standardise(raw).numpy()
            own = None if folds is None else folds[start : start + len(raw)]
            for which, here in networks_and_rows(networks, own, len(raw), batch_size):
                place = start + here
                yield (
                    networks[which],
                    place,
                    x[here],
                    {name: value[place].to(self.device) for name, value in given.items()},
                )

    @differentiable()
    def _train_denoiser(self, reason: str) -> None:
        """Train the denoiser of the potential, unless it is trained already."""
        network = self.module
        if not isinstance(network, PotentialNetwork) or network.marginal is not None:
            return
        seed = self.training_["random_state"]
        cells: StandardisedCells | torch.Tensor | None = None
        if self.adata is not None:
            cells = self._standardised(self.adata)
        elif self.kept is not None:
            cells = cells_for(self.kept, network, seed)
        if cells is None:
            raise ValueError(f"{reason} needs cells to train a denoiser on: load the model with adata")
        denoiser = new_denoiser(self._settings, len(self.location), seed)
        train_denoiser(denoiser, cells, seed, self.device, reason)
        network.marginal = denoiser

    def _variance_factor(self, network: FlowNetwork) -> float:
        """Compute the variance factor of a network, which holds the members of one fold or of all folds.

        Members have most of their training cells in common. So their variance is divided by the share of training
        cells that two members do not have in common (:meth:`Splits.distinct`).
        """
        size = network.n_members
        if size == 1:
            return math.nan
        if "distinct" not in self.training_:
            # The model was saved by an earlier version.
            held_out = self.training_["validation_size"]
            return (1.0 - held_out) / held_out
        of_pairs = np.asarray(self.training_["distinct"])
        blocks = [of_pairs[start : start + size, start : start + size] for start in range(0, len(of_pairs), size)]
        return float(1.0 / np.mean([block.sum() / (size * (size - 1)) for block in blocks]))

    def _networks(self, with_folds: bool, module: FlowNetwork | None = None) -> list[FlowNetwork]:
        """Return one network for each fold, with the members that never saw the cells of the fold.

        The members are those of ``module``, by default the model's own networks.
        """
        module = self.module if module is None else module
        if not with_folds:
            return [module]
        n = self.n_members
        return [select_members(module, range(fold * n, (fold + 1) * n)) for fold in range(self._settings["n_folds"])]

    def _kept_for(self, conditions: dict[str, ConditionDict]) -> tuple[KeptCells, dict[str, Condition]] | None:
        """Return the kept training cells for which the conditions can be scored, and their conditions.

        A cell is left out if `OWN` makes a combination that was never observed.
        """
        network, kept = self.module, self.kept
        if kept is None or not isinstance(network, PotentialNetwork):
            return None
        labels = kept.labels(self.schema)
        given = {name: self.schema.encode(value, labels, name) for name, value in conditions.items()}
        known = np.ones(len(kept.x), dtype=bool)
        for value in given.values():
            known &= network.combinations_in(value.to(self.device)).any(-1).cpu().numpy()
        rows = np.flatnonzero(known)
        if not len(rows):
            return None
        return kept.part(rows), {name: value[torch.from_numpy(rows)] for name, value in given.items()}


def _disagreement(
    module: FlowNetwork, scorer: Scorer, x: np.ndarray, mean: np.ndarray, given: dict[str, Condition]
) -> np.ndarray:
    """Compute the weighted variance between the parts of the potential: what bias adds to the squared error.

    If two estimates have independent errors and are weighted by the inverse of their mean square errors, then this
    variance equals the mean square error of their weighted mean (the ambiguity of Krogh and Vedelsby 1995). Both parts
    are biased: the network smooths, and closed forms are coarse.
    """
    variance = np.zeros(len(x))
    if isinstance(module, PotentialNetwork) and module.is_calibrated:
        for share, alone in module.each_part():
            found = replace(scorer, networks=[alone], variance_factors=None, judge=None, known=None)
            variance += share * (found.score(x, None, given)[0] - mean) ** 2
    return variance


def in_order(parts: Sequence[np.ndarray], places: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    """Join batches of cells in the order of the cells."""
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.take(np.concatenate(parts, axis=axis), order, axis=axis)
