"""From the public files to cells."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from scratio.datasets._rdata import read_parts


def kang_pbmc(dcats: Path) -> AnnData:
    """Principal components and labels of a data frame."""
    (table,) = read_parts(dcats, "Kang2017/svmDF")
    obs = pd.DataFrame(
        {
            "condition": _labels(table["condition"]),
            "cell_type": _labels(table["clusterRes"]),
            "orig_row": table.index.to_numpy(dtype=np.int64),
        },
        index=[f"row{row}" for row in table.index],
    )
    pcs = table[[f"PC_{i}" for i in range(1, 31)]].to_numpy(dtype=np.float32)
    source = "github holab-hku/DCATS@1bfa00cc data/Kang2017.rda $svmDF (MIT)"
    return AnnData(obs=obs, obsm={"X_pca": pcs}, uns={"source": source})


def kang_pbmc_counts(harmony: Path) -> AnnData:
    """Counts of two matrices with the same genes, and scanpy's usual preprocessing."""
    parts = dict(zip(("ctrl", "stim"), read_parts(harmony, "pbmc.ctrl", "pbmc.stim"), strict=True))
    counts = vstack([part.x for part in parts.values()]).tocsr()
    condition = np.repeat(list(parts), [part.x.shape[0] for part in parts.values()])
    barcode = np.concatenate([part.cells for part in parts.values()])
    obs = pd.DataFrame(
        {"condition": _labels(condition), "barcode": _labels(barcode)},
        index=[f"{c}_{b}" for c, b in zip(condition, barcode, strict=True)],
    )
    adata = AnnData(counts, obs=obs, var=pd.DataFrame(index=_names(parts["ctrl"].genes)))
    adata.layers["counts"] = counts.copy()
    adata.var["n_cells"] = counts.getnnz(axis=0)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    adata.obsm["X_pca"] = _scaled_pcs(adata.X[:, adata.var["highly_variable"].to_numpy()])
    adata.uns["source"] = "github immunogenomics/harmony@df19af23 data/pbmc_stim.RData (GPL-3)"
    return adata


def melanoma_icb(x: Path, tsne: Path, label: Path, info: Path) -> AnnData:
    """Principal components, t-SNE and samples; a table says what the samples are."""
    (pcs,), (plane,) = read_parts(x, "X.melanoma"), read_parts(tsne, "X.2d.melanoma")
    (sample,), (table,) = read_parts(label, "X.label.melanoma"), read_parts(info, "X.label.info")
    # Samples are named Pre_P1, Post_P1 and, where a patient has a second one after treatment, Post_P1_2.
    parts = [name.split("_") for name in sample]
    obs = pd.DataFrame(
        {
            "sample": _labels(sample),
            "condition": _labels(table.set_index("label")["condition"].loc[sample]),
            "timepoint": _labels([part[0] for part in parts]),
            "patient": _labels([part[1] for part in parts]),
        },
        index=_names(pcs.coords["dim_0"].values),
    )
    obsm = {"X_pca": pcs.values.astype(np.float32), "X_tsne": plane.values.astype(np.float32)}
    return AnnData(obs=obs, obsm=obsm, uns={"source": "github KlugerLab/DAseq@b1f58e00 data/X.*.rda (MIT)"})


def ra_synovium(before: Path, after: Path) -> AnnData:
    """Principal components before and after Harmony; the labels come with both and are the same."""
    table, pcs = read_parts(before, "ra_PreHarmObj/meta", "ra_PreHarmObj/embeddings")
    (harmony,) = read_parts(after, "ra_HarmObj/embeddings")
    obs = table[["sample", "batch", "disease", "nUMI", "nGenes", "celltype", "preHarmClus", "harmClus"]].copy()
    for key in obs.columns.difference(["nUMI", "nGenes"]):
        obs[key] = _labels(obs[key])
    obs.index = _names(table["CellID"])
    obsm = {
        "X_pca": pcs.values.astype(np.float32),
        "X_pca_harmony": harmony.values.astype(np.float32),
        "X_umap": table[["UMAP1", "UMAP2"]].to_numpy(dtype=np.float32),
    }
    source = "github immunogenomics/scpost@9e6ce336 data/ra_{PreHarm,Harm}Obj.rda (MIT)"
    return AnnData(obs=obs, obsm=obsm, uns={"source": source})


