"""Training history."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from scratio._check import check_anndata
from scratio.pl._base import finish, new_axes

COLOURS = {"train_loss": "#999999", "validation_loss": "#0072b2"}


def history(adata: AnnData, *, key: str = "da", ax: Axes | None = None, show: bool | None = None) -> Axes:
    """Training and validation loss by step: the mean over the networks, and their range as a band.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance`.
    key
        The result's ``key_added``.
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``.

    Returns
    -------
    Axes.

    Raises
    ------
    KeyError
        If the result has no training history.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> scratio.pl.history(adata).get_xlabel()
    'step'
    """
    check_anndata(adata)
    result = adata.uns.get(key)
    if not isinstance(result, Mapping) or "history" not in result:
        raise KeyError(f"uns[{key!r}] holds no training history; run scratio.tl.differential_abundance first")
    table = result["history"]
    ax = new_axes(ax, (5.0, 3.5))
    for name, colour in COLOURS.items():
        if name in table:
            losses = np.asarray(table[name])
            step = np.asarray(table["step"])[: len(losses)]
            ax.plot(step, losses.mean(axis=1), color=colour, label=name.replace("_", " "))
            ax.fill_between(step, losses.min(axis=1), losses.max(axis=1), color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="step", ylabel="loss")
    ax.legend(frameon=False)
    return finish(ax, show)
