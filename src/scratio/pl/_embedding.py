"""Cells in two dimensions, coloured by the log ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.lines import Line2D
from pandas.api.types import is_list_like

from scratio._check import check_anndata, check_obs_key
from scratio._modality import takes_modality
from scratio.pl._base import (
    LABEL,
    UNSUPPORTED,
    SignedScale,
    finish,
    new_axes,
    result_columns,
    signed_scale,
    style_of,
)
from scratio.pl._names import write_names

WIDTH, HEIGHT, MOST_COLUMNS = 5.5, 4.5, 4
RASTERIZED = 50_000
"""Cells from which on points are drawn as an image, so that a PDF stays small."""
_FIXED = (
    "adata", "basis", "color", "vmin", "vmax", "vcenter", "norm", "palette", "color_map", "title", "groups",
    "components", "return_fig", "ncols", "hspace", "wspace", "layer", "layers", "use_raw", "gene_symbols",
    "projection",
)  # fmt: skip
"""Arguments of scanpy's function that this one sets, or that have no meaning for a log ratio."""
SCATTER = ("alpha", "edgecolor", "edgecolors", "linewidth", "linewidths", "rasterized", "s", "zorder")
"""Arguments that scanpy's function passes on to matplotlib's scatter."""


@takes_modality
def embedding(
    adata: AnnData,
    *,
    key: str = "da",
    group: str | Sequence[str] | None = None,
    basis: str = "X_umap",
    groupby: str | None = None,
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    cmap: str | Colormap | None = None,
    title: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Any:
    """Draw cells in two dimensions in the colour of their log ratio: red is more likely under treatment, blue less.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` or :func:`scratio.tl.log_ratio`.
    key
        The result's ``key_added``.
    group
        One of several treatments that were compared. A list draws a panel for each of them on one colour scale. By
        default each cell has the log ratio of its own treatment.
    basis
        Coordinates in ``obsm``, with or without ``X_``.
    groupby
        Column of ``obs``, such as the cell type. The name of each group is written at the middle of its cells.
    vmin, vmax
        Limits of the colour scale in nats, or percentiles such as ``"p99"``. By default the limit is the 99% quantile
        of the magnitude on both sides. Zero is always the middle of the colours. An arrow on the colour bar says that
        cells lie beyond a limit.
    cmap
        Diverging colour map; ``color_map`` means this too.
    title
        Title, or a title for each panel.
    ax
        Axes to draw into, of a single panel.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :func:`scanpy.pl.embedding`, such as ``size``, ``alpha``, ``frameon``, ``dimensions`` or ``mask_obs``.
        ``colorbar_loc=None`` leaves out the colour bar.

    Returns
    -------
    Axes, or a list of them for a list of groups. Cells that were not compared or have no support are grey and drawn
    first. The others are drawn in random order, so that neither sign covers the other. From 50,000 cells on, points are
    stored as an image in vector formats.

    Raises
    ------
    KeyError
        If the result, the group, the column or the coordinates are missing.
    TypeError
        If an argument is not one of scanpy's.
    ValueError
        If ``ax`` is given for several panels, the limits do not enclose 0, or there are no cells or fewer than two
        coordinates.

    See Also
    --------
    scratio.pl.violin : The log ratio by group.
    scratio.pl.spatial : Cells on a tissue.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.pbmc68k_planted()
    >>> ax = scratio.pl.embedding(adata, key="true_log_ratio", basis="umap", groupby="bulk_labels")
    >>> ax.get_title()
    'true_log_ratio'
    """
    check_anndata(adata)
    asked: Any = group
    groups: list[Any] = list(asked) if is_list_like(asked) else [asked]
    if len(groups) > 1 and ax is not None:
        raise ValueError(
            f"ax is for one panel, and group names {len(groups)}; leave ax out, or call once for each group"
        )
    if not groups:
        raise ValueError("group is an empty list; name a treatment, or leave group out")
    basis = basis_of(adata, basis)
    dimensions = np.ravel(kwargs.get("dimensions") or (0, 1))
    n_found = np.asarray(adata.obsm[basis]).shape[1]
    if adata.n_obs == 0:
        raise ValueError("adata has no cells")
    if len(dimensions) != 2 or max(dimensions) >= n_found:
        raise ValueError(
            f"this plot needs two of the {n_found} coordinates of obsm[{basis!r}]; got dimensions {dimensions.tolist()}"
        )
    names = None if groupby is None else check_obs_key(adata, groupby)
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    color = kwargs.pop("color", key)
    if color != key:
        raise TypeError(f"color={color!r}: this plot has the colours of a log ratio; name the result with key=")
    defaults = {"na_color": UNSUPPORTED, "na_in_legend": False, "sort_order": False}
    if "edgecolors" in kwargs and "edgecolor" not in kwargs:
        # Scanpy sets the other one of these two names.
        kwargs["edgecolor"] = kwargs.pop("edgecolors")
    bar_place = kwargs.pop("colorbar_loc", "right")
    style = style_of("embedding", sc.pl.embedding, kwargs, defaults, fixed=_FIXED, also=SCATTER)
    if isinstance(mask := style.get("mask_obs"), str):
        style["mask_obs"] = check_obs_key(adata, mask).to_numpy(dtype=bool)
    columns = [result_columns(adata, key, one) for one in groups]
    shown = [
        values.astype(float) if support is None else values.astype(float).where(support) for values, support in columns
    ]
    scale = signed_scale(np.concatenate([one.to_numpy() for one in shown]), vmin=vmin, vmax=vmax, cmap=cmap)
    titles = [title] if isinstance(title, str) or title is None else list(title)
    axes = [new_axes(ax, (WIDTH, HEIGHT))] if len(groups) == 1 else _panels(len(groups))
    for place, (one, values, (compared, support)) in enumerate(zip(groups, shown, columns, strict=True)):
        name = (titles[place] if place < len(titles) else None) or (key if one is None else f"{key}: {one}")
        _draw(axes[place], adata, values, basis, scale, name, style)
        say_why_grey(axes[place], compared, support, has_groups=one is None and f"{key}_log_ratio" in adata.obsm)
    if bar_place is not None:
        scale.bar(axes if len(axes) > 1 else axes[0], location=bar_place)
    if names is not None:
        for panel in axes:
            write_names(panel, _middles(np.asarray(adata.obsm[basis])[:, dimensions], names), upwards=True)
    return finish(axes if len(axes) > 1 else axes[0], show, return_fig)


def supported(values: pd.Series, support: pd.Series | None) -> pd.Series:
    """Log ratios of the cells with support, missing elsewhere."""
    return values.astype(float) if support is None else values.astype(float).where(support)


def basis_of(adata: AnnData, basis: str) -> str:
    """Key in ``obsm`` of coordinates that are named with or without ``X_``."""
    for name in (basis, f"X_{basis}"):
        if name in adata.obsm:
            return name
    how = " Call scanpy.tl.umap(adata) first" if "umap" in basis else ""
    raise KeyError(f"obsm has no key {basis!r}; found: {list(adata.obsm)}.{how}")


def name_axes(ax: Axes, basis: str) -> None:
    """Name the axes of an embedding as scanpy does, without ticks; scanpy does so only for names without ``X_``."""
    name = basis.removeprefix("X_")
    name = {"umap": "UMAP", "tsne": "tSNE", "pca": "PC", "draw_graph_fa": "FA", "diffmap": "DC"}.get(name, name)
    ax.set(xlabel=f"{name}1", ylabel=f"{name}2", xticks=[], yticks=[])


def point_size(n_cells: int) -> float:
    """Area of a cell's point, as in scanpy."""
    return 120_000.0 / max(n_cells, 1_000)


def _panels(n: int) -> list[Axes]:
    n_columns = min(n, MOST_COLUMNS)
    n_rows = -(-n // n_columns)
    size = (0.8 * WIDTH * n_columns + 0.8, 0.8 * HEIGHT * n_rows)
    _, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    for unused in axes.flat[n:]:
        unused.remove()
    return list(axes.flat[:n])


def _draw(
    ax: Axes, adata: AnnData, values: pd.Series, basis: str, scale: SignedScale, title: str, style: dict[str, Any]
) -> None:
    order = draw_order(values.to_numpy())
    # A light AnnData keeps scanpy's colours and the masked column out of the user's object. Its cells have new names,
    # because the user's may not be unique. Scanpy names the axes only for coordinates without "X_".
    name = basis.removeprefix("X_")
    obs = pd.DataFrame({LABEL: values.to_numpy(dtype=float, na_value=np.nan)[order]}, index=order.astype(str))
    drawn = AnnData(obs=obs, obsm={name: np.asarray(adata.obsm[basis])[order]})
    own = dict(style)
    for argument, value in own.items():
        if np.ndim(value) == 1 and len(value) == adata.n_obs:
            # One value for each cell: a size, a mask, a transparency.
            own[argument] = np.asarray(value)[order]
    is_image = own.pop("rasterized", True if adata.n_obs >= RASTERIZED else None)
    sc.pl.embedding(
        drawn,
        basis=name,
        color=LABEL,
        norm=scale.norm,
        cmap=scale.cmap,
        colorbar_loc=None,
        title=title,
        ax=ax,
        show=False,
        **own,
    )
    for points in ax.collections if is_image is not None else ():
        points.set_rasterized(is_image)


def say_why_grey(ax: Axes, values: pd.Series, support: pd.Series | None, has_groups: bool) -> None:
    """Say why cells are grey."""
    grey = ["reference or not compared" if has_groups else "not compared"] if values.isna().any() else []
    grey += ["no support"] if support is not None and (values.notna() & ~support).any() else []
    if grey:
        mark = Line2D([], [], marker="o", linestyle="", color=UNSUPPORTED, label=", or ".join(grey))
        ax.legend(handles=[mark], loc="best", frameon=False, fontsize="small")


def _middles(coordinates: np.ndarray, names: pd.Series) -> dict[str, np.ndarray]:
    """Median of the cells of each group."""
    groups = names.groupby(names, observed=True).indices
    return {str(name): np.median(coordinates[rows], axis=0) for name, rows in groups.items()}


def draw_order(values: np.ndarray) -> np.ndarray:
    """Order of drawing: cells without a value, then the others in an order that does not depend on their values."""
    shuffled = np.random.default_rng(0).permutation(len(values))
    return shuffled[np.argsort(~np.isnan(values[shuffled]), kind="stable")]
