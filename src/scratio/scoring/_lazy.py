"""Scores as lazy dask arrays, so that a cluster computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch

from scratio.module import Condition

if TYPE_CHECKING:
    from scratio.scoring._scorer import Scorer


def is_dask(x: Any) -> bool:
    """Whether an array is one of dask's, which need not be installed."""
    # AnnData's views of them are of a class of its own.
    return any(kind.__module__.startswith("dask.array") for kind in type(x).__mro__)


def lazily(scorer: Scorer, x: Any, folds: np.ndarray | None, given: dict[str, Condition]) -> tuple[Any, Any]:
    """Mean and standard error of every cell, both lazy, with the chunks of the embedding.

    The scorer is a task of its own that the chunks' tasks depend on, so that every worker gets it once.

    Parameters
    ----------
    scorer
        What scores a block.
    x
        Embedding, a dask array of shape (n, d).
    folds
        Fold of each cell, if any.
    given
        Conditions by name, of one row or n.
    """
    import dask
    import dask.array as da

    # A worker may be a machine without the accelerator of this one.
    scorer = scorer.on(torch.device("cpu"))
    x = x.rechunk({1: -1})
    rows = x.chunks[0]
    own = [name for name, value in given.items() if len(value) > 1]
    shared = {name: value for name, value in given.items() if len(value) == 1}
    tables = [table.numpy() for name in own for table in (given[name].codes, given[name].values)]
    tables += [] if folds is None else [folds[:, None]]
    # A width of 0 makes no chunks; what holds nothing is left out and put back.
    blocks = [da.from_array(table, chunks=(rows, (table.shape[1],))) for table in tables if table.shape[1]]
    values = da.map_blocks(
        _scored,
        x,
        *blocks,
        scorer=dask.delayed(scorer, name=f"scratio-scorer-{uuid4().hex}", traverse=False),
        shared=shared,
        own=own,
        is_table=[bool(table.shape[1]) for table in tables],
        dtype=np.float64,
        chunks=(rows, (2,)),
        meta=np.empty((0, 2)),
    )
    return values[:, 0], values[:, 1]


def _scored(
    cells: np.ndarray, *blocks: np.ndarray, scorer: Scorer, shared: dict, own: list[str], is_table: list[bool]
) -> np.ndarray:
    """Scores of one chunk."""
    bad = int((~np.isfinite(cells).all(axis=1)).sum())
    if bad:
        raise ValueError(f"obsm[{scorer.obsm_key!r}] has NaN or infinite entries in {bad} cells of a chunk")
    rest = iter(blocks)
    tables = [np.asarray(next(rest)) if is_there else np.empty((len(cells), 0), np.float32) for is_there in is_table]
    given = dict(shared)
    for k, name in enumerate(own):
        codes, values = tables[2 * k : 2 * k + 2]
        given[name] = Condition(torch.from_numpy(codes.astype(np.int64)), torch.from_numpy(values))
    folds = tables[-1][:, 0] if len(tables) > 2 * len(own) else None
    return np.stack(scorer(np.asarray(cells), folds, given), axis=1)
