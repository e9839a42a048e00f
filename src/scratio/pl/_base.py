"""What the plots share: finding results, limits, axes, showing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, TwoSlopeNorm
from matplotlib.pyplot import get_cmap

from scratio._check import category_of, check_anndata

DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
UNSUPPORTED = "#d0d0d0"
LABEL = "log ratio (nats)"
LIMIT_QUANTILE = 0.99
LOWEST = 3.2
"""Height of a heat map in inches that the label of its colour bar needs."""


def result_columns(adata: AnnData, key: str, group: str | None = None) -> tuple[pd.Series, pd.Series | None]:
    """Log ratio and support of a result: of ``tl.differential_abundance`` (a prefix) or ``tl.log_ratio`` (a column).

    With a group, those of one of several treatments.
    """
    check_anndata(adata)
    if group is not None:
        return _column_of(adata, f"{key}_log_ratio", group), _support_of(adata, key, group)
    column = f"{key}_log_ratio" if f"{key}_log_ratio" in adata.obs else key
    if column not in adata.obs:
        raise KeyError(
            f"obs has neither {key + '_log_ratio'!r} nor {key!r}; run scratio.tl.differential_abundance(adata, ..., "
            f"key_added={key!r}) first. Found: {list(adata.obs.columns)}"
        )
    support = f"{key}_support"
    return adata.obs[column], _as_bool(adata.obs[support]) if support in adata.obs else None


def _column_of(adata: AnnData, key: str, group: str) -> pd.Series:
    tables = [name for name, table in adata.obsm.items() if isinstance(table, pd.DataFrame)]
    if key not in tables:
        raise KeyError(
            f"obsm has no table {key!r} with a column for each group; run an analysis of several treatments first. "
            f"Found: {tables}"
        )
    group = category_of(group, [str(name) for name in adata.obsm[key]])
    if group not in adata.obsm[key]:
        raise KeyError(f"obsm[{key!r}] has no group {group!r}; found: {list(adata.obsm[key].columns)}")
    return adata.obsm[key][group]


def _support_of(adata: AnnData, key: str, group: str) -> pd.Series | None:
    support = f"{key}_support"
    return _as_bool(_column_of(adata, support, group)) if support in adata.obsm else None


def _as_bool(column: pd.Series) -> pd.Series:
    """Support as truth values; joining cells with others that have none leaves it missing there."""
    return column.astype("boolean").fillna(False).astype(bool)


def stored_result(adata: AnnData, key: str, table: str, tool: str) -> Mapping[str, Any]:
    """Result of an analysis in ``uns`` that holds a table."""
    check_anndata(adata)
    if key not in adata.uns or table not in adata.uns[key]:
        raise KeyError(f"uns has no result {key!r}; run scratio.tl.{tool}(adata, ..., key_added={key!r}) first")
    return adata.uns[key]


def heat_map(matrix: pd.DataFrame, ax: Axes, *, label: str, signed: bool, limit: float | None = None, **kwargs) -> Axes:
    """Matrix with its values; signed ones on a diverging scale centred at 0, what is missing in grey."""
    limit = limit or float(np.nanmax(np.abs(matrix.to_numpy()))) or 1.0
    if signed:
        colours: dict[str, Any] = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
    else:
        colours = {"cmap": SEQUENTIAL, "vmin": 0.0, "vmax": limit}
    bar = {"label": label, **kwargs.pop("cbar_kws", {})}
    sns.heatmap(matrix, ax=ax, **{"annot": True, "linewidths": 0.5, "cbar_kws": bar, **colours, **kwargs})
    ax.set_facecolor(UNSUPPORTED)
    ax.tick_params(axis="y", rotation=0)
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return ax


def symmetric_limit(values: np.ndarray) -> float:
    """Limit of a diverging scale centred at 0: the 99% quantile of the magnitude, so that few cells do not rule it."""
    magnitudes = np.abs(values[np.isfinite(values)])
    return float(np.quantile(magnitudes, LIMIT_QUANTILE)) if len(magnitudes) and magnitudes.max() > 0 else 1.0


def signed_scale(
    values: np.ndarray,
    *,
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    cmap: str | Colormap | None = None,
) -> SignedScale:
    """Colours of values with a sign. Zero is always in the middle of the colour map.

    Parameters
    ----------
    values
        What is drawn; missing values do not count.
    vmin, vmax
        Limits in the unit of the values, or percentiles such as ``"p99"``. If only one is given, the other one is its
        negative; if none is given, both follow from :func:`symmetric_limit`.
    cmap
        Colour map.
    """
    finite = values[np.isfinite(values)]
    low, high = _limit(vmin, "vmin", finite), _limit(vmax, "vmax", finite)
    limit = symmetric_limit(finite)
    high = high if high is not None else limit if low is None else -low
    low = low if low is not None else -high
    if not low < 0.0 < high:
        raise ValueError(
            f"the colour scale is centred at 0, so vmin must be below and vmax above it; got {low}, {high}"
        )
    beyond = bool((finite < low).any()), bool((finite > high).any())
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    return SignedScale(TwoSlopeNorm(0.0, low, high), get_cmap(cmap or DIVERGING), extend)


@dataclass(frozen=True)
class SignedScale:
    """Colours of values with a sign.

    Parameters
    ----------
    norm
        From values to the interval from 0 to 1, with zero at one half.
    cmap
        Colour map.
    extend
        Where values lie beyond the limits: an arrow of the colour bar, as matplotlib names it.
    """

    norm: TwoSlopeNorm
    cmap: Colormap
    extend: str

    def colours(self, values: np.ndarray) -> np.ndarray:
        """Colours of values, shape (n, 4)."""
        return self.cmap(self.norm(values))

    def bar(self, ax: Any, label: str = LABEL, **kwargs: Any) -> Colorbar:
        """Draw the colour bar beside the axes, with an arrow where values lie beyond a limit."""
        shown = ScalarMappable(self.norm, self.cmap)
        style = {"shrink": 0.7, "aspect": 25, "pad": 0.02, **kwargs}
        return ax.get_figure().colorbar(shown, ax=ax, label=label, extend=self.extend, **style)


def _limit(given: float | str | None, name: str, values: np.ndarray) -> float | None:
    if not isinstance(given, str):
        return given
    try:
        share = float(given.removeprefix("p"))
    except ValueError:
        share = np.nan
    if not given.startswith("p") or not 0.0 <= share <= 100.0:
        raise ValueError(f"{name} must be a number or a percentile such as 'p99', got {given!r}")
    return float(np.percentile(values, share)) if len(values) else None


def new_axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """The given axes, or those of a new figure."""
    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def finish(ax: Any, show: bool | None, return_fig: bool | None = None) -> Any:
    """Show the figure if asked to. Return the axes, or the figure if that was asked for.

    A notebook prints the last value of a cell. These axes print nothing there: the figure is what users want to see.
    """
    if show:
        plt.show()
    if return_fig:
        return ax.get_figure()
    ax._ipython_display_ = _nothing
    return ax


def _nothing() -> None:
    """What a notebook prints of axes."""
