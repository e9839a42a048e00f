"""From a network to log densities, log ratios and samples (torch only)."""

from scratio.estimators._divergence import Divergence, normal_noise, rademacher_probes
from scratio.estimators._head import log_likelihoods_head, log_ratio_head
from scratio.estimators._ito import log_ratio_ito
from scratio.estimators._naive import log_density, log_ratio_naive
from scratio.estimators._ode import log_ratio_ode
from scratio.estimators._quadrature import log_ratio_quadrature
from scratio.estimators._sample import sample, translate
from scratio.estimators._solver import precision_of

__all__ = [
    "Divergence",
    "log_density",
    "log_likelihoods_head",
    "log_ratio_head",
    "log_ratio_ito",
    "log_ratio_naive",
    "log_ratio_ode",
    "log_ratio_quadrature",
    "normal_noise",
    "precision_of",
    "rademacher_probes",
    "sample",
    "translate",
]
