"""Share of every sample in a region."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from scratio import get
from scratio._modality import takes_modality
from scratio.pl._base import DIVERGING, finish, new_axes, style_of
from scratio.pl._names import write_names
from scratio.pl._tested import areas

SIDES = ("reference", "treatment")
COLOURS = {"reference": DIVERGING(0.15), "treatment": DIVERGING(0.85)}
SPREAD, MEDIAN = 0.18, 0.24
"""Half widths of the points and of the median of a group."""


@takes_modality
def samples(
    adata: AnnData,
    region: str,
    *,
    key: str = "da",
    group: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw the share of each sample's cells that lie in a region, to see whether one donor carries the difference.

    Parameters
    ----------
    adata
        Cells on which :func:`scratio.tl.regions` was called.
    region
        Name of the region.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the first that has such a region.
    title
        Title. By default the region, its effect across samples in nats and its q-value.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :meth:`matplotlib.axes.Axes.scatter`.

    Returns
    -------
    Axes. A point is a sample, and its size grows with its number of cells. Black lines mark the medians of the groups.
    Thin lines join the samples of a donor if donors are compared with themselves. Two kinds of samples have their names
    beside them: the one with the largest share in each group, and those without whom less than half of an effect
    remains.

    Raises
    ------
    KeyError
        If there is no such region or group, or :func:`scratio.tl.regions` was not called.
    TypeError
        If an argument is not one of matplotlib's.

    See Also
    --------
    scratio.get.samples : The numbers.
    scratio.pl.regions : All regions on an embedding.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=800, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = adata.obs["condition"].astype(str) + (np.arange(800) % 4).astype(str)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", sample_key="donor",
    ...     effort="quick",
    ... )
    >>> scratio.tl.regions(adata)
    >>> scratio.pl.samples(adata, region="region 1").get_ylabel()
    'cells of the sample in the region (%)'
    """
    table = get.samples(adata, key=key, group=group, region=region)
    table = table[table["treatment"] == table["treatment"].iloc[0]].reset_index(drop=True)
    treatment = table["treatment"].iloc[0]
    params = adata.uns[key]["params"]
    fixed = ("x", "y", "s", "c", "color", "facecolor", "facecolors", "norm", "cmap", "vmin", "vmax")
    style = style_of("samples", Axes.scatter, kwargs, {"linewidths": 0.6, "edgecolors": "white"}, fixed=fixed)
    side = table["group"].map({name: place for place, name in enumerate(SIDES)}).to_numpy()
    percent, size = 100.0 * table["share"].to_numpy(), areas(table["n_cells"])
    x = side + _spread(side, percent)
    ax = new_axes(ax, (4.2, 4.4))
    paired = table["donor"].duplicated(keep=False) & _is_within(adata, key, treatment)
    for _, rows in table[paired].groupby("donor").indices.items():
        ax.plot(
            x[np.flatnonzero(paired)[rows]], percent[np.flatnonzero(paired)[rows]], color="0.7", linewidth=0.8, zorder=1
        )
    for place, name in enumerate(SIDES):
        own = side == place
        if own.any():
            ax.scatter(x[own], percent[own], s=size[own], color=[COLOURS[name]], zorder=2, **style)
            ax.plot(
                [place - MEDIAN, place + MEDIAN], [np.median(percent[own])] * 2, color="black", linewidth=1.6, zorder=3
            )
    ax.set_xticks([0, 1], [str(params.get("reference", "reference")), treatment])
    ax.set(xlim=(-0.6, 1.6), ylabel="cells of the sample in the region (%)")
    ax.set_ylim(bottom=-0.04 * max(percent.max(), 1e-9))
    row = get.regions(adata, key=key, group=treatment).set_index("region").loc[region]
    ax.set_title(f"{region}\n{row['effect']:+.2f} nats, q = {row['qvalue']:.2g}" if title is None else title)
    chosen = table["donor"].isin(_carriers(adata, key, treatment, region)).to_numpy(copy=True)
    for place in range(len(SIDES)):
        if (side == place).any():
            chosen[np.flatnonzero(side == place)[percent[side == place].argmax()]] = True
    positions = {str(table["sample"][i]): (x[i] + 0.07, percent[i]) for i in np.flatnonzero(chosen)}
    write_names(ax, positions, ha="left")
    return finish(ax, show, return_fig)


def _spread(side: np.ndarray, percent: np.ndarray) -> np.ndarray:
    """Offsets that keep the points of a group apart: neighbours in height go to different columns."""
    offsets = np.zeros(len(side))
    for place in np.unique(side):
        own = np.flatnonzero(side == place)
        order = own[np.argsort(percent[own], kind="stable")]
        offsets[order] = SPREAD * np.resize([0.0, 1.0, -1.0, 0.5, -0.5], len(order))
    return offsets


def _is_within(adata: AnnData, key: str, treatment: str) -> bool:
    """Whether donors were compared with themselves."""
    every = get.samples(adata, key=key, group=treatment)
    return bool((every["design"] == "within donors").all()) if "design" in every else False


def _carriers(adata: AnnData, key: str, treatment: str, region: str) -> list[str]:
    """Donors without whom less than half of the effect of a neighbourhood of the region remains."""
    table = get.neighborhoods(adata, key=key, group=treatment)
    inside = adata.obs.loc[(adata.obs[f"{key}_region"] == region).to_numpy(), f"{key}_neighborhood"].astype(str)
    carried = table.loc[table["neighborhood"].isin(pd.unique(inside)), "carried_by"] if "carried_by" in table else []
    return [name for name in carried if name]
