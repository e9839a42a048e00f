"""The command line: one command per analysis, from an ``.h5ad`` file to an ``.h5ad`` file."""

from scratio.cli._app import app, main

__all__ = ["app", "main"]
