"""Checkpoints that stay whole if the process is killed, and that only their own training can resume."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import nn

from scratio._atomic import atomic
from scratio.train._config import TrainConfig
from scratio.train._data import CellDataModule

CHECKPOINT, IDENTITY = "last.ckpt", "scratio_training"
"""Name of the file, and of its entry that says which training it is of."""
VERSION = 2
"""Of the names in a checkpoint; a training cannot be resumed from the checkpoint of another version."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the last one and puts it in its place in one step."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial:
            torch.save(checkpoint, partial)


def check_folder(folder: Path) -> None:
    """Refuse a folder whose ``last.ckpt`` a training would replace, though scratio did not write it.

    Raises
    ------
    FileExistsError
        If there is such a file.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return
    try:
        # Tensors have no values on this device: nothing but the names is looked at.
        found = torch.load(path, map_location="meta", weights_only=True)
        is_own = IDENTITY in found
    except Exception:  # noqa: BLE001 (torch raises whatever such a file leads it to)
        is_own = False
    if not is_own:
        raise FileExistsError(
            f"checkpoint_dir: {path} is not a checkpoint of scratio and would be overwritten; choose another folder"
        )


def identity(network: nn.Module, data: CellDataModule, config: TrainConfig) -> str:
    """Identify a training by its settings (except the number of steps), sizes, rows and some of the cells."""
    of_rows = [zlib.crc32(rows.tobytes()) for rows in {id(split.train): split.train for split in data.splits}.values()]
    if any(len(split.validation) for split in data.splits):
        of_rows.append(zlib.crc32(data.val_dataloader().cells[0].numpy().tobytes()))
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    parts = VERSION, replace(config, max_steps=1), type(network).__name__, shapes, tuple(data.x.shape), of_rows
    return f"{zlib.crc32(repr(parts).encode()):08x}"
