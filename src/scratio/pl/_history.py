"""Training history."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from scratio._check import check_anndata
from scratio._modality import takes_modality
from scratio.pl._base import finish, new_axes

CURVES = {
    "train_loss": ("#999999", "training cells, all noise levels"),
    "validation_loss": ("#0072b2", "held-out cells, without noise"),
}
KEPT = "#d55e00"


@takes_modality
def history(
    adata: AnnData,
    *,
    key: str = "da",
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
) -> Axes:
    """Draw the losses by training step: the mean over the networks, and their range as a band.

    The loss is the cross-entropy of the labels in nats. Triangles mark the steps that were kept, one for each fold.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance`.
    key
        The result's ``key_added``.
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
        If the result has no training history, as with ``effort="quick"``, which trains no network.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> scratio.pl.history(adata).get_xlabel()
    'training step'
    """
    check_anndata(adata)
    result = adata.uns.get(key)
    if not isinstance(result, Mapping) or "history" not in result:
        raise KeyError(f"uns[{key!r}] holds no training history; run scratio.tl.differential_abundance first")
    table, training = result["history"], result.get("training", {})
    if len(table.get("step", ())) == 0:
        raise KeyError(f"uns[{key!r}] has an empty training history: effort='quick' trains no network")
    ax = new_axes(ax, (5.0, 3.5))
    for name, (colour, label) in CURVES.items():
        if name in table:
            losses = np.asarray(table[name])
            step = np.asarray(table["step"])[: len(losses)]
            ax.plot(step, losses.mean(axis=1), color=colour, label=label)
            ax.fill_between(step, losses.min(axis=1), losses.max(axis=1), color=colour, alpha=0.2, linewidth=0)
    if len(kept := np.atleast_1d(training.get("best_step", ()))):
        at_the_bottom = ax.get_xaxis_transform()
        ax.plot(
            kept, np.full(len(kept), 0.02), transform=at_the_bottom, color=KEPT, marker="^", linestyle="",
            label="step kept, each fold",
        )  # fmt: skip
    ax.set(xlabel="training step", ylabel="loss (nats)", title=title or "")
    ax.legend(frameon=False)
    return finish(ax, show, return_fig)
