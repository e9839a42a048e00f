"""What every mechanism of the training brings: each is switched off, one at a time, on the same cells and seeds.

    SCRATIO_DATA=folder SCRATIO_BENCH=folder python benchmarks/ablation.py   # hours; writes benchmarks/results
    python benchmarks/ablation.py --quick                                    # seconds; the figures mean nothing
    python benchmarks/ablation.py --variants default "one member" --tasks weak --seeds 0 1

SCRATIO_BENCH is the folder of the tasks with a known answer that scratio is judged by. Cells (10,000 of a task at most)
are scored out of fold, with two folds instead of five to spare time. Mechanisms of the calibration and of the standard
errors are switched off without another training. Columns: mean square error against the truth, cross-entropy of the
labels, coverage of 90% intervals, seconds of the processor; and the excess of error and loss over the default with its
standard error over cells, positive where the mechanism helps. Nothing here chooses a default: a mechanism that brings
less than its standard error on all tasks is taken out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import _judged
import anndata as ad
import numpy as np
import pandas as pd
from _labels import losses
from _methods import cells
from _rows import FOLDER, Rows, has_data, parsed
from _simulate import mixtures
from scipy.special import expit, logit
from scipy.stats import norm

import scratio
from scratio._coordinates import Coordinates
from scratio.model import _calibration, _embedding_model, _scoring, _training
from scratio.model._closed_forms import ABUNDANCES, CLASS, MIXTURE, SHARED, ClosedForms
from scratio.module import _posterior
from scratio.scoring import _scorer
from scratio.stats import label_slopes, robust_coordinates
from scratio.train import _callbacks, _config, fit

RESULTS = Path(__file__).parent / "results"
KANG, SACHS = "kang2018_pbmc_ifnb_pca.h5ad", "sachs2005_flow.h5ad"
GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control", "use_rep": "X_pca"}
N_FOLDS, MOST_CELLS, N_QUICK = 2, 10_000, 400

Task = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Cells, whether they are treated, and the true log ratio where it is known."""


# --- tasks ---------------------------------------------------------------------------------------------------------


def _known(name: str, seed: int) -> Task:
    """A task that scratio is judged by."""
    task = _judged.tasks().make(name, seed)
    return task.X.astype(float), task.label == 1, task.true


def _weak(seed: int) -> Task:
    """Real cells with labels of weak, smooth log odds."""
    rng = np.random.default_rng(500 + seed)
    x = np.asarray(ad.read_h5ad(FOLDER / KANG).obsm["X_pca"])[:, :20].astype(float)
    log_odds = np.cos(x[:, :6] / x[:, :6].std(0) @ rng.normal(size=(6, 4)) / 2 + rng.uniform(0, 6, 4)).sum(1)
    log_odds = 0.3 * (log_odds - log_odds.mean()) / log_odds.std()
    return x, rng.uniform(size=len(x)) < expit(log_odds), log_odds - logit(expit(log_odds).mean())


def _real(file: str, rep: str, n_dims: int | None, treated: str, control: str) -> Task:
    adata = ad.read_h5ad(FOLDER / file)
    adata = adata[adata.obs["condition"].isin([treated, control])]
    return np.asarray(adata.obsm[rep])[:, :n_dims].astype(float), (adata.obs["condition"] == treated).to_numpy(), None


JUDGED = ["semi-smooth-kang", "semi-cluster-kang", "semi-null-kang", "semi-smooth-melanoma", "gmm-20", "mi-80"]
TASKS: dict[str, Callable[[int], Task]] = {
    **{name: partial(_known, name) for name in JUDGED},
    "weak": _weak,
    "Kang, real labels": lambda seed: _real(KANG, "X_pca", 20, "stim", "ctrl"),
    "Sachs, real labels": lambda seed: _real(SACHS, "X_scaled", None, "cd3cd28+aktinhib", "cd3cd28"),
    "mixtures": lambda seed: mixtures(np.random.default_rng(seed), MOST_CELLS),
}
"""The last takes part in quick runs alone, which need no files."""


def _is_there(name: str) -> bool:
    if name in JUDGED:
        return _judged.has_tasks(name)
    files = {"weak": KANG, "Kang, real labels": KANG, "Sachs, real labels": SACHS}
    return name not in files or has_data(files[name], name)


