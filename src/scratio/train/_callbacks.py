"""Early stopping, history, and a progress bar with loss and remaining time."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from tqdm.auto import tqdm

from scratio.module import FlowNetwork

_STATE = ("best_loss", "best_step", "best_weights", "steps", "train_loss", "validation_loss")


class BestWeights(pl.Callback):
    """Keep the averaged weights at the step of the lowest held-out loss, and stop when it no longer falls.

    The criterion is the mean over the members, which hold out different cells: one step for all is chosen from many
    more cells than each member has. Step 0, the untrained network, is a candidate: where no step improves on it, the
    data hold no evidence of an effect.

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
        self.best_loss, self.best_step = float("inf"), 0
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
            self._compare(plan.averaged, loss, 0)

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
        self._compare(plan.averaged, validation, trainer.global_step)
        if self.early_stopping and self._is_over(trainer.global_step, plan.config.validate_every):
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

    def _is_over(self, step: int, validate_every: int) -> bool:
        return step - self.best_step >= max(self.patience * validate_every, self.best_step // 2)

    def _compare(self, averaged: torch.nn.Module, losses: Tensor, step: int) -> None:
        loss = float(losses.double().mean())
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, step
            self.best_weights = {name: p.detach().clone() for name, p in averaged.named_parameters()}


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
