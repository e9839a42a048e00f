"""Neighbourhoods of similar cells, at which samples are compared."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors

from scratio._constants import KMEANS_ON_WINDOWS

CELLS_EACH, FEWEST, MOST = 50, 10, 500
"""Cells that a neighbourhood should have; smallest and largest number of neighbourhoods."""
SCALES, LARGEST_SHARE = (10, 20, 40), 0.1
"""Neighbours for each sample; largest share of all cells in a neighbourhood."""
DISTANCES = 2**23
"""Distances between centres and cells that are in memory at once, with their order: 128 MB."""


def neighborhoods(x: np.ndarray, random_state: int) -> np.ndarray:
    """Assign every cell to a neighbourhood by k-means: about 50 cells each, and at most 500 neighbourhoods.

    Samples and conditions are not used, so that the samples stay exchangeable.

    Parameters
    ----------
    x
        Standardised embedding, shape (n, d).
    random_state
        Seed.

    Returns
    -------
    Neighbourhood of every cell as codes from 0 without gaps, shape (n,).
    """
    number = int(np.clip(len(x) // CELLS_EACH, min(FEWEST, len(x)), MOST))
    clusters = MiniBatchKMeans(number, batch_size=4_096, n_init=3, random_state=random_state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=KMEANS_ON_WINDOWS)
        found = clusters.fit_predict(x)
    return np.unique(found, return_inverse=True)[1]


def neighbor_counts(x: np.ndarray, neighborhood: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Count the cells of each sample near the centre of each neighbourhood, on several scales.

    With m samples, the nearest 10 m, 20 m and 40 m cells are counted, but at most a tenth of all cells. Cells of
    different centres overlap. Small scales resolve fine differences; large scales have less counting noise.

    Parameters
    ----------
    x
        Standardised embedding, shape (n, d).
    neighborhood
        Neighbourhood of every cell, shape (n,).
    codes
        Sample of every cell, shape (n,); negative for a cell of no sample.

    Returns
    -------
    Numbers of cells, shape (n_scales, n_samples, n_neighborhoods).
    """
    n_samples, n_places = int(codes.max()) + 1, int(neighborhood.max()) + 1
    largest = max(int(LARGEST_SHARE * len(x)), 1)
    scales = sorted({min(scale * n_samples, largest) for scale in SCALES})
    sums = np.stack([np.bincount(neighborhood, weights=column, minlength=n_places) for column in x.T], axis=1)
    centres = sums / np.bincount(neighborhood)[:, None]
    # Of cells at the same distance the first ones are taken; cells are often sorted by sample.
    order = np.random.default_rng(0).permutation(len(x))
    # In the precision of the centres; otherwise every search below would convert all cells.
    finder = NearestNeighbors(n_neighbors=scales[-1]).fit(x[order].astype(centres.dtype))
    parts = np.array_split(centres, min(-(-n_places * len(x) // DISTANCES), n_places))
    found = np.concatenate([finder.kneighbors(part, return_distance=False) for part in parts])
    near = codes[order][found]
    counts = np.empty((len(scales), n_samples, n_places))
    for sample in range(n_samples):
        is_own = near == sample
        counts[:, sample] = [is_own[:, :k].sum(1) for k in scales]
    return counts
