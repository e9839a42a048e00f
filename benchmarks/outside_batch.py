"""Scores of batch effects on cells in which the batch effect is known: `tl.batch_effect` beside those of scib-metrics.

    SCRATIO_DATA=folder python benchmarks/outside_batch.py    # an hour; writes results/outside_batch.csv and others
    python benchmarks/outside_batch.py --quick                # seconds, on few cells; the figures mean nothing
    python benchmarks/outside_batch.py --tasks shift-1 local-5 --methods scratio bras --seeds 0 1

What a score should do is that which Lütge et al. 2021 (CellMixS, doi 10.26508/lsa.202001004) and Myradov et al. 2026
(sBEE, doi 10.64898/2026.04.22.720135) ask of it: grow with the effect, be at its best value where batches are permuted
or mixed, not depend on sizes of batches and on types that one batch alone has, and name the type that is not mixed.
`_batch_designs.py` has the cells, `_batch_verdicts.py` the rules, which were fixed before anything was measured.

Simulated cells: 4,000 of five or six types in ten dimensions, bent by an invertible map so that no type is a Gaussian;
sizes of types and of batches are unequal. The exact log ratio of every cell is known in closed form. Real cells: 4,000,
drawn by the seed, of the synovium (24 batches, before and after Harmony) and of Kang (the condition is the batch).

Peers run in an environment of their own (`make .venv-peer-scib/.installed`), with the defaults of scib-metrics'
`Benchmarker`. Columns of `outside_batch.csv`:

- ``score``: in the score's own units; nats for scratio, 0 to 1 for the others, which are 1 for cells mixed perfectly.
- ``badness``: 0 for cells mixed perfectly, 1 for the worst: the mean log ratio in units of ``ceiling``, which is the
  entropy of the batch given the label; 1 - score for the others.
- ``truth``, ``error``, ``rmse``: mean of the exact log ratio, mean error on these cells, and root mean square error of
  a cell, in nats.
- ``rank``: place of the moved type among types, 1 for the worst score; ``auc``: whether its cells have worse scores
  than others. scratio's score of a cell is the size of its log ratio.
- ``guessed``, ``best_guessed``: with two batches, the share of cells whose own batch is the likelier one, by the log
  ratio and by the exact one.
- ``failed``: what a method said that gave no result.

Rows are written as they are measured; those that the file has are left out, unless ``--again`` is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from _batch_designs import DESIGNS, N_CELLS, Cells, Design, entropy
from _batch_scale import scale
from _batch_verdicts import readable, verdicts
from _environments import CACHE, answered, ask, put
from _rows import Clock, Rows, has_data, noted, parsed
from sklearn.metrics import roc_auc_score

import scratio

RESULTS = Path(__file__).parent / "results"
EFFORTS = {"scratio": {}, "scratio-quick": {"effort": "quick"}}
PEERS = ("ilisi", "kbet", "bras", "sbee")
METHODS = (*EFFORTS, *PEERS)
ANSWERS = CACHE / "outside_batch"
QUICK_TASKS = ("shift-0", "shift-1", "sizes-5-1", "local-30", "own-type-unlabelled")
N_QUICK, PLANTED = 400, 0
VALUES = ("score", "badness", "ceiling", "truth", "error", "rmse", "rank", "auc", "guessed", "best_guessed")


def is_there(task: str) -> bool:
    """Whether the data of a design are there."""
    design = DESIGNS[task]
    return isinstance(design, Design) or has_data(design.file, task)


def by_scratio(cells: Cells, seed: int, train_kwargs: dict[str, Any]) -> np.ndarray:
    """Out-of-fold log ratio of every cell; NaN where its batch and label have too few cells."""
    obs = pd.DataFrame({"batch": cells.batch, "label": cells.label}).astype(str)
    adata = ad.AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X_pca": cells.x})
    scratio.tl.batch_effect(
        adata,
        batch_key="batch",
        label_key="label" if cells.label.any() else None,  # one label alone stands for none
        random_state=seed,
        train_kwargs={"progress_bar": False, **train_kwargs},
    )
    return adata.obs["batch_effect_log_ratio"].to_numpy()


def rank_of(badness: np.ndarray) -> float:
    """Place of the moved type, the worst first; equal ones share a place, and types without a value have none."""
    others = np.delete(badness, PLANTED)
    ties = (others == badness[PLANTED]).sum() / 2.0
    return float(1.0 + (others > badness[PLANTED]).sum() + ties) if np.isfinite(badness[PLANTED]) else np.nan


def auc_of(cells: Cells, by_cell: np.ndarray) -> float:
    """Area under the curve that tells cells of the moved type from others."""
    known = np.isfinite(by_cell) if len(by_cell) else np.zeros(len(cells.label), dtype=bool)
    return float(roc_auc_score(cells.label[known] == PLANTED, by_cell[known])) if known.any() else np.nan


def share_guessed(cells: Cells, log_ratio: np.ndarray) -> float:
    """Share of cells whose own batch has the probability of at least a half, by Bayes' rule."""
    counts = np.zeros((cells.label.max() + 1, cells.batch.max() + 1))
    np.add.at(counts, (cells.label, cells.batch), 1.0)
    prior = counts[cells.label, cells.batch] / counts[cells.label].sum(1)
    return float((prior * np.exp(log_ratio) >= 0.5).mean())


