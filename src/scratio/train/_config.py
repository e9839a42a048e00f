"""Settings of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

from scratio.module import FlowNetwork, PaperHeads, PotentialNetwork

MIN_STEPS, MAX_STEPS, EPOCHS = 3_000, 20_000, 50


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; see :meth:`scratio.model.ScRatio.train`."""

    max_steps: int
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
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
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")


def default_max_steps(n_train: int, batch_size: int) -> int:
    """About 50 passes over the cells, within bounds; early stopping usually ends a run on few cells before that."""
    return min(max(EPOCHS * n_train // batch_size, MIN_STEPS), MAX_STEPS)


def defaults_for(network: FlowNetwork, n_train: int) -> dict:
    """Settings that belong to a network and a number of training cells."""
    if isinstance(network, PaperHeads):
        # The paper's own optimiser: Adam at 1e-4 without decay, warm-up or clipping.
        return {
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "warmup_steps": 0,
            "cosine_decay": False,
            "gradient_clip": float("inf"),
            "ema_decay": 0.999,
        }
    if isinstance(network, PotentialNetwork):
        # Few cells are overfitted within tens of steps: shorter steps leave more of them to choose from. The best step
        # comes early where conditions overlap, and a validation costs little.
        rate = 2e-3 * min(1.0, math.sqrt(n_train / 10_000))
        return {"learning_rate": rate, "validate_every": 50, "warmup_steps": 100}
    return {}


def default_precision(network: FlowNetwork) -> str:
    """Bfloat16 products where the processor has them and the log ratio is a forward pass, which float32 computes.

    The vector heads stay in float32: the divergence of their error is what limits them.
    """
    if not isinstance(network, PotentialNetwork):
        return "32-true"
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    # Added in torch 2.9; an older one stays in float32.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
