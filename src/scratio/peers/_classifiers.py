"""Probabilistic classifiers: log odds of the numerator minus those of the sample sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scratio.peers._base import Standardiser, prior_log_odds

KINDS: dict[str, Callable[[int], Any]] = {
    "logistic": lambda seed: LogisticRegression(max_iter=1_000),
    "boosting": lambda seed: HistGradientBoostingClassifier(early_stopping=True, random_state=seed),
    "mlp": lambda seed: MLPClassifier((128, 128), alpha=1e-3, early_stopping=True, random_state=seed),
}
SMALLEST = 1e-12


class Classifier:
    r"""Log ratio by a classifier, :math:`\log r(x) = \operatorname{logit} P(num | x) - \log(n_{num} / n_{den})`.

    The classifier is cross-fitted and calibrated. For each fold, a classifier is trained on the other folds, and its
    log odds are calibrated on the fold (Platt scaling). The probabilities of all folds are averaged.

    Parameters
    ----------
    kind
        ``"logistic"``, ``"boosting"`` (gradient-boosted trees on histograms) or ``"mlp"``.
    n_folds
        Folds of the calibration.
    random_state
        Seed.
    """

    def __init__(self, *, kind: str = "logistic", n_folds: int = 5, random_state: int = 0) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}")
        self.kind, self.n_folds, self.random_state = kind, n_folds, random_state

    def fit(self, x_num: np.ndarray, x_den: np.ndarray) -> Classifier:
        """Fit the classifiers of all folds."""
        Standardiser.of(x_num, x_den)
        self._prior = prior_log_odds(len(x_num), len(x_den))
        x, label = np.concatenate([x_num, x_den]), np.arange(len(x_num) + len(x_den)) < len(x_num)
        folds = StratifiedKFold(self.n_folds, shuffle=True, random_state=self.random_state)
        one = make_pipeline(StandardScaler(), KINDS[self.kind](self.random_state))
        self._model = CalibratedClassifierCV(one, method="sigmoid", cv=folds).fit(x, label)
        return self

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Return the log odds of the averaged probability minus those of the sample sizes, in nats."""
        p = np.maximum(self._model.predict_proba(x), SMALLEST)
        return np.log(p[:, 1]) - np.log(p[:, 0]) - self._prior
