"""A page about a model or a result, as text and, in notebooks, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import pandas as pd

DIGITS = 3


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
    """

    title: str
    facts: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        width = max((len(name) for name in self.facts), default=0)
        lines = [self.title, *(f"  {name:<{width}}  {value}" for name, value in self.facts.items())]
        for title, table in self.tables.items():
            lines += ["", title, table.to_string(index=False, float_format=_number)]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in self.facts.items()
        )
        parts = [f"<p><b>{escape(self.title)}</b></p><table>{rows}</table>"]
        for title, table in self.tables.items():
            shown = table.to_html(index=False, float_format=_number, border=0)
            parts.append(f"<p><b>{escape(title)}</b></p>{shown}")
        parts += [f"<p>{escape(note)}</p>" for note in self.notes]
        return f"<div>{''.join(parts)}</div>"


def _number(value: float) -> str:
    return f"{value:.{DIGITS}g}"
