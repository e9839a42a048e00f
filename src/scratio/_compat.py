"""The one place for imports that depend on the version of scvi-tools."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from anndata import AnnData
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField, NumericalObsField, ObsmField
from scvi.model.base import BaseModelClass

__all__ = [
    "AnnDataManager",
    "BaseModelClass",
    "CategoricalObsField",
    "LayerField",
    "NumericalObsField",
    "ObsmField",
    "mrvi_of",
]


def mrvi_of(adata: AnnData, sample_key: str) -> Any:
    """MrVI's model of counts, on torch: a class of its own in scvi-tools 1.4, the only one from 1.5 on.

    Raises
    ------
    ImportError
        If the MrVI of the installed scvi-tools does not learn.
    """
    found = version("scvi-tools")
    if found.split(".post")[0] == "1.4.0":
        raise ImportError(
            f"MrVI on torch does not learn in scvi-tools {found}: install scvi-tools>=1.4.1; 1.4.3, which needs Python "
            "3.12 or newer, corrects its architecture"
        )
    import scvi.external  # imports much that nothing else needs

    model = getattr(scvi.external, "TorchMRVI", None) or scvi.external.MRVI
    model.setup_anndata(adata, sample_key=sample_key)
    return model(adata)
