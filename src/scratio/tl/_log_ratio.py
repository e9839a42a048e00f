"""Any contrast with a trained model."""

from __future__ import annotations

from anndata import AnnData

from scratio.model import ScRatio
from scratio.model._schema import ConditionDict
from scratio.stats import is_supported
from scratio.tl._write import check_key_added, record


def log_ratio(
    adata: AnnData,
    model: ScRatio,
    *,
    numerator: ConditionDict,
    denominator: ConditionDict,
    method: str = "auto",
    key_added: str = "log_ratio",
    copy: bool = False,
    **kwargs,
) -> AnnData | None:
    r"""Log ratio of every cell between two conditions of a trained model.

    .. math:: \log r(x) = \log p(x | numerator) - \log p(x | denominator)

    in nats; positive where the cell state is more likely under the numerator (arXiv 2602.24201).

    Parameters
    ----------
    adata
        Cells with the model's embedding. If they are the model's training cells and it was cross-fitted, every cell is
        scored by networks that did not see it.
    model
        Trained :class:`scratio.model.ScRatio`.
    numerator, denominator
        Dicts from a registered key to a category, a number, or :data:`scratio.OWN`; a key left out is marginalised
        over.
    method
        Estimator, see :meth:`scratio.model.ScRatio.log_ratio`.
    key_added
        Where results go.
    copy
        Whether to return a copy instead of writing into ``adata``.
    **kwargs
        For :meth:`scratio.model.ScRatio.log_ratio`.

    Returns
    -------
    None, or a copy. Written are ``obs[key_added]`` (nats), ``obs[key_added + "_std"]`` (standard error in nats; with
    ``return_std=True``), ``obs[key_added + "_typicality"]`` and ``obs[key_added + "_support"]`` (False where the log
    ratio is an extrapolation, see :meth:`scratio.model.ScRatio.typicality`) and ``uns[key_added]`` (contrast, method,
    versions).

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError, ValueError
        As in :meth:`scratio.model.ScRatio.log_ratio`, or if ``key_added`` is the user's own.

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
    judged = [f"{key_added}_typicality", f"{key_added}_support"]
    check_key_added(adata, key_added, [*names, *judged])
    result = model.log_ratio(adata, numerator=numerator, denominator=denominator, method=method, **kwargs)
    typical = model.typicality(adata, numerator=numerator, denominator=denominator)
    target = adata.copy() if copy else adata
    values_of = (*(result if isinstance(result, tuple) else (result,)), typical, is_supported(typical))
    for name, values in zip([*names, *judged], values_of, strict=True):
        target.obs[name] = values
    target.uns[key_added] = record({"numerator": numerator, "denominator": denominator, "method": method, **kwargs})
    return target if copy else None
