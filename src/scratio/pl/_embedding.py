"""Cells in two dimensions, coloured by the log ratio."""

from __future__ import annotations

import numpy as np
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scratio.pl._base import DIVERGING, LABEL, UNSUPPORTED, finish, new_axes, result_columns, symmetric_limit


def embedding(
    adata: AnnData,
    *,
    key: str = "da",
    group: str | None = None,
    basis: str = "X_umap",
    vmax: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    **kwargs,
) -> Axes:
    """Cells in two dimensions, coloured by the log ratio: red is more likely under treatment, blue under reference.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` or :func:`scratio.tl.log_ratio`.
    key
        The result's ``key_added``.
    group
        One of several treatments that were compared; by default each cell's own.
    basis
        Coordinates in ``obsm``.
    vmax
        Limit of the symmetric colour scale in nats; by default the 99% quantile of the magnitude.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``.
    **kwargs
        For :func:`scanpy.pl.embedding`.

    Returns
    -------
    Axes. Cells that were not compared or have no support are grey and drawn first; the others are drawn in random
    order, so that neither sign covers the other.

    Raises
    ------
    KeyError
        If the result, the group or the coordinates are missing.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.pbmc68k_planted()
    >>> ax = scratio.pl.embedding(adata, key="true_log_ratio")
    >>> ax.get_title()
    'true_log_ratio'
    """
    values, support = result_columns(adata, key, group)
    if basis not in adata.obsm:
        raise KeyError(f"obsm has no key {basis!r}; found: {list(adata.obsm)}. Run scanpy.tl.umap(adata) first")
    shown = values.astype(float)
    if support is not None:
        shown = shown.where(support)
    limit = symmetric_limit(shown.to_numpy()) if vmax is None else vmax
    order = _order(shown.to_numpy())
    # A light AnnData keeps scanpy's colours and the masked column out of the user's object.
    drawn = AnnData(obs=shown.rename(LABEL).to_frame(), obsm={basis: np.asarray(adata.obsm[basis])})[order].copy()
    ax = new_axes(ax, (5.5, 4.5))
    style = {"cmap": DIVERGING, "na_color": UNSUPPORTED, "na_in_legend": False, "sort_order": False, **kwargs}
    for name, value in style.items():
        if np.ndim(value) == 1 and len(value) == adata.n_obs:
            # One value for each cell: a size, a mask, a transparency.
            style[name] = np.asarray(value)[order]
    sc.pl.embedding(
        drawn,
        basis=basis,
        color=LABEL,
        vmin=-limit,
        vmax=limit,
        vcenter=0.0,
        title=title or (key if group is None else f"{key}: {group}"),
        ax=ax,
        show=False,
        **style,
    )
    bar = ax.collections[-1].colorbar
    if bar is not None:
        bar.set_label(LABEL)
    has_groups = group is None and f"{key}_log_ratio" in adata.obsm
    grey = ["reference or not compared" if has_groups else "not compared"] if values.isna().any() else []
    grey += ["no support"] if support is not None and (values.notna() & ~support).any() else []
    if grey:
        mark = Line2D([], [], marker="o", linestyle="", color=UNSUPPORTED, label=", or ".join(grey))
        ax.legend(handles=[mark], loc="lower left", frameon=False, fontsize="small")
    return finish(ax, show)


def _order(values: np.ndarray) -> np.ndarray:
    """Order of drawing: cells without a value, then the others in an order that does not depend on their values."""
    shuffled = np.random.default_rng(0).permutation(len(values))
    return shuffled[np.argsort(~np.isnan(values[shuffled]), kind="stable")]
