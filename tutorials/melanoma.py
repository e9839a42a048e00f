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
# # Test across patients: who responds to checkpoint therapy?
#
# Sade-Feldman et al. (2018) sequenced immune cells of melanoma patients under checkpoint therapy. Some patients
# responded, and some did not. Which immune cells do responders have more of?
#
# 16,000 cells look like a lot of evidence, but they come from 32 patients, and patients differ for many reasons. Only a
# comparison of patients can say what holds for new patients. So scratio tests across samples, never across cells. It
# also scores every cell with networks that have seen no cell of its patient.

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
# `sample_key` names the replicates. Most of the comparison lies between patients, so scratio compares patients with
# each other. Some patients have lesions of both kinds. Such a patient takes part in the test with the kind of which it
# has more cells, and a warning names the cells that are left out of the test. All cells are scored.

# %%
scratio.tl.differential_abundance(
    adata, condition_key="response", treatment="responder", reference="non-responder", sample_key="patient"
)
scratio.tl.summary(adata)

# %% [markdown]
# ## See what was tested
#
# scratio counts how many of a patient's cells lie near a neighbourhood of similar cells, given how many cells the
# patient has in all. `da_effect` is the difference between responders and non-responders, in nats. A q-value of 0.1
# says: if you call all cells up to this value, expect one in ten calls to be wrong.

# %%
fig, axes = plt.subplots(1, 3, figsize=(16, 4.5), layout="constrained")
scratio.pl.embedding(adata, basis="tsne", title="log ratio", ax=axes[0])
scratio.pl.neighborhoods(adata, basis="tsne", title="effect of neighbourhoods", ax=axes[1])
scratio.pl.volcano(adata, ax=axes[2])

# %% [markdown]
# ## Join neighbourhoods to regions
#
# `tl.regions` joins significant neighbourhoods that touch and have one sign. Without cell types the regions are
# numbered. With `annotation_key` they take names from the annotation. `samples_agreeing` counts the patients who show
# the difference themselves.

# %%
scratio.tl.regions(adata)
columns = ["region", "n_cells", "effect", "qvalue", "mean_log_ratio", "samples_agreeing", "n_samples"]
scratio.get.regions(adata)[columns].round(3)

# %%
largest = scratio.get.regions(adata)["region"].iloc[0]
fig, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
scratio.pl.regions(adata, basis="tsne", ax=axes[0])
scratio.pl.samples(adata, region=largest, ax=axes[1])

# %% [markdown]
# The right plot answers a question of every reviewer: does one patient carry this region? Each point is a patient, and
# its height is the share of this patient's cells that lie in the region.
#
# ## Believe the test, but not more than the test
#
# What would a test have said that takes cells for replicates? For a comparison on labels without meaning, we deal the
# patients to two groups at random, and compare the groups with a test that counts cells.

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
print(f"Without any difference, {np.mean(rates):.0%} of the neighbourhoods have p < 0.05 if cells are replicates.")

# %% [markdown]
# 5% would be right. The page of benchmarks shows how often scratio's test is wrong without a difference, and how often
# it is right with one.
#
# ## Know when not to believe it
#
# - With fewer than three samples per group there are p-values but no q-values.
# - A variable that goes along with the response (the centre, the age, the time of the biopsy) explains a difference
#   just as well. Hold a property of the patients fixed with `covariates="~ age + C(centre)"`. Hold a label of cells
#   fixed in the log ratio with `covariate_keys`, if every group has cells of each label.
# - One patient may carry a difference alone. `carried_by` in `scratio.get.neighborhoods(adata)` and the verdict name
#   this patient.
# - The verdict says by how much the standard errors were enlarged because patients differ.
