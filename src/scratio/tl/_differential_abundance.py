"""Differential abundance: which cell states are more likely under treatment than under the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_list_like

from scratio.model import OWN, Rest, ScRatio
from scratio.model._check import check_categories, check_embedding, check_groups, check_unique_names
from scratio.stats import mean_and_error, overlap_support
from scratio.tl._cross_fit import FitSettings, fit_model, of_own, score, with_columns
from scratio.tl._write import check_key_added, record

REST = "rest"
"""Reference that stands for all other categories; a category of this name takes precedence."""

RESULTS = ("log_ratio", "std", "support")


@dataclass(frozen=True)
class Question:
    """What is compared, given fixed covariates.

    Parameters
    ----------
    condition_key, treatments, reference
        Column and categories.
    against_rest
        Whether the reference of each treatment is all other categories.
    covariate_keys
        Columns held fixed.
    """

    condition_key: str
    treatments: list[str]
    reference: str
    against_rest: bool
    covariate_keys: list[str]

    @classmethod
    def parsed(
        cls,
        adata: AnnData,
        condition_key: str,
        treatment: str | Sequence[str] | None,
        reference: str,
        covariate_keys: Sequence[str],
        n_folds: int,
    ) -> Question:
        """The same after a check of the categories."""
        if isinstance(covariate_keys, str):
            raise TypeError(f"covariate_keys must be a list of keys, got the string {covariate_keys!r}")
        if condition_key in covariate_keys:
            raise ValueError(f"covariate_keys holds the condition_key {condition_key!r}")
        labels = check_groups(adata, condition_key, [], n_folds)
        found = sorted(labels.dropna().unique())
        against_rest = reference == REST and REST not in found
        if treatment is None:
            treatments = [name for name in found if name != str(reference)]
        else:
            treatments = [str(name) for name in (treatment if is_list_like(treatment) else [treatment])]
        if not treatments:
            raise ValueError(f"treatment names no category of obs[{condition_key!r}]; found: {found}")
        if len(set(treatments)) < len(treatments):
            raise ValueError(f"treatment names a category twice: {treatments}")
        if str(reference) in treatments:
            raise ValueError(f"treatment and reference are both {reference!r}; nothing to compare")
        check_groups(adata, condition_key, [*treatments, *([] if against_rest else [reference])], n_folds)
        if against_rest and len(found) < 2:
            raise ValueError(
                f"obs[{condition_key!r}] has no category besides {found}; there is no rest to compare with"
            )
        return cls(condition_key, treatments, str(reference), against_rest, list(covariate_keys))

    def contrast(self, treatment: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Numerator and denominator."""
        fixed = dict.fromkeys(self.covariate_keys, OWN)
        bottom = Rest(treatment) if self.against_rest else self.reference
        return {self.condition_key: treatment, **fixed}, {self.condition_key: bottom, **fixed}

    def compared(self, labels: pd.Series, treatment: str) -> np.ndarray:
        """Which cells a comparison is about."""
        others = labels.unique() if self.against_rest else [self.reference]
        return labels.isin([treatment, *others]).to_numpy()


