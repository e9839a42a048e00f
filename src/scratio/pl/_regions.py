"""Significant regions on an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes

from scratio import get
from scratio._check import category_of, check_obs_key
from scratio._modality import takes_modality
from scratio.pl._base import UNSUPPORTED, finish, new_axes, style_of
from scratio.pl._embedding import basis_of, name_axes, point_size
from scratio.pl._names import write_names

MORE, LESS, MOST_NAMES = "Reds_d", "Blues_d", 8
"""Families of colours by the sign of the effect; number of regions that get a name, the largest ones."""


@takes_modality
def regions(
    adata: AnnData,
    *,
    key: str = "da",
    group: str | None = None,
    basis: str = "X_umap",
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw the significant regions on an embedding, with their names and effects.

    Parameters
    ----------
    adata
        Cells on which :func:`scratio.tl.regions` was called.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the one for which :func:`scratio.tl.regions` was called last.
    basis
        Coordinates in ``obsm``, with or without ``X_``.
    title
        Title. By default what was compared, and the number of regions.
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
    Axes. Regions with more cells under treatment are red, those with fewer are blue. All other cells are grey. The
    eight largest regions have their names on them. The number behind a name is the mean effect across samples in nats.

    Raises
    ------
    KeyError
        If :func:`scratio.tl.regions` was not called (for this group), or the coordinates are missing.
    TypeError
        If an argument is not one of matplotlib's.

    See Also
    --------
    scratio.tl.regions : Find the regions.
    scratio.pl.samples : The samples of one region.

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
    >>> scratio.pl.regions(adata, basis="pca").get_xlabel()
    'PC1'
    """
    table = get.regions(adata, key=key)
    basis = basis_of(adata, basis)
    of_cells = check_obs_key(adata, f"{key}_region")
    shown = list(of_cells.dropna().astype(str).unique())
    names = [str(name) for name in adata.uns[key]["diagnostics"]["treatment"]]
    chosen = table["region"].isin(shown) if group is None else table["treatment"] == category_of(group, names)
    table = table[chosen]
    if group is not None and set(shown) != set(table["region"]):
        raise KeyError(f"obs[{key + '_region'!r}] is of another group; call scratio.tl.regions(adata, group={group!r})")
    table = table.drop_duplicates("region", keep="last").reset_index(drop=True)
    xy = np.asarray(adata.obsm[basis])[:, :2]
    defaults = {"s": point_size(adata.n_obs), "linewidths": 0.0, "rasterized": True}
    fixed = ("x", "y", "c", "color", "facecolor", "facecolors", "norm", "cmap", "vmin", "vmax")
    style = style_of("regions", Axes.scatter, kwargs, defaults, fixed=fixed)
    ax = new_axes(ax, (5.5, 4.5))
    rest = ~of_cells.astype(object).isin(list(table["region"])).to_numpy()
    ax.scatter(*xy[rest].T, color=UNSUPPORTED, **style)
    positions = {}
    for is_more, family in ((True, MORE), (False, LESS)):
        own = table[(table["effect"] > 0.0) == is_more]
        for row, colour in zip(own.itertuples(), sns.color_palette(family, len(own)), strict=True):
            cells = xy[(of_cells == row.region).to_numpy()]
            ax.scatter(*cells.T, color=colour, **style)
            if row.Index < MOST_NAMES:
                positions[f"{row.region} ({row.effect:+.1f})"] = np.median(cells, axis=0)
    name_axes(ax, basis)
    params = adata.uns[key]["params"]
    treatment = table["treatment"].iloc[0] if len(table) else params.get("treatment", "treatment")
    count = "no significant region" if table.empty else f"{len(table)} region{'s' if len(table) > 1 else ''}"
    ax.set_title(f"{treatment} over {params.get('reference', 'reference')}: {count}" if title is None else title)
    ax.autoscale_view()
    write_names(ax, positions)
    return finish(ax, show, return_fig)
