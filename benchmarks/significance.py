"""Error rates and power of the test across samples, on cohorts with donor effects of known size.

    python benchmarks/significance.py            # writes benchmarks/results/significance.csv
    python benchmarks/significance.py --quick    # a few cohorts; the figures mean nothing

Six donors against six with 300 cells each: ten types in ten dimensions, in shares of each donor's own (log-normal, .3),
moved by a batch effect of each donor's own (.1 or .3 of the standard deviation of a type, in every dimension). With the
effect the log ratio of cases to controls is 1 in the first type, a tenth of the cells. No network takes part: the test
counts cells. Beside it are the same test on k-means clusters, the one that takes cells for replicates and, where pertpy
and pydeseq2 are installed, Milo (pertpy's port of miloR, tested by DESeq2's negative binomial model).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, fisher_exact, ttest_ind
from sklearn.cluster import KMeans

from scratio import peers
from scratio.stats import neighborhoods, weighted_fdr
from scratio.tl._samples import compare, samples_of

RESULTS = Path(__file__).parent / "results"
N_DONORS, N_CELLS, N_TYPES, N_DIMS = 12, 300, 10, 10
LEVEL, FDR = 0.05, 0.1


def log_shares(effect: float) -> tuple[float, float]:
    """Log share of the first type over that of each other, in cases and in controls; a tenth of cells on average."""
    shares = 2.0 / N_TYPES / (1.0 + np.exp(-effect * np.array([1.0, -1.0])))
    case, control = np.log(shares / (1.0 - shares) * (N_TYPES - 1))
    return float(case), float(control)


def cohort(seed: int, effect: float, batch: float, spread: float = 0.3) -> ad.AnnData:
    """Cells of all donors, the first half of which are cases."""
    rng = np.random.default_rng(seed)
    centres, parts, obs = rng.normal(0.0, 2.0, size=(N_TYPES, N_DIMS)), [], []
    of_case, of_control = log_shares(effect)
    for donor in range(N_DONORS):
        is_case = donor < N_DONORS // 2
        log_share = rng.normal(0.0, spread, size=N_TYPES)
        log_share[0] += of_case if is_case else of_control
        kind = rng.choice(N_TYPES, size=N_CELLS, p=np.exp(log_share) / np.exp(log_share).sum())
        parts.append(centres[kind] + rng.normal(0.0, batch, size=N_DIMS) + rng.normal(size=(N_CELLS, N_DIMS)))
        obs.append(pd.DataFrame({"donor": f"d{donor:02d}", "group": "case" if is_case else "control", "kind": kind}))
    frame = pd.concat(obs, ignore_index=True)
    frame.index = frame.index.map("cell{}".format)
    return ad.AnnData(obs=frame, obsm={"X_pca": np.concatenate(parts)})


def by_samples(adata: ad.AnnData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """p- and q-values of every cell by scratio's test."""
    x, obs = adata.obsm["X_pca"], adata.obs
    neighborhood = neighborhoods(x, seed)
    samples = samples_of(obs, "donor", "group", "case", "control", [])
    test = compare(x, neighborhood, obs, samples, obs["group"], seed)
    return test.pvalue[neighborhood], weighted_fdr(test.pooled_pvalue, np.bincount(neighborhood))[neighborhood]


def by_clusters(adata: ad.AnnData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by t-tests of the log shares of 20 clusters."""
    cluster = KMeans(20, n_init=1, random_state=seed).fit_predict(adata.obsm["X_pca"])
    counts = pd.crosstab(adata.obs["donor"], cluster).to_numpy()
    shares = np.log((counts + 0.5) / (counts.sum(1, keepdims=True) + 0.5))
    pvalues = ttest_ind(shares[: N_DONORS // 2], shares[N_DONORS // 2 :]).pvalue
    return pvalues[cluster], false_discovery_control(pvalues)[cluster]


def by_cells(adata: ad.AnnData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same with cells as replicates, by Fisher's exact test in every neighbourhood."""
    neighborhood = neighborhoods(adata.obsm["X_pca"], seed)
    is_case = (adata.obs["group"] == "case").to_numpy()
    inside = np.stack([np.bincount(neighborhood[side]) for side in (is_case, ~is_case)])
    tables = [np.stack([here, inside.sum(1) - here]) for here in inside.T]
    pvalues = np.array([fisher_exact(table).pvalue for table in tables])
    return pvalues[neighborhood], false_discovery_control(pvalues)[neighborhood]


def by_milo(adata: ad.AnnData, seed: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by Milo with k neighbours."""
    is_case = (adata.obs["group"] == "case").to_numpy()
    donors = adata.obs["donor"].to_numpy()
    found = peers.milo(adata.obsm["X_pca"], donors, is_case, n_neighbors=k, random_state=seed)
    return found.pvalue, found.qvalue


METHODS = {
    "samples (scratio)": by_samples,
    "samples, 20 clusters": by_clusters,
    "cells as replicates": by_cells,
}
if peers.is_installed("pertpy") and peers.is_installed("pydeseq2"):
    METHODS |= {f"Milo, k={k}": lambda adata, seed, k=k: by_milo(adata, seed, k) for k in (30, 100)}


def measure(effect: float, batch: float, n_cohorts: int) -> list[dict]:
    """Rates of every method over the cohorts."""
    found: dict[str, list] = {name: [] for name in METHODS}
    for seed in range(n_cohorts):
        adata = cohort(seed, effect, batch)
        planted = (adata.obs["kind"] == 0).to_numpy() & (effect != 0.0)
        for name, method in METHODS.items():
            pvalues, qvalues = method(adata, seed)
            called = qvalues < FDR
            found[name].append(
                {
                    "type_1_error": (pvalues[~planted] <= LEVEL).mean(),
                    "any_discovery": called.any(),
                    "power": called[planted].mean() if planted.any() else np.nan,
                    "false_discoveries": (called & ~planted).sum() / max(called.sum(), 1),
                }
            )
    settings = {"effect": effect, "batch": batch, "n_cohorts": n_cohorts}
    return [{**settings, "method": name, **pd.DataFrame(rows).mean().to_dict()} for name, rows in found.items()]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rows = []
    for effect, n_cohorts in ((0.0, 200), (1.0, 50)):
        for batch in (0.1, 0.3):
            rows += measure(effect, batch, 3 if quick else n_cohorts)
            print(pd.DataFrame(rows[-len(METHODS) :]).round(3).to_string(index=False), flush=True)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(RESULTS / "significance.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
