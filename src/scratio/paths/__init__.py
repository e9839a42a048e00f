"""Gaussian probability paths between noise and data (torch only)."""

from scratio.paths._gaussian import GaussianPath

__all__ = ["GaussianPath"]
