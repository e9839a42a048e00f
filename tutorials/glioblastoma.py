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
# # Donors and driver genes: glioblastoma under panobinostat
#
# Zhao et al. (2021) treated slices of five glioblastomas with panobinostat. Tumours differ so much that one comparison
# of all treated with all untreated cells would be one between patients. We ask of every cell, within its own patient:
# is this state more likely with the drug than without? Then: along which genes?

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
# ## Response of every patient
#
# log p(x | patient, panobinostat) - log p(x | patient, control), by networks that did not see the cell.

# %%
scratio.tl.treatment_response(
    adata,
    treatment_key="condition",
    donor_key="patient_id",
    reference="ctrl",
    train_kwargs={"progress_bar": False},
)
table = adata.uns["response"]["table"]
table.round(2)

# %% [markdown]
# `mean_treated` is the mean over a patient's treated cells: how many nats of evidence one treated cell carries on
# average, zero for a patient that does not respond. (It is an estimate of the Kullback-Leibler divergence of the
# treated from the untreated cells.) Its standard error says which patients differ.

# %%
fig, axes = plt.subplots(1, 3, figsize=(15, 4.3), layout="constrained")
sc.pp.neighbors(adata, use_rep="X_pca", transformer="sklearn")
sc.tl.umap(adata, random_state=0)
sc.pl.embedding(adata, "X_umap", color="patient_id", ax=axes[0], show=False, frameon=False)
scratio.pl.embedding(adata, key="response", title="response (nats)", ax=axes[1])
scratio.pl.treatment_response(adata, ax=axes[2], show=True)

# %% [markdown]
# ## Along which genes?
#
# The gradient of the log ratio lives in the embedding; the loadings of the principal components carry it to genes. Here
# the components came without loadings, so we regress the genes on them; after `sc.pp.pca`, `varm["PCs"]` is used
# without asking.

# %%
scratio.model.ScRatio.setup_anndata(adata, obsm_key="X_pca", condition_keys=["condition", "patient_id"])
model = scratio.model.ScRatio(adata)
model.train(progress_bar=False)

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
scratio.pl.driver_genes(adata, n_genes=20, show=True)

# %% [markdown]
# Positive: more of the gene makes a cell state more likely under the drug. Do the cells agree? The difference of mean
# expression, patient by patient, for the genes at the top:

# %%
top = adata.uns["drivers"]["table"].head(8)
expression = pd.DataFrame(genes, index=adata.obs_names, columns=adata.var_names)[top["gene"].tolist()]
means = expression.groupby([adata.obs["patient_id"], adata.obs["condition"]], observed=True).mean()
difference = means.xs("panobinostat", level=1) - means.xs("ctrl", level=1)
difference.T.assign(gradient=top.set_index("gene")["mean"]).round(2)

# %% [markdown]
# The two columns need not have the same order: a gradient says along which genes the *ratio* grows, given the others,
# and a difference of means does not.
#
# ## When not to believe it
#
# - Five patients are five replicates. Each patient's own response is about its cells; that "patients respond" is a
#   statement about patients, and `differential_abundance(..., sample_key="patient_id")` tests it, paired within
#   patients.
# - Unsupported cells: where a patient's treated and untreated cells hardly overlap, sizes are extrapolations.
# - Driver genes describe the embedding. They are no test of a gene; for that, compare pseudobulks.

# %%
adata.obs.groupby("patient_id", observed=True)["response_support"].mean().round(2)
