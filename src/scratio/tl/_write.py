"""Writing results into an AnnData."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._check import is_result
from scratio._constants import RESULT_MARK
from scratio.model import ScRatio

logger = logging.getLogger(__name__)

WRITTEN = "written"
"""Entry of a result: the keys that it has written elsewhere."""

Plan = dict[str, list[str]]
"""Keys by the part of an AnnData: ``obs``, ``obsm``, ``varm``."""


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    names = ("scratio", "torch", "lightning", "scvi-tools", "anndata", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def record(
    analysis: str,
    params: Mapping[str, Any],
    data: Mapping[str, Any],
    model: ScRatio | None = None,
    **contents: Any,
) -> dict[str, Any]:
    """What goes to ``uns``: function, versions, parameters, hashes of the data, the training of its model, and more."""
    trained = {"training": training_of(model), "history": history_tables(model.history)} if model is not None else {}
    made = {RESULT_MARK: versions(), "analysis": analysis, "params": storable(params), "data": dict(data)}
    return {**made, **trained, **contents}


def begin(adata: AnnData, key_added: str, copy: bool) -> AnnData:
    """First step of writing: the AnnData that results go to, without what an earlier result has written."""
    target = copied(adata) if copy else adata
    for part, keys in written_before(target, key_added).items():
        for key in keys:
            del getattr(target, part)[key]
    return target


def finish(target: AnnData, key_added: str, result: Mapping[str, Any], plan: Plan, copy: bool) -> AnnData | None:
    """Last step of an analysis: its record goes to ``uns``, and what was added is logged."""
    added = {part: [key for key in keys if key in getattr(target, part)] for part, keys in plan.items()}
    target.uns[key_added] = {**result, WRITTEN: {part: np.asarray(keys) for part, keys in added.items() if keys}}
    names = [f"uns[{key_added!r}]", *(f"{part}[{key!r}]" for part, keys in added.items() for key in keys)]
    logger.info("%s: wrote %s", result["analysis"], ", ".join(names))
    return target if copy else None


def training_of(model: ScRatio) -> dict[str, Any]:
    """What was chosen in a training and why, in a form that can be stored."""
    return storable(model.training_)


def check_key_added(
    adata: AnnData,
    key_added: str,
    *,
    obs: Sequence[str] = (),
    obsm: Sequence[str] = (),
    varm: Sequence[str] = (),
    tables: Mapping[str, Sequence[str]] | None = None,
    reads: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """Refuse to overwrite what scratio did not write, and names that no file can hold.

    An earlier result under the same key is replaced: what its record names as written.

    Parameters
    ----------
    adata
        Cells.
    key_added
        Key of the record in ``uns``.
    obs, obsm, varm
        What will be written.
    tables
        Names that become columns of tables, by the column of ``obs`` they come from.
    reads
        Keys of ``obs`` and ``obsm`` that the result is computed from.

    Returns
    -------
    What will be written, for :func:`finish`.

    Raises
    ------
    TypeError
        If ``key_added`` is not a string.
    ValueError
        If ``uns[key_added]`` or something that would be written is the user's own, has a slash in its name or is named
        twice, or if the earlier result that would be replaced is what the new one is computed from.
    """
    if not isinstance(key_added, str):
        raise TypeError(f"key_added must be a string, got {key_added!r}")
    plan: Plan = {"obs": list(obs), "obsm": list(obsm), "varm": list(varm)}
    _check_slashes(key_added, plan, tables or {})
    earlier = written_before(adata, key_added)
    for part, keys in plan.items():
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(
                f"several results would have the same names, {part}{sorted(twice)}; name each one only once"
            )
    for part, sources in (reads or {}).items():
        if needed := [key for key in sources if key in earlier.get(part, ())]:
            raise ValueError(
                f"{part}{needed} belongs to the result under the key {key_added!r}. That result would be replaced by "
                "one that is computed from it; choose another key_added"
            )
    is_own = is_result(adata.uns.get(key_added))
    taken = [] if is_own or key_added not in adata.uns else [f"uns[{key_added!r}]"]
    for part, keys in plan.items():
        found = [key for key in keys if key in getattr(adata, part) and key not in earlier.get(part, ())]
        taken += [f"{part}[{key!r}]" for key in found]
    if taken:
        lost = ""
        if key_added not in adata.uns:
            lost = (
                f" (scratio cannot tell whether it wrote them, because uns[{key_added!r}] is missing: anndata.concat "
                "drops it unless uns_merge is given)"
            )
        elif is_own and WRITTEN not in adata.uns[key_added]:
            lost = f" (uns[{key_added!r}] was written by an older scratio, which did not record what it wrote)"
        raise ValueError(
            f"{', '.join(taken)} would be overwritten{lost}; choose another key_added, or delete them first"
        )
    return plan


def written_before(adata: AnnData, key_added: str) -> Plan:
    """What the earlier result under a key has written, and is still there."""
    recorded = recorded_in(adata.uns.get(key_added))
    return {part: [key for key in keys if key in getattr(adata, part)] for part, keys in recorded.items()}


def recorded_in(result: Any) -> Plan:
    """What an entry of ``uns`` says that scratio has written."""
    written = result.get(WRITTEN, {}) if is_result(result) else {}
    return {part: [str(key) for key in keys] for part, keys in written.items()}


def _check_slashes(key_added: str, plan: Plan, tables: Mapping[str, Sequence[str]]) -> None:
    for key, names in tables.items():
        slashed = {name: name.replace("/", "-") for name in map(str, names) if "/" in name}
        if slashed:
            raise ValueError(
                f"obs[{key!r}] has categories with a slash, {list(slashed)}. The results would have columns of these "
                "names, and neither h5ad nor zarr can store a name with a slash. Rename the categories first: "
                f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(object).replace({slashed})"
            )
    slashed_keys = [key for key in (key_added, *(key for keys in plan.values() for key in keys)) if "/" in key]
    if slashed_keys:
        raise ValueError(
            f"the results would have names with a slash, {slashed_keys}, and neither h5ad nor zarr can store those; "
            "choose another key_added, or rename the categories or embeddings that give the results their names"
        )


def copied(adata: AnnData) -> AnnData:
    """Copy of cells; embeddings on disk, which nothing here writes to, are shared."""
    on_disk = {key: value for key, value in adata.obsm.items() if not hasattr(value, "copy")}
    if not on_disk:
        return adata.copy()
    names = ("X", "obs", "var", "uns", "varm", "layers", "raw", "obsp", "varp")
    parts = {name: getattr(adata, name) for name in names}
    in_memory = {key: value for key, value in adata.obsm.items() if key not in on_disk}
    copy = AnnData(**parts, obsm=in_memory).copy()
    for key, value in on_disk.items():
        copy.obsm[key] = value
    return copy


def storable(value: Any) -> Any:
    """Form of a parameter that h5ad and zarr can hold: None as a string, sequences as arrays, dicts throughout."""
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return {str(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return np.asarray([str(item) for item in value]) if _has_text(value) else np.asarray(value)
    if isinstance(value, str | bool | int | float | np.ndarray | pd.DataFrame):
        return value
    return str(value)


def history_tables(history: dict[str, pd.DataFrame] | None) -> dict[str, Any]:
    """Training history as plain arrays: steps, and losses of shape (n_validations, n_members)."""
    tables: dict[str, Any] = {}
    for name, frame in (history or {}).items():
        tables["step"] = frame.index.to_numpy()
        tables[name] = frame.to_numpy()
    return tables


def _has_text(values: list | tuple) -> bool:
    return any(
        _has_text(item) if isinstance(item, list | tuple) else not isinstance(item, int | float) for item in values
    )
