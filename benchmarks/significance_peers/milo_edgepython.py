"""Milo (Dann et al. 2022, doi 10.1038/s41587-021-01033-z) by milopy's neighbourhoods and edgePython's F tests.

    python benchmarks/significance_peers/milo_edgepython.py COHORT.npz [COHORT.npz ...] --out FOLDER

The test is that of miloR: TMM normalization, edgeR's dispersions with their trend, a robust quasi-likelihood fit and
its F test, by edgePython 0.5 (edgeR in Python). The fit is the `legacy` one, as in miloR and in pertpy's edgeR solver.
Graph, neighbourhoods and counts are those of milopy 0.3 (the one on PyPI, which has no use for R). Its own test is not
called: that has the newer fit of edgeR 5 and no spatial false discovery rate. This is computed here as miloR does it:
Benjamini and Hochberg's with weights of one over the distance from the index cell to its k-th neighbour.

k is 30 or five times the number of samples, if that is more, as Milo's authors advise (neighbourhoods of more than five
cells a sample); neighbourhoods are of a tenth of the cells, refined: Milo's default. Neighbours are exact for up to
20,000 cells, and those of scanpy's default beyond.

A place is a neighbourhood and its weight the number of its cells; neighbourhoods overlap. Cells are called that are in
any neighbourhood of a spatial false discovery rate of at most .1, and in `found_by_most` those that are in more such
neighbourhoods than others. The log ratio of a cell is the mean of those of its neighbourhoods. In paired designs
the donor is a fixed effect, the block of edgeR's manual and of Milo's tutorial: `~ donor + group`.
"""

from __future__ import annotations

from _protocol import FDR, REP, SEED, Cohort, Result, main, mean_of_neighbourhoods, milo_neighbours, search_of

# isort: split
import numpy as np


def spatial_fdr(pvalue: np.ndarray, kth_distance: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's rate, weighted by one over the distance to the k-th neighbour."""
    weight, order = 1.0 / np.maximum(kth_distance, 1e-12), np.argsort(pvalue)
    rate = pvalue[order] * weight.sum() / np.cumsum(weight[order])
    result = np.empty_like(rate)
    result[order] = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
    return result


def design_of(cohort: Cohort) -> np.ndarray:
    """One row a sample, one column a coefficient: the last is that of the treated, those before are of the donors."""
    if cohort.is_paired:
        blocks = (cohort.donor[:, None] == np.unique(cohort.donor)).astype(float)
    else:
        blocks = np.ones((len(cohort.group), 1))
    return np.column_stack([blocks, cohort.group.astype(float)])


def milo(cohort: Cohort) -> Result:
    """Test every neighbourhood."""
    import edgepython as ep
    import milopy

    adata, k, n_dims = cohort.anndata(), milo_neighbours(cohort), cohort.x.shape[1]
    milopy.build_graph(adata, k=k, d=n_dims, use_rep=REP, transformer=search_of(cohort), random_state=SEED)
    milopy.make_nhoods(adata, prop=0.1, k=k, d=n_dims, random_state=SEED)
    milopy.count_cells(adata, "sample")
    is_inside = (adata.obsm["nhoods"] != 0).tocsr()
    counts = adata.uns["nhood_counts"].to_numpy(dtype=float)  # columns in the order of the samples' codes
    design = design_of(cohort)
    if not np.linalg.matrix_rank(design) == design.shape[1] < len(design):
        raise ValueError("too few samples for the design")
    genes = ep.calc_norm_factors(ep.make_dgelist(counts=counts), method="TMM")
    genes = ep.estimate_disp(genes, design=design)
    fit = ep.glm_ql_fit(genes, design=design, robust=True, legacy=True)
    test = ep.glm_ql_ftest(fit, coef=design.shape[1] - 1)
    table = ep.top_tags(test, n=len(counts), sort_by="none")["table"]
    pvalue = table["PValue"].to_numpy(dtype=float)
    pvalue = np.where(np.isfinite(pvalue), pvalue, 1.0)
    kth_distance = adata.obsp["distances"][adata.uns["nhood_indices"]].max(axis=1).toarray().ravel()
    is_called = spatial_fdr(pvalue, kth_distance) <= FDR
    log_ratio = mean_of_neighbourhoods(is_inside, np.log(2.0) * table["logFC"].to_numpy(dtype=float))
    share = mean_of_neighbourhoods(is_inside, is_called)
    return Result(
        share > 0.0,
        pvalue,
        np.asarray(is_inside.sum(axis=0)).ravel(),
        extra={"log_ratio": log_ratio, "found_by_most": share > 0.5},
    )


if __name__ == "__main__":
    main(milo)
