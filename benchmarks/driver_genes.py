"""Genes along which the log ratio of stimulated cells grows, from counts (Kang et al. 2018).

    SCRATIO_DATA=folder python benchmarks/driver_genes.py      # writes benchmarks/results/driver_genes.csv, .png
    python benchmarks/driver_genes.py --quick                  # a minute, on made-up cells

The stimulus is interferon beta, so that its well-known genes should come first; no label of a gene is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _analysis import run
from matplotlib.figure import Figure

import scratio

RESULTS = Path(__file__).parent / "results"
INTERFERON = ("ISG15", "IFI6", "ISG20", "LY6E", "IFIT1", "IFIT2", "IFIT3", "MX1", "IFITM3", "IRF7", "CXCL10", "TNFSF10")


def analyse(adata: ad.AnnData, train_kwargs: dict[str, Any]) -> tuple[pd.DataFrame, Figure]:
    """Genes along which the log ratio of stimulated cells grows, from counts."""
    adata = ad.AnnData(adata.layers["counts"].copy(), obs=adata.obs[["condition"]].copy(), var=adata.var[[]].copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(2_000, adata.n_vars))
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.pca(adata, n_comps=20)
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, n_folds=5)
    model.train(**train_kwargs)
    scratio.tl.driver_genes(
        adata, model, numerator={"condition": "stim"}, denominator={"condition": "ctrl"}, key_added="drivers"
    )
    table = adata.uns["drivers"]["table"].head(50).reset_index(drop=True)
    ranks = {gene: int(table.index[table["gene"] == gene][0]) + 1 for gene in INTERFERON if gene in set(table["gene"])}
    print(f"interferon-stimulated genes among the first 50 of {adata.n_vars}, with ranks: {ranks}")
    return table, scratio.pl.driver_genes(adata).figure


def simulate(rng: np.random.Generator) -> ad.AnnData:
    """Counts of sixty genes, of which interferon's are up in stimulated cells."""
    stimulated = rng.integers(2, size=300)
    genes = [*INTERFERON, *(f"gene{i}" for i in range(60 - len(INTERFERON)))]
    rates = rng.gamma(2.0, 2.0, size=60) * np.exp(0.8 * np.isin(genes, INTERFERON) * stimulated[:, None])
    counts = rng.poisson(rates).astype(float)
    obs = pd.DataFrame({"condition": np.array(["ctrl", "stim"])[stimulated]}, index=[f"cell{i}" for i in range(300)])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes), layers={"counts": counts})


def main() -> None:
    """Measure, write, draw."""
    run(__doc__, RESULTS / "driver_genes", "kang2018_pbmc_ifnb_counts2k.h5ad", analyse, simulate)


if __name__ == "__main__":
    main()
