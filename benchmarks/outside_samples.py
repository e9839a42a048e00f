"""Distances between samples, beside GloScope and what the benchmark SPARE compares with it.

    make .venv-peer-pot/.installed                             # optimal transport; every other method needs no peer
    python benchmarks/outside_samples.py                       # all tasks and methods, three seeds of the made-up ones
    python benchmarks/outside_samples.py --set real --methods scratio
    python benchmarks/outside_samples.py --tasks all-10 --methods gloscope-GMM energy --seeds 0
    python benchmarks/outside_samples.py --quick               # seconds, on few cells; the figures mean nothing

``known``: samples of which the exact divergence is known (`_sample_designs.py`). They are mixtures of 6 Gaussian cell
types in 10 or 20 dimensions, 14 samples with 60 to 1,000 cells, two of each of seven populations. Populations differ in
the shares of types, in moves of types, in widths, or in all; ``far`` has long moves; in ``same`` all samples have one
distribution; ``bent`` cells went through a map that is not linear, has an inverse, and so changes no divergence.

``severity``: after the synthetic donors of SPARE, the benchmark of sample representations (Shitov, Moghareh Dehkordi
and Luecken 2025, openreview.net/forum?id=IoRv5afWtb; lueckenlab/SPARE, lueckenlab/patpy). Taken from there: the types
of the cells and their numbers, the factors by which severe COVID-19 multiplies the types (patpy's
``covid_19_hallmarks``), which types change their expression and in how many genes, the linear strength of severity, and
shares, states or both. Theirs are resampled counts of one donor. These are Gaussian types in 10 dimensions, with 20
donors of five severities, 60 to 1,000 cells, so that the divergence is known; ``severity-batch`` moves half of them.

``real``: the first 10 principal components, as in GloScope's tutorial, of melanoma (48 samples of 32 patients; Pre_P15
and Post_P15 look like duplicates, and this pair does not count), synovium (21 samples, before and after Harmony) and
glioblastoma (5 patients, with and without panobinostat). In the tasks that end in ``-parts`` each sample of 153 cells
and more is cut at random, two to one; two parts of one sample have a divergence of 0.

Methods: scratio with its defaults, and with ``effort="quick"``; those of `_sample_peers.py`; ``transport``, exact
optimal transport of squared distances by POT; ``exact``, the estimate of one who knows the densities. ``composition``
gets the planted types, the annotated ones of the synovium, and 10 clusters by k-means of the other real cells.

Columns: ``rmse``, ``bias`` and ``slope`` of distances in nats, for the methods that estimate the divergence;
``bias_same`` is that of pairs of one distribution, ``_near`` of up to 1, ``_middle`` of up to 10, ``_far`` of more
nats, ``bias_same_small`` of pairs of one distribution whose smaller sample has fewer than 200 cells; ``coverage`` of
distance +- 1.645 standard errors, which should be .9; ``error_ratio``, root mean square of error over standard error,
which should be 1. ``spearman`` is the rank correlation with the truth, ``size_correlation`` that of the distances of
pairs of one distribution with the size of their smaller sample, which should be 0. ``auc`` is the probability that two
samples of one population, severity, patient or disease are nearer than two of different ones, ``auc_batch`` that of
batches. SPARE's measures: ``relevant``, how well the three nearest samples predict severity, response, disease or
treatment; ``technical``, one less that of the batch; ``total``, two thirds and one third of these; ``trajectory``, rank
correlation of severity with the diffusion pseudotime from the first sample; ``twins``, mean place of a sample's other
part among all others, 1 if nearest. Pairs that a method has no distance for are left out and counted by ``n_missing``.

Rows that the file has are not measured again, unless ``--again`` is given. Writes results/outside_samples.csv, and from
it outside_samples_summary.csv: a row for each task and measure, means over the seeds that all methods have, the best
peer, and by how much it is ``ahead`` of scratio (negative if scratio is ahead).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import _sample_peers
import anndata as ad
import numpy as np
import pandas as pd
from _environments import CACHE, answered, ask, put
from _labels import EFFORTS, QUICK
from _rows import FOLDER, Clock, Rows, has_data, parsed
from _sample_designs import DESIGNS, Cohort, made
from _sample_measures import N_NEIGHBORS, against_truth, predicted, pseudotime, rank_correlation, same_nearer, twin_rank
from _sample_summary import MAIN, MEASURES, summary
from sklearn.cluster import KMeans

import scratio

RESULTS = Path(__file__).parent / "results"
FILE, KEYS = "outside_samples.csv", ("task", "method", "seed")
MELANOMA, SYNOVIUM = "sadefeldman2018_melanoma_icb.h5ad", "zhang2019_ra_synovium_harmony.h5ad"
GLIOBLASTOMA = "zhao2021_gbm_panobinostat.h5ad"
REAL = {
    "melanoma": (MELANOMA, "X_pca", "sample"),
    "synovium": (SYNOVIUM, "X_pca", "sample"),
    "synovium-harmony": (SYNOVIUM, "X_pca_harmony", "sample"),
    "glioblastoma": (GLIOBLASTOMA, "X_pca", "sample_id"),
    "melanoma-parts": (MELANOMA, "X_pca", "sample"),
    "synovium-parts": (SYNOVIUM, "X_pca", "sample"),
    "glioblastoma-parts": (GLIOBLASTOMA, "X_pca", "sample_id"),
}
"""File, embedding and column of samples of real cells."""
LABELS = {
    "melanoma": {"alike": "patient", "relevant": "condition"},
    "synovium": {"alike": "disease", "relevant": "disease", "batch": "batch"},
    "glioblastoma": {"alike": "patient_id", "relevant": "condition"},
    "severity": {"alike": "severity", "relevant": "severity", "batch": "batch"},
}
"""Labels of samples by the first word of a task; other tasks have populations alone."""
DUPLICATES = ("Pre_P15", "Post_P15")
SETS = {
    "known": [name for name, settings in DESIGNS.items() if settings["by"] == "populations"],
    "severity": [name for name, settings in DESIGNS.items() if settings["by"] == "severity"],
    "real": list(REAL),
}
IN_NATS = ("exact", *EFFORTS, *_sample_peers.N_COMPONENTS, "gloscope-kNN", "gloscope-kNN-25")
METHODS = (*EFFORTS, "exact", *_sample_peers.NAMES, "transport")
N_DIMS, N_CLUSTERS, LEAST_CUT = 10, 10, 153


def real(name: str, seed: int) -> Cohort:
    """Real cells of samples, cut in two if the name says so."""
    file, embedding, column = REAL[name]
    adata = ad.read_h5ad(FOLDER / file)
    x, of = np.asarray(adata.obsm[embedding], dtype=float)[:, :N_DIMS], adata.obs[column].astype(str)
    if "celltype" in adata.obs:
        kind = adata.obs["celltype"].astype("category").cat.codes.to_numpy()
    else:
        kind = KMeans(N_CLUSTERS, n_init=10, random_state=seed).fit_predict(x)
    first = adata.obs.assign(name=of.to_numpy()).groupby("name", observed=True).first()
    if name.endswith("-parts"):
        part = np.full(len(of), "", dtype="<U2")
        for own, rows in of.groupby(of).indices.items():
            if len(rows) >= LEAST_CUT:
                order = np.random.default_rng([seed, *own.encode()]).permutation(rows)
                part[order] = np.where(np.arange(len(rows)) < len(rows) // 3, "/1", "/2")
        keep = part != ""
        x, kind, of = x[keep], kind[keep], pd.Series(np.char.add(of.to_numpy(dtype=str), part)[keep])
        names = np.unique(of)
        samples = pd.DataFrame({"name": names, "twin": np.arange(len(names)) ^ 1})
    else:
        names = first.index.to_numpy()
        samples = first.reset_index()
    codes = np.searchsorted(names, of.to_numpy())
    samples["n_cells"] = np.bincount(codes)
    truth = np.full((len(names), len(names)), np.nan)
    if "twin" in samples:
        truth[samples.index, samples["twin"]] = 0.0
    return Cohort(x, codes, kind, samples, truth, np.full_like(truth, np.nan))


def drawn(task: str, seed: int, quick: bool) -> Cohort:
    """Cells of a task."""
    return made(task, seed, quick) if task in DESIGNS else real(task, seed)


def by_scratio(
    x: np.ndarray, sample: np.ndarray, seed: int, effort: dict[str, Any], train_kwargs: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of every two samples, and their standard errors."""
    obs = pd.DataFrame({"sample": [f"sample{code:04d}" for code in sample]})
    adata = ad.AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X_pca": x})
    scratio.tl.sample_distance(
        adata,
        sample_key="sample",
        random_state=seed,
        train_kwargs={"progress_bar": False, **train_kwargs},
        **effort,
    )
    found = adata.uns["sample_distance"]
    return found["distance"].to_numpy(), found["standard_error"].to_numpy()


