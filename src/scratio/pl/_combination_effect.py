"""Combinations of two treatments as a matrix."""

from __future__ import annotations

from anndata import AnnData
from matplotlib.axes import Axes

from scratio.pl._base import LOWEST, finish, heat_map, new_axes, stored_result

CELL = 0.55
TITLES = {
    "mean_magnitude": "mean |log ratio| (nats)",
    "mean": "mean log ratio (nats)",
    "mean_interaction": "mean interaction (nats)",
    "classifier_magnitude": "mean |log odds| of a classifier (nats)",
}


def combination_effect(
    adata: AnnData,
    *,
    key: str = "combination",
    value: str = "mean_magnitude",
    ax: Axes | None = None,
    show: bool | None = None,
    **kwargs,
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
    ax
        Axes to draw into.
    show
        Whether to call ``matplotlib.pyplot.show``.
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
    ax = new_axes(ax, (3.0 + 1.6 * CELL * matrix.shape[1], max(1.8 + CELL * matrix.shape[0], LOWEST)))
    signed = value in {"mean", "mean_interaction"}
    heat_map(matrix, ax, label=TITLES[value], signed=signed, **{"fmt": ".2f", **kwargs})
    ax.set(xlabel="second treatment", ylabel="first treatment")
    return finish(ax, show)
