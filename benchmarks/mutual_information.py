"""Mutual information of correlated Gaussians as a mean log ratio (table 1 of arXiv 2602.24201).

    python benchmarks/mutual_information.py             # d = 20 ... 320; writes results/mutual_information.csv, .png
    python benchmarks/mutual_information.py --quick     # a minute; the figures mean nothing
    python benchmarks/mutual_information.py --methods scratio qda --dimensions 20 40 --seeds 0 1 2 3 4

Pairs of dimensions correlated by .8 over independent ones, 30,000 cells; the mean over 10,000 fresh cells of the
numerator estimates the mutual information, -d/4 log(1 - .8^2). That mean has a standard error of its own, .025 to .10;
``bias``, the mean of the errors on the same cells, does not. The tables to read show means over seeds with their
standard errors. Rows are written as they are measured, and replace earlier ones of the same method, d and seed. Each
method has one configuration for all d. The paper's figures of scRatio are those of its newer version; TSM and CTSM are
those of its first version, which had the best schedule of each d.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _methods import fit_and_score, line_styles, merged, settings_of, write_wide

RESULTS = Path(__file__).parent / "results"
DIMENSIONS, RHO = (20, 40, 80, 160, 320), 0.8
METHODS = ("scratio", "qda", "mlp", "tsm-sb", "ctsm-sb", "ctsm-v-sb", "naive")
PAPER = {
    "paper, scRatio": (0.020, 0.030, 0.024, 0.105, 1.10),
    "paper, TSM-SB": (0.04, 0.43, 1.29, 5.42, 28.9),
    "paper, CTSM-SB": (0.25, 0.43, 0.66, 0.74, 3.39),
}
"""Mean absolute errors of the mean log ratio. Those of scRatio are of the newer version of the paper (in the first
one: .16, .28, .42, .88, .46), the others of the first version, where TSM and CTSM had parametric Gaussian
networks."""


def draw(rng: np.random.Generator, n: int, d: int, is_treated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the numerator where ``is_treated``, else of the denominator; true log ratios."""
    x = rng.normal(size=(n, d))
    first, second = x[:, 0::2], x[:, 1::2]
    x[:, 1::2] = np.where(is_treated[:, None], RHO * first + math.sqrt(1.0 - RHO**2) * second, second)
    second = x[:, 1::2]
    joint = (first**2 - 2.0 * RHO * first * second + second**2) / (1.0 - RHO**2)
    truth = 0.5 * (first**2 + second**2 - joint) - 0.5 * math.log(1.0 - RHO**2)
    return x, truth.sum(1)


def paper_rows() -> list[dict]:
    """The paper's figures as rows."""
    return [
        {"method": name, "d": d, "error": error}
        for name, errors in PAPER.items()
        for d, error in zip(DIMENSIONS, errors, strict=True)
    ]


def plot(table: pd.DataFrame) -> None:
    """Error of the estimate and of single cells by dimension."""
    figure, axes = plt.subplots(1, 2, figsize=(14, 4), layout="constrained")
    styles = line_styles(list(table["method"].unique()))
    for name, own in table.groupby("method", sort=False):
        for ax, column in zip(axes, ("error", "rmse"), strict=True):
            if own[column].notna().any():
                line = own.groupby("d")[column].mean()
                ax.plot(line.index, line, label=name, **styles[name])
    axes[0].set(ylabel="error of the mutual information (nats)")
    axes[1].set(ylabel="root mean square error of a cell (nats)")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="dimension")
        ax.set_xticks(DIMENSIONS, DIMENSIONS)
        ax.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(RESULTS / "mutual_information.png", dpi=150)
    plt.close(figure)


def write(rows: list[dict]) -> None:
    """Add rows to the file, write the tables to read, and draw."""
    table = merged(RESULTS / "mutual_information.csv", paper_rows() + rows, ["method", "d", "seed"])
    for measure in ("error", "bias"):
        write_wide(table, RESULTS / f"mutual_information_{measure}.csv", ["d"], measure, with_errors=True)
    plot(table)


def measure(methods: Sequence[str], d: int, seed: int, quick: bool) -> Iterator[dict]:
    """Row of every method on the same cells."""
    rng, n, n_fresh = np.random.default_rng(seed), 500 if quick else 30_000, 100 if quick else 10_000
    is_treated = rng.uniform(size=n) < 0.5
    x, _ = draw(rng, n, d, is_treated)
    fresh, truth = draw(np.random.default_rng(seed + 1_000), n_fresh, d, np.ones(n_fresh, dtype=bool))
    information = -0.25 * d * math.log(1.0 - RHO**2)
    for name in methods:
        found, seconds = fit_and_score(name, x, is_treated, fresh, seed, settings_of(name, quick))
        row = {"method": name, "d": d, "seed": seed, "information": information, "estimate": found.mean()}
        row |= {"error": abs(found.mean() - information), "bias": (found - truth).mean()}
        yield {**row, "rmse": np.sqrt(np.mean((found - truth) ** 2)), **seconds}


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--dimensions", nargs="+", type=int, default=DIMENSIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,))
    options = parser.parse_args()
    rows, quick = [], options.quick
    for d in (2,) if quick else options.dimensions:
        for seed in options.seeds:
            for row in measure(options.methods, d, seed, quick):
                rows.append(row)
                print(pd.DataFrame([row]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
                if not quick:
                    write(rows)


if __name__ == "__main__":
    main()
