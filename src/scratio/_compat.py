"""The one place for imports that depend on the version of scvi-tools."""

from __future__ import annotations

from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, NumericalObsField, ObsmField
from scvi.model.base import BaseModelClass

__all__ = ["AnnDataManager", "BaseModelClass", "CategoricalObsField", "NumericalObsField", "ObsmField"]
