"""Which genes change along the gradient of the log ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._check import check_anndata, check_categories, check_embedding, source_name
from scratio._constants import X
from scratio._modality import takes_modality
from scratio.conditions import ConditionDict
from scratio.model import ScRatio
from scratio.tl._fingerprint import scored_fingerprint
from scratio.tl._write import begin, check_key_added, finish, record

Decoder = str | np.ndarray | Callable[[np.ndarray], np.ndarray]
PCS = "PCs"
"""Where scanpy.pp.pca writes the loadings."""
BATCH, STEP = 1_024, 1e-2
"""Cells decoded at once; length of a step along the gradient, in standard deviations of the embedding."""


@takes_modality
def driver_genes(
    adata: AnnData,
    model: ScRatio,
    *,
    numerator: ConditionDict,
    denominator: ConditionDict,
    groupby: str | None = None,
    decoder: Decoder = PCS,
    noise_level: float = 0.1,
    key_added: str = "drivers",
    copy: bool = False,
    mod: str | None = None,
) -> AnnData | None:
    r"""Rank genes by how fast the log ratio grows or falls along them, averaged over groups of cells.

    .. math:: d_g = E\Bigl[\bigl(J(x)\, \nabla_x \log r(x)\bigr)_g\Bigr]

    The gradient of the log ratio is the difference of two scores at a small noise level. J is the Jacobian of the map
    from the embedding to the genes; for principal components it holds their loadings. A positive value means that more
    of the gene makes the numerator more likely. The ranking describes the embedding. It is not a test of a gene.

    Parameters
    ----------
    adata
        Cells with the model's embedding. Training cells of a cross-fitted model are judged by networks that did not see
        them.
    model
        Trained :class:`scratio.model.ScRatio`.
    numerator, denominator
        Conditions, as in :meth:`scratio.model.ScRatio.log_ratio`.
    groupby
        Column of ``obs`` with groups to average over. By default all cells are one group.
    decoder
        Key of ``varm`` with the loadings, shape (n_vars, at least d), of which the first d columns are used; an array
        of that shape; or a function from embedding (n, d) to genes (n, n_vars), such as an autoencoder's. If the
        model was trained on ``adata.X``, the dimensions are the genes and no decoder is needed.
    noise_level
        Noise of the scores, in standard deviations of the standardised embedding.
    key_added
        Name of the results in ``varm`` and ``uns``.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``varm[key_added]``
        Mean of every gene in every group, in nats per unit of the gene.
    ``uns[key_added]["table"]``
        A row for each group and gene: ``group``, ``gene``, ``mean`` and ``standard_error``, sorted by falling magnitude
        of the mean within each group. The standard error covers the spread of the cells and the spread of the training,
        which is measured by a jackknife over the model's members.
    ``uns[key_added]``
        Parameters.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError
        If a key is missing in ``obs``, ``varm`` or the model.
    ValueError
        If the decoder's shape does not fit, if a label is missing, or if a result that would be overwritten was not
        written by scratio.

    See Also
    --------
    scratio.pl.driver_genes : Draw bars of the first genes.
    scratio.get.table : Return the results as a table.

    Examples
    --------
    >>> import numpy as np
    >>> import scanpy as sc
    >>> import scratio
    >>> adata = scratio.datasets.pbmc68k_planted()
    >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=["treatment"])
    >>> model = scratio.model.ScRatio(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> scratio.tl.driver_genes(
    ...     adata, model, numerator={"treatment": "treated"}, denominator={"treatment": "control"}
    ... )
    >>> list(adata.uns["drivers"]["table"].columns)
    ['group', 'gene', 'mean', 'standard_error']
    """
    check_anndata(adata, copy=copy)
    groups = pd.Series("all cells", index=adata.obs_names) if groupby is None else check_categories(adata, groupby)
    tables = {} if groupby is None else {groupby: sorted(groups.unique())}
    plan = check_key_added(adata, key_added, varm=[key_added], tables=tables)
    x = check_embedding(adata, model.obsm_key).astype(np.float64)
    decode = _decoder(adata, decoder, model)
    gradients = model.log_ratio_gradient(adata, numerator=numerator, denominator=denominator, noise_level=noise_level)
    factor = model.variance_factor
    means, errors = {}, {}
    for group in sorted(groups.unique()):
        rows = np.flatnonzero(groups == group)
        means[group], errors[group] = _average(decode, x[rows], gradients[:, rows], factor)
    table = pd.concat([_rows(adata, group, means[group], errors[group]) for group in means], ignore_index=True)
    target = begin(adata, key_added, copy)
    target.varm[key_added] = pd.DataFrame(means, index=adata.var_names)
    params = {
        "numerator": numerator,
        "denominator": denominator,
        "groupby": groupby,
        "decoder": decoder if isinstance(decoder, str) else type(decoder).__name__,
        "noise_level": noise_level,
    }
    result = record("driver_genes", params, scored_fingerprint(adata, model), table=table)
    return finish(target, key_added, result, plan, copy)


Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From cells and directions, both (n, d), to the change of the genes along them, (n, n_vars)."""


def _decoder(adata: AnnData, decoder: Decoder, model: ScRatio) -> Decode:
    d, scale = len(model.location), float(np.mean(model.scale))
    if isinstance(decoder, str) and decoder == PCS and source_name(adata, model.obsm_key) == X:
        return lambda x, direction: direction
    if callable(decoder):

        def along(x: np.ndarray, direction: np.ndarray) -> np.ndarray:
            # A central difference over a step of fixed length, so that steep gradients do not leave the data.
            length = np.linalg.norm(direction, axis=1, keepdims=True)
            step = STEP * scale * direction / np.maximum(length, 1e-300)
            change = np.asarray(decoder(x + step)) - np.asarray(decoder(x - step))
            if change.shape != (len(x), adata.n_vars):
                raise ValueError(f"decoder gives shape {change.shape} for {len(x)} cells and {adata.n_vars} genes")
            return change * length / (2.0 * STEP * scale)

        return along
    if isinstance(decoder, str) and decoder not in adata.varm:
        raise KeyError(
            f"varm has no key {decoder!r}; found: {list(adata.varm)}. scanpy.pp.pca(adata) writes 'PCs'; for another "
            "embedding pass decoder as an array or a function"
        )
    loadings = np.asarray(adata.varm[decoder] if isinstance(decoder, str) else decoder, dtype=np.float64)
    if loadings.ndim != 2 or loadings.shape[0] != adata.n_vars or loadings.shape[1] < d:
        raise ValueError(f"decoder must have shape ({adata.n_vars}, at least {d}), got {loadings.shape}")
    return lambda x, direction: direction @ loadings[:, :d].T


def _average(decode: Decode, x: np.ndarray, gradients: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the cells of a group and its standard error, from the gradients of all members."""
    n_members, n = gradients.shape[:2]
    mean = gradients.mean(0)
    parts: Any = []
    for start in range(0, n, BATCH):
        rows = slice(start, start + BATCH)
        change = decode(x[rows], mean[rows])
        by_member = [decode(x[rows], gradients[m, rows]).sum(0) for m in range(n_members)]
        parts.append((change.sum(0), (change**2).sum(0), np.stack(by_member)))
    total, square, by_member = (np.sum([part[k] for part in parts], axis=0) for k in range(3))
    average = total / n
    variance = np.maximum(square / n - average**2, 0.0) / max(n - 1, 1)
    if n_members > 1:
        variance = variance + (by_member / n).var(axis=0, ddof=1) * factor
    return average, np.sqrt(variance)


def _rows(adata: AnnData, group: str, mean: np.ndarray, error: np.ndarray) -> pd.DataFrame:
    order = np.argsort(-np.abs(mean), kind="stable")
    return pd.DataFrame(
        {
            "group": group,
            "gene": adata.var_names[order].astype(str),
            "mean": mean[order],
            "standard_error": error[order],
        }
    )
