"""Differential abundance: which cell states are more likely under treatment than under the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_bool_dtype, is_list_like

from scratio._check import check_anndata
from scratio._modality import takes_modality
from scratio._progress import one_bar, phase
from scratio.model import ScRatio
from scratio.stats import is_supported
from scratio.tl._cross_fit import FitSettings, fit_model, means_by_side, of_own, score, with_columns
from scratio.tl._diagnostics import diagnose
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._question import Question, Tables, cells_of
from scratio.tl._sample_design import MIN_CELLS, Samples, SampleSettings
from scratio.tl._samples import (
    NeighborhoodTest,
    assign_neighborhoods,
    compare,
    neighborhood_table,
    samples_of_all,
    samples_table,
)
from scratio.tl._write import begin, check_key_added, finish, record

RESULTS, TESTED = ("log_ratio", "std", "typicality", "support"), ("effect", "effect_std", "pvalue", "qvalue")


@takes_modality
@one_bar("comparing conditions")
def differential_abundance(
    adata: AnnData,
    *,
    condition_key: str,
    treatment: str | Sequence[str] | None,
    reference: str,
    use_rep: str = "X_pca",
    covariate_keys: Sequence[str] = (),
    sample_key: str | None = None,
    covariates: str | None = None,
    donor_key: str | None = None,
    min_cells: int = MIN_CELLS,
    n_folds: int = 5,
    method: str = "auto",
    effort: str = "default",
    key_added: str = "da",
    random_state: int = 0,
    copy: bool = False,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
) -> AnnData | None:
    r"""Per-cell log ratio of treatment over reference, each cell scored by networks that did not see it.

    .. math:: \log r(x) = \log p(x | treatment) - \log p(x | reference)

    in nats; positive where a cell state is more likely under the treatment (arXiv 2602.24201). The class sizes do not
    enter. Cells are not replicates: there is no p-value without samples.

    Parameters
    ----------
    adata
        Cells.
    condition_key
        Column of ``obs`` with the condition.
    treatment, reference
        Its two categories to compare; cells of other categories are neither used nor scored. A list of treatments is
        compared with the reference one by one, by one model; None stands for all categories but the reference. With the
        reference ``"rest"``, unless that is a category, each treatment is compared with all other categories together.
    use_rep
        Embedding in ``obsm``, shape (n_cells, d); ``"X"`` is ``adata.X`` itself, for example markers of a cytometer.
    covariate_keys
        Categorical columns held fixed: both densities are conditioned on the cell's own labels of these.
    sample_key
        Column with donors or samples, the replicates. Each cell is then scored by networks that saw no cell of its
        sample, and conditions are tested across samples: within donors that have cells of both, between donors
        otherwise. The test counts how many of a sample's cells lie near a cell, and knows how many the sample has in
        all; the log ratio does not enter. Without samples there is no p-value, because the cells of one sample share
        whatever that sample has of its own.
    covariates
        Formula of what the test holds fixed, for example ``"~ age + sex + C(site)"`` (formulaic; Wilkinson notation),
        of columns of ``obs`` that are the same for all cells of a sample. ``covariate_keys`` that are the same for all
        cells of a sample are held fixed too.
    donor_key
        Column with donors, where some gave several samples. All cells of a donor then go into the same fold, and the
        samples of one donor and condition are added up, so that a donor is one replicate. Where most of the comparison
        lies within donors, each donor has an effect of its own.
    min_cells
        Cells of a condition below which a sample takes no part in it; a warning names those that are left out.
    n_folds
        Cross-fitting folds, at least 2; with ``sample_key`` no more than a condition has samples.
    method
        Estimator, see :meth:`scratio.model.ScRatio.log_ratio`.
    effort
        ``"quick"`` trains no network: closed-form densities (Gaussians, mixtures, abundances of cell types), weighed by
        held-out labels, in seconds. The results have the same form; what is finer than cell types is not resolved.
    key_added
        Prefix of the results.
    random_state
        Seed of everything.
    copy
        Whether to return a copy instead of writing into ``adata``.
    model_kwargs, train_kwargs
        For :class:`scratio.model.ScRatio` and its :meth:`~scratio.model.ScRatio.train`.

    Returns
    -------
    None, or a copy. Written are

    ``obs[key_added + "_log_ratio"]``
        Out-of-fold log ratio in nats; NaN for cells of neither category.
    ``obs[key_added + "_std"]``
        Standard error of the log ratio in nats, from the spread of the networks that scored the cell and similar cells
        (see :meth:`scratio.model.ScRatio.log_ratio`), enlarged where held-out labels show that it is too small
        (``scratio.stats.residual_inflation``); NaN for a single network.
    ``obs[key_added + "_typicality"]``
        Share of the treatment's or of the reference's cells, whichever is smaller, that lie at least as far from their
        fellows as this cell does (``scratio.stats.typicality``).
    ``obs[key_added + "_support"]``
        False where that share is below 1%, so that the log ratio is an extrapolation, and for cells of neither
        category. Nothing else happens to such cells.
    ``obs[key_added + "_effect"]``, ``obs[key_added + "_effect_std"]``
        With ``sample_key``: what is tested, in nats, and its standard error across samples. The effect is the log ratio
        of the share of a sample's cells that lie near this one, each sample or donor counting about alike; the log
        ratio above is about this very cell, and large samples count more in it.
    ``obs[key_added + "_pvalue"]``, ``obs[key_added + "_qvalue"]``
        Two-sided p-value of the effect, and its false discovery rate, that is the expected share of cells called
        wrongly if all cells of this q-value or less are called. The q-value is never below the global p-value, and NaN
        with fewer than 3 samples of a condition. :func:`scratio.tl.regions` joins what is significant and names it.
    ``obs[key_added + "_neighborhood"]``
        With ``sample_key``: the cell's neighbourhood, of about 50 similar cells.
    ``obsm[key_added + "_log_ratio"]``, ``..._std``, ``..._support``
        For a list of treatments, or None: a column of the above for each treatment. ``obs`` then has the cell's own
        treatment's, and NaN for cells of the reference.
    ``uns[key_added]["table"]``
        A row for each treatment: numbers of cells, mean log ratio of the treatment's and of the reference's cells with
        standard errors, share of supported cells. Standard errors are across cells, not across samples.
    ``uns[key_added]["diagnostics"]``, ``uns[key_added]["calibration"]``
        A row for each treatment: slope of the held-out labels on the log ratio (1 if it is right on average), area
        under the ROC curve, overlap of the densities from 0 to 1, effective numbers of cells, supported share, by how
        much held-out labels enlarged the variance, with ``sample_key`` the p-value of any difference at all, and a
        verdict in words; and the reliability curve, which :func:`scratio.pl.calibration` draws.
    ``uns[key_added]["neighborhoods"]``
        With ``sample_key``, a row for each neighbourhood: effect and its standard error (nats), p-value, q-value, and
        p-value of the family, that is of any neighbourhood as extreme if nothing differs. Where q is at most .1,
        ``effect_without_one`` is the effect at its weakest when one donor is left out, and ``carried_by`` names that
        donor if less than half of the effect remains.
    ``uns[key_added]["samples"]``
        With ``sample_key``, a row for each sample of a condition: donor, number of cells, why it is left out (empty if
        it is not), and ``variance_factor``, above 1 for a sample that weighs less because it differs from its group
        everywhere.
    ``uns[key_added]``
        Parameters, training history.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    TypeError
        If the embedding is sparse or not numeric, or ``covariate_keys`` is a string.
    ValueError
        If a category is absent or has fewer cells than folds, treatment and reference are the same, the embedding is
        not finite, a label of a covariate is missing, cells with some labels of the covariates all have the same
        condition, a condition has fewer than 2 samples, a covariate of the formula differs within a sample or explains
        the condition, a sample has several donors, ``model_kwargs`` holds ``n_folds``, or a column that would be
        overwritten is not scratio's.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> bool(adata.obs["da_log_ratio"].notna().all())
    True
    """
    check_anndata(adata, copy=copy)
    settings = FitSettings.checked(n_folds, method, random_state, model_kwargs, train_kwargs, effort)
    question = Question.parsed(adata, condition_key, treatment, reference, covariate_keys, n_folds)
    about_samples = SampleSettings(sample_key, covariates, donor_key, min_cells)
    used = cells_of(adata, question, use_rep, settings, **about_samples.keys(adata, [condition_key]))
    samples = samples_of_all(used.obs, question, about_samples)
    is_table = treatment is None or is_list_like(treatment)
    keys = list(used.obs)
    columns = {name: f"{key_added}_{name}" for name in (*RESULTS, *(TESTED if samples else ()))}
    places = [f"{key_added}_neighborhood"] if samples else []
    plan = check_key_added(
        adata,
        key_added,
        obs=[*columns.values(), *places],
        obsm=[*columns.values()] if is_table else [],
        tables={condition_key: question.treatments} if is_table else {},
        reads={"obs": keys, "obsm": [use_rep]},
    )
    group_key = about_samples.group_key
    model = fit_model(used, [condition_key, *covariate_keys], use_rep, settings, group_key=group_key)
    results, neighborhood, further = _computed(model, used, question, samples, group_key, settings)
    target = begin(adata, key_added, copy)
    for column in places:
        target.obs[column] = neighborhood.reindex(target.obs_names)
    _write(target, used, {columns[name]: table for name, table in results.items()}, question, is_table)
    params = {
        "condition_key": condition_key,
        "treatment": treatment,
        "reference": reference,
        "use_rep": use_rep,
        "covariate_keys": list(covariate_keys),
        **vars(about_samples),
        **vars(settings),
    }
    data = data_fingerprint(used, use_rep, keys)
    result = record("differential_abundance", params, data, model, **further)
    return finish(target, key_added, result, plan, copy)


def _computed(
    model: ScRatio,
    used: AnnData,
    question: Question,
    samples: dict[str, Samples],
    group_key: str | None,
    settings: FitSettings,
) -> tuple[Tables, pd.Series, dict[str, Any]]:
    """Results of the cells by treatments, the neighbourhood of each cell (none without samples), and the tables."""
    results, further = _score(model, used, question, settings), {}
    neighborhood = pd.Series(dtype="category")
    tests: dict[str, NeighborhoodTest] = {}
    if samples:
        place = assign_neighborhoods(model.embedding(used), settings.random_state)
        neighborhood = pd.Series(place.astype(str), index=used.obs_names, dtype="category")
        with phase("testing"):
            tested, tests, further["neighborhoods"] = _test(model, used, place, question, samples, settings)
        results |= tested
        further["samples"] = samples_table(samples, tests)
    further |= diagnose(model, used, results, question, group_key, tests)
    further["table"] = _table(results, used.obs[question.condition_key], question)
    return results, neighborhood, further


def _score(model: ScRatio, used: AnnData, question: Question, settings: FitSettings) -> Tables:
    """Log ratios, standard errors and support, cells by treatments."""
    labels = used.obs[question.condition_key]
    results = {name: _empty(used, question, name == "support") for name in RESULTS}
    for place, treatment in enumerate(question.treatments):
        rows = np.flatnonzero(question.compared(labels, treatment))
        top, bottom = question.contrast(treatment)
        found = score(model, top, bottom, settings.method, rows=rows)
        typical = model.typicality(numerator=top, denominator=bottom, rows=rows)
        for name, values in zip(RESULTS, (*found, typical, is_supported(typical)), strict=True):
            results[name].iloc[rows, place] = values
    return results


def _test(
    model: ScRatio,
    used: AnnData,
    neighborhoods: np.ndarray,
    question: Question,
    samples: dict[str, Samples],
    settings: FitSettings,
) -> tuple[Tables, dict[str, NeighborhoodTest], pd.DataFrame]:
    """Results of the tests, cells by treatments, each those of the cell's neighbourhood; the tests, and their table."""
    labels, x = used.obs[question.condition_key], model.embedding(used)
    results, tests, tables = {name: _empty(used, question) for name in TESTED}, {}, []
    for place, treatment in enumerate(question.treatments):
        rows = np.flatnonzero(question.compared(labels, treatment))
        names, neighborhood = np.unique(neighborhoods[rows], return_inverse=True)
        sides = question.sides(labels, treatment).iloc[rows]
        test = compare(x[rows], neighborhood, used.obs.iloc[rows], samples[treatment], sides, settings.random_state)
        table = neighborhood_table(test, names.astype(str), neighborhood, samples[treatment])
        for name in TESTED:
            results[name].iloc[rows, place] = table[name].to_numpy()[neighborhood]
        tests[treatment] = test
        tables.append(table.assign(treatment=treatment))
    return results, tests, pd.concat(tables, ignore_index=True)