def glioblastoma(lemur: Path) -> AnnData:
    """Counts and log counts of a SingleCellExperiment, and principal components of the scaled log counts."""
    top = "glioblastoma_example_data"
    matrices, names, columns, genes = read_parts(
        lemur,
        f"{top}/assays/data/listData",
        f"{top}/colData/rownames",
        f"{top}/colData/listData",
        f"{top}/rowRanges/elementMetadata/listData",
    )
    # "id" repeats the names of the cells.
    labels = {key: column if key == "age" else _labels(column) for key, column in columns.items() if key != "id"}
    var = pd.DataFrame({"gene_id": _names(genes["gene_id"])}, index=_names(genes["symbol"]))
    x = matrices["logcounts"].x
    adata = AnnData(x, obs=pd.DataFrame(labels, index=_names(names)), var=var)
    adata.layers["counts"] = matrices["counts"].x
    adata.obsm["X_pca"] = _scaled_pcs(x)
    adata.uns["source"] = "github const-ae/lemur@0e62bc12 data/glioblastoma_example_data.rda (MIT)"
    return adata


def sachs_signaling(semgraph: Path) -> AnnData:
    """One data frame of proteins for each condition, whose name says what the cells were given."""
    (tables,) = read_parts(semgraph, "sachs/rawdata")
    given = {file: _given(file) for file in tables}
    file = np.repeat(list(tables), [len(table) for table in tables.values()])
    obs = pd.DataFrame(
        {
            "condition": _labels(["+".join(given[f]) for f in file]),
            "file": _labels(file),
            "stim": _labels([given[f][0] for f in file]),
            "icam2": _labels(["icam2" if "icam2" in given[f] else "none" for f in file]),
            # The inhibitor, where there is one, comes last.
            "inhibitor": _labels(
                [given[f][-1] if given[f][-1] not in (given[f][0], "icam2") else "none" for f in file]
            ),
        },
        index=[f"{f}-{row}" for f, table in tables.items() for row in range(len(table))],
    )
    table = pd.concat(tables.values())
    raw = table.to_numpy(dtype=float)
    x = np.log1p(raw).astype(np.float32)
    return AnnData(
        x,
        obs=obs,
        var=pd.DataFrame(index=_names(table.columns)),
        obsm={"X_scaled": (x - x.mean(0)) / x.std(0)},
        layers={"raw": raw.astype(np.float32)},
        uns={"source": "github fernandoPalluzzi/SEMgraph@31eff1ea data/sachs.RData (GPL-3); Sachs 2005 Science"},
    )


def _given(file: str) -> list[str]:
    """What the cells were given: ``cd3cd28icam2_ly`` is cd3cd28, icam2 and ly; one inhibitor has two names."""
    return file.replace("28icam2", "28_icam2").replace("psitect", "psit").split("_")


def _labels(values: object) -> pd.Categorical:
    """Strings as categories in alphabetical order, those alone that occur."""
    return pd.Categorical(_names(values))


def _names(values: object) -> np.ndarray:
    """Python's strings in place of numpy's."""
    return np.asarray(values, dtype=str).astype(object)


def _scaled_pcs(x: csr_matrix, n_comps: int = 30) -> np.ndarray:
    """Principal components, shape ``(n_cells, n_comps)``, of features of unit variance, cut off at 10."""
    scaled = AnnData(x.copy())
    with warnings.catch_warnings():
        # From sparse features scanpy finds the moments in double precision, and warns that it makes them dense: meant.
        warnings.filterwarnings("ignore", message="zero-centering a sparse", category=UserWarning)
        sc.pp.scale(scaled, max_value=10)
    sc.pp.pca(scaled, n_comps=n_comps)
    return scaled.obsm["X_pca"].astype(np.float32)
