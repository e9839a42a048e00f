"""Training of `ScRatio`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from scratio._seed import child_seed
from scratio.model._schema import ConditionSchema
from scratio.module import FlowNetwork
from scratio.stats import split_rows, stratified_folds
from scratio.train import CellDataModule, MemberSplit, TrainConfig, fit
from scratio.train._config import default_max_steps, default_precision, defaults_for

_FOLDS, _VALIDATION = 11, 12


class TrainingMixin:
    """`ScRatio.train`."""

    adata: AnnData | None
    folds: np.ndarray | None
    module: FlowNetwork
    schema: ConditionSchema
    _settings: dict[str, Any]
    embedding: Callable[[AnnData], np.ndarray]
    _build: Callable[[int], None]

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
        validation_size: float = 0.15,
        patience: int = 6,
        precision: str | None = None,
        num_nodes: int = 1,
        progress_bar: bool = True,
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        **config: Any,
    ) -> None:
        """Train all members and folds together.

        Minimises the flow-matching loss with AdamW (linear warm-up, cosine decay, gradients clipped per member) and an
        exponential moving average of the weights. The averaged weights are validated on each member's held-out cells,
        with fixed noise, and each fold keeps those at its own lowest loss; the untrained network is a candidate too.

        Parameters
        ----------
        max_steps
            Number of steps; by default 50 passes over the cells, at least 3,000 and at most 20,000.
        batch_size
            Cells per step, member and process.
        accelerator, devices, strategy, num_nodes, precision
            For :class:`lightning.pytorch.Trainer`. By default the potential trains with matrix products in bfloat16
            (``"bf16-mixed"``) where the processor has them, the vector heads in ``"32-true"``.
        early_stopping
            Whether to stop after ``patience`` validations without improvement, and to keep the best weights.
        random_state
            Seed of the weights, folds, batches and noise. Global generators are neither read nor changed.
        validation_size
            Share of a member's training cells held out for validation.
        patience
            Validation intervals without improvement before training stops; it also goes on to 1.5 times the best step.
        progress_bar
            Whether to show a bar with loss and remaining time.
        checkpoint_dir
            Folder for a checkpoint at every validation.
        resume
            Continue from the checkpoint in ``checkpoint_dir``, if there is one.
        **config
            Further fields of ``scratio.train.TrainConfig``: ``learning_rate``, ``weight_decay``, ``warmup_steps``,
            ``cosine_decay``, ``gradient_clip``, ``ema_decay``, ``validate_every``, ``n_validation``.

        Raises
        ------
        ValueError
            If the model has no cells, a setting is out of range, or a condition has fewer cells than folds.
        FloatingPointError
            If the loss stops being finite.
        """
        if self.adata is None:
            raise ValueError("the model has no cells to train on; make one with ScRatio(adata)")
        if not 0.0 < validation_size < 1.0:
            raise ValueError(f"validation_size must lie between 0 and 1, got {validation_size}")
        if resume and checkpoint_dir is None:
            raise ValueError("resume=True needs checkpoint_dir, the folder of the checkpoint")
        x, condition = torch.from_numpy(self.embedding(self.adata)), self.schema.own(self.adata)
        folds, splits = self._split(condition.codes.numpy(), validation_size, random_state)
        self._build(random_state)
        n_train = min(len(split.train) for split in splits)
        settings = TrainConfig(
            **{
                "max_steps": default_max_steps(n_train, batch_size) if max_steps is None else max_steps,
                "batch_size": batch_size,
                "early_stopping": early_stopping,
                "patience": patience,
                "random_state": random_state,
                "ensemble_size": self._settings["n_members"],
                **defaults_for(self.module, n_train),
                **config,
            }
        )
        result = fit(
            self.module,
            CellDataModule(x, condition, splits, settings, self.module.validation_has_noise),
            settings,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            progress_bar=progress_bar,
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            num_nodes=num_nodes,
            precision=precision or default_precision(self.module),
        )
        self.folds = folds
        self.history_ = {"train_loss": result.train_loss, "validation_loss": result.validation_loss}
        self.training_ = {
            "random_state": random_state,
            "max_steps": settings.max_steps,
            "steps": int(result.train_loss.index[-1]),
            "best_step": result.best_step,
        }
        self.is_trained_ = True
        self.train_indices_, self.validation_indices_ = splits[0].train, splits[0].validation

    def _split(
        self, codes: np.ndarray, validation_size: float, random_state: int
    ) -> tuple[np.ndarray | None, list[MemberSplit]]:
        """Fold of every cell (None without folds) and the rows of every member; members of a fold follow each other."""
        n_folds, n_members = self._settings["n_folds"], self._settings["n_members"]
        n = len(codes)
        if n < 2 * n_folds or n < 10:
            raise ValueError(
                f"{n} cells are too few for n_folds={n_folds} folds; at least {max(2 * n_folds, 10)} needed"
            )
        folds = None
        if n_folds > 1:
            strata = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
            folds = stratified_folds(strata, n_folds, np.random.default_rng(child_seed(random_state, _FOLDS)))
        splits = []
        for fold in range(n_folds):
            rows = np.arange(n) if folds is None else np.flatnonzero(folds != fold)
            # The members of a fold hold out the same cells, so that their average can be validated.
            rng = np.random.default_rng(child_seed(random_state, _VALIDATION, fold))
            splits += [MemberSplit(*split_rows(rows, validation_size, rng))] * n_members
        return folds, splits
