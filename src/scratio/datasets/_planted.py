"""Real cells with labels drawn at a known probability, so that the log ratio of every cell is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

LEVELS = (0.1, 0.2, 0.35, 0.5, 0.5, 0.65, 0.8, 0.9)


def plant_labels(
    adata: AnnData, *, groupby: str, key_added: str = "treatment", levels: tuple = LEVELS, random_state: int = 0
) -> None:
    r"""Label cells "treated" with a probability that depends only on their group (arXiv 2602.24201, section 5.3).

    Groups get the levels in random order. Levels are repeated if there are more groups than levels. The true log
    ratio of a cell is :math:`\log \frac{p_k}{1 - p_k} - \log \frac{\bar p}{1 - \bar p}`, where :math:`p_k` is the level
    of its group and :math:`\bar p` the mean level over the cells.

    Parameters
    ----------
    adata
        Cells. The function adds ``obs[key_added]`` (``"treated"``, ``"control"``), the probability
        ``obs[key_added + "_probability"]``, and ``obs["true_log_ratio"]`` in nats.
    groupby
        Column of ``obs`` with the groups.
    key_added
        Name of the label.
    levels
        Probabilities, each strictly between 0 and 1.
    random_state
        Seed.

    Raises
    ------
    KeyError
        If ``groupby`` is missing.
    ValueError
        If a level is not strictly between 0 and 1, or a column that would be written exists.

    See Also
    --------
    scratio.datasets.pbmc68k_planted : Real cells with planted labels.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=100, n_dims=2)
    >>> del adata.obs["true_log_ratio"]
    >>> scratio.datasets.plant_labels(adata, groupby="condition", key_added="planted")
    >>> sorted(adata.obs["planted"].unique())
    ['control', 'treated']
    """
    if groupby not in adata.obs:
        raise KeyError(f"obs has no key {groupby!r}; found: {list(adata.obs.columns)}")
    if not all(0.0 < level < 1.0 for level in levels):
        raise ValueError(f"levels must lie strictly between 0 and 1, got {levels}")
    probability_key = f"{key_added}_probability"
    taken = {key_added, probability_key, "true_log_ratio"} & set(adata.obs.columns)
    if taken:
        raise ValueError(f"obs has {sorted(taken)} already; remove them or choose another key_added")
    rng = np.random.default_rng(random_state)
    codes, groups = pd.factorize(adata.obs[groupby], sort=True)
    p = rng.permutation(np.resize(levels, len(groups)))[codes]
    treated = rng.uniform(size=len(p)) < p
    adata.obs[key_added] = pd.Categorical(np.where(treated, "treated", "control"))
    adata.obs[probability_key] = p
    adata.obs["true_log_ratio"] = np.log(p / (1.0 - p)) - np.log(p.mean() / (1.0 - p.mean()))


def pbmc68k_planted(*, random_state: int = 0) -> AnnData:
    """Load 700 real PBMCs that ship with scanpy, with labels planted by cell type; needs no network.

    Parameters
    ----------
    random_state
        Seed of the labels.

    Returns
    -------
    AnnData with ``obsm["X_pca"]`` (50), ``obsm["X_umap"]``, ``obs["bulk_labels"]`` (10 cell types), and what
    :func:`plant_labels` adds.

    See Also
    --------
    scratio.datasets.plant_labels : Plant labels in other cells.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.pbmc68k_planted()
    >>> adata.n_obs
    700
    """
    adata = sc.datasets.pbmc68k_reduced()
    plant_labels(adata, groupby="bulk_labels", random_state=random_state)
    return adata
