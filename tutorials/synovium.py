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
# # Check a batch correction
#
# Zhang et al. (2019) sequenced synovial tissue of patients with rheumatoid arthritis and osteoarthritis in 24 batches.
# The cells come with principal components before and after Harmony. A good correction does two things. It mixes the
# batches *among cells of one type*, and it keeps the types apart.
#
# scratio measures the first for every cell: log p(x | batch, type) - log p(x | type), in nats, for the cell's own batch
# and type. Zero means that nothing of the batch is left here. Two nats mean that cells like this one are seven times as
# frequent in its batch as in all batches together.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import scratio

adata = scratio.datasets.ra_synovium()
pd.crosstab(adata.obs["celltype"], adata.obs["disease"])

# %% [markdown]
# ## Measure both embeddings with one call
#
# Networks that have not seen a cell score it. Batches or types with too few cells are left out, and a warning names
# them.

# %%
scratio.tl.batch_effect(
    adata,
    batch_key="batch",
    label_key="celltype",
    use_rep=["X_pca", "X_pca_harmony"],
)
summary = scratio.get.table(adata, key="batch_effect")
summary[summary["by"].isin(["all", "celltype"])].round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
scratio.pl.batch_effect(adata, groupby="celltype", ax=axes[0])
scratio.pl.embedding(adata, key="batch_effect_X_pca_harmony", basis="umap", title="left after Harmony", ax=axes[1])

# %% [markdown]
# The mean says how much a cell's position tells about its batch: it estimates the mutual information of position and
# batch within types, in nats. It is zero without a batch effect. It is the `ceiling`, the entropy of the batch within
# types, if the batches can be told apart with certainty.
#
# Look first at the batches that stand out: the reason may be a failed run, another protocol or another disease.

# %%
batches = summary[summary["by"] == "batch"].pivot(index="group", columns="embedding", values="mean")
disease = adata.obs.groupby("batch", observed=True)["disease"].agg(lambda d: "/".join(sorted(d.unique())))
batches.assign(disease=disease).sort_values("X_pca_harmony", ascending=False).head(8).round(2)

# %% [markdown]
# ## Check that it has not removed too much
#
# A correction that throws all cells onto one heap leaves no batch effect either. So check two things. First, cell types
# must be as easy to tell apart as before:

# %%
labels = adata.obs["celltype"].to_numpy()
for name in ("X_pca", "X_pca_harmony"):
    accuracy = cross_val_score(KNeighborsClassifier(15), adata.obsm[name], labels, cv=5).mean()
    print(f"{name}: types told apart by their neighbours in {accuracy:.1%} of the cells")

# %% [markdown]
# Second, the biology that you want to study must not go along with the batches. Here it does: all batches but one are
# of one disease. So no method can tell "batch" from "disease", and Harmony may have removed either. A log ratio between
# the diseases in the corrected embedding would show only what Harmony has left.

# %%
pd.crosstab(adata.obs["batch"], adata.obs["disease"]).gt(0).sum(axis=1).value_counts().rename("batches").rename_axis(
    "diseases in it"
)

# %% [markdown]
# ## Compare other corrections
#
# Every embedding is a name in `use_rep`. If you have counts, add scVI's latent space as `adata.obsm["X_scvi"]` and
# compare three embeddings at once. These cells come without counts, so this is not shown here.
#
# ## Know when not to believe it
#
# - **Small batches.** A batch with few cells of a type says little. `batch_effect_*_std` is a cell's standard error.
# - **The baseline.** To see the value without any effect in your data, permute the batches within types: put
#   `adata.obs.groupby("celltype")["batch"].transform(np.random.default_rng(0).permutation)` into a column and call
#   again. The page of benchmarks has this figure for these cells.
