"""Covariates of samples as columns of a design matrix."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
from anndata import AnnData
from formulaic import Formula, SimpleFormula
from formulaic.errors import FormulaicError
from pandas.api.types import is_string_dtype

from scratio._check import check_obs_key


def formula_keys(adata: AnnData, covariates: str | None, reserved: Sequence[str]) -> list[str]:
    """Columns of ``obs`` that a formula names.

    Parameters
    ----------
    adata
        Cells.
    covariates
        Formula such as ``"~ age + sex"``, or None.
    reserved
        Columns that it must not name, since they are what is tested or what the samples are.

    Raises
    ------
    TypeError
        If it is not a string.
    ValueError
        If it cannot be read, has a left side, or names a reserved column.
    KeyError
        If it names a column that ``obs`` does not have.
    """
    if covariates is None:
        return []
    if not isinstance(covariates, str):
        raise TypeError(f"covariates must be a formula such as '~ age + sex', got {covariates!r}")
    try:
        formula = Formula(covariates)
        names = _variables(formula, adata.obs)
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise ValueError(f"covariates={covariates!r} is not a formula: {_plain(error)}") from None
    if not isinstance(formula, SimpleFormula):
        raise ValueError(
            f"covariates={covariates!r} has a left side or several parts; write only the covariates, for example "
            "'~ age + sex'"
        )
    for name in names:
        check_obs_key(adata, name)
        if name in reserved:
            raise ValueError(f"covariates={covariates!r} names {name!r}, which is already part of the question")
    return names


def _plain(error: Exception) -> str:
    """Text of an error without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))


def _variables(formula: Formula, obs: pd.DataFrame) -> list[str]:
    """Columns that a formula needs; formulaic does not name those inside of splines and polynomials."""
    names = {str(name) for name in formula.required_variables}
    if isinstance(formula, SimpleFormula):
        for factor in (factor for term in formula for factor in term.factors):
            with suppress(SyntaxError):
                nodes = ast.walk(ast.parse(factor.expr, mode="eval"))
                names |= {node.id for node in nodes if isinstance(node, ast.Name) and node.id in obs}
    return sorted(names)


def formula_columns(obs: pd.DataFrame, sample: pd.Series, covariates: str) -> np.ndarray:
    """Columns of the formula for every sample, without the intercept, shape (n_samples, n_columns).

    Parameters
    ----------
    obs
        Cells that belong to a sample that takes part.
    sample
        Number of each cell's sample.
    covariates
        Formula.

    Raises
    ------
    ValueError
        If a column differs between the cells of a sample, or is missing, or the formula cannot be evaluated.
    """
    names = _variables(Formula(covariates), obs)
    groups = obs[names].groupby(sample)
    n_values = groups.nunique(dropna=False)
    for name in names:
        if n_values[name].max() > 1:
            found = obs.loc[sample == n_values[name].idxmax(), name].unique()[:5].tolist()
            raise ValueError(
                f"covariates={covariates!r}: obs[{name!r}] must be the same for all cells of a sample, and one has "
                f"{found}. Use one value for each sample, for example its mean, or split the samples by this column"
            )
    table = groups.first()
    for name in names:
        if table[name].isna().any():
            raise ValueError(
                f"covariates={covariates!r}: obs[{name!r}] is missing for {int(table[name].isna().sum())} of "
                f"{len(table)} samples; fill it in, or leave these samples out"
            )
    for name in table:
        # A category that no sample has is no column; text is text, whatever pandas calls it.
        if isinstance(table[name].dtype, pd.CategoricalDtype):
            table[name] = table[name].cat.remove_unused_categories()
        elif is_string_dtype(table[name]):
            table[name] = table[name].astype(object)
    try:
        # Rows with missing values are refused below, not dropped.
        matrix = Formula(covariates).get_model_matrix(table, na_action="ignore")
        columns = np.asarray(matrix.drop(columns="Intercept", errors="ignore"), dtype=float)
    except (FormulaicError, TypeError, ValueError) as error:
        raise ValueError(f"covariates={covariates!r} cannot be evaluated: {_plain(error)}") from None
    if not np.isfinite(columns).all():
        raise ValueError(f"covariates={covariates!r} has values that are not finite")
    # Of one size, so that no unit of measurement makes the equations ill-conditioned.
    columns = columns - columns.mean(0)
    spread = columns.std(0)
    return columns[:, spread > 0.0] / spread[spread > 0.0]


def label_columns(obs: pd.DataFrame, sample: pd.Series, keys: Sequence[str]) -> np.ndarray:
    """Indicators of the categorical covariates that are the same for all cells of each sample.

    Parameters
    ----------
    obs, sample
        As in :func:`formula_columns`.
    keys
        Columns with labels.
    """
    groups = obs.groupby(sample)
    levels = {key: groups[key].first() for key in keys if groups[key].nunique().max() == 1}
    if not levels:
        return np.empty((groups.ngroups, 0))
    return pd.get_dummies(pd.DataFrame(levels), drop_first=True).to_numpy(dtype=float)
