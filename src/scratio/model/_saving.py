"""Models on disk: a JSON file and plain arrays; reading them executes nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

FORMAT_VERSION = 1
DEFAULT_KIND = "ScRatio"
"""Class of models whose files do not say."""
DESCRIPTION, WEIGHTS = "scratio.json", "weights.safetensors"


def write(path: str | Path, description: dict[str, Any], tensors: dict[str, torch.Tensor], *, overwrite: bool) -> None:
    """Write a model folder.

    Raises
    ------
    FileExistsError
        If a model lies there and ``overwrite`` is False.
    """
    folder = Path(path)
    if (folder / DESCRIPTION).exists() and not overwrite:
        raise FileExistsError(f"{folder} holds a model already; pass overwrite=True to replace it")
    # What cannot be written is found out before anything is.
    text = json.dumps({"format_version": FORMAT_VERSION, **description}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def read(path: str | Path, kind: str = DEFAULT_KIND) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a model folder.

    Parameters
    ----------
    path
        Folder.
    kind
        Class of the model.

    Raises
    ------
    FileNotFoundError
        If it holds no model.
    ValueError
        If it was written by a newer format, or holds a model of another class.
    """
    folder = Path(path)
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} holds no scratio model: {name} is missing")
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    found = description.get("format_version")
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise ValueError(f"{folder} has format version {found}; this scratio reads up to {FORMAT_VERSION}: upgrade it")
    written = description.get("kind", DEFAULT_KIND)
    if written != kind:
        raise ValueError(f"{folder} holds a model of class {written}; load it with scratio.model.{written}.load")
    return description, load_file(folder / WEIGHTS)


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def fingerprint(names: Any) -> str:
    """Hash of cell names in order, to recognise the cells a model was trained on."""
    digest = hashlib.sha256()
    for name in np.asarray(names, dtype=str):
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()
