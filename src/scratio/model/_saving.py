"""Models on disk: a JSON file and plain arrays; reading them executes nothing."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from scratio._atomic import atomic, discard
from scratio._blocks import SLAB

FORMAT_VERSION = 4
DEFAULT_KIND = "ScRatio"
"""Class of models whose files do not say."""
REQUIRED = {"settings", "schema", "obsm_key", "is_trained", "training", "history"}
DESCRIPTION, WEIGHTS = "scratio.json", "weights.safetensors"
"""Name of the description, and of the weights before version 2, whose descriptions do not say."""
WEIGHTS_NAME = re.compile(r"weights(-[0-9a-f]{12})?\.safetensors")
"""Names of weights that are scratio's to remove."""


def write(path: str | Path, description: dict[str, Any], tensors: dict[str, torch.Tensor], *, overwrite: bool) -> None:
    """Write a model folder.

    The weights' name is made of their hash and the description, which names them, is put in place last: a process that
    is killed leaves the model that was there, or the new one. Of the files in the folder only those of the model that
    is replaced are removed; weights that another program has open are left where the system does not remove them.

    Raises
    ------
    FileExistsError
        If a model lies there and ``overwrite`` is False, or what lies there is not a model of scratio.
    PermissionError
        If another program has the description open, and the system does not replace open files (Windows).
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a model is saved as a folder: choose another name")
    earlier = _weights_to_replace(folder, overwrite=overwrite)
    weights = serialised(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    files = {"weights": f"weights-{digest[:12]}.safetensors", "weights_sha256": digest}
    # What cannot be written is found out before anything is.
    text = json.dumps({"format_version": FORMAT_VERSION, **files, **description}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder / files["weights"], weights)
    with atomic(folder / DESCRIPTION) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    if earlier is not None and earlier.name != files["weights"]:
        discard(earlier)


def _write_weights(path: Path, content: bytes) -> None:
    # A program may have mapped the file into memory. Windows then does not replace it, not even by an equal one.
    if path.exists() and path.read_bytes() == content:
        return
    with atomic(path) as partial:
        partial.write_bytes(content)


def _weights_to_replace(folder: Path, *, overwrite: bool) -> Path | None:
    """Weights of the model that lies in a folder and may be replaced; None where there is none."""
    description = folder / DESCRIPTION
    if not description.exists():
        return None
    if not overwrite:
        raise FileExistsError(f"{folder} holds a model already; pass overwrite=True to replace it")
    try:
        found = json.loads(description.read_text(encoding="utf-8"))
        weights = str(found.get("weights", WEIGHTS)) if "format_version" in found else ""
    except (ValueError, TypeError, AttributeError):
        weights = ""
    if not WEIGHTS_NAME.fullmatch(weights):
        raise FileExistsError(
            f"{description} does not describe a model of scratio, so it is not replaced; move it away, or choose "
            "another folder"
        )
    return folder / weights


def serialised(tensors: dict[str, torch.Tensor]) -> bytes:
    """Plain arrays as bytes (safetensors)."""
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})


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
        If it was written by a newer format, holds a model of another class, or was changed or cut off.
    """
    folder = Path(path)
    if not (folder / DESCRIPTION).exists():
        raise FileNotFoundError(f"{folder} holds no scratio model: {DESCRIPTION} is missing")
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        found, written = description.get("format_version"), description.get("kind", DEFAULT_KIND)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / DESCRIPTION} does not describe a model: {error}") from error
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise ValueError(f"{folder} has format version {found}; this scratio reads up to {FORMAT_VERSION}: upgrade it")
    absent = sorted(REQUIRED - description.keys())
    if absent:
        raise ValueError(f"{folder / DESCRIPTION} does not describe a model: it has no {absent[0]}")
    if written != kind:
        raise ValueError(f"{folder} holds a model of class {written}; load it with scratio.model.{written}.load")
    weights = folder / Path(description.get("weights", WEIGHTS)).name
    if not weights.exists():
        raise FileNotFoundError(f"{folder} holds no scratio model: {weights.name} is missing")
    content = weights.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if description.get("weights_sha256", digest) != digest:
        raise ValueError(f"{weights} is not the file that was saved: it was changed or cut off; save the model again")
    try:
        return description, load(content)
    except SafetensorError as error:
        raise ValueError(f"{weights} holds no weights: {error}") from error


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def fingerprint(names: Any) -> str:
    """Hash of cell names in order, to recognise the cells a model was trained on."""
    digest = hashlib.sha256()
    for start in range(0, len(names), SLAB):
        digest.update("".join(f"{name}\0" for name in names[start : start + SLAB]).encode())
    return digest.hexdigest()


def current_weights(
    description: dict[str, Any], weights: dict[str, torch.Tensor], n_members: int
) -> tuple[dict[str, torch.Tensor], list[tuple[int, int]]]:
    """Weights of a potential in the names of the current format, and the shapes of its closed forms.

    Before format 3 all members trained under the shares of all cells. Before format 4 a potential had one closed form,
    with factors in place of weights, and a denoiser for each member, which is trained anew when it is asked for.
    """
    if description["format_version"] >= 4:
        return weights, [tuple(shape) for shape in description["closed_forms"]]
    common = weights["log_weights"].repeat(n_members, 1, 1)
    found = {"log_train_shares": common, "log_held_out_shares": common}
    found |= {name: value for name, value in weights.items() if not name.startswith(("marginal", "closed_form"))}
    network = (found.pop("factor") * found.pop("share")).reshape(n_members, 1, 1)
    closed, terms = found.pop("gate").reshape(n_members, 1, 1), found.pop("term_factors", torch.empty((n_members, 0)))
    terms = terms[:, None] if terms.shape[1] else torch.ones((n_members, 1, 1))
    shape = description.get("closed_form")
    found |= {f"closed_forms.0.{name}": value for name, value in part(weights, "closed_form.").items()}
    found["weights"] = torch.cat([network * terms, *([] if shape is None else [closed * terms])], dim=1)
    return found, [] if shape is None else [tuple(shape)]
