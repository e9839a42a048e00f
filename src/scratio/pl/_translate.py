"""Where cells of one condition were moved to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from scratio._check import check_obs_key, source_of
from scratio._modality import takes_modality
from scratio.pl._base import DIVERGING, UNSUPPORTED, finish, new_axes, stored_result, style_of
from scratio.pl._embedding import point_size

N_BINS, LEAST, OUTER = 14, 3, 0.005
"""Fields of the grid of arrows in each direction; cells that a field needs for an arrow; share of the cells on each
side that may lie beyond the axes."""


@takes_modality
def translate(
    adata: AnnData,
    *,
    key: str = "X_fdrl",
    components: tuple[int, int] = (1, 2),
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw where the cells of one condition were moved to, in two dimensions of the embedding.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.translate`.
    key
        The result's ``key_added``.
    components
        Two dimensions of the embedding, counted from 1. A UMAP has no place for moved cells.
    title
        Title. By default the two conditions.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :meth:`matplotlib.axes.Axes.scatter`, of the three clouds of cells.

    Returns
    -------
    Axes. Grey cells are of the target, blue cells are of the source, and red ones are the blue ones after the
    translation, all in random order. Arrows are mean displacements of the source cells in the fields of a grid. The
    axes leave out one percent of the cells in each direction.

    Raises
    ------
    KeyError
        If there is no such result, or the cells of its conditions are gone.
    TypeError
        If an argument is not one of matplotlib's.
    ValueError
        If the embedding has no such dimensions.

    See Also
    --------
    scratio.tl.translate : Move the cells.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> ends = {"source": {"condition": "control"}, "target": {"condition": "treated"}}
    >>> scratio.model.FDRL.setup_anndata(adata, condition_keys=["condition"])
    >>> model = scratio.model.FDRL(adata, **ends)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> scratio.tl.translate(adata, model, **ends)
    >>> scratio.pl.translate(adata).get_title()
    'control to treated'
    """
    result = stored_result(adata, key, "params", "translate")
    if key not in adata.obsm:
        raise KeyError(f"obsm has no key {key!r}; run scratio.tl.translate(adata, ..., key_added={key!r}) again")
    moved, name = np.asarray(adata.obsm[key]), str(np.atleast_1d(result["data"]["use_rep"])[0])
    axes = [component - 1 for component in components]
    if len(axes) != 2 or not all(0 <= axis < moved.shape[1] for axis in axes):
        raise ValueError(f"components must be two numbers from 1 to {moved.shape[1]}, got {components}")
    x = np.asarray(source_of(adata, name))[:, axes]
    moved = moved[:, axes]
    is_source = np.isfinite(moved).all(axis=1)
    is_target = _having(adata, result["params"]["target"])
    size = point_size(int(is_source.sum() + is_target.sum()))
    defaults = {"s": size, "linewidths": 0.0, "alpha": 0.6, "rasterized": True}
    fixed = ("x", "y", "c", "color", "facecolor", "facecolors", "norm", "cmap", "vmin", "vmax")
    style = style_of("translate", Axes.scatter, kwargs, defaults, fixed=fixed)
    source, target = (_words(result["params"][end]) for end in ("source", "target"))
    ax = new_axes(ax, (5.5, 4.5))
    clouds = {target: x[is_target], source: x[is_source], f"{source}, moved": moved[is_source]}
    colours = [to_rgba(UNSUPPORTED), DIVERGING(0.15), DIVERGING(0.85)]
    cells = np.concatenate(list(clouds.values()))
    of_cells = np.repeat(np.array(colours), [len(cloud) for cloud in clouds.values()], axis=0)
    order = np.random.default_rng(0).permutation(len(cells))
    ax.scatter(cells[order, 0], cells[order, 1], color=of_cells[order], **style)
    start, step = _arrows(x[is_source], moved[is_source])
    ax.quiver(
        start[:, 0], start[:, 1], step[:, 0], step[:, 1], angles="xy", scale_units="xy", scale=1.0, width=0.004,
        color="0.15", zorder=3,
    )  # fmt: skip
    # A few far cells would squeeze the others.
    low, high = np.quantile(cells, (OUTER, 1.0 - OUTER), axis=0)
    margin = 0.1 * np.where(high > low, high - low, 1.0)
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    short = name.removeprefix("X_")
    ax.set(xlabel=f"{short} {components[0]}", ylabel=f"{short} {components[1]}")
    ax.set_title(f"{source} to {target}" if title is None else title)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=label)
        for label, colour in zip(clouds, colours, strict=True)
    ]
    ax.legend(handles=handles, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finish(ax, show, return_fig)


def _having(adata: AnnData, condition: Mapping[str, Any]) -> np.ndarray:
    """Whether a cell has all labels of a condition."""
    found = np.ones(adata.n_obs, dtype=bool)
    for key, value in condition.items():
        found &= (check_obs_key(adata, key).astype(str) == str(value)).to_numpy()
    return found


def _words(condition: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for value in condition.values())


def _arrows(x: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean position and mean displacement of the cells in every field of a grid, without fields of few cells."""
    low, high = np.quantile(x, (OUTER, 1.0 - OUTER), axis=0)
    field = np.clip(np.floor((x - low) / np.where(high > low, high - low, 1.0) * N_BINS).astype(int), 0, N_BINS - 1)
    place = field[:, 0] * N_BINS + field[:, 1]
    counts = np.bincount(place, minlength=N_BINS**2)
    means = [np.bincount(place, values, N_BINS**2) for values in (*x.T, *(moved - x).T)]
    kept = counts >= LEAST
    found = np.stack(means, axis=1)[kept] / counts[kept, None]
    return found[:, :2], found[:, 2:]
