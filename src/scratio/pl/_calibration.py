"""Reliability of a differential abundance."""

from __future__ import annotations

import textwrap

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from scratio._check import category_of
from scratio._modality import takes_modality
from scratio.pl._base import finish, new_axes, stored_result

COLOUR, IDENTITY = "#0072b2", "#999999"
WIDTH, NARROWEST, LETTER, BELOW = 60, 20, 4.6, -40.0
"""Most and fewest letters in a line of the verdict, points of a letter, points below the axes where it begins."""


@takes_modality
def calibration(
    adata: AnnData,
    *,
    key: str = "da",
    group: str | None = None,
    verdict: bool = True,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    mod: str | None = None,
) -> Axes:
    """Log ratio that held-out labels show against the one that was predicted, for cells with similar log ratios.

    On the diagonal the log ratio is right on average; flatter than it means too bold, steeper too cautious. Bars are
    two standard errors, across samples where the result was computed with a ``sample_key``, else of counting cells.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance`.
    key
        The result's ``key_added``.
    group
        One of several treatments; by default the first.
    verdict
        Whether to write the verdict below.
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
        If there is no such result or group.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> scratio.pl.calibration(adata).get_xlabel()
    'predicted log ratio (nats)'
    """
    result = stored_result(adata, key, "diagnostics", "differential_abundance")
    table, curves = result["diagnostics"].set_index("treatment"), result["calibration"]
    group = table.index[0] if group is None else category_of(group, list(table.index))
    if group not in table.index:
        raise KeyError(f"uns[{key!r}] has no group {group!r}; found: {list(table.index)}")
    row, curve = table.loc[group], curves[curves["treatment"] == group]
    ax = new_axes(ax, (4.5, 4.8))
    expected, observed, error = (curve[name].to_numpy() for name in ("expected", "observed", "standard_error"))
    ends = [min(expected.min(), observed.min()), max(expected.max(), observed.max())]
    ax.plot(ends, ends, color=IDENTITY, linestyle="--", linewidth=1, label="right on average")
    ax.errorbar(
        expected, observed, yerr=2.0 * error, color=COLOUR, marker="o", linewidth=1, capsize=2, label=_label(row)
    )
    ax.set(xlabel="predicted log ratio (nats)", ylabel="log ratio of held-out labels (nats)")
    ax.set_title(title or f"{group} over {row['reference']}")
    ax.legend(frameon=False, loc="upper left")
    if verdict:
        box = ax.get_window_extent()
        letters = box.width * 72.0 / ax.figure.dpi / LETTER
        text = textwrap.fill(row["verdict"], int(np.clip(letters, NARROWEST, WIDTH)))
        # A distance in points, so that the words stay clear of the label of small axes too.
        ax.annotate(
            text, (0.0, 0.0), (0.0, BELOW), xycoords="axes fraction", textcoords="offset points", va="top",
            fontsize="small", annotation_clip=False,
        )  # fmt: skip
    return finish(ax, show, return_fig)


def _label(row) -> str:
    return f"slope {row['slope']:.2f} ± {row['slope_standard_error']:.2f}" if np.isfinite(row["slope"]) else "no slope"
