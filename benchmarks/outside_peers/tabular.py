"""Log ratios by classifiers for tables: TabM and RealMLP of the package pytabkit.

    .venv-peer-tabular/bin/python benchmarks/outside_peers/tabular.py CELLS.npz --out OUT --methods tabm

``TabM_D_Classifier`` and ``RealMLP_TD_Classifier`` with their defaults, except for what the package recommends if
probabilities count: early stopping by cross-entropy and, for RealMLP, no label smoothing (``use_ls=False``). A fifth of
the training cells is held out for early stopping. The log ratio is the log odds less the log odds of the class sizes;
probabilities below 1e-12 are raised to it. Both take long without an accelerator, above all TabM, which has 32 members
of 512 units: ``realmlp`` learns from a random subset of 5,000 cells and ``tabm`` from one of 2,000, ``realmlp-all`` and
``tabm-all`` from all cells. Sources: Gorishniy et al., ICLR 2025 (TabM); Holzmüller et al., NeurIPS 2024 (RealMLP);
github.com/dholzmueller/pytabkit.
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
from _two_samples import class_log_odds, log_odds, scored

MOST = {"realmlp": 5_000, "tabm": 2_000}


def estimate(x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int, *, method: str) -> np.ndarray:
    """Log ratios by a classifier of the package."""
    import pytabkit
    import torch

    torch.set_num_threads(1)
    common = {"device": "cpu", "random_state": seed, "n_threads": 1, "val_metric_name": "cross_entropy"}
    if method == "tabm":
        model = pytabkit.TabM_D_Classifier(**common)
    else:
        model = pytabkit.RealMLP_TD_Classifier(**common, use_ls=False)
    model.fit(x.astype(np.float32), is_treated.astype(int))
    return log_odds(model.predict_proba(fresh.astype(np.float32))) - class_log_odds(is_treated)


METHODS: dict[str, Callable[[Arrays], dict[str, np.ndarray]]] = {
    **{name: partial(scored, partial(estimate, method=name), most=most) for name, most in MOST.items()},
    **{f"{name}-all": partial(scored, partial(estimate, method=name)) for name in MOST},
}

if __name__ == "__main__":
    serve(METHODS)
