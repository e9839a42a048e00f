"""Log ratios by group."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.pyplot import get_cmap

from scratio.pl._base import DIVERGING, LABEL, finish, new_axes, result_columns, symmetric_limit


def violin(
    adata: AnnData,
    *,
    groupby: str,
    key: str = "da",
    group: str | None = None,
    supported_only: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
    **kwargs,
) -> Axes:
    """Distribution of the log ratio in each group, ordered by the median and coloured by it.

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
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``.
    **kwargs
        For :func:`seaborn.violinplot`.

    Returns
    -------
    Axes.

    Raises
    ------
    KeyError
        If the result, the group or the groups are missing.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=200, n_dims=2)
    >>> ax = scratio.pl.violin(adata, groupby="condition", key="true_log_ratio")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['treated', 'control']
    """
    values, support = result_columns(adata, key, group)
    if groupby not in adata.obs:
        raise KeyError(f"obs has no key {groupby!r}; found: {list(adata.obs.columns)}")
    table = pd.DataFrame({LABEL: values.to_numpy(dtype=float), groupby: adata.obs[groupby].astype(str).to_numpy()})
    table = table[values.notna().to_numpy() & (True if support is None or not supported_only else support.to_numpy())]
    medians = table.groupby(groupby)[LABEL].median().sort_values(ascending=False)
    limit = symmetric_limit(table[LABEL].to_numpy())
    colours = dict(zip(medians.index, get_cmap(DIVERGING)(Normalize(-limit, limit)(medians.to_numpy())), strict=True))
    ax = new_axes(ax, (6.0, 1.0 + 0.4 * len(medians)))
    style = {"inner": "quart", "linewidth": 0.8, "density_norm": "width", "cut": 0, **kwargs}
    sns.violinplot(
        table, x=LABEL, y=groupby, order=list(medians.index), hue=groupby, palette=colours, legend=False, ax=ax, **style
    )
    ax.axvline(0.0, color="0.3", linewidth=0.8, linestyle="--", zorder=0)
    ax.set_ylabel("")
    return finish(ax, show)
