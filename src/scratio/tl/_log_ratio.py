"""Any contrast with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from scratio._check import check_anndata
from scratio._modality import takes_modality
from scratio.conditions import ConditionDict
from scratio.model import ScRatio
from scratio.stats import is_supported
from scratio.tl._fingerprint import scored_fingerprint
from scratio.tl._score_file import check_out, scored_columns, write_result
from scratio.tl._write import WRITTEN, begin, check_key_added, finish, record


@takes_modality
def log_ratio(
    adata: AnnData,
    model: ScRatio,
    *,
    numerator: ConditionDict,
    denominator: ConditionDict,
    method: str = "auto",
    key_added: str = "log_ratio",
    copy: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress_bar: bool | None = None,
    mod: str | None = None,
    **kwargs,
) -> AnnData | None:
    r"""Compare two conditions of a trained model by a log ratio per cell.

    .. math:: \log r(x) = \log p(x | numerator) - \log p(x | denominator)

    in nats (arXiv 2602.24201). The log ratio is positive where the cell state is more likely under the numerator.

    Parameters
    ----------
    adata
        Cells with the model's embedding. If the model was cross-fitted, its training cells are scored by networks that
        did not see them.
    model
        Trained :class:`scratio.model.ScRatio`.
    numerator, denominator
        Dicts from a registered key to a category, a number, or :data:`scratio.OWN`. A key that is left out is
        marginalised over.
    method
        Estimator, see :meth:`scratio.model.ScRatio.log_ratio`.
    key_added
        Name of the results in ``obs`` and ``uns``.
    copy
        Whether to return a copy instead of writing into ``adata``.
    out
        An ``.h5ad`` file for ``obs`` with the results, for cells on disk (:func:`scratio.io.read_lazy`). Chunks are
        written to ``out + ".partial"`` as they are scored. If the process is killed, repeat the call: it continues with
        the next chunk. The file gets its final name when it is complete.
    overwrite
        Whether ``out`` may be replaced.
    progress_bar
        Whether to show a bar with the remaining time. By default it is shown from a million cells on.
    **kwargs
        For :meth:`scratio.model.ScRatio.log_ratio`, such as ``return_std=True`` or ``accelerator="gpu"``.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``obs[key_added]``
        Log ratio in nats.
    ``obs[key_added + "_std"]``
        Standard error of the log ratio in nats; only with ``return_std=True``.
    ``obs[key_added + "_typicality"]``, ``obs[key_added + "_support"]``
        Typicality of the cell, and whether it is supported. ``False`` means that the log ratio is an extrapolation
        (:meth:`scratio.model.ScRatio.typicality`).
    ``uns[key_added]``
        Contrast, method and versions.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError, ValueError
        As in :meth:`scratio.model.ScRatio.log_ratio`, or if ``key_added`` was not written by scratio, or if ``out``
        cannot be written.
    FileExistsError
        If ``out`` exists and ``overwrite`` is False.

    See Also
    --------
    scratio.model.ScRatio.log_ratio : Return the log ratio as an array.
    scratio.pl.embedding : Draw the log ratio on an embedding.
    scratio.pl.violin : Draw the log ratio by groups of cells.
    scratio.tl.differential_abundance : Train a model and compare two conditions in one call.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
    >>> model = scratio.model.ScRatio(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> scratio.tl.log_ratio(adata, model, numerator={"condition": "treated"}, denominator={"condition": "control"})
    >>> bool(adata.obs["log_ratio"].notna().all())
    True
    """
    names = [key_added, f"{key_added}_std"] if kwargs.get("return_std") else [key_added]
    names += [f"{key_added}_typicality", f"{key_added}_support"]
    check_anndata(adata, copy=copy)
    reads = {"obs": [key for key in model.schema.keys if key in adata.obs], "obsm": [model.obsm_key]}
    plan = check_key_added(adata, key_added, obs=names, reads=reads)
    ends: dict[str, Any] = {"numerator": numerator, "denominator": denominator}
    params = {**ends, "method": method, **kwargs}
    # A run that was killed may go on where there is no GPU.
    asked = {name: value for name, value in params.items() if name != "accelerator"}
    path = None if out is None else check_out(out, overwrite, adata)

    def score(rows: slice | None = None, shown: bool | None = False) -> dict[str, np.ndarray]:
        where: dict[str, Any] = {"rows": rows, "progress_bar": shown}
        result = model.log_ratio(adata, **ends, method=method, **kwargs, **where)
        typical = model.typicality(adata, **ends, **where)
        # Lazy ones are computed here.
        found = [np.asarray(values) for values in (*(result if isinstance(result, tuple) else (result,)), typical)]
        return dict(zip(names, [*found, is_supported(found[-1])], strict=True))

    if path is None:
        columns = score(None, progress_bar)
    else:
        columns = scored_columns(adata, model, path, asked, score, progress_bar)
    result = record("log_ratio", params, scored_fingerprint(adata, model))
    if path is not None:
        write_result(adata, path, columns, key_added, {**result, WRITTEN: {"obs": np.asarray(names)}})
    target = begin(adata, key_added, copy)
    for name, values in columns.items():
        target.obs[name] = values
    return finish(target, key_added, result, plan, copy)
