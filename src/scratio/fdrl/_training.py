"""Training of FDRL: a ratio estimated on samples that it improves itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from torch import Tensor

from scratio._check import warn_user
from scratio._progress import Progress
from scratio._random import torch_generator
from scratio.fdrl._gradient_flow import gradient_flow
from scratio.fdrl._network import DIVERGENCES, StaleRatio
from scratio.fdrl._prior import Prior
from scratio.train._callbacks import StepProgressBar
from scratio.train._config import TrainConfig
from scratio.train._data import Batch, CellDataModule
from scratio.train._fit import run
from scratio.train._plan import AveragedPlan

_NOISE = 5
ESCAPED = 100.0
"""Mean square distance of improved samples from the centre beyond which they have left cells and starting points, in
that of the farther of the two."""
SEPARATE, TOGETHER, PATIENCE = 0.99, 0.9, 5
"""Separation that counts as complete, that from which it can be lost, and records in which it may last."""
RECORD_EVERY = 50
MEASURES = ("loss", "separation", "spread")
_STATE = ("history", "total", "n_steps")


@dataclass(frozen=True)
class FlowSettings:
    """Settings of the flow that improves samples; see :class:`scratio.model.FDRL`."""

    divergence: str
    n_steps: int
    step_size: float
    noise: float
    data_noise: float

    def improve(
        self,
        network: StaleRatio,
        x: Tensor,
        generator: torch.Generator,
        *,
        extra_steps: int = 0,
        reward: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Cells (n, d) after the flow, which ascends the reward as well, where there is one."""
        slope = DIVERGENCES[self.divergence]

        def descent(cells: Tensor) -> Tensor:
            value = slope(network.log_ratio(cells))
            return value if reward is None else value - reward(cells)

        return gradient_flow(
            descent,
            x,
            n_steps=self.n_steps + extra_steps,
            step_size=self.step_size,
            noise=self.noise,
            generator=generator,
        )


