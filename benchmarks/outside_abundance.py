"""Differential abundance on the benchmark of Yi et al. (2024), after that of Dann et al. (2022), beside other tools.

    python benchmarks/outside_abundance.py             # days; writes results/outside_abundance*.csv and .png
    python benchmarks/outside_abundance.py --quick     # seconds, on made-up cells; the figures mean nothing
    python benchmarks/outside_abundance.py --sources kang --methods scratio meld --seeds 0 --strengths 0 0.14 1.03

The protocol is that of `settylab/kompot_benchmarkDA`, written anew. Labels are planted on real cells: cells near the
centre of a target population are "treated" with a probability of up to .75, .85 or .95, others down to one half, and
all are then multiplied by one factor that makes both labels equally frequent. Cells are dealt into three samples of
each label, samples into two batches, and each batch is moved at random by one of eleven strengths. Here every seed has
another target population, batches always have samples of both labels, and data sets have at most 3,000 cells. Data sets
are two simulations of miloR (the environment variable SCRATIO_MILO names their folder) and real cells of four studies;
where these have no cell types, k-means makes eight populations.

Cells with the largest probabilities, as many as the target has, count as more frequent; cells as far below one half
count as less frequent; others count as unchanged. ``power`` is the share of the former that a tool calls, with the
right sign, by its own rule for a false discovery rate of .1; ``fdr`` is the share of wrong calls among its calls, 0
without calls; both are blank where a tool gives no answer, such as scratio's test alone with three samples a label in
two batches. Milo calls neighbourhoods: a cell counts as called if most of its neighbourhoods are, and in ``power_any``
and ``fdr_any`` if one is. ``wrong_sign`` is the share of its calls whose exact log ratio has the other sign. ``auroc``
and ``auprc`` are the areas under both curves by which it ranks the cells, means over the two signs. ``rmse`` is the
root mean square error of the log ratio in nats. scratio ranks by its log ratio; ``auroc_effect`` and ``auprc_effect``
are of the effect that it tests.

Tools: scratio, its quick form, its test across samples alone, and 20 clusters under its model of counts; MELD, Milo by
pertpy and by edgePython, CNA, kompot (`significance_peers` has their settings). scratio's test, Milo and CNA hold the
batch fixed. Rows that the file has are not measured again without ``--again``; answers are kept in `benchmarks/cache`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _abundance_designs import SOURCES, Design, design, sampled
from _environments import CACHE, MELD, answered, cohort_command, put
from _methods import line_styles
from _rows import Rows, parsed
from _simulate import mixtures
from sklearn.metrics import average_precision_score, roc_auc_score

RESULTS, NAME = Path(__file__).parent / "results", "outside_abundance.csv"
KEYS = ["source", "seed", "enrichment", "strength", "method"]
METHODS = (
    "scratio", "scratio-quick", "scratio-samples", "clusters", "meld",
    "milo_edgepython", "milo_pertpy", "cna", "kompot",
)  # fmt: skip
ENRICHMENTS, SEEDS = (0.75, 0.85, 0.95), (0, 1, 2)
STRENGTHS = (0.0, 0.05, 0.07, 0.1, 0.14, 0.19, 0.27, 0.38, 0.53, 0.74, 1.03)
WITHOUT_BLOCKS = {"kompot"}
"""Tools that have no place for a batch."""
MEASURES = ("power", "fdr", "power_any", "fdr_any", "wrong_sign", "auroc", "auprc", "rmse", "cpu_seconds")
MADE_UP, N_QUICK = "made-up", 300


def cells_of(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Embedding and populations of a data set, or of made-up cells."""
    if source != MADE_UP:
        return sampled(*SOURCES[source].read(SOURCES[source].path))
    x = mixtures(np.random.default_rng(0), N_QUICK)[0][:, :5].astype(np.float32)
    return x, np.where(x[:, 0] > 0.0, "right", "left")


def made(source: str, seed: int, enrichment: float, strength: float) -> Design:
    """Cells with planted labels and batches."""
    is_discrete = source != MADE_UP and SOURCES[source].is_discrete
    return design(*cells_of(source), seed, enrichment, strength, is_discrete)


