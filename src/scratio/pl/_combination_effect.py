"""Combinations of two treatments as a matrix."""

from __future__ import annotations

from typing import Any

import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap

from scratio._modality import takes_modality
from scratio.pl._base import HEAT_MAP_FIXED, LOWEST, finish, heat_map, new_axes, stored_result, style_of

CELL = 0.55
TITLES = {
    "mean_magnitude": "mean |log ratio| (nats)",
    "mean": "mean log ratio (nats)",
    "mean_interaction": "mean interaction (nats)",
    "classifier_magnitude": "mean |log odds| of a classifier (nats)",
}


@takes_modality
def combination_effect(
    adata: AnnData,
    *,
    key: str = "combination",
    value: str = "mean_magnitude",
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
    """Effect of every combination, first treatments by second ones.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.combination_effect`.
    key
        The result's ``key_added``.
    value
        Column of its summary: ``"mean_magnitude"``, ``"mean"``, ``"mean_interaction"`` or ``"classifier_magnitude"``.
    vmin, vmax
        Limits of the colour scale in nats, or percentiles such as ``"p99"``. By default the limit is the largest
        magnitude. Zero is the middle of the colours of values with a sign.
    cmap
        Colour map; ``color_map`` means this too.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :func:`seaborn.heatmap`.

    Returns
    -------
    Axes; grey where a combination was not asked about. Signed values have a diverging scale centred at 0.

    Raises
    ------
    KeyError
        If the result is missing.
    ValueError
        If ``value`` is not a column of its summary.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["drug"] = np.array(["none", "a", "b", "a+b"])[np.arange(600) % 4]
    >>> scratio.tl.combination_effect(
    ...     adata, condition_keys="drug", combination="a+b", reference="none",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> scratio.pl.combination_effect(adata).get_ylabel()
    'first treatment'
    """
    result = stored_result(adata, key, "summary", "combination_effect")
    if value not in TITLES:
        raise ValueError(f"value must be one of {list(TITLES)}, got {value!r}")
    summary = result["summary"]
    matrix = summary.astype({"first": str, "second": str}).pivot(index="first", columns="second", values=value)
    signed = value in {"mean", "mean_interaction"}
    cmap = kwargs.pop("color_map", None) if cmap is None else cmap
    style = style_of("combination_effect", sns.heatmap, kwargs, {"fmt": ".2f"}, fixed=HEAT_MAP_FIXED, artist=QuadMesh)
    ax = new_axes(ax, (3.0 + 1.6 * CELL * matrix.shape[1], max(1.8 + CELL * matrix.shape[0], LOWEST)))
    heat_map(matrix, ax, label=TITLES[value], signed=signed, vmin=vmin, vmax=vmax, cmap=cmap, **style)
    ax.set(xlabel="second treatment", ylabel="first treatment")
    if title is not None:
        ax.set_title(title)
    return finish(ax, show, return_fig)
