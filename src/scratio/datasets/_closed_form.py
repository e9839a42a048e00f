"""Distributions whose log ratio is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import logsumexp
from scipy.stats import norm


def gaussians(*, n_cells: int = 3_000, n_dims: int = 10, distance: float = 1.0, random_state: int = 0) -> AnnData:
    r"""Draw control cells from N(0, I) and treated cells from N(distance, I), the first benchmark of arXiv 2602.24201.

    Parameters
    ----------
    n_cells, n_dims
        Numbers of cells and dimensions. Each cell is treated with probability 1/2.
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


def correlated_gaussians(
    *, n_cells: int = 3_000, n_dims: int = 20, rho: float = 0.8, random_state: int | np.random.Generator = 0
) -> AnnData:
    r"""Draw cells whose pairs of dimensions are correlated in treated cells and independent in control cells.

    This is the mutual-information task of arXiv 2602.24201. Dimensions 0 and 1, 2 and 3, and so on are standard normal
    in both conditions. Their correlation is ``rho`` in treated cells and 0 in control cells. Treated cells thus come
    from a joint distribution, and control cells from the product of its marginals. The mean log ratio of treated cells
    is the mutual information between the even and the odd dimensions, :math:`-\frac d4 \log(1 - \rho^2)` nats.

    Parameters
    ----------
    n_cells
        Number of cells. Each cell is treated with probability 1/2.
    n_dims
        Number of dimensions, which must be even.
    rho
        Correlation in treated cells, strictly between -1 and 1.
    random_state
        Seed or generator.

    Returns
    -------
    AnnData with ``obsm["X_pca"]`` (float32, shape ``(n_cells, n_dims)``), ``obs["condition"]`` (``"treated"``,
    ``"control"``) and ``obs["true_log_ratio"]``, :math:`\log p(x | treated) - \log p(x | control)` in nats.

    Raises
    ------
    ValueError
        If ``n_dims`` is odd or less than 2, or ``rho`` is not strictly between -1 and 1.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.correlated_gaussians(n_cells=10_000, n_dims=4, rho=0.8)
    >>> treated = adata.obs.loc[adata.obs["condition"] == "treated", "true_log_ratio"]
    >>> bool(abs(treated.mean() - 1.02) < 0.1)  # -4 / 4 log(1 - .8^2)
    True
    """
    if n_dims < 2 or n_dims % 2:
        raise ValueError(f"n_dims must be an even number of at least 2, because dimensions come in pairs; got {n_dims}")
    if not -1.0 < rho < 1.0:
        raise ValueError(f"rho must lie strictly between -1 and 1, got {rho}")
    rng = np.random.default_rng(random_state)
    is_treated = rng.uniform(size=n_cells) < 0.5
    x = rng.normal(size=(n_cells, n_dims))
    x[is_treated, 1::2] = rho * x[is_treated, 0::2] + math.sqrt(1.0 - rho**2) * x[is_treated, 1::2]
    x = x.astype(np.float32)
    first, second = x[:, 0::2].astype(float), x[:, 1::2].astype(float)
    # log N(second; rho first, 1 - rho^2) - log N(second; 0, 1), pair by pair: the density of first cancels.
    truth = norm.logpdf(second, rho * first, math.sqrt(1.0 - rho**2)) - norm.logpdf(second)
    return _labelled(x, is_treated, truth.sum(1))


