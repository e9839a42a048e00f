"""Training on Lightning: batches, loss, averaging, early stopping per member."""

from scratio.train._callbacks import SIGNIFICANT, paired_difference
from scratio.train._cells import StandardisedCells
from scratio.train._config import TrainConfig
from scratio.train._data import CellDataModule, MemberSplit
from scratio.train._fit import TrainResult, fit

__all__ = [
    "SIGNIFICANT",
    "CellDataModule",
    "MemberSplit",
    "StandardisedCells",
    "TrainConfig",
    "TrainResult",
    "fit",
    "paired_difference",
]
