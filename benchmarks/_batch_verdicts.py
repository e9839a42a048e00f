"""Rules by which `outside_batch.py` judges scores, and the tables of verdicts.

The rules were fixed before anything was measured, but for `RISE`: it was added when scratio's means were 0 to the sixth
decimal place and still in order, which no score should gain from. `outside_batch.py` tells what the columns are. A
standard error is that of a mean over seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

SCORES = {
    "scratio, nats": ("scratio", "score"),
    "scratio, share": ("scratio", "badness"),
    "scratio quick, nats": ("scratio-quick", "score"),
    "iLISI": ("ilisi", "badness"),
    "kBET": ("kbet", "badness"),
    "BRAS": ("bras", "badness"),
    "sBEE": ("sbee", "badness"),
    "exact, nats": ("exact", "score"),
    "exact, share": ("exact", "badness"),
}
"""Method and column of every score; all are larger for worse mixing.

A share is that of the largest mean log ratio. "exact" is the mean of the exact log ratio on simulated cells: where it
fails, the quantity itself moves; where scratio alone fails, the estimate does.
"""
TOLERANCE, CHANGE, NATS, RISE = 0.05, 0.1, 0.02, 1e-3
"""Badness of mixed cells; relative change of a score that should not move; error in nats (or a tenth of the truth);
smallest rise, and smallest standard error, that count."""
SHIFT = [f"shift-{s}" for s in ("0", "0.25", "0.5", "1", "2")]
SCALE, SOME = (["shift-0", *(f"{kind}-{s}" for s in ("0.5", "1", "2"))] for kind in ("scale", "some-types"))
KANG = [f"kang-{n}" for n in (100, 67, 33, 0)]
PERMUTED = ["synovium-permuted", "synovium-harmony-permuted", "kang-100"]


class Found(NamedTuple):
    """A figure, its standard error over seeds, and whether it passes; None where there is no rule."""

    value: float
    error: float
    passes: bool | None


Values = Callable[[str, str], np.ndarray]
"""From a design and a column to the values over seeds, sorted by seed, those of failures left out."""


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over seeds and its standard error, which one seed does not have."""
    if not len(values):
        return np.nan, np.nan
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def monotone(tasks: list[str]) -> Callable[[Values, str], Found]:
    """Rank correlation with the strength; passes if the mean over seeds rises at every step, by no less than `RISE`."""

    def judge(values: Values, column: str) -> Found:
        by_task = [values(task, column) for task in tasks]
        if len({len(own) for own in by_task}) != 1 or not len(by_task[0]):
            return Found(np.nan, np.nan, None)
        ranks = np.array([_rank_correlation(own) for own in np.array(by_task).T])
        return Found(*mean_and_error(ranks), bool((np.diff([own.mean() for own in by_task]) >= RISE).all()))

    return judge


def _rank_correlation(values: np.ndarray) -> float:
    """Rank correlation of values with their places; 0 if all are alike."""
    steps = np.round(values / RISE)
    return float(spearmanr(np.arange(len(steps)), steps).statistic) if np.ptp(steps) else 0.0


def sensitive(tasks: list[str]) -> Callable[[Values, str], Found]:
    """Rise from no effect to the weakest, in standard errors of the two means together; passes from 2 on."""

    def judge(values: Values, column: str) -> Found:
        (before, error), (after, other) = (mean_and_error(values(task, column)) for task in tasks[:2])
        rise = (after - before) / max(np.hypot(error, other), RISE) if np.isfinite(error + other) else np.nan
        return Found(rise, np.nan, bool(rise > 2.0) if np.isfinite(rise) else None)

    return judge


def mixed(tasks: list[str]) -> Callable[[Values, str], Found]:
    """Badness of the design that is farthest from 0; passes up to a twentieth."""

    def judge(values: Values, column: str) -> Found:
        del column  # a score in nats is judged by its share of the most possible, too
        found = [mean_and_error(values(task, "badness")) for task in tasks]
        value, error = max(found, key=lambda pair: np.nan_to_num(abs(pair[0]), nan=np.inf))
        return Found(value, error, bool(abs(value) <= TOLERANCE) if np.isfinite(value) else None)

    return judge


def unmoved(base: str, tasks: list[str]) -> Callable[[Values, str], Found]:
    """Largest relative change against a design of the same strength; passes up to a tenth."""

    def judge(values: Values, column: str) -> Found:
        start, found = values(base, column), []
        for task in tasks:
            own = values(task, column)
            found.append(mean_and_error(own / start - 1.0) if len(own) == len(start) else (np.nan, np.nan))
        value, error = max(found, key=lambda pair: np.nan_to_num(abs(pair[0]), nan=np.inf))
        return Found(value, error, bool(abs(value) <= CHANGE) if np.isfinite(value) else None)

    return judge


def larger(task: str, other: str) -> Callable[[Values, str], Found]:
    """By how much one design is worse than another; passes if by more than two standard errors of the difference."""

    def judge(values: Values, column: str) -> Found:
        own, others = values(task, column), values(other, column)
        value, error = mean_and_error(own - others) if len(own) == len(others) else (np.nan, np.nan)
        passes = value > 2.0 * max(np.nan_to_num(error), RISE)
        return Found(value, error, bool(passes) if np.isfinite(value) else None)

    return judge


