"""Neighbourhoods as a graph of their centres."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap

from scratio._modality import takes_modality
from scratio.pl._base import finish, new_axes, signed_scale, style_of
from scratio.pl._embedding import basis_of, name_axes, point_size
from scratio.pl._tested import areas, centres, is_called, tested

GRAPH, LINKED, WIDEST = "connectivities", 0.05, 1.6
"""Graph of the cells in ``obsp``; share of the links of a neighbourhood from which on an edge is drawn; its width."""
CELLS = "#ececec"


@takes_modality
def neighborhoods(
    adata: AnnData,
    *,
    key: str = "da",
    group: str | None = None,
    basis: str = "X_umap",
    max_qvalue: float = 0.1,
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
    """Draw the tested neighbourhoods as a graph: their centres in two dimensions, coloured by the effect.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` with a ``sample_key``, or of
        :func:`scratio.tl.association`.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the first.
    basis
        Coordinates in ``obsm``, with or without ``X_``.
    max_qvalue
        False discovery rate up to which a neighbourhood is significant and has a colour.
    vmin, vmax, cmap
        Limits of the colour scale in nats, or percentiles such as ``"p99"``, and a diverging colour map; ``color_map``
        means this too. Zero is always the middle.
    title
        Title. By default what was compared.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :meth:`matplotlib.axes.Axes.scatter`, of the centres.

    Returns
    -------
    Axes. A centre is the median of the neighbourhood's cells, and its size grows with their number. Neighbourhoods that
    are not significant are white. Lines join neighbourhoods whose cells are neighbours in the graph of
    :func:`scanpy.pp.neighbors`, if ``obsp`` has one.

    Raises
    ------
    KeyError
        If the result, the group or the coordinates are missing, or nothing was tested across samples.
    TypeError
        If an argument is not one of matplotlib's.
    ValueError
        If ``max_qvalue`` is not between 0 and 1.

    See Also
    --------
    scratio.pl.regions : Significant neighbourhoods that touch, with names.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=800, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = adata.obs["condition"].astype(str) + (np.arange(800) % 4).astype(str)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", sample_key="donor",
    ...     effort="quick",
    ... )
    >>> scratio.pl.neighborhoods(adata, basis="pca").get_title()
    'treated over control'
    """
    table, compared = tested(adata, key, group)
    called = is_called(table, max_qvalue)
    basis = basis_of(adata, basis)
    xy = np.asarray(adata.obsm[basis])[:, :2]
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    fixed = ("x", "y", "s", "c", "color", "facecolor", "facecolors", "norm")
    style = style_of("neighborhoods", Axes.scatter, kwargs, {"linewidths": 0.6, "edgecolors": "0.35"}, fixed=fixed)
    middle, size = centres(adata, key, xy, table), areas(table["n_cells"])
    scale = signed_scale(table["effect"].to_numpy(), vmin=vmin, vmax=vmax, cmap=cmap)
    ax = new_axes(ax, (5.5, 4.5))
    ax.scatter(xy[:, 0], xy[:, 1], s=point_size(len(xy)), color=CELLS, linewidths=0.0, rasterized=True, zorder=0)
    first, second, share = _edges(adata, key, table)
    widths = WIDEST * share / share.max(initial=LINKED)
    lines = LineCollection(list(np.stack([middle[first], middle[second]], axis=1)), linewidths=widths, color="0.82")
    lines.set_zorder(1)
    ax.add_collection(lines, autolim=False)
    ax.scatter(middle[~called, 0], middle[~called, 1], s=size[~called], color="white", zorder=2, **style)
    # The strongest effects lie on top.
    top = np.flatnonzero(called)[np.argsort(np.abs(table["effect"].to_numpy()[called]), kind="stable")]
    ax.scatter(
        middle[top, 0],
        middle[top, 1],
        s=size[top],
        color=scale.colours(table["effect"].to_numpy()[top]),
        zorder=3,
        **style,
    )
    name_axes(ax, basis)
    ax.set_title(compared if title is None else title)
    scale.bar(ax, f"effect where q \N{LESS-THAN OR EQUAL TO} {max_qvalue:g} (nats)")
    return finish(ax, show, return_fig)


def _edges(adata: AnnData, key: str, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of neighbourhoods that are linked in the graph of the cells, and the share of links that they hold."""
    nothing = np.zeros(0, dtype=int)
    if GRAPH not in adata.obsp or not len(table):
        return nothing, nothing, np.zeros(0)
    place = pd.Index(table["neighborhood"]).get_indexer(pd.Index(adata.obs[f"{key}_neighborhood"].astype(str)))
    links = adata.obsp[GRAPH].tocoo()
    inside = (place[links.row] >= 0) & (place[links.col] >= 0)
    between = np.zeros((len(table), len(table)))
    np.add.at(between, (place[links.row[inside]], place[links.col[inside]]), links.data[inside])
    share = between / np.maximum(between.sum(1, keepdims=True), np.finfo(float).tiny)
    share = np.maximum(share, share.T)
    first, second = np.nonzero(np.triu(share, k=1) >= LINKED)
    return first, second, share[first, second]
