"""Cells that stay on disk."""

from scratio.io._lazy import read_lazy

__all__ = ["read_lazy"]
