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
# # First steps: one comparison, without a download
#
# This is the example of the README, executed. The cells are 700 blood cells that ship with scanpy. Each cell type was
# labelled "treated" with a probability that is known, so the true log ratio of every cell is known too.

# %%
# %matplotlib inline
import scratio

adata = scratio.datasets.pbmc68k_planted()  # or your own cells, after sc.pp.pca
scratio.tl.differential_abundance(adata, condition_key="treatment", treatment="treated", reference="control")

# %% [markdown]
# Every cell has a log ratio in nats, a standard error, and a mark where the data cannot tell.

# %%
adata.obs[["bulk_labels", "da_log_ratio", "da_std", "da_support"]].head(3)  # nats; standard error; enough cells there?

# %% [markdown]
# The summary says what was compared, and how far the log ratios can be believed.

# %%
scratio.tl.summary(adata, groupby="bulk_labels")

# %%
scratio.pl.embedding(adata)  # on the UMAP: colours centred at 0, unsupported cells grey

# %%
scratio.pl.violin(adata, groupby="bulk_labels")

# %% [markdown]
# Here the truth is known. The signs of the large types are right, and the estimates are smaller than the truth: 700
# cells are little evidence, and scratio shows only what the labels of held-out cells support. Types of a few cells
# cannot be told.

# %%
by_type = adata.obs.groupby("bulk_labels", observed=True)
by_type[["true_log_ratio", "da_log_ratio"]].mean().assign(cells=by_type.size()).round(2)
