"""Tasks and estimators of the suite of Czyz et al. on mutual information (package ``benchmark-mi``).

    .venv-peer-bmi/bin/python benchmarks/outside_peers/bmi.py QUESTION.npz --out OUT --methods draw
    .venv-peer-bmi/bin/python benchmarks/outside_peers/bmi.py OUT/draw/QUESTION.npz --out OUT --methods KSG CCA

``draw`` draws the samples of a task. The other methods estimate the mutual information of samples ``x`` and ``y``. They
have the suite's defaults, standardisation and seeds of the neural estimators included; ``KSG-10`` has the 10 neighbours
of the suite's second version, where the default averages 5 and 10. Sources: Czyz, Grabowski, Vogt, Beerenwinkel and
Marx, "Beyond Normal: On the Evaluation of Mutual Information Estimators" (NeurIPS 2023) and "On the Properties and
Estimation of Pointwise Mutual Information Profiles" (TMLR 2025); github.com/cbg-ethz/bmi.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _exchange import Arrays, serve

# isort: split
import numpy as np  # the threads are limited by now


def task_of(name: str) -> Any:
    """Task of the suite's first version, or one of those of the second version that the first has not."""
    from bmi.benchmark import BENCHMARK_TASKS, tasks

    # A task takes seconds to be made, for the suite samples its mutual information: only the one that is asked for is.
    second = {
        "1v1-X-0.9": tasks.task_x,
        "1v1-AI": tasks.task_ai,
        "2v1-waves-12-5.0-3.0": tasks.task_waves,
        "2v1-galaxy-0.5-3.0": tasks.task_galaxy,
    }
    for d, n in ((3, 5), (5, 5), (3, 10), (5, 10), (25, 5)):
        made = partial(tasks.task_concentric_multinormal, dim_x=d, n_components=n)
        second[f"{d}v1-concentric_gaussians-{n}"] = made
    for d, share in product((5, 25), (0.2, 0.5)):
        made = partial(tasks.task_multinormal_sparse_w_inliers, dim_x=d, dim_y=d, inlier_fraction=share)
        second[f"mult-sparse-w-inliers-{d}-{d}-2-2.0-{share}"] = made
    return BENCHMARK_TASKS[name] if name in BENCHMARK_TASKS else second[name]()


def latent(sampler: Any) -> Any:
    """Sampler before the transformations of x and of y, which change no log ratio since they are invertible."""
    while hasattr(sampler, "_base_sampler"):
        sampler = sampler._base_sampler
    return getattr(sampler, "_sampler", sampler)


def pointwise(sampler: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Exact log ratio of the joint density over the product of its margins.

    Parameters
    ----------
    sampler
        Sampler without transformations.
    x, y
        Its variables, shapes (n, dim_x) and (n, dim_y).
    """
    from scipy.stats import multivariate_normal, multivariate_t

    if hasattr(sampler, "_dist"):  # mixtures: the suite knows their densities
        return np.asarray(sampler._dist.pmi(x, y), dtype=float)
    if hasattr(sampler, "_epsilon"):
        return of_noise(x[:, 0], y[:, 0], sampler._epsilon)
    if hasattr(sampler, "_dispersion"):
        law, matrix = partial(multivariate_t, df=sampler.df), sampler._dispersion
    else:
        law, matrix = multivariate_normal, sampler._covariance
    matrix, mean, d = np.asarray(matrix, dtype=float), np.asarray(sampler._mean, dtype=float), x.shape[1]

    def log_density(values: np.ndarray, own: slice) -> np.ndarray:
        return np.atleast_1d(law(mean[own], matrix[own, own]).logpdf(values))

    together = log_density(np.hstack([x, y]), slice(None))
    return together - log_density(x, slice(d)) - log_density(y, slice(d, None))


def of_noise(x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    """Log ratio of y, which is x and uniform noise of up to ``width`` to either side, x uniform between 0 and 1."""
    margin = np.minimum(y + width, 1.0) - np.maximum(y - width, 0.0)  # density of y times 2 width
    with np.errstate(divide="ignore", invalid="ignore"):
        # A single-precision sum may lie a rounding beyond the edge.
        return np.where(np.abs(y - x) <= width + 1e-6, -np.log(margin), -np.inf)


def draw(arrays: Arrays) -> dict[str, np.ndarray]:
    """Samples of a task, its mutual information, and the exact log ratio of every joint and every exchanged pair.

    A pair that is exchanged has the y of another sample, its ``partner``. ``standard_error`` is that of the mutual
    information where the suite itself finds it by sampling, 0 where it has a formula.
    """
    task, partner = task_of(str(arrays["task"])), arrays["partner"]
    drawn = {"rng": int(arrays["seed"]), "n_points": len(partner)}
    x, y = map(np.asarray, task.sampler.sample(**drawn))
    source = latent(task.sampler)
    u, v = (np.asarray(values, dtype=float) for values in source.sample(**drawn))
    return {
        "x": x,
        "y": y,
        "information": np.float64(task.mutual_information),
        "standard_error": np.float64(getattr(source, "_mi_stderr", None) or 0.0),
        "joint": pointwise(source, u, v),
        "exchanged": pointwise(source, u, v[partner]),
    }


def estimate(make: Callable[[Any], Any], arrays: Arrays) -> dict[str, np.ndarray]:
    """Mutual information of samples.

    Parameters
    ----------
    make
        From the suite's module of estimators to one of them.
    arrays
        What `draw` found.
    """
    from bmi import estimators

    return {"estimate": np.float64(make(estimators).estimate(arrays["x"], arrays["y"]))}


ESTIMATORS = {
    "KSG": lambda suite: suite.KSGEnsembleFirstEstimator(),
    "KSG-10": lambda suite: suite.KSGEnsembleFirstEstimator(neighborhoods=(10,)),
    "CCA": lambda suite: suite.CCAMutualInformationEstimator(),
    "MINE": lambda suite: suite.MINEEstimator(verbose=False),
    "InfoNCE": lambda suite: suite.InfoNCEEstimator(verbose=False),
    "NWJ": lambda suite: suite.NWJEstimator(verbose=False),
    "Donsker-Varadhan": lambda suite: suite.DonskerVaradhanEstimator(verbose=False),
}

if __name__ == "__main__":
    serve({"draw": draw} | {name: partial(estimate, make) for name, make in ESTIMATORS.items()})
