"""How well labels of real cells that nobody planted are predicted out of fold: cross-entropy in nats per cell.

    SCRATIO_DATA=folder python benchmarks/real_labels.py     # an hour; writes benchmarks/results/real_labels.csv
    python benchmarks/real_labels.py --quick                 # seconds, on few cells; the figures mean nothing
    python benchmarks/real_labels.py --contrasts kang-nk sachs-ly --methods scratio boosting --seeds 0 1

The log ratio of real cells is not known, but their labels are, and no log ratio predicts them better than the right
one. Cells are units here, so that donors are in all folds: this compares estimators, and says nothing of new donors.

``difference`` is the mean over cells of the method's loss less that of scratio, positive where scratio is better, with
the standard error of paired cells; it needs ``scratio`` among the methods of the same run. ``loss_of_nothing`` is the
loss of the class sizes alone. Rows are written as they are measured, and replace earlier ones of the same contrast,
method and seed. A data set that is absent is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import numpy as np
from _labels import available, log_odds, losses, mean_and_error
from _rows import FOLDER, Rows, has_data, parsed
from _simulate import mixtures

RESULTS = Path(__file__).parent / "results"
KANG, SACHS = "kang2018_pbmc_ifnb_pca.h5ad", "sachs2005_flow.h5ad"
METHODS = ("scratio", "scratio-quick", "logistic", "boosting", "mlp", "knn")
MADE_UP, N_QUICK = "made-up", 300

Labelled = tuple[np.ndarray, np.ndarray]
"""Embedding of cells and whether they are treated."""


@dataclass(frozen=True)
class Contrast:
    """Two groups of real cells.

    Parameters
    ----------
    file
        Data set.
    key, treatment, reference
        Column of ``obs``, and the two of its categories.
    use_rep, n_dims
        Embedding, and how many of its dimensions are used (None for all).
    only
        Categories of other columns to which the cells are restricted.
    """

    file: str
    key: str
    treatment: str
    reference: str
    use_rep: str = "X_pca"
    n_dims: int | None = None
    only: dict[str, str] = field(default_factory=dict)

    def read(self) -> Labelled:
        """Cells of the two groups."""
        adata = ad.read_h5ad(FOLDER / self.file)
        labels = adata.obs[self.key].astype(str).to_numpy()
        used = np.isin(labels, [self.treatment, self.reference])
        for column, category in self.only.items():
            used &= (adata.obs[column] == category).to_numpy()
        x = np.asarray(adata.obsm[self.use_rep], dtype=float)[used, : self.n_dims]
        return x, labels[used] == self.treatment


CONTRASTS = {
    "kang": Contrast(KANG, "condition", "stim", "ctrl", n_dims=20),
    "kang-nk": Contrast(KANG, "condition", "stim", "ctrl", n_dims=20, only={"cell_type": "NK cells"}),
    "melanoma": Contrast("sadefeldman2018_melanoma_icb.h5ad", "condition", "R", "NR"),
    "glioblastoma": Contrast("zhao2021_gbm_panobinostat.h5ad", "condition", "panobinostat", "ctrl", n_dims=30),
    "synovium": Contrast("zhang2019_ra_synovium_harmony.h5ad", "disease", "RA", "OA", "X_pca_harmony"),
    "sachs-ly": Contrast(SACHS, "condition", "cd3cd28+ly", "cd3cd28", "X_scaled"),
    "sachs-aktinhib": Contrast(SACHS, "condition", "cd3cd28+aktinhib", "cd3cd28", "X_scaled"),
    "sachs-icam2": Contrast(SACHS, "condition", "cd3cd28+icam2", "cd3cd28", "X_scaled"),
}


def contrasts(names: list[str], quick: bool) -> Iterator[tuple[str, Labelled]]:
    """Cells of each contrast whose data are there; in quick form made-up ones, and few of one contrast."""
    if quick:
        yield MADE_UP, mixtures(np.random.default_rng(0), N_QUICK)[:2]
    for name in names:
        if has_data(CONTRASTS[name].file, name):
            x, is_treated = CONTRASTS[name].read()
            some = np.random.default_rng(0).permutation(len(x))[: N_QUICK if quick else None]
            yield name, (x[some], is_treated[some])


def main() -> None:
    """Measure and write."""
    options = parsed(
        __doc__, RESULTS, {"contrasts": ("kang-nk",)}, contrasts=tuple(CONTRASTS), methods=METHODS, seeds=(0,)
    )
    rows = Rows(options.results, "real_labels.csv", ["contrast", "method", "seed"])
    # scratio first: the others are compared with it.
    methods = sorted(available(options.methods), key=lambda name: name != "scratio")
    for contrast, (x, is_treated) in contrasts(options.contrasts, options.quick):
        share = is_treated.mean()
        nothing = losses(np.full(len(x), np.log(share / (1.0 - share))), is_treated).mean()
        for seed in options.seeds:
            of_scratio = None
            for name in methods:
                found, seconds = log_odds(name, x, is_treated, seed, quick=options.quick)
                loss = losses(found, is_treated)
                of_scratio = loss if name == "scratio" else of_scratio
                row = {"contrast": contrast, "method": name, "seed": seed, "n_cells": len(x)}
                row["loss"], row["standard_error"] = mean_and_error(loss)
                if of_scratio is not None:
                    row["difference"], row["difference_standard_error"] = mean_and_error(loss - of_scratio)
                rows.add(**row, loss_of_nothing=nothing, **seconds)


if __name__ == "__main__":
    main()
