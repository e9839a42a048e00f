"""Distributions whose log ratio is known in closed form."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData


def gaussians(*, n_cells: int = 3_000, n_dims: int = 10, distance: float = 1.0, random_state: int = 0) -> AnnData:
    r"""Control cells from N(0, I), treated cells from N(distance, I): the paper's first benchmark.

    Parameters
    ----------
    n_cells, n_dims
        Size; half of the cells are treated, at random.
    distance
        Difference of the means in every dimension.
    random_state
        Seed.

    Returns
    -------
    AnnData with ``obsm["X_pca"]``, ``obs["condition"]`` (``"treated"``, ``"control"``) and ``obs["true_log_ratio"]``,
    :math:`\log p(x | treated) - \log p(x | control) = \delta \sum_i x_i - d \delta^2 / 2` in nats.

    Examples
    --------
    >>> import scratio
    >>> scratio.datasets.gaussians(n_cells=100, n_dims=2).obsm["X_pca"].shape
    (100, 2)
    """
    rng = np.random.default_rng(random_state)
    treated = rng.integers(0, 2, n_cells)
    x = rng.normal(size=(n_cells, n_dims)) + distance * treated[:, None]
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(np.where(treated == 1, "treated", "control")),
            "true_log_ratio": distance * x.sum(1) - 0.5 * n_dims * distance**2,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    return AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})
