"""Cells of one condition moved to the distribution of another."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData

from scratio._check import check_anndata, source_of
from scratio._modality import takes_modality
from scratio.conditions import ConditionDict
from scratio.model import FDRL, ScRatio
from scratio.tl._fingerprint import scored_fingerprint
from scratio.tl._write import begin, check_key_added, finish, record

DISPLACEMENT = "displacement"


@takes_modality
def translate(
    adata: AnnData,
    model: FDRL | ScRatio,
    *,
    source: ConditionDict,
    target: ConditionDict,
    key_added: str | None = None,
    copy: bool = False,
    mod: str | None = None,
    **kwargs: Any,
) -> AnnData | None:
    r"""Move the cells of one condition to the distribution of another (unpaired translation).

    Parameters
    ----------
    adata
        Cells with the model's embedding and conditions.
    model
        Trained :class:`scratio.model.FDRL` that was made with this ``source`` and ``target``; it moves cells down the
        gradient of a learnt ratio (arXiv 2303.03714). Or any trained :class:`scratio.model.ScRatio`; it moves cells to
        noise along the flow of the source, and from there along the flow of the target.
    source, target
        Dicts from a registered key to a category, such as ``{"condition": "ctrl"}``.
    key_added
        Name of the results. By default ``"X_fdrl"`` or ``"X_scratio"``.
    copy
        Whether to return a copy instead of writing into ``adata``.
    **kwargs
        Arguments of the model's ``translate``.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``obsm[key_added]``
        Translated cells in units of the embedding, shape (n_cells, d). NaN for cells that are not of the source.
    ``obsm[key_added + "_displacement"]``
        Translated cell minus the cell itself, shape (n_cells, d). NaN for cells that are not of the source.
    ``uns[key_added]``
        Parameters.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError, ValueError
        If a key or category is unknown, if no cell is of the source, if an FDRL model was made for another translation,
        or if a result that would be overwritten was not written by scratio.

    See Also
    --------
    scratio.pl.translate : Draw the cells and where they were moved.
    scratio.model.FDRL.translate : Return the translated cells as an array.
    scratio.model.ScRatio.translate : Return the translated cells as an array.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> ends = {"source": {"condition": "control"}, "target": {"condition": "treated"}}
    >>> scratio.model.FDRL.setup_anndata(adata, condition_keys=["condition"])
    >>> model = scratio.model.FDRL(adata, **ends)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> scratio.tl.translate(adata, model, **ends)
    >>> adata.obsm["X_fdrl_displacement"].shape
    (600, 2)
    """
    check_anndata(adata, copy=copy)
    key = key_added or ("X_fdrl" if isinstance(model, FDRL) else "X_scratio")
    moved_key = f"{key}_{DISPLACEMENT}"
    plan = check_key_added(adata, key, obsm=[key, moved_key], reads={"obsm": [model.obsm_key]})
    is_source = model.schema.having(source, adata, "source")
    rows = np.flatnonzero(is_source)
    found = model.translate(adata, source=source, target=target, rows=rows, **kwargs)
    moved = np.full((adata.n_obs, found.shape[1]), np.nan)
    moved[rows] = found
    result = begin(adata, key, copy)
    result.obsm[key] = moved
    result.obsm[moved_key] = moved - np.asarray(source_of(adata, model.obsm_key), dtype=np.float64)
    params = {"source": dict(source), "target": dict(target), "model": type(model).__name__, **kwargs}
    return finish(result, key, record("translate", params, scored_fingerprint(adata, model)), plan, copy)
