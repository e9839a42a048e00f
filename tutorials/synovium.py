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
# # Is my batch correction good?
#
# Zhang et al. (2019) sequenced synovial tissue of patients with rheumatoid arthritis and osteoarthritis in 24 batches.
# The cells come with principal components before and after Harmony. A correction is good if a cell's batch can no
# longer be told from where it lies *among cells of its type*, and if the types have stayed apart.
#
# scratio asks the first question of every cell: log p(x | batch, type) - log p(x | type), in nats, for the cell's own
# batch and type. Zero: nothing of the batch is left here. Two nats: cells like this one are seven times as frequent in
# its batch as in all batches.

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
# ## Both embeddings in one call
#
# Cells are scored by networks that did not see them. Batches or types with too few cells are left out, with a warning
# that names them.

# %%
scratio.tl.batch_effect(
    adata,
    batch_key="batch",
    label_key="celltype",
    use_rep=["X_pca", "X_pca_harmony"],
    train_kwargs={"progress_bar": False},
)
summary = adata.uns["batch_effect"]["summary"]
summary[summary["by"].isin(["all", "celltype"])].round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
scratio.pl.batch_effect(adata, groupby="celltype", ax=axes[0])
scratio.pl.embedding(
    adata, key="batch_effect_X_pca_harmony", basis="X_umap", title="left after Harmony (nats)", ax=axes[1], show=True
)

# %% [markdown]
# The mean is what a cell's position tells of its batch: the expected log ratio is a mutual information within types, in
# nats. With no effect it is zero, and the log of the number of batches where they are told apart with certainty.
#
# Which batches stand out? They are what to look at first: a failed run, another protocol, or another disease.

# %%
batches = summary[summary["by"] == "batch"].pivot(index="group", columns="embedding", values="mean")
disease = adata.obs.groupby("batch", observed=True)["disease"].agg(lambda d: "/".join(sorted(d.unique())))
batches.assign(disease=disease).sort_values("X_pca_harmony", ascending=False).head(8).round(2)

# %% [markdown]
# ## Has it removed too much?
#
# A correction that throws all cells onto one heap has no batch effect either. Two checks. First, cell types must be as
# easy to tell apart as before:

# %%
labels = adata.obs["celltype"].to_numpy()
for name in ("X_pca", "X_pca_harmony"):
    accuracy = cross_val_score(KNeighborsClassifier(15), adata.obsm[name], labels, cv=5).mean()
    print(f"{name}: types told apart by their neighbours in {accuracy:.1%} of the cells")

# %% [markdown]
# Second, the biology that you want to study must not go along with the batches. Here it does: all batches but one are
# of one disease, so no method can tell "batch" from "disease", and what Harmony removed may be either. A log ratio
# between the diseases in the corrected embedding would be what Harmony has left of it.

# %%
pd.crosstab(adata.obs["batch"], adata.obs["disease"]).gt(0).sum(axis=1).value_counts().rename("batches").rename_axis(
    "diseases in it"
)

# %% [markdown]
# ## Other corrections
#
# Every embedding is a name in `use_rep`: with counts at hand, add scVI's latent space as `adata.obsm["X_scvi"]` and
# compare three at once. These cells come without counts, so it is not shown here.
#
# ## When not to believe it
#
# - **Small batches.** A batch with few cells of a type says little; `batch_effect_*_std` is the standard error per
#   cell.
# - **The baseline.** Labels permuted within types give the value that no effect has in your data: put
#   `adata.obs.groupby("celltype")["batch"].transform(np.random.default_rng(0).permutation)` into a column and call
#   again. On these cells the page of benchmarks has that figure.
