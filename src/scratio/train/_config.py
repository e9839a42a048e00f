"""Settings of a training run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

MIN_STEPS, MAX_STEPS, EPOCHS = 3_000, 20_000, 50
POTENTIAL_STEPS, POTENTIAL_EPOCHS = (600, 2_000), 40
DEFAULT_DECAY = 1e-2
DECAY, DECAY_CELLS = 0.8, 6_400
"""Weight decay of the potential at this many training cells; in proportion to 1 / n elsewhere, as for a prior."""
MOST_DECAY = 20.0
"""Above this a weight would be gone within a few steps at the default rate."""
HELD_OUT, SHARES = 500, (1.0 / 10.0, 1.0 / 3.0)
"""Cells that all members together should hold out; bounds of the share that each does."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; see :meth:`scratio.model.ScRatio.train`."""

    max_steps: int
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = DEFAULT_DECAY
    warmup_steps: int = 200
    cosine_decay: bool = True
    gradient_clip: float = 1.0
    ema_decay: float = 0.995
    validate_every: int = 100
    n_validation: int = 4_096
    early_stopping: bool = True
    patience: int = 6
    ensemble_size: int = 1
    random_state: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if (
                field.name in {"max_steps", "batch_size", "validate_every", "n_validation", "patience", "ensemble_size"}
                and value < 1
            ):
                raise ValueError(f"{field.name} must be at least 1, got {value}")
        if not (isinstance(self.weight_decay, int | float) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be a number of at least 0, got {self.weight_decay}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")


OF_OTHER_TRAININGS = {
    "max_epochs": "max_steps, the number of batches",
    "train_size": "validation_size, the share of the cells that is held out",
    "plan_kwargs": "its settings by their own names, such as learning_rate and weight_decay",
    "lr": "learning_rate",
    "early_stopping_patience": "patience, the number of validations",
    "check_val_every_n_epoch": "validate_every, the number of steps between two validations",
    "enable_progress_bar": "progress_bar",
}
"""Settings that scvi-tools and Lightning know by another name."""


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse settings that a training does not have.

    Raises
    ------
    TypeError
        If there is one; the message says what to use instead.
    """
    known = sorted(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            instead = OF_OTHER_TRAININGS.get(name) or (near[0] if near else "")
            hint = f"; use {instead}" if instead else ""
            raise TypeError(f"train has no setting {name!r}{hint}. Its settings: {', '.join(known)}")


def default_max_steps(n_train: int, batch_size: int) -> int:
    """About 50 passes over the cells, within bounds; early stopping usually ends a run on few cells before that."""
    return min(max(EPOCHS * n_train // batch_size, MIN_STEPS), MAX_STEPS)


def defaults_for(parametrization: str, block: str, n_train: int, batch_size: int) -> dict:
    """Settings that belong to a network and a number of training cells."""
    steps = {"max_steps": default_max_steps(n_train, batch_size)}
    if block == "mlp":
        # The paper's own optimiser: Adam at 1e-4 without decay, warm-up or clipping.
        return {
            **steps,
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "warmup_steps": 0,
            "cosine_decay": False,
            "gradient_clip": float("inf"),
            "ema_decay": 0.999,
        }
    if parametrization == "potential":
        # One cycle of the learning rate: its end averages out the noise of the steps, in half the steps that a constant
        # rate needs for the same held-out loss (benchmarks/ablation.py).
        low, high = POTENTIAL_STEPS
        return {
            "max_steps": min(max(POTENTIAL_EPOCHS * n_train // batch_size, low), high),
            "learning_rate": 6e-3 * min(1.0, math.sqrt(n_train / DECAY_CELLS)),
            "weight_decay": min(DECAY * DECAY_CELLS / n_train, MOST_DECAY),
            "warmup_steps": 100,
            "validate_every": 50,
        }
    return steps


def default_validation_size(n_cells: float, n_members: int) -> float:
    """Share of the cells that each member holds out: a tenth, or more where the members' held-out cells are few.

    What held-out cells decide (the step, the weights of the calibration) costs more on few cells than what training on
    all of them gains.
    """
    return float(np.clip(HELD_OUT / (n_members * n_cells), *SHARES))