def question_of(found: Design, name: str, folder: Path, has_blocks: bool) -> Path:
    """Write a design as tools read it. A batch is the block of its samples where a tool takes blocks."""
    arrays = {"x": found.x, "sample": found.sample, "group": found.group}
    if has_blocks:
        arrays |= {"donor": found.batch, "batch": found.batch}
    else:
        arrays |= {"donor": np.arange(len(found.group))}
    return put(arrays, folder / ("blocks" if has_blocks else "alone") / f"{name}.npz")


def areas(truth: np.ndarray, value: np.ndarray) -> dict[str, float]:
    """Areas under the ROC and the precision-recall curve, means over the signs that there are.

    Parameters
    ----------
    truth
        1, -1 or 0 for every cell.
    value
        What a tool ranks the cells by.
    """
    signs = [sign for sign in (1, -1) if 0 < (truth == sign).sum() < len(truth)]
    return {
        "auroc": float(np.mean([roc_auc_score(truth == sign, sign * value) for sign in signs])),
        "auprc": float(np.mean([average_precision_score(truth == sign, sign * value) for sign in signs])),
    }


def discoveries(is_called: np.ndarray, sign: np.ndarray, found: Design) -> dict[str, float]:
    """Power, share of false calls, and share of calls whose exact log ratio has the other sign.

    Parameters
    ----------
    is_called
        Whether a tool calls a cell.
    sign
        Sign of the change that it sees there.
    found
        The design.
    """
    called = np.where(is_called, sign, 0.0)
    is_called, is_changed = called != 0.0, found.truth != 0
    n_called = max(is_called.sum(), 1)
    return {
        "power": float((called == found.truth)[is_changed].mean()),
        "fdr": float((is_called & (called != found.truth)).sum() / n_called),
        "wrong_sign": float((is_called & (called * found.log_ratio < 0.0)).sum() / n_called),
    }


def measured(answer: dict[str, np.ndarray], found: Design) -> dict[str, Any]:
    """What the answer of a tool allows of the measures."""
    spent = {name: float(answer[name]) for name in ("seconds", "cpu_seconds")}
    if "error" in answer:
        return {**dict.fromkeys(MEASURES[:-1], np.nan), **spent, "error": str(answer["error"])[:200]}
    value = np.nan_to_num(answer["log_ratio"] if "log_ratio" in answer else answer["score"])
    row: dict[str, Any] = dict.fromkeys(MEASURES[:-1], np.nan) | areas(found.truth, value)
    if "log_ratio" in answer:
        row["rmse"] = float(np.sqrt(np.mean((value - found.log_ratio) ** 2)))
    effect = np.nan_to_num(answer["effect"]) if "effect" in answer else value
    if "found" in answer:
        # Called by the sign of what is tested.
        row |= discoveries(answer.get("found_by_most", answer["found"]), np.sign(effect), found)
    if "found_by_most" in answer:
        by_one = discoveries(answer["found"], np.sign(effect), found)
        row |= {f"{name}_any": by_one[name] for name in ("power", "fdr")}
    of_effect = areas(found.truth, effect) if "effect" in answer else {"auroc": np.nan, "auprc": np.nan}
    return {**row, **{f"{name}_effect": area for name, area in of_effect.items()}, **spent, "error": ""}


def run(rows: Rows, options: argparse.Namespace, folder: Path) -> None:
    """Measure what is asked for and not there yet; designs with the same method are asked for in one process."""
    known = set() if options.again else rows.known()
    for seed, strengths in product(options.seeds, in_turn(options.strengths)):
        for source, method in product(options.sources, options.methods):
            wanted = [
                (source, seed, enrichment, strength)
                for enrichment, strength in product(options.enrichments, strengths)
                if (source, seed, enrichment, strength, method) not in known
            ]
            if not wanted or (method == "meld" and not MELD.exists()):
                continue
            has_blocks = method not in WITHOUT_BLOCKS
            designs = {"_".join(map(str, key)): made(*key) for key in wanted}
            questions = [question_of(found, name, folder, has_blocks) for name, found in designs.items()]
            called = cohort_command(method, questions, folder / "answers")
            if called is None:
                continue
            subprocess.run(list(map(str, called[0])), env=called[1], check=True, stdout=subprocess.DEVNULL)
            for key, question, found in zip(wanted, questions, designs.values(), strict=True):
                answer = answered(folder / "answers", method, question)
                if answer is not None:
                    rows.add(**dict(zip(KEYS, (*key, method), strict=True)), **measured(answer, found))
            write_summaries(rows.folder)