def _empty(used: AnnData, question: Question, is_bool: bool = False) -> pd.DataFrame:
    return pd.DataFrame(False if is_bool else np.nan, index=used.obs_names, columns=pd.Index(question.treatments))


def _write(target: AnnData, used: AnnData, results: Tables, question: Question, is_table: bool) -> None:
    """The only treatment's results, or each cell's own treatment's, into ``obs``, and all of several into ``obsm``."""
    labels = used.obs[question.condition_key]
    own = labels if is_table else pd.Series(question.treatments[0], index=labels.index)
    with_columns(target, used.obs_names, {name: of_own(table, own) for name, table in results.items()})
    if is_table:
        for name, table in results.items():
            missing = False if is_bool_dtype(table.to_numpy()) else np.nan
            target.obsm[name] = table.reindex(target.obs_names, fill_value=missing)


def _table(results: Tables, labels: pd.Series, question: Question) -> pd.DataFrame:
    """A row for each treatment."""
    values, errors, support = (results[name] for name in ("log_ratio", "std", "support"))
    rows = []
    for treatment in question.treatments:
        row: dict[str, Any] = {"treatment": treatment, "reference": question.reference}
        compared, is_treatment = question.compared(labels, treatment), (labels == treatment).to_numpy()
        sides = {"treatment": is_treatment, "reference": compared & ~is_treatment}
        row |= means_by_side(values[treatment].to_numpy(), errors[treatment].to_numpy(), sides)
        rows.append({**row, "supported_fraction": float(support.loc[compared, treatment].mean())})
    return pd.DataFrame(rows)
