"""Log ratios by gradient-boosted trees: LightGBM and XGBoost.

    .venv-peer-boosters/bin/python benchmarks/outside_peers/boosters.py CELLS.npz --out OUT --methods lightgbm

``LGBMClassifier`` and ``XGBClassifier`` with their defaults (100 trees, no early stopping), one thread and the task's
seed. The log ratio is the raw score, which is the log odds, less the log odds of the class sizes; nothing is clipped.
Sources: Ke et al., NeurIPS 2017 (LightGBM); Chen and Guestrin, KDD 2016 (github.com/dmlc/xgboost).
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
from _two_samples import class_log_odds, scored


def lightgbm(x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int) -> np.ndarray:
    """Log ratios by LightGBM."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(random_state=seed, n_jobs=1, verbosity=-1).fit(x, is_treated)
    return model.predict(fresh, raw_score=True) - class_log_odds(is_treated)


def xgboost(x: np.ndarray, is_treated: np.ndarray, fresh: np.ndarray, seed: int) -> np.ndarray:
    """Log ratios by XGBoost."""
    from xgboost import XGBClassifier

    model = XGBClassifier(random_state=seed, n_jobs=1).fit(x, is_treated.astype(int))
    return model.predict(fresh, output_margin=True) - class_log_odds(is_treated)


METHODS: dict[str, Callable[[Arrays], dict[str, np.ndarray]]] = {
    "lightgbm": partial(scored, lightgbm),
    "xgboost": partial(scored, xgboost),
}

if __name__ == "__main__":
    serve(METHODS)