# --- variants ------------------------------------------------------------------------------------------------------


def _linear(x: object, rng: np.random.Generator) -> Coordinates:
    found = robust_coordinates(np.asarray(x), rng)
    return Coordinates.linear(found.location, found.scale)


def _without(*left_out: str) -> property:
    """Names of the closed forms, without some."""
    original = ClosedForms.names.fget
    return property(lambda self: [name for name in original(self) if name not in left_out])


def _ones(fold: _calibration.HeldOut, names: list[str]) -> dict[str, np.ndarray]:
    """The network as it is, without weights."""
    return {name: np.full(len(fold.parts[name]), float(name == _calibration.NETWORK)) for name in names}


def _likelihood(base: np.ndarray, parts: np.ndarray, codes: np.ndarray, groups: object = None) -> np.ndarray:
    """Maximum-likelihood weights, cut off at 0, in place of posterior means."""
    return np.maximum(label_slopes(base, parts, codes).slope, 0.0)


def _steps(factor: float) -> dict[str, object]:
    low, high = _config.POTENTIAL_STEPS
    return {
        "POTENTIAL_EPOCHS": factor * _config.POTENTIAL_EPOCHS,
        "POTENTIAL_STEPS": (int(factor * low), int(factor * high)),
    }


Patches = dict[object, dict[str, object]]
TRAINED: dict[str, tuple[dict, dict, Patches]] = {
    "default": ({}, {}, {}),
    "one member": ({"n_members": 1}, {}, {}),
    "three members": ({"n_members": 3}, {}, {}),
    "half the width": ({"n_hidden": 64}, {}, {}),
    "half the steps": ({}, {}, {_config: _steps(0.5)}),
    "twice the steps": ({}, {}, {_config: _steps(2.0)}),
    "no weight decay": ({}, {"weight_decay": 0.0}, {}),
    "constant rate": ({}, {"cosine_decay": False, "learning_rate": 2e-3}, {}),
    "no moving average": ({}, {"ema_decay": 0.0}, {}),
    "last step": ({}, {}, {_callbacks: {"paired_difference": lambda losses, reference: (-1.0, 0.0)}}),
    "levels uniform": ({}, {}, {_posterior: {"TOWARDS_DATA": 1.0}}),
    "no bent tails": ({}, {}, {_embedding_model: {"robust_coordinates": _linear}}),
}
"""What needs a training of its own: settings of the model, of the training, and what is replaced."""
SIZES = ("three members", "half the width", "half the steps", "twice the steps")
"""Settings rather than mechanisms, which are measured where they are asked for by name."""
CALIBRATED: dict[str, Patches] = {
    "no closed form": {ClosedForms: {"names": _without(SHARED, CLASS, MIXTURE)}},
    "no class Gaussians": {ClosedForms: {"names": _without(CLASS)}},
    "no mixture": {ClosedForms: {"names": _without(MIXTURE)}},
    "no abundances": {ClosedForms: {"names": _without(ABUNDANCES)}},
    "network alone": {
        ClosedForms: {"names": _without(SHARED, CLASS, MIXTURE, ABUNDANCES)},
        _calibration: {"_regression": _ones},
    },
    "likelihood weights": {_calibration: {"posterior_weights": _likelihood}},
    "closed form never alone": {_calibration: {"_probability": lambda *parts: 0.0}},
    "no moderation": {_scorer: {"moderated_error": lambda x, error, *others: error}},
    "bias not counted": {_scoring: {"_disagreement": lambda module, scorer, x, *others: np.zeros(len(x))}},
    "closed forms alone (quick)": {},
}
"""What is replaced after the training of the default."""


@contextlib.contextmanager
def _replaced(patches: Patches) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for target, values in patches.items():
            for name, value in values.items():
                stack.enter_context(mock.patch.object(target, name, value))
        yield


