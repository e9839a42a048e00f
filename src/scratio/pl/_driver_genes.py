"""The strongest driver genes."""

from __future__ import annotations

from typing import Any

from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from scratio._modality import takes_modality
from scratio.pl._base import DIVERGING, finish, new_axes, stored_result, style_of

STRONGEST = 0.75
"""Share of the colour scale that the longest bar reaches: the darkest colours hide the error bars."""


@takes_modality
def driver_genes(
    adata: AnnData,
    *,
    key: str = "drivers",
    group: str | None = None,
    n_genes: int = 20,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Bars of the genes along which the log ratio changes fastest, with standard errors.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.driver_genes`.
    key
        The result's ``key_added``.
    group
        Group of cells; may be left out where there is one alone.
    n_genes
        Number of genes, those of the largest magnitude.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :meth:`matplotlib.axes.Axes.barh`.

    Returns
    -------
    Axes, the largest value on top: red, more of the gene makes the numerator more likely; blue, less.

    Raises
    ------
    KeyError
        If the result is missing.
    ValueError
        If the group is not in it, or there are several and none is named.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.pbmc68k_planted()
    >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=["treatment"])
    >>> model = scratio.model.ScRatio(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> scratio.tl.driver_genes(
    ...     adata, model, numerator={"treatment": "treated"}, denominator={"treatment": "control"}
    ... )
    >>> len(scratio.pl.driver_genes(adata, n_genes=5).get_yticklabels())
    5
    """
    result = stored_result(adata, key, "table", "driver_genes")
    table = result["table"]
    groups = list(dict.fromkeys(table["group"].astype(str)))
    if group is None and len(groups) > 1:
        raise ValueError(f"name one of the groups {groups}")
    if group is not None and str(group) not in groups:
        raise ValueError(f"the result {key!r} has no group {group!r}; found: {groups}")
    name = groups[0] if group is None else str(group)
    top = table[table["group"].astype(str) == name].head(n_genes).sort_values("mean")
    limit = float(top["mean"].abs().max()) / STRONGEST or 1.0
    defaults = {
        "color": DIVERGING(Normalize(-limit, limit)(top["mean"].to_numpy())),
        "error_kw": {"elinewidth": 0.8, "ecolor": "0.2"},
    }
    fixed = ("x", "y", "width", "xerr")
    style = style_of("driver_genes", Axes.barh, kwargs, defaults, fixed=fixed, artist=Rectangle)
    ax = new_axes(ax, (4.5, 0.8 + 0.24 * len(top)))
    ax.barh(top["gene"].astype(str), top["mean"], xerr=top["standard_error"], **style)
    ax.axvline(0.0, color="0.3", linewidth=0.8)
    ax.margins(y=0.02)
    ax.set(xlabel="change of the log ratio (nats per unit of the gene)", title=title or name)
    return finish(ax, show, return_fig)
