"""The test across samples beside peers, on the same cohorts: error rates without an effect, power with one.

    make bench-significance-peers                              # environments of the peers, then this file
    python benchmarks/significance_compared.py                 # with those environments that are there
    python benchmarks/significance_compared.py --quick         # a few cohorts; the figures mean nothing

Cohorts of the grid of significance.py with a donor effect of .2, written to benchmarks/cache; every peer reads them in
an environment of its own (significance_peers, each with its settings and constraints): Milo by pertpy, Milo by milopy
and edgePython, CNA, kompot. Beside them are 20 clusters under scratio's model of counts. Writes
benchmarks/results/significance_peers.csv and a summary. Cells are called by a method's own rule at a rate
of false discoveries of .1.
"""

from __future__ import annotations

import argparse
import subprocess
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from _cohorts import GROUPS, SIZES, Cohort
from significance import RESULTS, Outcome, Setting, by_clusters, by_neighborhoods, measures

FOLDER, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[1]
PEERS = ("milo_edgepython", "milo_pertpy", "cna", "kompot")
SLOW, FEW = {"kompot"}, 1
"""Methods that take ten to forty seconds for a cohort, and so get a few with samples of equal sizes; others get all."""
DONOR_EFFECT, N_COHORTS = 0.2, 1


def settings() -> list[Setting]:
    """Every design without an effect and with one."""
    cells = (("gaussian", 0.0), ("ten types", 1.0))
    return [
        Setting(name, groups, sizes, DONOR_EFFECT, effect)
        for groups, sizes, (name, effect) in product(GROUPS, SIZES, cells)
    ]


def write(found: Cohort, file: Path, is_paired: bool) -> None:
    """Cohort as the peers read it: a sample is a donor's cells of one condition."""
    samples, codes = np.unique(found.obs["sample"], return_inverse=True)
    group = np.array([name.endswith("treated") for name in samples]).astype(int)
    donors = np.unique([name.split()[0] for name in samples], return_inverse=True)[1]
    donor = donors if is_paired else np.arange(len(samples))
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, x=found.x, sample=codes, group=group, donor=donor)


def peer_outcome(file: Path) -> Outcome | None:
    """Outcome that a peer has written; None if it failed or does not take such a design."""
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as content:
        if "error" in content:
            return None
        return {name: content[name] for name in ("pvalue", "weight", "found")} | {
            "global": float(content["global_pvalue"])
        }


def main() -> None:
    """Write the cohorts, run the peers, score all methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS, help="some of the peers")
    parser.add_argument("--cache", type=Path, default=FOLDER / "cache" / "significance")
    args = parser.parse_args()
    wanted, n_cohorts = (settings()[::40], 1) if args.quick else (settings(), N_COHORTS)
    files = {}
    for number, (setting, seed) in enumerate(product(wanted, range(n_cohorts))):
        file = args.cache / "cohorts" / f"{settings().index(setting):03d}_{seed}.npz"
        if not args.quick and not file.exists():
            write(setting.make(seed), file, isinstance(GROUPS[setting.groups], int))
        files[number] = (setting, seed, file)
    found = {name: ROOT / f".venv-peer-{name}" / "bin" / "python" for name in PEERS}
    peers = [name for name in args.peers if found[name].exists() and not args.quick]
    for name in peers:
        chosen = [
            str(file)
            for setting, seed, file in files.values()
            if name not in SLOW or (seed < FEW and setting.sizes == "equal")
        ]
        script = FOLDER / "significance_peers" / f"{name}.py"
        subprocess.run([found[name], script, *chosen, "--out", args.cache / name], check=True)
    rows = []
    for setting, seed, file in files.values():
        cohort = setting.make(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            outcomes = {"scratio": by_neighborhoods(cohort, seed), "20 clusters, same model": by_clusters(cohort, seed)}
        outcomes |= {name: peer_outcome(args.cache / name / file.name) for name in peers}
        for method, outcome in outcomes.items():
            if outcome is not None:
                named = {"groups": setting.groups, "sizes": setting.sizes, "effect": setting.effect, "method": method}
                rows.append(named | measures(outcome, cohort.planted))
    table = pd.DataFrame(rows)
    keys = ["effect", "method", "groups", "sizes"]
    summary = table.groupby(keys[:2]).mean(numeric_only=True)
    summary.insert(0, "n_cohorts", table.groupby(keys[:2]).size())
    print(summary.round(3).to_string(), flush=True)
    if not args.quick:
        of_designs = table.groupby(keys, sort=False).mean(numeric_only=True)
        of_designs.insert(0, "n_cohorts", table.groupby(keys, sort=False).size())
        of_designs.reset_index().to_csv(RESULTS / "significance_peers.csv", index=False, float_format="%.4g")
        summary.reset_index().to_csv(RESULTS / "significance_peers_summary.csv", index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
