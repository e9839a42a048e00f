"""Differential abundance: which cell states are more likely under treatment than under the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_bool_dtype, is_list_like

from scratio._check import check_anndata, source_of
from scratio._modality import takes_modality
from scratio._progress import expect_work, one_bar, phase
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
    named,
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
    mod: str | None = None,
) -> AnnData | None:
    r"""Estimate the log ratio of treatment over reference for every cell, out of fold.

    .. math:: \log r(x) = \log p(x | treatment) - \log p(x | reference)

    The log ratio is in nats (natural logarithms). It is positive where a cell state is more likely under the treatment
    (arXiv 2602.24201). It does not depend on how many cells each condition has. Each cell is scored by networks that
    were not trained on it. Cells are not replicates: p-values need ``sample_key``.

    Parameters
    ----------
    adata
        Cells.
    condition_key
        Column of ``obs`` with the condition.
    treatment, reference
        Two categories of ``condition_key`` to compare. Cells of other categories are neither used nor scored. A list of
        treatments is compared with the reference one by one, by one model. None compares all other categories with the
        reference. ``reference="rest"`` compares each treatment with all other categories together, unless a category is
        named ``"rest"``.
    use_rep
        Embedding in ``obsm``, shape (n_cells, d). ``"X"`` is ``adata.X`` itself, for example markers of a cytometer.
    covariate_keys
        Categorical columns of ``obs`` to hold fixed. Both densities are conditioned on the cell's own labels in these
        columns.
    sample_key
        Column of ``obs`` with samples or donors, which are the replicates. Each cell is then scored by networks that
        were trained on no cell of its sample, and the conditions are tested across samples: within donors that have
        cells of both conditions, between donors otherwise. The test counts how many of a sample's cells lie near a
        cell, and takes the sample's total number of cells into account. It does not use the log ratio. Without
        ``sample_key`` there is no p-value, because cells of one sample are not independent.
    covariates
        Formula of what the test holds fixed, for example ``"~ age + sex + C(site)"`` (formulaic; Wilkinson notation).
        Each column of ``obs`` in the formula must have one value per sample. Columns of ``covariate_keys`` with one
        value per sample are held fixed too.
    donor_key
        Column of ``obs`` with donors, for data in which a donor gave several samples. All cells of a donor then go into
        the same fold, and the samples of one donor and condition are added up, so that a donor is one replicate. If
        most of the comparison lies within donors, each donor has an effect of its own in the test.
    min_cells
        Smallest number of cells of a condition that a sample needs to take part in that condition. A warning names the
        samples that are left out.
    n_folds
        Number of folds for cross-fitting, at least 2. With ``sample_key``, at most the number of samples of a
        condition.
    method
        Estimator, see :meth:`scratio.model.ScRatio.log_ratio`.
    effort
        ``"quick"`` trains no network and takes seconds. It uses closed-form densities (Gaussians, mixtures, abundances
        of cell types), weighted by how well they predict held-out labels. The results have the usual form, but do not
        resolve differences finer than cell types.
    key_added
        Prefix of the results.
    random_state
        Seed of every random choice.
    copy
        Whether to return a copy instead of writing into ``adata``.
    model_kwargs, train_kwargs
        Arguments for :class:`scratio.model.ScRatio` and for its method :meth:`~scratio.model.ScRatio.train`.

    Returns
    -------
    None, or a copy. Written are

    ``obs[key_added + "_log_ratio"]``
        Out-of-fold log ratio in nats. NaN for cells of neither category.
    ``obs[key_added + "_std"]``
        Standard error of the log ratio in nats, from the spread of the networks that scored the cell and similar cells
        (see :meth:`scratio.model.ScRatio.log_ratio`). It is enlarged if held-out labels show that it is too small
        (``scratio.stats.residual_inflation``). NaN for a single network.
    ``obs[key_added + "_typicality"]``
        Share of a condition's cells that lie at least as far from other cells of that condition as this cell does
        (``scratio.stats.typicality``): the smaller of the treatment's and the reference's.
    ``obs[key_added + "_support"]``
        Whether both conditions have similar cells. False if the typicality is below 1%, so that the log ratio is an
        extrapolation, and for cells of neither category. The log ratio of unsupported cells is not changed.
    ``obs[key_added + "_effect"]``, ``obs[key_added + "_effect_std"]``
        With ``sample_key``: effect that is tested, in nats, and its standard error across samples. The effect is the
        log ratio of the share of a sample's cells that lie near this cell; samples or donors count about equally. It
        differs from the log ratio, which is about this very cell and in which large samples count more.
    ``obs[key_added + "_pvalue"]``, ``obs[key_added + "_qvalue"]``
        With ``sample_key``: two-sided p-value of the effect, and q-value. The q-value is a false discovery rate: the
        expected share of cells called wrongly if all cells with this q-value or less are called. It is never below the
        global p-value. It is NaN with fewer than 3 samples of a condition. :func:`scratio.tl.regions` joins significant
        cells into regions and names them.
    ``obs[key_added + "_neighborhood"]``
        With ``sample_key``: the cell's neighbourhood, of about 50 similar cells.
    ``obsm[key_added + "_log_ratio"]``, ``..._std``, ``..._support``
        For a list of treatments, or None: each of the results above with a column for each treatment. ``obs`` then
        holds the result for the cell's own treatment, and NaN for cells of the reference.
    ``uns[key_added]["table"]``
        A row for each treatment: numbers of cells, mean log ratio of the treatment's and of the reference's cells with
        standard errors, share of supported cells. Standard errors are across cells, not across samples.
    ``uns[key_added]["diagnostics"]``
        A row for each treatment: slope of the held-out labels on the log ratio (1 if the log ratio is right on
        average), area under the ROC curve, overlap of the densities from 0 to 1, effective numbers of cells, share of
        supported cells, factor by which held-out labels enlarged the variance, with ``sample_key`` the p-value of any
        difference at all, and a verdict in words.
    ``uns[key_added]["calibration"]``
        Reliability curve of each treatment, which :func:`scratio.pl.calibration` draws.
    ``uns[key_added]["neighborhoods"]``
        With ``sample_key``, a row for each neighbourhood: effect and its standard error (nats), p-value, q-value, and
        family-wise p-value, which is the probability of any neighbourhood as extreme if nothing differs. If the q-value
        is at most 0.1, ``effect_without_one`` is the weakest effect after leaving one donor out, and ``carried_by``
        names that donor if less than half of the effect remains.
    ``uns[key_added]["samples"]``
        With ``sample_key``, a row for each sample of a condition: donor, number of cells, why the sample is left out
        (empty if it takes part), and ``variance_factor``. A factor above 1 means that the sample counts less, because
        it differs from its group everywhere.
    ``uns[key_added]``
        Parameters, training history.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    TypeError
        If the embedding is sparse or not numeric, or ``covariate_keys`` is a string.
    ValueError
        If a category is absent or has fewer cells than folds, if ``treatment`` equals ``reference``, if the embedding
        is not finite, if a covariate has a missing label, if all cells with some labels of the covariates have one
        condition, if a condition has fewer than 2 samples, if a covariate of the formula differs within a sample or
        explains the condition, if a sample has several donors, if ``model_kwargs`` holds ``n_folds``, or if a column
        that would be overwritten was not written by scratio.

    See Also
    --------
    scratio.pl.embedding : Draw the log ratio on an embedding.
    scratio.pl.violin : Draw the log ratio by groups of cells.
    scratio.pl.beeswarm : Draw the tested effects by annotation.
    scratio.pl.volcano : Draw the tested effects against their significance.
    scratio.pl.calibration : Draw the reliability curve.
    scratio.get.table : Return the results as a table.
    scratio.tl.regions : Join significant cells into regions and name them.
    scratio.tl.summary : Sum up the results in words.

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
    scored = [int(question.compared(used.obs[condition_key], name).sum()) for name in question.treatments]
    expect_work(source_of(used, use_rep).shape, scored, is_tested=bool(samples), shown=settings.shows_progress)
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
        neighborhood = named(place, used.obs_names)
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