def in_turn(strengths: list[float]) -> list[list[float]]:
    """Strengths in two parts: none, a middle one and the largest come first, so that a stopped run has them."""
    first = sorted({min(strengths), sorted(strengths)[len(strengths) // 2], max(strengths)})
    return [part for part in (first, [one for one in strengths if one not in first]) if part]


def common(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the designs that all methods of the table have."""
    place = table.groupby(KEYS[:-1])["method"].transform("nunique")
    return table[place == table["method"].nunique()]


def summarise(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means of the measures: by data set, and by strength of the batch effect."""
    order = {name: number for number, name in enumerate(METHODS)}
    # Of one data set, all methods that were run on it; over the data sets, those that were run on all.
    of_sources = pd.concat([common(part) for _, part in table.groupby("source", sort=False)])
    everywhere = table.groupby("method")["source"].nunique() == table["source"].nunique()
    of_all = common(table[table["method"].map(everywhere)])
    found = {}
    for name, key, shared in (("summary", "source", of_sources), ("strengths", "strength", of_all)):
        groups = shared.groupby([key, "method"], sort=False)
        means = groups[list(MEASURES)].mean()
        means.insert(0, "n_designs", groups.size())
        means["failed"] = groups["error"].apply(lambda said: int((said.fillna("") != "").sum()))
        means = means.reset_index()
        found[name] = means.sort_values([key, "method"], key=lambda c: c.map(order) if c.name == "method" else c)
    return found


def write_summaries(folder: Path | None) -> None:
    """Write the tables to read, and the figure, from the file of all rows."""
    if folder is None:
        return
    tables = summarise(pd.read_csv(folder / NAME))
    for name, table in tables.items():
        table.to_csv(folder / f"outside_abundance_{name}.csv", index=False, float_format="%.3g")
    if len(tables["strengths"]):
        draw(tables["strengths"], folder / "outside_abundance.png")


def draw(table: pd.DataFrame, file: Path) -> None:
    """Draw power, false discoveries, area under the precision-recall curve and error by strength of the batches."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained", sharex=True)
    styles = line_styles(list(table["method"].unique()))
    labels = ("power", "share of false discoveries", "area under precision-recall", "rmse of the log ratio (nats)")
    for ax, measure, label in zip(axes, ("power", "fdr", "auprc", "rmse"), labels, strict=True):
        for name, own in table.groupby("method", sort=False):
            if own[measure].notna().any():
                ax.plot(own["strength"], own[measure], label=name, **styles[name])
        ax.set(xlabel="strength of the batch effect", ylabel=label)
    axes[1].axhline(0.1, color="0.5", linewidth=0.8, linestyle="--")
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure and write."""
    quick = {"sources": (MADE_UP,), "methods": ("scratio-quick",), "seeds": (0,), "strengths": (0.0,)}
    lists = {"sources": (*SOURCES, MADE_UP), "methods": METHODS, "seeds": SEEDS}
    options = parsed(
        __doc__, RESULTS, {**quick, "enrichments": (0.75, 0.95)}, **lists, enrichments=ENRICHMENTS, strengths=STRENGTHS
    )
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Rows(options.results, NAME, KEYS), options, Path(folder))
        return
    options.sources = [name for name in options.sources if name != MADE_UP and SOURCES[name].is_there()]
    if not options.sources:
        sys.exit("no data set is there")
    run(Rows(options.results, NAME, KEYS), options, CACHE / "abundance")


if __name__ == "__main__":
    main()
