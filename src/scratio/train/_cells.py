"""Cells as networks see them, standardised where they are read, so that the embedding is never copied whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scratio._blocks import is_in_memory, take_rows
from scratio._coordinates import Coordinates


class StandardisedCells:
    """Embedding, in coordinates of networks row by row as it is asked for.

    Parameters
    ----------
    source
        Array of shape (n_cells, d): of NumPy, or a dask, HDF5 or zarr array, of which only what is asked for is read.
    coordinates
        What the embedding is standardised by.
    """

    def __init__(self, source: Any, coordinates: Coordinates) -> None:
        self.source, self.coordinates = source, coordinates

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of dimensions."""
        return self.source.shape

    def __len__(self) -> int:
        return self.source.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Cells of the given rows, a tensor of integers of any shape; one pass over what is not in memory."""
        return self.standardise(take_rows(self.source, rows.numpy()))

    @property
    def is_in_memory(self) -> bool:
        """Whether rows can be taken at no cost."""
        return is_in_memory(self.source)

    def standardise(self, cells: np.ndarray) -> Tensor:
        """Standardised cells in single precision."""
        return torch.from_numpy(self.coordinates.forward(cells).astype(np.float32))
