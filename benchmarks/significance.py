"""Error rates and power of the test across samples, in the cohorts that people have.

    SCRATIO_DATA=folder python benchmarks/significance.py      # writes benchmarks/results/significance*.csv, .png
    python benchmarks/significance.py --quick                  # a few cohorts; the figures mean nothing

Groups of samples (3 against 3 to 8 against 8, 4 against 12, pairs) with sizes that differ in every way (by group,
between samples, one tiny, one of another kind, stray labels), donors that differ by 0, .2 or .4 standard deviations in
each dimension, with nothing between the groups or a log ratio of 1 in a tenth of the cells; cells are Gaussian, or
control cells of Kang et al. 2018 drawn at random. Beside it are the cohorts that the first version of the test was
shown on (ten types, six donors against six with 300 cells each), and 20 clusters judged by the same model of counts.
Peers have environments of their own: see significance_peers. No network takes part: the test counts cells.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _analysis import FOLDER
from _cohorts import GROUPS, N_TYPES, SIZES, Cohort, Population, cohort, log_shares
from sklearn.cluster import KMeans

from scratio.stats import compare_samples, neighborhoods
from scratio.tl._samples import compare, samples_of

RESULTS, KANG = Path(__file__).parent / "results", "kang2018_pbmc_ifnb_pca.h5ad"
LEVEL, FDR = 0.05, 0.1
DONOR_EFFECTS, FIRST_VERSION = (0.0, 0.2, 0.4), "ten types, first version"
N_COHORTS = {"gaussian": 67, "ten types": 12, "kang": 6, "ten types, first version": 50}
"""Cohorts of a setting; the three donor effects of a design together have 201 Gaussian ones without an effect."""
N_ROTATIONS = 1_000
"""A tenth of the default, to save time: p-values down to .01 are as good."""
TYPE_DIMS, TYPE_DONORS, TYPE_CELLS = 10, 12, 300


@cache
def population(name: str) -> Population | None:
    """Control cells of Kang et al., ten principal components; None for simulated cells."""
    if name != "kang":
        return None
    adata = ad.read_h5ad(FOLDER / KANG)
    adata = adata[adata.obs["condition"] == "ctrl"]
    kind = adata.obs["cell_type"].astype("category").cat.codes.to_numpy()
    return Population(np.asarray(adata.obsm["X_pca"][:, :10]), kind)


def types_cohort(seed: int, effect: float, batch: float, spread: float = 0.3) -> Cohort:
    """Six donors against six with ten types in shares of their own, moved by a batch effect of each donor's own."""
    rng = np.random.default_rng(seed)
    centres, parts, obs = rng.normal(0.0, 2.0, size=(N_TYPES, TYPE_DIMS)), [], []
    of_case, of_control = log_shares(effect)
    for donor in range(TYPE_DONORS):
        is_case = donor < TYPE_DONORS // 2
        log_share = rng.normal(0.0, spread, size=N_TYPES)
        log_share[0] += of_case if is_case else of_control
        kind = rng.choice(N_TYPES, size=TYPE_CELLS, p=np.exp(log_share) / np.exp(log_share).sum())
        moved = centres[kind] + rng.normal(0.0, batch, size=TYPE_DIMS)
        parts.append(moved + rng.normal(size=(TYPE_CELLS, TYPE_DIMS)))
        group = "treated" if is_case else "control"
        obs.append(pd.DataFrame({"sample": f"d{donor:02d}", "donor": f"d{donor:02d}", "group": group, "kind": kind}))
    frame = pd.concat(obs, ignore_index=True)
    return Cohort(np.concatenate(parts), frame, (frame["kind"] == 0).to_numpy() & (effect != 0.0))


Outcome = dict[str, np.ndarray | float]


def by_neighborhoods(found: Cohort, seed: int) -> Outcome:
    """Outcome of scratio's test: p-values and weights of places, cells that are called, p-values of the whole."""
    obs = found.obs
    samples = samples_of(obs, "donor", "group", "treated", "control", [])
    place = neighborhoods(found.x, seed)
    test = compare(found.x, place, obs, samples, obs["group"], seed, n_rotations=N_ROTATIONS).test
    qvalue = test.qvalue if samples.has_enough else np.ones_like(test.qvalue)
    return {
        "pvalue": test.pvalue,
        "weight": np.bincount(place),
        "found": qvalue[place] < FDR,
        "familywise": float(test.familywise_pvalue.min()),
        "global": test.global_pvalue,
    }


