"""One cross-fitted model of the cells that take part: what the analyses share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio.conditions import ConditionDict
from scratio.model import ScRatio
from scratio.model._training import EFFORTS
from scratio.scoring import METHODS
from scratio.stats import is_supported, mean_and_error, most_folds


@dataclass(frozen=True)
class FitSettings:
    """Arguments that every analysis takes."""

    n_folds: int
    method: str
    random_state: int
    model_kwargs: Mapping[str, Any]
    train_kwargs: Mapping[str, Any]
    effort: str = "default"

    @property
    def shows_progress(self) -> bool:
        """Whether a bar is shown."""
        return bool(self.train_kwargs.get("progress_bar", True))

    @classmethod
    def checked(
        cls,
        n_folds: int,
        method: str,
        random_state: int,
        model_kwargs: Mapping[str, Any] | None,
        train_kwargs: Mapping[str, Any] | None,
        effort: str = "default",
    ) -> FitSettings:
        """Validate the arguments, before anything is trained, and return them as `FitSettings`."""
        if effort not in EFFORTS:
            raise ValueError(f"effort must be one of {list(EFFORTS)}, got {effort!r}")
        if method not in METHODS:
            raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
        if "n_folds" in (model_kwargs or {}):
            raise ValueError("model_kwargs holds 'n_folds'; pass n_folds itself")
        if n_folds < 2:
            raise ValueError(f"n_folds must be at least 2, since cells are scored out of fold; got {n_folds}")
        return cls(n_folds, method, random_state, model_kwargs or {}, train_kwargs or {}, effort)


def fit_model(
    cells: AnnData, keys: list[str], use_rep: str, settings: FitSettings, *, group_key: str | None = None
) -> ScRatio:
    """Cross-fitted model of the cells, conditioned on the keys; with a group key its folds are of whole groups."""
    ScRatio.setup_anndata(cells, obsm_key=use_rep, condition_keys=keys)
    n_folds = settings.n_folds
    if group_key is not None:
        strata = cells.obs.groupby(keys, observed=True).ngroup().to_numpy()
        n_folds = min(n_folds, most_folds(strata, np.unique(cells.obs[group_key], return_inverse=True)[1]))
        if n_folds < 2:
            own = cells.obs.groupby(group_key, observed=True)
            of_samples = [key for key in keys[1:] if own[key].nunique().max() == 1]
            hint = f", or hold it fixed in the test alone: covariates={'~ ' + ' + '.join(of_samples)!r}"
            way_out = f"Leave these cells or a covariate out{hint if of_samples else ''}"
            raise ValueError(
                f"some cells of the same labels of {keys} all come from one of obs[{group_key!r}]; nothing could be "
                f"learnt about them from other samples. {way_out}"
            )
    model = ScRatio(cells, **{**settings.model_kwargs, "n_folds": n_folds})
    own = {"random_state": settings.random_state, "group_key": group_key, "effort": settings.effort}
    model.train(**{**own, **settings.train_kwargs})
    return model


def score(
    model: ScRatio,
    numerator: ConditionDict,
    denominator: ConditionDict,
    method: str,
    *,
    adata: AnnData | None = None,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Log ratio of the model's cells, or of others, or of some of them, and its standard error, NaN for one network."""
    result = model.log_ratio(
        adata,
        numerator=numerator,
        denominator=denominator,
        method=method,
        return_std=model.n_members > 1,
        rows=rows,
    )
    mean, error = result if isinstance(result, tuple) else (result, np.full(len(result), np.nan))
    # Lazy ones are computed here.
    return np.asarray(mean), np.asarray(error)


def supported(
    model: ScRatio, numerator: ConditionDict, denominator: ConditionDict, *, rows: np.ndarray | None = None
) -> np.ndarray:
    """Whether the model's cells, or some of them, are typical of both conditions."""
    return is_supported(model.typicality(numerator=numerator, denominator=denominator, rows=rows))


def with_columns(target: AnnData, used: pd.Index, columns: Mapping[str, np.ndarray]) -> None:
    """Write values of the used cells into ``obs``; the others get NaN, or False."""
    rows = target.obs_names.get_indexer(used)
    for name, values in columns.items():
        column = np.full(target.n_obs, False if values.dtype == bool else np.nan)
        column[rows] = values
        target.obs[name] = column


def of_own(table: pd.DataFrame, own: pd.Series) -> np.ndarray:
    """For every cell the column that ``own`` names; NaN, or False, where it names none."""
    place = table.columns.get_indexer(pd.Index(own))
    found = table.to_numpy()[np.arange(len(table)), place]
    return np.where(place < 0, False if found.dtype == bool else np.nan, found)


def means_by_side(values: np.ndarray, errors: np.ndarray, sides: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Numbers of cells, mean log ratios and their standard errors of the two sides of a comparison, by their names."""
    found: dict[str, Any] = {}
    for name, cells in sides.items():
        mean, error = mean_and_error(values[cells], errors[cells])
        found |= {f"n_{name}": int(cells.sum()), f"mean_{name}": mean, f"standard_error_{name}": error}
    return found
