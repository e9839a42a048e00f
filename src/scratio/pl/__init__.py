"""Plots of results. They draw and compute nothing; each returns its Axes."""

from scratio.pl._batch_effect import batch_effect
from scratio.pl._beeswarm import beeswarm
from scratio.pl._calibration import calibration
from scratio.pl._combination_effect import combination_effect
from scratio.pl._compare_methods import compare_methods
from scratio.pl._covariate_curve import covariate_curve
from scratio.pl._driver_genes import driver_genes
from scratio.pl._embedding import embedding
from scratio.pl._history import history
from scratio.pl._neighborhoods import neighborhoods
from scratio.pl._regions import regions
from scratio.pl._sample_distance import sample_distance
from scratio.pl._samples import samples
from scratio.pl._spatial import spatial
from scratio.pl._translate import translate
from scratio.pl._treatment_response import treatment_response
from scratio.pl._violin import violin
from scratio.pl._volcano import volcano

__all__ = [
    "batch_effect",
    "beeswarm",
    "calibration",
    "combination_effect",
    "compare_methods",
    "covariate_curve",
    "driver_genes",
    "embedding",
    "history",
    "neighborhoods",
    "regions",
    "sample_distance",
    "samples",
    "spatial",
    "translate",
    "treatment_response",
    "violin",
    "volcano",
]
