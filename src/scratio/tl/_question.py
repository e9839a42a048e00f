"""Which groups of cells a differential abundance compares, and which cells take part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_list_like

from scratio._blocks import take_rows
from scratio._check import (
    category_of,
    check_categories,
    check_groups,
    check_source,
    check_unique_names,
)
from scratio.model import OWN, Rest
from scratio.tl._cross_fit import FitSettings

REST = "rest"
"""Reference that stands for all other categories; a category of this name takes precedence."""


Tables = dict[str, pd.DataFrame]
"""Results of cells by treatments, by the name of the result."""


@dataclass(frozen=True)
class Question:
    """Specification of a comparison, given fixed covariates.

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
        """Validate the categories and return the comparison as `Question`."""
        if isinstance(covariate_keys, str):
            raise TypeError(f"covariate_keys must be a list of keys, got the string {covariate_keys!r}")
        if condition_key in covariate_keys:
            raise ValueError(f"covariate_keys holds the condition_key {condition_key!r}")
        labels = check_groups(adata, condition_key, [], n_folds)
        found = sorted(labels.dropna().unique())
        against_rest = reference == REST and REST not in found
        reference = category_of(reference, found)
        if treatment is None:
            treatments = [name for name in found if name != reference]
        else:
            treatments = [category_of(name, found) for name in (treatment if is_list_like(treatment) else [treatment])]
        if not treatments:
            raise ValueError(f"treatment names no category of obs[{condition_key!r}]; found: {found}")
        if len(set(treatments)) < len(treatments):
            raise ValueError(f"treatment names a category twice: {treatments}")
        if reference in treatments:
            raise ValueError(f"treatment and reference are both {reference!r}; nothing to compare")
        check_groups(adata, condition_key, [*treatments, *([] if against_rest else [reference])], n_folds)
        if against_rest and len(found) < 2:
            raise ValueError(
                f"obs[{condition_key!r}] has no category besides {found}; so there are no other cells to compare with"
            )
        return cls(condition_key, treatments, reference, against_rest, list(covariate_keys))

    def contrast(self, treatment: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Numerator and denominator."""
        fixed = dict.fromkeys(self.covariate_keys, OWN)
        bottom = Rest(treatment) if self.against_rest else self.reference
        return {self.condition_key: treatment, **fixed}, {self.condition_key: bottom, **fixed}

    def compared(self, labels: pd.Series, treatment: str) -> np.ndarray:
        """Mark the cells that take part in a comparison."""
        others = labels.unique() if self.against_rest else [self.reference]
        return labels.isin([treatment, *others]).to_numpy()

    def sides(self, labels: pd.Series, treatment: str) -> pd.Series:
        """Labels of two values, the treatment and the reference."""
        return labels.where(labels == treatment, self.reference)


def cells_of(
    adata: AnnData,
    question: Question,
    use_rep: str,
    settings: FitSettings,
    *,
    label_keys: Sequence[str] = (),
    further_keys: Sequence[str] = (),
) -> AnnData:
    """Validate the input and return the cells that take part, with nothing but what the model and the tests need.

    Parameters
    ----------
    adata, question, use_rep, settings
        Cells, what is compared, their embedding, settings of the model.
    label_keys
        Columns with samples and donors, which become text and must not be missing.
    further_keys
        Columns that are taken as they are.
    """
    if question.against_rest and settings.model_kwargs.get("parametrization", "potential") != "potential":
        raise ValueError("reference='rest' needs parametrization='potential', whose marginals are exact")
    check_unique_names(adata)
    x = check_source(adata, use_rep)
    key = question.condition_key
    labels = check_groups(adata, key, [])
    names = labels.dropna() if question.against_rest else [*question.treatments, question.reference]
    rows = labels.isin(names).to_numpy()
    # Where all take part nothing is copied, and what is on disk stays there.
    taken = x if rows.all() else take_rows(x, np.flatnonzero(rows))
    used = AnnData(obs=pd.DataFrame({key: labels[rows]}), obsm={use_rep: taken})
    further = [*question.covariate_keys, *label_keys]
    if len({key, *further}) <= len(further):
        raise ValueError(
            f"condition_key, covariate_keys, sample_key and donor_key name a column twice: {[key, *further]}"
        )
    for name in further:
        check_groups(adata, name, [])
        column = adata.obs[name][rows]
        used.obs[name] = column.astype(str).where(column.notna())
        check_categories(used, name)
    for name in further_keys:
        if name not in used.obs:
            used.obs[name] = adata.obs[name][rows]
    if question.covariate_keys:
        _check_overlap(used.obs[[key, *question.covariate_keys]], question)
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
                f"{treatment!r} or all of {question.reference!r}, so they cannot be compared; "
                "leave these cells or this covariate out"
            )
