"""Networks: conditions in, velocity, score and denoiser out (torch only)."""

from scratio.module._base import Flow, FlowNetwork, FlowWithDivergence, forward_mode_divergence
from scratio.module._closed_form import ClosedFormDensities
from scratio.module._condition import MARGINAL, Condition, all_but
from scratio.module._heads import PaperHeads, ResidualHeads
from scratio.module._layers import select_members
from scratio.module._perceptron import Perceptron
from scratio.module._potential import PotentialNetwork
from scratio.module._prior import PRIORS, CellPrior, GaussianPrior, Prior, UniformPrior
from scratio.module._stale_ratio import DIVERGENCES, LOSSES, StaleRatio

__all__ = [
    "DIVERGENCES",
    "LOSSES",
    "MARGINAL",
    "PRIORS",
    "CellPrior",
    "ClosedFormDensities",
    "Condition",
    "Flow",
    "FlowNetwork",
    "FlowWithDivergence",
    "GaussianPrior",
    "PaperHeads",
    "Perceptron",
    "PotentialNetwork",
    "Prior",
    "ResidualHeads",
    "StaleRatio",
    "UniformPrior",
    "all_but",
    "forward_mode_divergence",
    "select_members",
]
