"""FDRL (arXiv 2303.03714): samples, and cells moved from one condition to another, beside the flow model's.

    SCRATIO_DATA=folder python benchmarks/fdrl.py                    # writes benchmarks/results/fdrl_*.csv and fdrl.png
    SCRATIO_DATA=folder python benchmarks/fdrl.py --parts toys       # one of toys, variants, kang, translation
    python benchmarks/fdrl.py --quick                                # a minute; the figures mean nothing

``toys``: swiss roll and eight Gaussians, energy distance of samples to fresh data over that of two fresh data sets, by
prior and with the improvement left out (0 steps). ``variants``: every divergence and loss. ``kang``: cross-validated
AUC of a boosting classifier that tells generated cells from held-out ones (those generated for "stim" from held-out
cells of "stim"), and how many of the latter a classifier of held-out cells calls so. ``translation``: control cells
of the training moved to the treated, judged by classifiers of held-out cells, the maximum mean discrepancy to held-out
treated cells, and the log ratio of a model fitted to held-out cells. One configuration for all; one seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _analysis import FOLDER
from _methods import merged
from scipy.spatial.distance import cdist
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from scratio.model import FDRL, OWN, ScRatio

RESULTS = Path(__file__).parent / "results"
KANG, GLIOBLASTOMA = "kang2018_pbmc_ifnb_pca.h5ad", "zhao2021_gbm_panobinostat.h5ad"
CELLS = {
    KANG: ("condition", "ctrl", "stim", "cell_type", 20),
    GLIOBLASTOMA: ("condition", "ctrl", "panobinostat", "patient_id", 30),
}
"""Key of the treatment, control, treatment, what a translation should keep, dimensions."""
N_FRESH = 2_000


def swiss_roll(rng: np.random.Generator, n: int) -> np.ndarray:
    """Points along a spiral."""
    angle = 1.5 * np.pi * (1.0 + 2.0 * rng.uniform(size=n))
    return angle[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.3 * rng.normal(size=(n, 2))


def eight_gaussians(rng: np.random.Generator, n: int) -> np.ndarray:
    """Eight narrow Gaussians on a circle."""
    angle = 0.25 * np.pi * rng.integers(8, size=n)
    return 2.0 * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.1 * rng.normal(size=(n, 2))


TOYS = {"swiss roll": swiss_roll, "eight Gaussians": eight_gaussians}


def energy(x: np.ndarray, y: np.ndarray) -> float:
    """Energy distance of two samples, pairs of a point with itself included: positive for two of one distribution."""
    return float(2.0 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())


def discrepancy(x: np.ndarray, y: np.ndarray, width: float) -> float:
    """Squared maximum mean discrepancy by a Gaussian kernel, without bias."""

    def within(a: np.ndarray) -> float:
        kernel = np.exp(-0.5 * (cdist(a, a) / width) ** 2)
        return (kernel.sum() - len(a)) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2.0 * np.exp(-0.5 * (cdist(x, y) / width) ** 2).mean())


def plain(x: np.ndarray, obs: dict | None = None) -> ad.AnnData:
    """Points as cells."""
    table = pd.DataFrame(obs or {"all": ["all"] * len(x)})
    return ad.AnnData(obs=table.set_index(table.index.map("cell{}".format)), obsm={"X_pca": x})


def fitted(adata: ad.AnnData, keys: list[str], train_kwargs: dict, **kwargs) -> tuple[FDRL, float]:
    """A trained model, and the seconds it took."""
    start = time.perf_counter()
    FDRL.setup_anndata(adata, condition_keys=keys)
    model = FDRL(adata, **kwargs)
    model.train(progress_bar=False, **train_kwargs)
    return model, time.perf_counter() - start


def toy_row(name: str, train_kwargs: dict, **kwargs) -> dict:
    """Energy distance of samples to fresh data over that of fresh data to fresh data, medians of nine pairs."""
    rng, draw = np.random.default_rng(0), TOYS[name]
    model, seconds = fitted(plain(draw(rng, 10_000)), ["all"], train_kwargs, **kwargs)
    floor = np.median([energy(draw(rng, N_FRESH), draw(rng, N_FRESH)) for _ in range(9)])
    found = np.median([energy(model.sample(N_FRESH, random_state=s), draw(rng, N_FRESH)) for s in range(9)])
    return {"data": name, "energy": found, "times_floor": found / floor, "seconds": seconds}


def toys(train_kwargs: dict) -> list[dict]:
    """Priors, with and without improvement."""
    rows = []
    for name in TOYS:
        for prior in ("gaussian", "uniform"):
            for n_flow_steps in (10, 0):
                row = toy_row(name, train_kwargs, prior=prior, n_flow_steps=n_flow_steps)
                rows.append({**row, "prior": prior, "n_flow_steps": n_flow_steps})
    return rows


def variants(train_kwargs: dict) -> list[dict]:
    """Divergences and losses."""
    return [
        {**toy_row("eight Gaussians", train_kwargs, **variant), **variant}
        for divergence in ("kl", "pearson", "js", "logd")
        for variant in ({"divergence": divergence, "loss": loss} for loss in ("logistic", "lsif"))
    ]


def split(file: str, quick: bool) -> tuple[ad.AnnData, ad.AnnData]:
    """Cells to train on, and held out; ``obs`` has "condition" and "kept"."""
    key, control, treated, kept, d = CELLS[file]
    rng = np.random.default_rng(0)
    if quick:
        label = rng.integers(2, size=400)
        adata = plain(rng.normal(size=(400, d)) + label[:, None], {"condition": np.array(["ctrl", "stim"])[label]})
        adata.obs["kept"] = np.where(rng.uniform(size=400) < 0.5, "a", "b")
    else:
        real = ad.read_h5ad(FOLDER / file)
        obs = {"condition": real.obs[key].map({control: "ctrl", treated: "stim"}).astype(str).to_numpy()}
        adata = plain(np.asarray(real.obsm["X_pca"][:, :d], dtype=float), {**obs, "kept": real.obs[kept].astype(str)})
    order = rng.permutation(adata.n_obs)
    n_held_out = adata.n_obs // 5
    return adata[order[n_held_out:]].copy(), adata[order[:n_held_out]].copy()


def told_apart(x: np.ndarray, y: np.ndarray) -> float:
    """Cross-validated AUC of a classifier."""
    label = np.repeat([0, 1], [len(x), len(y)])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    classifier = HistGradientBoostingClassifier(max_iter=100, random_state=0)
    odds = cross_val_predict(classifier, np.concatenate([x, y]), label, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(label, odds))


def called(held_out: ad.AnnData, key: str, x: np.ndarray) -> np.ndarray:
    """What a classifier of held-out cells calls cells."""
    # On real treated cells logistic regression is right less often, boosting, an MLP and extra trees no more often.
    classifier = make_pipeline(StandardScaler(), SVC(C=3.0, random_state=0))
    return classifier.fit(held_out.obsm["X_pca"], held_out.obs[key]).predict(x)


def flow_model(adata: ad.AnnData, keys: list[str], quick: bool) -> ScRatio:
    """A trained flow model."""
    ScRatio.setup_anndata(adata, condition_keys=keys)
    model = ScRatio(adata)
    model.train(progress_bar=False, **({"max_steps": 20, "early_stopping": False} if quick else {}))
    return model


def kang(train_kwargs: dict, quick: bool) -> list[dict]:
    """Generated cells, by what made them."""
    adata, held_out = split(KANG, quick)
    x, n = adata.obsm["X_pca"], held_out.n_obs
    model, _ = fitted(adata, ["condition"], train_kwargs)
    gaussian = np.random.default_rng(0).multivariate_normal(x.mean(0), np.cov(x.T), size=n)
    flow = flow_model(adata.copy(), ["condition"], quick)
    made = {
        "FDRL": model.sample(n),
        "fitted Gaussian": gaussian,
        "ScRatio": flow.sample(n, condition={}),
        "real": x[:n],
    }
    rows = [{"made by": name, "auc": told_apart(cells, held_out.obsm["X_pca"])} for name, cells in made.items()]
    asked = {"condition": "stim"}
    for guidance in (0.1, 2.0):
        made[f"FDRL of stim, guidance {guidance}"] = model.sample(n, condition=asked, guidance=guidance)
    made["ScRatio of stim"] = flow.sample(n, condition=asked)
    stim = held_out.obsm["X_pca"][(held_out.obs["condition"] == "stim").to_numpy()]
    for name in list(made)[4:]:
        is_called = (called(held_out, "condition", made[name]) == "stim").mean()
        rows.append({"made by": name, "auc": told_apart(made[name][: len(stim)], stim), "called stim": is_called})
    is_stim = (adata.obs["condition"] == "stim").to_numpy()
    is_called = (called(held_out, "condition", x[is_stim]) == "stim").mean()
    auc = told_apart(x[is_stim][: len(stim)], stim)
    return [*rows, {"made by": "real stim", "auc": auc, "called stim": is_called}]


def translation(file: str, train_kwargs: dict, quick: bool) -> list[dict]:
    """Control cells moved to the treated, by both models."""
    adata, held_out = split(file, quick)
    ends = {"source": {"condition": "ctrl"}, "target": {"condition": "stim"}}
    contrast = {"numerator": ends["target"], "denominator": ends["source"]}
    source = adata[(adata.obs["condition"] == "ctrl").to_numpy()].copy()
    target = held_out.obsm["X_pca"][(held_out.obs["condition"] == "stim").to_numpy()]
    model, _ = fitted(adata, ["condition"], train_kwargs, **ends)
    # The judge learns from other cells than the flow model that translates.
    judge, flow = flow_model(held_out.copy(), ["condition"], quick), flow_model(adata.copy(), ["condition"], quick)
    before = judge.log_ratio(source, **contrast)
    scale = adata.obsm["X_pca"].std(0)
    width = np.median(cdist(target[:500] / scale, target[:500] / scale))
    # Within each cell type or patient, which only a model of conditions can be asked for.
    both = flow_model(adata.copy(), ["condition", "kept"], quick)
    within = {name: {**condition, "kept": OWN} for name, condition in ends.items()}
    made = {
        "not moved": source.obsm["X_pca"],
        "FDRL": model.translate(source),
        "ScRatio": flow.translate(source, **ends),
        "ScRatio, within": both.translate(source, **within),
    }
    floor = discrepancy(target[::2] / scale, target[1::2] / scale, width)
    rows = []
    for name, cells in made.items():
        after = judge.log_ratio(plain(cells, {"condition": ["ctrl"] * len(cells)}), **contrast)
        rows.append(
            {
                "data": file.split("_")[0],
                "moved by": name,
                "called treated": (called(held_out, "condition", cells) == "stim").mean(),
                "kept": (called(held_out, "kept", cells) == source.obs["kept"].to_numpy()).mean(),
                "discrepancy": discrepancy(cells / scale, target / scale, width),
                "discrepancy of real": floor,
                "log ratio before": before.mean(),
                "log ratio after": after.mean(),
                "log ratio rose": (after > before).mean(),
                "displacement": np.linalg.norm((cells - source.obsm["X_pca"]) / scale, axis=1).mean(),
            }
        )
    # What the same classifiers say of real treated cells.
    real = adata[(adata.obs["condition"] == "stim").to_numpy()]
    of_real = {
        "data": file.split("_")[0],
        "moved by": "real treated",
        "called treated": (called(held_out, "condition", real.obsm["X_pca"]) == "stim").mean(),
        "kept": (called(held_out, "kept", real.obsm["X_pca"]) == real.obs["kept"].to_numpy()).mean(),
        "discrepancy": discrepancy(real.obsm["X_pca"] / scale, target / scale, width),
    }
    return [*rows, of_real]


def picture(train_kwargs: dict) -> None:
    """Data, prior and samples of the toys."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.5), layout="constrained")
    for row, (name, draw) in zip(axes, TOYS.items(), strict=True):
        model, _ = fitted(plain(draw(np.random.default_rng(0), 10_000)), ["all"], train_kwargs)
        none, _ = fitted(plain(draw(np.random.default_rng(0), 10_000)), ["all"], {"max_steps": 50}, n_flow_steps=0)
        shown = {name: draw(np.random.default_rng(1), 1_500), "prior": none.sample(1_500), "FDRL": model.sample(1_500)}
        for ax, (title, points) in zip(row, shown.items(), strict=True):
            ax.scatter(*points.T, s=2, color="#0072b2", linewidths=0)
            ax.set(title=title, xticks=[], yticks=[], aspect="equal")
            ax.sharex(row[0])
            ax.sharey(row[0])
    figure.savefig(RESULTS / "fdrl.png", dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", default=["toys", "variants", "kang", "translation", "picture"])
    options = parser.parse_args()
    quick = options.quick
    absent = [file for file in CELLS if not (FOLDER / file).exists()]
    if absent and not quick and {"kang", "translation"} & set(options.parts):
        parser.error(f"{FOLDER / absent[0]} not found; set SCRATIO_DATA to the folder that holds it")
    settings = {"max_steps": 10} if quick else {}
    parts = {
        "toys": (lambda: toys(settings), ["data", "prior", "n_flow_steps"]),
        "variants": (lambda: variants(settings), ["divergence", "loss"]),
        "kang": (lambda: kang(settings, quick), ["made by"]),
        "translation": (
            lambda: [row for file in CELLS for row in translation(file, settings, quick)],
            ["data", "moved by"],
        ),
    }
    for name in options.parts:
        if name == "picture":
            if not quick:
                picture(settings)
            continue
        measure, keys = parts[name]
        rows = measure()
        print(pd.DataFrame(rows).round(4).to_string(index=False), flush=True)
        if not quick:
            merged(RESULTS / f"fdrl_{name}.csv", rows, keys)


if __name__ == "__main__":
    main()
