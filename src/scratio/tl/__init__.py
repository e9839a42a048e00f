"""One call per analysis: AnnData in, results in its ``obs`` and ``uns``."""

from scratio.tl._association import association
from scratio.tl._batch_effect import batch_effect
from scratio.tl._combination_effect import combination_effect
from scratio.tl._compare_methods import compare_methods
from scratio.tl._covariate_curve import covariate_curve
from scratio.tl._differential_abundance import differential_abundance
from scratio.tl._driver_genes import driver_genes
from scratio.tl._log_ratio import log_ratio
from scratio.tl._regions import regions
from scratio.tl._sample_distance import sample_distance
from scratio.tl._summary import summary
from scratio.tl._translate import translate
from scratio.tl._treatment_response import treatment_response

__all__ = [
    "association",
    "batch_effect",
    "combination_effect",
    "compare_methods",
    "covariate_curve",
    "differential_abundance",
    "driver_genes",
    "log_ratio",
    "regions",
    "sample_distance",
    "summary",
    "translate",
    "treatment_response",
]
