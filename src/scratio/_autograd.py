"""Derivatives wherever scratio needs them, whatever the caller's mode of torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Switch derivatives on within the block, and put the caller's mode back after it.

    Users call analyses within ``torch.inference_mode()`` or ``torch.no_grad()``. Tensors that are made in the former
    can never be differentiated, so networks have to be made within this block too. Serves as a decorator as well.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
