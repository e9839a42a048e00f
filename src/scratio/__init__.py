"""Per-cell log density ratios between conditions, from one conditional flow-matching model."""

from importlib.metadata import version

from scratio import datasets, io, model, peers, pl, tl
from scratio._settings import settings
from scratio.model import OWN, Rest

__version__ = version("scratio")

__all__ = ["OWN", "Rest", "__version__", "datasets", "io", "model", "peers", "pl", "settings", "tl"]
