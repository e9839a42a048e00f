"""Figures of the pages: docs/images/<name>.png, among them one for each plot in the API reference (api/pl.<name>.png).

    python docs/make_figures.py                      # all
    python docs/make_figures.py pl.violin pl.regions # some
    python docs/make_figures.py --list

The cells are those of the tutorials. They are downloaded once, or lie in the folder that SCRATIO_CACHE names.
A new plot needs one entry of ``FIGURES``: a function that draws and returns its axes.
"""

from __future__ import annotations

import argparse
import functools
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc
from anndata import AnnData
from PIL import Image
from sklearn.cluster import KMeans

import scratio

IMAGES = Path(__file__).parent / "images"
DPI, COLOURS, MAX_BYTES = 100, 200, 80_000
QUIET = {"progress_bar": False}


@functools.cache
def kang() -> AnnData:
    """PBMCs with and without interferon beta, compared by one call."""
    adata = scratio.datasets.kang_pbmc()
    sc.pp.neighbors(adata, use_rep="X_pca", transformer="sklearn")
    sc.tl.umap(adata, random_state=0)
    scratio.tl.differential_abundance(
        adata, condition_key="condition", treatment="stim", reference="ctrl", train_kwargs=QUIET
    )
    return adata


@functools.cache
def planted() -> AnnData:
    """700 real PBMCs, of which each type was labelled "treated" with a probability that is known."""
    adata = scratio.datasets.pbmc68k_planted()
    scratio.tl.differential_abundance(
        adata, condition_key="treatment", treatment="treated", reference="control", train_kwargs=QUIET
    )
    return adata


@functools.cache
def melanoma() -> AnnData:
    """Immune cells of patients who respond to checkpoint therapy and of patients who do not, tested across patients."""
    adata = scratio.datasets.melanoma_icb()
    adata.obs["response"] = adata.obs["condition"].map({"R": "responder", "NR": "non-responder"}).astype("category")
    clusters = KMeans(9, n_init=3, random_state=0).fit_predict(adata.obsm["X_pca"])
    adata.obs["cluster"] = [f"cluster {number + 1}" for number in clusters]
    scratio.tl.differential_abundance(
        adata,
        condition_key="response",
        treatment="responder",
        reference="non-responder",
        sample_key="patient",
        effort="quick",
    )
    scratio.tl.regions(adata, annotation_key="cluster")
    return adata


@functools.cache
def synovium() -> AnnData:
    """Synovial cells before and after Harmony."""
    adata = scratio.datasets.ra_synovium()
    scratio.tl.batch_effect(
        adata, batch_key="batch", label_key="celltype", use_rep=["X_pca", "X_pca_harmony"], train_kwargs=QUIET
    )
    return adata


@functools.cache
def sachs() -> AnnData:
    """Signalling proteins of T cells under pairs of stimuli."""
    adata = scratio.datasets.sachs_signaling()
    adata = adata[adata.obs["stim"] == "cd3cd28"].copy()
    inhibitors = [name for name in adata.obs["inhibitor"].unique() if name != "none"]
    scratio.tl.combination_effect(
        adata,
        condition_keys=["inhibitor", "icam2"],
        combination=[(name, "icam2") for name in inhibitors],
        reference=("none", "none"),
        use_rep="X_scaled",
        train_kwargs=QUIET,
    )
    return adata


@functools.cache
def glioblastoma() -> AnnData:
    """Five tumours with and without panobinostat: response of each donor, genes along which it grows."""
    adata = scratio.datasets.glioblastoma()
    scratio.tl.treatment_response(
        adata, treatment_key="condition", donor_key="patient_id", reference="ctrl", train_kwargs=QUIET
    )
    return adata


