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
# # Treated against control in ten minutes
#
# Kang et al. (2018) stimulated PBMCs of lupus patients with interferon beta. For every cell we ask: is this cell state
# more likely among stimulated cells than among controls, and by how much? The answer is a log ratio in nats: positive
# where the state is more likely under stimulation, negative where it is less. A difference of .69 nats is a factor of
# 2, 2.3 nats a factor of 10.
#
# All that scratio needs is an embedding in `obsm` and a column of labels in `obs`. The cells (10,000, with 30 principal
# components) are downloaded once and cached.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc

import scratio

adata = scratio.datasets.kang_pbmc()
pd.crosstab(adata.obs["cell_type"], adata.obs["condition"])

# %% [markdown]
# ## One call
#
# `differential_abundance` splits the cells into five folds and scores every cell with networks that did not see it: a
# flexible model flatters the cells that it was trained on. How many cells each condition has makes no difference.

# %%
scratio.tl.differential_abundance(
    adata,
    condition_key="condition",
    treatment="stim",
    reference="ctrl",
    use_rep="X_pca",
    train_kwargs={"progress_bar": False},
)
scratio.tl.summary(adata)

# %% [markdown]
# Read the last lines first: the verdict says in words whether labels of held-out cells follow the log ratio (a slope of
# 1 is calibrated) and how much the two conditions overlap.
#
# ## Where are the differences?
#
# Red states are more likely under stimulation, blue ones under control; the scale is centred at 0. Grey cells have no
# support: one of the two conditions has hardly any cells like them, so that the size of their log ratio is an
# extrapolation.

# %%
sc.pp.neighbors(adata, use_rep="X_pca", transformer="sklearn")
sc.tl.umap(adata, random_state=0)
fig, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
sc.pl.embedding(adata, "X_umap", color="cell_type", ax=axes[0], show=False, legend_loc="on data", legend_fontsize=7)
scratio.pl.embedding(adata, title="stimulated against control", ax=axes[1], show=True)

# %% [markdown]
# The columns are plain numbers, so that scanpy's own plots work on them too: `sc.pl.umap(adata, color="da_log_ratio",
# cmap="RdBu_r", vcenter=0)`.
#
# ## Which cell types respond?
#
# Every type has cells of both conditions, so a violin has two sides; what differs is how far apart they lie. The mean
# magnitude orders the types.

# %%
scratio.pl.violin(adata, groupby="cell_type", supported_only=False, show=True)
by_type = adata.obs.groupby("cell_type", observed=True)
table = by_type["da_log_ratio"].agg(cells="size", mean_magnitude=lambda r: r.abs().mean())
table["supported"] = by_type["da_support"].mean()
table.sort_values("mean_magnitude", ascending=False).round(2)

# %% [markdown]
# ## When not to believe a number
#
# Held-out labels should follow the log ratio. Of the cells at each value, the share that is stimulated is plotted
# against what the value promises; a curve on the diagonal is calibrated.

# %%
scratio.pl.calibration(adata, show=True)

# %% [markdown]
# - **Grey cells** (`da_support` is False): believe the direction at most.
# - **Cells within a standard error or two of zero** (`da_std`): no difference that these cells show.
# - **Very large values**: where the conditions hardly overlap, a ratio of e to the 10 and one of e to the 14 look
#   alike.
# - **Everything here is about these cells, not about patients.** The data set has no donor labels, so there is no
#   p-value: cells are not replicates. The tutorial on replicates shows what changes with them.
#
# Did the training work? The validation loss is that of held-out cells.

# %%
scratio.pl.history(adata, show=True)

# %% [markdown]
# ## Keep the result
#
# Everything lies in `obs` and `uns`, and survives writing.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    adata.write_h5ad(Path(folder) / "scored.h5ad")
    again = sc.read_h5ad(Path(folder) / "scored.h5ad")
scratio.tl.summary(again).facts["computed from"]
