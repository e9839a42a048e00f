"""Regions of the embedding in which a condition is significantly more, or less, frequent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

from scratio._check import category_of, check_anndata, check_embedding, check_obs_key, is_result
from scratio._modality import takes_modality
from scratio.stats import robust_coordinates
from scratio.tl._write import WRITTEN, copied, written_before

N_LINKED, CONNECTED = 15, 0.05
"""Nearest cells of every cell; share of such pairs by which two neighbourhoods are connected."""
COLUMNS = {
    "treatment": str,
    "region": str,
    "n_cells": int,
    "n_neighborhoods": int,
    "annotation_share": float,
    "annotation_covered": float,
    "mean_log_ratio": float,
    "effect": float,
    "qvalue": float,
    "familywise_pvalue": float,
    "samples_agreeing": int,
    "n_samples": int,
}
"""Columns of the table of regions and their types, which it has without rows too."""
OF_SAMPLES = {
    "treatment": str,
    "region": str,
    "sample": str,
    "donor": str,
    "group": str,
    "n_cells": int,
    "n_inside": int,
    "share": float,
}
"""Columns of the table of regions and samples."""
HALF, QUARTER = 0.5, 0.25
"""Share of a region's cells by which one label names it alone, and by which a label is part of its name."""


@takes_modality
def regions(
    adata: AnnData,
    *,
    key: str = "da",
    annotation_key: str | None = None,
    group: str | None = None,
    max_qvalue: float = 0.1,
    copy: bool = False,
    mod: str | None = None,
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
        Column of ``obs`` with cell types or clusters, which name the regions. Every label that holds a quarter of a
        region's cells is part of its name, as in ``"B cells"`` or ``"CD4 T + CD8 T"``. The name says so if one label
        stands alone but holds less than half, as in ``"CD4 T (45%)"``, and is ``"mixed"`` if no label holds a quarter.
        Regions with equal names get a number.
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
        A row for each region, the largest first: numbers of cells and neighbourhoods; ``annotation_share``, the share
        of the region's cells that have the labels in its name, and ``annotation_covered``, the share of all compared
        cells with these labels that lie in the region; mean log ratio of its cells and mean effect across samples
        (nats, positive where the treatment is more frequent); smallest q-value and family-wise p-value of its
        neighbourhoods; and how many samples agree. Where donors are compared with themselves, these are the donors
        with a difference of that sign. Otherwise they are the samples whose share of cells in the region lies on their
        group's side of the middle between the groups' medians.
    ``uns[key]["region_samples"]``
        A row for each region and each sample that takes part: its donor, its group (``"treatment"`` or
        ``"reference"``), its number of cells, how many lie in the region, and the share that these are.

    See Also
    --------
    scratio.get.regions, scratio.get.samples : These tables.
    scratio.pl.regions : Draw the regions on an embedding.
    scratio.pl.samples : Draw the share of every sample in a region.

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
    labels = None if annotation_key is None else obs[annotation_key].astype(str)
    named = _names(part, labels)
    samples = result["samples"].query("treatment == @group and left_out == ''")
    rows, of_samples = [], []
    for one, name in named["name"].items():
        inside, own = (part == one).to_numpy(), table[component == one]
        counted = _counted(obs, inside, samples, result["params"], group)
        shares = dict(named.loc[one, ["annotation_share", "annotation_covered"]])
        row = _row(inside, own, counted) | {"mean_log_ratio": float(obs.loc[inside, column].mean())}
        rows.append({"treatment": group, "region": name, **shares, **row})
        of_samples.append(counted.assign(treatment=group, region=name))
    names = dict(named["name"])
    target = copied(adata) if copy else adata
    target.obs[f"{key}_region"] = pd.Categorical(part.map(names).reindex(target.obs_names), list(names.values()))
    _replace(target.uns[key], "regions", pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype(COLUMNS), group)
    joined = pd.concat(of_samples) if of_samples else pd.DataFrame(columns=pd.Index(OF_SAMPLES))
    _replace(target.uns[key], "region_samples", joined[[*OF_SAMPLES]].astype(OF_SAMPLES), group)
    written = written_before(target, key)
    target.uns[key][WRITTEN] = {**written, "obs": list(dict.fromkeys([*written.get("obs", ()), f"{key}_region"]))}
    return target if copy else None


def _replace(result: dict[str, Any], name: str, found: pd.DataFrame, group: str) -> None:
    """Put the rows of one treatment into a table of a result, in the place of earlier ones."""
    earlier = result.get(name)
    if earlier is not None:
        found = pd.concat([earlier[earlier["treatment"] != group], found])
    result[name] = found.reset_index(drop=True)


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


def _names(part: pd.Series, labels: pd.Series | None) -> pd.DataFrame:
    """Name of every region, the largest first, and what the labels in its name hold and cover."""
    sizes = part[part >= 0].value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    rows = []
    for one in sizes.index:
        if labels is None:
            rows.append(("region", np.nan, np.nan))
            continue
        shares = labels[part == one].value_counts(normalize=True)
        text, used = _name(shares)
        has_label = labels.isin(used)
        rows.append((text, float(shares[used].sum()), float((part[has_label] == one).mean())))
    named = pd.DataFrame(rows, columns=["name", "annotation_share", "annotation_covered"], index=sizes.index)
    if labels is None:
        is_unique = pd.Series(False, index=named.index)
    else:
        is_unique = ~named["name"].duplicated(keep=False)
    number = (named.groupby("name").cumcount() + 1).astype(str)
    named["name"] = named["name"].where(is_unique, named["name"] + " " + number)
    return named


def _name(shares: pd.Series) -> tuple[str, list[str]]:
    """Name of a region in which labels have these shares, the largest first, and the labels that are part of it."""
    used = list(shares.index[shares >= QUARTER])
    if not used:
        return "mixed", [shares.index[0]]
    if len(used) == 1 and shares.iloc[0] < HALF:
        return f"{used[0]} ({shares.iloc[0]:.0%})", used
    return " + ".join(sorted(used)), used


def _row(inside: np.ndarray, own: pd.DataFrame, counted: pd.DataFrame) -> dict[str, Any]:
    """What is known of a region of some cells and neighbourhoods."""
    effect = float(np.average(own["effect"], weights=own["n_cells"]))
    return {
        "n_cells": int(inside.sum()),
        "n_neighborhoods": len(own),
        "effect": effect,
        "qvalue": float(own["qvalue"].min()),
        "familywise_pvalue": float(own["familywise_pvalue"].min()),
        "samples_agreeing": _agreeing(counted, float(np.sign(effect))),
        "n_samples": counted["donor"].nunique() if _is_within(counted) else len(counted),
    }


def _is_within(samples: pd.DataFrame) -> bool:
    return bool((samples["design"] == "within donors").all())


def _counted(
    obs: pd.DataFrame, inside: np.ndarray, samples: pd.DataFrame, params: dict[str, Any], group: str
) -> pd.DataFrame:
    """The samples with the number and the share of their cells that lie in a region."""
    sample = obs[params["sample_key"]].astype(str).to_numpy()
    is_treatment = (obs[params["condition_key"]].astype(str) == group).to_numpy()
    is_case = (samples["group"] == "treatment").to_numpy()
    own = [(sample == name) & (is_treatment == case) for name, case in zip(samples["sample"], is_case, strict=True)]
    counts = np.array([(cells & inside).sum() for cells in own], dtype=int)
    return samples.assign(n_inside=counts, share=counts / samples["n_cells"].to_numpy())


def _agreeing(counted: pd.DataFrame, sign: float) -> int:
    """Number of samples, or of donors compared with themselves, whose cells in the region speak for the effect."""
    is_case = counted["group"] == "treatment"
    if _is_within(counted):
        sums = counted.assign(is_case=is_case).groupby(["donor", "is_case"])[["n_inside", "n_cells"]].sum()
        share = (sums["n_inside"] / sums["n_cells"]).unstack()
        return int((np.sign(share[True] - share[False]) == sign).sum())
    middle = counted["share"].groupby(is_case).median().mean()
    return int((np.sign(counted["share"] - middle) == np.where(is_case, sign, -sign)).sum())
