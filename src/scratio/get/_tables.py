"""Tables of a result as DataFrames of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from anndata import AnnData

from scratio._check import category_of, check_anndata, is_result
from scratio._modality import takes_modality

MAIN = ("table", "summary")
"""Where an analysis keeps its main table."""
TEXTS = {
    "annotation", "by", "carried_by", "closed_form", "combination", "design", "donor", "embedding", "first", "gene",
    "group", "left_out", "method", "neighborhood", "over", "reference", "region", "sample", "second", "treatment",
    "verdict",
}  # fmt: skip
"""Columns of texts, which files return as categories, or as numbers if they are empty."""
TESTED = ("differential_abundance", "association")
"""Analyses that test across samples."""
TEST = "pass sample_key= to scratio.tl.differential_abundance, which then tests across samples"


@takes_modality
def table(adata: AnnData, *, key: str = "da", group: str | None = None, mod: str | None = None) -> pd.DataFrame:
    """Return the main table of a result.

    Parameters
    ----------
    adata
        Cells with a result of any analysis in :mod:`scratio.tl`.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the table has the rows of all.

    Returns
    -------
    A copy of the table; the docstring of the analysis describes its columns. Log ratios are in nats, and positive where
    a cell state is more likely under the treatment.

    Raises
    ------
    KeyError
        If there is no such result or treatment, or the analysis has no table.

    See Also
    --------
    scratio.tl.summary : What a result says, on one page.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", effort="quick"
    ... )
    >>> scratio.get.table(adata)[["treatment", "reference"]].values.tolist()
    [['treated', 'control']]
    """
    result = _result(adata, key)
    name = next((name for name in MAIN if isinstance(result.get(name), pd.DataFrame)), None)
    if name is None:
        raise KeyError(f"uns[{key!r}] is of the analysis {result.get('analysis')!r}, which has no table")
    return _of_group(_tidy(result[name]), key, group)


@takes_modality
def diagnostics(adata: AnnData, *, key: str = "da", group: str | None = None, mod: str | None = None) -> pd.DataFrame:
    """Return how far the log ratios of a comparison can be believed: a row for each treatment, with a verdict.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance`.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the table has the rows of all.

    Returns
    -------
    A copy of the table that :func:`scratio.tl.differential_abundance` describes: slope of the held-out labels on the
    log ratio, overlap of the conditions, numbers of cells, verdict.

    Raises
    ------
    KeyError
        If there is no such result or treatment, or the analysis has no diagnostics.

    See Also
    --------
    scratio.get.calibration : The curve behind the slope.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", effort="quick"
    ... )
    >>> int(scratio.get.diagnostics(adata)[["n_treatment", "n_reference"]].iloc[0].sum())
    600
    """
    return _of_group(_stored(adata, key, "diagnostics", "call scratio.tl.differential_abundance"), key, group)


@takes_modality
def calibration(adata: AnnData, *, key: str = "da", group: str | None = None, mod: str | None = None) -> pd.DataFrame:
    """Return the reliability curve: predicted log ratios beside those that labels of held-out cells show.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance`.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the table has the rows of all.

    Returns
    -------
    A copy of the table. It has a row for each of ten groups of cells with similar log ratios: ``treatment``,
    ``n_cells``, ``expected`` and ``observed`` log ratio in nats, and the ``standard_error`` of the observed one.

    Raises
    ------
    KeyError
        If there is no such result or treatment, or the analysis has no such curve.

    See Also
    --------
    scratio.pl.calibration : Draw the curve.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", effort="quick"
    ... )
    >>> int(scratio.get.calibration(adata)["n_cells"].sum())
    600
    """
    return _of_group(_stored(adata, key, "calibration", "call scratio.tl.differential_abundance"), key, group)


@takes_modality
def neighborhoods(adata: AnnData, *, key: str = "da", group: str | None = None, mod: str | None = None) -> pd.DataFrame:
    """Return what was tested across samples: a row for each neighbourhood of similar cells.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` with a ``sample_key``, or of
        :func:`scratio.tl.association`.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the table has the rows of all.

    Returns
    -------
    A copy of the table: number of cells, effect in nats with its standard error across samples, p-value, q-value,
    family-wise p-value, the effect that remains without the strongest donor, and the donor who carries the effect
    alone, if one does. The column ``neighborhood`` names the cells in ``obs[key + "_neighborhood"]``.

    Raises
    ------
    KeyError
        If there is no such result or treatment, or nothing was tested across samples.

    See Also
    --------
    scratio.pl.volcano, scratio.pl.beeswarm, scratio.pl.neighborhoods : Draw the neighbourhoods.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=800, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = adata.obs["condition"].astype(str) + (np.arange(800) % 4).astype(str)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", sample_key="donor",
    ...     effort="quick",
    ... )
    >>> int(scratio.get.neighborhoods(adata)["n_cells"].sum())
    800
    """
    return _of_group(_stored(adata, key, "neighborhoods", TEST), key, group)


@takes_modality
def regions(adata: AnnData, *, key: str = "da", group: str | None = None, mod: str | None = None) -> pd.DataFrame:
    """Return the significant regions that :func:`scratio.tl.regions` has found, the largest first.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` on which :func:`scratio.tl.regions` was called.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the table has the rows of all.

    Returns
    -------
    A copy of the table that :func:`scratio.tl.regions` describes. It has no rows if nothing is significant.

    Raises
    ------
    KeyError
        If there is no such result or treatment, or :func:`scratio.tl.regions` was not called.

    See Also
    --------
    scratio.pl.regions : Draw the regions on an embedding.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=800, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = adata.obs["condition"].astype(str) + (np.arange(800) % 4).astype(str)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", sample_key="donor",
    ...     effort="quick",
    ... )
    >>> scratio.tl.regions(adata, annotation_key="condition")
    >>> bool((scratio.get.regions(adata)["qvalue"] <= 0.1).all())
    True
    """
    return _of_group(_regions(adata, key, "regions"), key, group)


@takes_modality
def samples(
    adata: AnnData, *, key: str = "da", group: str | None = None, region: str | None = None, mod: str | None = None
) -> pd.DataFrame:
    """Return the samples of a test: all of them, or those that take part with their share of cells in a region.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` with a ``sample_key``, or of
        :func:`scratio.tl.association`.
    key
        The result's ``key_added``.
    group
        One of several treatments. By default the table has the rows of all.
    region
        Region that :func:`scratio.tl.regions` has found.

    Returns
    -------
    A copy of the table. Without a region it has a row for each sample: donor, group, number of cells, why it is left
    out of the test (empty if it takes part), and ``variance_factor``. With a region it has a row for each sample that
    takes part: donor, group, number of cells, number of those that lie in the region, and their share.

    Raises
    ------
    KeyError
        If there is no such result, treatment or region, or nothing was tested across samples.

    See Also
    --------
    scratio.pl.samples : Draw the shares of a region.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=800, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = adata.obs["condition"].astype(str) + (np.arange(800) % 4).astype(str)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", sample_key="donor",
    ...     effort="quick",
    ... )
    >>> scratio.get.samples(adata)["sample"].tolist()[:2]
    ['treated0', 'treated1']
    """
    if region is None:
        return _of_group(_stored(adata, key, "samples", TEST), key, group)
    found = _of_group(_regions(adata, key, "region_samples"), key, group)
    if region not in set(found["region"]):
        raise KeyError(f"uns[{key!r}] has no region {region!r}; found: {list(dict.fromkeys(found['region']))}")
    return found[found["region"] == region].reset_index(drop=True)


def _regions(adata: AnnData, key: str, name: str) -> pd.DataFrame:
    # Without a test scratio.tl.regions would be refused.
    how = f"call scratio.tl.regions(adata, key={key!r})"
    return _stored(adata, key, name, how if "neighborhoods" in _result(adata, key) else TEST)


def _result(adata: AnnData, key: str) -> Mapping[str, Any]:
    check_anndata(adata)
    own = [name for name, value in adata.uns.items() if is_result(value)]
    if key not in own:
        raise KeyError(f"uns has no result of scratio under {key!r}; found: {own}. Call a function of scratio.tl first")
    return adata.uns[key]


def _stored(adata: AnnData, key: str, name: str, how: str) -> pd.DataFrame:
    """Table of a result, or a refusal that says how to get it."""
    result = _result(adata, key)
    if not isinstance(result.get(name), pd.DataFrame):
        analysis = result.get("analysis")
        if analysis not in TESTED:
            raise KeyError(f"uns[{key!r}] is of the analysis {analysis!r}, which has no table {name!r}")
        raise KeyError(f"uns[{key!r}] has no table {name!r}; {how}")
    return _tidy(result[name])


def _tidy(stored: pd.DataFrame) -> pd.DataFrame:
    """Copy of a table with numbered rows and texts as texts, also if it was read from a file."""
    tidy = stored.reset_index(drop=True)
    texts = [name for name in tidy if name in TEXTS or isinstance(tidy[name].dtype, pd.CategoricalDtype)]
    return tidy.astype(dict.fromkeys(texts, str))


def _of_group(tidy: pd.DataFrame, key: str, group: str | None) -> pd.DataFrame:
    """Rows of one treatment, if one is asked for."""
    if group is None:
        return tidy
    column: Sequence[str] = tidy["treatment"] if "treatment" in tidy else []
    found = list(dict.fromkeys(column))
    name = category_of(group, found)
    if name not in found:
        raise KeyError(f"uns[{key!r}] has no rows of {group!r}; found: {found}")
    return tidy[tidy["treatment"] == name].reset_index(drop=True)
