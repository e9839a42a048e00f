"""Networks: conditions in, velocity, score and denoiser out (torch only)."""

from scratio.module._base import Flow, FlowNetwork, FlowWithDivergence, forward_mode_divergence
from scratio.module._closed_form import ClosedFormDensities
from scratio.module._condition import MARGINAL, Condition, all_but
from scratio.module._heads import PaperHeads, ResidualHeads
from scratio.module._layers import select_members
from scratio.module._potential import PotentialNetwork

__all__ = [
    "MARGINAL",
    "ClosedFormDensities",
    "Condition",
    "Flow",
    "FlowNetwork",
    "FlowWithDivergence",
    "PaperHeads",
    "PotentialNetwork",
    "ResidualHeads",
    "all_but",
    "forward_mode_divergence",
    "select_members",
]
