"""What a mean log ratio of batches says about guessing the batch: closed forms and bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

NATS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.13, 0.2, 0.3, 0.37, 0.5, 0.6)


def information_of_shift(distance: float) -> float:
    """Mutual information in nats of a cell and its batch, for two Gaussian batches of equal size this far apart.

    Parameters
    ----------
    distance
        Of the means, in standard deviations.
    """

    def integrand(x: float) -> float:
        # By symmetry the mean log ratio of the batch at distance / 2 is that of both.
        return norm.pdf(x - distance / 2.0) * np.logaddexp(0.0, -distance * x)

    return float(np.log(2.0) - quad(integrand, -12.0 - distance, 12.0 + distance, limit=200)[0])


def entropy_of(share: float) -> float:
    """Entropy in nats of two outcomes of which one has this probability."""
    return float(-share * np.log(share) - (1.0 - share) * np.log1p(-share)) if 0.0 < share < 1.0 else 0.0


def least_information(guessed: float) -> float:
    """Mutual information that a share of right guesses needs: Fano's inequality, met if all cells are equally clear."""
    return float(np.log(2.0) - entropy_of(guessed))


def least_guessed(nats: float) -> float:
    """Smallest share of right guesses that a mean log ratio leaves to the best classifier: Hellman and Raviv (1970).

    It is met if the batch of a cell is either certain or anybody's guess.
    """
    return 0.5 + max(nats, 0.0) / (2.0 * np.log(2.0))


def most_guessed(nats: float) -> float:
    """Largest share of cells of two equal batches whose batch any classifier guesses right, by a mean log ratio."""
    if nats <= 0.0:
        return 0.5
    return 1.0 if nats >= np.log(2.0) else float(brentq(lambda share: least_information(share) - nats, 0.5, 1.0))


def batches_left(nats: float, ceiling: float) -> float:
    """Effective number of batches that a cell may be of: the exponential of the entropy that its position leaves.

    Parameters
    ----------
    nats
        Mean log ratio.
    ceiling
        Entropy of the batch given the label in nats; log(K) for K equal batches.
    """
    return float(np.exp(ceiling - nats))


def scale() -> pd.DataFrame:
    """Table for two equal batches: share of the largest mean, and right guesses: their range, and of two Gaussians."""
    rows = []
    for nats in NATS:
        distance = brentq(lambda distance, nats=nats: information_of_shift(distance) - nats, 0.0, 10.0)
        rows.append(
            {
                "nats": nats,
                "share": nats / np.log(2.0),
                "guessed_at_least": least_guessed(nats),
                "guessed_if_shifted": norm.cdf(distance / 2.0),
                "shift": distance,
                "guessed_at_most": most_guessed(nats),
                "batches_left": batches_left(nats, np.log(2.0)),
            }
        )
    return pd.DataFrame(rows)
