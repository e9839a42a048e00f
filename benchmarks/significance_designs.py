"""Numbers of samples and repeated samples of donors: error rates of the test, and the slope that it finds.

    python benchmarks/significance_designs.py            # writes benchmarks/results/significance_designs.csv
    python benchmarks/significance_designs.py --quick    # a few cohorts; the figures mean nothing

One Gaussian in five dimensions, whose donors are moved by .4 standard deviations in each. An age that says nothing, of
16 samples of equal and of log-normal sizes; ten donors with one to four samples each, compared as donors and, wrongly,
as independent samples, by condition and by age. Then ten types, the log share of the first of which rises by .03 with
each year: the slope at the type itself, over that which was put in, and how often its interval of 95% holds the truth.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _cohorts import N_CELLS, N_DIMS, N_TYPES
from significance import FDR, LEVEL, N_ROTATIONS

from scratio.stats import SampleDesign, SampleTest, compare_samples, neighborhoods
from scratio.tl._sample_design import Samples, SampleSettings, samples_of, samples_with_numbers
from scratio.tl._samples import compare

RESULTS = Path(__file__).parent / "results"
DONOR_EFFECT, SLOPE, N_COHORTS = 0.4, 0.03, 120


def repeated(seed: int, n_donors: int, most: int, is_lognormal: bool) -> tuple[np.ndarray, pd.DataFrame]:
    """Cells of donors with one or several samples; a donor has an age, and the first half of them are treated."""
    rng, parts, x = np.random.default_rng(seed), [], []
    for donor in range(n_donors):
        age, own = rng.uniform(20.0, 80.0), DONOR_EFFECT * rng.normal(size=N_DIMS)
        for sample in range(int(rng.integers(1, most + 1))):
            n = int(np.exp(rng.normal(np.log(N_CELLS), 0.8))) + 10 if is_lognormal else N_CELLS
            group = "treated" if donor < n_donors // 2 else "control"
            labels = {"sample": f"d{donor:02d} {sample}", "donor": f"d{donor:02d}", "group": group, "age": age}
            parts.append(pd.DataFrame(labels, index=range(n)))
            x.append(rng.normal(size=(n, N_DIMS)) + own + 0.1 * rng.normal(size=N_DIMS))
    return np.concatenate(x), pd.concat(parts, ignore_index=True)


def judged(x: np.ndarray, obs: pd.DataFrame, samples: Samples, seed: int, is_number: bool) -> dict[str, float]:
    """Error rates on one cohort without an effect."""
    place = neighborhoods(x, seed)
    test = compare(x, place, obs, samples, None if is_number else obs["group"], seed, n_rotations=N_ROTATIONS).test
    return {
        "error": float(np.average(test.pvalue <= LEVEL, weights=np.bincount(place))),
        "any_discovery": float((test.qvalue < FDR).any()),
        "global": float(test.global_pvalue < FDR),
    }


def slope_of(seed: int, is_lognormal: bool) -> dict[str, float]:
    """Slope of the first type, counted itself, over the truth; whether its interval holds the truth."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20.0, 80.0, size=16)
    sizes = np.exp(rng.normal(np.log(N_CELLS), 0.8, size=16)).astype(int) + 10 if is_lognormal else np.full(16, N_CELLS)
    log_share = 0.2 * rng.normal(size=(16, N_TYPES))
    log_share[:, 0] += SLOPE * (age - 50.0)
    share = np.exp(log_share) / np.exp(log_share).sum(1, keepdims=True)
    counts = np.stack([rng.multinomial(n, own) for n, own in zip(sizes, share, strict=True)]).astype(float)
    # The log of a share rises by the slope less what the type takes of the whole.
    truth = np.polyfit(age, SLOPE * age - np.log1p((np.exp(SLOPE * (age - 50.0)) - 1.0) / N_TYPES), 1)[0]
    design = SampleDesign(age - age.mean(), np.empty((16, 0)), sizes.astype(float))
    found: SampleTest = compare_samples(counts[None], design, rng, n_rotations=100)
    effect, error = found.effect[0], found.standard_error[0]
    return {"slope": float(effect / truth), "coverage": float(abs(effect - truth) < 2.13 * error)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n_cohorts, rows = 2 if quick else N_COHORTS, []

    def record(name: str, found: list[dict[str, float]]) -> None:
        rows.append({"design": name, "n_cohorts": n_cohorts, **pd.DataFrame(found).mean().to_dict()})
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False), flush=True)

    donors, alone = SampleSettings("sample", donor_key="donor"), SampleSettings("sample")
    for is_lognormal in (False, True):
        sizes, found = "log-normal sizes" if is_lognormal else "equal sizes", []
        for seed in range(n_cohorts):
            x, obs = repeated(seed, 16, 1, is_lognormal)
            found.append(judged(x, obs, samples_with_numbers(obs, "age", alone), seed, is_number=True))
        record(f"age of 16 samples, {sizes}", found)
        record(f"slope of age, {sizes}", [slope_of(seed, is_lognormal) for seed in range(n_cohorts)])
    for name, settings in (("donor_key", donors), ("samples taken for independent", alone)):
        by_group, by_age = [], []
        for seed in range(n_cohorts):
            x, obs = repeated(seed, 10, 4, is_lognormal=True)
            samples = samples_of(obs, "sample", "group", "treated", "control", [], settings=settings)
            by_group.append(judged(x, obs, samples, seed, is_number=False))
            by_age.append(judged(x, obs, samples_with_numbers(obs, "age", settings), seed, is_number=True))
        record(f"condition, 5 v 5 donors with 1 to 4 samples: {name}", by_group)
        record(f"age, 10 donors with 1 to 4 samples: {name}", by_age)
    if not quick:
        pd.DataFrame(rows).to_csv(RESULTS / "significance_designs.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    # Samples that are left out are part of the designs.
    warnings.simplefilter("ignore", UserWarning)
    main()
