"""Distances between samples: divergences of the distributions of their cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from scratio._check import (
    check_anndata,
    check_at_least,
    check_categories,
    check_embedding,
    check_unique_names,
    source_of,
)
from scratio._modality import takes_modality
from scratio._progress import expect_work, one_bar
from scratio.model._closed_forms import MAX_SHARED
from scratio.stats import Divergences
from scratio.tl._cross_fit import FitSettings, fit_model
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._sample_design import MIN_CELLS, warn_of_left_out
from scratio.tl._trees import tree_of
from scratio.tl._write import begin, check_key_added, finish, record


@takes_modality
@one_bar("comparing samples")
def sample_distance(
    adata: AnnData,
    *,
    sample_key: str,
    use_rep: str = "X_pca",
    min_cells: int = MIN_CELLS,
    n_folds: int = 5,
    effort: str = "default",
    key_added: str = "sample_distance",
    random_state: int = 0,
    copy: bool = False,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
    mod: str | None = None,
) -> AnnData | None:
    r"""Measure how far every two samples lie apart, as distributions of cells: symmetric divergences in nats.

    .. math::
        J(a, b) = E_{x \sim a} \log \frac{p(x | a)}{p(x | b)} + E_{x \sim b} \log \frac{p(x | b)}{p(x | a)}

    This is the sum of the Kullback-Leibler divergences of both directions (Jeffreys 1946). It is 0 for samples that
    have equal distributions, whatever their numbers of cells. It grows with differences in the shares of cell types and
    with differences of the states of the cells. Two Gaussians that lie s standard deviations apart have a distance of
    :math:`s^2`. One model of all samples is trained. Every cell is scored by networks that did not see it.

    Parameters
    ----------
    adata
        Cells.
    sample_key
        Column of ``obs`` with the samples, for example donors, or donors at a time.
    use_rep
        Embedding in ``obsm``, shape (n_cells, d); ``"X"`` is ``adata.X`` itself.
    min_cells
        A sample with fewer cells is left out, as is one with fewer than ``n_folds`` cells. A warning names the samples
        that are left out.
    n_folds
        Cross-fitting folds, at least 2.
    effort
        ``"default"``, or ``"quick"`` for a first look without a network, as in
        :func:`scratio.tl.differential_abundance`.
    key_added
        Key of the result in ``uns``.
    random_state
        Seed of all random numbers.
    copy
        Whether to return a copy instead of writing into ``adata``.
    model_kwargs, train_kwargs
        For :class:`scratio.model.ScRatio` and its :meth:`~scratio.model.ScRatio.train`.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``uns[key_added]["distance"]``, ``uns[key_added]["standard_error"]``
        Distance of every two samples in nats, and its standard error: tables with a row and a column for each sample.
        Estimates below 0 are set to 0, because no distance is negative. Standard errors are NaN for a single network,
        and where the cells are so few that nothing could be learnt: all distances are then 0.
    ``uns[key_added]["table"]``
        A row for each pair of samples: ``first``, ``second``, their numbers of cells ``n_first`` and ``n_second``,
        ``distance``, ``standard_error``, and the two directions before negative values are set to 0: ``kl_first`` is
        :math:`KL(first \| second)`, the mean log ratio of the cells of the first sample, and ``kl_second`` is
        :math:`KL(second \| first)`.
    ``uns[key_added]["samples"]``
        A row for each sample: number of cells, and why it is left out (empty if it is not).
    ``uns[key_added]["tree"]``
        Average linkage of the distances, if there are more than two samples.
    ``uns[key_added]``
        Parameters and training history.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    TypeError
        If the embedding is sparse or not numeric.
    ValueError
        If fewer than 2 samples have enough cells, or more than 256 with ``effort="quick"``, if a label is missing, if
        the embedding is not finite, if ``model_kwargs`` names another parametrization, or if something that would be
        overwritten was not written by scratio.

    See Also
    --------
    scratio.pl.sample_distance : Draw the distances as a heat map, ordered by similarity.
    scratio.get.table : Return the pairs as a table.
    scratio.model.ScRatio.divergences : Divergences between the categories of any key of a model.

    Notes
    -----
    A distance counts what networks can predict of cells that they did not see, so that it behaves like a lower bound.
    Differences in the shares of cell types are found in full, differences in the states of the cells in part
    (docs/outside-benchmarks.md). Use it to order samples. The standard error does not cover this bias.

    The standard error covers the sampling of cells, not of donors. Two samples of one donor differ by more than that:
    compare a distance with those of samples that should be alike.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> adata.obs["sample"] = adata.obs["condition"].astype(str) + (np.arange(600) % 2).astype(str)
    >>> scratio.tl.sample_distance(
    ...     adata, sample_key="sample", train_kwargs={"max_steps": 20, "progress_bar": False}
    ... )
    >>> adata.uns["sample_distance"]["distance"].shape
    (4, 4)
    """
    check_anndata(adata, copy=copy)
    check_at_least(1, min_cells=min_cells)
    settings = FitSettings.checked(n_folds, "head", random_state, model_kwargs, train_kwargs, effort)
    if settings.model_kwargs.get("parametrization", "potential") != "potential":
        raise ValueError(
            f"model_kwargs names parametrization={settings.model_kwargs['parametrization']!r}; distances between "
            "samples need 'potential'"
        )
    cells, samples = _cells(adata, sample_key, use_rep, max(min_cells, n_folds))
    names = samples.loc[samples["left_out"] == "", "sample"].tolist()
    if effort == "quick" and len(names) > MAX_SHARED:
        raise ValueError(
            f"effort='quick' fits closed forms to at most {MAX_SHARED} samples; obs[{sample_key!r}] has {len(names)}. "
            "Leave effort out, or take fewer samples"
        )
    plan = check_key_added(adata, key_added, tables={sample_key: names}, reads={"obs": [sample_key], "obsm": [use_rep]})
    warn_of_left_out(samples, sample_key)
    expect_work(source_of(cells, use_rep).shape, [cells.n_obs], shown=settings.shows_progress)
    model = fit_model(cells, [sample_key], use_rep, settings)
    found = model.divergences(key=sample_key)
    target = begin(adata, key_added, copy)
    params = {"sample_key": sample_key, "use_rep": use_rep, "min_cells": min_cells, **vars(settings)}
    del params["method"]
    data = data_fingerprint(cells, use_rep, [sample_key])
    result = record("sample_distance", params, data, model, samples=samples, **_tables(found))
    return finish(target, key_added, result, plan, copy)


def _cells(adata: AnnData, sample_key: str, use_rep: str, fewest: int) -> tuple[AnnData, pd.DataFrame]:
    """Check the input; the cells of the samples that take part, and a row for each sample."""
    check_unique_names(adata)
    x = check_embedding(adata, use_rep)
    labels = check_categories(adata, sample_key)
    sizes = labels.value_counts().sort_index()
    samples = pd.DataFrame({"sample": sizes.index.astype(str), "n_cells": sizes.to_numpy()})
    samples["left_out"] = np.where(samples["n_cells"] < fewest, f"fewer than {fewest} cells", "")
    takes_part = samples["left_out"] == ""
    if takes_part.sum() < 2:
        raise ValueError(
            f"obs[{sample_key!r}] has {int(takes_part.sum())} samples with at least {fewest} cells (the larger of "
            f"min_cells and n_folds), at least 2 are needed; found: {sizes.head(10).to_dict()}"
        )
    rows = labels.isin(samples.loc[takes_part, "sample"]).to_numpy()
    return AnnData(obs=pd.DataFrame({sample_key: labels[rows]}), obsm={use_rep: x[rows]}), samples


def _tables(found: Divergences) -> dict[str, Any]:
    """Square tables, a row for each pair, and the tree."""
    # Without a name: files refuse one that is also that of a column, as of a sample "sample".
    names = pd.Index(found.groups)
    distance = np.maximum(found.symmetric, 0.0)
    first, second = np.triu_indices(len(names), k=1)
    pairs = {
        "first": names[first].to_numpy(),
        "second": names[second].to_numpy(),
        "n_first": found.n_cells[first],
        "n_second": found.n_cells[second],
        "distance": distance[first, second],
        "standard_error": found.symmetric_error[first, second],
        "kl_first": found.kl[first, second],
        "kl_second": found.kl[second, first],
    }
    square = {"distance": distance, "standard_error": found.symmetric_error}
    tables: dict[str, Any] = {
        name: pd.DataFrame(values, index=names, columns=names.to_numpy()) for name, values in square.items()
    }
    tables["table"] = pd.DataFrame(pairs)
    if len(names) > 2:
        tables["tree"] = tree_of(linkage(squareform(distance, checks=False), method="average"))
    return tables