def known(tasks: list[str]) -> Callable[[Values, str], Found]:
    """Mean error in nats where it is worst for what is allowed: a tenth of the truth, or .02 if that is more."""

    def judge(values: Values, column: str) -> Found:
        found = []
        for task in tasks:
            value, error = mean_and_error(values(task, "error"))
            allowed = max(NATS, CHANGE * values(task, "truth").mean()) if np.isfinite(value) else np.nan
            found.append((abs(value) / allowed, value, error))
        if column != "score" or not np.isfinite([worst for worst, *_ in found]).all():
            return Found(np.nan, np.nan, None)
        worst, value, error = max(found)
        return Found(value, error, bool(worst <= 1.0))

    return judge


def named(task: str) -> Callable[[Values, str], Found]:
    """Place of the moved type among six; passes if it is the first at every seed."""

    def judge(values: Values, column: str) -> Found:
        del column
        ranks = values(task, "rank")
        return Found(*mean_and_error(ranks), bool((ranks == 1.0).all()) if len(ranks) else None)

    return judge


def separated(task: str) -> Callable[[Values, str], Found]:
    """Area under the curve of single cells; passes from .75 on, the mark of CellMixS for a good measure."""

    def judge(values: Values, column: str) -> Found:
        del column
        value, error = mean_and_error(values(task, "auc"))
        return Found(value, error, bool(value >= 0.75) if np.isfinite(value) else None)

    return judge


CRITERIA: dict[str, tuple[str, Callable[[Values, str], Found]]] = {
    "grows with the shift": ("rank correlation; rises at every step", monotone(SHIFT)),
    "grows with the scale": ("rank correlation; rises at every step", monotone(SCALE)),
    "grows with the shift of two types of five": ("rank correlation; rises at every step", monotone(SOME)),
    "falls with permuted batches, Kang": ("rank correlation; rises at every step", monotone(KANG)),
    "sees a shift of a quarter of a deviation": ("rise in standard errors; above 2", sensitive(SHIFT)),
    "is right in nats": (
        "worst mean error; at most .02 or a tenth of the truth",
        known([*SHIFT, *SCALE[1:], *SOME[1:]]),
    ),
    "0 for permuted batches of real cells": ("worst badness; at most .05", mixed(PERMUTED)),
    "0 for mixed cells, sizes 1:1, 1:5, 1:20": (
        "worst badness; at most .05",
        mixed([f"sizes-{n}-0" for n in (1, 5, 20)]),
    ),
    "the same for sizes 1:1, 1:5, 1:20": (
        "worst relative change; at most .1",
        unmoved("sizes-1-1", ["sizes-5-1", "sizes-20-1"]),
    ),
    "0 for mixed cells, one type in one batch alone": ("badness; at most .05", mixed(["own-type-0"])),
    "the same with a type that one batch alone has": (
        "relative change; at most .1",
        unmoved("shift-1", ["own-type-1"]),
    ),
    "counts such a type if no types are given": (
        "rise without types; above 2 standard errors",
        larger("own-type-unlabelled", "own-type-0"),
    ),
    "0 for mixed cells, batches of other types": ("badness; at most .05", mixed(["uneven-types-0"])),
    "the same in batches of other types": ("relative change; at most .1", unmoved("shift-1", ["uneven-types-1"])),
    "counts other shares of types if no types are given": (
        "rise without types; above 2 standard errors",
        larger("uneven-types-unlabelled", "uneven-types-0"),
    ),
    "names the one moved type, 30% of the cells": ("place among six; first at every seed", named("local-30")),
    "names the one moved type, 5% of the cells": ("place among six; first at every seed", named("local-5")),
    "finds its cells, 30%": ("area under the curve; at least .75", separated("local-30")),
    "finds its cells, 5%": ("area under the curve; at least .75", separated("local-5")),
    "synovium: worse before Harmony": ("difference; above 2 standard errors", larger("synovium", "synovium-harmony")),
}
"""Rule in words, and the function that applies it."""


def exact(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the exact log ratio, taken from those of scratio on simulated cells."""
    own = table[(table["method"] == "scratio") & table["truth"].notna() & ~table["task"].isin(PERMUTED)]
    return own[["task", "seed", "truth"]].assign(
        method="exact", score=own["truth"], badness=own["truth"] / own["ceiling"]
    )


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Figure, standard error and verdict of every score by every criterion that was measured.

    Parameters
    ----------
    table
        Rows of ``outside_batch.csv``.
    """
    rows, table = [], pd.concat([table, exact(table)], ignore_index=True)
    for score, (method, column) in SCORES.items():
        own = table[table["method"] == method].sort_values("seed").set_index("task")

        def values(task: str, name: str, own: pd.DataFrame = own) -> np.ndarray:
            return own.loc[[task], name].dropna().to_numpy(dtype=float) if task in own.index else np.empty(0)

        for criterion, (rule, judge) in CRITERIA.items():
            found = judge(values, column)
            if np.isfinite(found.value):
                rows.append({"criterion": criterion, "rule": rule, "score": score, **found._asdict()})
    return pd.DataFrame(rows, columns=["criterion", "rule", "score", *Found._fields])


def readable(found: pd.DataFrame) -> pd.DataFrame:
    """Verdicts as a table to read: criteria down, scores across."""
    texts = [_text(*row) for row in found[["value", "error", "passes"]].itertuples(index=False)]
    wide = found.assign(text=texts).pivot(index=["criterion", "rule"], columns="score", values="text").fillna("-")
    rows = [name for name in CRITERIA if name in wide.index.get_level_values(0)]
    return wide.reindex(rows, level=0)[[name for name in SCORES if name in wide]].reset_index()


def _text(value: float, error: float, passes: bool | None) -> str:
    spread = f" ± {round(error, 4) + 0.0:.2g}" if np.isfinite(error) else ""
    return f"{round(value, 4) + 0.0:.3g}{spread}{'' if passes is None else ' yes' if passes else ' no'}"
