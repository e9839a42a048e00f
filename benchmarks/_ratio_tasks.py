"""Tasks of outside_ratios.py: cells of two samples whose log ratio is known."""

from __future__ import annotations

from dataclasses import dataclass

import _judged
import numpy as np
from scipy.stats import beta, norm

from scratio.model._splits import Splits

N_FOLDS = 5
SHIFTS = ("gauss_shift", "beta_shift", "gauss_shift_kl", "cifar_c", "domainbed")
CLOSED = ["gauss-1-10", "gauss-2-10", "gauss-4-10", "gauss-2-30", "gmm-20", "gmmfar-20", "warp-20", "mi-40", "mi-80"]
REAL = [f"semi-{kind}-kang" for kind in ("smooth", "cluster", "null", "imbalanced")] + ["semi-smooth-melanoma"]
SETS = {
    "closed": CLOSED,
    "real": REAL,
    # README of OpenDRE: `--data gauss_shift --shift_steps 5 --d 80`; without `--d` the data have 2 dimensions.
    "shift": [
        *(f"gauss_shift-80-{step}" for step in range(1, 5)),
        *(f"beta_shift-2-{step}" for step in range(1, 5)),
    ],
    "shift-more": [
        *(f"beta_shift-20-{step}" for step in (1, 4)),
        *(f"{kind}-80-{step}" for kind in ("gauss_shift_kl", "cifar_c", "domainbed") for step in (1, 4)),
        "gauss_shift-80-0",
    ],
}
TASKS = tuple(name for tasks in SETS.values() for name in tasks)


@dataclass(frozen=True)
class Drawn:
    """Cells of a task.

    Parameters
    ----------
    cells
        What a method gets: ``x``, ``is_treated``, ``seed``, and ``fresh`` or ``fold``.
    is_numerator
        Which of the scored cells are of the numerator.
    truth
        True log ratio of the scored cells.
    divergence
        Kullback-Leibler divergence of the numerator from the denominator; None where it has no closed form.
    """

    cells: dict[str, np.ndarray]
    is_numerator: np.ndarray
    truth: np.ndarray
    divergence: float | None = None


class Shift:
    """A shift of OpenDRE (``DistributionShiftDatasetGenerator``), whose dimensions are independent.

    Parameters
    ----------
    kind
        One of `SHIFTS`.
    n_dims
        Number of dimensions.
    step
        How far the shift has gone, from 0, no shift.
    """

    def __init__(self, kind: str, n_dims: int, step: int) -> None:
        self.n_dims, each = n_dims, np.ones(n_dims)
        self.denominator = beta(each, each) if kind == "beta_shift" else norm(0.0 * each, each)
        last = np.arange(n_dims) == n_dims - 1
        if kind == "beta_shift":
            self.numerator = beta((1.0 + 2.0 * step) * each, (1.0 + 0.1 * step) * each)
        elif kind == "gauss_shift":
            self.numerator = norm(0.2 * step * each, np.sqrt(1.0 - 0.05 * step) * each)
        elif kind == "gauss_shift_kl":
            # OpenDRE draws the direction of the shift at random; no direction differs from another.
            self.numerator = norm(np.sqrt(2.0 * step / n_dims) * each, each)
        elif kind == "cifar_c":
            self.numerator = norm(0.0 * each, np.sqrt(1.0 + 15.0 * step / 50.0) * each)
        else:
            self.numerator = norm(0.0 * each, np.sqrt(1.0 + 10.0 * step / 5.0 * last))

    def draw(self, rng: np.random.Generator, n_cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells, every other of which is of the numerator; whether they are; true log ratios."""
        is_numerator, size = np.arange(n_cells) % 2 == 0, (n_cells, self.n_dims)
        top, bottom = (own.rvs(size=size, random_state=rng) for own in (self.numerator, self.denominator))
        x = np.where(is_numerator[:, None], top, bottom)
        return x, is_numerator, (self.numerator.logpdf(x) - self.denominator.logpdf(x)).sum(1)

    def divergence(self) -> float:
        """Kullback-Leibler divergence of the numerator from the denominator."""
        # Cross-entropy less entropy. A uniform denominator has a log density of 0, a normal one depends on moments.
        is_uniform = self.denominator.dist.name == "beta"
        square = self.numerator.mean() ** 2 + self.numerator.var()
        cross = np.zeros(self.n_dims) if is_uniform else 0.5 * (np.log(2.0 * np.pi) + square)
        return float((cross - self.numerator.entropy()).sum())


def folds(is_treated: np.ndarray, seed: int) -> np.ndarray:
    """Folds that scratio draws for this seed, so that all methods have the same ones."""
    drawn = Splits.drawn(is_treated.astype(int), None, N_FOLDS, 1, 0.1, seed)
    return np.asarray(drawn.folds)


def is_there(task: str) -> bool:
    """Whether the files of a task are there; says so if they are not."""
    if task.split("-")[0] in SHIFTS:
        return True
    if not _judged.has_tasks(task):
        return False
    module = _judged.tasks()
    file = module.DATA / f"{module.REAL[task.split('-')[2]][0]}.h5ad" if task in REAL else module.DATA
    if task in REAL and not file.exists():
        print(f"{task} is left out: {file} not found", flush=True)
        return False
    return True


def draw(task: str, seed: int, n_cells: int, n_fresh: int) -> Drawn:
    """Cells of a task.

    Parameters
    ----------
    task
        Name.
    seed
        Seed of the cells, and that methods get.
    n_cells
        Number of training cells; of real cells that are scored out of fold, the number of all.
    n_fresh
        Number of cells to score where new ones can be drawn.
    """
    kind, *rest = task.split("-")
    own = {"seed": np.array(seed)}
    if kind in SHIFTS:
        shift, rng = Shift(kind, int(rest[0]), int(rest[1])), np.random.default_rng(seed)
        x, is_treated, _ = shift.draw(rng, n_cells)
        fresh, is_numerator, truth = shift.draw(rng, n_fresh)
        cells = {"x": x, "is_treated": is_treated, "fresh": fresh, **own}
        return Drawn(cells, is_numerator, truth, shift.divergence())
    known = _judged.tasks().make(task, seed, n_cells, n_fresh)
    if known.X_test is not None:
        cells = {"x": known.X, "is_treated": known.label == 1, "fresh": known.X_test, **own}
        return Drawn(cells, known.label_test == 1, known.true_test)
    used = np.random.default_rng([seed, 1]).permutation(len(known.X))[:n_cells]
    is_treated = known.label[used] == 1
    cells = {"x": known.X[used], "is_treated": is_treated, "fold": folds(is_treated, seed), **own}
    return Drawn(cells, is_treated, known.true[used])
