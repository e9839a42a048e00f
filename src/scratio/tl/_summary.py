"""What a result says, in words and tables."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._check import check_anndata, check_obs_key, has_source, source_name
from scratio._constants import RESULT_MARK
from scratio._modality import takes_modality
from scratio._summary import Summary
from scratio.model._saving import fingerprint
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._write import is_result, storable, written_before

FDR = 0.1
TABLES = {
    "table": "Results",
    "summary": "Results",
    "matrix": "Mean log ratio of treated cells, donors by treatments (nats)",
}
MOST_ROWS = 12
OF_REGIONS = (
    "treatment",
    "region",
    "n_cells",
    "annotation_share",
    "mean_log_ratio",
    "effect",
    "qvalue",
    "agreeing",
)
"""What is shown of a region."""
UNLABELLED = "unlabelled"
PARTS = {
    "network": "neural network",
    "shared Gaussian": "Gaussians of one shape",
    "class Gaussians": "a Gaussian for each condition",
    "mixture": "a mixture of Gaussians",
    "abundances": "abundances of cell types",
}
"""What a log ratio is a weighted sum of, in the words of the summary."""
LEAST_WEIGHT = 0.005
_NOT_SHOWN = ("model_kwargs", "train_kwargs", "method_kwargs")
_SIGN = (
    "Log ratios are in nats; positive means more likely under the numerator (the treatment). exp(value) is the ratio."
)

_DISTANCES = "Distances are in nats: the sum of both Kullback-Leibler divergences, 0 for samples that do not differ."
JOINED = "several sets of cells, whose results were joined"
OF_ONE = {"calibration", "evidence"}
"""Mappings in the record of one training; any other mapping is the training of one of several embeddings."""


@takes_modality
def summary(adata: AnnData, *, key: str = "da", groupby: str | None = None, mod: str | None = None) -> Summary:
    """Summarise a result of scratio, as text or, in a notebook, as HTML.

    Parameters
    ----------
    adata
        Cells with a result.
    key
        ``key_added`` of the analysis.
    groupby
        Column of ``obs`` with cell types or clusters. The summary then has a row for each of them, with its mean log
        ratio.

    Returns
    -------
    Summary, which prints itself. It says what was compared; the log ratios (nats) of all cells and of each group of
    ``groupby``, with the share of supported cells and, if samples were tested, of cells with a q-value below 0.1; the
    significant regions, if :func:`scratio.tl.regions` was called; and the verdict of the diagnostics. The details
    follow: parameters that differ from the defaults, what the training chose, and whether the cells, their embedding
    and their labels are still those that the result was computed from.

    Raises
    ------
    KeyError
        If ``uns`` holds no result of scratio under the key, or ``obs`` has no column ``groupby``.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> print(str(scratio.tl.summary(adata)).splitlines()[0])
    treated over control, 600 cells, X_pca (differential_abundance, key 'da')
    """
    check_anndata(adata)
    result = _result(adata, key)
    if groupby is not None:
        check_obs_key(adata, groupby)
    values = log_ratios(adata, key)
    origin = _origin(adata, key, result.get("data", {}))
    tables = {} if (spread := spread_of(values)).empty else {"Log ratios of the cells (nats)": spread}
    if groupby is not None:
        for name, table in groups_of(values, adata.obs[groupby]).items():
            of_column = f" of {name}" if len(values) > 1 else ""
            tables[f"Log ratios{of_column} by {groupby} (nats)"] = table
    notes = [] if origin.endswith(("; unchanged since", JOINED)) else [f"Note: {origin}."]
    found, folded = _tables(result)
    if isinstance(regions := result.get("regions"), pd.DataFrame) and regions.empty:
        notes.append("No region is significant.")
    notes += [*_verdicts(result), _DISTANCES if result["analysis"] == "sample_distance" else _SIGN]
    details = Summary("Details", _facts(result, origin), folded, _more(result, key))
    return Summary(_asked(result, values, key), {}, tables | found, notes, details)


def _verdicts(result: Mapping[str, Any]) -> list[str]:
    table = result.get("diagnostics")
    if not isinstance(table, pd.DataFrame) or "verdict" not in table:
        return []
    return [f"{row.treatment}: {row.verdict}" for row in table.itertuples()]


def _tables(result: Mapping[str, Any]) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Tables that are the answer, and those that few readers need."""
    found: dict[str, pd.DataFrame] = {}
    folded: dict[str, pd.DataFrame] = {}
    is_compared = result["analysis"] == "differential_abundance"
    for name, title in TABLES.items():
        if isinstance(table := result.get(name), pd.DataFrame):
            shown = table.reset_index() if name == "matrix" else table
            if len(shown) > MOST_ROWS:
                title = f"{title} (first {MOST_ROWS} of {len(shown)} rows)"
            (folded if is_compared else found)[title] = shown.head(MOST_ROWS)
    if isinstance(regions := result.get("regions"), pd.DataFrame):
        # Regions of one of several treatments say whose they are.
        compared = result.get("diagnostics", regions)["treatment"].nunique()
        shown = regions.drop(columns=["treatment"] if compared < 2 else [])
        shown = shown.assign(agreeing=[f"{row.samples_agreeing} of {row.n_samples}" for row in shown.itertuples()])
        shown = shown[[name for name in OF_REGIONS if name in shown]].dropna(axis=1, how="all")
        title = "Significant regions"
        if len(shown) > MOST_ROWS:
            title = f"{title} (first {MOST_ROWS} of {len(shown)} rows)"
        found[title] = shown.head(MOST_ROWS)
    if isinstance(table := result.get("diagnostics"), pd.DataFrame):
        folded["Diagnostics"] = table.drop(columns=["verdict", "closed_form"], errors="ignore")
    return {title: table for title, table in found.items() if len(table)}, folded


