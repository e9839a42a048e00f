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
# # Combine treatments: do two stimuli do more together?
#
# Sachs et al. (2005) measured eleven signalling proteins in single T cells under combinations of stimuli. All cells
# here were stimulated through CD3 and CD28. Some were also stimulated through ICAM2, some were treated with one of five
# inhibitors, and some with both. These are five two-by-two designs. We ask two questions of every cell:
#
# - **Effect of the combination**: log p(x | inhibitor and ICAM2) - log p(x | inhibitor alone).
# - **Interaction**: log p(ab) + log p(00) - log p(a0) - log p(0b). Zero where the log densities add up; positive where
#   cells are more likely under both than the two alone would suggest.
#
# No embedding has to be computed: the eleven standardised proteins are one.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd

import scratio

adata = scratio.datasets.sachs_signaling()
adata = adata[adata.obs["stim"] == "cd3cd28"].copy()
pd.crosstab(adata.obs["inhibitor"], adata.obs["icam2"])

# %% [markdown]
# ## Train one model for all designs

# %%
inhibitors = [name for name in adata.obs["inhibitor"].unique() if name != "none"]
scratio.tl.combination_effect(
    adata,
    condition_keys=["inhibitor", "icam2"],
    combination=[(name, "icam2") for name in inhibitors],
    reference=("none", "none"),
    use_rep="X_scaled",
)
summary = scratio.get.table(adata, key="combination")
summary.set_index("combination")[
    ["over", "n_combination", "mean", "mean_magnitude", "mean_interaction", "classifier_magnitude"]
].round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
scratio.pl.combination_effect(adata, ax=axes[0])
scratio.pl.combination_effect(adata, value="mean_interaction", ax=axes[1])

# %% [markdown]
# `mean` is over the cells of the combination, so it is positive where ICAM2 changes the cells at all. `mean_magnitude`
# compares the pairs. `classifier_magnitude` is the second opinion of a cross-validated classifier on these cells: its
# log odds should order the pairs alike.
#
# ## Know when not to believe a number
#
# Several of these conditions hardly overlap: every cell can be assigned without error. The log ratio is then large, and
# its size is an extrapolation. Support says for how many cells this is so.

# %%
support = pd.Series(
    {
        f"{name}+icam2": adata.obs.loc[adata.obs["inhibitor"] == name, f"combination_{name}+icam2_support"].mean()
        for name in inhibitors
    },
    name="supported",
)
summary.set_index("combination")[["mean_magnitude"]].join(support).sort_values("supported").round(2)

# %% [markdown]
# - **A pair with little support**: say that the conditions differ, but not by how much.
# - **This file is for learning.** The details of the public file call the five sets of ICAM2 with an inhibitor
#   simulated. Besides, two pairs of conditions have equal values of Raf and Mek in every row
#   (`scratio.datasets.sachs_signaling` says which). No analysis of conditions notices such things, so look at your data
#   before you look at a result.
# - **Every condition here is one run of the cytometer.** An effect of the run looks like an effect of a drug. Only
#   repeated runs can tell the two apart.
#
# ## Ask any other question
#
# The analyses are shorthand. A model of your own answers any contrast of the registered keys. It averages over a key
# that is left out.

# %%
scratio.model.ScRatio.setup_anndata(adata, obsm_key="X_scaled", condition_keys=["inhibitor", "icam2"])
model = scratio.model.ScRatio(adata)
model.train()
model

# %%
scratio.tl.log_ratio(  # ICAM2 or not, whatever the inhibitor
    adata, model, numerator={"icam2": "icam2"}, denominator={"icam2": "none"}, key_added="icam2_effect"
)
adata.obs.groupby(["inhibitor", "icam2"], observed=True)["icam2_effect"].mean().unstack().round(2)
