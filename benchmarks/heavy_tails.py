"""Whether a log ratio holds where tails are heavy, and where a few cells lie far from all others.

    SCRATIO_DATA=folder python benchmarks/heavy_tails.py     # an hour; writes results/heavy_tails.csv, _moved.csv
    python benchmarks/heavy_tails.py --quick                 # seconds, on few cells; the figures mean nothing
    python benchmarks/heavy_tails.py --tasks t1-d2 moved --methods scratio boosting --seeds 0 1

Multivariate Student-t with 1, 2 and 4 degrees of freedom, in 2 + 2 and 5 + 5 dimensions (``t1-d2`` to ``t4-d5``):
dimension i of the first half and of the second are correlated by .8; cells of one label are joint draws, those of the
other have their second half permuted. Methods learn from 20,000 cells; the mean log ratio over 10,000 fresh joint ones
estimates the mutual information, of which the truth is the mean of the exact log ratio over a million draws.
``standard_error_of_truth`` is that of this mean, ``bias`` the mean error on the fresh cells themselves, which has no
error of sampling.

``moved``: Kang's cells with their real labels, 1% of them moved out by 100 and by 10,000 standard deviations in random
directions. ``loss`` is the out-of-fold cross-entropy in nats over the cells that are not moved, beside that without
moving (distance 0) of these very cells.

``warned`` says whether the method gave a warning. Rows are written as they are measured, and replace earlier ones of
the same task, method and seed. Without the data ``moved`` is left out; in the quick form it has made-up cells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _labels import QUICK, log_odds, losses, mean_and_error
from _methods import fit_and_score
from _rows import Rows, has_data, noted, parsed
from _simulate import mixtures
from real_labels import CONTRASTS
from scipy.stats import multivariate_t

RESULTS = Path(__file__).parent / "results"
METHODS = ("scratio", "boosting", "mlp")
RHO, N_TRAIN, N_FRESH, N_TRUTH, N_QUICK = 0.8, 20_000, 10_000, 1_000_000, 200
TASKS = {f"t{df}-d{half}": (df, half) for half in (2, 5) for df in (1, 2, 4)}
"""Degrees of freedom, and dimensions of either half."""
MOVED, DISTANCES, SHARE_MOVED = "moved", (0.0, 100.0, 10_000.0), 0.01


def correlated(half: int) -> np.ndarray:
    """Scale matrix of the joint distribution."""
    return np.kron([[1.0, RHO], [RHO, 1.0]], np.eye(half))


def draw(rng: np.random.Generator, n_cells: int, df: int, half: int, is_joint: np.ndarray) -> np.ndarray:
    """Joint draws, whose second halves are permuted among the cells that are not ``is_joint``."""
    normal = rng.normal(size=(n_cells, 2 * half)) @ np.linalg.cholesky(correlated(half)).T
    x = normal / np.sqrt(rng.chisquare(df, size=(n_cells, 1)) / df)
    others = np.flatnonzero(~is_joint)
    x[others, half:] = x[rng.permutation(others), half:]
    return x


def log_ratio(x: np.ndarray, df: int, half: int) -> np.ndarray:
    """Exact log ratio: the halves of a multivariate t are multivariate t with the same degrees of freedom."""
    joint = multivariate_t(shape=correlated(half), df=df).logpdf(x)
    alone = multivariate_t(shape=np.eye(half), df=df)
    return joint - alone.logpdf(x[:, :half]) - alone.logpdf(x[:, half:])


def information(df: int, half: int, n_draws: int) -> tuple[float, float]:
    """Mutual information of the halves and the standard error of this figure, from draws of their own."""
    x = draw(np.random.default_rng(12_345), n_draws, df, half, np.ones(n_draws, dtype=bool))
    return mean_and_error(log_ratio(x, df, half))


def measure_information(rows: Rows, task: str, methods: list[str], seed: int, quick: bool) -> None:
    """Mutual information of fresh joint draws by every method."""
    df, half = TASKS[task]
    truth, error_of_truth = information(df, half, 10_000 if quick else N_TRUTH)
    n_train, n_fresh = (N_QUICK, N_QUICK) if quick else (N_TRAIN, N_FRESH)
    is_joint = np.arange(n_train) % 2 == 0
    x = draw(np.random.default_rng(seed), n_train, df, half, is_joint)
    fresh = draw(np.random.default_rng(seed + 1_000), n_fresh, df, half, np.ones(n_fresh, dtype=bool))
    exact = log_ratio(fresh, df, half)
    for name in methods:
        settings = QUICK if quick and name == "scratio" else {}
        with noted() as said:
            found, seconds = fit_and_score(name, x, is_joint, fresh, seed, settings)
        rows.add(
            task=task,
            df=df,
            d=2 * half,
            method=name,
            seed=seed,
            information=truth,
            standard_error_of_truth=error_of_truth,
            estimate=found.mean(),
            bias=(found - exact).mean(),
            rmse=np.sqrt(np.mean((found - exact) ** 2)),
            warned=bool(said),
            **seconds,
        )


def moved_out(rng: np.random.Generator, x: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Cells of which 1% are moved by so many standard deviations in random directions, and which they are."""
    is_moved = np.zeros(len(x), dtype=bool)
    is_moved[rng.choice(len(x), size=max(int(SHARE_MOVED * len(x)), 1), replace=False)] = True
    directions = rng.normal(size=(is_moved.sum(), x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = x.copy()
    found[is_moved] += distance * x.std(0) * directions
    return found, is_moved


def measure_moved(rows: Rows, methods: list[str], seed: int, quick: bool) -> None:
    """Cross-entropy of the cells that stay, with others moved and without."""
    kang = CONTRASTS["kang"]
    if not quick and not has_data(kang.file, MOVED):
        return
    x, is_treated = mixtures(np.random.default_rng(0), N_QUICK)[:2] if quick else kang.read()
    for distance in DISTANCES:
        cells, is_moved = moved_out(np.random.default_rng(seed), x, distance)
        for name in methods:
            with noted() as said:
                found, seconds = log_odds(name, cells, is_treated, seed, quick=quick)
            loss, error = mean_and_error(losses(found, is_treated)[~is_moved])
            row = {"distance": distance, "method": name, "seed": seed, "n_moved": is_moved.sum()}
            rows.add(**row, loss=loss, standard_error=error, warned=bool(said), **seconds)


def main() -> None:
    """Measure and write."""
    tasks = (*TASKS, MOVED)
    options = parsed(__doc__, RESULTS, {"tasks": ("t1-d2", MOVED)}, tasks=tasks, methods=METHODS, seeds=(0,))
    of_tails = Rows(options.results, "heavy_tails.csv", ["task", "method", "seed"])
    of_moved = Rows(options.results, "heavy_tails_moved.csv", ["distance", "method", "seed"])
    for seed in options.seeds:
        for task in options.tasks:
            if task == MOVED:
                measure_moved(of_moved, options.methods, seed, options.quick)
            else:
                measure_information(of_tails, task, options.methods, seed, options.quick)


if __name__ == "__main__":
    main()
