"""How well distances between samples tell what is known of the samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

CLASSES = {"same": (-1.0, 1e-9), "near": (1e-9, 1.0), "middle": (1.0, 10.0), "far": (10.0, np.inf)}
"""Classes of pairs by their divergence in nats: the largest value belongs to the class."""
NORMAL = 1.645
N_NEIGHBORS, N_CONNECTED = 3, 15
SMALL = 200
"""Pairs whose smaller sample has fewer cells are pairs of small samples."""


def of_pairs(square: np.ndarray) -> np.ndarray:
    """Entries above the diagonal, one for each pair."""
    return square[np.triu_indices(len(square), k=1)]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman correlation; NaN if one of them is constant or there are fewer than 3 values."""
    if len(first) < 3 or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return float("nan")
    return float(spearmanr(first, second)[0])


def against_truth(
    distance: np.ndarray, error: np.ndarray, truth: np.ndarray, n_cells: np.ndarray, *, in_nats: bool
) -> dict[str, float]:
    """Errors of distances in nats, coverage of their 90% intervals, and how they rank pairs.

    Parameters
    ----------
    distance, error, truth
        Distances, their standard errors (NaN if a method has none) and the true divergences, square.
    n_cells
        Numbers of cells of the samples.
    in_nats
        Whether the method estimates the divergence. If not, only ranks are compared.
    """
    smaller = of_pairs(np.minimum(n_cells[:, None], n_cells))
    found, error, truth = of_pairs(distance), of_pairs(error), of_pairs(truth)
    known = np.isfinite(found) & np.isfinite(truth)
    if not known.any():
        return {}
    found, error, truth, smaller = found[known], error[known], truth[known], smaller[known]
    measured = {"spearman": rank_correlation(found, truth)}
    inside = {name: (truth > low) & (truth <= high) for name, (low, high) in CLASSES.items()}
    # Whether the distance of samples of one distribution depends on their sizes.
    measured["size_correlation"] = rank_correlation(found[inside["same"]], smaller[inside["same"]])
    if not in_nats:
        return measured
    off = found - truth
    measured |= {"rmse": np.sqrt(np.mean(off**2)), "bias": off.mean()}
    measured["slope"] = np.cov(found, truth)[0, 1] / truth.var(ddof=1) if np.ptp(truth) > 0.0 else np.nan
    measured |= {f"bias_{name}": _mean(off[which]) for name, which in inside.items()}
    measured["bias_same_small"] = _mean(off[inside["same"] & (smaller < SMALL)])
    if np.isfinite(error).any():
        covered = (np.abs(off) <= NORMAL * error).astype(float)
        measured |= {"coverage": covered.mean(), "error_ratio": np.sqrt(np.mean((off / error) ** 2))}
        measured |= {f"coverage_{name}": _mean(covered[which]) for name, which in inside.items()}
    return measured


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def same_nearer(distance: np.ndarray, label: np.ndarray, left_out: Sequence[tuple[int, int]] = ()) -> float:
    """Probability that two samples of one label are nearer than two of different labels (AUC; .5 by chance).

    Parameters
    ----------
    distance
        Square; pairs without a distance are left out.
    label
        Label of each sample.
    left_out
        Pairs of samples that do not count.
    """
    is_out = np.zeros(distance.shape, dtype=bool)
    for pair in left_out:
        is_out[pair] = is_out[pair[::-1]] = True
    found, same = of_pairs(distance), of_pairs(label[:, None] == label)
    counts = np.isfinite(found) & ~of_pairs(is_out)
    found, same = found[counts], same[counts]
    n_same, n_other = same.sum(), (~same).sum()
    if not n_same or not n_other:
        return float("nan")
    return float(1.0 - (rankdata(found)[same].sum() - n_same * (n_same + 1) / 2) / (n_same * n_other))


def predicted(distance: np.ndarray, target: np.ndarray, *, is_class: bool) -> float:
    """SPARE's score of a label: how well the 3 nearest other samples, weighted by inverse distance, predict it.

    Macro F1 scaled so that 0 is chance for a class, Spearman correlation for a number; negative scores become 0.
    Samples without a distance to any other are left out.

    Parameters
    ----------
    distance
        Square.
    target
        Label of each sample.
    is_class
        Whether the label is a class.
    """
    known = np.isfinite(distance).sum(1) > 1
    square, target = distance[np.ix_(known, known)].copy(), target[known]
    # As SPARE does, so that no sample is its own neighbour.
    np.fill_diagonal(square, square.max() + 1.0)
    square -= min(square.min(), 0.0)
    model = KNeighborsClassifier if is_class else KNeighborsRegressor
    fitted = model(n_neighbors=N_NEIGHBORS, metric="precomputed", weights="distance").fit(square, target)
    guess = fitted.predict(square)
    if is_class:
        chance = 1.0 / len(np.unique(target))
        score = (f1_score(target, guess, average="macro") - chance) / (1.0 - chance)
    else:
        score = rank_correlation(guess, target)
    return max(float(score), 0.0)


def twin_rank(distance: np.ndarray, twin: np.ndarray) -> float:
    """Mean place of a sample's twin among the others: 1 if it is the nearest, 0 if it is the farthest.

    SPARE's replicate robustness is one less the mean place counted from 0, which depends on the number of samples.

    Parameters
    ----------
    distance
        Square.
    twin
        Index of the other part of each sample, shape (n_samples,).
    """
    places = []
    for own, other in enumerate(twin):
        others = np.delete(distance[own], own)
        if np.isfinite(distance[own, other]):
            others = others[np.isfinite(others)]
            nearer = (others < distance[own, other]).sum() + 0.5 * ((others == distance[own, other]).sum() - 1)
            places.append(1.0 - nearer / max(len(others) - 1, 1))
    return float(np.mean(places)) if places else float("nan")


def pseudotime(distance: np.ndarray, root: int) -> np.ndarray:
    """Diffusion pseudotime of samples (Haghverdi et al. 2016) from their distances, shape (n_samples,).

    Parameters
    ----------
    distance
        Square; all distances are known.
    root
        Sample that it starts from.
    """
    square = np.maximum(distance, 0.0)
    # Scanpy's widths: medians over the nearest others, 15 if there are as many.
    width = np.median(np.sort(square, axis=1)[:, 1 : N_CONNECTED + 1], axis=1)
    width = np.maximum(width, 1e-3 * square.max())
    kernel = np.exp(-(square**2) / (2.0 * width[:, None] * width))
    np.fill_diagonal(kernel, 0.0)
    degree = np.maximum(kernel.sum(1), 1e-12)
    kernel /= degree[:, None] * degree
    degree = np.maximum(kernel.sum(1), 1e-300)
    values, vectors = np.linalg.eigh(kernel / np.sqrt(degree[:, None] * degree))
    # All but the stationary state; sums over walks of all lengths.
    values, vectors = np.clip(values[:-1], -1.0 + 1e-9, 1.0 - 1e-9), vectors[:, :-1]
    place = vectors * (values / (1.0 - values))
    return np.sqrt(((place - place[root]) ** 2).sum(1))
