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

from scratio._progress import Progress
from scratio.module import FlowNetwork
from scratio.train._config import TrainConfig

logger = logging.getLogger(__name__)

WARM_UP, TIMED = 5, 20
"""Steps that are not timed, and steps that are."""

SIGNIFICANT = 2.0
"""Standard errors by which one loss must exceed another to be taken as higher."""

_STATE = ("history", "initial", "best", "chosen", "is_closed")


@dataclass
class Candidate:
    """Weights of all groups at a step of their own, with the losses of their held-out cells."""

    steps: list[int]
    losses: Tensor  # (n_groups, n_held_out cells of the group)
    weights: dict[str, Tensor]

    def update(self, group: int, size: int, step: int, losses: Tensor, parameters: dict[str, Tensor]) -> None:
        """Replace a group's weights by the current ones."""
        self.steps[group], self.losses[group] = step, losses
        rows = slice(group * size, (group + 1) * size)
        for name, kept in self.weights.items():
            # A resumed run's copies may lie on another device.
            kept[rows] = parameters[name].detach()[rows].to(kept.device)


class BestWeights(pl.Callback):
    """Choose each group's step by its held-out cells; stop when no group has anything left to gain.

    A group is the members of one fold with one strength of weight decay. Every member holds out other cells, so that a
    group's criterion is a mean over many of them; other folds hold out cells that the group will score, so a choice in
    common would let a cell's own label have a say in its score. Differences between steps are paired by cell and have a
    standard error. Kept is the latest step that is not worse than the best by more than one: the criterion has many
    noisy minima, and the later of two equal steps is averaged over more of the training. The untrained network is kept
    where no step is better; where it is a closed form, also where none is better by more than a standard error.

    Parameters
    ----------
    patience
        Validation intervals without an improvement before a group is given up, if its loss has risen significantly; it
        also goes on to 1.5 times the best step, since a long training has longer plateaus.
    early_stopping
        Whether to stop and to choose; otherwise the last averaged weights are kept.
    """

    def __init__(self, patience: int, early_stopping: bool) -> None:
        super().__init__()
        self.patience, self.early_stopping = patience, early_stopping
        self.history: dict[str, list] = {"steps": [], "train": [], "validation": []}
        self.initial: Candidate | None = None
        self.best: Candidate | None = None
        self.chosen: Candidate | None = None
        self.is_closed: list[bool] = []

    def on_train_start(self, trainer: pl.Trainer, plan: Any) -> None:
        """Validate the untrained network."""
        if trainer.global_step == 0:
            plan.eval()
            batches = trainer.datamodule.val_dataloader()
            with torch.no_grad():
                for index, batch in enumerate(batches):
                    plan.validation_step(plan.transfer_batch_to_device(batch, plan.device, 0), index)
            plan.train()
            found = trainer.strategy.broadcast(plan.take_validation_losses(batches.n_cells))
            losses = self._grouped(found, plan.config)
            weights = {name: p.detach().clone() for name, p in plan.averaged.named_parameters()}
            start = [0] * len(losses)
            self.initial = Candidate(start, losses, weights)
            # Of the best step nothing but its losses is ever needed.
            self.best = Candidate(start.copy(), losses.clone(), {})
            self.chosen = Candidate(start.copy(), losses.clone(), {name: w.clone() for name, w in weights.items()})
            self.is_closed = [False] * len(losses)
        elif self.early_stopping and all(self.is_closed) and not plan.network.close():
            # Killed after the training had ended, before its result was used.
            trainer.should_stop = True

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
        self._compare(plan, self._grouped(validation, plan.config), trainer.global_step)
        if self.early_stopping and all(self.is_closed) and not plan.network.close():
            trainer.should_stop = True

    def selection(self, network: FlowNetwork) -> Candidate:
        """Steps that the groups keep, and their losses there; the weights are those of the best trained steps."""
        initial, chosen = self._candidate(self.initial), self._candidate(self.chosen)
        steps, losses = list(chosen.steps), chosen.losses.clone()
        size = network.n_members // len(steps)
        for group in range(len(steps)):
            gain, error = paired_difference(initial.losses[group], chosen.losses[group])
            needs_evidence = network.prefers_untrained(slice(group * size, (group + 1) * size))
            if gain <= (error if needs_evidence else 0.0):
                steps[group], losses[group] = 0, initial.losses[group]
        return Candidate(steps, losses, chosen.weights)

    def restore(self, network: FlowNetwork, averaged: torch.nn.Module) -> Candidate | None:
        """Write the chosen weights into the network; what the criterion does not judge keeps its last average."""
        last = dict(averaged.named_parameters())
        selection = self.selection(network) if self.early_stopping else None
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                judged = selection is not None and network.is_validated(name)
                parameter.copy_(selection.weights[name] if judged and selection is not None else last[name])
            if selection is not None:
                self._discard(network, selection)
        return selection

    def _discard(self, network: FlowNetwork, selection: Candidate) -> None:
        """Undo the training of the groups that keep step 0."""
        initial = self._candidate(self.initial)
        size = network.n_members // len(selection.steps)
        for group in (g for g, step in enumerate(selection.steps) if step == 0):
            rows = slice(group * size, (group + 1) * size)
            if not network.discard(rows):
                for name, parameter in network.named_parameters():
                    parameter[rows] = initial.weights[name][rows].to(parameter.device)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint."""
        state = {name: getattr(self, name) for name in _STATE}
        return {name: vars(value) if isinstance(value, Candidate) else value for name, value in state.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint ended."""
        for name in _STATE:
            value = state_dict[name]
            setattr(self, name, Candidate(**value) if name in {"initial", "best", "chosen"} else value)

    @staticmethod
    def _candidate(candidate: Candidate | None) -> Candidate:
        if candidate is None:
            raise RuntimeError("training has not started")
        return candidate

    @staticmethod
    def _grouped(losses: Tensor, config: TrainConfig) -> Tensor:
        """Held-out cells of all members of a group in one row."""
        return losses.cpu().reshape(len(losses) // config.ensemble_size, -1)

    def _compare(self, plan: Any, losses: Tensor, step: int) -> None:
        parameters, size = dict(plan.averaged.named_parameters()), plan.config.ensemble_size
        best, chosen = self._candidate(self.best), self._candidate(self.chosen)
        for group, current in enumerate(losses):
            if self.is_closed[group]:
                continue
            if best.steps[group] == 0:
                # Trained steps compete with each other; whether any is kept is decided at the end (see selection).
                best.update(group, size, step, current, parameters)
            excess, error = paired_difference(current, best.losses[group])
            if excess < 0:
                best.update(group, size, step, current, parameters)
            if excess <= error:
                chosen.update(group, size, step, current, parameters)
            waited = step - best.steps[group] >= max(self.patience * plan.config.validate_every, best.steps[group] // 2)
            self.is_closed[group] = bool(waited and excess > SIGNIFICANT * error)


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

    def teardown(self, trainer: pl.Trainer, plan: Any, stage: str) -> None:
        """Close the bar, also after an error."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