def of_log_ratio(cells: Cells, found: np.ndarray, is_local: bool) -> dict[str, float]:
    """Everything that log ratios say, beside the exact ones."""
    used = np.isfinite(found)
    cells = Cells(
        cells.x[used], cells.batch[used], cells.label[used], None if cells.truth is None else cells.truth[used]
    )
    found, ceiling = found[used], entropy(cells.batch, cells.label)
    row = {"score": found.mean(), "badness": found.mean() / ceiling, "ceiling": ceiling}
    if cells.truth is not None:
        error = found - cells.truth
        row |= {"truth": cells.truth.mean(), "error": error.mean(), "rmse": np.sqrt(np.mean(error**2))}
    if is_local:
        by_label = np.bincount(cells.label, weights=found) / np.bincount(cells.label)
        row |= {"rank": rank_of(by_label), "auc": auc_of(cells, np.abs(found))}
    if cells.batch.max() == 1:
        row["guessed"] = share_guessed(cells, found)
        if cells.truth is not None:
            row["best_guessed"] = share_guessed(cells, cells.truth)
    return row


def of_peer(cells: Cells, answer: dict[str, np.ndarray], is_local: bool) -> dict[str, float]:
    """What a peer's answer says."""
    if "error" in answer:
        return {}
    row = {"score": float(answer["score"]), "badness": 1.0 - float(answer["score"])}
    if is_local:
        row |= {"rank": rank_of(1.0 - answer["by_label"]), "auc": auc_of(cells, answer["by_cell"])}
    return row


def measured(cells: Cells, name: str, seed: int, is_local: bool, quick: bool) -> dict[str, Any]:
    """Row of scratio on one design."""
    clock, row, failed = Clock(), {}, ""
    try:
        with noted():
            found = by_scratio(cells, seed, {**EFFORTS[name], **({"max_steps": 5} if quick else {})})
        row = of_log_ratio(cells, found, is_local)
    except ValueError as error:
        failed = str(error)
    return {**row, **clock.read(), "failed": failed}


def read(cells: Cells, answer: dict[str, np.ndarray], is_local: bool) -> dict[str, Any]:
    """Row of a peer on one design."""
    row = {} if "error" in answer else of_peer(cells, answer, is_local)
    spent = {name: float(answer[name]) for name in ("seconds", "cpu_seconds")}
    return {**row, **spent, "failed": str(answer.get("error", ""))}


def question_of(task: str, seed: int, quick: bool) -> Path:
    """File of the cells of a design, as peers read them."""
    cells = cells_of(task, seed, quick)
    arrays = {"x": cells.x.astype(np.float32), "batch": cells.batch, "label": cells.label}
    return put(arrays, ANSWERS / f"{task}-{seed}{'-quick' if quick else ''}.npz")


def cells_of(task: str, seed: int, quick: bool) -> Cells:
    """Cells of a design."""
    return DESIGNS[task].draw(seed, task, N_QUICK if quick else N_CELLS)


def ask_peers(todo: list[tuple[str, int, list[str]]], quick: bool) -> None:
    """Let peers answer what they have not answered, all in one process."""
    for name in PEERS:
        questions = [question_of(task, seed, quick) for task, seed, methods in todo if name in methods]
        ask("scib", [name], [file for file in questions if answered(ANSWERS, name, file) is None], ANSWERS)


def measure(rows: Rows, task: str, seed: int, methods: list[str], quick: bool) -> None:
    """Write the rows of one design."""
    cells, design = cells_of(task, seed, quick), DESIGNS[task]
    is_local = isinstance(design, Design) and design.moved == (PLANTED,)
    for name in methods:
        if name in EFFORTS:
            found = measured(cells, name, seed, is_local, quick)
        else:
            answer = answered(ANSWERS, name, question_of(task, seed, quick))
            if answer is None:
                continue
            found = read(cells, answer, is_local)
        values = {column: found.pop(column, np.nan) for column in VALUES}
        rows.add(
            task=task, method=name, seed=seed, n_cells=len(cells.x), n_batches=cells.batch.max() + 1, **values, **found
        )


def summarise(table: pd.DataFrame, results: Path | None) -> None:
    """Print the verdicts, and write them and the meaning of a nat."""
    found = verdicts(table)
    print(readable(found).to_string(index=False), flush=True)
    if results is not None:
        found.to_csv(results / "outside_batch_verdicts.csv", index=False, float_format="%.3g")
        readable(found).to_csv(results / "outside_batch_summary.csv", index=False)
        scale().to_csv(results / "outside_batch_scale.csv", index=False, float_format="%.3g")


def main() -> None:
    """Measure, judge, write."""
    quick = {"tasks": QUICK_TASKS, "methods": ("scratio",), "seeds": (0,)}
    options = parsed(__doc__, RESULTS, quick, tasks=tuple(DESIGNS), methods=METHODS, seeds=(0, 1, 2))
    rows = Rows(options.results, "outside_batch.csv", ["task", "method", "seed"])
    known = set() if options.again else rows.known()
    todo = []
    for seed in options.seeds:
        for task in [task for task in options.tasks if is_there(task)]:
            todo.append((task, seed, [name for name in options.methods if (task, name, seed) not in known]))
    ask_peers(todo, options.quick)
    for task, seed, methods in todo:
        measure(rows, task, seed, methods, options.quick)
    file = None if options.results is None else options.results / rows.name
    summarise(pd.read_csv(file) if file is not None and file.exists() else pd.DataFrame(rows.rows), options.results)


if __name__ == "__main__":
    main()
