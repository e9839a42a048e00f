"""Data with a known answer, closed-form and real."""

from scratio.datasets._closed_form import gaussians
from scratio.datasets._planted import pbmc68k_planted, plant_labels

__all__ = ["gaussians", "pbmc68k_planted", "plant_labels"]
