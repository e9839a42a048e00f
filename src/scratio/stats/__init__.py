"""Statistics on arrays: cross-fitting folds, closed-form densities, shrinkage, scaling and support."""

from scratio.stats._classifier import held_out_log_odds
from scratio.stats._folds import disjoint_parts, stratified_folds
from scratio.stats._mixtures import (
    ConditionMixture,
    class_gaussian,
    common_components,
    common_responsibility,
    shared_gaussian,
    shared_mixture,
)
from scratio.stats._scaling import local_scale
from scratio.stats._shrinkage import Shrinkage, held_out_share, held_out_shrinkage, labels_are_silent
from scratio.stats._summary import mean_and_error
from scratio.stats._support import overlap_support

__all__ = [
    "ConditionMixture",
    "Shrinkage",
    "class_gaussian",
    "common_components",
    "common_responsibility",
    "disjoint_parts",
    "held_out_log_odds",
    "held_out_share",
    "held_out_shrinkage",
    "labels_are_silent",
    "local_scale",
    "mean_and_error",
    "overlap_support",
    "shared_gaussian",
    "shared_mixture",
    "stratified_folds",
]
