"""Sphinx extension: of a class, only what scratio itself documents."""

from __future__ import annotations

from sphinx.application import Sphinx


def skip_foreign_member(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out what a class inherits from another package, such as scvi-tools or torch."""
    module = getattr(getattr(obj, "fget", obj), "__module__", None) or "scratio"
    return None if module.split(".")[0] == "scratio" else True


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the hook."""
    app.connect("autodoc-skip-member", skip_foreign_member)
    return {"parallel_read_safe": True}
