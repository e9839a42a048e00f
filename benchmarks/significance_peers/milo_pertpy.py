"""Milo (Dann et al. 2022, doi 10.1038/s41587-021-01033-z) by pertpy's port, without R: its `pydeseq2` solver.

    python benchmarks/significance_peers/milo_pertpy.py COHORT.npz [COHORT.npz ...] --out FOLDER

pertpy 1.4. The graph is scanpy's, of neighbours on the embedding (exact ones for up to 20,000 cells), with k of 30 or
five times the number of samples, if that is more, as Milo's authors advise (neighbourhoods of more than five cells a
sample). Neighbourhoods are of a tenth of the cells, refined: Milo's default. `solver="pydeseq2"` normalizes as Milo
does (TMM), estimates dispersions by pydeseq2 and tests by a likelihood ratio against the chi-square distribution: close
to edgeR's quasi-likelihood F test, as pertpy's documentation says, but not the same. `milo_edgepython.py` has that F
test.

A place is a neighbourhood and its weight the number of its cells; neighbourhoods overlap. Cells are called that are in
any neighbourhood of a spatial false discovery rate of at most .1, and in `found_by_most` those that are in more such
neighbourhoods than others. The log ratio of a cell is the mean of those of its neighbourhoods. In paired designs
the donor is a fixed effect, the block of edgeR's manual and of Milo's tutorial: `~ donor + group`.
"""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from _protocol import FDR, REP, SEED, Cohort, Result, main, mean_of_neighbourhoods, milo_neighbours, search_of


def milo(cohort: Cohort) -> Result:
    """Test every neighbourhood."""
    import numpy as np
    import pertpy
    import scanpy as sc

    adata = cohort.anndata()
    tool = pertpy.tl.Milo()
    # Both packages report to the console.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        k = milo_neighbours(cohort)
        sc.pp.neighbors(adata, n_neighbors=k, use_rep=REP, transformer=search_of(cohort), random_state=SEED)
        tool.make_nhoods(adata, prop=0.1, seed=SEED)
        counts = tool.count_nhoods(tool.load(adata), sample_col="sample")
        # The last coefficient, the one that is tested, is that of the treated.
        tool.da_nhoods(counts, design="~ donor + group" if cohort.is_paired else "~ group", solver="pydeseq2")
    table = counts["milo"].var
    is_inside = (counts["rna"].obsm["nhoods"] != 0).tocsr()
    is_called = np.nan_to_num(table["SpatialFDR"].to_numpy(dtype=float), nan=1.0) <= FDR
    log_ratio = mean_of_neighbourhoods(is_inside, np.log(2.0) * table["logFC"].to_numpy(dtype=float))
    share = mean_of_neighbourhoods(is_inside, is_called)
    weight = np.asarray(is_inside.sum(axis=0)).ravel()
    return Result(
        share > 0.0, table["PValue"].to_numpy(), weight, extra={"log_ratio": log_ratio, "found_by_most": share > 0.5}
    )


if __name__ == "__main__":
    main(milo)
