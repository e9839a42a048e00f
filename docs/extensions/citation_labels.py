"""Sphinx extension: entries of the bibliography labelled with author and year, such as [Dann 2022]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pybtex.plugin
from pybtex.database import Entry
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx


class AuthorYearLabels(BaseLabelStyle):
    """First author and year, or the entry's field "label" where two would have one."""

    def format_labels(self, entries: Iterable[Entry]) -> Iterator[str]:
        """Labels of the entries."""
        for entry in entries:
            author = " ".join(entry.persons["author"][0].last_names).strip("{}")
            yield entry.fields.get("label", f"{author} {entry.fields['year']}")


class AuthorYearStyle(Style):
    """The plain style with these labels."""

    default_label_style = AuthorYearLabels


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the style known by its name."""
    pybtex.plugin.register_plugin("pybtex.style.formatting", "author_year_labels", AuthorYearStyle)
    return {"parallel_read_safe": True}
