"""``mod=``: functions of AnnData that take a MuData and the name of one of its modalities."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from anndata import AnnData

Function = TypeVar("Function", bound=Callable[..., Any])

DOCUMENTED = """mod
    Name of a modality, such as ``"rna"``, if ``adata`` is a MuData. Results go to this modality."""


def takes_modality(function: Function) -> Function:
    """Let a function of an AnnData work on one modality of a MuData, which its parameter ``mod`` names.

    Nothing is copied: the function gets ``mdata.mod[mod]`` itself, and never sees ``mod``. It declares ``mod`` all the
    same, because a type checker cannot see a keyword that a decorator adds.
    """

    @wraps(function)
    def call(adata: Any, *args: Any, mod: str | None = None, **kwargs: Any) -> Any:
        return function(adata if mod is None else _modality(adata, mod), *args, **kwargs)

    call.__doc__ = _documented(inspect.getdoc(function) or "")
    return cast(Function, call)


def _modality(mdata: Any, mod: str) -> AnnData:
    modalities = getattr(mdata, "mod", None)
    if isinstance(mdata, AnnData) or not isinstance(modalities, Mapping):
        raise TypeError(f"mod={mod!r} is for a MuData; adata is of the type {type(mdata).__name__}: leave mod out")
    if mod not in modalities:
        raise KeyError(f"the MuData has no modality {mod!r}; found: {list(modalities)}")
    return modalities[mod]


def _documented(docstring: str) -> str:
    """Docstring with ``mod`` at the end of its parameters, but before those of any name."""
    before, mark, after = docstring.partition("Parameters\n----------\n")
    parameters, rest = after, ""
    for line in ("\n**kwargs\n", "\n\nReturns\n-------\n", "\n\nRaises\n------\n", "\n\nExamples\n--------\n"):
        place = parameters.find(line)
        if place >= 0:
            parameters, rest = parameters[:place], parameters[place:] + rest
    return f"{before}{mark}{parameters.rstrip()}\n{DOCUMENTED}{rest}"
