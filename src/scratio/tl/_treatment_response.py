"""Response of every donor to every treatment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.cluster.hierarchy import linkage

from scratio._check import category_of, check_anndata, check_categories, check_embedding, check_unique_names, source_of
from scratio._modality import takes_modality
from scratio._progress import expect_work, one_bar
from scratio.model import OWN, ScRatio
from scratio.tl._cross_fit import FitSettings, fit_model, means_by_side, of_own, score, supported, with_columns
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._trees import tree_of
from scratio.tl._write import begin, check_key_added, finish, record


@takes_modality
@one_bar("comparing donors")
def treatment_response(
    adata: AnnData,
    *,
    treatment_key: str,
    donor_key: str,
    reference: str,
    use_rep: str = "X_pca",
    n_folds: int = 5,
    method: str = "auto",
    key_added: str = "response",
    random_state: int = 0,
    copy: bool = False,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
    mod: str | None = None,
) -> AnnData | None:
    r"""Compare treated with untreated cells of each donor: a log ratio per cell, and a table of all donors.

    .. math:: \log r(x) = \log p(x | donor, treatment) - \log p(x | donor, reference)

    in nats (arXiv 2602.24201, section 5.4). It is positive where the cell state is more likely with treatment.
    Differences between donors that exist without treatment cancel. The mean over a donor's treated cells is the
    Kullback-Leibler divergence of treated from untreated cells: it measures how strongly the donor responds. The mean
    over the untreated cells is minus the divergence of untreated from treated cells. Every cell is scored by networks
    that did not see it.

    Parameters
    ----------
    adata
        Cells.
    treatment_key
        Column of ``obs`` with the treatment.
    donor_key
        Column with the donor.
    reference
        Category of ``treatment_key`` that means no treatment.
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
    None, or a copy if ``copy=True``. The results are

    ``obs[key_added + "_log_ratio"]``, ``obs[key_added + "_std"]``
        Log ratio in nats and its standard error. A treated cell has those of its own treatment. An untreated cell has
        those of the treatment if there is only one, and NaN if there are several.
    ``obs[key_added + "_support"]``
        Whether the cell is typical both of its donor's treated cells and of its donor's untreated cells. If it is, the
        log ratio is not an extrapolation (:meth:`scratio.model.ScRatio.typicality`).
    ``obsm[key_added + "_log_ratio"]``
        Table of log ratios of all cells by all treatments. NaN where a donor has fewer than ``n_folds`` treated
        or untreated cells.
    ``uns[key_added]["table"]``
        A row for each donor and treatment: ``n_treated``, ``n_reference``, and the mean log ratio and its standard
        error for the treated and for the reference cells. The standard error covers the spread of the cells and the
        standard error of their log ratios. The latter is treated as one error shared by all cells.
    ``uns[key_added]["matrix"]``
        Mean log ratio of the treated cells, donors by treatments.
    ``uns[key_added]["trees"]``
        Average linkage of the rows and of the columns of the matrix, if there are more than two of them.
    ``uns[key_added]``
        Parameters and training history.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    TypeError
        If the embedding is sparse or not numeric.
    ValueError
        If the reference is absent, if no donor has both treated and untreated cells, if a label is missing, if the
        embedding is not finite, or if a column that would be overwritten was not written by scratio.

    See Also
    --------
    scratio.pl.treatment_response : Draw the matrix of donors and treatments.
    scratio.pl.embedding : Draw the log ratio on an embedding.
    scratio.get.table : Return the results as a table.
    scratio.tl.summary : Sum up the results in words.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = np.where(np.arange(600) % 2, "d1", "d2")
    >>> scratio.tl.treatment_response(
    ...     adata, treatment_key="condition", donor_key="donor", reference="control",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> adata.uns["response"]["matrix"].shape
    (2, 1)
    """
    check_anndata(adata, copy=copy)
    settings = FitSettings.checked(n_folds, method, random_state, model_kwargs, train_kwargs)
    reference = category_of(reference, list(check_categories(adata, treatment_key).unique()))
    used, pairs = _cells(adata, treatment_key, donor_key, reference, use_rep, n_folds)
    columns = [f"{key_added}_{name}" for name in ("log_ratio", "std", "support")]
    treatments = sorted({treatment for _, treatment in pairs})
    plan = check_key_added(
        adata,
        key_added,
        obs=columns,
        obsm=columns[:1],
        tables={treatment_key: treatments},
        reads={"obs": [treatment_key, donor_key], "obsm": [use_rep]},
    )
    expect_work(source_of(used, use_rep).shape, [used.n_obs] * len(treatments), shown=settings.shows_progress)
    model = fit_model(used, [donor_key, treatment_key], use_rep, settings)
    values, errors, support = _score_pairs(model, used, pairs, treatment_key, donor_key, reference, settings)
    target = begin(adata, key_added, copy)
    labels = used.obs[treatment_key]
    untreated = values.columns[0] if values.shape[1] == 1 else None
    own = labels.where(labels != reference, untreated)
    own_columns = {name: of_own(table, own) for name, table in zip(columns, (values, errors, support), strict=True)}
    with_columns(target, used.obs_names, own_columns)
    target.obsm[columns[0]] = values.reindex(target.obs_names)
    table = _table(values, errors, used.obs, pairs, treatment_key, donor_key, reference)
    matrix = table.pivot(index="donor", columns="treatment", values="mean_treated")
    # Two rows need no tree.
    trees = {"donors": _tree(matrix.to_numpy()), "treatments": _tree(matrix.to_numpy().T)}
    params = {
        "treatment_key": treatment_key,
        "donor_key": donor_key,
        "reference": reference,
        "use_rep": use_rep,
        **vars(settings),
    }
    trees = {side: tree for side, tree in trees.items() if tree is not None}
    data = data_fingerprint(used, use_rep, [donor_key, treatment_key])
    result = record("treatment_response", params, data, model, table=table, matrix=matrix, trees=trees)
    return finish(target, key_added, result, plan, copy)


def _tree(values: np.ndarray) -> dict[str, np.ndarray] | None:
    """Average linkage of the rows and the order of its leaves; a missing value counts as no response."""
    if len(values) < 3:
        return None
    return tree_of(linkage(np.nan_to_num(values), method="average"))


def _cells(
    adata: AnnData, treatment_key: str, donor_key: str, reference: str, use_rep: str, n_folds: int
) -> tuple[AnnData, list[tuple[str, str]]]:
    """Check the input; the cells that take part, and the pairs of donor and treatment that can be compared."""
    if treatment_key == donor_key:
        raise ValueError(f"treatment_key and donor_key are both {donor_key!r}")
    check_unique_names(adata)
    x = check_embedding(adata, use_rep)
    obs = pd.DataFrame({key: check_categories(adata, key) for key in (donor_key, treatment_key)})
    if reference not in set(obs[treatment_key]):
        raise ValueError(
            f"obs[{treatment_key!r}] has no category {reference!r}; found: {sorted(obs[treatment_key].unique())}"
        )
    enough = obs.groupby([donor_key, treatment_key]).size().loc[lambda sizes: sizes >= n_folds].index
    pairs = [
        (donor, treatment) for donor, treatment in enough if treatment != reference and (donor, reference) in enough
    ]
    if not pairs:
        raise ValueError(
            f"no donor has at least n_folds={n_folds} cells of the reference {reference!r} and of a treatment. The "
            f"response is measured within donors. Found: {obs.value_counts().to_dict()}"
        )
    rows = pd.MultiIndex.from_frame(obs).isin({*pairs, *((donor, reference) for donor, _ in pairs)})
    return AnnData(obs=obs[rows], obsm={use_rep: x[rows]}), pairs


def _score_pairs(
    model: ScRatio,
    used: AnnData,
    pairs: list[tuple[str, str]],
    treatment_key: str,
    donor_key: str,
    reference: str,
    settings: FitSettings,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Log ratios, standard errors and support, cells by treatments."""
    treatments = sorted({treatment for _, treatment in pairs})
    values, errors, support = (
        pd.DataFrame(missing, index=used.obs_names, columns=pd.Index(treatments, name=None))
        for missing in (np.nan, np.nan, False)
    )
    for place, treatment in enumerate(treatments):
        donors = [donor for donor, given in pairs if given == treatment]
        rows = np.flatnonzero(used.obs[donor_key].isin(donors))
        ends = {donor_key: OWN, treatment_key: treatment}, {donor_key: OWN, treatment_key: reference}
        values.iloc[rows, place], errors.iloc[rows, place] = score(model, *ends, settings.method, rows=rows)
        support.iloc[rows, place] = supported(model, *ends, rows=rows)
    return values, errors, support


def _table(
    values: pd.DataFrame,
    errors: pd.DataFrame,
    obs: pd.DataFrame,
    pairs: list[tuple[str, str]],
    treatment_key: str,
    donor_key: str,
    reference: str,
) -> pd.DataFrame:
    rows = []
    for donor, treatment in pairs:
        row: dict[str, Any] = {"donor": donor, "treatment": treatment}
        sides = {
            name: ((obs[donor_key] == donor) & (obs[treatment_key] == label)).to_numpy()
            for name, label in (("treated", treatment), ("reference", reference))
        }
        rows.append(row | means_by_side(values[treatment].to_numpy(), errors[treatment].to_numpy(), sides))
    return pd.DataFrame(rows)
