"""Early stopping, history, and a progress bar with loss and remaining time."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from scratio._constants import SIGNIFICANT
from scratio._progress import Progress
from scratio.module import FlowNetwork

logger = logging.getLogger(__name__)

WARM_UP, TIMED = 5, 20
"""Steps that are not timed, and steps that are."""

_STATE = ("history", "best", "chosen", "is_over")


@dataclass
class StepWeights:
    """Averaged weights of all folds at a step of their own, and the losses of their held-out cells there."""

    steps: list[int]
    losses: Tensor  # (n_folds, n_held_out cells of the fold)
    weights: dict[str, Tensor]

    def update(self, fold: int, size: int, step: int, losses: Tensor, parameters: dict[str, Tensor]) -> None:
        """Replace a fold's weights by the current ones."""
        self.steps[fold], self.losses[fold] = step, losses
        rows = slice(fold * size, (fold + 1) * size)
        for name, kept in self.weights.items():
            # A resumed run's copies may lie on another device.
            kept[rows] = parameters[name].detach()[rows].to(kept.device)


class BestWeights(pl.Callback):
    """Keep one step of each fold by its held-out cells; stop when no fold has anything left to gain.

    Keep the latest step whose loss is within one standard error of the best: the criterion has many noisy minima, and
    the later of two equal steps is averaged over more of the training.

    Each member of a fold holds out different cells, so the criterion is a mean over many cells. Each fold chooses its
    own step: other folds hold out cells that this fold will score, so with a common step a cell's own label would
    influence its score.

    Parameters
    ----------
    patience
        Validation intervals without an improvement before a fold is given up, if its loss has risen significantly; it
        also goes on to 1.5 times the best step, since a long training has longer plateaus.
    early_stopping
        Whether to stop and to choose; otherwise the last averaged weights are kept.
    """

    def __init__(self, patience: int, early_stopping: bool) -> None:
        super().__init__()
        self.patience, self.early_stopping = patience, early_stopping
        self.history: dict[str, list] = {"steps": [], "train": [], "validation": []}
        self.best: StepWeights | None = None
        self.chosen: StepWeights | None = None
        self.is_over: list[bool] = []

    def on_train_start(self, trainer: pl.Trainer, plan: Any) -> None:
        """Stop at once if the resumed training had already finished when it was killed."""
        trainer.should_stop = self._is_over

    def on_train_epoch_end(self, trainer: pl.Trainer, plan: Any) -> None:
        """Record the losses since the last validation and compare with the best."""
        if not plan.train_losses:
            # A resumed run closes the epoch of its checkpoint once more, without a batch.
            return
        # Of several processes all must come to the same decision, or some would wait for others for ever.
        train = trainer.strategy.reduce(torch.stack(plan.train_losses).mean(0), reduce_op="mean")
        plan.train_losses.clear()
        # For the user's logger and callbacks, which come after this one.
        plan.log("train_loss", train.mean(), sync_dist=True)
        validation = plan.take_validation_losses(trainer.datamodule.n_validation_cells)
        validation = trainer.strategy.broadcast(validation)
        if not (torch.isfinite(train).all() and torch.isfinite(validation).all()):
            raise FloatingPointError(
                f"training diverged before step {trainer.global_step}: the loss is not finite. Lower learning_rate, or "
                "look for extreme values in the embedding."
            )
        self.history["steps"].append(trainer.global_step)
        self.history["train"].append(train.tolist())
        self.history["validation"].append(validation.mean(1).tolist())
        # Held-out cells of all members of a fold in one row.
        by_fold = validation.cpu().reshape(len(validation) // plan.config.ensemble_size, -1)
        self._compare(plan, by_fold, trainer.global_step)
        trainer.should_stop = self._is_over

    def restore(self, network: FlowNetwork, averaged: torch.nn.Module) -> list[int]:
        """Write the chosen weights into the network; return the step of each fold."""
        last = dict(averaged.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                kept = last[name] if self.chosen is None else self.chosen.weights.get(name, last[name])
                parameter.copy_(kept)
        return [] if self.chosen is None else self.chosen.steps

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint."""
        state = {name: getattr(self, name) for name in _STATE}
        return {name: vars(value) if isinstance(value, StepWeights) else value for name, value in state.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint ended."""
        for name in _STATE:
            value = state_dict[name]
            setattr(self, name, StepWeights(**value) if name in {"best", "chosen"} and value is not None else value)

    @property
    def _is_over(self) -> bool:
        return self.early_stopping and len(self.is_over) > 0 and all(self.is_over)

    def _compare(self, plan: Any, losses: Tensor, step: int) -> None:
        if not self.early_stopping:
            return
        parameters, size = dict(plan.averaged.named_parameters()), plan.config.ensemble_size
        if self.best is None or self.chosen is None:
            trained = {name for name, parameter in plan.network.named_parameters() if parameter.requires_grad}
            kept = {name: p.detach().clone() for name, p in parameters.items() if name in trained}
            start = [step] * len(losses)
            # Of the best step nothing but its losses is ever needed.
            self.best = StepWeights(start, losses.clone(), {})
            self.chosen = StepWeights(start.copy(), losses.clone(), kept)
            self.is_over = [False] * len(losses)
            return
        for fold, current in enumerate(losses):
            if self.is_over[fold]:
                continue
            excess, error = paired_difference(current, self.best.losses[fold])
            if excess < 0:
                self.best.update(fold, size, step, current, parameters)
            if excess <= error:
                self.chosen.update(fold, size, step, current, parameters)
            best = self.best.steps[fold]
            waited = step - best >= max(self.patience * plan.config.validate_every, best // 2)
            self.is_over[fold] = bool(waited and excess > SIGNIFICANT * error)


def paired_difference(losses: Tensor, reference: Tensor) -> tuple[float, float]:
    """Mean difference of two losses of the same cells, and its standard error."""
    difference = losses - reference
    return float(difference.mean()), float(difference.std() / math.sqrt(len(difference)))


class TimeEstimate(pl.Callback):
    """Log, after the first few steps, how long the training will take at most."""

    def __init__(self, max_steps: int, description: str) -> None:
        super().__init__()
        self.max_steps, self.description = max_steps, description
        self.first, self.start = 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, plan: Any) -> None:
        """Remember where a resumed training begins."""
        self.first = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, plan: Any, *args) -> None:
        """Measure between two steps; the first ones set things up."""
        done = trainer.global_step - self.first
        if done == WARM_UP:
            self.start = time.perf_counter()
        elif done == WARM_UP + TIMED and trainer.is_global_zero:
            seconds = (time.perf_counter() - self.start) / TIMED
            minutes, rest = divmod(round(seconds * (self.max_steps - self.first)), 60)
            message = (
                "%s: %.3g s per step, so %d min %d s for all %d steps; it ends earlier where nothing is left to gain"
            )
            logger.info(message, self.description, seconds, minutes, rest, self.max_steps)


class StepProgressBar(pl.Callback):
    """One bar over all training steps, with the remaining time and the last of what a callback recorded."""

    def __init__(self, progress: Progress, max_steps: int, recorder: Any, description: str) -> None:
        super().__init__()
        self.progress, self.max_steps, self.recorder, self.description = progress, max_steps, recorder, description
        self.bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, plan: Any) -> None:
        """Open the bar."""
        if trainer.is_global_zero:
            self.bar = self.progress.bar(self.max_steps, self.description, "step", initial=trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, plan: Any, *args) -> None:
        """Advance."""
        if self.bar is not None:
            self.bar.update(1)

    def on_train_epoch_end(self, trainer: pl.Trainer, plan: Any) -> None:
        """Show the losses of the last validation."""
        if self.bar is not None:
            history = self.recorder.history
            shown = {"loss" if k == "train" else k: v[-1] for k, v in history.items() if v and k != "steps"}
            means = {name: f"{sum(values) / len(values):.4f}" for name, values in shown.items()}
            self.bar.set_postfix(means, refresh=False)

    def on_train_end(self, trainer: pl.Trainer, plan: Any) -> None:
        """Count a training that ended early as whole."""
        if self.bar is not None:
            self.bar.total = self.bar.n

    def teardown(self, trainer: pl.Trainer, plan: Any, stage: str) -> None:
        """Close the bar, also after an error."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
