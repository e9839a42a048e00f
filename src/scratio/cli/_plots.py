"""Figures of results, drawn by :mod:`scratio.pl`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
from anndata import AnnData
from matplotlib.figure import Figure

from scratio import pl
from scratio._atomic import atomic
from scratio.cli._summary import Result

DPI, PANEL, PER_ROW = 150, (5.5, 4.5), 4
TABLES = {"batch": "batch_effect", "combination": "combination_effect", "response": "treatment_response"}
"""Names of the plots that need no coordinates."""


def draw(result: Result, coordinates: Mapping[str, Any] | None, path: Path) -> None:
    """Draw a result into a file. The file appears complete or not at all.

    Parameters
    ----------
    result
        Result of the analysis.
    coordinates
        Two columns for each cell, by their key, for a plot of an embedding.
    path
        File. Its suffix decides the format.
    """
    # There may be no window system, and none is needed.
    plt.switch_backend("Agg")
    figure = _table(result) if coordinates is None else _embedding(result, coordinates)
    try:
        with atomic(path) as partial:
            figure.savefig(partial, dpi=DPI, bbox_inches="tight")
    finally:
        plt.close(figure)


def _table(result: Result) -> Figure:
    return cast(Figure, getattr(pl, TABLES[result.command])(result.adata, key=result.key_added).figure)


def _embedding(result: Result, coordinates: Mapping[str, Any]) -> Figure:
    """Draw one panel, or one panel for each of several treatments."""
    key, groups = result.key_added, result.groups
    ((basis, values),) = coordinates.items()
    tables = {name: table for name, table in result.adata.obsm.items() if name.startswith(f"{key}_") and groups}
    drawn = AnnData(obs=result.adata.obs, obsm={**tables, basis: values})
    if not groups:
        return cast(Figure, pl.embedding(drawn, key=key, basis=basis).figure)
    width = min(len(groups), PER_ROW)
    height = math.ceil(len(groups) / width)
    figure, axes = plt.subplots(
        height, width, figsize=(PANEL[0] * width, PANEL[1] * height), squeeze=False, layout="constrained"
    )
    for group, ax in zip(groups, axes.flat, strict=False):
        pl.embedding(drawn, key=key, group=group, basis=basis, ax=ax)
    for ax in axes.flat[len(groups) :]:
        ax.axis("off")
    return figure