@functools.cache
def dose() -> AnnData:
    """700 PBMCs with a made-up dose: of monocytes there are more at high doses, of B cells fewer."""
    adata = scratio.datasets.pbmc68k_planted()
    labels = adata.obs["bulk_labels"].astype(str)
    adata.obs["cell type"] = labels.map({"CD14+ Monocyte": "monocytes", "CD19+ B": "B cells"}).fillna("others")
    slope = adata.obs["cell type"].map({"monocytes": 0.35, "B cells": -0.35, "others": 0.0}).to_numpy(float)
    doses = np.linspace(0.0, 10.0, 21)
    rng = np.random.default_rng(0)
    weights = np.exp(slope[:, None] * doses)
    adata.obs["dose"] = [rng.choice(doses, p=w / w.sum()) for w in weights]
    scratio.model.ScRatio.setup_anndata(adata, condition_keys=[], continuous_keys=["dose"])
    model = scratio.model.ScRatio(adata)
    model.train(progress_bar=False)
    scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=5.0, groupby="cell type")
    return adata


@functools.cache
def monocytes() -> AnnData:
    """Control monocytes moved to where they would lie after interferon beta."""
    adata = kang()[kang().obs["cell_type"] == "CD14+ Monocytes"].copy()
    scratio.model.ScRatio.setup_anndata(adata, obsm_key="X_pca", condition_keys=["condition"])
    model = scratio.model.ScRatio(adata)
    model.train(progress_bar=False)
    scratio.tl.translate(adata, model, source={"condition": "ctrl"}, target={"condition": "stim"})
    return adata


@functools.cache
def tissue() -> AnnData:
    """A made-up slide: two layers of tissue around a core, which is larger in the treated animal."""
    rng = np.random.default_rng(0)
    n_cells = 3000
    treated = np.arange(n_cells) % 2 == 0
    radius, angle = np.sqrt(rng.uniform(size=n_cells)), rng.uniform(0.0, 2.0 * np.pi, n_cells)
    core = radius < np.where(treated, 0.6, 0.35)
    states = rng.normal(size=(n_cells, 6))
    states[:, 0] += 4.0 * core
    states[:, 1] += 4.0 * (radius > 0.8)
    adata = AnnData(obsm={"X_pca": states, "spatial": np.c_[radius * np.cos(angle), radius * np.sin(angle)] * 1000.0})
    adata.obs["animal"] = np.where(treated, "treated", "control")
    scratio.tl.differential_abundance(
        adata, condition_key="animal", treatment="treated", reference="control", effort="quick"
    )
    return adata[treated].copy()


def draw_driver_genes() -> plt.Axes:
    """Genes along which the log ratio of the drug grows."""
    adata = glioblastoma()
    scratio.model.ScRatio.setup_anndata(adata, obsm_key="X_pca", condition_keys=["condition", "patient_id"])
    model = scratio.model.ScRatio(adata)
    model.train(progress_bar=False)
    # The components came without loadings: regress the genes on them.
    x = adata.obsm["X_pca"] - adata.obsm["X_pca"].mean(0)
    genes = np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X, dtype=float)
    own = {"patient_id": scratio.OWN}
    scratio.tl.driver_genes(
        adata,
        model,
        numerator={"condition": "panobinostat", **own},
        denominator={"condition": "ctrl", **own},
        decoder=np.linalg.lstsq(x, genes - genes.mean(0), rcond=None)[0].T,
    )
    return scratio.pl.driver_genes(adata, n_genes=15)


def draw_compare_methods() -> plt.Axes:
    """Estimators on cells whose true log ratio is known."""
    adata = scratio.datasets.pbmc68k_planted()
    scratio.tl.compare_methods(
        adata,
        condition_key="treatment",
        treatment="treated",
        reference="control",
        methods=["scratio", "logistic", "boosting", "mlp", "knn"],
        method_kwargs={"scratio": QUIET},
        truth_key="true_log_ratio",
    )
    return scratio.pl.compare_methods(adata)


