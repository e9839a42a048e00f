"""Early stopping, history, and a progress bar with loss and remaining time."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from tqdm.auto import tqdm

from scratio.module import FlowNetwork
from scratio.train._config import TrainConfig

_STATE = ("best_loss", "best_step", "is_closed", "best_weights", "steps", "train_loss", "validation_loss")


class BestWeights(pl.Callback):
    """Keep each ensemble's averaged weights at the step of its lowest held-out loss; stop when none falls any more.

    Every ensemble (the members of a fold) chooses by its own held-out cells alone, and is closed once its own patience
    has run out. Other folds hold out cells that it will score, so a step in common would let a cell's own label have a
    say in its score. Step 0, the untrained network, is a candidate: where no step improves on it, the data hold no
    evidence of an effect.

    Parameters
    ----------
    patience
        Validation intervals without an improvement before training stops; it also goes on to 1.5 times the best step,
        since a long training has longer plateaus.
    early_stopping
        Whether to stop and to restore the best weights; otherwise the last averaged weights are kept.
    """

    def __init__(self, patience: int, early_stopping: bool) -> None:
        super().__init__()
        self.patience, self.early_stopping = patience, early_stopping
        self.best_loss: list[float] = []
        self.best_step: list[int] = []
        self.is_closed: list[bool] = []
        self.best_weights: dict[str, Tensor] = {}
        self.steps: list[int] = []
        self.train_loss: list[list[float]] = []
        self.validation_loss: list[list[float]] = []

    def on_train_start(self, trainer: pl.Trainer, plan: Any) -> None:
        """Validate the untrained network."""
        if trainer.global_step == 0:
            plan.eval()
            with torch.no_grad():
                for index, batch in enumerate(trainer.datamodule.val_dataloader()):
                    plan.validation_step(plan.transfer_batch_to_device(batch, plan.device, 0), index)
            loss = torch.stack(plan.validation_losses).mean(0)
            plan.validation_losses.clear()
            plan.train()
            self._compare(plan.averaged, loss, 0, plan.config)

    def on_train_epoch_end(self, trainer: pl.Trainer, plan: Any) -> None:
        """Record the losses since the last validation and compare with the best."""
        if not plan.train_losses:
            # A resumed run closes the epoch of its checkpoint once more, without a batch.
            return
        train = torch.stack(plan.train_losses).mean(0)
        validation = torch.stack(plan.validation_losses).mean(0)
        plan.train_losses.clear()
        plan.validation_losses.clear()
        if not (torch.isfinite(train).all() and torch.isfinite(validation).all()):
            raise FloatingPointError(
                f"training diverged before step {trainer.global_step}: the loss is not finite. Lower learning_rate, or "
                "look for extreme values in the embedding."
            )
        self.steps.append(trainer.global_step)
        self.train_loss.append(train.tolist())
        self.validation_loss.append(validation.tolist())
        self._compare(plan.averaged, validation, trainer.global_step, plan.config)
        if self.early_stopping and all(self.is_closed):
            trainer.should_stop = True

    def restore(self, network: FlowNetwork, averaged: torch.nn.Module) -> None:
        """Write the chosen weights into the network; what the criterion does not judge keeps its last average."""
        last = dict(averaged.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                selected = self.early_stopping and network.is_validated(name)
                parameter.copy_(self.best_weights[name] if selected else last[name])

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint ended."""
        for name in _STATE:
            setattr(self, name, state_dict[name])

    def _is_closed(self, ensemble: int, step: int, validate_every: int) -> bool:
        best = self.best_step[ensemble]
        return step - best >= max(self.patience * validate_every, best // 2)

    def _compare(self, averaged: torch.nn.Module, losses: Tensor, step: int, config: TrainConfig) -> None:
        """``losses`` has one value per ensemble, or one per member, whose mean over the ensemble counts."""
        parameters, size = dict(averaged.named_parameters()), config.ensemble_size
        n_ensembles = len(next(iter(parameters.values()))) // size
        means = losses.double().reshape(n_ensembles, -1).mean(1).tolist()
        if not self.best_loss:
            self.best_loss, self.best_step = [float("inf")] * n_ensembles, [0] * n_ensembles
            self.is_closed = [False] * n_ensembles
            self.best_weights = {name: p.detach().clone() for name, p in parameters.items()}
        for ensemble, loss in enumerate(means):
            if self.is_closed[ensemble]:
                continue
            if loss < self.best_loss[ensemble]:
                self.best_loss[ensemble], self.best_step[ensemble] = loss, step
                rows = slice(ensemble * size, (ensemble + 1) * size)
                for name, parameter in parameters.items():
                    # A resumed run's copies may lie on another device.
                    self.best_weights[name][rows] = parameter.detach()[rows].to(self.best_weights[name].device)
            self.is_closed[ensemble] = self._is_closed(ensemble, step, config.validate_every)


class StepProgressBar(pl.Callback):
    """One bar over all training steps, with the loss and the remaining time."""

    def __init__(self, max_steps: int, best: BestWeights) -> None:
        super().__init__()
        self.max_steps, self.best = max_steps, best
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, plan: Any) -> None:
        """Open the bar."""
        if trainer.is_global_zero:
            self.bar = tqdm(total=self.max_steps, initial=trainer.global_step, desc="training", unit="step")

    def on_train_batch_end(self, trainer: pl.Trainer, plan: Any, *args) -> None:
        """Advance."""
        if self.bar is not None:
            self.bar.update(1)

    def on_train_epoch_end(self, trainer: pl.Trainer, plan: Any) -> None:
        """Show the losses of the last validation."""
        if self.bar is not None:
            shown = {"loss": self.best.train_loss[-1], "validation": self.best.validation_loss[-1]}
            self.bar.set_postfix({name: f"{sum(loss) / len(loss):.4f}" for name, loss in shown.items()})

    def teardown(self, trainer: pl.Trainer, plan: Any, stage: str) -> None:
        """Close the bar, also after an error."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
