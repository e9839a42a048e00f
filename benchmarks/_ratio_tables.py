"""Tables from the rows of outside_ratios.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from _information import with_common_seeds
from _labels import EFFORTS

OURS = "scratio"


def by_task(table: pd.DataFrame, methods: list[str], column: str) -> pd.DataFrame:
    """Mean of a column for every task and method; a method that failed with one of the seeds has none.

    ``best`` is the method with the smallest mean, ``best_peer`` that of others than scratio, and ``times_best_peer``
    is how many times as large scratio's mean is: above 1 where a peer is ahead.

    Parameters
    ----------
    table
        Rows, those of a task in one place.
    methods
        Order of the columns.
    column
        Column with the errors, none of them negative.
    """
    table = with_common_seeds(table)
    tasks = table.groupby("task", sort=False)
    found = tasks.agg({"n_cells": "first", "seed": "nunique", "variance": "mean"}).rename(columns={"seed": "n_seeds"})
    mean = table.groupby(["task", "method"])[column].agg(lambda errors: errors.mean(skipna=False)).unstack()
    mean = mean.reindex(found.index)[[name for name in methods if name in mean]]
    peers = mean.drop(columns=[name for name in EFFORTS if name in mean]).dropna(how="all")
    found["best"] = mean.dropna(how="all").idxmin(axis=1)
    if len(peers.columns):
        found["best_peer"] = peers.idxmin(axis=1)
    if OURS in mean and len(peers.columns):
        found["times_best_peer"] = mean[OURS] / peers.min(axis=1)
    return found.join(mean).reset_index()


def median(values: pd.Series) -> float:
    """Median of what is known."""
    known = values.dropna()
    return float(known.median()) if len(known) else np.nan


def by_method(table: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """How every method does over the tasks, each of which counts once.

    ``n_best`` counts the tasks on which no method has a smaller mean square error, ``n_ahead`` those on which it is
    smaller than scratio's. ``times_scratio`` is the median ratio of the two, ``share_of_variance`` the median of the
    mean square error over the variance of the truth, of tasks in which the truth varies.
    """
    tasks = by_task(table, methods, "mse").set_index("task")
    varies = tasks["variance"] > 0.0
    rows = []
    for name in [name for name in methods if name in tasks]:
        errors, runs = tasks[name], table[table["method"] == name]
        ratio = errors / tasks[OURS] if OURS in tasks else pd.Series(np.nan, errors.index)
        rows.append(
            {
                "n_cells": tasks["n_cells"].iloc[0],
                "method": name,
                "n_tasks": int(errors.notna().sum()),
                "n_failed": int(runs["mse"].isna().sum()),
                "n_best": int((tasks["best"] == name).sum()),
                "n_ahead": int((ratio < 1.0).sum()),
                "times_scratio": median(ratio),
                "share_of_variance": median((errors / tasks["variance"])[varies]),
                "n_train": runs["n_train"].max(),
                "seconds": median(runs["seconds"]),
                "cpu_seconds": median(runs["cpu_seconds"]),
            }
        )
    return pd.DataFrame(rows)


def write(path: Path, tasks: list[str], methods: list[str], with_divergence: list[str]) -> None:
    """Write the tables beside the file of the rows, numbers of cells one after the other, the largest first.

    Parameters
    ----------
    path
        File of the rows.
    tasks, methods
        Orders of rows and columns.
    with_divergence
        Tasks of the table of divergences.
    """
    table = pd.read_csv(path)
    orders = {"task": tasks.index, "method": methods.index}
    table = table.sort_values([*orders], key=lambda own: own.map(orders[own.name]))
    table["absolute"] = table["divergence_error"].abs()
    shifts = table[table["task"].isin(with_divergence)]
    groups = {"summary": table, "methods": table, "divergence": shifts}
    for name, rows in groups.items():
        found = []
        for _, own in sorted(rows.groupby("n_cells"), key=lambda pair: -pair[0]):
            if name == "methods":
                found.append(by_method(own, methods))
                continue
            one = by_task(own, methods, "mse" if name == "summary" else "absolute")
            if name == "divergence":
                exact = own.groupby("task", sort=False)["divergence"].mean()
                one["variance"] = exact.to_numpy()
                one = one.rename(columns={"variance": "divergence"})
            found.append(one)
        if found:
            both = pd.concat(found, ignore_index=True)
            both.to_csv(path.with_name(f"{path.stem}_{name}.csv"), index=False, float_format="%.3g")
