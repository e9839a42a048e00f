"""Curves of the log ratio over a covariate."""

from __future__ import annotations

from typing import Any

import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scratio._modality import takes_modality
from scratio.pl._base import finish, new_axes, stored_result, style_of

PALETTE, BAND = "colorblind", 1.645
"""Standard errors of a band that covers 90%."""


@takes_modality
def covariate_curve(
    adata: AnnData,
    *,
    key: str = "curve",
    groups: list[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Mean log ratio over the values of a covariate, a line for each group with a band of 90%.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.covariate_curve`.
    key
        The result's ``key_added``.
    groups
        Groups to draw, by default all.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :meth:`matplotlib.axes.Axes.plot`.

    Returns
    -------
    Axes, with a dotted line at the reference value.

    Raises
    ------
    KeyError
        If the result is missing.
    ValueError
        If a group is not in it.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["dose"] = np.random.default_rng(0).uniform(0.0, 10.0, 600)
    >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=[], continuous_keys=["dose"])
    >>> model = scratio.model.ScRatio(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=0.0, values=[1.0, 5.0])
    >>> scratio.pl.covariate_curve(adata).get_xlabel()
    'dose'
    """
    result = stored_result(adata, key, "table", "covariate_curve")
    table, params = result["table"], result["params"]
    found = list(dict.fromkeys(table["group"].astype(str)))
    names = found if groups is None else [str(group) for group in groups]
    unknown = [name for name in names if name not in found]
    if unknown:
        raise ValueError(f"the result {key!r} has no group {unknown[0]!r}; found: {found}")
    defaults = {"marker": "o", "markersize": 3.0}
    style = style_of("covariate_curve", Axes.plot, kwargs, defaults, fixed=("scalex", "scaley"), artist=Line2D)
    ax = new_axes(ax, (5.5, 4.0))
    for name, colour in zip(names, sns.color_palette(PALETTE, len(names)), strict=True):
        part = table[table["group"].astype(str) == name]
        (line,) = ax.plot(part["value"], part["mean"], **{"label": name, "color": colour, **style})
        half = BAND * part["standard_error"]
        ax.fill_between(
            part["value"], part["mean"] - half, part["mean"] + half, color=line.get_color(), alpha=0.2, linewidth=0
        )
    ax.axhline(0.0, color="0.3", linewidth=0.8, linestyle="--", zorder=0)
    ax.axvline(float(params["reference"]), color="0.3", linewidth=0.8, linestyle=":", zorder=0)
    ax.set(xlabel=str(params["covariate_key"]), ylabel=f"log ratio to {float(params['reference']):g} (nats)")
    if len(names) > 1:
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if title is not None:
        ax.set_title(title)
    return finish(ax, show, return_fig)