def by_clusters(found: Cohort, seed: int, covariate_keys: Sequence[str] = ()) -> Outcome:
    """The same of 20 clusters, judged by the same model of counts, with columns of the samples held fixed."""
    obs = found.obs
    samples = samples_of(obs, "donor", "group", "treated", "control", covariate_keys)
    place = np.unique(KMeans(20, n_init=1, random_state=seed).fit_predict(found.x), return_inverse=True)[1]
    codes = samples.codes(obs, (obs["group"] == "treated").to_numpy())
    counts = np.zeros((1, len(samples.design.sizes), place.max() + 1))
    np.add.at(counts[0], (codes[codes >= 0], place[codes >= 0]), 1.0)
    cells = np.bincount(place)
    rng = np.random.default_rng(seed)
    test = compare_samples(counts, samples.design, rng, donors=samples.donors, weights=cells, n_rotations=N_ROTATIONS)
    qvalue = test.qvalue if samples.has_enough else np.ones_like(test.qvalue)
    family = {"familywise": float(test.familywise_pvalue.min()), "global": test.global_pvalue}
    of_cells = {"found": qvalue[place] < FDR, "log_ratio": test.effect[place]}
    return {"pvalue": test.pvalue, "weight": cells, **of_cells, **family}


METHODS = {"scratio": by_neighborhoods}


def _below(pvalue: float) -> float:
    """1 below the level, else 0; NaN for a method that has no such p-value."""
    return float(pvalue < FDR) if np.isfinite(pvalue) else np.nan


def measures(outcome: Outcome, planted: np.ndarray) -> dict[str, float]:
    """What is measured on one cohort."""
    called, pvalue = np.asarray(outcome["found"]), np.asarray(outcome["pvalue"])
    has_places = len(pvalue) > 0
    error = np.average(pvalue <= LEVEL, weights=outcome["weight"]) if has_places and not planted.any() else np.nan
    return {
        "error": float(error),
        "any_discovery": float(called.any()),
        **{name: _below(float(outcome.get(name, np.nan))) for name in ("familywise", "global")},
        "power": float(called[planted].mean()) if planted.any() else np.nan,
        "false_share": float((called & ~planted).sum() / max(called.sum(), 1)),
    }


def measure(make: Callable[[int], Cohort], n_cohorts: int) -> list[dict[str, Any]]:
    """Mean over the cohorts, of every method."""
    rows: dict[str, list] = {name: [] for name in METHODS}
    for seed in range(n_cohorts):
        found = make(seed)
        planted = found.planted
        for name, method in METHODS.items():
            # Samples that are left out are part of the designs.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                rows[name].append(measures(method(found, seed), planted))
    return [{"method": name, "n_cohorts": n_cohorts, **pd.DataFrame(of).mean().to_dict()} for name, of in rows.items()]


@dataclass(frozen=True)
class Setting:
    """One setting; ``cells`` are "gaussian" (no effect), "ten types" (with one), "kang", or the first version's."""

    cells: str
    groups: str
    sizes: str
    donor_effect: float
    effect: float

    @property
    def n_cohorts(self) -> int:
        """Cohorts that are drawn."""
        return N_COHORTS[self.cells]

    def make(self, seed: int) -> Cohort:
        """Cohort of a seed."""
        if self.cells == FIRST_VERSION:
            return types_cohort(seed, self.effect, self.donor_effect)
        return cohort(seed, self.groups, self.sizes, self.donor_effect, self.effect, population(self.cells))

    def rows(self, n_cohorts: int) -> list[dict]:
        """Mean over the cohorts, of every method."""
        return [asdict(self) | row for row in measure(self.make, n_cohorts)]


def settings() -> list[Setting]:
    """The whole grid, and the cohorts that the first version was shown on."""
    sources = [("gaussian", 0.0), ("ten types", 1.0), ("kang", 0.0), ("kang", 1.0)]
    designs = list(product(GROUPS, SIZES, DONOR_EFFECTS))
    grid = [Setting(cells, *design, effect) for cells, effect in sources for design in designs]
    return [
        *(Setting(FIRST_VERSION, "6v6", "equal", batch, effect) for batch in (0.1, 0.3) for effect in (0.0, 1.0)),
        *grid,
    ]


