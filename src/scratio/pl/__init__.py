"""Plots of results. They draw and compute nothing; each returns its Axes."""

from scratio.pl._batch_effect import batch_effect
from scratio.pl._calibration import calibration
from scratio.pl._combination_effect import combination_effect
from scratio.pl._compare_methods import compare_methods
from scratio.pl._covariate_curve import covariate_curve
from scratio.pl._driver_genes import driver_genes
from scratio.pl._embedding import embedding
from scratio.pl._history import history
from scratio.pl._treatment_response import treatment_response
from scratio.pl._violin import violin

__all__ = [
    "batch_effect",
    "calibration",
    "combination_effect",
    "compare_methods",
    "covariate_curve",
    "driver_genes",
    "embedding",
    "history",
    "treatment_response",
    "violin",
]
