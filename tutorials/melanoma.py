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
# # Replicates and significance: who responds to checkpoint therapy?
#
# Sade-Feldman et al. (2018) sequenced immune cells of melanoma patients under checkpoint therapy. Some patients
# responded, some did not. Which immune cells do responders have more of?
#
# The trap in such data: 16,000 cells look like a lot of evidence, but they come from 32 patients, and patients differ
# for many reasons. What holds for new patients can only be learnt across patients. scratio therefore tests across
# samples, never across cells, and scores every cell with networks that saw no cell of its patient.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import scratio

adata = scratio.datasets.melanoma_icb()
adata.obs["response"] = adata.obs["condition"].map({"R": "responder", "NR": "non-responder"}).astype(str)
adata.obs.groupby("response", observed=True).agg(cells=("patient", "size"), patients=("patient", "nunique"))

# %% [markdown]
# ## Score and test
#
# `sample_key` names the replicates. Most of the comparison lies between patients, so patients are compared with each
# other. Some have lesions of both kinds: each of them takes part with the kind of which it has more cells, and a
# warning names what is left out of the test. All cells are still scored.

# %%
scratio.tl.differential_abundance(
    adata,
    condition_key="response",
    treatment="responder",
    reference="non-responder",
    sample_key="patient",
    train_kwargs={"progress_bar": False},
)
scratio.tl.summary(adata)

# %%
fig, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
scratio.pl.embedding(adata, basis="X_tsne", title="log ratio (nats)", ax=axes[0])
significant = (adata.obs["da_qvalue"] < 0.1).to_numpy()
xy = adata.obsm["X_tsne"]
axes[1].scatter(*xy[~significant].T, s=2, c="0.85", linewidths=0)
axes[1].scatter(*xy[significant].T, s=2, c="#d55e00", linewidths=0)
axes[1].set(title=f"q < 0.1: {significant.sum():,} cells", xticks=[], yticks=[])
scratio.pl.calibration(adata, ax=axes[2], show=True)

# %% [markdown]
# A q-value of .1 says: of all cells called at this threshold, a tenth is expected to be called wrongly. It belongs to a
# cell's neighbourhood of similar cells. What is compared between patients is how many of a patient's cells lie near it,
# given how many the patient has in all. `da_effect` is that difference in nats.
#
# ## Regions with names
#
# Significant neighbourhoods that touch and agree in sign are joined. Without cell types at hand they are numbered; with
# `annotation_key` they take the name of the type that most of their cells have. `samples_agreeing` counts the patients
# that show the difference themselves.

# %%
scratio.tl.regions(adata)
adata.uns["da"]["regions"].round(3)

# %% [markdown]
# ## What a test that takes cells for replicates would have said
#
# The same comparison of two groups, cell by cell, with a test that counts cells: for a fair comparison on labels that
# mean nothing, patients are dealt to two groups at random.

# %%
from scipy.stats import fisher_exact

tested = adata.obs[adata.obs["da_neighborhood"].notna()]
patients = tested["patient"].unique()
rng = np.random.default_rng(0)
rates = []
for _ in range(20):
    group = pd.Series(rng.permutation(np.arange(len(patients)) % 2), index=patients)
    side = tested["patient"].map(group).astype(int)
    inside = pd.crosstab(tested["da_neighborhood"], side)
    total = side.value_counts()
    p = [fisher_exact([[a, total[0] - a], [b, total[1] - b]]).pvalue for a, b in inside[[0, 1]].to_numpy()]
    rates.append(np.mean(np.array(p) < 0.05))
print(
    f"neighbourhoods with p < .05 where nothing differs, cells as replicates: {np.mean(rates):.0%} (5% would be right)"
)

# %% [markdown]
# That share is what "significant" would be worth with cells as replicates. How often scratio's own test is wrong
# without an effect, and how often it is right with one, was measured on simulated cohorts: see the page of benchmarks.
#
# ## When not to believe it
#
# - Fewer than three samples per group: scratio gives p-values but no q-values.
# - A variable that goes along with the response (the centre, the age, the time of the biopsy) explains a difference
#   just as well. Hold a property of the patients fixed in the test with `covariates="~ age + C(centre)"`.
#   `covariate_keys` holds labels of cells fixed in the log ratio too, if every group has cells of each label.
# - One patient may carry a difference alone: `carried_by` in `adata.uns["da"]["neighborhoods"]` and the verdict name
#   the patient.
# - The verdict above says by how much standard errors had to be enlarged because patients differ.
