"""Training of `ScRatio`: plan, train, calibrate."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scratio._caller import differentiable
from scratio._check import check_at_least, check_categories
from scratio._progress import phase, progress_of_call
from scratio._random import child_seed
from scratio.conditions import Combinations, distinct_rows
from scratio.model._calibration import NONE, calibrate
from scratio.model._closed_forms import ClosedForms
from scratio.model._networks import new_network
from scratio.model._scoring import ScoringModel
from scratio.model._shares import combination_of, set_shares
from scratio.model._splits import Splits, check_groups
from scratio.module import Condition, FlowNetwork, PotentialNetwork
from scratio.scoring import KeptCells, KnownCells
from scratio.train import CellDataModule, StandardisedCells, TrainConfig, fit
from scratio.train._accelerator import chosen_accelerator, default_precision
from scratio.train._checkpoint import check_folder
from scratio.train._config import check_names, default_validation_size, defaults_for

logger = logging.getLogger(__name__)

_KEPT = 15

EFFORTS = ("default", "quick")
SETTINGS = {field.name for field in fields(TrainConfig)} - {"ensemble_size"}
"""Fields of a training's settings that are the user's to give; the ensemble is as large as the model."""


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before a training begins.

    Parameters
    ----------
    x, condition, strata, groups
        Cells, their labels, the combination of their categories, and their samples (None without).
    splits
        Folds, and the rows of every member.
    settings
        Settings of the training.
    effort
        ``"default"``, or ``"quick"``: closed forms and their calibration alone.
    trainer
        Settings of Lightning's trainer.
    """

    x: StandardisedCells
    condition: Condition
    strata: np.ndarray
    groups: np.ndarray | None
    splits: Splits
    settings: TrainConfig
    effort: str
    trainer: dict[str, Any]


@dataclass
class Fitted:
    """Outcome of a training; the network is on the CPU, ``device`` is where it was trained."""

    network: FlowNetwork
    train_loss: pd.DataFrame
    validation_loss: pd.DataFrame
    best_step: list[int]
    calibration: dict[str, Any]
    device: torch.device = torch.device("cpu")
    seconds: dict[str, float] = field(default_factory=dict)


def train_and_calibrate(plan: Plan, network: FlowNetwork) -> Fitted:
    """Train a member for each split of the plan, and weigh what they say by the cells they held out.

    Parameters
    ----------
    plan
        What to train on, and how.
    network
        Untrained network with as many members; it is trained in place.
    """
    seconds: dict[str, float] = {}
    is_potential = isinstance(network, PotentialNetwork)
    data = CellDataModule(plan.x, plan.condition, plan.splits.members, plan.settings, noisy_validation=not is_potential)
    if isinstance(network, PotentialNetwork):
        set_shares(network, combination_of(network, plan.condition), data)
    fitted = Fitted(network, _no_losses(), _no_losses(), [0] * plan.splits.n_folds, {}, seconds=seconds)
    if plan.effort == "default":
        with _timed(seconds, "training"):
            result = fit(network, data, plan.settings, **plan.trainer)
        fitted.train_loss, fitted.validation_loss = result.train_loss, result.validation_loss
        fitted.best_step, fitted.device = result.best_step, result.device
    if isinstance(network, PotentialNetwork) and plan.settings.early_stopping:
        with _timed(seconds, "calibration"), phase("calibrating"):
            forms = ClosedForms(network, plan.x, plan.condition, plan.strata, plan.settings.random_state)
            with_network, settings = plan.effort == "default", plan.settings
            unseen = plan.splits.unseen(plan.groups, settings.n_validation, settings.random_state)
            fitted.calibration = calibrate(
                network, forms, data, groups=plan.groups, unseen=unseen, with_network=with_network
            )
    return fitted


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _no_losses() -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index([], name="step"))