def draw_calibration() -> plt.Axes:
    """Reliability of the log ratios of PBMCs whose labels were drawn by type."""
    adata = scratio.datasets.kang_pbmc()
    scratio.datasets.plant_labels(adata, groupby="cell_type")
    scratio.tl.differential_abundance(
        adata, condition_key="treatment", treatment="treated", reference="control", effort="quick"
    )
    return scratio.pl.calibration(adata)


def draw_sample_distance() -> plt.Axes:
    """Distances between the samples that patients of melanoma gave before and after the therapy."""
    adata = melanoma().copy()
    scratio.tl.sample_distance(adata, sample_key="sample", train_kwargs=QUIET)
    return scratio.pl.sample_distance(adata, "response", vmax="p95")


def draw_samples() -> plt.Axes:
    """Every patient's share of cells in the largest region."""
    adata = melanoma()
    return scratio.pl.samples(adata, adata.uns["da"]["regions"]["region"].iloc[0])


def draw_kang() -> plt.Axes:
    """Cell types beside log ratios, for the first page."""
    adata = kang()
    _, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    sc.pl.umap(adata, color="cell_type", ax=axes[0], show=False, legend_loc="on data", legend_fontsize=7, title="")
    scratio.pl.embedding(adata, title="", ax=axes[1])
    axes[0].set_title("cell types")
    axes[1].set_title("interferon beta against control")
    return axes[0]


FIGURES: dict[str, Callable[[], plt.Axes]] = {
    "kang": draw_kang,
    "api/pl.batch_effect": lambda: scratio.pl.batch_effect(synovium(), groupby="celltype"),
    "api/pl.beeswarm": lambda: scratio.pl.beeswarm(melanoma(), groupby="cluster"),
    "api/pl.calibration": draw_calibration,
    "api/pl.combination_effect": lambda: scratio.pl.combination_effect(sachs()),
    "api/pl.compare_methods": draw_compare_methods,
    "api/pl.covariate_curve": lambda: scratio.pl.covariate_curve(dose()),
    "api/pl.driver_genes": draw_driver_genes,
    "api/pl.embedding": lambda: scratio.pl.embedding(kang()),
    "api/pl.history": lambda: scratio.pl.history(kang()),
    "api/pl.neighborhoods": lambda: scratio.pl.neighborhoods(melanoma(), basis="X_tsne"),
    "api/pl.regions": lambda: scratio.pl.regions(melanoma(), basis="X_tsne"),
    "api/pl.sample_distance": draw_sample_distance,
    "api/pl.samples": draw_samples,
    "api/pl.spatial": lambda: scratio.pl.spatial(tissue()),
    "api/pl.translate": lambda: scratio.pl.translate(monocytes(), key="X_scratio"),
    "api/pl.treatment_response": lambda: scratio.pl.treatment_response(glioblastoma()),
    "api/pl.violin": lambda: scratio.pl.violin(planted(), groupby="bulk_labels"),
    "api/pl.volcano": lambda: scratio.pl.volcano(melanoma()),
}
"""What draws each image of docs/images."""


def save(figure: plt.Figure, path: Path) -> int:
    """Write a small image with a palette, and return its size in bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    image = Image.open(buffer).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    return path.stat().st_size


def main() -> None:
    """Draw the figures that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="such as pl.violin; by default all")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    arguments = parser.parse_args()
    by_name = {name.removeprefix("api/"): name for name in FIGURES}
    if arguments.list:
        print(*by_name, sep="\n")
        return
    unknown = [name for name in arguments.names if name not in by_name]
    if unknown:
        parser.error(f"no figure of the name {unknown}; there are {list(by_name)}")
    for name in arguments.names or by_name:
        axes = FIGURES[by_name[name]]()
        size = save(axes.get_figure(), IMAGES / f"{by_name[name]}.png")
        plt.close("all")
        print(f"{name}: {size / 1000:.0f} kB{', too large' if size > MAX_BYTES else ''}", flush=True)


if __name__ == "__main__":
    main()