def rows_of(setting: Setting, quick: bool) -> list[dict]:
    """Rows of one setting."""
    return setting.rows(2 if quick else setting.n_cohorts)


def _measured(wanted: list[Setting], quick: bool, processes: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of the settings, in the order in which they are done."""
    if processes == 1:
        yield from (rows_of(setting, quick) for setting in wanted)
        return
    with ProcessPoolExecutor(processes) as pool:
        for task in as_completed([pool.submit(rows_of, setting, quick) for setting in wanted]):
            yield task.result()


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Rates by cells, effect and sizes: means over groups and donor effects, and the highest of a design."""
    keys = ["cells", "effect", "sizes", "method"]
    measured = ["error", "any_discovery", "familywise", "global", "power", "false_share"]
    # Of a design the three donor effects together: a rate of .1 in 67 cohorts has a standard error of .04.
    designs = table.groupby([*keys, "groups"], sort=False)[measured].mean()
    summary = designs.groupby(keys, sort=False).mean()
    for name in ("any_discovery", "global"):
        summary.insert(summary.columns.get_loc(name) + 1, f"highest_{name}", designs[name].groupby(keys).max())
    return summary.reset_index()


def draw(table: pd.DataFrame) -> plt.Figure:
    """Error rates without an effect (one Gaussian), and power with one (ten types), by groups and sizes."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    own = table[(table["method"] == "scratio") & table["cells"].isin(["gaussian", "ten types"])]
    for axis, (name, effect, bound) in zip(
        axes, (("error", 0.0, LEVEL), ("any_discovery", 0.0, FDR), ("power", 1.0, None)), strict=True
    ):
        part = own[own["effect"] == effect].pivot_table(index="sizes", columns="groups", values=name)
        part = part.reindex(index=list(SIZES), columns=list(GROUPS))
        image = axis.imshow(part, cmap="viridis", vmin=0.0, vmax=1.0 if bound is None else 3.0 * bound, aspect="auto")
        axis.set_xticks(range(part.shape[1]), part.columns, rotation=45)
        axis.set_yticks(range(part.shape[0]), part.index)
        nominal = "" if bound is None else f" (nominal {bound})"
        axis.set_title(f"{name.replace('_', ' ')}{nominal}")
        for (row, column), value in np.ndenumerate(part.to_numpy()):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="white", fontsize=8)
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def main() -> None:
    """Measure, write every setting as it is measured, and go on where a run was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cells", help="some of the settings: gaussian, 'ten types', kang")
    parser.add_argument("--effect", type=float, help="some of the settings: 0 or 1")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not (FOLDER / KANG).exists():
        print(f"without Kang's cells: {FOLDER / KANG} is not there; set SCRATIO_DATA to its folder")
    wanted = [
        setting
        for setting in settings()
        if args.cells in (None, setting.cells)
        and args.effect in (None, setting.effect)
        and (setting.cells != "kang" or (FOLDER / KANG).exists())
    ]
    file = args.results / "significance.csv"
    table = pd.DataFrame()
    if args.quick:
        wanted = [one for one in wanted if one.cells != "kang"][::120]
    elif file.exists():
        table = pd.read_csv(file)
        done = {Setting(*row) for row in table[[field.name for field in fields(Setting)]].itertuples(index=False)}
        wanted = [setting for setting in wanted if setting not in done]
    args.results.mkdir(parents=True, exist_ok=True)
    for rows in _measured(wanted, args.quick, args.processes):
        table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
        if not args.quick:
            table.to_csv(file, index=False, float_format="%.4g")
    print(table.round(3).to_string(index=False), flush=True)
    if not args.quick:
        order = [field.name for field in fields(Setting)]
        table.sort_values([*order, "method"]).to_csv(file, index=False, float_format="%.4g")
        summarise(table).to_csv(args.results / "significance_summary.csv", index=False, float_format="%.3g")
        draw(table).savefig(args.results / "significance.png", dpi=150)


if __name__ == "__main__":
    main()
