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
# # Compare donors, and find driver genes
#
# Zhao et al. (2021) treated slices of five glioblastomas with panobinostat. Tumours differ so much that a comparison of
# all treated with all untreated cells would compare patients. So we ask of every cell, within its own patient: is this
# state more likely with the drug than without? Then we ask along which genes.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc

import scratio

adata = scratio.datasets.glioblastoma()
pd.crosstab(adata.obs["patient_id"], adata.obs["condition"])

# %% [markdown]
# ## Measure the response of every patient
#
# The response is log p(x | patient, panobinostat) - log p(x | patient, control), by networks that have not seen the
# cell.

# %%
scratio.tl.treatment_response(
    adata,
    treatment_key="condition",
    donor_key="patient_id",
    reference="ctrl",
)
table = scratio.get.table(adata, key="response")
table.round(2)

# %% [markdown]
# `mean_treated` is the mean over a patient's treated cells. It says how many nats of evidence one treated cell carries
# on average, and it is zero for a patient who does not respond. (It estimates the Kullback-Leibler divergence of the
# treated from the untreated cells.) Its standard error says which patients differ.

# %%
fig, axes = plt.subplots(1, 3, figsize=(15, 4.3), layout="constrained")
sc.pp.neighbors(adata, use_rep="X_pca", transformer="sklearn")
sc.tl.umap(adata, random_state=0)
sc.pl.embedding(adata, "X_umap", color="patient_id", ax=axes[0], show=False, frameon=False)
scratio.pl.embedding(adata, key="response", basis="umap", title="response", ax=axes[1])
scratio.pl.treatment_response(adata, ax=axes[2])

# %% [markdown]
# ## Find the driver genes
#
# The gradient of the log ratio lives in the embedding. The loadings of the principal components carry it to genes.
# These components came without loadings, so we regress the genes on them. After `sc.pp.pca`, scratio finds the loadings
# in `varm["PCs"]` by itself.

# %%
scratio.model.ScRatio.setup_anndata(adata, obsm_key="X_pca", condition_keys=["condition", "patient_id"])
model = scratio.model.ScRatio(adata)
model.train()

x = adata.obsm["X_pca"] - adata.obsm["X_pca"].mean(0)
genes = np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X, dtype=float)
loadings = np.linalg.lstsq(x, genes - genes.mean(0), rcond=None)[0].T
scratio.tl.driver_genes(
    adata,
    model,
    numerator={"condition": "panobinostat", "patient_id": scratio.OWN},
    denominator={"condition": "ctrl", "patient_id": scratio.OWN},
    decoder=loadings,
)
scratio.pl.driver_genes(adata, n_genes=20)

# %% [markdown]
# A positive value says that more of the gene makes a cell state more likely under the drug. To see whether the cells
# agree, look at the differences of mean expression, patient by patient, for the genes at the top:

# %%
top = scratio.get.table(adata, key="drivers").head(8)
expression = pd.DataFrame(genes, index=adata.obs_names, columns=adata.var_names)[top["gene"].tolist()]
means = expression.groupby([adata.obs["patient_id"], adata.obs["condition"]], observed=True).mean()
difference = means.xs("panobinostat", level=1) - means.xs("ctrl", level=1)
difference.T.assign(gradient=top.set_index("gene")["mean"]).round(2)

# %% [markdown]
# Gradients and differences need not order the genes alike. A gradient says along which genes the *ratio* grows while
# the other genes stay as they are; a difference of means does not.
#
# ## Know when not to believe it
#
# - **Five patients are five replicates.** The response of a patient is about this patient's cells. "Patients respond"
#   is a statement about patients: test it with `differential_abundance(..., sample_key="patient_id")`, which compares
#   patients with themselves.
# - **Cells without support.** Where a patient's treated and untreated cells hardly overlap, sizes are extrapolations.
# - **Driver genes describe the embedding.** They are not a test of a gene. For a test, compare pseudobulks.

# %%
adata.obs.groupby("patient_id", observed=True)["response_support"].mean().round(2)
