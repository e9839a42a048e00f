"""What the plots of a test across samples share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio import get
from scratio._check import category_of, check_obs_key

HALF, MIXED = 0.5, "mixed"
EFFECT = "effect across samples (nats)"
SMALLEST, LARGEST = 12.0, 160.0
"""Areas of the points of the smallest and of the largest neighbourhood or sample, in square points."""


def tested(adata: AnnData, key: str, group: str | None) -> tuple[pd.DataFrame, str]:
    """Neighbourhoods that were tested, of one treatment, and a title that says what was compared.

    Parameters
    ----------
    adata, key
        Cells, and the key of the result.
    group
        One of several treatments. By default the first.
    """
    table = get.neighborhoods(adata, key=key)
    params = adata.uns[key]["params"]
    if "treatment" not in table:
        return table, str(params.get("key", key))
    names = list(dict.fromkeys(table["treatment"]))
    name = names[0] if group is None else category_of(group, names)
    if name not in names:
        raise KeyError(f"uns[{key!r}] has no group {group!r}; found: {names}")
    reference = params.get("reference", "the reference")
    return table[table["treatment"] == name].reset_index(drop=True), f"{name} over {reference}"


def is_called(table: pd.DataFrame, max_qvalue: float) -> np.ndarray:
    """Whether a neighbourhood is significant; without q-values none is."""
    if not 0.0 < max_qvalue <= 1.0:
        raise ValueError(f"max_qvalue must lie between 0 and 1, got {max_qvalue}")
    return (table["qvalue"] <= max_qvalue).to_numpy()


def annotated(adata: AnnData, key: str, groupby: str, table: pd.DataFrame) -> np.ndarray:
    """Label of each neighbourhood: that of most of its cells, or "mixed" if no label holds half of them."""
    labels = check_obs_key(adata, groupby)
    place = check_obs_key(adata, f"{key}_neighborhood")
    used = labels.notna() & place.notna()
    counts = pd.crosstab(place[used].astype(str), labels[used].astype(str))
    shares = counts.div(counts.sum(axis=1), axis=0).reindex(table["neighborhood"])
    most = shares.fillna(0.0).max(axis=1).to_numpy()
    names = np.array(shares.columns)[shares.fillna(0.0).to_numpy().argmax(axis=1)]
    return np.where(most >= HALF, names, MIXED)


def centres(adata: AnnData, key: str, coordinates: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Median of the cells of each neighbourhood in two dimensions, missing where it has none."""
    place = pd.Index(table["neighborhood"]).get_indexer(pd.Index(adata.obs[f"{key}_neighborhood"].astype(str)))
    inside = place >= 0
    found = pd.DataFrame(coordinates[inside]).groupby(place[inside]).median()
    return found.reindex(range(len(table))).to_numpy()


def areas(counts: np.ndarray | pd.Series) -> np.ndarray:
    """Areas of points that are proportional to numbers of cells, within the limits that the eye can use."""
    numbers = np.asarray(counts, dtype=float)
    return np.clip(LARGEST * numbers / max(numbers.max(initial=0.0), 1.0), SMALLEST, None)
