"""Log ratios by kernels: uLSIF, RuLSIF and KLIEP of the package densratio.

    .venv-peer-densratio/bin/python benchmarks/outside_peers/densratio.py CELLS.npz --out OUT --methods uLSIF

The package's defaults: 100 Gaussian kernels, bandwidth and penalty by cross-validation. Dimensions are standardised
first, since there is one bandwidth for all. The search of uLSIF and RuLSIF needs memory and time that grow with the
square of the number of cells: all three learn from a random subset. RuLSIF estimates p / (.1 p + .9 q), from which
p / q follows. Ratios are limited to 1 / n and n for n training cells, since ratios of 0 have no log. Sources: Kanamori
et al., JMLR 2009; Yamada et al., Neural Computation 2013; Sugiyama et al., AISM 2008; github.com/hoxo-m/densratio_py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _exchange import Arrays, serve

# isort: split
import numpy as np  # the threads are limited by now
from _two_samples import log_of_ratio, scored

MOST = 4_000
ALPHA = 0.1
"""The package's default of RuLSIF."""


def estimate(x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int, *, method: str) -> np.ndarray:
    """Log ratios by a method of the package."""
    from densratio import densratio

    np.random.seed(seed)  # the package draws its kernels from the global generator
    location, scale = x.mean(0), x.std(0)
    x, fresh = (x - location) / scale, (fresh - location) / scale
    fitted = densratio(x[is_treated], x[~is_treated], method=method, alpha=ALPHA, verbose=False)
    ratio = np.asarray(fitted.compute_density_ratio(fresh)).ravel()
    if method == "RuLSIF":
        ratio = from_relative(ratio)
    return log_of_ratio(ratio, len(x))


def from_relative(relative: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """Ratio p / q from p / (alpha p + (1 - alpha) q); infinite where the latter reaches its bound 1 / alpha."""
    rest = 1.0 - alpha * relative
    return np.divide((1.0 - alpha) * relative, rest, out=np.full(len(relative), np.inf), where=rest > 0.0)


METHODS: dict[str, Callable[[Arrays], dict[str, np.ndarray]]] = {
    name: partial(scored, partial(estimate, method=name), most=MOST) for name in ("uLSIF", "RuLSIF", "KLIEP")
}

if __name__ == "__main__":
    serve(METHODS)
