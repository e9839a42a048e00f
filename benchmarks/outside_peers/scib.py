"""Scores of batch mixing by scib-metrics 0.6.1, with the settings of its own `Benchmarker`.

    python benchmarks/outside_peers/scib.py CELLS.npz [CELLS.npz ...] --out FOLDER

iLISI (Korsunsky et al. 2019), kBET for each label (Büttner et al. 2019), BRAS (Rautenstrauch and Ohler 2025) and sBEE
(Myradov et al. 2026, doi 10.64898/2026.04.22.720135). Neighbours are those of pynndescent; iLISI and sBEE take 90 of
them, kBET takes 50. All four scores are 1 where batches are mixed perfectly and 0 where they lie apart.

A file has an embedding ``x``, and codes ``batch`` and ``label``. The answer has

- ``score``, the score of all cells;
- ``by_label``, that of every label: from the package for kBET, the mean over cells for iLISI, and for BRAS and sBEE the
  score of the label's cells alone, which is the term that their mean over labels has for it;
- ``by_cell``, larger where a cell is mixed worse: less the LISI, less the p-value of kBET (among all cells), the size
  of the silhouette within the label. sBEE gives no value of a cell, so that its array is empty.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _exchange import Arrays, serve

# isort: split
import numpy as np

N_NEIGHBORS, N_OF_KBET = 90, 50


def neighbors_of(x: np.ndarray, n_neighbors: int = N_NEIGHBORS):
    """Nearest neighbours as the package computes them; no more than there are cells."""
    from scib_metrics.nearest_neighbors import pynndescent

    return pynndescent(x, n_neighbors=min(n_neighbors, len(x) - 1), random_state=0, n_jobs=1)


def label_by_label(score, arrays: Arrays) -> np.ndarray:
    """Score of the cells of every label alone; NaN where all of them are of one batch."""
    x, batch, label = arrays["x"], arrays["batch"], arrays["label"]
    found = np.full(label.max() + 1, np.nan)
    for code in np.unique(label):
        own = label == code
        if len(np.unique(batch[own])) > 1:
            found[code] = score(x[own], batch[own], label[own])
    return found


def ilisi(arrays: Arrays) -> Arrays:
    """Median over cells, scaled by the number of batches."""
    import scib_metrics

    batch, label = arrays["batch"], arrays["label"]
    neighbors = neighbors_of(arrays["x"])
    cells = scib_metrics.lisi_knn(neighbors, batch)
    sizes, sums = np.bincount(label), np.bincount(label, weights=cells)
    by_label = (sums / np.maximum(sizes, 1) - 1.0) / (len(np.unique(batch)) - 1.0)
    return {
        "score": np.float64(scib_metrics.ilisi_knn(neighbors, batch)),
        "by_label": np.where(sizes > 0, by_label, np.nan),
        "by_cell": -np.asarray(cells),
    }


def kbet(arrays: Arrays) -> Arrays:
    """Share of neighbourhoods whose batches look like those of all cells of the label, averaged over labels."""
    import scib_metrics

    batch, label = arrays["batch"], arrays["label"]
    neighbors = neighbors_of(arrays["x"]).subset_neighbors(min(N_OF_KBET, len(label) - 1))
    score, table = scib_metrics.kbet_per_label(neighbors, batch, label, return_df=True)
    by_label = np.full(label.max() + 1, np.nan)
    by_label[table["cluster"].to_numpy()] = table["kBET"].to_numpy(dtype=float)
    pvalues = scib_metrics.kbet(neighbors, batch)[2]
    return {"score": np.float64(score), "by_label": by_label, "by_cell": -np.asarray(pvalues)}


def bras(arrays: Arrays) -> Arrays:
    """One less the size of the silhouette of batches within labels, with cosine distances."""
    import scib_metrics
    from scib_metrics.utils import silhouette_samples

    x, batch, label = arrays["x"], arrays["batch"], arrays["label"]
    cells = np.full(len(label), np.nan)
    for code in np.unique(label):
        own = label == code
        if len(np.unique(batch[own])) > 1:
            _, codes = np.unique(batch[own], return_inverse=True)
            silhouettes = silhouette_samples(x[own], codes, metric="cosine", between_cluster_distances="mean_other")
            cells[own] = np.abs(silhouettes)
    return {
        "score": np.float64(scib_metrics.bras(x, label, batch)),
        "by_label": label_by_label(lambda x, batch, label: scib_metrics.bras(x, label, batch), arrays),
        "by_cell": cells,
    }


def sbee(arrays: Arrays) -> Arrays:
    """Distances and neighbours between batches within labels."""
    import scib_metrics

    def score(x: np.ndarray, batch: np.ndarray, label: np.ndarray) -> float:
        return scib_metrics.sbee(neighbors_of(x), x, batch, label)

    found = score(arrays["x"], arrays["batch"], arrays["label"])
    return {"score": np.float64(found), "by_label": label_by_label(score, arrays), "by_cell": np.empty(0)}


if __name__ == "__main__":
    serve({"ilisi": ilisi, "kbet": kbet, "bras": bras, "sbee": sbee})
