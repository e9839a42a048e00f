"""Cells with a known answer, and real cells of public experiments."""

from scratio.datasets._closed_form import correlated_gaussians, gaussians, mixture
from scratio.datasets._planted import pbmc68k_planted, plant_labels
from scratio.datasets._real import (
    glioblastoma,
    kang_pbmc,
    kang_pbmc_counts,
    melanoma_icb,
    ra_synovium,
    sachs_signaling,
)

__all__ = [
    "correlated_gaussians",
    "gaussians",
    "glioblastoma",
    "kang_pbmc",
    "kang_pbmc_counts",
    "melanoma_icb",
    "mixture",
    "pbmc68k_planted",
    "plant_labels",
    "ra_synovium",
    "sachs_signaling",
]
