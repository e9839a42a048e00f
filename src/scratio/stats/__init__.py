"""Statistics on arrays: cross-fitting, closed-form densities, shrinkage, scaling, support, tests across samples."""

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
from scratio.stats._regions import log_abundance, regions
from scratio.stats._replicates import SampleTest, compare_pairs, compare_samples, group_contrast, weighted_fdr
from scratio.stats._scaling import local_scale
from scratio.stats._shrinkage import (
    Shrinkage,
    held_out_share,
    held_out_shrinkage,
    labels_are_silent,
    supported_terms,
    term_shrinkage,
)
from scratio.stats._summary import mean_and_error
from scratio.stats._support import overlap_support

__all__ = [
    "ConditionMixture",
    "SampleTest",
    "Shrinkage",
    "class_gaussian",
    "common_components",
    "common_responsibility",
    "compare_pairs",
    "compare_samples",
    "disjoint_parts",
    "group_contrast",
    "held_out_log_odds",
    "held_out_share",
    "held_out_shrinkage",
    "labels_are_silent",
    "local_scale",
    "log_abundance",
    "mean_and_error",
    "overlap_support",
    "regions",
    "shared_gaussian",
    "shared_mixture",
    "stratified_folds",
    "supported_terms",
    "term_shrinkage",
    "weighted_fdr",
]
