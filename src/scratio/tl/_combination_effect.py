"""What two treatments do together that one of them does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_list_like

from scratio._check import category_of, check_anndata, check_categories, check_embedding, check_unique_names, source_of
from scratio._modality import takes_modality
from scratio._progress import expect_work, one_bar
from scratio.model import ScRatio
from scratio.stats import held_out_log_odds
from scratio.tl._cross_fit import FitSettings, fit_model, score, supported, with_columns
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._write import begin, check_key_added, finish, record

Group = tuple[str, ...]
"""Category of each condition key."""


@dataclass(frozen=True)
class Design:
    """The four groups of a combination of two treatments."""

    both: Group
    first: Group
    second: Group
    neither: Group
    treatments: tuple[str, str]

    @property
    def name(self) -> str:
        """Name of the combination, for columns and tables."""
        return "+".join(self.both)

    @property
    def groups(self) -> tuple[Group, Group, Group, Group]:
        """All four groups."""
        return self.both, self.first, self.second, self.neither


@takes_modality
@one_bar("comparing combinations")
def combination_effect(
    adata: AnnData,
    *,
    condition_keys: str | Sequence[str],
    combination: Any,
    reference: Any,
    use_rep: str = "X_pca",
    n_folds: int = 5,
    method: str = "auto",
    key_added: str = "combination",
    random_state: int = 0,
    copy: bool = False,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
    mod: str | None = None,
) -> AnnData | None:
    r"""Compare two treatments together with the first one alone, and measure their interaction, for every cell.

    .. math::
        \log r(x) = \log p(x | a, b) - \log p(x | a, 0), \qquad
        i(x) = \log p(x | a, b) + \log p(x | 0, 0) - \log p(x | a, 0) - \log p(x | 0, b)

    in nats (arXiv 2602.24201, section 5.5). The interaction is 0 where each treatment changes the density by a factor
    that does not depend on the other treatment. It is positive where the two together make a state more likely than the
    product of both factors.

    Parameters
    ----------
    adata
        Cells.
    condition_keys
        Two columns of ``obs``, one for each treatment, or one column whose categories are joined by ``"+"``.
    combination
        With two columns, the pair of categories ``("a", "b")``. With one column, the category ``"a+b"``. A list gives
        several such combinations. The first treatment is held fixed in the log ratio.
    reference
        Category without either treatment: a pair with two columns, one category with one column. If that one category
        is part of the combination, as ``"medium"`` is of ``"medium+a+b"``, the other two parts are the treatments.
    use_rep
        Embedding in ``obsm``, shape (n_cells, d); ``"X"`` is ``adata.X`` itself, for example markers of a cytometer.
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
    None, or a copy if ``copy=True``. With several combinations the names in ``obs`` contain the combination:
    ``combination_a+b_log_ratio``. The results are

    ``obs[key_added + "_log_ratio"]``, ``obs[key_added + "_std"]``
        Out-of-fold log ratio of the combination over its first treatment, and its standard error, in nats. They are
        given for the cells of the combination's four groups. NaN for all other cells.
    ``obs[key_added + "_interaction"]``
        Interaction in nats, for the cells of the combination's four groups.
    ``obs[key_added + "_support"]``
        Whether the cell is typical both of the combination and of its first treatment. If it is, the log ratio is not
        an extrapolation (:meth:`scratio.model.ScRatio.typicality`).
    ``uns[key_added]["summary"]``
        A row for each combination: its treatments, numbers of cells, mean log ratio of the combination's cells, mean
        magnitude of the log ratio over the cells of the combination and of its first treatment, mean interaction of the
        combination's cells, and ``classifier_magnitude``. The last is a check of plausibility: the mean magnitude of
        the log odds of a held-out logistic regression, over the cells of the combination and of its first treatment.
    ``uns[key_added]``
        Parameters and training history.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    TypeError
        If the embedding is sparse or not numeric.
    ValueError
        If a combination does not name two treatments, if a group of the design has fewer cells than folds, if a label
        is missing, if the embedding is not finite, or if a column that would be overwritten was not written by scratio.

    See Also
    --------
    scratio.pl.combination_effect : Draw the effect of every combination.
    scratio.pl.embedding : Draw the log ratio on an embedding.
    scratio.get.table : Return the results as a table.
    scratio.tl.summary : Sum up the results in words.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["drug"] = np.array(["none", "a", "b", "a+b"])[np.arange(600) % 4]
    >>> scratio.tl.combination_effect(
    ...     adata, condition_keys="drug", combination="a+b", reference="none",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> bool(adata.obs["combination_interaction"].notna().all())
    True
    """
    check_anndata(adata, copy=copy)
    settings = FitSettings.checked(n_folds, method, random_state, model_kwargs, train_kwargs)
    keys = [condition_keys] if isinstance(condition_keys, str) else list(condition_keys)
    designs = _designs(adata, keys, combination, reference)
    used = _cells(adata, keys, designs, use_rep, n_folds)
    prefixes = [f"{key_added}_{design.name}" if len(designs) > 1 else key_added for design in designs]
    kinds = ("log_ratio", "std", "interaction", "support")
    columns_added = [f"{prefix}_{kind}" for prefix in prefixes for kind in kinds]
    plan = check_key_added(adata, key_added, obs=columns_added, reads={"obs": keys, "obsm": [use_rep]})
    own = _groups(used.obs, keys)
    # Two questions for each combination: with and without the first treatment.
    scored = [int(own.isin(list(design.groups)).sum()) for design in designs for _ in range(2)]
    expect_work(source_of(used, use_rep).shape, scored, shown=settings.shows_progress)
    model = fit_model(used, keys, use_rep, settings)
    columns, rows = {}, []
    for prefix, design in zip(prefixes, designs, strict=True):
        cells = np.flatnonzero(own.isin(list(design.groups)))
        values = _score_design(model, keys, design, settings, cells)
        for kind, found in zip(kinds, values, strict=True):
            column = np.full(used.n_obs, False if kind == "support" else np.nan)
            column[cells] = found
            columns[f"{prefix}_{kind}"] = column
        rows.append(_summary(design, own.iloc[cells], *values[:3], np.asarray(used.obsm[use_rep])[cells], settings))
    target = begin(adata, key_added, copy)
    with_columns(target, used.obs_names, columns)
    params = {
        "condition_keys": keys,
        "combination": [design.name for design in designs],
        "reference": "+".join(designs[0].neither),
        "use_rep": use_rep,
        **vars(settings),
    }
    data = data_fingerprint(used, use_rep, keys)
    result = record("combination_effect", params, data, model, summary=pd.DataFrame(rows))
    return finish(target, key_added, result, plan, copy)


def _designs(adata: AnnData, keys: list[str], combination: Any, reference: Any) -> list[Design]:
    """Find the four groups of every combination."""
    if len(keys) not in (1, 2) or len(set(keys)) < len(keys):
        raise ValueError(f"condition_keys must name one column or two different ones, got {keys}")
    if len(keys) == 1:
        several = [combination] if isinstance(combination, str) else list(combination)
        return [_design_of_one_column(str(name), str(reference)) for name in several]
    several = list(combination) if is_list_like(combination) and all(map(is_list_like, combination)) else [combination]
    if any(not is_list_like(pair) or len(pair) != 2 for pair in (*several, reference)):
        raise ValueError(
            f"with two condition_keys combination and reference are pairs of categories; got {combination!r} and "
            f"{reference!r}"
        )
    found = [list(check_categories(adata, key).unique()) for key in keys]
    none, *pairs = (tuple(map(category_of, pair, found)) for pair in (reference, *several))
    designs = []
    for first, second in pairs:
        if first == none[0] or second == none[1]:
            raise ValueError(f"combination {(first, second)} has a category of the reference {none}")
        designs.append(Design((first, second), (first, none[1]), (none[0], second), none, (first, second)))
    return designs


def _design_of_one_column(combination: str, reference: str) -> Design:
    parts, base = combination.split("+"), reference.split("+")
    base = base if set(base) <= set(parts) else []
    drugs = [part for part in parts if part not in base]
    if len(drugs) != 2:
        raise ValueError(
            f"combination {combination!r} must name two treatments joined by '+' beside the reference {reference!r}; "
            f"it names {drugs}"
        )
    alone = ["+".join([*base, drug]) for drug in drugs]
    return Design((combination,), (alone[0],), (alone[1],), (reference,), (drugs[0], drugs[1]))


def _groups(obs: pd.DataFrame, keys: list[str]) -> pd.Series:
    return pd.Series(list(obs[keys].itertuples(index=False, name=None)), index=obs.index)


def _cells(adata: AnnData, keys: list[str], designs: list[Design], use_rep: str, n_folds: int) -> AnnData:
    """Check the input and return the cells of all groups of the designs."""
    check_unique_names(adata)
    x = check_embedding(adata, use_rep)
    obs = pd.DataFrame({key: check_categories(adata, key) for key in keys})
    own = _groups(obs, keys)
    sizes = own.value_counts()
    for design in designs:
        few = {" + ".join(group): int(sizes.get(group, 0)) for group in design.groups if sizes.get(group, 0) < n_folds}
        if few:
            found = {" + ".join(map(str, group)): int(n) for group, n in zip(sizes.index, sizes, strict=True)}
            raise ValueError(
                f"the combination {design.name!r} needs at least n_folds={n_folds} cells in each of its four groups; "
                f"too few in {few}. obs[{keys}] has {found}"
            )
    rows = own.isin([group for design in designs for group in design.groups]).to_numpy()
    return AnnData(obs=obs[rows], obsm={use_rep: x[rows]})


def _score_design(
    model: ScRatio, keys: list[str], design: Design, settings: FitSettings, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log ratio over the first treatment, its standard error, the interaction, and the support of the log ratio."""

    def condition(group: Group) -> dict[str, str]:
        return dict(zip(keys, group, strict=True))

    ratio, std = score(model, condition(design.both), condition(design.first), settings.method, rows=cells)
    without, _ = score(model, condition(design.second), condition(design.neither), settings.method, rows=cells)
    support = supported(model, condition(design.both), condition(design.first), rows=cells)
    return ratio, std, ratio - without, support


def _summary(
    design: Design,
    own: pd.Series,
    ratio: np.ndarray,
    std: np.ndarray,
    interaction: np.ndarray,
    x: np.ndarray,
    settings: FitSettings,
) -> dict[str, Any]:
    both, first = (own.map(lambda group, wanted=wanted: group == wanted).to_numpy() for wanted in design.groups[:2])
    compared = both | first
    odds = held_out_log_odds(x[compared], both[compared], settings.n_folds, settings.random_state)
    return {
        "combination": design.name,
        "first": design.treatments[0],
        "second": design.treatments[1],
        "over": "+".join(design.first),
        "n_combination": int(both.sum()),
        "n_first": int(first.sum()),
        "mean": float(ratio[both].mean()),
        "mean_magnitude": float(np.abs(ratio[compared]).mean()),
        "mean_interaction": float(interaction[both].mean()),
        "classifier_magnitude": float(np.abs(odds).mean()),
    }
