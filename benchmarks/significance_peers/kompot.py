"""Kompot's differential abundance (Otto et al. 2025, doi 10.1101/2025.06.03.657769) by its authors' package.

    python benchmarks/significance_peers/kompot.py COHORT.npz [COHORT.npz ...] --out FOLDER

kompot 0.8: Gaussian-process log densities of both groups (mellon) and, with `sample_col`, a variance across samples at
every cell, from one more density of each sample. They are densities of diffusion components, as in its tutorials and by
its default: those of `palantir.utils.run_diffusion_maps` with its defaults (10 components, 30 neighbours) on the
embedding. (Densities of the embedding itself come out flat: the default length scale is made for components.) Other
settings are Kompot's defaults, except that LANDMARKS points stand for the cells where there are more: the default,
every cell, takes memory and time that grow with the square and the cube of their number.

A place is a cell: `pvalue` is twice the posterior tail probability, which is one-sided, and `weight` is 1. Kompot has
no false discovery rate for abundance (it has one for expression). Cells are called by its own rule, a direction other
than neutral: a tail probability below .05, so two-sided 10%, and a fold change of more than e, its default threshold
of 1 on the natural logarithm. `found_ptp` has the cells by the tail probability alone, `log_ratio` the fold changes.

Paired designs are an error: there is no place for the donor in the model.
"""

from __future__ import annotations

from _protocol import CONTROL, REP, SEED, TREATED, Cohort, Result, main

LANDMARKS = 1000
"""Most points that stand for the cells."""
TAIL = 0.05
"""Kompot's default threshold of the one-sided tail probability."""


def kompot(cohort: Cohort) -> Result:
    """Tail probability of every cell and the cells by Kompot's thresholds."""
    import logging

    import kompot as package
    import numpy as np
    import palantir

    if cohort.is_paired:
        raise ValueError("no paired designs")
    for name in ("kompot", "mellon"):
        logging.getLogger(name).setLevel(logging.ERROR)
    adata = cohort.anndata()
    palantir.utils.run_diffusion_maps(adata, kernel_backend="sklearn", seed=SEED, pca_key=REP)
    table = package.da(
        adata,
        "group",
        CONTROL,
        TREATED,
        obsm_key="DM_EigenVectors",
        sample_col="sample",
        gp=package.GPSettings(n_landmarks=min(LANDMARKS, len(cohort.x)), batch_size=None, random_state=SEED),
        threshold=package.DAThresholdSettings(ptp_threshold=TAIL),
        output=package.OutputSettings(return_full_results=True, progress=False),
    )["table"]
    tail = 10.0 ** -table["neg_log10_ptp"].to_numpy(dtype=float)
    return Result(
        table["direction"].to_numpy() != "neutral",
        np.minimum(2.0 * tail, 1.0),
        np.ones(len(tail)),
        extra={"found_ptp": tail < TAIL, "log_ratio": table["lfc"].to_numpy(dtype=float)},
    )


if __name__ == "__main__":
    main(kompot)
