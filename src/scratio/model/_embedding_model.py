"""Base of the models: registered cells, their standardised embedding, and the history of the training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from scratio._caller import quiet
from scratio._check import check_categories, check_numbers, check_source, check_spread, source_name
from scratio._compat import (
    AnnDataManager,
    BaseModelClass,
    CategoricalObsField,
    LayerField,
    NumericalObsField,
    ObsmField,
)
from scratio._constants import X
from scratio._coordinates import Coordinates
from scratio._summary import Summary
from scratio.conditions import ConditionSchema
from scratio.model import _saving
from scratio.stats import robust_coordinates
from scratio.train import StandardisedCells
from scratio.train._accelerator import device_of

EMBEDDING = "embedding"
MOST_NAMES = 8
"""Categories of a key up to which a summary names them."""


class EmbeddingModel(BaseModelClass):
    """A model of an embedding and conditions of cells."""

    COMPARES = True
    """Whether the model compares conditions, so that some key must have two different values."""

    adata: AnnData | None
    schema: ConditionSchema
    obsm_key: str
    coordinates: Coordinates
    training_: dict[str, Any]

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        obsm_key: str = "X_pca",
        condition_keys: Sequence[str],
        continuous_keys: Sequence[str] | None = None,
        sample_key: str | None = None,
        **kwargs,
    ) -> None:
        """Register the embedding and the conditions of the cells.

        Parameters
        ----------
        adata
            Cells. scvi-tools adds its bookkeeping to them (``obs["_scvi_*"]``, ``uns["_scvi_*"]``).
        obsm_key
            Key of ``obsm`` with the embedding, a dense and finite matrix of shape (n_cells, d). A dask, HDF5 or zarr
            array stays on disk and is streamed (:func:`scratio.io.read_lazy`). ``"X"`` is ``adata.X``, as in scanpy.
        condition_keys
            Categorical columns of ``obs`` to condition on.
        continuous_keys
            Numeric columns of ``obs`` to condition on, such as dose or age.
        sample_key
            Column of ``obs`` with the sample or donor. It becomes one more categorical key to condition on.
        **kwargs
            Arguments for scvi-tools.

        Raises
        ------
        KeyError
            If a key is missing.
        TypeError
            If ``adata`` is not an AnnData, the embedding is sparse or not numeric, or a continuous key is not numeric.
        ValueError
            If the embedding is not finite, not two-dimensional or equal for all cells, if a label is missing, or if a
            model that compares conditions has nothing to compare.
        """
        if isinstance(condition_keys, str):
            raise TypeError(f"condition_keys must be a list of keys, got the string {condition_keys!r}")
        categorical = [*condition_keys, *([sample_key] if sample_key else [])]
        continuous = list(continuous_keys or [])
        _check_setup(adata, obsm_key, categorical, continuous, compares=cls.COMPARES)
        setup_method_args = cls._get_setup_method_args(
            **{
                "cls": cls,
                "obsm_key": obsm_key,
                "condition_keys": list(condition_keys),
                "continuous_keys": continuous,
                "sample_key": sample_key,
            }
        )
        is_x = source_name(adata, obsm_key) == X
        fields = [
            LayerField(EMBEDDING, None, is_count_data=False) if is_x else ObsmField(EMBEDDING, obsm_key),
            # Numbered, since scvi-tools' registry takes no dots in its own names.
            *(CategoricalObsField(f"categorical_{k}", key) for k, key in enumerate(categorical)),
            *(NumericalObsField(f"continuous_{k}", key) for k, key in enumerate(continuous)),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        with quiet("scvi"):
            manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def embedding(self, adata: AnnData) -> np.ndarray:
        """Compute the standardised embedding of cells: centred, scaled, and compressed in the tails.

        Parameters
        ----------
        adata
            Cells.

        Returns
        -------
        Array of shape (n_cells, d), float32, in memory.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the embedding is missing, not a dense finite matrix, or of another dimension than the model's.
        """
        cells = self._standardised(adata)
        return cells.standardise(np.asarray(cells.source)).numpy()

    def _standardised(self, adata: AnnData, *, finite: bool = True) -> StandardisedCells:
        """Return the embedding so that blocks are standardised when they are read; nothing is copied into memory.

        Parameters
        ----------
        adata
            Cells.
        finite
            Whether to read the whole embedding first, to check that all entries are finite.
        """
        x = check_source(adata, self.obsm_key, finite=finite)
        if x.shape[1] != len(self.location):
            raise ValueError(
                f"{source_name(adata, self.obsm_key)} has {x.shape[1]} dimensions; the model was trained on "
                f"{len(self.location)}"
            )
        return StandardisedCells(x, self.coordinates)

    @property
    def location(self) -> np.ndarray:
        """Centre of each dimension of the embedding."""
        return self.coordinates.location

    @property
    def scale(self) -> np.ndarray:
        """Units of the embedding in one of the standardised coordinates, in the bulk of the cells."""
        return self.coordinates.scale

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.module.parameters()).device

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the networks to a device, where they score from then on. Results are on the CPU whatever the device.

        Parameters
        ----------
        device
            ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"cuda:1"`` or 1 for the second GPU, ``"mps"``, or a
            :class:`torch.device`.

        Raises
        ------
        ValueError
            If PyTorch does not find the device on this machine.
        """
        self.module.to(device_of(device))

    def _read_registry(self, adata: AnnData) -> None:
        """Read the schema of the conditions and the coordinates of the embedding from registered cells."""
        setup = self.adata_manager.registry["setup_args"]
        categorical = [*setup["condition_keys"], *([setup["sample_key"]] if setup["sample_key"] else [])]
        categories = {key: sorted(check_categories(adata, key).unique()) for key in categorical}
        continuous = {}
        for key in setup["continuous_keys"]:
            values = check_numbers(adata, key)
            continuous[key] = (float(values.mean()), float(values.std()) or 1.0)
        self.schema, self.obsm_key = ConditionSchema(categories, continuous), setup["obsm_key"]
        x = check_source(adata, self.obsm_key, finite=False)
        self.coordinates = self._coordinates_of(x)

    def summary(self) -> Summary:
        """Summarise the model: its embedding, its conditions, and what its training chose.

        Returns
        -------
        Summary that prints itself as text, or as HTML in a notebook.
        """
        keys = {**self.schema.categories, **dict.fromkeys(self.schema.continuous, ["a number"])}
        shown = {
            name: f"{len(values)} categories" if len(values) > MOST_NAMES else ", ".join(values)
            for name, values in keys.items()
        }
        cells = "none attached" if self.adata is None else str(self.adata.n_obs)
        facts = {"embedding": f"obsm[{self.obsm_key!r}], {len(self.location)} dimensions", "cells": cells}
        facts |= {f"condition {name}": values for name, values in shown.items()}
        facts["trained"] = "no; call train()"
        if self.is_trained_:
            chosen = {name: value for name, value in self.training_.items() if isinstance(value, int | float | str)}
            facts["trained"] = ", ".join(f"{name} {_short(value)}" for name, value in chosen.items())
            last = {name: frame.iloc[-1].mean() for name, frame in (self.history_ or {}).items() if len(frame)}
            facts["losses at the end"] = ", ".join(f"{name} {_short(value)}" for name, value in last.items())
        return Summary(type(self).__name__, facts)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def fingerprint(self) -> str:
        """Compute a hash of the weights, which identifies this model.

        The hash leaves out the denoiser, because it may be trained later and follows from the cells and the seed.

        Returns
        -------
        64 hexadecimal digits.
        """
        kept = {name: value for name, value in self._weights().items() if not name.startswith("network.marginal.")}
        return hashlib.sha256(_saving.serialised(kept)).hexdigest()

    def _weights(self) -> dict[str, Tensor]:
        """Return all tensors that results depend on."""
        tensors = {f"network.{name}": value for name, value in self.module.state_dict().items()}
        return tensors | {name: torch.from_numpy(value) for name, value in vars(self.coordinates).items()}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Restore what every saved model has, before its networks are made."""
        self.schema, self.obsm_key = ConditionSchema.from_dict(description["schema"]), description["obsm_key"]
        location, scale = tensors["location"].numpy(), tensors["scale"].numpy()
        self.coordinates = Coordinates.linear(location, scale)
        if "tail" in tensors:
            self.coordinates = Coordinates(location, scale, tensors["tail"].numpy())

    def _restore_training(self, description: dict[str, Any], adata: AnnData | None) -> None:
        """Restore the training of a saved model that has its networks, and attach cells that fit the model."""
        self.is_trained_, self.training_ = description["is_trained"], description["training"]
        self.history_ = {name: from_plain(table) for name, table in description["history"].items()}
        if adata is not None:
            self._standardised(adata)
            self.schema.check_cells(adata)
            self._adata = adata

    @staticmethod
    def _coordinates_of(x: Any) -> Coordinates:
        """Coordinates for cells (n, d), in memory or not."""
        return robust_coordinates(x, np.random.default_rng(0))


def _check_setup(
    adata: AnnData, obsm_key: str, categorical: list[str], continuous: list[str], *, compares: bool
) -> None:
    check_spread(check_source(adata, obsm_key), source_name(adata, obsm_key))
    keys = [*categorical, *continuous]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise ValueError(f"keys registered twice: {sorted(twice)}")
    n_different = [check_categories(adata, key).nunique() for key in categorical]
    n_different += [len(np.unique(check_numbers(adata, key))) for key in continuous]
    if compares and max(n_different, default=0) < 2:
        found = {key: sorted(adata.obs[key].astype(str).unique()) for key in keys}
        raise ValueError(f"nothing to compare: no key has two different values; found: {found}")


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_plain(frame: pd.DataFrame) -> dict[str, list]:
    """A table by step as plain data."""
    return {"step": frame.index.tolist(), **{str(name): column.tolist() for name, column in frame.items()}}


def from_plain(table: dict[str, list]) -> pd.DataFrame:
    """Inverse of :func:`to_plain`."""
    return pd.DataFrame(table).set_index("step")
