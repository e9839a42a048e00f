"""Two Gaussians whose ratio is known: error and time of scratio and its peers (figures 2 and 7 of arXiv 2602.24201).

    python benchmarks/gaussians.py             # all settings, hours; writes benchmarks/results/gaussians.csv and .png
    python benchmarks/gaussians.py --quick     # a minute; the figures mean nothing
    python benchmarks/gaussians.py --methods scratio qda --dimensions 2 30

N(0, I) and N(distance 1, I), 30,000 cells, scored on 10,000 fresh ones. Rows are written as they are measured, and
replace earlier ones of the same method and setting. Each method has one configuration for all
settings; the paper's are its best of three schedules, picked for each setting with the truth in view.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _methods import fit_and_score, line_styles, merged, settings_of, write_wide

RESULTS = Path(__file__).parent / "results"
DIMENSIONS, DISTANCES = (2, 5, 10, 20, 30), (1, 2, 4)
METHODS = ("scratio", "qda", "logistic", "mlp", "boosting", "naive", "tsm-sb", "ctsm-sb", "ctsm-v-sb", "ctsm-v")
PAPER = {
    ("paper, scRatio", 1): (0.012, 0.040, 0.112, 0.326, 0.686),
    ("paper, scRatio", 2): (0.076, 0.170, 1.09, 7.58, 35.5),
    ("paper, scRatio", 4): (1.19, 6.89, 129.0, 1584.0, 7287.0),
    ("paper, naive", 1): (0.020, 0.064, 0.204, 0.708, 1.85),
    ("paper, naive", 2): (0.166, 1.17, 4.45, 20.4, 55.5),
    ("paper, naive", 4): (5.84, 47.6, 199.0, 358.0, 3539.0),
    ("paper, best of TSM and CTSM", 4): (0.66, 10.3, 19.8, 154.0, 297.0),
}
"""Mean square errors by method and distance, for all dimensions (decoded from the paper's figure)."""


def draw(rng: np.random.Generator, n: int, d: int, distance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells, whether they are of the numerator, true log ratios."""
    is_treated = rng.uniform(size=n) < 0.5
    x = rng.normal(size=(n, d)) + distance * is_treated[:, None]
    return x, is_treated, distance * x.sum(1) - 0.5 * d * distance**2


def plot(table: pd.DataFrame) -> None:
    """Error by dimension for every distance, and time."""
    figure, axes = plt.subplots(1, 4, figsize=(18, 4), layout="constrained")
    styles = line_styles(list(table["method"].unique()))
    for distance, ax in zip(DISTANCES, axes, strict=False):
        for name, own in table[table["distance"] == distance].groupby("method", sort=False):
            line = own.groupby("d")["mse"].mean()
            ax.plot(line.index, line, label=name, **styles[name])
        ax.set(yscale="log", xlabel="dimension", ylabel="mean square error (nats²)", title=f"distance {distance}")
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    timed = table[table["score_seconds"] > 0.0]
    times = timed.groupby("method", sort=False)[["fit_seconds", "score_seconds"]].mean()
    axes[3].scatter(times["fit_seconds"], times["score_seconds"])
    for name, row in times.iterrows():
        axes[3].annotate(name, row, xytext=(4, 2), textcoords="offset points", fontsize="small")
    axes[3].set(xscale="log", yscale="log", xlabel="seconds to fit", ylabel="seconds for 10,000 cells")
    figure.savefig(RESULTS / "gaussians.png", dpi=150)
    plt.close(figure)


def paper_rows() -> list[dict]:
    """The paper's figures as rows."""
    return [
        {"method": method, "d": d, "distance": distance, "mse": mse}
        for (method, distance), values in PAPER.items()
        for d, mse in zip(DIMENSIONS, values, strict=True)
    ]


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--dimensions", nargs="+", type=int, default=DIMENSIONS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, quick = [], options.quick
    for d in options.dimensions[:1] if quick else options.dimensions:
        for distance in DISTANCES[:1] if quick else DISTANCES:
            x, is_treated, _ = draw(np.random.default_rng(options.seed), 500 if quick else 30_000, d, distance)
            fresh, _, truth = draw(np.random.default_rng(options.seed + 1_000), 100 if quick else 10_000, d, distance)
            for name in options.methods:
                found, seconds = fit_and_score(name, x, is_treated, fresh, options.seed, settings_of(name, quick))
                error = found - truth
                row = {"method": name, "d": d, "distance": distance, "mse": np.mean(error**2), "bias": error.mean()}
                rows.append({**row, **seconds, "variance": truth.var()})
                print(pd.DataFrame([rows[-1]]).round(4).to_string(index=False, header=len(rows) == 1), flush=True)
                if not quick:
                    table = merged(RESULTS / "gaussians.csv", paper_rows() + rows, ["method", "d", "distance"])
                    write_wide(table, RESULTS / "gaussians_mse.csv", ["distance", "d"], "mse")
                    plot(table)


if __name__ == "__main__":
    main()
