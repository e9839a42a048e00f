"""Tables and a figure from the rows of outside_information.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

OURS, LIMIT = "scratio", 0.5
"""Our method, and the error in nats at which the figure's colours end."""
POINTWISE = ["rmse", "rmse_exchanged", "slope", "correlation"]


def with_common_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of those seeds of a task that all methods of this task have.

    Most of the error of a good method is that of the samples, which is common to all methods.
    """
    methods = table.groupby("task")["method"].transform("nunique")
    return table[table.groupby(["task", "seed"])["method"].transform("nunique") == methods]


def by_task(table: pd.DataFrame, methods: list[str], *, absolute: bool) -> pd.DataFrame:
    """Mean error of every method on every task over the seeds; a method that failed with one of them has none.

    Parameters
    ----------
    table
        Rows, those of a task in one place.
    methods
        Order of the columns.
    absolute
        Whether to average absolute errors, name the best method and say how far ours is ``behind`` it.
    """
    table = with_common_seeds(table)
    of_sample = table["of_sample"] - table["information"]
    both = table.assign(exact=of_sample.abs() if absolute else of_sample)
    both["error"] = both["error"].abs() if absolute else both["error"]
    tasks = both.groupby("task", sort=False)
    found = tasks.agg({"family": "first", "information": "first", "seed": "nunique", "exact": "mean"})
    found = found.rename(columns={"seed": "n_seeds"})
    mean = both.groupby(["task", "method"])["error"].agg(lambda errors: errors.mean(skipna=False)).unstack()
    mean = mean.reindex(found.index)[[name for name in methods if name in mean]]
    if absolute:
        found.insert(3, "best", mean.idxmin(axis=1))
        if OURS in mean:
            found.insert(4, "behind", mean[OURS] - mean.min(axis=1))
    return found.join(mean).reset_index()


def by_method(table: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Errors of every method over the tasks of a version of the suite, each task counting once, and its seconds.

    ``error``, ``bias`` and ``largest`` are means of a task's mean absolute error and mean error, and the largest mean
    absolute error; ``n_best`` says on how many tasks no method has a smaller one.
    """
    rows = []
    for version, own in table.groupby("version", sort=False):
        absolute = by_task(own, methods, absolute=True)
        signed = by_task(own, methods, absolute=False)
        for name in [name for name in methods if name in absolute]:
            errors, runs = absolute[name], own[own["method"] == name]
            rows.append(
                {
                    "version": version,
                    "method": name,
                    "n_tasks": int(errors.notna().sum()),
                    "n_failed": int(runs["error"].isna().sum()),
                    "error": errors.mean(),
                    "bias": signed[name].mean(),
                    "largest": errors.max(),
                    "n_best": int((absolute["best"] == name).sum()),
                    "seconds": runs["seconds"].median(),
                    "cpu_seconds": runs["cpu_seconds"].median(),
                }
            )
    return pd.DataFrame(rows)


def by_seeds(table: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Mean absolute errors over several seeds, of the tasks and methods that have them.

    ``best_peer`` is the peer with the smallest error, and ``behind`` by how much ours is larger, with its standard
    error over the seeds: all methods get the same samples, so that their errors are compared seed by seed.
    """
    several = table[table.groupby(["task", "method"])["seed"].transform("nunique") > 1]
    rows = []
    for task, own in with_common_seeds(several).groupby("task", sort=False):
        errors = own.assign(size=own["error"].abs()).pivot_table(index="seed", columns="method", values="size")
        names = [name for name in methods if name in errors]
        row = {"task": task, "family": own["family"].iloc[0], "n_seeds": len(errors)}
        peers = errors[[name for name in names if not name.startswith(OURS)]].mean()
        if OURS in errors and len(peers):
            behind = errors[OURS] - errors[peers.idxmin()]
            row |= {"best_peer": peers.idxmin(), "behind": behind.mean(), "behind_standard_error": behind.sem()}
        rows.append(row | errors[names].mean().to_dict())
    return pd.DataFrame(rows)


def by_family(table: pd.DataFrame) -> pd.DataFrame:
    """Errors of the log ratios of single pairs by family of tasks, each task counting once."""
    known = table[table["rmse"].notna()]
    of_tasks = known.groupby(["family", "method", "task"], sort=False)[POINTWISE].mean()
    groups = of_tasks.groupby(["family", "method"], sort=False)
    found = groups.mean()
    found.insert(0, "n_tasks", groups.size())
    return found.reset_index()


def plot(table: pd.DataFrame, methods: list[str], path: Path) -> None:
    """Draw mean estimates of every method on every task, coloured by their mean error."""
    signed = by_task(table, methods, absolute=False).set_index("task")
    names = [name for name in methods if name in signed]
    errors, truth = signed[names].to_numpy(), signed["information"].to_numpy()[:, None]
    shown = np.concatenate([np.zeros_like(truth), errors], axis=1)
    figure, ax = plt.subplots(figsize=(9.5, 1.6 + 0.19 * len(signed)), layout="constrained")
    colours = plt.get_cmap("RdBu_r").with_extremes(bad="#cccccc")
    image = ax.imshow(np.ma.masked_invalid(shown), cmap=colours, vmin=-LIMIT, vmax=LIMIT, aspect="auto")
    for (row, column), error in np.ndenumerate(shown):
        written = f"{truth[row, 0] + error:.2f}" if np.isfinite(error) else "–"
        is_dark = abs(error) > 0.7 * LIMIT
        style = {"ha": "center", "va": "center", "fontsize": 7, "color": "white" if is_dark else "black"}
        ax.text(column, row, written, **style)
    ax.set_xticks(range(len(names) + 1), ["truth", *names], rotation=35, ha="left")
    ax.set_yticks(range(len(signed)), signed.index, fontsize=7)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    families = signed["family"].to_numpy()
    for row in np.flatnonzero(families[1:] != families[:-1]):
        ax.axhline(row + 0.5, color="black", linewidth=0.8)
    label = "error of the mutual information (nats)"
    figure.colorbar(image, ax=ax, label=label, location="bottom", shrink=0.5, aspect=40, pad=0.01, extend="both")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write(path: Path, tasks: dict[str, str], methods: list[str], n_samples: int) -> None:
    """Write the tables and the figure beside the file of the rows.

    Parameters
    ----------
    path
        File of the rows.
    tasks
        Version of the suite of every task, in the order of the tables.
    methods
        Order of the methods.
    n_samples
        Number of samples of the rows to use.
    """
    table = pd.read_csv(path).query("n_samples == @n_samples").copy()
    table["version"] = table["task"].map(tasks)
    orders = {"task": [*tasks].index, "method": methods.index}
    table = table.sort_values([*orders], key=lambda own: own.map(orders[own.name]))
    tables = {
        "summary": by_task(table, methods, absolute=True),
        "signed": by_task(table, methods, absolute=False),
        "methods": by_method(table, methods),
        "pointwise": by_family(table),
        "seeds": by_seeds(table, methods),
    }
    for name, found in tables.items():
        found.to_csv(path.with_name(f"{path.stem}_{name}.csv"), index=False, float_format="%.3g")
    plot(table, methods, path.with_suffix(".png"))
