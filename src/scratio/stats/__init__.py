"""Statistics on arrays: cross-fitting, closed-form densities, shrinkage, scaling, support, tests across samples."""

from scratio.stats._calibration import Calibration, label_slope, overlap, reliability, residual_inflation
from scratio.stats._classifier import held_out_log_odds
from scratio.stats._count_model import SampleDesign
from scratio.stats._divergence import Divergences, divergences
from scratio.stats._fdr import weighted_fdr
from scratio.stats._folds import balanced_rows, disjoint_parts, grouped_folds, most_folds, stratified_folds
from scratio.stats._label_weights import bounded_loss, label_slopes, posterior_weights
from scratio.stats._mixtures import (
    ConditionMixture,
    abundances,
    class_gaussian,
    common_components,
    common_responsibility,
    shared_gaussian,
    shared_mixture,
)
from scratio.stats._moderation import moderated_error
from scratio.stats._neighborhoods import neighbor_counts, neighborhoods
from scratio.stats._rotation import N_ROTATIONS
from scratio.stats._samples import SampleTest, compare_samples, effects_without
from scratio.stats._scaling import robust_coordinates, standard_scale
from scratio.stats._summary import mean_and_error
from scratio.stats._support import TypicalityIndex, is_supported, typicality

__all__ = [
    "TypicalityIndex",
    "abundances",
    "balanced_rows",
    "Calibration",
    "ConditionMixture",
    "Divergences",
    "N_ROTATIONS",
    "SampleDesign",
    "SampleTest",
    "bounded_loss",
    "class_gaussian",
    "common_components",
    "common_responsibility",
    "compare_samples",
    "disjoint_parts",
    "divergences",
    "effects_without",
    "grouped_folds",
    "held_out_log_odds",
    "is_supported",
    "label_slope",
    "label_slopes",
    "mean_and_error",
    "moderated_error",
    "most_folds",
    "neighbor_counts",
    "neighborhoods",
    "overlap",
    "posterior_weights",
    "reliability",
    "residual_inflation",
    "robust_coordinates",
    "shared_gaussian",
    "shared_mixture",
    "standard_scale",
    "stratified_folds",
    "typicality",
    "weighted_fdr",
]
