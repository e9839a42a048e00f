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
# # Combinations: do two stimuli do more together?
#
# Sachs et al. (2005) measured eleven signalling proteins in single T cells under combinations of stimuli. All cells
# here were stimulated through CD3 and CD28; some also through ICAM2, some with one of five inhibitors, some with both.
# That makes five two-by-two designs. We ask two questions of every cell:
#
# - **Effect of the combination**: log p(x | inhibitor and ICAM2) - log p(x | inhibitor alone).
# - **Interaction**: log p(ab) + log p(00) - log p(a0) - log p(0b). Zero where the log densities add up; positive where
#   cells are more likely under both than the two alone would suggest.
#
# There is no embedding to compute: eleven standardised proteins are one.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pandas as pd

import scratio

adata = scratio.datasets.sachs_signaling()
adata = adata[adata.obs["stim"] == "cd3cd28"].copy()
pd.crosstab(adata.obs["inhibitor"], adata.obs["icam2"])

# %% [markdown]
# ## One model for all designs

# %%
inhibitors = [name for name in adata.obs["inhibitor"].unique() if name != "none"]
scratio.tl.combination_effect(
    adata,
    condition_keys=["inhibitor", "icam2"],
    combination=[(name, "icam2") for name in inhibitors],
    reference=("none", "none"),
    use_rep="X_scaled",
    train_kwargs={"progress_bar": False},
)
summary = adata.uns["combination"]["summary"]
summary.set_index("combination")[
    ["over", "n_combination", "mean", "mean_magnitude", "mean_interaction", "classifier_magnitude"]
].round(2)

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
scratio.pl.combination_effect(adata, ax=axes[0])
scratio.pl.combination_effect(adata, value="mean_interaction", ax=axes[1], show=True)

# %% [markdown]
# `mean` is over the cells of the combination, so it is positive where ICAM2 changes the cells at all; `mean_magnitude`
# compares the pairs. `classifier_magnitude` is a cross-validated classifier's log odds on the same cells: another
# model's opinion, which should order the pairs alike.
#
# ## When not to believe a number
#
# Several of these conditions hardly overlap: every cell can be assigned without error. The log ratio is then large, and
# its size is a matter of extrapolation. Support says for how many cells that is so.

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
# - A pair with little support: say that the conditions differ, not by how much.
# - **This file is for learning.** The public file's table of details calls the five sets of ICAM2 with an inhibitor
#   simulated, and the values of Raf and Mek are the same, row by row, in two pairs of conditions
#   (`scratio.datasets.sachs_signaling` says which). Look at your data before you look at a result: no analysis of
#   conditions notices that.
# - Every condition here is one run of the cytometer. What looks like an effect of a drug may be one of the run, and no
#   analysis of the cells can tell; only repeated runs could.
#
# ## Any other question
#
# The analyses are shorthand. A model of your own answers any contrast of the registered keys; a key that is left out is
# averaged over.

# %%
scratio.model.ScRatio.setup_anndata(adata, obsm_key="X_scaled", condition_keys=["inhibitor", "icam2"])
model = scratio.model.ScRatio(adata)
model.train(progress_bar=False)
model

# %%
scratio.tl.log_ratio(  # ICAM2 or not, whatever the inhibitor
    adata, model, numerator={"icam2": "icam2"}, denominator={"icam2": "none"}, key_added="icam2_effect"
)
adata.obs.groupby(["inhibitor", "icam2"], observed=True)["icam2_effect"].mean().unstack().round(2)
