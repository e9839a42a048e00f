"""Mutual information on the tasks of Czyz et al., beside the estimators of their suite.

    make .venv-peer-bmi/.installed                                   # the suite: its samples, truths and estimators
    python benchmarks/outside_information.py                         # all tasks and methods, one seed
    python benchmarks/outside_information.py --set spread --seeds 1 2 3 4 5 6 7 8 9
    python benchmarks/outside_information.py --tasks 1v1-AI --methods scratio KSG
    python benchmarks/outside_information.py --quick                 # seconds, on few samples; the figures mean nothing

40 tasks of the suite's first version ("Beyond Normal", NeurIPS 2023) and the 13 that its second version adds ("On the
Properties and Estimation of Pointwise Mutual Information Profiles", TMLR 2025; github.com/cbg-ethz/bmi), with 5,000
samples of x and y each. The suite's estimators have their defaults (`outside_peers/bmi.py`).

scratio contrasts 5,000 joint pairs with 5,000 exchanged ones, with its defaults for everything; ``scratio-quick`` has
``effort="quick"``. Samples are grouped in tens at random, and those of a group hand their y around. No exchanged pair
is a joint pair, so each is an exact draw from the product of the margins. The twenty pairs of a group go into one of
five folds: whatever is scored, neither its x nor its y was in training. The mean log ratio of the joint pairs estimates
the mutual information.

Columns: ``information`` is the truth, ``standard_error`` that of this truth where the suite finds it by sampling,
``error`` is estimate less truth. ``of_sample`` is the mean exact log ratio of these very samples, the estimate of one
who knows the densities. The suite's transformations change no log ratio, so the exact log ratio of every pair is known
(``pointwise`` of the peer's script): ``rmse`` is the root mean square error of scratio's log ratio of a joint pair,
``rmse_exchanged`` that of an exchanged one, ``slope`` and ``correlation`` are those of the estimate on the truth over
all pairs, ``n_outside`` says how many pairs are left out since their truth is minus infinity. The suite's estimators
return one number; the critics of its neural ones hold a log ratio up to a constant or a function of y, which is not
read here. The seconds of the first task that a process of a peer gets hold its imports. A method that fails has a row
that says why in ``failure``.

Rows that the file has are not measured again, unless ``--again`` is given. Writes results/outside_information.csv, and
from its rows the figure outside_information.png and tables: ``_summary.csv``, mean absolute errors by task and method,
with the best method of each task and how far scratio is ``behind`` it; ``_signed.csv``, mean errors; ``_methods.csv``,
errors and seconds by method; ``_pointwise.csv``, errors of scratio's log ratios by family of tasks; ``_seeds.csv``, the
tasks and methods with several seeds, compared seed by seed. Elsewhere methods are compared on the seeds of a task that
all of them have. ``exact`` is the error of one who knows the densities.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import _information
import numpy as np
from _environments import CACHE, answered, ask, put
from _labels import EFFORTS, QUICK
from _methods import CONTRAST, cells
from _rows import Clock, Rows, parsed

import scratio

RESULTS = Path(__file__).parent / "results"
FILE, KEYS = "outside_information.csv", ("task", "method", "seed", "n_samples")
PAIR = "multinormal-sparse-{0}-{0}-2-2.0"
"""Multivariate normal, two dimensions of x correlated with two of y."""
FAMILIES = {
    "one-dimensional": (
        "1v1-normal-0.75",
        "normal_cdf-1v1-normal-0.75",
        "1v1-additive-0.1",
        "1v1-additive-0.75",
        "1v1-bimodal-0.75",
        "wiggly-1v1-normal-0.75",
        "half_cube-1v1-normal-0.75",
        "student-identity-1-1-1",
        "asinh-student-identity-1-1-1",
    ),
    "embedding": ("swissroll_x-normal_cdf-1v1-normal-0.75",),
    "normal": (
        *(f"multinormal-dense-{d}-{d}-0.5" for d in (2, 3, 5, 25, 50)),
        *(PAIR.format(d) for d in (2, 3, 5, 25)),
    ),
    "student": tuple(f"student-identity-{d}-{d}-{df}" for d, df in ((2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3))),
    "transformed": (
        *(f"{how}-{PAIR.format(d)}" for how in ("normal_cdf", "half_cube", "spiral") for d in (3, 5, 25)),
        *(f"spiral-normal_cdf-{PAIR.format(d)}" for d in (3, 5, 25)),
        *(f"asinh-student-identity-{d}-{d}-{df}" for d, df in ((2, 1), (3, 2), (5, 2))),
    ),
    "mixture": (
        "1v1-X-0.9",
        "1v1-AI",
        "2v1-waves-12-5.0-3.0",
        "2v1-galaxy-0.5-3.0",
        *(f"{d}v1-concentric_gaussians-{n}" for d, n in ((3, 5), (5, 5), (3, 10), (5, 10), (25, 5))),
        *(f"mult-sparse-w-inliers-{d}-{d}-2-2.0-{share}" for d, share in product((5, 25), (0.2, 0.5))),
    ),
}
"""Tasks by the lists of the suite, in its order; the second version's are the mixtures."""
FAMILY = {task: family for family, tasks in FAMILIES.items() for task in tasks}
FIRST = [task for task, family in FAMILY.items() if family != "mixture"]
SETS = {
    "first": FIRST,
    "second": list(FAMILIES["mixture"]),
    # First, middle and last task of every list of the first version: a rule made before anything was measured.
    "spread": [
        task
        for own in map(FAMILIES.get, dict.fromkeys(map(FAMILY.get, FIRST)))
        for task in dict.fromkeys((own[0], own[(len(own) - 1) // 2], own[-1]))
    ],
}
PEERS = ("KSG", "KSG-10", "CCA", "MINE", "InfoNCE", "NWJ", "Donsker-Varadhan")
METHODS = (*EFFORTS, *PEERS)
N_SAMPLES, N_QUICK, N_FOLDS = 5_000, 200, 5
GROUP = 10
"""Samples that exchange their y among each other, and are held out together."""
RHO = 0.75
"""Correlation of the made-up samples of the quick form."""

Drawn = dict[str, np.ndarray]


def exchanged(rng: np.random.Generator, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Group samples in tens at random, and hand their y around within each group; the last group takes what is left.

    Returns
    -------
    Whose y every sample gets, never its own, and the group of every sample, both of shape (n_samples,).
    """
    order = rng.permutation(n_samples)
    partner, group = np.empty_like(order), np.empty_like(order)
    starts = GROUP * np.arange(max(n_samples // GROUP, 1))
    for number, own in enumerate(np.split(order, starts[1:])):
        partner[own], group[own] = np.roll(own, 1), number
    return partner, group


def contrasted(x: np.ndarray, y: np.ndarray, partner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint pairs, then exchanged ones, and which are joint."""
    pairs = np.concatenate([np.hstack([x, y]), np.hstack([x, y[partner]])])
    return pairs, np.arange(len(pairs)) < len(x)


def log_ratios(
    x: np.ndarray, y: np.ndarray, seed: int, effort: dict[str, Any], train_kwargs: dict[str, Any]
) -> tuple[np.ndarray, scratio.model.ScRatio]:
    """Out-of-fold log ratios of joint and exchanged pairs, shape (2, n_samples), and the model.

    Parameters
    ----------
    x, y
        Samples, shapes (n_samples, dim_x) and (n_samples, dim_y).
    seed
        Seed of the exchange, which `drawn` has too, and of the model.
    effort, train_kwargs
        Arguments of ``ScRatio.train``.
    """
    partner, group = exchanged(np.random.default_rng(seed), len(x))
    adata = cells(*contrasted(x, y, partner))
    adata.obs["group"] = np.char.add("group", np.tile(group, 2).astype(str))
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = scratio.model.ScRatio(adata, n_folds=N_FOLDS)
    model.train(random_state=seed, group_key="group", progress_bar=False, **effort, **train_kwargs)
    return np.asarray(model.log_ratio(**CONTRAST)).reshape(2, -1), model


def pointwise(found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Errors of the log ratios of joint and exchanged pairs, shapes (2, n_samples), where the truth is finite."""
    is_inside = np.isfinite(exact)
    with np.errstate(invalid="ignore"):
        square = np.where(is_inside, (found - exact) ** 2, np.nan)
    covariance = np.cov(found[is_inside], exact[is_inside])
    return {
        "rmse": np.sqrt(np.nanmean(square[0])),
        "rmse_exchanged": np.sqrt(np.nanmean(square[1])),
        "slope": covariance[0, 1] / covariance[1, 1],
        "correlation": covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]),
        "n_outside": int((~is_inside).sum()),
    }


NOT_POINTWISE = dict.fromkeys(("rmse", "rmse_exchanged", "slope", "correlation", "n_outside"), np.nan)


def folder() -> Path:
    """Folder of questions and answers."""
    return CACHE / "outside_information"


def question(task: str, seed: int, n_samples: int) -> Path:
    """Question for the samples of a task."""
    partner, _ = exchanged(np.random.default_rng(seed), n_samples)
    arrays = {"task": np.array(task), "seed": np.array(seed), "partner": partner}
    return put(arrays, folder() / "questions" / f"{task}_{n_samples}_{seed}.npz")


def draw_all(tasks: Sequence[str], seed: int, n_samples: int) -> dict[str, Drawn]:
    """Samples of every task, drawn by the suite unless they were drawn before.

    Raises
    ------
    RuntimeError
        If the suite fails to draw a task.
    """
    asked = {task: question(task, seed, n_samples) for task in tasks}
    ask("bmi", ["draw"], [file for file in asked.values() if answered(folder(), "draw", file) is None], folder())
    found = {task: answered(folder(), "draw", file) for task, file in asked.items()}
    for task, drawn in found.items():
        if drawn is not None and "error" in drawn:
            raise RuntimeError(f"the suite could not draw {task}: {drawn['error']}")
    return {task: drawn for task, drawn in found.items() if drawn is not None}


def made_up(seed: int, n_samples: int) -> Drawn:
    """Samples of a bivariate normal distribution, for the quick form, which needs no suite."""
    rng = np.random.default_rng(seed + 1_000)
    x = rng.normal(size=(n_samples, 1))
    y = RHO * x + np.sqrt(1.0 - RHO**2) * rng.normal(size=x.shape)
    information = -0.5 * np.log(1.0 - RHO**2)

    def exact(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        joint = (u**2 - 2.0 * RHO * u * v + v**2) / (1.0 - RHO**2)
        return (information + 0.5 * (u**2 + v**2 - joint))[:, 0]

    partner, _ = exchanged(np.random.default_rng(seed), n_samples)
    truth = {"information": np.float64(information), "standard_error": np.float64(0.0)}
    return {"x": x, "y": y, **truth, "joint": exact(x, y), "exchanged": exact(x, y[partner])}


def by_scratio(name: str, drawn: Drawn, seed: int, quick: bool) -> dict[str, Any]:
    """Estimate and errors of scratio, and its seconds."""
    clock = Clock()
    found, _ = log_ratios(drawn["x"], drawn["y"], seed, EFFORTS[name], QUICK if quick else {})
    spent = clock.read()
    errors = pointwise(found, np.stack([drawn["joint"], drawn["exchanged"]]))
    return {"estimate": found[0].mean(), **errors, "failure": "", **spent}


def by_peers(name: str, tasks: Sequence[str], seed: int, n_samples: int) -> dict[str, dict[str, Any]]:
    """Estimates of a method of the suite, with their seconds, of those tasks that it was run on."""
    files = {task: folder() / "draw" / question(task, seed, n_samples).name for task in tasks}
    ask("bmi", [name], [file for file in files.values() if answered(folder(), name, file) is None], folder())
    answers = {task: answered(folder(), name, file) for task, file in files.items()}
    return {
        task: {
            "estimate": float(found.get("estimate", np.nan)),
            **NOT_POINTWISE,
            "failure": str(found.get("error", "")),
            "seconds": float(found["seconds"]),
            "cpu_seconds": float(found["cpu_seconds"]),
        }
        for task, found in answers.items()
        if found is not None
    }


def add(rows: Rows, task: str, name: str, seed: int, drawn: Drawn, found: dict[str, Any]) -> None:
    """Write what a method found."""
    information = float(drawn["information"])
    rows.add(
        task=task,
        family=FAMILY[task],
        dim_x=drawn["x"].shape[1],
        dim_y=drawn["y"].shape[1],
        n_samples=len(drawn["x"]),
        method=name,
        seed=seed,
        information=information,
        standard_error=float(drawn["standard_error"]),
        of_sample=drawn["joint"].mean(),
        estimate=found["estimate"],
        error=found["estimate"] - information,
        **{key: value for key, value in found.items() if key != "estimate"},
    )


def measure(rows: Rows, options: argparse.Namespace, seed: int, done: set[tuple[Any, ...]]) -> None:
    """Measure every method on every task that has no row yet: all tasks by the first method, then by the next."""
    n_samples = N_QUICK if options.quick else N_SAMPLES
    left = {
        name: [task for task in options.tasks if (task, name, seed, n_samples) not in done] for name in options.methods
    }
    wanted = [task for task in options.tasks if any(task in tasks for tasks in left.values())]
    if options.quick:
        drawn = {task: made_up(seed, n_samples) for task in wanted}
    else:
        drawn = draw_all(wanted, seed, n_samples)
    for name, tasks in left.items():
        known = [task for task in tasks if task in drawn]
        if name in EFFORTS:
            for task in known:
                add(rows, task, name, seed, drawn[task], by_scratio(name, drawn[task], seed, options.quick))
        elif not options.quick:
            for task, found in by_peers(name, known, seed, n_samples).items():
                add(rows, task, name, seed, drawn[task], found)


def main() -> None:
    """Measure and write."""
    options = parsed(
        __doc__,
        RESULTS,
        {"tasks": FIRST[:1], "methods": list(EFFORTS)},
        set=f"tasks of a set: {', '.join(SETS)}",
        tasks=tuple(FAMILY),
        methods=METHODS,
        seeds=(0,),
    )
    if options.set is not None:
        options.tasks = SETS[options.set]
    rows = Rows(options.results, FILE, KEYS)
    done = set() if options.again else rows.known()
    for seed in options.seeds:
        measure(rows, options, seed, done)
    if options.results is not None and (options.results / FILE).exists():
        versions = {task: "second" if task in SETS["second"] else "first" for task in FAMILY}
        _information.write(options.results / FILE, versions, list(METHODS), N_SAMPLES)


if __name__ == "__main__":
    main()
