"""Flow-guided density ratio learning (arXiv 2303.03714): all that `FDRL` has of its own."""

from scratio.fdrl._model import FDRL

__all__ = ["FDRL"]
