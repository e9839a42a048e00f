"""Donors by treatments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap

from scratio._modality import takes_modality
from scratio.pl._base import HEAT_MAP_FIXED, LABEL, LOWEST, finish, heat_map, new_axes, stored_result, style_of

SIDES = ("donors", "treatments")
CELL, TREE, ANNOTATED = 0.45, 0.18, 12
"""Inches of a cell of the heat map, share of the axes for a dendrogram, most columns with figures in the cells."""


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
    orders = [
        np.arange(n) if tree is None else np.asarray(tree["order"]) for tree, n in zip(trees, matrix.shape, strict=True)
    ]
    shown = matrix.iloc[orders[0], orders[1]]
    defaults = {
        "annot": shown.shape[1] <= ANNOTATED,
        "fmt": ".1f",
        "cbar_kws": {"pad": 0.04 if trees[0] is None else TREE + 0.06},
    }
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    style = style_of("treatment_response", sns.heatmap, kwargs, defaults, fixed=HEAT_MAP_FIXED, artist=QuadMesh)
    ax = new_axes(ax, (3.5 + 1.4 * CELL * shown.shape[1], max(1.6 + CELL * shown.shape[0], LOWEST)))
    heat_map(shown, ax, label=f"mean {LABEL}", signed=True, vmin=vmin, vmax=vmax, cmap=cmap, **style)
    ax.set(xlabel="", ylabel="")
    if trees[0] is not None:
        side = ax.inset_axes((1.02, 0.0, TREE, 1.0))
        for position, height in _brackets(trees[0]):
            side.plot(height, position, color="0.3", linewidth=1.0)
        side.set_ylim(shown.shape[0], 0.0)
        side.axis("off")
    if trees[1] is not None:
        top = ax.inset_axes((0.0, 1.02, 1.0, TREE))
        for position, height in _brackets(trees[1]):
            top.plot(position, height, color="0.3", linewidth=1.0)
        top.set_xlim(0.0, shown.shape[1])
        top.axis("off")
    if title is not None:
        # Above the tree, a share of the axes in height; matplotlib makes room for a distance, but not for a place.
        ax.figure.canvas.figure.draw_without_rendering()
        tree = 0.0 if trees[1] is None else (TREE + 0.02) * ax.get_window_extent().height * 72.0 / ax.figure.dpi
        ax.set_title(title, pad=6.0 + tree)
    return finish(ax, show, return_fig)


def _brackets(tree: dict) -> list[tuple[list[float], list[float]]]:
    """Positions and heights of the bracket of every merger; leaves lie in the middle of their row or column."""
    order = np.asarray(tree["order"])
    middle = dict(zip(order.tolist(), (np.arange(len(order)) + 0.5).tolist(), strict=True))
    height = dict.fromkeys(order.tolist(), 0.0)
    brackets = []
    for index, (one, other, distance, _) in enumerate(np.asarray(tree["linkage"])):
        ends = int(one), int(other)
        places, below = [middle[end] for end in ends], [height[end] for end in ends]
        brackets.append(
            ([places[0], places[0], places[1], places[1]], [below[0], float(distance), float(distance), below[1]])
        )
        middle[len(order) + index], height[len(order) + index] = sum(places) / 2.0, float(distance)
    return brackets
