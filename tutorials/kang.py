# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compare two conditions: stimulated and control cells
#
# Kang et al. (2018) stimulated blood cells of lupus patients with interferon beta. For every cell we ask: is this cell
# state more likely among stimulated cells than among control cells, and by how much?
#
# The answer is a log ratio in nats. It is positive where the state is more likely under stimulation, and negative where
# it is less likely. A log ratio of 0.69 is a factor of 2, and 2.3 is a factor of 10.
#
# scratio needs an embedding in `obsm` and a column of labels in `obs`. These 10,000 cells come with 30 principal
# components. They are downloaded once and then cached.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc

import scratio

adata = scratio.datasets.kang_pbmc()
pd.crosstab(adata.obs["cell_type"], adata.obs["condition"])

# %% [markdown]
# ## Score every cell with one call
#
# `differential_abundance` splits the cells into five folds. It scores every cell with networks that have not seen this
# cell, because a flexible model flatters its own training cells. The numbers of cells per condition do not shift the
# log ratio.

# %%
scratio.tl.differential_abundance(adata, condition_key="condition", treatment="stim", reference="ctrl", use_rep="X_pca")
scratio.tl.summary(adata, groupby="cell_type")

# %% [markdown]
# ## Draw the differences
#
# Red states are more likely under stimulation, and blue states under control. Grey cells have no support: one of the
# two conditions has hardly any cells like them, so the size of their log ratio is an extrapolation. An arrow at the end
# of the colour bar says that some cells lie beyond the limit.

# %%
sc.pp.neighbors(adata, use_rep="X_pca", transformer="sklearn")
sc.tl.umap(adata, random_state=0)
fig, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
sc.pl.umap(adata, color="cell_type", ax=axes[0], show=False, legend_loc="on data", legend_fontsize=7)
scratio.pl.embedding(adata, basis="umap", title="stimulated over control", ax=axes[1])

# %% [markdown]
# The results are plain columns of `obs`, so scanpy's own plots work on them too: `sc.pl.umap(adata,
# color="da_log_ratio", cmap="RdBu_r", vcenter=0)`.
#
# ## Compare cell types
#
# Every type has cells of both conditions, so every violin has two sides. The distance between the two sides shows how
# strongly the type responds.

# %%
scratio.pl.violin(adata, groupby="cell_type", supported_only=False)

# %% [markdown]
# ## Read the verdict
#
# The slope in the verdict is 1.0, so the labels of held-out cells follow the log ratio. The plot shows this for ten
# groups of cells. The curve follows the diagonal between -4 and 4 nats. It is flatter beyond, where nearly all cells
# are of one condition.

# %%
scratio.pl.calibration(adata)

# %% [markdown]
# Yet the verdict is "Cannot be told", and it names an *effective number* of cells that is tiny. Here is what this
# number means. Give each stimulated cell the weight exp(-log ratio), so that the stimulated cells look like the control
# cells. The effective number says how many cells carry the sum of these weights. Here a handful of the 4,907 stimulated
# cells carry it, because hardly any stimulated cell looks like a control monocyte. This is not a fault of the training:
# interferon changes nearly all monocytes. So labels cannot say whether such a state is a thousand or a million times
# more likely.
#
# How far the conditions overlap depends on the cell type. We call a state *shared* if it is at most 20 times more
# likely under one condition, that is, if its log ratio lies between -3 and 3:

# %%
ratio = adata.obs["da_log_ratio"]
is_stim = adata.obs["condition"] == "stim"
table = pd.DataFrame(
    {
        "cell_type": adata.obs["cell_type"],
        "shared": ratio.abs() < 3,
        "magnitude": ratio.abs(),
        "right_sign": (ratio > 0) == is_stim,
    }
)
by_type = table.groupby("cell_type", observed=True).agg(
    cells=("shared", "size"),
    shared=("shared", "mean"),
    mean_magnitude=("magnitude", "mean"),
    right_sign=("right_sign", "mean"),
)
by_type.sort_values("shared", ascending=False).round(2)

# %% [markdown]
# For NK, CD8 T and B cells nine in ten states are shared: there you can read the size of a log ratio. For monocytes
# most states belong to one condition: there you can read the sign, which agrees with the label of nearly every cell,
# but not the size.
#
# ## Know when not to believe a number
#
# - **Grey cells** (`da_support` is False): believe the sign at most.
# - **Cells within two standard errors of zero** (`da_std`): these cells show no difference.
# - **Very large values**: where the conditions hardly overlap, ratios of e^10 and of e^14 look alike.
# - **Everything here is about these cells, not about patients.** The data set has no donor labels, so there is no
#   p-value: cells are not replicates. The tutorial on replicates shows how to test across donors.
#
# The validation loss below is that of held-out cells. The marks show which step each fold kept.

# %%
scratio.pl.history(adata)

# %% [markdown]
# ## Keep the result
#
# All results lie in `obs` and `uns`, and they survive writing. `scratio.get` returns the tables.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    adata.write_h5ad(Path(folder) / "scored.h5ad")
    again = sc.read_h5ad(Path(folder) / "scored.h5ad")
scratio.get.table(again).T
