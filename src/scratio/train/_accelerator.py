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
        ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"``, a device such as ``"cuda:1"``, or the number of a GPU.

    Raises
    ------
    ValueError
        If PyTorch does not know the accelerator, or does not find it on this machine.
    """
    name = f"cuda:{accelerator}" if isinstance(accelerator, int) else chosen_accelerator(accelerator)
    n_found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "gpu":
        name = "mps" if n_found["mps"] else "cuda"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"a device is 'auto', 'cpu', 'gpu', 'cuda', 'mps', one such as 'cuda:1', or the number of a GPU; got "
            f"{accelerator!r}"
        ) from error
    if device.type in n_found and (device.index or 0) >= n_found[device.type]:
        raise ValueError(f"PyTorch finds no device {accelerator!r} on this machine")
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
        What trains it, as for Lightning's trainer: a name other than ``"auto"``, or one of its accelerators.
    """
    # Lightning's classes are CPUAccelerator, CUDAAccelerator, ...
    kind = (
        accelerator if isinstance(accelerator, str) else type(accelerator).__name__.removesuffix("Accelerator").lower()
    )
    if parametrization != "potential":
        return "32-true"
    if kind in ("cuda", "gpu") and torch.cuda.is_available():
        # GPUs before Ampere emulate bfloat16, which is slower than single precision.
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if kind != "cpu":
        return "32-true"
    # Added in torch 2.9; an older one stays in float32.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"