class Training:
    """The training of the default, which variants of the calibration take up where it ended."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.result: Any = None

    def first(self, network: Any, *arguments: Any, **settings: Any) -> Any:
        """Train, and remember the weights before the calibration."""
        self.result = fit(network, *arguments, **settings)
        self.state = deepcopy(network.state_dict())
        return self.result

    def again(self, network: Any, *arguments: Any, **settings: Any) -> Any:
        """Take the weights up."""
        network.load_state_dict(self.state)
        network.eval()
        return self.result


def score(task: Task, variant: str, seed: int, training: Training, *, quick: bool) -> dict[str, np.ndarray]:
    """Log ratio, its standard error and the loss of every cell."""
    x, is_treated, _ = task
    model_kwargs, train_kwargs, patches = TRAINED.get(variant, ({}, {}, CALIBRATED.get(variant, {})))
    adata = cells(x, is_treated)
    settings = {"progress_bar": False, **train_kwargs, **({"max_steps": 20} if quick else {})}
    trained = {"default": training.first}.get(variant, fit if variant in TRAINED else training.again)
    start = time.process_time()
    with _replaced({**patches, _training: {"fit": trained}}):
        scratio.tl.differential_abundance(
            adata,
            **GROUPS,
            n_folds=N_FOLDS,
            random_state=seed,
            effort="quick" if "quick" in variant else "default",
            model_kwargs=model_kwargs,
            train_kwargs=settings,
        )
    logits = adata.obs["da_log_ratio"].to_numpy() + logit(is_treated.mean())
    return {
        "log_ratio": adata.obs["da_log_ratio"].to_numpy(),
        "std": adata.obs["da_std"].to_numpy(),
        "loss": losses(logits, is_treated),
        "cpu_seconds": np.array(time.process_time() - start),
    }


def measure(rows: Rows, name: str, variants: list[str], seed: int, *, quick: bool) -> None:
    """All variants on the cells of one task and seed."""
    task, training = TASKS[name](seed), Training()
    kept = np.random.default_rng(seed).permutation(len(task[0]))[: N_QUICK if quick else MOST_CELLS]
    task = task[0][kept], task[1][kept], None if task[2] is None else task[2][kept]
    truth, default = task[2], score(task, "default", seed, training, quick=quick)
    for variant in variants:
        found = default if variant == "default" else score(task, variant, seed, training, quick=quick)
        row = {"loss": found["loss"].mean(), **_against(found["loss"], default["loss"], "loss")}
        if truth is not None:
            error = (found["log_ratio"] - truth) ** 2
            row |= {"mse": error.mean(), **_against(error, (default["log_ratio"] - truth) ** 2, "mse")}
            row["coverage"] = (np.sqrt(error) <= norm.ppf(0.95) * found["std"]).mean()
        rows.add(task=name, variant=variant, seed=seed, **row, cpu_seconds=float(found["cpu_seconds"]))


def _against(values: np.ndarray, default: np.ndarray, name: str) -> dict[str, float]:
    """Mean excess over the default, and its standard error over cells."""
    excess = values - default
    return {f"{name}_excess": excess.mean(), f"{name}_excess_error": excess.std() / np.sqrt(len(excess))}


def summarise(folder: Path) -> None:
    """Write a row for each variant: excess of every task over the default, a mean over seeds, and seconds."""
    table = pd.read_csv(folder / "ablation.csv")
    kept = table["mse_excess"].fillna(table["loss_excess"])
    wide = table.assign(excess=kept).pivot_table(index="variant", columns="task", values="excess", sort=False)
    table["share"] = table["cpu_seconds"] / table.groupby(["task", "seed"])["cpu_seconds"].transform("first")
    wide["seconds"] = table.groupby("variant")["share"].mean()
    wide.round(4).to_csv(folder / "ablation_summary.csv")
    print(wide.round(4).to_string())


def main() -> None:
    """Measure and write."""
    names = [*TRAINED, *CALIBRATED]
    quick = {"tasks": ["mixtures"], "variants": ["default", "no bent tails", "no mixture"], "seeds": [0]}
    arguments = parsed(__doc__, RESULTS, quick, tasks=list(TASKS), variants=names, seeds=[0, 1, 2])
    if arguments.variants == names:
        arguments.variants = [name for name in names if name not in SIZES]
    rows = Rows(arguments.results, "ablation.csv", keys=["task", "variant", "seed"])
    for seed in arguments.seeds:
        for name in arguments.tasks:
            if _is_there(name):
                measure(rows, name, arguments.variants, seed, quick=arguments.quick)
    if arguments.results is not None:
        summarise(arguments.results)


if __name__ == "__main__":
    main()
