"""The log ratio as a curve over a continuous covariate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._check import check_anndata, check_categories, check_numbers
from scratio._modality import takes_modality
from scratio.model import ScRatio
from scratio.stats import mean_and_error
from scratio.tl._cross_fit import score
from scratio.tl._fingerprint import scored_fingerprint
from scratio.tl._write import begin, check_key_added, finish, record

N_VALUES = 21


@takes_modality
def covariate_curve(
    adata: AnnData,
    model: ScRatio,
    *,
    covariate_key: str,
    reference: float,
    values: Sequence[float] | None = None,
    groupby: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    method: str = "auto",
    key_added: str = "curve",
    copy: bool = False,
    mod: str | None = None,
) -> AnnData | None:
    r"""Compare values of a covariate with a reference value, and average the log ratio over groups of cells.

    .. math:: \log p(x | v, fixed) - \log p(x | v_{ref}, fixed)

    in nats, for a dose, an age or a time v. The curve is above 0 where the cells of a group are more likely at v than
    at the reference.

    Parameters
    ----------
    adata
        Cells with the model's embedding. Training cells of a cross-fitted model are scored by networks that did not see
        them.
    model
        Trained :class:`scratio.model.ScRatio` with ``covariate_key`` among its ``continuous_keys``.
    covariate_key
        Continuous key of the model, and column of ``obs``, with the covariate.
    reference
        Value of the covariate in the denominator.
    values
        Values at which the curve is computed. By default these are 21 quantiles of ``obs[covariate_key]``, without
        repeats.
    groupby
        Column of ``obs`` with groups to average over. By default all cells are one group.
    fixed
        Conditions of both the numerator and the denominator, such as ``{"donor": scratio.OWN}``.
    method
        Estimator, see :meth:`scratio.model.ScRatio.log_ratio`.
    key_added
        Name of the results in ``uns``.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``uns[key_added]["table"]``
        A row for each group and value: ``group``, ``value``, ``mean``, ``standard_error`` and ``n_cells``. The standard
        error covers the spread of the cells and the standard error of their log ratios. The latter is treated as one
        error shared by all cells.
    ``uns[key_added]``
        Parameters.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError
        If a key is missing or not registered.
    ValueError
        If ``covariate_key`` is not continuous, if it is among ``fixed``, if no value is given, or if ``uns[key_added]``
        was not written by scratio.

    See Also
    --------
    scratio.pl.covariate_curve : Draw a line for each group.
    scratio.get.table : Return the results as a table.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["dose"] = np.random.default_rng(0).uniform(0.0, 10.0, 600)
    >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=[], continuous_keys=["dose"])
    >>> model = scratio.model.ScRatio(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=0.0, values=[1.0, 5.0])
    >>> adata.uns["curve"]["table"]["value"].tolist()
    [1.0, 5.0]
    """
    check_anndata(adata, copy=copy)
    fixed = dict(fixed or {})
    _check_covariate(model, covariate_key, fixed)
    plan = check_key_added(adata, key_added)
    if values is None:
        observed = check_numbers(adata, covariate_key)
        values = np.unique(np.quantile(observed, np.linspace(0.0, 1.0, N_VALUES))).tolist()
    if not len(values):
        raise ValueError("values is empty; name at least one value of the covariate")
    groups = pd.Series("all cells", index=adata.obs_names) if groupby is None else check_categories(adata, groupby)
    rows = []
    for value in values:
        ends = {**fixed, covariate_key: value}, {**fixed, covariate_key: reference}
        rows += _rows(model, adata, value, groups, ends, method)
    table = pd.DataFrame(rows).sort_values(["group", "value"], ignore_index=True)
    target = begin(adata, key_added, copy)
    params = {
        "covariate_key": covariate_key,
        "reference": reference,
        "groupby": groupby,
        "fixed": fixed,
        "method": method,
    }
    result = record("covariate_curve", params, scored_fingerprint(adata, model), table=table)
    return finish(target, key_added, result, plan, copy)


def _check_covariate(model: ScRatio, covariate_key: str, fixed: Mapping[str, Any]) -> None:
    if covariate_key not in model.schema.continuous:
        raise ValueError(
            f"covariate_key {covariate_key!r} is not a continuous key of the model; it has "
            f"{list(model.schema.continuous)}: register it with setup_anndata(continuous_keys=[...])"
        )
    if covariate_key in fixed:
        raise ValueError(f"fixed holds the covariate_key {covariate_key!r}")


def _rows(
    model: ScRatio,
    adata: AnnData,
    value: float,
    groups: pd.Series,
    ends: tuple[dict[str, Any], dict[str, Any]],
    method: str,
) -> list[dict[str, Any]]:
    """One value of the covariate: a row for each group."""
    ratio, std = score(model, *ends, method, adata=adata)
    rows = []
    for group in sorted(groups.unique()):
        cells = (groups == group).to_numpy()
        mean, error = mean_and_error(ratio[cells], std[cells])
        rows.append(
            {"group": group, "value": float(value), "mean": mean, "standard_error": error, "n_cells": int(cells.sum())}
        )
    return rows