def _more(result: Mapping[str, Any], key: str) -> list[str]:
    """Calls that return the tables of a result."""
    names = ["table", "diagnostics", "calibration", "neighborhoods", "samples", "regions"]
    found = [name for name in names if isinstance(result.get(name), pd.DataFrame)]
    if "summary" in result and "table" not in found:
        found.insert(0, "table")
    return [f"All tables: scratio.get.{{{', '.join(found)}}}(adata, key={key!r})"] if found else []


def _asked(result: Mapping[str, Any], values: Mapping[str, pd.DataFrame], key: str) -> str:
    """What was asked, in a line."""
    analysis, params, data = result["analysis"], result.get("params", {}), result.get("data", {})
    given = {name: _plain(value) for name, value in params.items() if _plain(value) != "none"}
    diagnosed = result.get("diagnostics")
    if isinstance(diagnosed, pd.DataFrame) and "treatment" in diagnosed:
        given["treatment"] = ", ".join(map(str, diagnosed["treatment"]))
    if "treatment" in given:
        asked = f"{given['treatment']} over {given.get('reference', 'the reference')}"
    elif "combination" in given:
        asked = f"{given['combination']} over its first treatment"
    elif "numerator" in given:
        asked = f"{given['numerator']} over {given.get('denominator', 'all cells')}"
    elif "treatment_key" in given:
        asked = f"{given['treatment_key']} over {given.get('reference', 'the reference')}, by {given.get('donor_key')}"
    elif analysis == "batch_effect" and "batch_key" in given:
        within = f", within {given['label_key']}" if "label_key" in given else ""
        asked = f"each cell's own {given['batch_key']} over all{within}"
    elif "covariate_key" in given:
        asked = f"values of {given['covariate_key']} over {given.get('reference')}"
    elif analysis == "association" and "key" in given:
        asked = f"cells by {given['key']}"
    elif analysis == "sample_distance" and "sample_key" in given:
        asked = f"distances between {given['sample_key']}"
    else:
        asked = analysis
    scored = max((len(table) for table in values.values()), default=0)
    n_cells = int(data["n_cells"]) if "n_cells" in data else scored
    size = [f"{n_cells:,} cells"] if n_cells else []
    return f"{', '.join([asked, *size, *([given['use_rep']] if 'use_rep' in given else [])])} ({analysis}, key {key!r})"


