"""Comparison of scratio with other estimators: all get the same cells, folds and question."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from scratio import peers
from scratio._caller import differentiable
from scratio._check import check_anndata, check_numbers, check_spread, source_name
from scratio._modality import takes_modality
from scratio._random import child_seed
from scratio.stats import label_slope, stratified_folds
from scratio.tl._cross_fit import FitSettings, fit_model, score
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._question import Question, cells_of
from scratio.tl._write import begin, check_key_added, copied, finish, record

SCRATIO, _FOLDS = "scratio", 51
DEFAULT = (SCRATIO, "logistic", "boosting", "mlp", "qda", "knn")


@differentiable()
@takes_modality
def compare_methods(
    adata: AnnData,
    *,
    condition_key: str,
    treatment: str,
    reference: str,
    use_rep: str = "X_pca",
    methods: Sequence[str] = DEFAULT,
    method_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    truth_key: str | None = None,
    n_folds: int = 5,
    key_added: str = "comparison",
    random_state: int = 0,
    copy: bool = False,
    mod: str | None = None,
) -> AnnData | None:
    """Compare methods that estimate a log ratio per cell, and measure how well each one does out of fold.

    Parameters
    ----------
    adata
        Cells.
    condition_key
        Column of ``obs`` with the condition.
    treatment, reference
        The two categories of the condition to compare.
    use_rep
        Embedding in ``obsm``, shape (n_cells, d); ``"X"`` is ``adata.X`` itself, for example markers of a cytometer.
    methods
        ``"scratio"``, or names of ``scratio.peers.PEERS``: ``"tsm"``, ``"ctsm"``, ``"ctsm-v"`` (each with ``"-sb"``
        for the Schroedinger bridge), ``"naive"``, ``"logistic"``, ``"boosting"``, ``"mlp"``, ``"qda"``, ``"knn"``,
        ``"meld"``.
    method_kwargs
        Settings of each method by its name. Those of ``"scratio"`` are arguments of
        :meth:`scratio.model.ScRatio.train`.
    truth_key
        Column of ``obs`` with the true log ratio in nats, if it is known.
    n_folds
        Cross-fitting folds, at least 2. ``"meld"`` can only score the cells that it was fitted on, so its label loss is
        too low.
    key_added
        Name of the results in ``obsm`` and ``uns``.
    random_state
        Seed of all random numbers.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``obsm[key_added]``
        Table of log ratios in nats, cells by methods. NaN for cells of neither category.
    ``uns[key_added]["table"]``
        A row for each method: seconds, whether cells were scored out of fold, cross-entropy of the labels in nats
        (``label_loss``), its value without any log ratio (``label_loss_of_nothing``), slope of the labels on the log
        ratio, and area under the ROC curve. With ``truth_key`` also root mean square error, bias, and Pearson's and
        Spearman's correlation with the truth.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    ImportError
        If a method needs a package that is not installed.
    ValueError
        If a category is absent, if no method has a given name, or if a result that would be overwritten was not written
        by scratio.

    See Also
    --------
    scratio.pl.compare_methods : Draw the error of every method.
    scratio.get.table : Return the results as a table.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.compare_methods(
    ...     adata, condition_key="condition", treatment="treated", reference="control", methods=["qda", "knn"],
    ...     truth_key="true_log_ratio",
    ... )
    >>> list(adata.uns["comparison"]["table"]["method"])
    ['qda', 'knn']
    """
    check_anndata(adata, copy=copy)
    kwargs = _checked(methods, method_kwargs)
    settings = FitSettings.checked(n_folds, "auto", random_state, None, {"progress_bar": False})
    question = Question.parsed(adata, condition_key, treatment, reference, (), n_folds)
    used = cells_of(adata, question, use_rep, settings)
    # Not every method refuses it by itself.
    check_spread(used.obsm[use_rep], source_name(adata, use_rep))
    truth = None
    if truth_key is not None:
        truth = pd.Series(check_numbers(adata, truth_key), index=adata.obs_names).loc[used.obs_names].to_numpy()
    reads = {"obs": [condition_key, *([] if truth_key is None else [truth_key])], "obsm": [use_rep]}
    plan = check_key_added(adata, key_added, obsm=[key_added], reads=reads)
    is_treatment = (used.obs[condition_key] == question.treatments[0]).to_numpy()
    rng = np.random.default_rng(child_seed(random_state, _FOLDS))
    folds = stratified_folds(is_treatment.astype(int), n_folds, rng)
    found, rows = {}, []
    for name in methods:
        start = time.perf_counter()
        if name == SCRATIO:
            found[name] = _scratio(copied(used), question, question.treatments[0], use_rep, settings, kwargs[name])
        else:
            x = np.asarray(used.obsm[use_rep], dtype=np.float64)
            found[name] = _peer(name, x, is_treatment, folds, {"random_state": random_state, **kwargs[name]})
        seconds = time.perf_counter() - start
        rows.append({"method": name, "seconds": seconds, **_measures(found[name], is_treatment, truth)})
        rows[-1]["out_of_fold"] = name not in peers.IN_SAMPLE
    target = begin(adata, key_added, copy)
    target.obsm[key_added] = pd.DataFrame(found, index=used.obs_names).reindex(target.obs_names)
    params = {
        "condition_key": condition_key,
        "treatment": treatment,
        "reference": reference,
        "use_rep": use_rep,
        "truth_key": truth_key,
        "n_folds": n_folds,
        "random_state": random_state,
        "method_kwargs": kwargs,
    }
    data = data_fingerprint(used, use_rep, [condition_key])
    result = record("compare_methods", params, data, table=pd.DataFrame(rows))
    return finish(target, key_added, result, plan, copy)


def _checked(
    methods: Sequence[str], method_kwargs: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Mapping[str, Any]]:
    """Return the settings of every method. Refuse a method that cannot be made, before anything is trained."""
    if isinstance(methods, str) or not methods or len(set(methods)) < len(methods):
        raise ValueError(f"methods must be a list of different names, got {methods!r}")
    given = dict(method_kwargs or {})
    if unknown := set(given) - set(methods):
        raise ValueError(f"method_kwargs has settings of {sorted(unknown)}, which are not among the methods {methods}")
    for name in methods:
        if name != SCRATIO:
            peers.make(name, **given.get(name, {}))
    return {name: given.get(name, {}) for name in methods}


def _scratio(
    used: AnnData, question: Question, treatment: str, use_rep: str, settings: FitSettings, kwargs: Mapping[str, Any]
) -> np.ndarray:
    train_kwargs = {**settings.train_kwargs, **kwargs}
    own = FitSettings(settings.n_folds, settings.method, settings.random_state, {}, train_kwargs)
    model = fit_model(used, [question.condition_key], use_rep, own)
    return score(model, *question.contrast(treatment), own.method)[0]


def _peer(
    name: str, x: np.ndarray, is_treatment: np.ndarray, folds: np.ndarray, kwargs: Mapping[str, Any]
) -> np.ndarray:
    if name in peers.IN_SAMPLE:
        return peers.make(name, **kwargs).fit(x[is_treatment], x[~is_treatment]).log_ratio(x)
    found = np.empty(len(x))
    for fold in np.unique(folds):
        own, others = folds == fold, folds != fold
        fitted = peers.make(name, **kwargs).fit(x[others & is_treatment], x[others & ~is_treatment])
        found[own] = fitted.log_ratio(x[own])
    return found


def _measures(log_ratio: np.ndarray, is_treatment: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
    share = is_treatment.mean()
    offset = np.full(len(log_ratio), np.log(share / (1.0 - share)))
    sign = np.where(is_treatment, 1.0, -1.0)
    found = {
        "label_loss": float(np.logaddexp(0.0, -sign * (offset + log_ratio)).mean()),
        "label_loss_of_nothing": float(np.logaddexp(0.0, -sign * offset).mean()),
        "slope": label_slope(log_ratio, is_treatment, offset).slope,
        "auc": float(roc_auc_score(is_treatment, log_ratio)),
    }
    if truth is not None:
        error, differs = log_ratio - truth, np.ptp(log_ratio) > 0.0 and np.ptp(truth) > 0.0
        found |= {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "bias": float(error.mean()),
            "correlation": float(np.corrcoef(log_ratio, truth)[0, 1]) if differs else float("nan"),
            "rank_correlation": float(spearmanr(log_ratio, truth).statistic) if differs else float("nan"),
        }
    return found
