"""Summary of a result: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from anndata import AnnData
from rich.table import Table
from rich.text import Text

from scratio._atomic import atomic
from scratio.cli._session import Talk

FDR = 0.1
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
TABLES = ("table", "summary", "diagnostics")
"""Tables in ``uns`` with a row for each comparison."""


@dataclass(frozen=True)
class Result:
    """Result of an analysis.

    Parameters
    ----------
    command
        Name of the command.
    key_added
        Prefix of the results.
    arguments
        Arguments of the function.
    adata
        Cells with the results.
    keys
        Columns with the conditions.
    """

    command: str
    key_added: str
    arguments: Mapping[str, Any]
    adata: AnnData
    keys: list[str]

    @property
    def record(self) -> Mapping[str, Any]:
        """Record of the result in ``uns``."""
        return self.adata.uns[self.key_added]

    @property
    def groups(self) -> list[str]:
        """Treatments whose results are columns of tables in ``obsm``; empty if there is only one treatment."""
        table = self.adata.obsm.get(f"{self.key_added}_log_ratio") if self.command == "da" else None
        return [] if table is None else [str(name) for name in table.columns]


def summary(result: Result, *, source: Path, out: Path, seconds: float) -> dict[str, Any]:
    """Summarise a result as plain data without NaN.

    Parameters
    ----------
    result
        Result of the analysis.
    source, out
        Files of the input and the result.
    seconds
        Time that the command took.
    """
    record, obs = result.record, result.adata.obs
    # Files store None as a word; JSON has null.
    given = {name for name, value in result.arguments.items() if value is None}
    params = {name: None if name in given else value for name, value in record["params"].items()}
    if result.command == "score":
        params |= {name: result.arguments[name] for name in ("model", "numerator", "denominator")}
    return plain(
        {
            "command": result.command,
            "analysis": record["analysis"],
            "input": str(source),
            "output": str(out),
            "key_added": result.key_added,
            "parameters": params,
            "data": record["data"],
            "versions": record["scratio"],
            "n_cells": len(obs),
            "n_cells_by_key": {key: _sizes(obs[key]) for key in result.keys},
            "results": [{"name": name, **_numbers(*columns)} for name, columns in _columns(result).items()],
            "tables": {name: record[name] for name in TABLES if name in record},
            "seconds": round(seconds, 3),
        }
    )


def _sizes(labels: pd.Series) -> dict[str, int]:
    """Numbers of cells by category; cells without a label are not counted."""
    sizes = labels.dropna().astype(str).value_counts().sort_index()
    return {str(name): int(size) for name, size in sizes.items()}


def _columns(result: Result) -> dict[str, tuple[pd.Series, ...]]:
    """Log ratio, support and q-value (if tested) of every comparison."""
    key, adata = result.key_added, result.adata
    if result.groups:
        tables = [adata.obsm.get(f"{key}_{name}") for name in ("log_ratio", "support", "qvalue")]
        return {name: tuple(table[name] for table in tables if table is not None) for name in result.groups}
    names = _names(result)
    prefixes = {name: f"{key}_{name}" if len(names) > 1 else key for name in names}
    found = {}
    for name, prefix in prefixes.items():
        values = key if result.command == "score" else f"{prefix}_log_ratio"
        columns = [values, f"{prefix}_support", f"{prefix}_qvalue"]
        found[name] = tuple(adata.obs[column] for column in columns if column in adata.obs)
    return found


def _names(result: Result) -> list[str]:
    """Names of the comparisons that have columns of their own."""
    if result.command == "batch":
        return list(result.arguments["use_rep"])
    if result.command == "combination":
        return [str(name) for name in result.record["params"]["combination"]]
    return [result.arguments["treatment"]] if result.command == "da" else [result.key_added]


def _numbers(log_ratio: pd.Series, support: pd.Series, qvalue: pd.Series | None = None) -> dict[str, Any]:
    values = log_ratio.to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    quantiles = np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)
    tested = qvalue is not None and bool(qvalue.notna().any())
    return {
        "n_scored": len(values),
        "mean": values.mean() if len(values) else math.nan,
        "quantiles": {f"{level:g}": value for level, value in zip(QUANTILES, quantiles, strict=True)},
        "n_supported": int(support.sum()),
        "n_significant": int((qvalue <= FDR).sum()) if tested and qvalue is not None else None,
        "fdr": FDR if tested else None,
    }


def plain(value: Any) -> Any:
    """Convert a value to what JSON can hold: tables to lists of rows, numbers that are not finite to None.

    Examples
    --------
    >>> plain({"x": np.array([1.0, np.nan]), "n": np.int64(3), "table": pd.DataFrame({"a": ["b"]})})
    {'x': [1.0, None], 'n': 3, 'table': [{'a': 'b'}]}
    """
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | bool | int | float) else str(value)


def write_json(found: dict[str, Any], path: Path | None, stdout: TextIO) -> None:
    """Write a summary to a file, or to stdout.

    Parameters
    ----------
    found
        Summary.
    path
        File; None writes to stdout.
    stdout
        Stream of stdout.
    """
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    if path is None:
        stdout.write(text)
        stdout.flush()
        return
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def show(talk: Talk, found: dict[str, Any]) -> None:
    """Print a summary as a table, and below it the verdicts."""
    table = Table(title=f"{found['command']}: log ratio in nats", title_justify="left")
    table.add_column("", overflow="fold")
    for name in ("cells", "mean", "5%", "median", "95%", "supported"):
        table.add_column(name, justify="right")
    tested = any(row["n_significant"] is not None for row in found["results"])
    if tested:
        table.add_column(f"q <= {FDR:g}", justify="right")
    for row in found["results"]:
        numbers = [row["mean"], *(row["quantiles"][level] for level in ("0.05", "0.5", "0.95"))]
        cells = [f"{row['n_scored']:,}", *("" if x is None else f"{x:.2f}" for x in numbers), f"{row['n_supported']:,}"]
        if tested:
            cells.append("" if row["n_significant"] is None else f"{row['n_significant']:,}")
        # Names belong to the user: brackets in them are not markup.
        table.add_row(Text(row["name"]), *cells)
    talk.results.print(table)
    for row in found["tables"].get("diagnostics", []):
        talk.results.print(Text(f"{row['treatment']} against {row['reference']}: {row['verdict']}"))
