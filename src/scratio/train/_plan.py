"""The training step: loss, optimiser, exponential moving average."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from scratio._random import torch_generator
from scratio.module import Condition, FlowNetwork
from scratio.train._checkpoint import IDENTITY
from scratio.train._config import TrainConfig
from scratio.train._data import Batch

_NOISE, _VALIDATION_NOISE = 3, 4


class AveragedPlan(pl.LightningModule):
    """A network trained by AdamW, with a moving average of its weights.

    Parameters
    ----------
    network
        Network.
    config
        Settings.
    """

    BETAS = (0.9, 0.999)

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        # Nothing trains the average itself; several processes would wait for its gradients.
        self.averaged = copy.deepcopy(network).requires_grad_(False)
        self.train_losses: list[Tensor] = []
        self.identity = ""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which training the checkpoint is of."""
        checkpoint[IDENTITY] = self.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another training."""
        found = checkpoint.get(IDENTITY, self.identity)
        if found != self.identity:
            raise ValueError(
                "resume=True found the checkpoint of another training in checkpoint_dir: other cells, settings or "
                "seed, or another version of scratio. Train with what it was begun with, or choose another folder."
            )

    def on_train_batch_end(self, *args) -> None:
        """Update the moving average."""
        self.update_average(self.global_step - 1)

    @torch.no_grad()
    def update_average(self, n_averaged: int) -> None:
        """Update the moving average, given the number of updates before.

        torch's AveragedModel keeps this number on the device, and every step waits for it.
        """
        averaged: list[Tensor] = list(self.averaged.parameters())
        current: list[Tensor] = list(self.network.parameters())
        # Short memory at first, so that the initial weights are forgotten.
        decay = min(self.config.ema_decay, (1.0 + n_averaged) / (10.0 + n_averaged)) if n_averaged else 0.0
        torch._foreach_lerp_(averaged, current, 1.0 - decay)

    def configure_optimizers(self) -> dict:
        """AdamW with warm-up and, where asked for, cosine decay."""
        config = self.config
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=config.learning_rate, betas=self.BETAS, weight_decay=config.weight_decay, fused=True
        )

        def factor(step: int) -> float:
            warm = min((step + 1) / (config.warmup_steps + 1), 1.0)
            return warm * (0.5 * (1.0 + math.cos(math.pi * step / config.max_steps)) if config.cosine_decay else 1.0)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class FlowTrainingPlan(AveragedPlan):
    """Trains all members of a network at once; nothing of one member reaches another.

    Parameters
    ----------
    network
        Network with stacked members.
    config
        Settings.
    """

    def __init__(self, network: FlowNetwork, config: TrainConfig) -> None:
        super().__init__(network, config)
        self.network: FlowNetwork
        self.averaged: FlowNetwork
        self.validation_losses: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of the members' losses: their gradients are separate."""
        x, codes, values = batch
        path = (_NOISE, self.global_step, self.global_rank)
        generator = torch_generator(self.config.random_state, *path, device=x.device)
        losses = self.network.loss(x, Condition(codes, values), generator)
        self.train_losses.append(losses.detach())
        return losses.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Criterion of the averaged weights, on the same cells and the same noise every time."""
        x, codes, values = batch
        generator = torch_generator(self.config.random_state, _VALIDATION_NOISE, batch_idx, device=x.device)
        condition, size = Condition(codes, values), self.config.ensemble_size
        self.validation_losses.append(self.averaged.validation_loss(x, condition, generator, n_draws=size))

    def on_validation_epoch_end(self) -> None:
        """Hand the held-out loss to the user's logger and callbacks."""
        self.log("validation_loss", torch.cat(self.validation_losses, dim=1).mean(), sync_dist=True)

    def take_validation_losses(self, n_cells: int) -> Tensor:
        """Criterion of every member and held-out cell since the last call, averaged over the rounds of noise."""
        losses = torch.cat(self.validation_losses, dim=1)
        self.validation_losses.clear()
        # On the CPU, since not every accelerator has double precision.
        return losses.unflatten(1, (-1, n_cells)).mean(1).cpu().double()

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip the gradient norm of each member on its own."""
        clip_member_gradients(self.network, self.config.gradient_clip)


def clip_member_gradients(network: FlowNetwork, max_norm: float) -> None:
    """Scale each member's gradient to a norm of at most ``max_norm``; parameters have a leading member axis."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    factor = (max_norm / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(factor.reshape(-1, *[1] * (gradient.ndim - 1)))
