"""Training on Lightning: batches, loss, averaging, early stopping per member."""

from scratio.train._callbacks import SIGNIFICANT, paired_difference
from scratio.train._cells import StandardisedCells
from scratio.train._config import TrainConfig
from scratio.train._data import CellDataModule, MemberSplit
from scratio.train._fit import TrainResult, fit
from scratio.train._stale_ratio import FlowSettings, fit_stale_ratio

__all__ = [
    "SIGNIFICANT",
    "CellDataModule",
    "FlowSettings",
    "MemberSplit",
    "StandardisedCells",
    "TrainConfig",
    "TrainResult",
    "fit",
    "fit_stale_ratio",
    "paired_difference",
]
