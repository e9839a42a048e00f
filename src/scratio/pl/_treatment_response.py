"""Donors by treatments."""

from __future__ import annotations

from typing import Any

import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap

from scratio._modality import takes_modality
from scratio.pl._base import HEAT_MAP_FIXED, LABEL, LOWEST, finish, heat_map, new_axes, stored_result, style_of
from scratio.pl._trees import TREE, bar_gap, draw_above, draw_beside, order_of, set_title

SIDES = ("donors", "treatments")
CELL, ANNOTATED = 0.45, 12
"""Inches of a cell of the heat map, most columns with figures in the cells."""


@takes_modality
def treatment_response(
    adata: AnnData,
    *,
    key: str = "response",
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
    """Mean log ratio of the treated cells, donors by treatments, with dendrograms.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.treatment_response`.
    key
        The result's ``key_added``.
    cluster
        Whether to order rows and columns by similarity (average linkage) and to draw the trees; otherwise they are in
        alphabetical order.
    vmin, vmax
        Limits of the colour scale in nats, or percentiles such as ``"p99"``. By default the limit is the largest
        magnitude. Zero is the middle of the colours of values with a sign.
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
    Axes of the heat map; grey where a donor had no such treatment.

    Raises
    ------
    KeyError
        If the result is missing.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = np.where(np.arange(600) % 2, "d1", "d2")
    >>> scratio.tl.treatment_response(
    ...     adata, treatment_key="condition", donor_key="donor", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> ax = scratio.pl.treatment_response(adata)
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['treated']
    """
    result = stored_result(adata, key, "matrix", "treatment_response")
    matrix: pd.DataFrame = result["matrix"]
    trees: list[dict | None] = [result.get("trees", {}).get(side) if cluster else None for side in SIDES]
    orders = [order_of(tree, n) for tree, n in zip(trees, matrix.shape, strict=True)]
    shown = matrix.iloc[orders[0], orders[1]]
    defaults = {
        "annot": shown.shape[1] <= ANNOTATED,
        "fmt": ".1f",
    }
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    style = style_of("treatment_response", sns.heatmap, kwargs, defaults, fixed=HEAT_MAP_FIXED, artist=QuadMesh)
    ax = new_axes(ax, (3.5 + 1.4 * CELL * shown.shape[1], max(1.6 + CELL * shown.shape[0], LOWEST)))
    style["cbar_kws"] = {"pad": bar_gap(ax, trees[0]), **style.get("cbar_kws", {})}
    heat_map(shown, ax, label=f"mean {LABEL}", signed=True, vmin=vmin, vmax=vmax, cmap=cmap, **style)
    ax.set(xlabel="", ylabel="")
    if trees[0] is not None:
        draw_beside(ax, trees[0])
    if trees[1] is not None:
        draw_above(ax, trees[1])
    set_title(ax, title, 0.0 if trees[1] is None else TREE + 0.02)
    return finish(ax, show, return_fig)
