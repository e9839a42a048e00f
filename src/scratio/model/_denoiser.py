"""The denoiser of all cells, which a potential needs for velocity, score and samples; trained when first asked for."""

from __future__ import annotations

import logging

import numpy as np
import torch

from scratio._caller import differentiable
from scratio._progress import progress_of_call
from scratio._random import child_seed
from scratio.module import Condition, PotentialNetwork, ResidualHeads
from scratio.scoring import KeptCells
from scratio.train import CellDataModule, MemberSplit, StandardisedCells, TrainConfig, fit
from scratio.train._accelerator import trainer_on

logger = logging.getLogger(__name__)

_SEED, _SPLIT, _WEIGHTED = 18, 19, 23
VALIDATION_SIZE, BATCH_SIZE, PASSES = 0.1, 512, 50
FEWEST_STEPS, MOST_STEPS = 1_000, 10_000


@differentiable()
def train_denoiser(
    denoiser: ResidualHeads, x: torch.Tensor | StandardisedCells, random_state: int, device: torch.device, reason: str
) -> None:
    """Train an untrained denoiser on cells, whatever their conditions.

    Parameters
    ----------
    denoiser
        Network without conditions.
    x
        Standardised cells, shape (n, d).
    random_state
        Seed.
    device
        Where it is trained.
    reason
        What needs it, for the message.
    """
    n = len(x)
    order = np.random.default_rng(child_seed(random_state, _SPLIT)).permutation(n)
    held_out = max(int(VALIDATION_SIZE * n), 1)
    split = MemberSplit(np.sort(order[held_out:]), np.sort(order[:held_out]))
    steps = int(np.clip(PASSES * len(split.train) // BATCH_SIZE, FEWEST_STEPS, MOST_STEPS))
    config = TrainConfig(steps, BATCH_SIZE, random_state=int(child_seed(random_state, _SEED) % 2**31))
    logger.info(
        "%s needs a denoiser of all cells, which is trained now, once for this model: at most %d steps",
        reason,
        config.max_steps,
    )
    nothing = Condition(torch.empty((n, 0), dtype=torch.int64), torch.empty((n, 0)))
    data = CellDataModule(x, nothing, [split], config)
    progress = progress_of_call(False)
    where = trainer_on(device)
    fit(denoiser, data, config, progress=progress, description="denoising", precision="32-true", **where)
    denoiser.to(device)


def cells_for(kept: KeptCells, network: PotentialNetwork, random_state: int) -> torch.Tensor:
    """What a model without cells has kept, drawn anew with the shares that combinations have among all cells."""
    index = network.index(kept.condition.to(network.log_weights.device)).cpu().numpy()
    counts = np.bincount(index, minlength=len(network.combinations))
    weight = network.log_weights.exp().cpu().numpy().astype(float)[index] / counts[index]
    rng = np.random.default_rng(child_seed(random_state, _WEIGHTED))
    rows = rng.choice(len(index), size=len(index), p=weight / weight.sum())
    return torch.from_numpy(kept.x[np.sort(rows)])
