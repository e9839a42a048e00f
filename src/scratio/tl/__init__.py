"""One call per analysis: AnnData in, results in its ``obs`` and ``uns``."""

from scratio.tl._differential_abundance import differential_abundance
from scratio.tl._log_ratio import log_ratio

__all__ = ["differential_abundance", "log_ratio"]
