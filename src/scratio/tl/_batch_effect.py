"""Batch effect: how much more frequent a cell's state is in its own batch than in all batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_list_like

from scratio._check import check_anndata, check_categories, check_embedding, check_unique_names, source_of, warn_user
from scratio._modality import takes_modality
from scratio._progress import expect_work, one_bar
from scratio.model import OWN
from scratio.tl._cross_fit import FitSettings, fit_model, score, supported, with_columns
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._write import begin, check_key_added, finish, history_tables, record, training_of

COLUMNS = ("n_cells", "mean", "median", "median_magnitude", "ceiling", "batches_left")
"""What the summary says of the cells of a row."""
MOST_LEFT_OUT = 0.05
"""Share of cells without a score that is usual: small batches of rare types."""


@takes_modality
@one_bar("measuring the batch effect")
def batch_effect(
    adata: AnnData,
    *,
    batch_key: str,
    label_key: str | None = None,
    use_rep: str | Sequence[str] = "X_pca",
    n_folds: int = 5,
    method: str = "auto",
    key_added: str = "batch_effect",
    random_state: int = 0,
    copy: bool = False,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
    mod: str | None = None,
) -> AnnData | None:
    r"""Measure per cell how much more likely its state is in its own batch than in all batches.

    .. math:: \log r(x) = \log p(x | batch, label) - \log p(x | label)

    in nats (arXiv 2602.24201, section 5.2). The log ratio is 0 where the batch cannot be told from the cell, which is
    the aim of a batch correction. It is positive where cells of one batch lie together. Every cell is scored by
    networks that did not see it. So the mean is not positive if there is no batch effect. The mean over cells estimates
    the mutual information of a cell's place and its batch within labels. It cannot exceed the entropy of the batch
    within labels, which is log(K) for K batches of equal size.

    Parameters
    ----------
    adata
        Cells.
    batch_key
        Column of ``obs`` with the batch.
    label_key
        Column with the cell type or another label that is held fixed. Without it, each batch is compared with all
        cells. Give a label if you can: batches also differ in their shares of cell types, which is not a batch effect.
    use_rep
        Embedding in ``obsm``, or several to compare, such as ``["X_pca", "X_pca_harmony"]``; ``"X"`` is ``adata.X``.
    n_folds
        Cross-fitting folds, at least 2.
    method
        Estimator, see :meth:`scratio.model.ScRatio.log_ratio`.
    key_added
        Prefix of the results.
    random_state
        Seed of all random numbers.
    copy
        Whether to return a copy instead of writing into ``adata``.
    model_kwargs, train_kwargs
        For :class:`scratio.model.ScRatio` and its :meth:`~scratio.model.ScRatio.train`.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``obs[key_added + "_log_ratio"]``, ``obs[key_added + "_std"]``
        Out-of-fold log ratio and its standard error in nats. With several embeddings the name contains the embedding:
        ``batch_effect_X_pca_log_ratio``. NaN if the cell's batch and label have fewer than ``n_folds`` cells, because
        no density can be learned from so few.
    ``obs[key_added + "_support"]``
        Whether the cell is typical both of its batch and label and of its label alone
        (:meth:`scratio.model.ScRatio.typicality`).
    ``uns[key_added]["summary"]``
        Table with a row for all cells, each batch and each label of each embedding: number of cells, mean, median, and
        median magnitude of the log ratio. ``ceiling`` is the mean that batches would have that do not overlap, the
        entropy of the batch within labels. ``batches_left`` is exp(ceiling - mean): of how many equally likely batches
        a cell may be, given its place and label. It is NaN in rows of single batches. The row of all cells also has
        the standard error of the median over batches (a jackknife that leaves out one batch at a time).
    ``uns[key_added]``
        Parameters and training history.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    TypeError
        If an embedding is sparse or not numeric.
    ValueError
        If there is only one batch, if a label is missing, if an embedding is not finite or is named twice, or if a
        column that would be overwritten was not written by scratio.

    See Also
    --------
    scratio.pl.batch_effect : Draw the distribution of the log ratio, for one or several embeddings.
    scratio.pl.embedding : Draw the log ratio on an embedding.
    scratio.get.table : Return the results as a table.
    scratio.tl.summary : Sum up the results in words.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.batch_effect(
    ...     adata, batch_key="condition", train_kwargs={"max_steps": 20, "progress_bar": False}
    ... )
    >>> list(adata.uns["batch_effect"]["summary"]["group"])
    ['all cells', 'control', 'treated']
    """
    check_anndata(adata, copy=copy)
    settings = FitSettings.checked(n_folds, method, random_state, model_kwargs, train_kwargs)
    embeddings: list[Any] = list(use_rep) if is_list_like(use_rep) else [use_rep]
    keys = [batch_key, *([label_key] if label_key is not None else [])]
    used = _cells(adata, keys, embeddings, n_folds)
    prefixes = {name: f"{key_added}_{name}" if len(embeddings) > 1 else key_added for name in embeddings}
    plan = check_key_added(
        adata,
        key_added,
        obs=[f"{prefix}_{kind}" for prefix in prefixes.values() for kind in ("log_ratio", "std", "support")],
        reads={"obs": keys, "obsm": embeddings},
    )
    shape = used.n_obs, max(source_of(used, name).shape[1] for name in embeddings)
    expect_work(shape, [used.n_obs], rounds=len(embeddings), shown=settings.shows_progress)
    columns, tables, training, history = {}, [], {}, {}
    for name, prefix in prefixes.items():
        model = fit_model(used.copy(), keys, name, settings)
        fixed = {} if label_key is None else {label_key: OWN}
        values, std = score(model, {batch_key: OWN, **fixed}, fixed, settings.method)
        columns[f"{prefix}_log_ratio"], columns[f"{prefix}_std"] = values, std
        columns[f"{prefix}_support"] = supported(model, {batch_key: OWN, **fixed}, fixed)
        tables.append(_summary(name, values, used.obs, keys))
        training[name], history[name] = training_of(model), history_tables(model.history)
    target = begin(adata, key_added, copy)
    with_columns(target, used.obs_names, columns)
    params = {"batch_key": batch_key, "label_key": label_key, "use_rep": embeddings, **vars(settings)}
    summary = pd.concat(tables, ignore_index=True)
    result = record(
        "batch_effect",
        params,
        data_fingerprint(used, embeddings, keys),
        summary=summary,
        training=training,
        history=history,
    )
    return finish(target, key_added, result, plan, copy)


def _cells(adata: AnnData, keys: list[str], embeddings: list[str], n_folds: int) -> AnnData:
    """Check the input; the cells of every batch and label that has enough of them."""
    if len(set(embeddings)) < len(embeddings) or not embeddings:
        raise ValueError(f"use_rep must name at least one embedding, each once; got {embeddings}")
    if len(set(keys)) < len(keys):
        raise ValueError(f"batch_key and label_key are both {keys[0]!r}")
    check_unique_names(adata)
    x = {name: check_embedding(adata, name) for name in embeddings}
    obs = pd.DataFrame({key: check_categories(adata, key) for key in keys})
    sizes = obs.groupby(keys, observed=True)[keys[0]].transform("size")
    rows = (sizes >= n_folds).to_numpy()
    batches = sorted(obs.loc[rows, keys[0]].unique())
    if len(batches) < 2:
        raise ValueError(
            f"obs[{keys[0]!r}] has {len(batches)} batches with at least n_folds={n_folds} cells"
            f"{' of one label' if len(keys) > 1 else ''}: {batches}; at least 2 are needed"
        )
    if rows.mean() < 1.0 - MOST_LEFT_OUT:
        warn_user(
            f"{(~rows).sum():,} of {len(rows):,} cells are not scored: their labels in obs[{keys}] have fewer than "
            f"n_folds={n_folds} cells. Are these the right columns?"
        )
    return AnnData(obs=obs[rows], obsm={name: value[rows] for name, value in x.items()})


def _summary(embedding: str, values: np.ndarray, obs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows for all cells and for each batch and label."""
    series = pd.Series(values, index=obs.index)
    batch = obs[keys[0]]
    without = np.array([series[batch != name].median() for name in batch.unique()])
    error = np.sqrt((len(without) - 1) * np.mean((without - without.mean()) ** 2))
    largest = _largest(obs, keys)
    rows = [{"by": "all", "group": "all cells", **_row(series, largest), "standard_error": float(error)}]
    for key in keys:
        rows += [{"by": key, "group": name, **_row(part, largest)} for name, part in series.groupby(obs[key])]
    table = pd.DataFrame(rows).assign(embedding=embedding)
    # Cells of one batch say nothing of how many there are.
    table["batches_left"] = np.exp(table["ceiling"] - table["mean"]).where(table["by"] != keys[0])
    return table[["embedding", "by", "group", *COLUMNS, "standard_error"]]


def _largest(obs: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Log ratio of every cell if batches did not overlap: minus the log share of its batch among cells of its label."""
    size = obs.groupby(keys, observed=True)[keys[0]].transform("size")
    of_label = obs.groupby(keys[1:], observed=True)[keys[0]].transform("size") if keys[1:] else len(obs)
    return -np.log(size / of_label)


def _row(values: pd.Series, largest: pd.Series) -> dict[str, float]:
    return {
        "n_cells": len(values),
        "mean": float(values.mean()),
        "median": float(values.median()),
        "median_magnitude": float(values.abs().median()),
        "ceiling": float(largest[values.index].mean()),
    }