def _facts(result: Mapping[str, Any], origin: str) -> dict[str, str]:
    """Parameters that differ from their defaults, what the training chose, and where it all comes from."""
    tools = import_module("scratio.tl")
    defaults: dict[str, Any] = {"effort": "default"}
    for name in ("differential_abundance", str(result["analysis"])):
        if (function := getattr(tools, name, None)) is not None:
            parameters = signature(function).parameters.values()
            defaults |= {one.name: one.default for one in parameters if one.default is not one.empty}
    params = {name: value for name, value in result.get("params", {}).items() if name not in _NOT_SHOWN}
    usual = {name: _plain(storable(value)) for name, value in defaults.items()}
    facts = {name: text for name, value in params.items() if (text := _plain(value)) != usual.get(name, "none")}
    facts |= _choices(result)
    facts["computed from"] = origin
    made = result[RESULT_MARK]
    facts["made by"] = ", ".join(f"{name} {made[name]}" for name in ("scratio", "torch", "python") if name in made)
    return facts


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
        if chosen.get("steps", 0) and "best_step" in chosen:
            steps = ", ".join(str(step) for step in np.atleast_1d(chosen["best_step"]))
            facts[f"{prefix}steps kept"] = f"{steps} of {chosen['steps']}"
        # Files and anndata.concat drop what is empty.
        weights = chosen.get("calibration", {}).get("weights", {})
        if len(weights):
            means = {part: float(np.mean(np.asarray(value, dtype=float))) for part, value in weights.items()}
            used = [f"{PARTS.get(part, part)} {weight:.2f}" for part, weight in means.items() if weight >= LEAST_WEIGHT]
            facts[f"{prefix}log ratios from"] = f"{' + '.join(used) or 'no difference'} (mean weights of the folds)"
    return facts


def _columns(adata: AnnData, key: str) -> list[str]:
    """Columns of ``obs`` with log ratios of a result."""
    written = written_before(adata, key).get("obs", ())
    return [name for name in written if name == key or name.endswith(("_log_ratio", "_interaction"))]


def log_ratios(adata: AnnData, key: str) -> dict[str, pd.DataFrame]:
    """Log ratio, support and q-value of the scored cells, by comparison: from ``obsm`` where there are several."""
    several = adata.obsm.get(f"{key}_log_ratio")
    found = {}
    if isinstance(several, pd.DataFrame) and f"{key}_log_ratio" in written_before(adata, key).get("obsm", ()):
        for name in several:
            parts = {"log_ratio": several[name]}
            for kind in ("support", "qvalue"):
                if isinstance(table := adata.obsm.get(f"{key}_{kind}"), pd.DataFrame) and name in table:
                    parts[kind] = table[name]
            found[str(name)] = pd.DataFrame(parts)
    else:
        for name in _columns(adata, key):
            prefix = name.removesuffix("_log_ratio").removesuffix("_interaction")
            parts = {"log_ratio": adata.obs[name]}
            for kind in ("support", "qvalue"):
                if (column := f"{prefix}_{kind}") in adata.obs:
                    parts[kind] = adata.obs[column]
            found[name] = pd.DataFrame(parts)
    return {name: table[np.isfinite(table["log_ratio"].to_numpy(dtype=float))] for name, table in found.items()}


def spread_of(values: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each comparison: number of cells, quantiles, share supported, share at the usual FDR."""
    rows = []
    for name, table in values.items():
        if len(table):
            quantiles = np.quantile(table["log_ratio"].to_numpy(dtype=float), (0.05, 0.5, 0.95))
            numbers = dict(zip(("5%", "median", "95%"), quantiles, strict=True))
            rows.append({"log ratio": name, "n_cells": len(table), **numbers, **_shares(table)})
    return pd.DataFrame(rows)


def groups_of(values: Mapping[str, pd.DataFrame], labels: pd.Series) -> dict[str, pd.DataFrame]:
    """A row for each label, by comparison: number and share of the compared cells, mean log ratio, shares as above."""
    names = labels.astype(object).where(labels.notna(), UNLABELLED).astype(str)
    found = {}
    for name, table in values.items():
        rows = [
            {
                str(labels.name): label,
                "n_cells": len(part),
                "share": len(part) / len(table),
                "mean": float(part["log_ratio"].mean()),
                **_shares(part, is_tested=_is_tested(table)),
            }
            for label, part in table.groupby(names.loc[table.index].to_numpy())
        ]
        if rows:
            found[name] = pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)
    return found


def _is_tested(table: pd.DataFrame) -> bool:
    return "qvalue" in table and bool(table["qvalue"].notna().any())


def _shares(table: pd.DataFrame, is_tested: bool | None = None) -> dict[str, float]:
    shares = {"supported": float(table["support"].astype(float).mean())} if "support" in table else {}
    if _is_tested(table) if is_tested is None else is_tested:
        shares[f"q < {FDR}"] = float((table["qvalue"] < FDR).mean())
    return shares


def _origin(adata: AnnData, key: str, data: Mapping[str, Any]) -> str:
    """How many cells a result is of, and whether they still are what they were."""
    if not {"n_cells", "cells", "embedding", "labels", "use_rep", "keys"} <= data.keys():
        return JOINED
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
