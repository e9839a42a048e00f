"""Differential abundance: which cell states are more likely under treatment than under the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from anndata import AnnData

from scratio.model import OWN
from scratio.model._check import check_embedding, check_groups, check_unique_names
from scratio.stats import overlap_support
from scratio.tl._cross_fit import FitSettings, fit_model, score, with_columns
from scratio.tl._write import check_key_added, record


def differential_abundance(
    adata: AnnData,
    *,
    condition_key: str,
    treatment: str,
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
        Its two categories to compare; cells of other categories are neither used nor scored.
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
        not finite, a label of a covariate is missing, ``model_kwargs`` holds ``n_folds``, or a column that would be
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
    if isinstance(covariate_keys, str):
        raise TypeError(f"covariate_keys must be a list of keys, got the string {covariate_keys!r}")
    settings = FitSettings.checked(n_folds, method, random_state, model_kwargs, train_kwargs)
    columns = [f"{key_added}_{name}" for name in ("log_ratio", "std", "support")]
    used = _cells(adata, condition_key, treatment, reference, use_rep, list(covariate_keys), sample_key, n_folds)
    check_key_added(adata, key_added, columns)
    model = fit_model(used, [condition_key, *covariate_keys], use_rep, settings)
    fixed = dict.fromkeys(covariate_keys, OWN)
    numerator, denominator = ({condition_key: str(group), **fixed} for group in (treatment, reference))
    log_ratios, std = score(model, numerator, denominator, settings.method)
    is_treatment = (used.obs[condition_key] == str(treatment)).to_numpy()
    support = overlap_support(model.embedding(used), is_treatment)

    target = adata.copy() if copy else adata
    with_columns(target, used.obs_names, dict(zip(columns, (log_ratios, std, support), strict=True)))
    params = {
        "condition_key": condition_key,
        "treatment": treatment,
        "reference": reference,
        "use_rep": use_rep,
        "covariate_keys": list(covariate_keys),
        **vars(settings),
    }
    counts = {"treatment": int(is_treatment.sum()), "reference": int((~is_treatment).sum())}
    target.uns[key_added] = record(params, model, n_cells=counts, supported_fraction=float(support.mean()))
    return target if copy else None


def _cells(
    adata: AnnData,
    condition_key: str,
    treatment: str,
    reference: str,
    use_rep: str,
    covariate_keys: list[str],
    sample_key: str | None,
    n_folds: int,
) -> AnnData:
    """Check the input; the cells of both categories, with nothing but what the model needs."""
    if sample_key is not None:
        raise ValueError("sample_key: tests across samples are not part of this version; pass sample_key=None")
    if str(treatment) == str(reference):
        raise ValueError(f"treatment and reference are both {treatment!r}; nothing to compare")
    check_unique_names(adata)
    x = check_embedding(adata, use_rep)
    labels = check_groups(adata, condition_key, [str(treatment), str(reference)], n_folds)
    rows = labels.isin([str(treatment), str(reference)]).to_numpy()
    obs = pd.DataFrame({condition_key: labels[rows]})
    used = AnnData(obs=obs, obsm={use_rep: x[rows]})
    for key in covariate_keys:
        if key == condition_key:
            raise ValueError(f"covariate_keys holds the condition_key {key!r}")
        check_groups(adata, key, [])
        used.obs[key] = adata.obs[key][rows].astype(str).where(adata.obs[key][rows].notna())
    return used
