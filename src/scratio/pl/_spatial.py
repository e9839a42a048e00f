"""Cells in their place on a tissue, coloured by the log ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from scratio._modality import takes_modality
from scratio.pl._base import UNSUPPORTED, finish, new_axes, result_columns, signed_scale, style_of
from scratio.pl._embedding import RASTERIZED, SCATTER, basis_of, draw_order, point_size, say_why_grey, supported

IMAGES = ("hires", "lowres")


@takes_modality
def spatial(
    adata: AnnData,
    *,
    key: str = "da",
    group: str | None = None,
    basis: str = "spatial",
    library_id: str | None = None,
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
    """Draw cells or spots in their place on the tissue, in the colour of their log ratio.

    Parameters
    ----------
    adata
        Cells of one section with a result of :func:`scratio.tl.differential_abundance` or :func:`scratio.tl.log_ratio`.
    key
        The result's ``key_added``.
    group
        One of several treatments that were compared. By default each cell has the log ratio of its own treatment.
    basis
        Coordinates in ``obsm``, in pixels of the full image, with or without ``X_``.
    library_id
        Image in ``uns["spatial"]``. It may be left out if there is one alone; without images the cells are drawn alone.
    vmin, vmax, cmap
        Limits of the colour scale in nats, or percentiles such as ``"p99"``, and a diverging colour map, as in
        :func:`scratio.pl.embedding`; ``color_map`` means this too.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :meth:`matplotlib.axes.Axes.scatter`, such as ``s`` (or ``size``, as in scanpy) or ``alpha``.

    Returns
    -------
    Axes. One unit has the same length in both directions, and y points down as in the image. Cells that were not
    compared or have no support are grey.

    Raises
    ------
    KeyError
        If the result, the group, the coordinates or the image are missing.
    TypeError
        If an argument is not one of matplotlib's.
    ValueError
        If there are several images and none is named, or the limits do not enclose 0.

    See Also
    --------
    scratio.pl.embedding : Cells on an embedding.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
    >>> adata.obsm["spatial"] = adata.obsm["X_pca"]
    >>> ax = scratio.pl.spatial(adata, key="true_log_ratio")
    >>> float(ax.get_aspect()), bool(ax.yaxis_inverted())
    (1.0, True)
    """
    values, support = result_columns(adata, key, group)
    basis = basis_of(adata, basis)
    shown = supported(values, support).to_numpy()
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    scale = signed_scale(shown, vmin=vmin, vmax=vmax, cmap=cmap)
    image, factor, spot = _image(adata, library_id)
    xy = np.asarray(adata.obsm[basis], dtype=float)[:, :2] * factor
    fixed = ("x", "y", "c", "color", "facecolor", "facecolors", "norm", "vmin", "vmax", "plotnonfinite")
    if "size" in kwargs and "s" not in kwargs:
        kwargs["s"] = kwargs.pop("size")
    defaults = {} if {"linewidth", "linewidths"} & set(kwargs) else {"linewidth": 0.0}
    defaults["rasterized"] = len(xy) >= RASTERIZED
    style = style_of("spatial", Axes.scatter, kwargs, defaults, fixed=fixed, also=SCATTER)
    ax = new_axes(ax, (5.5, 4.5))
    if image is not None:
        ax.imshow(image, origin="upper")
    order = draw_order(shown)
    grey, coloured = order[np.isnan(shown[order])], order[~np.isnan(shown[order])]
    ax.set_aspect("equal")
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    style.setdefault("s", point_size(len(xy)) if spot is None else _area(ax, xy, spot * factor))
    ax.scatter(xy[grey, 0], xy[grey, 1], color=UNSUPPORTED, **_of(style, grey, len(xy)))
    colours = {"c": shown[coloured], "norm": scale.norm, "cmap": scale.cmap}
    ax.scatter(xy[coloured, 0], xy[coloured, 1], **colours, **_of(style, coloured, len(xy)))
    ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    ax.set_title((key if group is None else f"{key}: {group}") if title is None else title)
    say_why_grey(ax, values, support, has_groups=False)
    scale.bar(ax)
    return finish(ax, show, return_fig)


def _image(adata: AnnData, library_id: str | None) -> tuple[np.ndarray | None, float, float | None]:
    """Image, by what it is smaller than the full one, and the diameter of a spot in pixels of the full one."""
    libraries = adata.uns.get("spatial", {})
    names = list(libraries) if isinstance(libraries, Mapping) else []
    if library_id is None and len(names) > 1:
        raise ValueError(f"uns['spatial'] has several images; name one with library_id: {names}")
    if library_id is not None and library_id not in names:
        raise KeyError(f"uns['spatial'] has no image {library_id!r}; found: {names}")
    if not names:
        return None, 1.0, None
    library = libraries[library_id or names[0]]
    factors, images = library.get("scalefactors", {}), library.get("images", {})
    spot = factors.get("spot_diameter_fullres")
    for name in IMAGES:
        if name in images:
            return images[name], float(factors.get(f"tissue_{name}_scalef", 1.0)), spot
    return None, 1.0, spot


def _area(ax: Axes, xy: np.ndarray, diameter: float) -> float:
    """Area in square points of a spot of a diameter in units of the axes."""
    spans = np.ptp(xy, axis=0) if not ax.images else np.abs(np.diff([ax.get_xlim(), ax.get_ylim()], axis=1))[:, 0]
    box = ax.get_window_extent()
    pixels = min(box.width / max(spans[0], diameter), box.height / max(spans[1], diameter))
    return float((diameter * pixels * 72.0 / ax.get_figure().dpi) ** 2)  # type: ignore[union-attr]


def _of(style: dict[str, Any], rows: np.ndarray, n_cells: int) -> dict[str, Any]:
    """Arguments for some of the cells: those with a value for each cell are cut to them."""
    return {
        name: np.asarray(value)[rows] if np.ndim(value) == 1 and len(value) == n_cells else value
        for name, value in style.items()
    }
