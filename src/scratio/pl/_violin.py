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

FENCE, FEW, MARGIN, BEYOND = 3.0, 0.05, 0.05, 1.5
"""Interquartile ranges beyond the quartiles from which on a cell is far out; share of a group's cells that may be far
out, or one cell; share of the other cells' range that is left free beside it; times that the axis gets shorter."""
MOST_GROUPS = 100
"""Largest number of violins. A number of the cells has thousands of values, which would take minutes to draw."""
WIDTH, LETTERS, LETTER = 6.0, 25, 0.075
"""Width in inches of the figure for names of so many letters, and of each further letter."""


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
    mod: str | None = None,
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
        If no cell has a value, ``order`` names a group without cells, or there are more than 100 groups.

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
    used &= np.isfinite(values.to_numpy(dtype=float, na_value=np.nan))
    used = used.to_numpy(dtype=bool)
    table = pd.DataFrame({LABEL: values[used].to_numpy(dtype=float), "group": names[used].astype(str).to_numpy()})
    if table.empty:
        raise ValueError(f"no cell has a log ratio with support and a label in obs[{groupby!r}]")
    medians = table.groupby("group")[LABEL].median().sort_values(ascending=False)
    rows = _rows(groupby, list(medians.index), order)
    table = table[table["group"].isin(rows)]
    defaults = {"inner": "quart", "linewidth": 0.8, "density_norm": "width", "cut": 0, "legend": False}
    fixed = ("x", "y", "hue", "hue_order", "orient")
    style = style_of("violin", sns.violinplot, kwargs, defaults, fixed=fixed)
    if palette is None:
        scale = signed_scale(table[LABEL].to_numpy())
        palette = dict(zip(medians.index, scale.colours(medians.to_numpy()), strict=True))
    elif isinstance(palette, Mapping):
        palette = {str(name): colour for name, colour in palette.items()}
    low, high = _limits(table)
    is_inside = table[LABEL].between(low, high)
    longest = max(len(name) for name in rows)
    ax = new_axes(ax, (WIDTH + LETTER * max(0, longest - LETTERS), 1.0 + 0.4 * len(rows)))
    sns.violinplot(
        table[is_inside], x=LABEL, y="group", order=rows, hue="group", hue_order=rows, palette=palette, ax=ax, **style
    )
    ax.axvline(0.0, color="0.3", linewidth=0.8, linestyle="--", zorder=0)
    sizes = table["group"].value_counts()
    ax.set_yticks(range(len(rows)), [f"{name} ({sizes[name]:,})" for name in rows], parse_math=False)
    ax.set(xlabel=LABEL, ylabel="")
    _mark_beyond(ax, table.loc[table[LABEL] < low, "group"], rows, is_left=True)
    _mark_beyond(ax, table.loc[table[LABEL] > high, "group"], rows, is_left=False)
    if title is not None:
        ax.set_title(title)
    return finish(ax, show, return_fig)


def _rows(groupby: str, found: list[str], order: Sequence[str] | None) -> list[str]:
    """Groups to draw, from top to bottom: those of the order, or all that were found."""
    rows = list(dict.fromkeys(str(name) for name in (found if order is None else order)))
    if not rows:
        raise ValueError("order is an empty list; name groups, or leave order out")
    if unknown := [name for name in rows if name not in found]:
        raise ValueError(f"obs[{groupby!r}] has no cells with a log ratio in {unknown[0]!r}; found: {found}")
    if len(rows) > MOST_GROUPS:
        raise ValueError(
            f"obs[{groupby!r}] has {len(rows):,} values, too many for a violin each (at most {MOST_GROUPS}); name some "
            "in order, or make categories of numbers with pandas.cut"
        )
    return rows


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: those of all cells, unless a few cells that are far out would take a third of it and more."""
    ends = table[LABEL].min(), table[LABEL].max()
    inner = np.array([_inner_ends(values.to_numpy()) for _, values in table.groupby("group")[LABEL]])
    low, high = inner[:, 0].min(), inner[:, 1].max()
    margin = MARGIN * (high - low)
    low, high = max(low - margin, ends[0]), min(high + margin, ends[1])
    return (low, high) if ends[1] - ends[0] > BEYOND * (high - low) > 0.0 else ends


def _inner_ends(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value of a group's cells, but for a few that are far out."""
    lower, upper = np.quantile(values, [0.25, 0.75])
    is_near = np.abs(values - (lower + upper) / 2.0) <= (FENCE + 0.5) * (upper - lower)
    if (~is_near).sum() > max(1.0, FEW * len(values)):
        is_near[:] = True
    return values[is_near].min(), values[is_near].max()


def _mark_beyond(ax: Axes, groups: pd.Series, rows: Sequence[str], is_left: bool) -> None:
    """Write at the end of the axis how many cells of each group lie beyond it."""
    place, align = (0.0, "left") if is_left else (1.0, "right")
    for name, count in groups.value_counts().items():
        text = f"\N{BLACK LEFT-POINTING TRIANGLE} {count}" if is_left else f"{count} \N{BLACK RIGHT-POINTING TRIANGLE}"
        ax.text(
            place, rows.index(str(name)) - 0.3, text, transform=ax.get_yaxis_transform(), ha=align, va="center",
            fontsize="x-small", color="0.3",
        )  # fmt: skip
