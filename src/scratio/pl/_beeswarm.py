"""Effects of neighbourhoods by annotation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from scratio._modality import takes_modality
from scratio.pl._base import UNSUPPORTED, finish, new_axes, signed_scale, style_of
from scratio.pl._tested import EFFECT, annotated, is_called, tested

N_BINS, WIDEST = 60, 0.42
"""Columns of points over the axis; half of a row's height."""


@takes_modality
def beeswarm(
    adata: AnnData,
    groupby: str,
    *,
    key: str = "da",
    group: str | None = None,
    max_qvalue: float = 0.1,
    order: Sequence[str] | None = None,
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
    """Draw the effect of every neighbourhood across samples, by cell type or another annotation.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` with a ``sample_key``, or of
        :func:`scratio.tl.association`.
    groupby
        Column of ``obs``, such as the cell type. A neighbourhood belongs to the group that holds at least half of its
        cells, and to the row "mixed" if there is none.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the first.
    max_qvalue
        False discovery rate up to which a neighbourhood is significant and has a colour.
    order
        Groups to draw, from top to bottom. By default all, the largest median effect on top.
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
        For :meth:`matplotlib.axes.Axes.scatter`.

    Returns
    -------
    Axes. A point is a neighbourhood; grey ones are not significant. A black line marks the median of a row, and the
    number of its neighbourhoods stands behind its name.

    Raises
    ------
    KeyError
        If the result, the group or the column is missing, or nothing was tested across samples; then
        :func:`scratio.pl.violin` draws the log ratios of the cells.
    TypeError
        If an argument is not one of matplotlib's.
    ValueError
        If ``max_qvalue`` is not between 0 and 1, or ``order`` names a group without neighbourhoods.

    See Also
    --------
    scratio.pl.volcano : Effects against q-values.
    scratio.get.neighborhoods : The numbers.

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
    >>> scratio.pl.beeswarm(adata, "condition").get_xlabel()
    'effect across samples (nats)'
    """
    table, compared = tested(adata, key, group)
    table["label"] = annotated(adata, key, groupby, table)
    called = is_called(table, max_qvalue)
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    fixed = ("x", "y", "c", "color", "facecolor", "facecolors", "norm")
    style = style_of(
        "beeswarm", Axes.scatter, kwargs, {"s": 22.0, "linewidths": 0.3, "edgecolors": "white"}, fixed=fixed
    )
    medians = table.groupby("label")["effect"].median().sort_values(ascending=False)
    rows = [str(name) for name in (medians.index if order is None else order)]
    if unknown := [name for name in rows if name not in medians]:
        raise ValueError(f"no neighbourhood belongs to {unknown[0]!r}; found: {list(medians.index)}")
    scale = signed_scale(table["effect"].to_numpy(), vmin=vmin, vmax=vmax, cmap=cmap)
    bins = np.linspace(table["effect"].min(), table["effect"].max(), N_BINS + 1)
    ax = new_axes(ax, (6.4, 1.2 + 0.5 * len(rows)))
    for row, name in enumerate(rows):
        own = (table["label"] == name).to_numpy()
        height = row + _offsets(table["effect"][own].to_numpy(), called[own], bins)
        for is_shown in (False, True):
            chosen = called[own] == is_shown
            effect = table["effect"][own].to_numpy()[chosen]
            colours = scale.colours(effect) if is_shown else UNSUPPORTED
            ax.scatter(effect, height[chosen], color=colours, zorder=2 + is_shown, **style)
        ax.plot([medians[name]] * 2, [row - WIDEST, row + WIDEST], color="black", linewidth=1.2, zorder=4)
    ax.axvline(0.0, color="0.3", linewidth=0.8, linestyle="--", zorder=0)
    sizes = table["label"].value_counts()
    ax.set_yticks(range(len(rows)), [f"{name} ({sizes[name]})" for name in rows])
    ax.set(xlabel=EFFECT, ylim=(len(rows) - 0.5, -0.5))
    ax.set_title(compared if title is None else title)
    scale.bar(ax, f"effect where q \N{LESS-THAN OR EQUAL TO} {max_qvalue:g} (nats)")
    return finish(ax, show, return_fig)


def _offsets(effect: np.ndarray, called: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Heights of points in their row: those of a column alternate above and below, the significant ones outside."""
    column = np.digitize(effect, bins[1:-1])
    order = np.lexsort((called, column))
    rank = pd.Series(np.ones(len(effect))).groupby(column[order]).cumsum().to_numpy() - 1.0
    place = np.ceil(rank / 2.0) * np.where(rank % 2.0, 1.0, -1.0)
    offsets = np.empty(len(effect))
    offsets[order] = place * min(0.12, WIDEST / max(np.abs(place).max(initial=0.0), 1.0))
    return offsets
