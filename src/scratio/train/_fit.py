"""Run a training and hand back what it produced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from scratio._caller import interruptible, quiet
from scratio._progress import Progress
from scratio.module import FlowNetwork
from scratio.train._callbacks import BestWeights, StepProgressBar, TimeEstimate
from scratio.train._checkpoint import CHECKPOINT, AtomicCheckpoints, identity
from scratio.train._config import TrainConfig
from scratio.train._data import CellDataModule
from scratio.train._plan import AveragedPlan, FlowTrainingPlan


@dataclass(frozen=True)
class TrainResult:
    """Losses by step, one column per member, the step that every fold kept, and the device that trained."""

    train_loss: pd.DataFrame
    validation_loss: pd.DataFrame
    best_step: list[int]
    device: torch.device


def fit(
    network: FlowNetwork,
    data: CellDataModule,
    config: TrainConfig,
    *,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    description: str = "training",
    callbacks: Sequence[pl.Callback] = (),
    **trainer_kwargs,
) -> TrainResult:
    """Train a network in place; it ends on the CPU, whatever trained it.

    Parameters
    ----------
    network
        Network with stacked members; ends with the best averaged weights.
    data
        Cells, conditions and the members' rows.
    config
        Settings.
    checkpoint_dir
        Folder for a checkpoint at every validation; none is written by default.
    resume
        Continue from the checkpoint in ``checkpoint_dir`` where there is one.
    progress
        Where to show how far the training is; nowhere by default.
    description
        What this training is called there.
    callbacks
        The user's own.
    trainer_kwargs
        Passed to :class:`lightning.pytorch.Trainer`: accelerator, devices, strategy, num_nodes, precision, logger.
    """
    network.train()
    plan = FlowTrainingPlan(network, config)
    best = BestWeights(config.patience, config.early_stopping)
    listeners: list[pl.Callback] = [best, TimeEstimate(config.max_steps, description)]
    if progress is not None:
        listeners.append(StepProgressBar(progress, config.max_steps, best, description))
    listeners += callbacks
    device = run(plan, data, config, listeners, checkpoint_dir=checkpoint_dir, resume=resume, **trainer_kwargs)
    steps = best.restore(network, plan.averaged)
    network.eval()
    history = best.history
    n_folds = network.n_members // config.ensemble_size
    return TrainResult(
        _frame(history["train"], history["steps"]),
        _frame(history["validation"], history["steps"]),
        steps or [history["steps"][-1]] * n_folds,
        device,
    )


def run(
    plan: AveragedPlan,
    data: CellDataModule,
    config: TrainConfig,
    callbacks: list[pl.Callback],
    *,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    **trainer_kwargs,
) -> torch.device:
    """Run a plan by Lightning, with checkpoints at every validation where a folder is given.

    Parameters
    ----------
    plan, data, config, callbacks
        What to train, on what, for how long, and who listens.
    checkpoint_dir, resume, trainer_kwargs
        As for :func:`fit`.

    Returns
    -------
    Device that trained, of this process. Lightning has moved the plan back to the CPU.

    Raises
    ------
    ValueError
        If the checkpoint to go on from is of another training.
    KeyboardInterrupt
        After Ctrl-C.
    """
    checkpoint = None
    if checkpoint_dir is not None:
        folder = Path(checkpoint_dir)
        # Written after the callbacks have taken the epoch into account: Lightning runs checkpoints last.
        callbacks = [
            *callbacks,
            ModelCheckpoint(
                folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False, save_top_k=1
            ),
        ]
        if resume and (folder / CHECKPOINT).exists():
            checkpoint = folder / CHECKPOINT
    plan.identity = identity(plan.network, data, config)
    with interruptible(), quiet("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        trainer = pl.Trainer(
            max_steps=config.max_steps,
            reload_dataloaders_every_n_epochs=1,
            callbacks=callbacks,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            plugins=[AtomicCheckpoints()],
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            # Batches know the process they are for; a sampler of Lightning's would cut them again.
            use_distributed_sampler=False,
            **_between_processes(**trainer_kwargs),
        )
        trainer.fit(plan, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return trainer.strategy.root_device


def _between_processes(
    strategy: Any = "auto", devices: Any = "auto", logger: Any = False, **others: Any
) -> dict[str, Any]:
    """Settings of the processes: one, unless several are asked for; no logger, unless one is given."""
    return {"strategy": strategy, "devices": 1 if devices == "auto" else devices, "logger": logger, **others}


def _frame(losses: list[list[float]], steps: list[int]) -> pd.DataFrame:
    frame = pd.DataFrame(losses, index=pd.Index(steps[: len(losses)], name="step"))
    frame.columns = [f"member_{m}" for m in range(frame.shape[1])]
    return frame
