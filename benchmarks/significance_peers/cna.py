"""CNA, covarying neighbourhood analysis (Reshef et al. 2022, doi 10.1038/s41587-021-01066-4), by its authors' package.

    python benchmarks/significance_peers/cna.py COHORT.npz [COHORT.npz ...] --out FOLDER

Version 0.2.6 of `cna`, the first releases of which had a bug in the local test. The graph is scanpy's with its default
of 15 neighbours on the embedding, as in CNA's tutorial (exact ones for up to 20,000 cells); everything else is CNA's
default but for the number of permutations, 10 000 instead of 1000, so that the p-value of the whole cohort can be small
(the local test uses 1000 of them, whatever is asked for). The refusal of cohorts of fewer than ten samples is overruled
by the argument made for it.

CNA has one p-value for the cohort and, for cells, estimates of the false discovery rate but no p-values: `pvalue` and
`weight` are empty. Cells are called where the estimate, the column `coef_fdr`, is at most .1, those that CNA's own plot
shows. They are called whatever the global p-value is; whoever wants that as a gate has it in `global_pvalue`. `score`
is the correlation of a cell's neighbourhood with the group.

In paired designs the donor is the batch: CNA then permutes within donors and regresses them out (with its own ridge).
"""

from __future__ import annotations

from _protocol import FDR, REP, SEED, Cohort, Result, main, search_of

N_PERMUTATIONS = 10_000


def cna(cohort: Cohort) -> Result:
    """Global p-value and the cells at the false discovery rate."""
    import cna as package
    import pandas as pd
    import scanpy as sc

    adata = cohort.anndata()
    sc.pp.neighbors(adata, use_rep=REP, transformer=search_of(cohort), random_state=SEED)
    samples = [f"s{code:03d}" for code in range(len(cohort.group))]
    pvalue = package.tl.association(
        adata,
        pd.Series(cohort.group.astype(float), index=samples),
        "sample",
        batches=pd.Series(cohort.donor, index=samples) if cohort.is_paired else None,
        allow_low_sample_size=True,
        Nnull=N_PERMUTATIONS,
        seed=SEED,
    )
    return Result(
        adata.obs["coef_fdr"].to_numpy() <= FDR,
        global_pvalue=float(pvalue),
        extra={"score": adata.obs["coef"].to_numpy()},
    )


if __name__ == "__main__":
    main(cna)