class TrainingModel(ScoringModel):
    """A model that trains its networks."""

    _combinations: Combinations

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
        effort: str = "default",
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
        """Train all members of all folds together, and calibrate them.

        The loss is the cross-entropy of the potential at all noise levels, or the flow-matching loss for
        ``parametrization="heads"``. The optimiser is AdamW with one cycle of the learning rate, gradients clipped per
        member, and a moving average of the weights. Held-out cells of each fold decide at which step its training ends.
        Their labels also decide, in a penalised regression, how much weight the network and closed forms of the
        densities get. Closed forms are Gaussians, mixtures, and abundances of common cell types.

        Parameters
        ----------
        max_steps
            Largest number of steps. By default 40 passes over the cells for the potential (at least 600 and at most
            2,000 steps), and 50 passes for ``"heads"`` (at least 3,000 and at most 20,000 steps).
        batch_size
            Cells per step, member and process.
        accelerator, devices, strategy, num_nodes, precision
            Arguments for :class:`lightning.pytorch.Trainer`; one device by default. ``accelerator="auto"`` is CUDA if
            PyTorch finds it, and else the CPU; Apple's GPU has to be asked for (``"mps"``). The networks stay on the
            device and score there, until :meth:`to_device` moves them. For several devices or nodes, pass
            ``strategy="ddp"`` in a script that every process runs, as Lightning documents. By default the potential is
            trained with matrix products in bfloat16 (``"bf16-mixed"``) if the CPU or the NVIDIA GPU that trains
            supports them, and ``"heads"`` in ``"32-true"``.
        early_stopping
            Whether to stop when the held-out loss no longer falls, to keep the best weights, and to calibrate the
            potential.
        random_state
            Seed of the weights, folds, batches and noise. Global random generators are neither used nor changed.
        effort
            ``"quick"`` trains no network and takes seconds: it only fits and calibrates closed forms. Log ratios,
            standard errors and all further results have the usual form, but are coarser.
        group_key
            Column of ``obs`` with donors or samples. All cells of a donor or sample then go into the same fold, so that
            each cell is scored by networks that were trained on no cell of its sample. Whole samples are held out for
            validation too. Where they are too few for that, network and closed forms of a fold get their weights from
            the labels of other folds. There can be at most as many folds as a condition has samples.
        validation_size
            Share of the training cells that each member holds out for validation. Members hold out different cells. By
            default a tenth. With few cells more are held out, up to a third, so that the members of a fold hold out 500
            cells together.
        patience
            Validation intervals without improvement before training stops. Training goes on while the held-out loss has
            not risen by more than noise, and at least to 1.5 times the best step.
        progress_bar
            Whether to show a bar with loss and remaining time.
        checkpoint_dir
            Folder for a checkpoint at every validation.
        resume
            Whether to continue from the checkpoint in ``checkpoint_dir``, if there is one.
        logger, callbacks
            Arguments for :class:`lightning.pytorch.Trainer`. At every validation they receive ``train_loss`` and
            ``validation_loss``, averaged over the networks.
        **config
            Further fields of ``scratio.train.TrainConfig``: ``learning_rate``, ``weight_decay``, ``warmup_steps``,
            ``cosine_decay``, ``gradient_clip``, ``ema_decay``, ``validate_every``, ``n_validation``.

        Raises
        ------
        ValueError
            If the model has no cells, a setting is out of range, a condition has fewer cells than folds, or
            ``effort="quick"`` has no closed form to fit (``"heads"``, or a continuous key).
        TypeError
            If a setting does not exist.
        FileExistsError
            If ``checkpoint_dir`` holds a ``last.ckpt`` that scratio did not write.
        FloatingPointError
            If the loss is no longer finite.
        KeyboardInterrupt
            After Ctrl-C. The model is then untrained.

        See Also
        --------
        scratio.pl.history : Draw the losses of the training.
        """
        if self.adata is None:
            raise ValueError("the model has no cells to train on; make one with ScRatio(adata)")
        if validation_size is not None and not 0.0 < validation_size < 1.0:
            raise ValueError(f"validation_size must lie between 0 and 1, got {validation_size}")
        check_names(config, SETTINGS | {name for name in signature(self.train).parameters if name != "config"})
        check_at_least(1, batch_size=batch_size, max_steps=max_steps)
        if resume and checkpoint_dir is None:
            raise ValueError("resume=True needs checkpoint_dir, the folder of the checkpoint")
        if checkpoint_dir is not None:
            check_folder(Path(checkpoint_dir))
        accelerator = chosen_accelerator(accelerator)
        asked = {} if max_steps is None else {"max_steps": max_steps}
        asked |= {"early_stopping": early_stopping, "patience": patience, "random_state": random_state, **config}
        trainer = {
            "checkpoint_dir": checkpoint_dir,
            "resume": resume,
            "progress": progress_of_call(True) if progress_bar else None,
            "accelerator": accelerator,
            "devices": devices,
            "strategy": strategy,
            "num_nodes": num_nodes,
            "precision": precision or default_precision(self._settings["parametrization"], accelerator),
            "logger": logger,
            "callbacks": list(callbacks) if isinstance(callbacks, Iterable) else [callbacks],
        }
        plan = self._plan(batch_size, validation_size, group_key, effort, asked, trainer)
        network = self._new_network(plan.settings.random_state)
        self._take(plan, train_and_calibrate(plan, network))

    def _new_network(self, random_state: int) -> FlowNetwork:
        """Untrained network of all members of all folds."""
        settings, n_features = self._settings, len(self.location)
        size = settings["n_members"] * settings["n_folds"]
        return new_network(
            settings, self.schema, self._combinations, n_features, random_state=random_state, n_networks=size
        )

    def _plan(
        self,
        batch_size: int,
        validation_size: float | None,
        group_key: str | None,
        effort: str,
        asked: dict[str, Any],
        trainer: dict[str, Any],
    ) -> Plan:
        """Cells, folds and settings of one training: what is asked, and else the defaults for so many cells."""
        parametrization, n_folds = self._settings["parametrization"], self._settings["n_folds"]
        if effort not in EFFORTS:
            raise ValueError(f"effort must be one of {list(EFFORTS)}, got {effort!r}")
        if effort == "quick" and (parametrization != "potential" or self.schema.continuous):
            found = f"continuous keys {list(self.schema.continuous)}" if self.schema.continuous else parametrization
            raise ValueError(f"effort='quick' fits closed forms to categories; this model has {found}")
        x, condition = self._standardised(self.adata), self.schema.own(self.adata)
        strata, groups = distinct_rows(condition.codes.numpy())[1], None
        if group_key is not None:
            groups = np.unique(check_categories(self.adata, group_key), return_inverse=True)[1]
            check_groups(strata, groups, n_folds, group_key)
        n_cells = len(x) * (1.0 - 1.0 / n_folds if n_folds > 1 else 1.0)
        if validation_size is None:
            validation_size = default_validation_size(n_cells, self._settings["n_members"])
        n_train = max(int(n_cells * (1.0 - validation_size)), 1)
        defaults = defaults_for(parametrization, self._settings["block"], n_train, batch_size)
        sizes = {"batch_size": batch_size, "ensemble_size": self._settings["n_members"]}
        settings = TrainConfig(**{**defaults, **sizes, **asked})
        splits = Splits.drawn(strata, groups, n_folds, settings.ensemble_size, validation_size, settings.random_state)
        return Plan(x, condition, strata, groups, splits, settings, effort, trainer)

    def _take(self, plan: Plan, fitted: Fitted) -> None:
        """Become the trained model."""
        settings, folds = plan.settings, plan.splits.folds
        self.module, self.folds = fitted.network.to(fitted.device), folds
        self.known = None if folds is None else KnownCells.of(plan.x.source, folds)
        rng = np.random.default_rng(child_seed(settings.random_state, _KEPT))
        self.kept = KeptCells.drawn(plan.x, plan.condition, folds, rng)
        self.history_ = {"train_loss": fitted.train_loss, "validation_loss": fitted.validation_loss}
        self.training_ = {
            "random_state": settings.random_state,
            "effort": plan.effort,
            "max_steps": settings.max_steps,
            "validation_size": plan.splits.validation_size,
            "steps": int(fitted.train_loss.index[-1]) if len(fitted.train_loss) else 0,
            "best_step": fitted.best_step,
            "weight_decay": settings.weight_decay,
            "closed_form": fitted.calibration.get("closed_form", NONE),
            "evidence": fitted.calibration.get("held_out_loss", {}),
            "calibration": {name: value for name, value in fitted.calibration.items() if name != "held_out_loss"},
            "distinct": plan.splits.distinct().tolist(),
        }
        logger.info("seconds by stage: %s", fitted.seconds, extra={"seconds": fitted.seconds})
        self.is_trained_ = True
        first = plan.splits.members[0]
        self.train_indices_, self.validation_indices_ = first.train, first.validation
