"""Training of `ScRatio`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, cast

import numpy as np
from anndata import AnnData

from scratio._autograd import differentiable
from scratio._progress import Progress
from scratio._seed import child_seed
from scratio.model._check import check_at_least, check_categories
from scratio.model._combinations import distinct_rows
from scratio.model._known import KnownCells
from scratio.model._reference import ReferenceCells
from scratio.model._schema import ConditionSchema
from scratio.model._selection import (
    NONE,
    Configuration,
    Fit,
    average,
    choose_group,
    closed_forms,
    combination_of,
    rank_closed_forms,
    set_closed_form,
    set_shares,
    shrink,
)
from scratio.module import Condition, FlowNetwork, PotentialNetwork
from scratio.stats import disjoint_parts, grouped_folds, most_folds, stratified_folds
from scratio.train import CellDataModule, MemberSplit, StandardisedCells, TrainConfig, TrainResult, fit
from scratio.train._checkpoint import check_folder
from scratio.train._config import check_names, default_precision, default_validation_size, defaults_for

_FOLDS, _VALIDATION, _REFERENCE = 11, 12, 15

PILOT_STEPS, PILOT = 800, "pilot"
SETTINGS = {field.name for field in fields(TrainConfig)} - {"ensemble_size"}
"""Fields of a training's settings that are the user's to give; the ensemble is as large as the model."""
ROW = np.int32
"""Type of row numbers, of which every member has a list: half the memory of the default."""
FEWEST_PARTS = 4
"""Parts into which samples are cut for validation; of fewer, each would be too large a share of the cells."""


@dataclass(frozen=True)
class Run:
    """What all parts of one training have in common."""

    x: StandardisedCells
    condition: Condition
    groups: np.ndarray | None
    validation_size: float
    settings: TrainConfig
    trainer: dict[str, Any]
    closed_forms: dict[str, Fit]
    combination: np.ndarray | None


@dataclass
class Trained:
    """Outcome of one fit."""

    result: TrainResult
    data: CellDataModule
    folds: np.ndarray | None


class TrainingMixin:
    """`ScRatio.train`."""

    adata: AnnData | None
    folds: np.ndarray | None
    reference: ReferenceCells | None
    module: FlowNetwork
    schema: ConditionSchema
    _settings: dict[str, Any]
    _standardised: Callable[..., StandardisedCells]
    _build: Callable[..., None]

    @differentiable()
    def train(
        self,
        max_steps: int | None = None,
        batch_size: int = 512,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        strategy: str = "auto",
        early_stopping: bool = True,
        random_state: int = 0,
        *,
        group_key: str | None = None,
        validation_size: float | None = None,
        patience: int = 6,
        precision: str | None = None,
        num_nodes: int = 1,
        progress_bar: bool = True,
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        logger: Any = False,
        callbacks: Any = (),
        **config: Any,
    ) -> None:
        """Train all members and folds together.

        Minimises the flow-matching loss with AdamW (linear warm-up, gradients clipped per member) and an exponential
        moving average of the weights. The averaged weights are validated on each member's held-out cells, with fixed
        noise. Held-out cells decide which closed form the potential starts from and how strong the weight decay is
        (once for a data set, in a shorter training beforehand), and, for each fold on its own, at which step training
        ends (the untrained network is a candidate too), by how much the potential is averaged with a closed form it was
        trained without, and by how much it is shrunk.

        Parameters
        ----------
        max_steps
            Number of steps. By default 100 passes over the cells for the potential, at least 1,250 and at most 5,000,
            and 50 passes for the vector heads, at least 3,000 and at most 20,000.
        batch_size
            Cells per step, member and process.
        accelerator, devices, strategy, num_nodes, precision
            For :class:`lightning.pytorch.Trainer`; one device by default. Several, and several nodes, with
            ``strategy="ddp"`` in a script that every process runs, as Lightning documents. By default the potential
            trains with matrix products in bfloat16 (``"bf16-mixed"``) where the processor has them, the vector heads in
            ``"32-true"``.
        early_stopping
            Whether to stop where nothing is left to gain, to keep the best weights, and to shrink the potential.
        random_state
            Seed of the weights, folds, batches and noise. Global generators are neither read nor changed.
        group_key
            Column of ``obs`` with donors or samples. Cells of one then share a fold, so that each is scored by networks
            that saw no cell of its sample, and what a fold holds out for validation are samples too. There can be no
            more folds than a condition has samples.
        validation_size
            Share of the training cells that each member holds out for validation; every member holds out others. By
            default a tenth; of few cells more, up to a third, so that the members of a fold hold out 500 together.
        patience
            Validation intervals without improvement before training stops, if the held-out loss has risen by more than
            noise; it also goes on to 1.5 times the best step.
        progress_bar
            Whether to show a bar with loss and remaining time.
        checkpoint_dir
            Folder for a checkpoint at every validation.
        resume
            Continue from the checkpoint in ``checkpoint_dir``, if there is one.
        logger, callbacks
            For :class:`lightning.pytorch.Trainer`. At every validation they get ``train_loss`` and
            ``validation_loss``, means over the networks. They do not see the shorter training beforehand.
        **config
            Further fields of ``scratio.train.TrainConfig``: ``learning_rate``, ``weight_decay``, ``warmup_steps``,
            ``cosine_decay``, ``gradient_clip``, ``ema_decay``, ``validate_every``, ``n_validation``. Of several values
            of ``weight_decay``, a tuple, the held-out loss chooses.

        Raises
        ------
        ValueError
            If the model has no cells, a setting is out of range, or a condition has fewer cells than folds.
        TypeError
            If there is no such setting.
        FileExistsError
            If ``checkpoint_dir`` holds a ``last.ckpt`` that is not scratio's.
        FloatingPointError
            If the loss stops being finite.
        KeyboardInterrupt
            After Ctrl-C; the model is then untrained.
        """
        if self.adata is None:
            raise ValueError("the model has no cells to train on; make one with ScRatio(adata)")
        if validation_size is not None and not 0.0 < validation_size < 1.0:
            raise ValueError(f"validation_size must lie between 0 and 1, got {validation_size}")
        check_names(config, SETTINGS | {name for name in signature(self.train).parameters if name != "config"})
        check_at_least(1, batch_size=batch_size, max_steps=max_steps)
        if resume and checkpoint_dir is None:
            raise ValueError("resume=True needs checkpoint_dir, the folder of the checkpoint")
        for folder in () if checkpoint_dir is None else (Path(checkpoint_dir), Path(checkpoint_dir) / PILOT):
            check_folder(folder)
        asked = {} if max_steps is None else {"max_steps": max_steps}
        asked |= {"early_stopping": early_stopping, "patience": patience, "random_state": random_state, **config}
        trainer = {
            "checkpoint_dir": checkpoint_dir,
            "resume": resume,
            # One place for the shorter training beforehand and the training itself.
            "progress": Progress() if progress_bar else None,
            "accelerator": accelerator,
            "devices": devices,
            "strategy": strategy,
            "num_nodes": num_nodes,
            "precision": precision or default_precision(self._settings["parametrization"]),
            "logger": logger,
            "callbacks": list(callbacks) if isinstance(callbacks, Iterable) else [callbacks],
        }
        self._train(self._run(batch_size, validation_size, group_key, asked, trainer))

    def _run(
        self,
        batch_size: int,
        validation_size: float | None,
        group_key: str | None,
        asked: dict[str, Any],
        trainer: dict[str, Any],
    ) -> Run:
        """Cells and settings of one training: the defaults for this network and so many cells, and what is asked."""
        parametrization, n_folds = self._settings["parametrization"], self._settings["n_folds"]
        x, condition = self._standardised(self.adata), self.schema.own(self.adata)
        groups = None
        if group_key is not None:
            groups = np.unique(check_categories(self.adata, group_key), return_inverse=True)[1]
            self._check_groups(strata_of(condition), groups, group_key)
        n_cells = len(x) * (1.0 - 1.0 / n_folds if n_folds > 1 else 1.0)
        if validation_size is None:
            validation_size = default_validation_size(n_cells, self._settings["n_members"])
        n_train = max(int(n_cells * (1.0 - validation_size)), 1)
        defaults = defaults_for(parametrization, self._settings["block"], n_train, batch_size)
        sizes = {"batch_size": batch_size, "ensemble_size": self._settings["n_members"]}
        settings = TrainConfig(**{**defaults, **sizes, **asked})
        fits: dict[str, Fit] = {}
        combination = None
        if parametrization == "potential":
            self._build(settings.random_state)
            network = cast(PotentialNetwork, self.module)
            combination = combination_of(network, condition)
            if settings.early_stopping:
                fits = closed_forms(network, x, condition, strata_of(condition), settings.random_state)
        return Run(x, condition, groups, validation_size, settings, trainer, fits, combination)

    def _check_groups(self, strata: np.ndarray, groups: np.ndarray, group_key: str) -> None:
        most, n_folds = most_folds(strata, groups), self._settings["n_folds"]
        if n_folds > most:
            raise ValueError(
                f"n_folds={n_folds} folds by obs[{group_key!r}] are too many: some condition has cells of {most} of "
                "its groups alone"
            )

    def _train(self, run: Run) -> None:
        candidates, names, evidence = self._candidates(run)
        chosen = candidates[0]
        if len(candidates) > 1:
            chosen, evidence["configuration"] = self._pilot(run, candidates)
        trained = self._fit(run, [chosen], self._settings["n_folds"])
        if isinstance(self.module, PotentialNetwork) and run.settings.early_stopping:
            if chosen.closed_form == NONE != names[1]:
                evidence["average"] = average(self.module, names, run.closed_forms, trained.data, run.settings)
            evidence["shrinkage"] = shrink(self.module, trained.data, run.settings, run.groups)
        self._record(run, trained, chosen, evidence)

    def _candidates(self, run: Run) -> tuple[list[Configuration], tuple[str, str], dict[str, Any]]:
        """Configurations to choose from, and the simplest and best closed form; nothing without early stopping."""
        decays = run.settings.weight_decays
        if self._settings["parametrization"] != "potential" or not run.settings.early_stopping:
            kept = decays[: None if run.settings.early_stopping else 1]
            return [Configuration(NONE, decay) for decay in kept], (NONE, NONE), {}
        single = replace(run.settings, weight_decay=decays[0])
        data = self._built_for(run, self._split(run, 1, 1)[1], single)
        name, best, losses = rank_closed_forms(cast(PotentialNetwork, self.module), run.closed_forms, data, single)
        candidates = [Configuration(NONE, decay) for decay in decays]
        if name != NONE:
            candidates.append(Configuration(name, decays[0]))
        return candidates, (name, best), {"closed_form": losses}

    def _pilot(self, run: Run, candidates: list[Configuration]) -> tuple[Configuration, dict[str, Any]]:
        """Choose the configuration by a shorter training of all candidates without folds.

        One of a few names is all that folds learn from each other; the weights, the step and the shrinkage are each
        fold's own. Of the members only as many take part as their held-out cells make the choice more certain.
        """
        settings = run.settings
        steps = max(settings.max_steps // 2, min(settings.max_steps, PILOT_STEPS))
        held_out = max(int(len(run.x) * run.validation_size), 1)
        size = min(-(-settings.n_validation // held_out), settings.ensemble_size)
        folder = run.trainer["checkpoint_dir"]
        trainer = {
            **run.trainer,
            "checkpoint_dir": None if folder is None else Path(folder) / PILOT,
            "description": "choosing the configuration",
            "logger": False,
            "callbacks": (),
        }
        pilot = replace(run, settings=replace(settings, max_steps=steps, ensemble_size=size), trainer=trainer)
        trained = self._fit(pilot, candidates, 1)
        best, losses = choose_group(trained.result, [c.closed_form for c in candidates])
        names = [f"{c.closed_form}, weight decay {c.weight_decay:.3g}" for c in candidates]
        return candidates[best], {"chosen": names[best], "held_out_loss": dict(zip(names, losses, strict=True))}

    def _fit(self, run: Run, candidates: list[Configuration], n_folds: int) -> Trained:
        """Train the members of all folds and candidates together."""
        settings = replace(run.settings, weight_decay=tuple(c.weight_decay for c in candidates))
        folds, splits = self._split(run, n_folds, len(candidates))
        data = self._built_for(run, splits, settings)
        if isinstance(self.module, PotentialNetwork):
            set_closed_form(self.module, [c.closed_form for c in candidates], run.closed_forms, data, settings)
        result = fit(self.module, data, settings, **run.trainer)
        return Trained(result, data, folds)

    def _built_for(self, run: Run, splits: list[MemberSplit], settings: TrainConfig) -> CellDataModule:
        """Make an untrained network with a member for each split; return the cells of all members."""
        self._build(settings.random_state, n_networks=len(splits))
        data = CellDataModule(run.x, run.condition, splits, settings)
        if run.combination is not None:
            set_shares(cast(PotentialNetwork, self.module), run.combination, data)
        return data

    def _record(self, run: Run, trained: Trained, configuration: Configuration, evidence: dict[str, Any]) -> None:
        result, settings = trained.result, run.settings
        self.folds = trained.folds
        self.known = None if trained.folds is None else KnownCells.of(run.x.source, trained.folds)
        rng = np.random.default_rng(child_seed(settings.random_state, _REFERENCE))
        self.reference = ReferenceCells.drawn(run.x, run.condition, trained.folds, rng)
        self.history_ = {
            "train_loss": result.train_loss,
            "validation_loss": result.validation_loss,
        }
        self.training_ = {
            "random_state": settings.random_state,
            "max_steps": settings.max_steps,
            "validation_size": run.validation_size,
            "steps": int(result.train_loss.index[-1]),
            "best_step": result.best_step,
            "closed_form": configuration.closed_form,
            "weight_decay": configuration.weight_decay,
            "evidence": evidence,
        }
        self.is_trained_ = True
        split = trained.data.splits[0]
        self.train_indices_, self.validation_indices_ = split.train, split.validation

    def _split(self, run: Run, n_folds: int, n_candidates: int) -> tuple[np.ndarray | None, list[MemberSplit]]:
        """Fold of every cell (None without folds) and the rows of every member: by fold, candidate and member."""
        n_members, seed = run.settings.ensemble_size, run.settings.random_state
        n, strata = len(run.x), strata_of(run.condition)
        if n < 2 * n_folds or n < 10:
            raise ValueError(
                f"{n} cells are too few for n_folds={n_folds} folds; at least {max(2 * n_folds, 10)} needed"
            )
        folds = None
        if n_folds > 1:
            seed_of_folds = child_seed(seed, _FOLDS)
            if run.groups is None:
                folds = stratified_folds(strata, n_folds, np.random.default_rng(seed_of_folds))
            else:
                folds = grouped_folds(strata, run.groups, n_folds, int(seed_of_folds % 2**32))
        splits = []
        for fold in range(n_folds):
            rows = np.arange(n) if folds is None else np.flatnonzero(folds != fold)
            # Every member holds out other cells, so that the members of a fold are judged by many.
            held_out = self._held_out(run, rows, strata, n_members, child_seed(seed, _VALIDATION, fold))
            splits += [MemberSplit(without(rows, part), part.astype(ROW)) for part in held_out] * n_candidates
        return folds, splits

    def _held_out(self, run: Run, rows: np.ndarray, strata: np.ndarray, n_members: int, seed: int) -> list[np.ndarray]:
        """Rows that each member holds out: cells, or samples where there are enough of them."""
        if run.groups is not None:
            wanted = round(1.0 / run.validation_size)
            n_parts = min(wanted, most_folds(strata[rows], run.groups[rows]))
            if n_parts >= max(n_members, min(wanted, FEWEST_PARTS)):
                parts = grouped_folds(strata[rows], run.groups[rows], n_parts, int(seed % 2**32))
                return [rows[parts == part] for part in range(n_members)]
        return disjoint_parts(rows, run.validation_size, n_members, np.random.default_rng(seed))


def strata_of(condition: Condition) -> np.ndarray:
    """Combination of the categories that every cell has, numbered."""
    return distinct_rows(condition.codes.numpy())[1]


def without(rows: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Sorted rows less a part of them."""
    kept = np.ones(len(rows), dtype=bool)
    kept[np.searchsorted(rows, part)] = False
    return rows[kept].astype(ROW)