def by_transport(task: str, cohort: Cohort, seed: int) -> dict[str, Any] | None:
    """Answer of the peer that has an environment of its own; None without the environment."""
    folder = CACHE / "outside_samples"
    arrays = {"x": cohort.x, "sample": cohort.sample}
    question = put(arrays, folder / "questions" / f"{task}_{len(cohort.x)}_{seed}.npz")
    if answered(folder, "transport", question) is None:
        ask("pot", ["transport"], [question], folder)
    return answered(folder, "transport", question)


def distances(name: str, task: str, cohort: Cohort, seed: int, quick: bool) -> dict[str, Any] | None:
    """Distances of a method, their standard errors, why it failed, and its seconds; None if it was not run."""
    nothing = np.full_like(cohort.truth, np.nan)
    if name == "transport":
        answer = None if quick else by_transport(task, cohort, seed)
        if answer is None:
            return None
        spent = {key: float(answer[key]) for key in ("seconds", "cpu_seconds")}
        found, failure = answer.get("distance", nothing), str(answer.get("error", ""))
        return {"distance": found, "error": nothing, "failure": failure, **spent}
    clock, error, failure = Clock(), nothing, ""
    try:
        if name in EFFORTS:
            train = {**QUICK, "batch_size": 32} if quick and name == "scratio" else {}
            found, error = by_scratio(cohort.x, cohort.sample, seed, EFFORTS[name], train)
        elif name == "exact":
            found = cohort.exact
        else:
            found = _sample_peers.distances(name, cohort.x, cohort.sample, cohort.kind, seed)
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as reason:
        found, failure = nothing, str(reason)
    return {"distance": found, "error": error, "failure": failure, **clock.read()}


