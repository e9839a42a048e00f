"""What the plots share: finding results, limits, axes, showing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib import get_backend
from matplotlib.artist import Artist, ArtistInspector
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.patheffects import withStroke
from matplotlib.pyplot import get_cmap

from scratio._check import category_of, check_anndata, is_result

# ColorBrewer's RdBu, which colour-blind readers can tell apart, with a middle that shows on a white page and is far
# from grey: in white, cells without a difference would be invisible.
DIVERGING = LinearSegmentedColormap.from_list(
    "scratio",
    [
        "#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f2e8d5",
        "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f",
    ],
)  # fmt: skip
SEQUENTIAL = "viridis"
UNSUPPORTED = "#b4b4b4"
HALO = [withStroke(linewidth=2.5, foreground="white")]
"""White outline of names on cells."""
LABEL = "log ratio (nats)"
LIMIT_QUANTILE = 0.99
LOWEST = 3.2
"""Height of a heat map in inches that the label of its colour bar needs."""


HEAT_MAP_FIXED = ("data", "vmin", "vmax", "cmap", "center", "robust", "norm", "ax", "clim", "array")
"""Arguments of seaborn's heat map that the plots set themselves."""


def result_columns(adata: AnnData, key: str, group: str | None = None) -> tuple[pd.Series, pd.Series | None]:
    """Log ratio and support of a result: of ``tl.differential_abundance`` (a prefix) or ``tl.log_ratio`` (a column).

    With a group, those of one of several treatments.
    """
    check_anndata(adata)
    if group is not None:
        return _column_of(adata, f"{key}_log_ratio", group), _support_of(adata, key, group)
    column = f"{key}_log_ratio" if f"{key}_log_ratio" in adata.obs else key
    if column not in adata.obs:
        others = [name.removesuffix("_log_ratio") for name in map(str, adata.obs) if name.endswith("_log_ratio")]
        there = f"Keys with log ratios: {others}" if others else f"Found: {list(adata.obs.columns)}"
        raise KeyError(
            f"obs has neither {key + '_log_ratio'!r} nor {key!r}; run scratio.tl.differential_abundance(adata, ..., "
            f"key_added={key!r}) first. {there}"
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
        lacks = f"uns has no result {key!r}"
        if key in adata.uns and is_result(adata.uns[key]):
            lacks = f"uns[{key!r}] is of the analysis {adata.uns[key]['analysis']!r} and has no table {table!r}"
        raise KeyError(f"{lacks}; run scratio.tl.{tool}(adata, ..., key_added={key!r}) first")
    return adata.uns[key]


def heat_map(
    matrix: pd.DataFrame,
    ax: Axes,
    *,
    label: str,
    signed: bool,
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    cmap: str | Colormap | None = None,
    cbar_kws: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw a matrix with its values; signed ones on a diverging scale centred at 0, what is missing in grey.

    The limits follow from the largest magnitude unless they are given, as numbers or as percentiles.
    """
    values = matrix.to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max()) if finite.any() else 1.0
    bar: dict[str, Any] = {"label": label, **(cbar_kws or {})}
    if signed:
        scale = signed_scale(values, vmin=vmin, vmax=largest if vmin is None and vmax is None else vmax, cmap=cmap)
        colours = {"cmap": scale.cmap, "norm": scale.norm}
        bar["extend"] = scale.extend
    else:
        low, high = limit_of(vmin, "vmin", finite), limit_of(vmax, "vmax", finite)
        colours = {
            "cmap": cmap or SEQUENTIAL,
            "vmin": 0.0 if low is None else low,
            "vmax": largest if high is None else high,
        }
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
    low, high = limit_of(vmin, "vmin", finite), limit_of(vmax, "vmax", finite)
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
        is_one = not isinstance(ax, list) and ax.collections and ax.collections[-1].get_array() is not None
        shown = ax.collections[-1] if is_one else ScalarMappable(self.norm, self.cmap)
        style = {"shrink": 0.7, "aspect": 25, "pad": 0.02, **kwargs}
        figure = (ax[0] if isinstance(ax, list) else ax).get_figure()
        return figure.colorbar(shown, ax=ax, label=label, extend=self.extend, **style)


def limit_of(given: float | str | None, name: str, values: np.ndarray) -> float | None:
    """Limit of a colour scale that is given as a number or as a percentile, such as ``"p99"``."""
    if not isinstance(given, str):
        return given
    try:
        share = float(given.removeprefix("p"))
    except ValueError:
        share = np.nan
    if not given.startswith("p") or not 0.0 <= share <= 100.0:
        raise ValueError(f"{name} must be a number or a percentile such as 'p99', got {given!r}")
    return float(np.percentile(values, share)) if len(values) else None


def style_of(
    plot: str,
    target: Callable[..., Any],
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    fixed: Collection[str] = (),
    also: Collection[str] = (),
    artist: type[Artist] | None = None,
) -> dict[str, Any]:
    """Arguments for the function that draws: the plot's defaults, and over them what the user passed.

    Parameters
    ----------
    plot, target
        Name of the plot, and the function that draws.
    given, defaults
        What the user passed for the function, and what the plot passes otherwise.
    fixed
        Arguments of the function that the plot needs for itself.
    also
        Further arguments that the function takes without naming them.
    artist
        What the function makes, if its further arguments are properties of that.

    Raises
    ------
    TypeError
        If the user passed something that the function does not take, or that the plot sets itself.
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    own = inspect.signature(target).parameters.values()
    accepted = {parameter.name for parameter in own if parameter.kind in kinds} - {"self", "data", "ax", "show", "save"}
    accepted |= set(also)
    if artist is not None:
        accepted |= set(ArtistInspector(artist).get_setters())
        given = normalize_kwargs(dict(given), artist)
    unknown = [name for name in given if name not in accepted - set(fixed)]
    if unknown:
        how = " To write a file, use the returned axes: ax.figure.savefig(...)." if "save" in unknown else ""
        raise TypeError(
            f"scratio.pl.{plot} does not take {unknown[0]!r}.{how} Beside its own arguments it takes those of "
            f"{target.__module__.split('.')[0]}'s {target.__name__}: {', '.join(sorted(accepted - set(fixed)))}"
        )
    return {**defaults, **given}


def new_axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """The given axes, or those of a new figure."""
    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def finish(drawn: Any, show: bool | None, return_fig: bool | None = None) -> Any:
    """Show the figure if asked to. Return the axes, or the figure if that was asked for.

    A notebook prints the last value of a cell. These axes print nothing there: the figure is what users want to see.
    """
    if show:
        plt.show()
    if return_fig:
        return _shown_once((drawn[0] if isinstance(drawn, list) else drawn).get_figure())
    if isinstance(drawn, list):
        return AxesList(drawn)
    drawn._ipython_display_ = _nothing
    return drawn


class AxesList(list):
    """Several axes, which a notebook does not print."""

    def _ipython_display_(self) -> None:
        _nothing()


def _shown_once(figure: FigureBase) -> FigureBase:
    """Keep a notebook from showing a figure a second time at the end of the cell that prints it."""
    if isinstance(figure, Figure):
        figure._ipython_display_ = functools.partial(_print_once, figure)  # type: ignore[attr-defined]
    return figure


def _print_once(figure: Figure) -> None:
    """Take the figure from those that a notebook shows at the end of the cell, and leave printing it to IPython."""
    if "inline" in get_backend().lower():
        plt.close(figure)
    # IPython's way to say: show the object as if it had no method for this.
    raise NotImplementedError


def _nothing() -> None:
    """What a notebook prints of axes."""
