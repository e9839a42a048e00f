"""Tables of the distances between samples: every task and measure, and where a peer is ahead of scratio."""

from __future__ import annotations

import numpy as np
import pandas as pd

# Measures in the order of the columns; what a larger value means: 1 better, -1 worse, 0 neither.
# Of a bias and a correlation with sizes the distance from 0 counts, of a coverage that from .9, of a slope that from 1.
MEASURES = {
    "spearman": 1,
    "rmse": -1,
    "bias": 0,
    "bias_same": 0,
    "bias_same_small": 0,
    "bias_near": 0,
    "bias_middle": 0,
    "bias_far": 0,
    "slope": 1,
    "size_correlation": 0,
    "coverage": 0.9,
    "coverage_same": 0.9,
    "coverage_near": 0.9,
    "coverage_middle": 0.9,
    "coverage_far": 0.9,
    "error_ratio": 1,
    "auc": 1,
    "auc_batch": -1,
    "relevant": 1,
    "technical": 1,
    "total": 1,
    "trajectory": 1,
    "twins": 1,
}
NEAREST = {"slope": 1.0, "error_ratio": 1.0}
"""Measures whose best value is 1 and not the largest one."""
MAIN = ("spearman", "rmse", "coverage", "auc", "total", "trajectory", "twins")
"""Measures of the table to read."""
COMPARED = [name for name in MEASURES if not name.startswith(("coverage", "error_ratio"))]
"""Measures that peers have too; none of them has a standard error."""


def loss(name: str, values: pd.Series) -> pd.Series:
    """How far values of a measure are from its best one; smaller is better."""
    if name in NEAREST:
        return (values - NEAREST[name]).abs()
    # What is no measure is a number of missing pairs or of seconds.
    kind = MEASURES.get(name, -1)
    if kind in (1, -1):
        return -kind * values
    return (values - kind).abs()


def summary(table: pd.DataFrame, methods: list[str], own: list[str]) -> pd.DataFrame:
    """Write a row for each task and measure: means by method, the best peer, and how far it is ahead.

    Parameters
    ----------
    table
        Rows of tasks, methods and seeds.
    methods
        Methods in the order of the columns. The first is compared with its peers.
    own
        Methods that are no peers, ``"exact"`` aside.
    """
    rows = []
    for (task, name), values in _long(table).groupby(["task", "measure"], sort=False):
        wide = values.pivot_table(index="seed", columns="method", values="value", aggfunc="last", sort=False)
        # A method without a value in any seed does not narrow the seeds of the others.
        wide = wide.dropna(axis=1, how="all").dropna()
        if wide.empty:
            continue
        mean = wide.mean()
        # The errors of a pair have signs that seeds do not cancel: compare mean distances from the best value.
        lost = wide.apply(lambda column, name=name: loss(name, column)).mean()
        peers = lost.drop([*own, "exact"], errors="ignore")
        row = {"task": task, "measure": name, "n_seeds": len(wide), "best_peer": "", "ahead": np.nan}
        if len(peers) and own[0] in lost and name in COMPARED:
            row |= {"best_peer": peers.idxmin(), "ahead": lost[own[0]] - peers.min()}
        rows.append(row | {method: mean.get(method, np.nan) for method in methods})
    return pd.DataFrame(rows)


def _long(table: pd.DataFrame) -> pd.DataFrame:
    measures = [name for name in (*MEASURES, "n_missing", "seconds", "cpu_seconds") if name in table]
    found = table.melt(["task", "method", "seed"], measures, "measure", "value").dropna(subset="value")
    places = {value: place for place, value in enumerate([*dict.fromkeys(table["task"]), *measures])}
    return found.sort_values(["task", "measure"], key=lambda column: column.map(places), kind="stable")
