"""Calibration: weigh the network and the closed forms of every fold by held-out labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from scratio._constants import SIGNIFICANT
from scratio.model._closed_forms import ABUNDANCES, ClosedForms
from scratio.model._shares import shares_of
from scratio.module import ClosedFormDensities, Condition, PotentialNetwork, select_members
from scratio.stats import bounded_loss, posterior_weights
from scratio.train import CellDataModule

NONE, NETWORK = "none", "network"


@dataclass(frozen=True)
class HeldOut:
    """Cells that the members of a fold are judged by, one member after the other.

    Parameters
    ----------
    base
        Log shares of the combinations among them, shape (n, n_combinations).
    parts
        Parts of the potential by name, each of shape (n_terms, n, n_combinations).
    codes
        Combination of each cell, shape (n,).
    groups
        Sample of each cell; None without samples.
    """

    base: np.ndarray
    parts: dict[str, np.ndarray]
    codes: np.ndarray
    groups: np.ndarray | None

    def loss(self, weights: dict[str, np.ndarray]) -> np.ndarray:
        """Bounded cross-entropy of every cell under weights of the parts' terms."""
        logits = self.base + sum(np.tensordot(weight, self.parts[name], 1) for name, weight in weights.items())
        return bounded_loss(logits, self.codes)


def calibrate(
    network: PotentialNetwork,
    forms: ClosedForms,
    data: CellDataModule,
    *,
    groups: np.ndarray | None,
    with_network: bool,
    unseen: list[np.ndarray] | None = None,
) -> dict[str, Any]:
    """Weigh the network and the closed forms by labels of cells that they were not trained on.

    These are the cells that the members of each fold held out. If samples are to be told from each other but are too
    few for members to hold some out, they are the cells of the fold itself. The weights of a fold are then those that
    the labels of all other folds support (stacking by cross-validation, Wolpert 1992); its own have a part in what is
    decided for the whole data set alone.

    1. One closed form is chosen for the data set: the simplest one whose held-out loss is within two standard errors of
       the best loss. Having no closed form counts as the simplest choice.
    2. In every fold the parts (the network, that closed form, abundances) get weights by a penalised multinomial
       regression (:func:`scratio.stats.posterior_weights`). With several crossed keys every term of a part has a
       weight, multiplied by the probability that the term says anything (Bayesian information criterion, over all
       folds).
    3. The regression is compared with the hypothesis that the closed form is the truth: its weight is 1, all others are
       0. Both are averaged by their posterior probabilities (Bayesian information criterion, over all folds). This
       protects a closed form that extrapolates: where conditions hardly overlap, labels cannot tell how large the log
       ratio is.

    Parameters
    ----------
    network
        Trained network, with a member for each split of ``data``; it gets the closed forms and the weights.
    forms
        Closed forms of these cells.
    data
        Cells and rows of all members.
    groups
        Sample of every cell, if cells of a sample are to count as one piece of evidence.
    with_network
        Whether the network takes part.
    unseen
        Rows of the cells of samples that the members of each fold have not seen, shape (n_members, n) each; None where
        members hold out cells that tell enough.

    Returns
    -------
    Name of the closed form, its probability, weights of every part by fold, and held-out losses.
    """
    rows = [split.train for split in data.splits]
    fitted = {name: forms.fit(name, rows) for name in forms.names}
    folds = _held_out(network, fitted, data, groups, unseen)
    learnt = folds if unseen is None else [_joined(folds[:place] + folds[place + 1 :]) for place in range(len(folds))]
    chosen, losses = _choose(folds, [name for name in fitted if name != ABUNDANCES])
    used = [*([NETWORK] if with_network else []), *([] if chosen == NONE else [chosen])]
    used += [ABUNDANCES] if ABUNDANCES in fitted else []
    weights = _with_silenced_terms(folds, [_regression(fold, used) for fold in learnt])
    alone = [{chosen: np.ones(network.n_terms)} for _ in folds] if chosen != NONE else [{} for _ in folds]
    alone = _with_silenced_terms(folds, alone)
    probability = 0.0 if chosen == NONE else _probability(folds, weights, alone)
    kept = [name for name in used if name != NETWORK]
    table = np.zeros((len(folds), 1 + len(kept), network.n_terms))
    for fold, (own, of_form) in enumerate(zip(weights, alone, strict=True)):
        for name, weight in own.items():
            place = 0 if name == NETWORK else 1 + kept.index(name)
            table[fold, place] = (1.0 - probability) * weight + probability * of_form.get(name, 0.0)
    of_members = torch.from_numpy(table).repeat_interleave(data.config.ensemble_size, dim=0)
    network.calibrate([fitted[name] for name in kept], of_members)
    return {
        "closed_form": chosen,
        "probability": probability,
        "held_out_loss": losses,
        "weights": {name: table[:, place].tolist() for place, name in enumerate([NETWORK, *kept])},
    }


