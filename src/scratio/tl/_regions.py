"""Regions of the embedding in which a condition is significantly more, or less, frequent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

from scratio._check import category_of, check_anndata, check_embedding, check_obs_key
from scratio.stats import robust_coordinates
from scratio.tl._write import WRITTEN, copied, is_result, written_before

N_LINKED, CONNECTED = 15, 0.05
"""Nearest cells of every cell; share of such pairs by which two neighbourhoods are connected."""
COLUMNS = {
    "treatment": str,
    "region": str,
    "n_cells": int,
    "n_neighborhoods": int,
    "annotation_share": float,
    "mean_log_ratio": float,
    "effect": float,
    "qvalue": float,
    "familywise_pvalue": float,
    "samples_agreeing": int,
    "n_samples": int,
}
"""Columns of the table and their types, which it has without rows too."""


def regions(
    adata: AnnData,
    *,
    key: str = "da",
    annotation_key: str | None = None,
    group: str | None = None,
    max_qvalue: float = 0.1,
    copy: bool = False,
) -> AnnData | None:
    """Join significant neighbourhoods that touch, and name what they are made of.

    Two neighbourhoods of a q-value of at most ``max_qvalue`` and the same sign touch if at least 5% of the 15 nearest
    cells of the cells of either are in the other. A region is what is connected by that.

    Parameters
    ----------
    adata
        Cells with a result of :func:`scratio.tl.differential_abundance` with a ``sample_key``.
    key
        The result's ``key_added``.
    annotation_key
        Column of ``obs`` with cell types or clusters: a region has the name of the most frequent one of its cells, with
        a number where several regions would have the same.
    group
        One of several treatments; by default the first.
    max_qvalue
        False discovery rate up to which a neighbourhood is significant.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or a copy. Written are

    ``obs[key + "_region"]``
        The cell's region; missing for all others.
    ``uns[key]["regions"]``
        A row for each region, the largest first: numbers of cells and neighbourhoods, share of the annotation it is
        named by, mean log ratio of its cells and mean effect across samples (nats, positive where the treatment is more
        frequent), smallest q-value and family-wise p-value of its neighbourhoods, and how many agree: donors with a
        difference of that sign where donors are compared with themselves, otherwise samples whose share of cells in
        the region lies on their group's side of the middle between the groups' medians.

    Raises
    ------
    KeyError
        If there is no such result, it was computed without samples, or a column is missing.
    ValueError
        If ``max_qvalue`` is not between 0 and 1, there are no q-values since samples were too few, or
        ``obs[key + "_region"]`` is the user's own.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=800, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = adata.obs["condition"].astype(str) + (np.arange(800) % 4).astype(str)
    >>> scratio.tl.differential_abundance(
    ...     adata, condition_key="condition", treatment="treated", reference="control", sample_key="donor",
    ...     train_kwargs={"max_steps": 20, "progress_bar": False},
    ... )
    >>> scratio.tl.regions(adata, annotation_key="condition")
    >>> bool((adata.uns["da"]["regions"]["qvalue"] <= 0.1).all())
    True
    """
    check_anndata(adata, copy=copy)
    result = _result(adata, key, annotation_key, max_qvalue)
    groups = [str(name) for name in result["diagnostics"]["treatment"]]
    group = groups[0] if group is None else category_of(group, groups)
    table = result["neighborhoods"].query("treatment == @group").set_index("neighborhood")
    if table.empty:
        raise KeyError(f"uns[{key!r}] has no group {group!r}; found: {groups}")
    if table["qvalue"].isna().all():
        raise ValueError(f"uns[{key!r}] has no q-values for {group!r}: a group has too few samples")
    column = f"{key}_log_ratio"
    values = adata.obsm[column][group] if column in adata.obsm else adata.obs[column]
    obs = adata.obs.assign(**{column: values})[values.notna()]
    x = check_embedding(adata, result["params"]["use_rep"])[values.notna()]
    place = table.index.get_indexer(pd.Index(obs[f"{key}_neighborhood"].astype(str)))
    component = _components(x, place, table, max_qvalue)
    part = pd.Series(component[place], index=obs.index)
    labels = pd.Series("region", index=obs.index) if annotation_key is None else obs[annotation_key].astype(str)
    names = _names(part, labels, always_number=annotation_key is None)
    samples = result["samples"].query("treatment == @group and left_out == ''")
    rows = []
    for one, name in names.items():
        inside, own = (part == one).to_numpy(), table[component == one]
        row = _row(obs, inside, own, samples, result["params"], group)
        share = np.nan if annotation_key is None else float(labels[inside].value_counts(normalize=True).iloc[0])
        rows.append({"treatment": group, "region": name, "annotation_share": share, **row})
        rows[-1]["mean_log_ratio"] = float(obs.loc[inside, column].mean())
    found = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype(COLUMNS)
    target = copied(adata) if copy else adata
    target.obs[f"{key}_region"] = pd.Categorical(part.map(names).reindex(target.obs_names), list(names.values()))
    earlier = target.uns[key].get("regions")
    if earlier is not None:
        found = pd.concat([earlier[earlier["treatment"] != group], found], ignore_index=True)
    target.uns[key]["regions"] = found
    written = written_before(target, key)
    target.uns[key][WRITTEN] = {**written, "obs": list(dict.fromkeys([*written.get("obs", ()), f"{key}_region"]))}
    return target if copy else None


def _result(adata: AnnData, key: str, annotation_key: str | None, max_qvalue: float) -> Any:
    result = adata.uns.get(key, {})
    if not is_result(result) or "neighborhoods" not in result:
        raise KeyError(
            f"uns[{key!r}] has no test across samples; run scratio.tl.differential_abundance(adata, ..., "
            f"sample_key=..., key_added={key!r}) first"
        )
    for name in (f"{key}_neighborhood", *([] if annotation_key is None else [annotation_key])):
        check_obs_key(adata, name)
    if not 0.0 < max_qvalue <= 1.0:
        raise ValueError(f"max_qvalue must lie between 0 and 1, got {max_qvalue}")
    column = f"{key}_region"
    if column in adata.obs and column not in written_before(adata, key).get("obs", ()):
        raise ValueError(f"obs[{column!r}] would be overwritten; rename it")
    return result


def _components(x: np.ndarray, place: np.ndarray, table: pd.DataFrame, max_qvalue: float) -> np.ndarray:
    """Region of every neighbourhood, -1 for those that are not significant."""
    n = len(table)
    scaled = robust_coordinates(x, np.random.default_rng(0)).forward(x)
    k = min(N_LINKED, len(x) - 1)
    near = NearestNeighbors(n_neighbors=k).fit(scaled).kneighbors(return_distance=False)
    ends = np.repeat(place, k), place[near.ravel()]
    pairs = coo_matrix((np.ones(len(ends[0])), ends), shape=(n, n)).toarray()
    sizes = k * np.bincount(place, minlength=n)
    touch = np.maximum(pairs / sizes[:, None], (pairs / sizes[:, None]).T) >= CONNECTED
    is_called, sign = (table["qvalue"] <= max_qvalue).to_numpy(), np.sign(table["effect"].to_numpy())
    touch &= is_called[:, None] & is_called[None] & (sign[:, None] == sign[None])
    found = connected_components(coo_matrix(touch), directed=False)[1]
    found[~is_called] = -1
    found[is_called] = np.unique(found[is_called], return_inverse=True)[1]
    return found


def _names(part: pd.Series, labels: pd.Series, always_number: bool) -> dict[int, str]:
    """Name of every region, the largest first: its most frequent label, with a number where that is not unique."""
    sizes = part[part >= 0].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    dominant = {one: labels[part == one].value_counts().index[0] for one in sizes.index}
    number: dict[str, int] = {}
    named = {}
    for one, name in dominant.items():
        number[name] = number.get(name, 0) + 1
        is_unique = list(dominant.values()).count(name) == 1 and not always_number
        named[one] = name if is_unique else f"{name} {number[name]}"
    return named


def _row(
    obs: pd.DataFrame, inside: np.ndarray, own: pd.DataFrame, samples: pd.DataFrame, params: Any, group: str
) -> dict[str, Any]:
    """What is known of a region of some cells and neighbourhoods."""
    effect = float(np.average(own["effect"], weights=own["n_cells"]))
    return {
        "n_cells": int(inside.sum()),
        "n_neighborhoods": len(own),
        "effect": effect,
        "qvalue": float(own["qvalue"].min()),
        "familywise_pvalue": float(own["familywise_pvalue"].min()),
        "samples_agreeing": _agreeing(obs, inside, samples, params, group, float(np.sign(effect))),
        "n_samples": samples["donor"].nunique() if _is_within(samples) else len(samples),
    }


def _is_within(samples: pd.DataFrame) -> bool:
    return bool((samples["design"] == "within donors").all())


def _agreeing(
    obs: pd.DataFrame, inside: np.ndarray, samples: pd.DataFrame, params: dict[str, Any], group: str, sign: float
) -> int:
    """Number of samples, or of donors compared with themselves, whose cells in the region speak for the effect."""
    sample = obs[params["sample_key"]].astype(str).to_numpy()
    is_treatment = (obs[params["condition_key"]].astype(str) == group).to_numpy()
    is_case = (samples["group"] == "treatment").to_numpy()
    own = [(sample == name) & (is_treatment == case) for name, case in zip(samples["sample"], is_case, strict=True)]
    counts = samples.assign(inside=[(cells & inside).sum() for cells in own], is_case=is_case)
    if _is_within(samples):
        sums = counts.groupby(["donor", "is_case"])[["inside", "n_cells"]].sum()
        share = (sums["inside"] / sums["n_cells"]).unstack()
        return int((np.sign(share[True] - share[False]) == sign).sum())
    share = counts["inside"] / counts["n_cells"]
    middle = share.groupby(is_case).median().mean()
    return int((np.sign(share - middle) == np.where(is_case, sign, -sign)).sum())
