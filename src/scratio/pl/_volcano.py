"""Effects of neighbourhoods against their significance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scratio._modality import takes_modality
from scratio.pl._base import UNSUPPORTED, finish, new_axes, signed_scale, style_of
from scratio.pl._names import write_names
from scratio.pl._tested import EFFECT, annotated, areas, is_called, tested


@takes_modality
def volcano(
    adata: AnnData,
    groupby: str | None = None,
    *,
    key: str = "da",
    group: str | None = None,
    max_qvalue: float = 0.1,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw the effect of every neighbourhood across samples against its q-value.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` with a ``sample_key``, or of
        :func:`scratio.tl.association`.
    groupby
        Column of ``obs``, such as the cell type. The most significant neighbourhood of each group and each sign gets
        the group's name.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the first.
    max_qvalue
        False discovery rate up to which a neighbourhood is significant and has a colour.
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
    Axes. Red neighbourhoods are more frequent under treatment, blue ones less; grey ones are not significant. The size
    of a point grows with its number of cells. Without q-values, as with fewer than three samples of a group, the axis
    shows p-values, and all points are grey.

    Raises
    ------
    KeyError
        If the result, the group or the column is missing, or nothing was tested across samples.
    TypeError
        If an argument is not one of matplotlib's.
    ValueError
        If ``max_qvalue`` is not between 0 and 1.

    See Also
    --------
    scratio.pl.beeswarm : The effects by group.
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
    >>> ax = scratio.pl.volcano(adata)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('effect across samples (nats)', '-log10 q-value')
    """
    table, compared = tested(adata, key, group)
    called = is_called(table, max_qvalue)
    labels = None if groupby is None else annotated(adata, key, groupby, table)
    defaults = {"linewidths": 0.3, "edgecolors": "white"}
    fixed = ("x", "y", "s", "c", "color", "facecolor", "facecolors", "cmap", "norm", "vmin", "vmax")
    style = style_of("volcano", Axes.scatter, kwargs, defaults, fixed=fixed)
    measure = "qvalue" if table["qvalue"].notna().any() else "pvalue"
    values = table[measure].astype(float)
    height = -np.log10(values.clip(lower=values[values > 0.0].min()))
    ax = new_axes(ax, (5.2, 4.6))
    colours = signed_scale(table["effect"].to_numpy()).colours(table["effect"].to_numpy())
    size = areas(table["n_cells"])
    ax.scatter(table["effect"][~called], height[~called], s=size[~called], color=UNSUPPORTED, **style)
    ax.scatter(table["effect"][called], height[called], s=size[called], c=colours[called], **style)
    if measure == "qvalue":
        ax.axhline(-np.log10(max_qvalue), color="0.3", linewidth=0.8, linestyle="--", zorder=0)
    ax.axvline(0.0, color="0.3", linewidth=0.8, zorder=0)
    ax.margins(0.08)
    ax.set(xlabel=EFFECT, ylabel="-log10 q-value" if measure == "qvalue" else "-log10 p-value (no q-values)")
    ax.set_title(compared if title is None else title)
    _legend(ax, table["effect"].to_numpy(), called, colours, max_qvalue)
    if labels is not None and called.any():
        write_names(ax, _named(table["effect"][called], height[called], labels[called]))
    return finish(ax, show, return_fig)


def _legend(ax: Axes, effect: np.ndarray, called: np.ndarray, colours: np.ndarray, max_qvalue: float) -> None:
    """Count what is significant, and say what a point is."""
    rows = [("more frequent", called & (effect > 0.0)), ("less frequent", called & (effect < 0.0))]
    handles = []
    for name, chosen in rows:
        if chosen.any():
            strongest = colours[np.flatnonzero(chosen)[np.abs(effect[chosen]).argmax()]]
            handles.append(_point(strongest, f"{name}, q \N{LESS-THAN OR EQUAL TO} {max_qvalue:g} ({chosen.sum()})"))
    handles.append(_point(UNSUPPORTED, f"not significant ({(~called).sum()})"))
    legend = ax.legend(
        handles=handles, title="neighbourhoods; size: cells", fontsize="small", title_fontsize="small", frameon=False,
        loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left",
    )  # fmt: skip
    legend.set_in_layout(True)


def _point(colour: Any, label: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=colour, label=label)


def _named(effect: pd.Series, height: pd.Series, labels: np.ndarray) -> dict[str, tuple[float, float]]:
    """Position of the most significant neighbourhood of each label and sign, by its name."""
    table = pd.DataFrame({"x": effect, "y": height, "label": labels, "sign": np.sign(effect), "size": effect.abs()})
    first = table.sort_values(["y", "size"], ascending=False).drop_duplicates(["label", "sign"])
    found: dict[str, tuple[float, float]] = {}
    for row in first.itertuples():
        # A label on both sides is written twice; a space keeps the two apart.
        found[row.label if row.label not in found else f"{row.label} "] = (row.x, row.y)
    return found