def mixture(
    *,
    n_cells: int = 3_000,
    n_dims: int = 10,
    weights_treated: Sequence[float] = (0.1, 0.2, 0.3, 0.4),
    weights_control: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
    spread: float = 1.2,
    shift: float = 0.3,
    shape_state: int | np.random.Generator = 0,
    random_state: int | np.random.Generator = 0,
) -> AnnData:
    r"""Draw Gaussian cell types whose proportions and positions differ between treated and control cells.

    Cells of type :math:`k` come from :math:`N(m_k + \delta_k 1_{treated}, \operatorname{diag} s_k^2)`. In every
    dimension the centres :math:`m_k` are drawn from :math:`N(0, spread^2)`, the shifts :math:`\delta_k` from
    :math:`N(0, shift^2)`, and :math:`\log s_k` from :math:`N(0, 0.3^2)`.

    Parameters
    ----------
    n_cells, n_dims
        Numbers of cells and dimensions. Each cell is treated with probability 1/2.
    weights_treated, weights_control
        Share of every cell type in treated and in control cells: one number for each type, not negative, with sum 1.
    spread
        Standard deviation of the centres of the types in every dimension.
    shift
        Standard deviation of the shifts of treated cells in every dimension. With 0 only the shares differ.
    shape_state
        Seed or generator of the centres, shifts and scales.
    random_state
        Seed or generator of the cells. To draw new cells of these types, change it and keep ``shape_state``.

    Returns
    -------
    AnnData with ``obsm["X_pca"]`` (float32, shape ``(n_cells, n_dims)``), ``obs["condition"]`` (``"treated"``,
    ``"control"``), ``obs["cell_type"]`` (``"type0"``, ``"type1"``, ...) and ``obs["true_log_ratio"]``,
    :math:`\log p(x | treated) - \log p(x | control)` in nats. Each density is that of the whole mixture, because
    the cell type is not given. ``uns["mixture"]`` holds ``means`` and ``weights``, each by condition, and ``scales``.
    Types are rows.

    Raises
    ------
    ValueError
        If the weights of a condition are not shares with sum 1, or their number differs between the conditions.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.mixture(n_cells=100, weights_treated=(0.2, 0.8), weights_control=(0.5, 0.5))
    >>> list(adata.obs["cell_type"].cat.categories)
    ['type0', 'type1']
    """
    weights = _shares(weights_treated=weights_treated, weights_control=weights_control)
    n_types = weights.shape[1]
    shape = np.random.default_rng(shape_state)
    centres = spread * shape.normal(size=(n_types, n_dims))
    moves = shift * shape.normal(size=(n_types, n_dims))
    scales = np.exp(0.3 * shape.normal(size=(n_types, n_dims)))
    means = np.stack([centres + moves, centres])  # in the order of the weights

    rng = np.random.default_rng(random_state)
    is_treated = rng.uniform(size=n_cells) < 0.5
    condition = np.where(is_treated, 0, 1)
    # A share of 0 is never drawn: its interval of the cumulative shares is empty.
    kind = (rng.uniform(size=(n_cells, 1)) >= np.cumsum(weights, axis=1)[condition, :-1]).sum(1)
    x = (means[condition, kind] + scales[kind] * rng.normal(size=(n_cells, n_dims))).astype(np.float32)
    log_p = [_log_mixture(x.astype(float), w, m, scales) for w, m in zip(weights, means, strict=True)]
    adata = _labelled(x, is_treated, log_p[0] - log_p[1])
    adata.obs.insert(1, "cell_type", pd.Categorical([f"type{k}" for k in kind]))
    by_condition = ("treated", "control")
    adata.uns["mixture"] = {
        "means": dict(zip(by_condition, means, strict=True)),
        "scales": scales,
        "weights": dict(zip(by_condition, weights, strict=True)),
    }
    return adata


def _shares(**weights: Sequence[float]) -> np.ndarray:
    """Weights as an array of shape ``(2, n_types)``; refused if they are not shares of the same types."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in weights.items()}
    for name, array in arrays.items():
        if array.ndim != 1 or not np.isclose(array.sum(), 1.0) or (array < 0.0).any():
            raise ValueError(f"{name} must be numbers of at least 0 with sum 1, one for each type; got {weights[name]}")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"both conditions need a weight for every type (0 where it is absent), got {lengths}")
    return np.stack([array / array.sum() for array in arrays.values()])


def _log_mixture(x: np.ndarray, weights: np.ndarray, means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Log density in nats, shape ``(n,)``, of cells ``(n, d)`` under types ``(k, d)`` of the weights ``(k,)``."""
    each = [norm.logpdf(x, mean, scale).sum(1) for mean, scale in zip(means, scales, strict=True)]
    return logsumexp(each, axis=0, b=weights[:, None])


def _labelled(x: np.ndarray, is_treated: np.ndarray, truth: np.ndarray) -> AnnData:
    """Cells with their condition and their true log ratio, which is that of the stored numbers."""
    obs = pd.DataFrame(
        {"condition": pd.Categorical(np.where(is_treated, "treated", "control")), "true_log_ratio": truth},
        index=[f"cell{i}" for i in range(len(x))],
    )
    return AnnData(obs=obs, obsm={"X_pca": x})
