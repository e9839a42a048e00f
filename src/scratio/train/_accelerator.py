"""Accelerators by name: where networks are trained, in which precision, and where they score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy


def chosen_accelerator(accelerator: Any) -> Any:
    """Choose CUDA for ``"auto"`` if PyTorch finds it, and else the CPU; other values are returned as they are.

    Apple's GPU has to be asked for, as in scvi-tools: it has no double precision, and some operations are missing.
    """
    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return accelerator


def device_of(accelerator: str | int | torch.device) -> torch.device:
    """Device of an accelerator.

    Parameters
    ----------
    accelerator
        ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"``, or a device such as ``"cuda:1"`` or 1.

    Raises
    ------
    ValueError
        If PyTorch does not know the accelerator, or does not find it on this machine.
    """
    name = chosen_accelerator(accelerator)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "gpu":
        name = "mps" if has_mps else "cuda"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"accelerator must be 'auto', 'cpu', 'gpu', 'cuda', 'mps' or a device such as 'cuda:1', got {accelerator!r}"
        ) from error
    if not {"cuda": has_cuda, "mps": has_mps}.get(device.type, True):
        raise ValueError(f"accelerator={accelerator!r}: PyTorch finds no such accelerator on this machine")
    return device


def trainer_on(device: torch.device) -> dict[str, Any]:
    """Settings of Lightning's trainer for one device."""
    return {"accelerator": device.type, "devices": 1, "strategy": SingleDeviceStrategy(device=device)}


def default_precision(parametrization: str, accelerator: Any) -> str:
    """Choose bfloat16 products if the accelerator has them and the log ratio is a forward pass computed in float32.

    The vector heads stay in float32: the divergence of their error is what limits them.

    Parameters
    ----------
    parametrization
        Parametrization of the model.
    accelerator
        What trains it, as for Lightning's trainer, but not ``"auto"``.
    """
    if parametrization != "potential" or not isinstance(accelerator, str):
        return "32-true"
    kind = device_of(accelerator).type
    if kind == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    if kind != "cpu":
        return "32-true"
    # Added in torch 2.9; an older one stays in float32.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
