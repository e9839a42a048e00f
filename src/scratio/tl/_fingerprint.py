"""Hashes of what a result was computed from, so that it can be told later whether that is still what lies here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._blocks import slabs
from scratio._check import source_of
from scratio.model import FDRL, ScRatio
from scratio.model._saving import fingerprint


def data_fingerprint(cells: AnnData, use_rep: str | Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Hashes of cells, of their embeddings and of their labels, each on its own to tell which of them has changed.

    Parameters
    ----------
    cells
        The cells that took part.
    use_rep
        Their embedding, or several.
    keys
        Columns of ``obs`` that were used.

    Returns
    -------
    ``use_rep`` and ``keys`` as given; ``n_cells``; hexadecimal SHA-256 as ``cells`` (names, in order), ``embedding``
    (values in double precision, whether they lie in memory or on disk) and ``labels`` (values, whether categorical or
    not).
    """
    names = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    embedding, labels = hashlib.sha256(), hashlib.sha256()
    for name in names:
        x = source_of(cells, name)
        for _, part in slabs(x.to_numpy() if isinstance(x, pd.DataFrame) else x):
            embedding.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
    for key in keys:
        labels.update(pd.util.hash_array(_plain(cells.obs[key])).tobytes())
    return {
        "use_rep": np.asarray(names, dtype=str),
        "keys": np.asarray(list(keys), dtype=str),
        "n_cells": cells.n_obs,
        "cells": fingerprint(cells.obs_names),
        "embedding": embedding.hexdigest(),
        "labels": labels.hexdigest(),
    }


def _plain(column: pd.Series) -> np.ndarray:
    """Labels as text, or as numbers where all are, whatever the type of the column.

    Analyses take labels as text, and files make categories of text: 1, 1.0, "1" and a category of any of them are one
    label.
    """
    codes, names = pd.factorize(column.astype(str))
    try:
        found = np.asarray(names, dtype=np.float64)
    except ValueError:
        found = np.asarray(names, dtype=object)
    return found[codes]


def scored_fingerprint(adata: AnnData, model: ScRatio | FDRL) -> dict[str, Any]:
    """Hash the cells that a trained model has scored, and the weights of the model as ``model``."""
    keys = [key for key in model.schema.keys if key in adata.obs]
    return {**data_fingerprint(adata, model.obsm_key, keys), "model": model.fingerprint()}
