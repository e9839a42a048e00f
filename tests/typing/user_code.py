"""Code of a user, which mypy accepts and Python runs: see test_typing.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import scratio
from scratio.model import ScRatio

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes


def new_cells() -> AnnData:
    return scratio.datasets.gaussians(n_cells=400, n_dims=2, random_state=0)


def ask_a_model(adata: AnnData) -> tuple[float, float]:
    ScRatio.setup_anndata(adata, obsm_key="X_pca", condition_keys=["condition"])
    model = ScRatio(adata, n_members=2)
    model.train(effort="quick", progress_bar=False)
    answer = model.log_ratio(numerator={"condition": "treated"}, denominator={"condition": "control"}, return_std=True)
    if isinstance(answer, np.ndarray):
        raise TypeError("return_std=True returns two arrays")
    values, errors = answer
    scratio.tl.log_ratio(adata, model=model, numerator={"condition": "treated"}, denominator={"condition": "control"})
    return float(values.mean()), float(errors.mean())


def compare(adata: AnnData, mod: str | None = None) -> pd.DataFrame:
    scratio.tl.differential_abundance(
        adata,
        condition_key="condition",
        treatment=["treated"],
        reference="control",
        effort="quick",
        mod=mod,
    )
    return scratio.get.table(adata, key="da", mod=mod)


def draw(adata: AnnData) -> Axes:
    axes: Axes = scratio.pl.embedding(adata, basis="X_pca", groupby="condition", mod=None, show=False, size=20)
    axes.set_title(f"scratio {scratio.__version__}")
    return scratio.pl.violin(adata, groupby="condition", show=False)
