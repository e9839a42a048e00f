"""Planted differential abundance on real counts, for MrVI, which takes no embedding; beside it the other methods.

    SCRATIO_DATA=folder python benchmarks/differential_abundance_counts.py    # an hour or two; writes to results/
    python benchmarks/differential_abundance_counts.py --quick                # a minute, on made-up counts
    SCRATIO_DATA=folder python benchmarks/differential_abundance_counts.py --methods mrvi --levels 0.5 0.9

The labels, levels and measures are those of `differential_abundance.py`, the cells the 2,000 of Kang et al. whose
counts are at hand. They come without cell types: monocytes and B cells are told by the log expression of a few markers
of the cell itself, so that no embedding and no method has a part in it. MrVI gets the counts of the 2,000 most variable
genes, the others 20 principal components.

MrVI compares samples. Each condition is dealt into four samples at random, so that samples of one condition differ by
chance alone. ``mrvi`` is scvi-tools' own training, 400 passes over these cells. ``mrvi-early`` stops when the loss of
the tenth of the cells that is held out has not fallen for 15 passes. Both score cells that they were trained on, as
MELD does; the others score out of fold. MrVI is left out with scvi-tools 1.4.0, where it does not learn. 1.4.3, for
Python 3.12 and newer, corrected its architecture: ``version`` and ``python`` say what ran.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _rows import FOLDER, Clock, Rows, has_data, parsed
from differential_abundance import GROUPS, LEVELS, N_DIMS, means, measures, planted
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

import scratio
from scratio import peers

RESULTS = Path(__file__).parent / "results"
KANG = "kang2018_pbmc_ifnb_counts2k.h5ad"
MONOCYTE = ["LYZ", "CD14", "FTL", "CST3", "TYROBP", "FCER1G", "S100A9"]
B_CELL = ["CD79A", "MS4A1", "CD79B", "CD74", "HLA-DRA"]
T_OR_NK = ["CD3D", "CD3E", "CD2", "NKG7", "GNLY", "CD7"]
PRESENT, ABSENT = 1.5, 0.6
"""Mean log expression (of 10,000 counts in a cell) of markers that are there, and of those that are not."""

MRVI = {"mrvi": {}, "mrvi-early": {"early_stopping": True, "early_stopping_patience": 15}}
METHODS = ("scratio", "logistic", "boosting", "mlp", "qda", "knn", "meld", *MRVI)
PACKAGE = {"scratio": "scratio", "meld": "meld", **dict.fromkeys(MRVI, "scvi-tools")}
"""Package of each method; that of the others is scikit-learn."""
N_SAMPLES, N_QUICK = 4, 240


def change_of(expression: pd.DataFrame) -> np.ndarray:
    """1 for monocytes, -1 for B cells and 0 for others, by the log expression of the markers."""
    monocyte, b_cell, other = (expression[genes].mean(axis=1) for genes in (MONOCYTE, B_CELL, T_OR_NK))
    is_monocyte = (monocyte > PRESENT) & (monocyte > other)
    is_b_cell = ~is_monocyte & (b_cell > PRESENT) & (other < ABSENT)
    return (is_monocyte.astype(float) - is_b_cell).to_numpy()


def real_cells() -> ad.AnnData:
    """Kang's cells: counts of the variable genes in ``X``, what is planted in ``obs["change"]``, ``obsm["X_pca"]``."""
    adata = ad.read_h5ad(FOLDER / KANG)
    markers = [*MONOCYTE, *B_CELL, *T_OR_NK]
    obs = pd.DataFrame({"change": change_of(adata[:, markers].to_df())}, index=adata.obs_names)
    counts = csr_matrix(adata.layers["counts"][:, adata.var["highly_variable"].to_numpy()])
    return ad.AnnData(counts, obs=obs, obsm={"X_pca": adata.obsm["X_pca"][:, :N_DIMS]})


def made_up_cells() -> ad.AnnData:
    """Counts of three cell types with genes of their own."""
    rng = np.random.default_rng(12)  # other numbers than those of the labels
    change = rng.choice([1.0, -1.0, 0.0], size=N_QUICK, p=[0.3, 0.1, 0.6])
    counts = rng.poisson(np.where(np.arange(30) // 10 == change[:, None] + 1.0, 8.0, 2.0)).astype(np.float32)
    pca = PCA(3, random_state=0).fit_transform(np.log1p(counts))
    obs = pd.DataFrame({"change": change}, index=np.arange(N_QUICK).astype(str))
    return ad.AnnData(csr_matrix(counts), obs=obs, obsm={"X_pca": pca})


def by_mrvi(adata: ad.AnnData, name: str, seed: int, quick: bool) -> np.ndarray:
    """Log ratios of MrVI."""
    is_treated = (adata.obs["treatment"] == "treated").to_numpy()
    # As many cells in each sample of a condition, but for one.
    place, rng = np.empty(len(is_treated), dtype=int), np.random.default_rng([seed, 1])
    for group in (is_treated, ~is_treated):
        place[group] = rng.permutation(group.sum()) % N_SAMPLES
    samples = np.where(is_treated, N_SAMPLES, 0) + place
    max_epochs = 2 if quick else None
    return peers.mrvi(adata.X, samples, is_treated, max_epochs=max_epochs, random_state=seed, **MRVI[name])


def by_peer(adata: ad.AnnData, name: str, seed: int, quick: bool) -> np.ndarray:
    """Log ratios of a method that takes the embedding."""
    kwargs = {name: {"max_steps": 30}} if quick and name == "scratio" else {}
    scratio.tl.compare_methods(adata, **GROUPS, methods=[name], method_kwargs=kwargs, random_state=seed, key_added="c")
    return adata.obsm["c"][name].to_numpy()


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The means by method, with the processor's seconds in place of those on the wall, and what ran."""
    own = table.groupby("method").agg({"cpu_seconds": "mean", "version": "last", "python": "last"})
    return means(table).drop(columns="seconds").join(own, on="method")


def main() -> None:
    """Measure and write."""
    quick = {"methods": ("scratio", "logistic", "mrvi"), "levels": (0.5, 0.9)}
    options = parsed(__doc__, RESULTS, quick, methods=METHODS, levels=LEVELS, seeds=(0,))
    if not options.quick and not has_data(KANG, "differential_abundance_counts"):
        return
    cells = made_up_cells() if options.quick else real_cells()
    rows = Rows(options.results, "differential_abundance_counts.csv", ["method", "p", "seed"])
    for name in options.methods:
        score = by_mrvi if name in MRVI else by_peer
        for seed in options.seeds:
            for level in options.levels:
                adata, clock = planted(cells, level, seed), Clock()
                try:
                    found = score(adata, name, seed, options.quick)
                except ImportError as error:
                    print(f"{name} is left out: {error}", flush=True)
                    continue
                package = PACKAGE.get(name, "scikit-learn")
                ran = {"version": f"{package} {version(package)}", "python": platform.python_version()}
                rows.add(method=name, p=level, seed=seed, **measures(found, adata), **clock.read(), **ran)
    if options.results is not None and rows.rows:
        table = pd.read_csv(options.results / "differential_abundance_counts.csv")
        path = options.results / "differential_abundance_counts_summary.csv"
        summary(table).to_csv(path, index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
