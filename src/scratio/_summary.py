"""A page about a model or a result, as text and, in notebooks, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from textwrap import fill

import pandas as pd

DIGITS = 3
WIDTH = 100
"""Characters in a line of a table."""
FEW = 3
"""Rows up to which a table that is too wide is turned on its side."""


@dataclass(frozen=True)
class Summary:
    """What there is to know at a glance.

    Parameters
    ----------
    title
        One line.
    facts
        Short statements by name.
    tables
        Tables by title.
    notes
        Sentences below all that.
    details
        What few readers need: folded in HTML; without its tables at the end of the text.
    """

    title: str
    facts: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    notes: Sequence[str] = ()
    details: Summary | None = None

    def __str__(self) -> str:
        lines = [self.title, *_aligned(self.facts)]
        for title, table in self.tables.items():
            lines += ["", title, _text_of(table)]
        lines += [*([""] if self.notes else []), *(fill(note, WIDTH, break_long_words=False) for note in self.notes)]
        if self.details is not None:
            lines += ["", self.details.title, *_aligned(self.details.facts), *self.details.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<div><p><b>{escape(self.title)}</b></p>{self._body()}</div>"

    def _body(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in self.facts.items()
        )
        parts = [f"<table>{rows}</table>"] if rows else []
        for title, table in self.tables.items():
            parts.append(f"<p><b>{escape(title)}</b></p>{_html_of(table)}")
        parts += [f"<p>{escape(note)}</p>" for note in self.notes]
        if self.details is not None:
            folded = f"<summary>{escape(self.details.title)}</summary>{self.details._body()}"
            parts.append(f"<details>{folded}</details>")
        return "".join(parts)


def _aligned(facts: Mapping[str, str]) -> list[str]:
    width = max((len(name) for name in facts), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in facts.items()]


def _text_of(table: pd.DataFrame) -> str:
    """Lines of a table, none longer than ``WIDTH`` if that can be: on its side, or without its last columns."""
    text = table.to_string(index=False, float_format=_number)
    if _width(text) <= WIDTH:
        return text
    if len(table) <= FEW:
        return _shown(table).T.to_string(header=False)
    n_columns = table.shape[1]
    while n_columns > 1 and _width(text) > WIDTH:
        n_columns -= 1
        text = table.iloc[:, :n_columns].to_string(index=False, float_format=_number)
    left_out = ", ".join(map(str, table.columns[n_columns:]))
    return "\n".join([text, *([fill(f"(not shown: {left_out})", WIDTH)] if left_out else [])])


def _html_of(table: pd.DataFrame) -> str:
    is_wide = _width(table.to_string(index=False, float_format=_number)) > WIDTH and len(table) <= FEW
    # Long texts would be cut off.
    with pd.option_context("display.max_colwidth", None):
        if is_wide:
            return _shown(table).T.to_html(header=False, border=0)
        return table.to_html(index=False, float_format=_number, border=0)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as texts."""
    return pd.DataFrame(
        {
            name: [_number(value) if isinstance(value, float) else str(value) for value in column.tolist()]
            for name, column in table.items()
        }
    )


def _width(text: str) -> int:
    return max(map(len, text.splitlines()), default=0)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10**DIGITS else f"{value:.{DIGITS}g}"
