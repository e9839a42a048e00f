"""Training on Lightning: batches, loss, averaging, early stopping per member."""

from scratio.train._cells import StandardisedCells
from scratio.train._config import TrainConfig
from scratio.train._data import CellDataModule, MemberSplit
from scratio.train._fit import TrainResult, fit

__all__ = [
    "CellDataModule",
    "MemberSplit",
    "StandardisedCells",
    "TrainConfig",
    "TrainResult",
    "fit",
]
