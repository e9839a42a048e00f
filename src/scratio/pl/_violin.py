"""Log ratios by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes

from scratio._check import check_obs_key
from scratio._modality import takes_modality
from scratio.pl._base import LABEL, finish, new_axes, result_columns, signed_scale, style_of

FAR, MARGIN, BEYOND = 0.01, 0.25, 1.5
"""Share of a group's cells on either side that may lie far out; share of the other cells' range that is left free
beside it; times that the axis gets shorter by that."""


@takes_modality
def violin(
    adata: AnnData,
    groupby: str,
    *,
    key: str = "da",
    group: str | None = None,
    supported_only: bool = True,
    order: Sequence[str] | None = None,
    palette: Mapping[str, Any] | Sequence[Any] | str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw the distribution of the log ratio in each group.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` or :func:`scratio.tl.log_ratio`.
    groupby
        Column of ``obs`` with the groups, such as the cell type.
    key
        The result's ``key_added``.
    group
        One of several treatments that were compared; by default each cell's own.
    supported_only
        Whether to leave out cells without support.
    order
        Groups to draw, from top to bottom. By default all, the largest median on top.
    palette
        Colours of the groups, as in seaborn. By default the colour of the median.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :func:`seaborn.violinplot`.

    Returns
    -------
    Axes. The number of cells stands behind the name of each group. If a few cells lie so far out that they would
    squeeze the violins, the axis ends before them, and a number at its end says how many they are.

    Raises
    ------
    KeyError
        If the result, the group or the column is missing.
    TypeError
        If an argument is not one of seaborn's.
    ValueError
        If no cell has a value, or ``order`` names a group without cells.

    See Also
    --------
    scratio.pl.embedding : The log ratio of every cell.
    scratio.pl.beeswarm : What was tested across samples, by group.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=200, n_dims=2)
    >>> ax = scratio.pl.violin(adata, groupby="condition", key="true_log_ratio")
    >>> [label.get_text().split()[0] for label in ax.get_yticklabels()]
    ['treated', 'control']
    """
    values, support = result_columns(adata, key, group)
    names = check_obs_key(adata, groupby)
    used = values.notna() & names.notna()
    if support is not None and supported_only:
        used &= support
    table = pd.DataFrame({LABEL: values[used].to_numpy(dtype=float), groupby: names[used].astype(str).to_numpy()})
    if table.empty:
        raise ValueError(f"no cell has a log ratio with support and a label in obs[{groupby!r}]")
    medians = table.groupby(groupby)[LABEL].median().sort_values(ascending=False)
    rows = [str(name) for name in (medians.index if order is None else order)]
    if unknown := [name for name in rows if name not in medians]:
        raise ValueError(
            f"obs[{groupby!r}] has no cells with a log ratio in {unknown[0]!r}; found: {list(medians.index)}"
        )
    table = table[table[groupby].isin(rows)]
    defaults = {"inner": "quart", "linewidth": 0.8, "density_norm": "width", "cut": 0, "legend": False}
    fixed = ("x", "y", "hue", "hue_order", "orient")
    style = style_of("violin", sns.violinplot, kwargs, defaults, fixed=fixed)
    if palette is None:
        scale = signed_scale(table[LABEL].to_numpy())
        palette = dict(zip(medians.index, scale.colours(medians.to_numpy()), strict=True))
    low, high = _limits(table, groupby)
    is_inside = table[LABEL].between(low, high)
    ax = new_axes(ax, (6.0, 1.0 + 0.4 * len(rows)))
    sns.violinplot(
        table[is_inside], x=LABEL, y=groupby, order=rows, hue=groupby, hue_order=rows, palette=palette, ax=ax, **style
    )
    ax.axvline(0.0, color="0.3", linewidth=0.8, linestyle="--", zorder=0)
    sizes = table[groupby].value_counts()
    ax.set_yticks(range(len(rows)), [f"{name} ({sizes[name]:,})" for name in rows])
    ax.set(xlabel=LABEL, ylabel="")
    _mark_beyond(ax, table.loc[table[LABEL] < low, groupby], rows, is_left=True)
    _mark_beyond(ax, table.loc[table[LABEL] > high, groupby], rows, is_left=False)
    if title is not None:
        ax.set_title(title)
    return finish(ax, show, return_fig)


def _limits(table: pd.DataFrame, groupby: str) -> tuple[float, float]:
    """Ends of the axis: those of all cells, unless a few of every group would take a third of it and more."""
    ends = table[LABEL].min(), table[LABEL].max()
    inner = table.groupby(groupby)[LABEL].quantile(np.array([FAR, 1.0 - FAR])).unstack()
    low, high = inner.iloc[:, 0].min(), inner.iloc[:, 1].max()
    margin = MARGIN * (high - low)
    low, high = low - margin, high + margin
    return (low, high) if ends[1] - ends[0] > BEYOND * (high - low) > 0.0 else ends


def _mark_beyond(ax: Axes, groups: pd.Series, rows: Sequence[str], is_left: bool) -> None:
    """Write at the end of the axis how many cells of each group lie beyond it."""
    place, align = (0.0, "left") if is_left else (1.0, "right")
    for name, count in groups.value_counts().items():
        text = f"\N{BLACK LEFT-POINTING TRIANGLE} {count}" if is_left else f"{count} \N{BLACK RIGHT-POINTING TRIANGLE}"
        ax.text(
            place, rows.index(str(name)) - 0.3, text, transform=ax.get_yaxis_transform(), ha=align, va="center",
            fontsize="x-small", color="0.3",
        )  # fmt: skip