def measures(name: str, task: str, cohort: Cohort, found: dict[str, Any]) -> dict[str, float]:
    """What a row tells of the distances of a method."""
    distance, samples = found["distance"], cohort.samples
    in_nats = name in IN_NATS
    n_cells = samples["n_cells"].to_numpy()
    measured = against_truth(distance, found["error"], cohort.truth, n_cells, in_nats=in_nats)
    if "twin" in samples:
        return measured | {"twins": twin_rank(distance, samples["twin"].to_numpy())}
    label = LABELS.get(task.split("-")[0], {"alike": "population"})
    left_out = []
    if "name" in samples and samples["name"].isin(DUPLICATES).sum() == len(DUPLICATES):
        left_out = [tuple(np.flatnonzero(samples["name"].isin(DUPLICATES)))]
    measured["auc"] = same_nearer(distance, samples[label["alike"]].to_numpy(), left_out)
    known = np.flatnonzero(np.isfinite(distance).sum(1) > 1)
    if len(known) <= N_NEIGHBORS:
        return measured
    if "relevant" in label:
        target = samples[label["relevant"]].to_numpy()
        measured["relevant"] = predicted(distance, target, is_class=label["relevant"] != "severity")
    if "batch" in label:
        batch = samples[label["batch"]].to_numpy()
        measured["auc_batch"] = same_nearer(distance, batch)
        # Most batches of the synovium have one sample: no neighbour could predict them.
        if task.startswith("severity"):
            measured["technical"] = 1.0 - predicted(distance, batch, is_class=True)
            measured["total"] = (2.0 * measured["relevant"] + measured["technical"]) / 3.0
    if task.startswith("severity"):
        time = pseudotime(distance[np.ix_(known, known)], 0)
        measured["trajectory"] = rank_correlation(time, samples["severity"].to_numpy()[known])
    return measured


def measure(rows: Rows, options: argparse.Namespace, done: set[tuple[Any, ...]]) -> None:
    """Measure every method on every task and seed that has no row yet."""
    for task in options.tasks:
        if task in REAL and not has_data(REAL[task][0], task):
            continue
        # Whole real samples have nothing to draw: their seeds are those of the methods.
        for seed in options.seeds:
            left = [name for name in options.methods if (task, name, seed) not in done]
            left = [name for name in left if name != "exact" or task in DESIGNS]
            if not left:
                continue
            cohort = drawn(task, seed, options.quick)
            for name in left:
                found = distances(name, task, cohort, seed, options.quick)
                if found is None:
                    continue
                measured = measures(name, task, cohort, found)
                rows.add(
                    task=task,
                    method=name,
                    seed=seed,
                    n_samples=len(cohort.samples),
                    n_cells=len(cohort.x),
                    n_missing=int(np.isnan(found["distance"][np.triu_indices(len(cohort.samples), 1)]).sum()),
                    **{key: measured.get(key, np.nan) for key in MEASURES},
                    failure=found["failure"],
                    seconds=found["seconds"],
                    cpu_seconds=found["cpu_seconds"],
                )


def main() -> None:
    """Measure and write."""
    quick = {
        "tasks": ["all-10", "severity-batch"],
        "methods": [name for name in METHODS if name != "transport"],
        "seeds": [0],
    }
    options = parsed(
        __doc__,
        RESULTS,
        quick,
        set=f"tasks of a set: {', '.join(SETS)}",
        tasks=(*DESIGNS, *REAL),
        methods=METHODS,
        seeds=(0, 1, 2),
    )
    if options.set is not None:
        options.tasks = SETS[options.set]
    rows = Rows(options.results, FILE, KEYS)
    measure(rows, options, set() if options.again else rows.known())
    if options.results is not None and (options.results / FILE).exists():
        table = summary(pd.read_csv(options.results / FILE), list(METHODS), list(EFFORTS))
        for name, part in (("summary", table), ("main", table[table["measure"].isin(MAIN)])):
            part.to_csv(options.results / FILE.replace(".csv", f"_{name}.csv"), index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
