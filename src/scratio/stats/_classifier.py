"""Log ratio by a classifier, to compare with the model's."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def held_out_log_odds(x: np.ndarray, is_first: np.ndarray, n_folds: int, random_state: int) -> np.ndarray:
    """Compute log odds of a logistic regression on held-out cells minus those of the class sizes, in nats.

    Parameters
    ----------
    x
        Cells, shape (n, d).
    is_first
        Whether a cell belongs to the first of the two groups, shape (n,).
    n_folds
        Folds of the cross-validation.
    random_state
        Seed of the folds.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=random_state)
    scores = cross_val_predict(classifier, x, is_first, cv=folds, method="decision_function")
    share = is_first.mean()
    return scores - np.log(share / (1.0 - share))
