"""How several methods do on the same cells."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from scratio._modality import takes_modality
from scratio.pl._base import HALO, finish, new_axes, stored_result

WIDE = 20.0
"""Ratio of the largest to the smallest value beyond which the scale is logarithmic."""
OURS, OTHERS, NOTHING = "#d55e00", "#0072b2", "#999999"
LABELS = {"rmse": "root mean square error (nats)", "label_loss": "cross-entropy of held-out labels (nats)"}


@takes_modality
def compare_methods(
    adata: AnnData,
    *,
    key: str = "comparison",
    measure: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
) -> Axes:
    """Error of every method, the smallest on top.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.compare_methods`.
    key
        The result's ``key_added``.
    measure
        Column of the table; by default the error where the truth is known, else the cross-entropy of held-out labels,
        with that of no log ratio at all as a line.
    title
        Title.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``. A notebook shows the figure by itself.
    return_fig
        Whether to return the figure instead of the axes.

    Returns
    -------
    Axes.

    Raises
    ------
    KeyError
        If there is no such result or measure.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.compare_methods(
    ...     adata, condition_key="condition", treatment="treated", reference="control", methods=["qda", "knn"]
    ... )
    >>> scratio.pl.compare_methods(adata).get_xlabel()
    'cross-entropy of held-out labels (nats)'
    """
    table = stored_result(adata, key, "table", "compare_methods")["table"]
    if measure is None:
        measure = "rmse" if "rmse" in table else "label_loss"
    if measure not in table:
        raise KeyError(f"uns[{key!r}] has no measure {measure!r}; found: {list(table.columns)}")
    table = table.sort_values(measure, ascending=False, kind="stable")
    ax = new_axes(ax, (5.0, 0.35 * len(table) + 1.2))
    scored = zip(table["method"], table["out_of_fold"], strict=True)
    names = [name if is_fair else f"{name} (in sample)" for name, is_fair in scored]
    values = table[measure].to_numpy(dtype=float)
    bars = ax.barh(np.arange(len(table)), values, color=[OURS if name == "scratio" else OTHERS for name in names])
    ax.bar_label(bars, fmt="%.3g", padding=3, fontsize="small", path_effects=HALO)
    if values.min() > 0.0 and values.max() > WIDE * values.min():
        ax.set_xscale("log")
    ax.set_yticks(np.arange(len(table)), names)
    ax.set_xlabel(LABELS.get(measure, measure))
    ax.margins(x=0.12)
    if measure == "label_loss":
        nothing = table["label_loss_of_nothing"].iloc[0]
        ax.axvline(nothing, color=NOTHING, linestyle="--", linewidth=1, label="without a log ratio")
        ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    if title is not None:
        ax.set_title(title)
    return finish(ax, show, return_fig)
