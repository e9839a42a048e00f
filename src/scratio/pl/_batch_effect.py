"""Batch effect of several embeddings side by side."""

from __future__ import annotations

from typing import Any

import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes

from scratio._check import check_obs_key
from scratio._modality import takes_modality
from scratio.pl._base import finish, new_axes, stored_result, style_of

PALETTE = "colorblind"


@takes_modality
def batch_effect(
    adata: AnnData,
    *,
    key: str = "batch_effect",
    groupby: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Distribution of the batch effect before and after correction, with its medians.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.batch_effect`.
    key
        The result's ``key_added``.
    groupby
        Column of ``obs``, such as the label, to draw the distributions of separately.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.
    **kwargs
        For :func:`seaborn.boxplot`.

    Returns
    -------
    Axes: a box for each embedding (median, quartiles, 5% and 95%), the median written beside it where there are no
    groups.

    Raises
    ------
    KeyError
        If the result or the groups are missing.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.batch_effect(
    ...     adata, batch_key="condition", train_kwargs={"max_steps": 20, "progress_bar": False}
    ... )
    >>> scratio.pl.batch_effect(adata).get_xlabel()
    'log p(x | batch) - log p(x) (nats)'
    """
    result = stored_result(adata, key, "summary", "batch_effect")
    labels = None if groupby is None else check_obs_key(adata, groupby)
    embeddings = list(dict.fromkeys(result["summary"]["embedding"]))
    prefixes = [f"{key}_{name}" if len(embeddings) > 1 else key for name in embeddings]
    table = pd.concat(
        [
            pd.DataFrame(
                {
                    "value": adata.obs[f"{prefix}_log_ratio"].to_numpy(),
                    "embedding": name,
                    "group": "" if labels is None else labels.astype(str).where(labels.notna()).to_numpy(),
                }
            )
            for name, prefix in zip(embeddings, prefixes, strict=True)
        ]
    ).dropna()
    found = set(table["group"])
    groups = (
        [""]
        if labels is None
        else [name for name in labels.astype("category").cat.categories.astype(str) if name in found]
    )
    defaults = {"whis": (5, 95), "showfliers": False, "linewidth": 0.9, "width": 0.7, "palette": PALETTE}
    fixed = ("x", "y", "hue", "hue_order", "order", "orient", "legend")
    style = style_of("batch_effect", sns.boxplot, kwargs, defaults, fixed=fixed)
    ax = new_axes(ax, (6.0, 1.2 + 0.35 * len(embeddings) * len(groups)))
    if groupby is None:
        sns.boxplot(
            table, x="value", y="embedding", order=embeddings, hue="embedding", hue_order=embeddings,
            legend=False, ax=ax, **style,
        )  # fmt: skip
        for row, name in enumerate(embeddings):
            median = table.loc[table["embedding"] == name, "value"].median()
            ax.text(1.02, row, f"median {median:.2f}", transform=ax.get_yaxis_transform(), va="center")
    else:
        sns.boxplot(
            table, x="value", y="group", order=groups, hue="embedding", hue_order=embeddings, ax=ax,
            **style,
        )  # fmt: skip
        sns.move_legend(ax, "upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title="")
    ax.axvline(0.0, color="0.3", linewidth=0.8, linestyle="--", zorder=0)
    with_label = result["params"]["label_key"] != "None"
    ax.set_xlabel(
        f"log p(x | batch{', label' if with_label else ''}) - log p(x{' | label' if with_label else ''}) (nats)"
    )
    ax.set_ylabel("")
    if title is not None:
        ax.set_title(title)
    return finish(ax, show, return_fig)
