"""Log ratios with three or four samples of a condition: what tells samples apart is not taken for an effect.

    SCRATIO_DATA=folder python benchmarks/few_samples.py      # writes benchmarks/results/few_samples*.csv
    python benchmarks/few_samples.py --quick                  # seconds, on made-up cells; the figures mean nothing

Real cells of two groups of samples: melanoma (responders and others), synovium (rheumatoid arthritis and others, before
and after Harmony), glioblastoma (with and without panobinostat). Each seed draws three or four samples of a group with
30 cells and more. Every cell is scored by networks that saw no cell of its sample.

Variants: ``default``, where the weights of a fold are those that the labels of other folds support; and ``held-out
cells``, where cells of the same samples decide. ``gain`` says by how much the log ratio predicts the label of a cell
better than nothing does, in nats, both groups counting alike; it is negative where the log ratio is worse than nothing.
``slope`` is that of the labels on the log ratio, and ``size`` the root mean square of the log ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from unittest import mock

import anndata as ad
import numpy as np
import pandas as pd
from _labels import EFFORTS
from _rows import FOLDER, Clock, Rows, has_data, parsed

import scratio
from scratio.model._splits import Splits

RESULTS, NAME = Path(__file__).parent / "results", "few_samples.csv"
KEYS = ["cells", "n_samples", "seed", "method", "variant"]
SYNOVIUM = "zhang2019_ra_synovium_harmony.h5ad"
REAL = {
    "melanoma": ("sadefeldman2018_melanoma_icb.h5ad", "X_pca", "condition", "sample"),
    "synovium": (SYNOVIUM, "X_pca", "disease", "sample"),
    "synovium-harmony": (SYNOVIUM, "X_pca_harmony", "disease", "sample"),
    "glioblastoma": ("zhao2021_gbm_panobinostat.h5ad", "X_pca", "condition", "sample_id"),
}
"""File, embedding, and columns of groups and samples."""
MADE_UP, VARIANTS = "made-up", ("default", "held-out cells")
LEAST_CELLS, MOST_CELLS = 30, 6_000
"""Fewest cells of a sample, and most of a cohort."""


def cells_of(name: str) -> ad.AnnData:
    """Cells with ``group``, ``sample`` and an embedding."""
    if name == MADE_UP:
        rng = np.random.default_rng(0)
        sample = np.repeat(np.arange(8), rng.integers(30, 60, 8))
        x = rng.normal(size=(8, 3))[sample] + rng.normal(size=(len(sample), 3))
        group = np.where(sample % 2, "b", "a")
    else:
        file, rep, group_key, sample_key = REAL[name]
        adata = ad.read_h5ad(FOLDER / file)
        x, group, sample = adata.obsm[rep], adata.obs[group_key], adata.obs[sample_key]
    obs = pd.DataFrame({"group": np.asarray(group, dtype=str), "sample": np.asarray(sample, dtype=str)})
    return ad.AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X_pca": np.asarray(x, dtype=float)})


def drawn(cells: ad.AnnData, n_samples: int, seed: int) -> ad.AnnData | None:
    """Cells of so many samples of the first two groups; None if there are not so many samples."""
    counts = cells.obs.groupby(["group", "sample"]).size()
    rng, names = np.random.default_rng(seed), []
    for group in sorted(cells.obs["group"].unique())[:2]:
        large = counts[group].index[counts[group] >= LEAST_CELLS]
        if len(large) < n_samples:
            return None
        names += [f"{group} {name}" for name in rng.permutation(large)[:n_samples]]
    own = cells.obs["group"] + " " + cells.obs["sample"]
    rows = np.flatnonzero(own.isin(names))
    found = cells[np.sort(rng.permutation(rows)[:MOST_CELLS])].copy()
    found.obs["sample"] = own
    return found


@contextmanager
def calibrated_by(variant: str) -> Iterator[None]:
    """Let the cells that members hold out decide, or not."""
    if variant == "default":
        yield
        return
    with mock.patch.object(Splits, "unseen", lambda *_: None):
        yield


def measured(cells: ad.AnnData, arguments: dict[str, object]) -> dict[str, float]:
    """What the log ratios of samples that networks did not see are worth."""
    reference, treatment = sorted(cells.obs["group"].unique())
    groups = {"condition_key": "group", "treatment": treatment, "reference": reference, "sample_key": "sample"}
    clock = Clock()
    scratio.tl.differential_abundance(cells, **groups, **arguments)
    spent = clock.read()
    value, is_treated = cells.obs["da_log_ratio"].to_numpy(), (cells.obs["group"] == treatment).to_numpy()
    loss = np.logaddexp(0.0, np.where(is_treated, -value, value))
    both = (loss[is_treated].mean() + loss[~is_treated].mean()) / 2.0
    row = cells.uns["da"]["diagnostics"].iloc[0]
    slope = {"slope": float(row["slope"]), "slope_standard_error": float(row["slope_standard_error"])}
    return {"gain": float(np.log(2.0) - both), **slope, "size": float(np.sqrt((value**2).mean())), **spent}


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds and numbers of samples."""
    groups = table.groupby(["cells", "method", "variant"], sort=False)
    found = groups[["gain", "size"]].mean()
    found.insert(0, "n_cohorts", groups.size())
    return found.reset_index()


def main() -> None:
    """Measure and write."""
    quick = {"cells": [MADE_UP], "samples": [3], "seeds": [0], "methods": ["scratio-quick"]}
    options = parsed(
        __doc__,
        RESULTS,
        quick,
        cells=(*REAL, MADE_UP),
        samples=(3, 4),
        seeds=(0, 1, 2, 3),
        methods=tuple(EFFORTS),
        variants=VARIANTS,
    )
    rows = Rows(options.results, NAME, KEYS)
    known = set() if options.again else rows.known()
    for name in options.cells:
        if (name == MADE_UP) != options.quick or (name in REAL and not has_data(REAL[name][0], name)):
            continue
        cells = cells_of(name)
        for n_samples, seed, method, variant in product(
            options.samples, options.seeds, options.methods, options.variants
        ):
            if (name, n_samples, seed, method, variant) in known:
                continue
            own = drawn(cells, n_samples, seed)
            if own is None:
                continue
            train = {"progress_bar": False, **({"max_steps": 5} if options.quick else {})}
            with calibrated_by(variant):
                found = measured(own, {**EFFORTS[method], "random_state": seed, "train_kwargs": train})
            rows.add(cells=name, n_samples=n_samples, seed=seed, method=method, variant=variant, **found)
    if options.results is not None and (options.results / NAME).exists():
        table = summarise(pd.read_csv(options.results / NAME))
        table.to_csv(options.results / "few_samples_summary.csv", index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
