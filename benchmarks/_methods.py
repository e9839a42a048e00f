"""scratio and its peers on arrays, with the time that each takes: what several benchmarks share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import scratio
from scratio import peers

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}


def cells(x: np.ndarray, is_treated: np.ndarray) -> ad.AnnData:
    """Cells as an analyst has them."""
    obs = pd.DataFrame({"condition": np.where(is_treated, "treated", "control")})
    return ad.AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X_pca": x})


def fit_and_score(
    name: str, x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int, settings: dict[str, Any]
) -> tuple[np.ndarray, dict[str, float]]:
    """Log ratios of fresh cells by a method, and the seconds of fitting and of scoring.

    Parameters
    ----------
    name
        ``"scratio"``, or that of a peer.
    x, is_treated
        Training cells.
    fresh
        Cells to score.
    seed
        Seed of the method.
    settings
        Of ``ScRatio.train``, or of the peer.
    """
    start = time.perf_counter()
    if name == "scratio":
        adata = cells(x, is_treated)
        scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
        model = scratio.model.ScRatio(adata)
        model.train(random_state=seed, **{"progress_bar": False, **settings})
        fitted = time.perf_counter()
        found = model.log_ratio(cells(fresh, np.zeros(len(fresh), dtype=bool)), **CONTRAST)
    else:
        peer = peers.make(name, random_state=seed, **settings).fit(x[is_treated], x[~is_treated])
        fitted = time.perf_counter()
        found = peer.log_ratio(fresh)
    return found, {"fit_seconds": fitted - start, "score_seconds": time.perf_counter() - fitted}


def settings_of(name: str, quick: bool) -> dict[str, Any]:
    """Settings of a method: its defaults, or next to no training."""
    if not quick or name in ("logistic", "boosting", "mlp", "qda", "knn"):
        return {}
    return {"max_steps": 20} if name == "scratio" else {"n_steps": 20, "n_hidden": 16}


def merged(path: Path, rows: list[dict], keys: list[str]) -> pd.DataFrame:
    """Rows added to those of a file; what was measured again takes the place of what was there.

    A benchmark of hours can so be run method by method, and goes on where it was stopped.

    Parameters
    ----------
    path
        CSV file, made where there is none.
    rows
        New rows.
    keys
        Columns that tell one measurement from another.
    """
    table = pd.DataFrame(rows)
    if path.exists():
        table = pd.concat([pd.read_csv(path), table], ignore_index=True)
    table = table.drop_duplicates(keys, keep="last", ignore_index=True)
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False, float_format="%.4g")
    return table


def line_styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """Looks of a line for each method: ours thick, the paper's grey and dashed."""
    dashes, colors, found = iter(["--", ":", "-.", (0, (1, 4))]), iter(plt.cm.tab10.colors), {}
    for name in names:
        if name == "scratio":
            found[name] = {"color": "#d55e00", "linewidth": 2.5, "marker": "o", "zorder": 3}
        elif name.startswith("paper"):
            found[name] = {"color": "#999999", "linestyle": next(dashes), "marker": "x"}
        else:
            color = next(c for c in colors if matplotlib.colors.to_hex(c) != "#ff7f0e")
            found[name] = {"color": color, "linewidth": 1.0, "marker": "o", "markersize": 4}
    return found


def over_seeds(values: pd.Series) -> str:
    """Mean over seeds and its standard error in words, or the value of the only seed."""
    values = values.dropna()
    if len(values) < 2:
        return "".join(map("{:.3g}".format, values))
    return f"{values.mean():.3g} ± {values.sem():.2g}"


def write_wide(table: pd.DataFrame, path: Path, index: list[str], values: str, *, with_errors: bool = False) -> None:
    """One measure as a table to read: settings down, methods across, means over seeds.

    Parameters
    ----------
    table
        Rows of settings and methods.
    path
        CSV file.
    index
        Columns with the settings.
    values
        Column with the measure.
    with_errors
        Whether a mean over several seeds has its standard error beside it.
    """
    found = over_seeds if with_errors else "mean"
    rows = table[table[values].notna()]
    wide = rows.pivot_table(index=index, columns="method", values=values, aggfunc=found, sort=False).sort_index()
    # Ours first, then the paper's, then the rest.
    order = sorted(wide.columns, key=lambda name: (name != "scratio", not name.startswith("paper")))
    wide[order].reset_index().to_csv(path, index=False, float_format="%.3g")