class StaleRatioPlan(AveragedPlan):
    """One step: draw from the prior, improve by the ratio as it is, and estimate it anew (algorithm 1).

    Parameters
    ----------
    network
        Ratio.
    prior
        Where samples start.
    flow
        How they are improved.
    config
        Settings.
    """

    # Less memory than usual: what the ratio is estimated from moves with it.
    BETAS = (0.5, 0.9)

    def __init__(self, network: StaleRatio, prior: Prior, flow: FlowSettings, config: TrainConfig) -> None:
        super().__init__(network, config)
        self.network: StaleRatio
        self.averaged: StaleRatio
        self.prior, self.flow = prior, flow
        self.measured = torch.zeros(len(MEASURES))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of the ratio of improved samples to cells."""
        x = batch[0][0]
        path = (_NOISE, self.global_step, self.global_rank)
        generator = torch_generator(self.config.random_state, *path, device=x.device)
        start = self.prior.draw(len(x), generator)
        improved = self.flow.improve(self.network, start, generator)
        data = x + self.flow.data_noise * torch.randn(x.shape, generator=generator, device=x.device)
        loss = self.network.loss(data, improved)
        with torch.no_grad():
            higher = self.network.log_ratio(improved) - self.network.log_ratio(data)
            separation = (higher > 0.0).float().mean() + 0.5 * (higher == 0.0).float().mean()
            extent = torch.maximum(data.square().mean(), start.square().mean())
            self.measured = torch.stack([loss, separation, improved.square().mean() / extent])
        return loss


class FlowMonitor(pl.Callback):
    """Record loss and separation of samples and cells; stop a training that has gone wrong.

    Separation is the probability that the ratio of an improved sample exceeds that of a cell, 0.5 where they cannot be
    told apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list] = {"steps": [], "train": [], "separation": []}
        self.total, self.n_steps = torch.zeros(len(MEASURES)), 0

    def on_train_batch_end(self, trainer: pl.Trainer, plan: Any, *args) -> None:
        """Add up; every few steps record the means."""
        self.total, self.n_steps = self.total.to(plan.measured) + plan.measured, self.n_steps + 1
        if self.n_steps == RECORD_EVERY or trainer.global_step >= plan.config.max_steps:
            # Every process has to come to the same conclusion, or those that go on would wait for the others.
            means = plan.all_gather(self.total / self.n_steps).reshape(-1, len(MEASURES)).mean(0)
            loss, separation, spread = means.tolist()
            self.total, self.n_steps = torch.zeros(len(MEASURES)), 0
            self.record(trainer.global_step, loss, separation, spread)

    def record(self, step: int, loss: float, separation: float, spread: float) -> None:
        """Take down the means since the last record.

        Raises
        ------
        FloatingPointError
            If they are not finite, samples have left the region of cells and starting points, or a likeness that
            was reached is lost again.
        """
        if not (math.isfinite(loss) and math.isfinite(spread)) or spread > ESCAPED:
            raise FloatingPointError(
                f"FDRL diverged before step {step}: the loss is {loss:.3g}, and improved samples are {spread:.3g} "
                "times as spread as cells and starting points. Lower step_size or learning_rate."
            )
        self.history["steps"].append(step)
        self.history["train"].append([loss])
        self.history["separation"].append([separation])
        found = [value for (value,) in self.history["separation"]]
        if _is_lost(found):
            raise FloatingPointError(
                f"FDRL diverged before step {step}: samples could not be told from cells better than in "
                f"{min(found):.0%} of pairs, and now are in {separation:.0%}. Lower step_size or learning_rate."
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint ended."""
        for name in _STATE:
            setattr(self, name, state_dict[name])


def _is_lost(separations: list[float]) -> bool:
    """Whether samples were told apart, then could not be, and now have been for some time.

    A ratio that is only learning to tell them apart has not been lost.
    """
    told_apart = next((i for i, value in enumerate(separations) if value > SEPARATE), len(separations))
    later, last = separations[told_apart:-PATIENCE], separations[-PATIENCE:]
    return bool(later) and min(later) < TOGETHER and min(last) > SEPARATE


def fit_stale_ratio(
    network: StaleRatio,
    prior: Prior,
    flow: FlowSettings,
    data: CellDataModule,
    config: TrainConfig,
    *,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **trainer_kwargs,
) -> tuple[pd.DataFrame, torch.device]:
    """Train a ratio in place; it ends with the averaged weights, on the CPU.

    Parameters
    ----------
    network, prior, flow
        As for :class:`StaleRatioPlan`.
    data
        Cells of the target.
    config
        Settings.
    checkpoint_dir, resume, progress, trainer_kwargs
        As for :func:`scratio.train.fit`.

    Returns
    -------
    Loss and separation by step, and the device that trained.

    Raises
    ------
    FloatingPointError
        If the training diverges.
    """
    network.train()
    plan, monitor = StaleRatioPlan(network, prior, flow, config), FlowMonitor()
    callbacks: list[pl.Callback] = [monitor]
    if progress is not None:
        callbacks.append(StepProgressBar(progress, config.max_steps, monitor, "training"))
    device = run(
        plan,
        data,
        config,
        callbacks,
        checkpoint_dir=checkpoint_dir,
        resume=resume,
        limit_val_batches=0,
        **trainer_kwargs,
    )
    network.load_state_dict(plan.averaged.state_dict())
    network.eval()
    history = monitor.history
    columns = {"loss": history["train"], "separation": history["separation"]}
    table = pd.DataFrame(
        {name: [value for (value,) in values] for name, values in columns.items()},
        index=pd.Index(history["steps"], name="step"),
    )
    last = float(table["separation"].iloc[-1])
    if last > SEPARATE:
        warn_user(
            f"FDRL has not converged: in {last:.0%} of pairs a sample is told from a cell. Train longer, or raise "
            "step_size or n_flow_steps.",
        )
    return table, device
