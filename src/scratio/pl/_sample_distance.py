"""Samples by samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, to_rgb
from matplotlib.patches import Patch

from scratio._check import check_obs_key
from scratio._modality import takes_modality
from scratio.pl._base import (
    HEAT_MAP_FIXED,
    LOWEST,
    UNSUPPORTED,
    finish,
    heat_map,
    new_axes,
    stored_result,
    style_of,
)
from scratio.pl._trees import TREE, bar_gap, draw_beside, order_of, set_title

CELL, LARGEST, ANNOTATED = 0.4, 12.0, 10
"""Inches of a cell of the heat map and of the whole at most, most samples with numbers in the cells."""
NAMED = 60
"""Most samples whose names are all written."""
STRIP, GAP, LINE, COLUMNS = 0.14, 0.04, 0.26, 4
"""Inches of the strip that colours the samples by group, of the gap below it, and of a line of its legend; columns of
the legend."""


@takes_modality
def sample_distance(
    adata: AnnData,
    groupby: str | None = None,
    *,
    key: str = "sample_distance",
    cluster: bool = True,
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    cmap: str | Colormap | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw the distances between samples as a heat map, with similar samples side by side.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.sample_distance`.
    groupby
        Column of ``obs`` with one value for all cells of a sample, for example the condition. A strip above the heat
        map has a colour for each value: those of ``uns[groupby + "_colors"]`` if scanpy has set them.
    key
        The result's ``key_added``.
    cluster
        Whether to order the samples by similarity (average linkage) and to draw the tree; otherwise they are in
        alphabetical order.
    vmin, vmax
        Limits of the colour scale in nats, or percentiles such as ``"p95"``. By default from 0 to the largest distance.
    cmap
        Colour map; ``color_map`` means this too.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :func:`seaborn.heatmap`.

    Returns
    -------
    Axes of the heat map.

    Raises
    ------
    KeyError
        If the result is missing, or ``obs`` has no such column.
    ValueError
        If cells of one sample have different values of ``groupby``.

    See Also
    --------
    scratio.get.table : The numbers, with their standard errors.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["sample"] = adata.obs["condition"].astype(str) + (np.arange(600) % 2).astype(str)
    >>> scratio.tl.sample_distance(
    ...     adata, sample_key="sample", train_kwargs={"max_steps": 20, "progress_bar": False}
    ... )
    >>> ax = scratio.pl.sample_distance(adata, "condition")
    >>> len(ax.get_xticklabels())
    4
    """
    result = stored_result(adata, key, "distance", "sample_distance")
    matrix: pd.DataFrame = result["distance"]
    tree = result.get("tree") if cluster else None
    order = order_of(tree, len(matrix))
    shown = matrix.iloc[order, order].rename_axis(index=None, columns=None)
    groups = None if groupby is None else _groups(adata, groupby, result, list(map(str, shown.index)))
    largest = float(np.nanmax(shown.to_numpy(dtype=float)))
    defaults: dict[str, Any] = {
        "annot": len(shown) <= ANNOTATED,
        # Two digits of the largest.
        "fmt": ".2f" if largest < 1.0 else ".1f" if largest < 10.0 else ".0f",
        "linewidths": 0.5 if len(shown) <= NAMED else 0.0,
    }
    if len(shown) <= NAMED:
        defaults |= {"xticklabels": True, "yticklabels": True}
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    style = style_of("sample_distance", sns.heatmap, kwargs, defaults, fixed=HEAT_MAP_FIXED, artist=QuadMesh)
    side = min(max(CELL * len(shown), LOWEST), LARGEST)
    ax = new_axes(ax, (2.4 + (1.0 + TREE) * side, 1.2 + side))
    style["cbar_kws"] = {"pad": bar_gap(ax, tree), "shrink": 0.8, **style.get("cbar_kws", {})}
    heat_map(shown, ax, label="distance (nats)", signed=False, vmin=vmin, vmax=vmax, cmap=cmap, **style)
    ax.set(xlabel="", ylabel="")
    if tree is not None:
        draw_beside(ax, tree)
    height = (STRIP + GAP) / side
    if groups is not None:
        _strip(ax, groups, _colours(adata, str(groupby), groups), height)
        height += LINE * math.ceil(len(set(groups)) / COLUMNS) / side
    set_title(ax, title, 0.0 if groups is None else height)
    return finish(ax, show, return_fig)


def _groups(adata: AnnData, groupby: str, result: Any, samples: list[str]) -> list[str]:
    """Value of ``groupby`` of every sample."""
    sample_key = str(result["params"]["sample_key"])
    values = check_obs_key(adata, groupby).astype(str).groupby(check_obs_key(adata, sample_key).astype(str).to_numpy())
    if (values.nunique().reindex(samples) > 1).any():
        name = values.nunique().reindex(samples).idxmax()
        raise ValueError(
            f"obs[{groupby!r}] must have one value for all cells of a sample; {name!r} in obs[{sample_key!r}] has "
            f"{sorted(values.get_group(name).unique())[:5]}"
        )
    if not set(samples) & set(values.groups):
        raise ValueError(
            f"obs[{sample_key!r}] has none of the samples of the result, which are {samples[:5]}; it has "
            f"{sorted(values.groups)[:5]}"
        )
    # Samples whose cells have been taken away since have no value.
    return values.first().reindex(samples).fillna("").tolist()


def _colours(adata: AnnData, groupby: str, groups: list[str]) -> dict[str, Any]:
    """Colour of each value: scanpy's, if it has one for each category."""
    column, stored = adata.obs[groupby], list(adata.uns.get(f"{groupby}_colors", []))
    names = list(map(str, column.cat.categories)) if isinstance(column.dtype, pd.CategoricalDtype) else []
    if not names or len(stored) != len(names):
        names = sorted(set(groups) - {""})
        stored = sns.color_palette("colorblind" if len(names) <= 10 else "husl", len(names))
    found = dict(zip(names, stored, strict=True))
    return {name: found.get(name, UNSUPPORTED) for name in groups}


def _strip(ax: Axes, groups: list[str], colours: dict[str, Any], height: float) -> None:
    """Draw a strip of colours above the heat map, and say what they mean."""
    share = STRIP / (STRIP + GAP)
    strip = ax.inset_axes((0.0, 1.0 + height * (1.0 - share), 1.0, height * share))
    strip.imshow(np.array([[to_rgb(colours[name]) for name in groups]]), aspect="auto", interpolation="nearest")
    strip.axis("off")
    handles = [Patch(color=colour, label=name) for name, colour in sorted(colours.items()) if name]
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0 + height), "borderaxespad": 0.2}
    ax.legend(handles=handles, ncols=COLUMNS, frameon=False, fontsize="small", **place)