def differential_abundance(
    adata: AnnData,
    *,
    condition_key: str,
    treatment: str | Sequence[str] | None,
    reference: str,
    use_rep: str = "X_pca",
    covariate_keys: Sequence[str] = (),
    sample_key: str | None = None,
    n_folds: int = 5,
    method: str = "auto",
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
        Embedding in ``obsm``, shape (n_cells, d).
    covariate_keys
        Categorical columns held fixed: both densities are conditioned on the cell's own labels of these.
    sample_key
        Column with donors or samples. Tests across samples are not part of this version; give None.
    n_folds
        Cross-fitting folds, at least 2.
    method
        Estimator, see :meth:`scratio.model.ScRatio.log_ratio`.
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
        Standard error of the log ratio in nats, from the spread of the networks that scored the cell (see
        :meth:`scratio.model.ScRatio.log_ratio`); NaN for a single network.
    ``obs[key_added + "_support"]``
        False where the cell is atypical of the treatment's or of the reference's cells, so that its log ratio is an
        extrapolation, and for cells of neither category.
    ``obsm[key_added + "_log_ratio"]``, ``..._std``, ``..._support``
        For a list of treatments, or None: a column of the above for each treatment. ``obs`` then has the cell's own
        treatment's, and NaN for cells of the reference.
    ``uns[key_added]["table"]``
        A row for each treatment: numbers of cells, mean log ratio of the treatment's and of the reference's cells with
        standard errors, share of supported cells. Standard errors are across cells, not across samples.
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
        condition, ``model_kwargs`` holds ``n_folds``, or a column that would be overwritten is not scratio's.

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
    settings = FitSettings.checked(n_folds, method, random_state, model_kwargs, train_kwargs)
    question = Question.parsed(adata, condition_key, treatment, reference, covariate_keys, n_folds)
    is_table = treatment is None or is_list_like(treatment)
    columns = [f"{key_added}_{name}" for name in RESULTS]
    used = _cells(adata, question, use_rep, sample_key, settings)
    check_key_added(adata, key_added, columns, obsm=columns if is_table else [])
    model = fit_model(used, [condition_key, *covariate_keys], use_rep, settings)
    results = _score(model, used, question, settings)

    target = adata.copy() if copy else adata
    labels = used.obs[condition_key]
    own = labels if is_table else pd.Series(question.treatments[0], index=labels.index)
    with_columns(
        target, used.obs_names, {name: of_own(table, own) for name, table in zip(columns, results, strict=True)}
    )
    if is_table:
        for name, table in zip(columns, results, strict=True):
            missing = False if name == columns[-1] else np.nan
            target.obsm[name] = table.reindex(target.obs_names, fill_value=missing)
    params = {
        "condition_key": condition_key,
        "treatment": treatment,
        "reference": reference,
        "use_rep": use_rep,
        "covariate_keys": list(covariate_keys),
        **vars(settings),
    }
    target.uns[key_added] = record(params, model, table=_table(results, labels, question))
    return target if copy else None


def _score(
    model: ScRatio, used: AnnData, question: Question, settings: FitSettings
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Log ratios, standard errors and support, cells by treatments."""
    x, labels = model.embedding(used), used.obs[question.condition_key]
    names = pd.Index(question.treatments)
    values, errors = (pd.DataFrame(np.nan, index=used.obs_names, columns=names) for _ in range(2))
    support = pd.DataFrame(False, index=used.obs_names, columns=names)
    for place, treatment in enumerate(names):
        rows = np.flatnonzero(question.compared(labels, treatment))
        found = score(model, *question.contrast(treatment), settings.method, rows=rows)
        values.iloc[rows, place], errors.iloc[rows, place] = found
        support.iloc[rows, place] = overlap_support(x[rows], (labels == treatment).to_numpy()[rows])
    return values, errors, support


def _table(
    results: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], labels: pd.Series, question: Question
) -> pd.DataFrame:
    values, errors, support = results
    rows = []
    for treatment in question.treatments:
        row: dict[str, Any] = {"treatment": treatment, "reference": question.reference}
        compared, is_treatment = question.compared(labels, treatment), (labels == treatment).to_numpy()
        for name, cells in (("treatment", is_treatment), ("reference", compared & ~is_treatment)):
            found = mean_and_error(values.loc[cells, treatment].to_numpy(), errors.loc[cells, treatment].to_numpy())
            row[f"n_{name}"] = int(cells.sum())
            row[f"mean_{name}"], row[f"standard_error_{name}"] = found
        rows.append({**row, "supported_fraction": float(support.loc[compared, treatment].mean())})
    return pd.DataFrame(rows)


def _cells(adata: AnnData, question: Question, use_rep: str, sample_key: str | None, settings: FitSettings) -> AnnData:
    """Check the input; the cells that take part, with nothing but what the model needs."""
    if sample_key is not None:
        raise ValueError("sample_key: tests across samples are not part of this version; pass sample_key=None")
    if question.against_rest and settings.model_kwargs.get("parametrization", "potential") != "potential":
        raise ValueError("reference='rest' needs parametrization='potential', whose marginals are exact")
    check_unique_names(adata)
    x = check_embedding(adata, use_rep)
    key = question.condition_key
    labels = check_groups(adata, key, [])
    names = labels.dropna() if question.against_rest else [*question.treatments, question.reference]
    rows = labels.isin(names).to_numpy()
    used = AnnData(obs=pd.DataFrame({key: labels[rows]}), obsm={use_rep: x[rows]})
    for covariate in question.covariate_keys:
        check_groups(adata, covariate, [])
        column = adata.obs[covariate][rows]
        used.obs[covariate] = column.astype(str).where(column.notna())
        check_categories(used, covariate)
    if question.covariate_keys:
        _check_overlap(used.obs, question)
    return used


def _check_overlap(obs: pd.DataFrame, question: Question) -> None:
    """Refuse covariates within which there is nothing to compare a cell with."""
    counts = obs.value_counts().unstack(question.condition_key, fill_value=0)
    for treatment in question.treatments:
        others = counts.drop(columns=treatment).sum(axis=1) if question.against_rest else counts[question.reference]
        compared = counts[treatment] + others > 0
        alone = counts.index[compared & ((counts[treatment] == 0) | (others == 0))]
        if len(alone):
            raise ValueError(
                f"covariate_keys={question.covariate_keys}: cells with the labels {list(alone)[:5]} are all of "
                f"{treatment!r} or all of {question.reference!r}, so that there is nothing to compare them with; "
                "leave these cells or this covariate out"
            )
