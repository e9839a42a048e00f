"""Read conditions and combinations that were written on a command line."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from scratio.cli._session import RefusedError

OWN_LABEL, REST_PREFIX = "OWN", "REST:"


def parse_pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Return the keys and values of texts ``key=value``. An empty text stands for no condition.

    Parameters
    ----------
    option
        Name of the option, for errors.
    texts
        Texts of the option.

    Raises
    ------
    RefusedError
        If a text is not of this form, or names a key twice.

    Examples
    --------
    >>> parse_pairs("--numerator", ["condition=stim", "donor=OWN"])
    {'condition': 'stim', 'donor': 'OWN'}
    >>> parse_pairs("--denominator", [""])
    {}
    """
    found: dict[str, str] = {}
    for text in texts:
        if not text:
            continue
        key, sign, value = text.partition("=")
        if not (key and sign and value):
            raise RefusedError(f"{option} takes key=value, got {text!r}")
        if key in found:
            raise RefusedError(f"{option} names {key!r} twice: {found[key]!r} and {value!r}")
        found[key] = value
    return found


def as_condition(option: str, pairs: dict[str, str], continuous: Collection[str]) -> dict[str, Any]:
    """Return a condition in the form that :meth:`scratio.model.ScRatio.log_ratio` takes.

    Parameters
    ----------
    option
        Name of the option, for errors.
    pairs
        Keys and values as they were written: a category, a number, ``OWN`` (each cell's own value) or
        ``REST:category`` (all categories but one).
    continuous
        Keys whose values are numbers.

    Raises
    ------
    RefusedError
        If the value of a continuous key is not a finite number.
    """
    from scratio.model import OWN, Rest

    found: dict[str, Any] = {}
    for key, value in pairs.items():
        if value == OWN_LABEL:
            found[key] = OWN
        elif key in continuous:
            found[key] = _number(option, key, value)
        elif value.startswith(REST_PREFIX):
            category = value.removeprefix(REST_PREFIX)
            found[key] = Rest(OWN if category == OWN_LABEL else category)
        else:
            found[key] = value
    return found


def split_pair(option: str, text: str, firsts: Collection[str], seconds: Collection[str]) -> tuple[str, str]:
    """Return the categories of two keys written as ``first+second``. A category may contain a plus itself.

    Parameters
    ----------
    option
        Name of the option, for errors.
    text
        Text of the option.
    firsts, seconds
        Categories of the two keys.

    Raises
    ------
    RefusedError
        If there is no such pair of categories, or more than one.

    Examples
    --------
    >>> split_pair("--combination", "CD4+ T+ifn", ["CD4+ T", "B"], ["ifn", "none"])
    ('CD4+ T', 'ifn')
    """
    pairs = [(text[:place], text[place + 1 :]) for place, sign in enumerate(text) if sign == "+"]
    known = [pair for pair in pairs if pair[0] in firsts and pair[1] in seconds]
    if len(known) != 1:
        raise RefusedError(
            f"{option} takes first+second, a category of either --condition-key, got {text!r}; found "
            f"{sorted(firsts)} and {sorted(seconds)}"
        )
    return known[0]


def _number(option: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RefusedError(f"{option}: {key!r} is continuous and takes a finite number, got {value!r}")
    return number