def _held_out(
    network: PotentialNetwork,
    fitted: dict[str, ClosedFormDensities],
    data: CellDataModule,
    groups: np.ndarray | None,
    unseen: list[np.ndarray] | None,
) -> list[HeldOut]:
    """Parts of the potential for the cells that every fold is judged by."""
    batches, size, folds = data.val_dataloader(), data.config.ensemble_size, []
    for start in range(0, network.n_members, size):
        here = slice(start, start + size)
        rows = batches.rows[here] if unseen is None else unseen[start // size]
        # Held-out cells are read once.
        x, codes, values = (part[here] for part in batches.cells) if unseen is None else data.gather(rows)
        members = select_members(network, range(start, start + size)).to(x.device)
        own_forms = [select_members(form, range(start, start + size)) for form in fitted.values()]
        with torch.no_grad():
            parts = members.parts(x, own_forms).flatten(2, 3).double().numpy()
            own = members.index(Condition(codes, values)).numpy()
            base = members.log_held_out_shares[:, 0].double().numpy()
        if unseen is not None:
            base = np.log(np.stack([shares_of(of_member, base.shape[1]) for of_member in own]))
        folds.append(
            HeldOut(
                np.repeat(base, rows.shape[1], axis=0),
                dict(zip([NETWORK, *fitted], parts, strict=True)),
                own.ravel(),
                None if groups is None else groups[rows.ravel()],
            )
        )
    return folds


def _joined(folds: list[HeldOut]) -> HeldOut:
    """Cells of several folds."""
    return HeldOut(
        np.concatenate([fold.base for fold in folds]),
        {name: np.concatenate([fold.parts[name] for fold in folds], axis=1) for name in folds[0].parts},
        np.concatenate([fold.codes for fold in folds]),
        np.concatenate([fold.groups for fold in folds if fold.groups is not None]),
    )


def _choose(folds: list[HeldOut], names: list[str]) -> tuple[str, dict[str, float]]:
    """Choose the closed form, and return the held-out losses of all closed forms."""
    losses = {NONE: np.concatenate([fold.loss({}) for fold in folds])}
    for name in names:
        ones = np.ones(len(folds[0].parts[name]))
        losses[name] = np.concatenate([fold.loss({name: ones}) for fold in folds])
    best = min(losses, key=lambda name: losses[name].mean())

    def is_as_good(name: str) -> bool:
        excess = losses[name] - losses[best]
        return excess.mean() <= SIGNIFICANT * excess.std() / np.sqrt(len(excess))

    return next(filter(is_as_good, losses)), {name: float(loss.mean()) for name, loss in losses.items()}


def _regression(fold: HeldOut, names: list[str]) -> dict[str, np.ndarray]:
    """Weights of the terms of every part."""
    terms = [(name, term) for name in names for term in range(len(fold.parts[name]))]
    if not terms:
        return {}
    parts = np.stack([fold.parts[name][term] for name, term in terms])
    # A term with equal values for all conditions cannot change a loss, so it has no weight.
    speaks = np.ptp(parts, axis=2).max(1) > 0.0
    found = np.zeros(len(parts))
    if speaks.any():
        found[speaks] = posterior_weights(fold.base, parts[speaks], fold.codes, fold.groups)
    ends = np.cumsum([len(fold.parts[name]) for name in names])[:-1]
    return dict(zip(names, np.split(found, ends), strict=True))


def _with_silenced_terms(folds: list[HeldOut], weights: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Weights of crossed terms, times the posterior probability of the sets of terms that hold them.

    All sets of terms are compared, because a key and its interaction belong together: where the other key separates
    cells, each of the two terms extrapolates, but their sum does not.
    """
    n_terms = max((len(weight) for weight in weights[0].values()), default=1)
    if n_terms == 1:
        return weights
    penalty = 0.5 * len(weights[0]) * np.log(sum(len(fold.codes) for fold in folds))
    sets = np.array(list(product((0.0, 1.0), repeat=n_terms)))
    evidence = -penalty * sets.sum(1)
    for place, kept in enumerate(sets):
        for fold, own in zip(folds, weights, strict=True):
            evidence[place] -= fold.loss({name: weight * kept for name, weight in own.items()}).sum()
    speaks = softmax(evidence) @ sets
    return [{name: weight * speaks for name, weight in own.items()} for own in weights]


def _probability(
    folds: list[HeldOut], weights: list[dict[str, np.ndarray]], alone: list[dict[str, np.ndarray]]
) -> float:
    """Posterior probability that the closed form alone is the truth, against the regression."""
    gain, n_cells = 0.0, 0
    for fold, own, of_form in zip(folds, weights, alone, strict=True):
        gain += float((fold.loss(of_form) - fold.loss(own)).sum())
        n_cells += len(fold.codes)
    n_weights = sum(len(weight) for weight in weights[0].values())
    return float(expit(0.5 * n_weights * np.log(n_cells) - gain))
