"""What a result says, in words and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._check import check_anndata, has_source, is_result, source_name
from scratio._constants import RESULT_MARK
from scratio._modality import takes_modality
from scratio._summary import Summary
from scratio.model._saving import fingerprint
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._write import written_before

FDR = 0.1
TABLES = {
    "table": "Results",
    "summary": "Results",
    "matrix": "Mean log ratio of treated cells, donors by treatments (nats)",
    "diagnostics": "Diagnostics",
    "regions": "Significant regions",
}
MOST_ROWS = 12
_NOT_SHOWN = ("model_kwargs", "train_kwargs", "method_kwargs")
_SIGN = (
    "Log ratios are in nats; positive means more likely under the numerator (the treatment). exp(value) is the ratio."
)


OF_ONE = {"calibration", "evidence"}
"""Mappings in the record of one training; any other mapping is the training of one of several embeddings."""


@takes_modality
def summary(adata: AnnData, *, key: str = "da") -> Summary:
    """What a result of scratio says and what it was computed from, as text or, in a notebook, as HTML.

    Parameters
    ----------
    adata
        Cells with a result.
    key
        ``key_added`` of the analysis.

    Returns
    -------
    Summary, which prints itself: parameters, what the training chose, spread and support of the log ratios (nats), its
    tables (the first rows of them), the verdict of its diagnostics, and whether the cells, their embedding and their
    labels are still those it was computed from.

    Raises
    ------
    KeyError
        If ``uns`` holds no result of scratio under the key.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> print(str(scratio.tl.summary(adata)).splitlines()[0])
    differential_abundance: results under the key 'da'
    """
    check_anndata(adata)
    result = _result(adata, key)
    facts = {name: _plain(value) for name, value in result.get("params", {}).items() if name not in _NOT_SHOWN}
    facts |= _choices(result)
    facts["computed from"] = _origin(adata, key, result.get("data", {}))
    made = result[RESULT_MARK]
    facts["made by"] = ", ".join(f"{name} {made[name]}" for name in ("scratio", "torch", "python") if name in made)
    tables = {} if (spread := _spread(adata, key)).empty else {"Log ratios of the cells (nats)": spread}
    notes = [_SIGN]
    for name, title in TABLES.items():
        if isinstance(table := result.get(name), pd.DataFrame):
            shown = table.reset_index() if name == "matrix" else table
            if "verdict" in shown:
                notes += [f"{row.treatment}: {row.verdict}" for row in shown.itertuples()]
                shown = shown.drop(columns="verdict")
            if len(shown) > MOST_ROWS:
                title = f"{title} (first {MOST_ROWS} of {len(shown)} rows)"
            tables[title] = shown.head(MOST_ROWS)
    return Summary(f"{result['analysis']}: results under the key {key!r}", facts, tables, notes)


def _result(adata: AnnData, key: str) -> Mapping[str, Any]:
    own = [name for name, value in adata.uns.items() if is_result(value)]
    if key not in own:
        raise KeyError(f"uns has no result of scratio under {key!r}; found: {own}. Call a function of scratio.tl first")
    result = adata.uns[key]
    if "analysis" not in result:
        raise KeyError(f"uns[{key!r}] was written by an earlier version of scratio; compute it again")
    return result


def _plain(value: Any) -> str:
    """A parameter as a user would write it."""
    if isinstance(value, np.ndarray):
        return ", ".join(str(item) for item in value.tolist()) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_plain(item)}" for name, item in value.items()) or "all cells"
    return "none" if value == "None" else str(value)


def _choices(result: Mapping[str, Any]) -> dict[str, str]:
    """What the training chose by held-out cells, of each embedding where there are several."""
    training = result.get("training", {})
    is_one = all(not isinstance(value, Mapping) or name in OF_ONE for name, value in training.items())
    facts = {}
    for name, chosen in ({"": training} if is_one else training).items():
        prefix = f"{name}: " if name else ""
        if "closed_form" in chosen:
            facts[f"{prefix}closed form"] = str(chosen["closed_form"])
        if "best_step" in chosen and "steps" in chosen:
            steps = ", ".join(str(step) for step in np.atleast_1d(chosen["best_step"]))
            facts[f"{prefix}steps kept"] = f"{steps} of {chosen['steps']}"
        # Files and anndata.concat drop what is empty.
        weights = chosen.get("calibration", {}).get("weights", {})
        if len(weights):
            means = [f"{part} {np.mean(np.asarray(value, dtype=float)):.2f}" for part, value in weights.items()]
            facts[f"{prefix}weights"] = f"{', '.join(means)} (means over folds)"
    return facts


def _columns(adata: AnnData, key: str) -> list[str]:
    """Columns of ``obs`` with log ratios of a result."""
    written = written_before(adata, key).get("obs", ())
    return [name for name in written if name == key or name.endswith(("_log_ratio", "_interaction"))]


def _spread(adata: AnnData, key: str) -> pd.DataFrame:
    """A row for each column of log ratios: number of cells, quantiles, share supported, cells at the usual FDR."""
    rows = []
    for name in _columns(adata, key):
        values = adata.obs[name].to_numpy(dtype=float)
        scored = np.isfinite(values)
        if not scored.any():
            continue
        row: dict[str, Any] = {"obs": name, "n_cells": int(scored.sum())}
        row |= dict(zip(("5%", "median", "95%"), np.quantile(values[scored], (0.05, 0.5, 0.95)), strict=True))
        prefix = name.removesuffix("_log_ratio").removesuffix("_interaction")
        if (support := f"{prefix}_support") in adata.obs:
            row["supported"] = float(adata.obs[support].to_numpy()[scored].mean())
        if (qvalue := f"{prefix}_qvalue") in adata.obs:
            row[f"n_qvalue<{FDR}"] = int((adata.obs[qvalue].to_numpy()[scored] < FDR).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def _origin(adata: AnnData, key: str, data: Mapping[str, Any]) -> str:
    """How many cells a result is of, and whether they still are what they were."""
    if not {"n_cells", "cells", "embedding", "labels", "use_rep", "keys"} <= data.keys():
        return "several sets of cells, whose results were joined"
    text = f"{data['n_cells']} of {adata.n_obs} cells"
    scored = np.zeros(adata.n_obs, dtype=bool)
    for name in _columns(adata, key):
        scored |= adata.obs[name].notna().to_numpy()
    for rows in (np.ones(adata.n_obs, dtype=bool), scored):
        if int(rows.sum()) == data["n_cells"] and fingerprint(adata.obs_names[rows]) == data["cells"]:
            return f"{text}; {_changes(adata[rows], data)}"
    return f"{text}; other cells than these now, or only some of these"


def _changes(cells: AnnData, data: Mapping[str, Any]) -> str:
    names, keys = ([str(name) for name in data[part]] for part in ("use_rep", "keys"))
    missing = [source_name(cells, name) for name in names if not has_source(cells, name)]
    missing += [f"obs[{name!r}]" for name in keys if name not in cells.obs]
    if missing:
        return f"{', '.join(missing)} is gone since"
    now = data_fingerprint(cells, names, keys)
    changed = [name for name in ("embedding", "labels") if now[name] != data[name]]
    return f"their {' and '.join(changed)} changed since" if changed else "unchanged since"
