"""What held-out cells decide: the closed form, the strength of the weight decay, the shrinkage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scratio._blocks import SLAB
from scratio._seed import child_seed, torch_generator
from scratio.module import ClosedFormDensities, Condition, PotentialNetwork, select_members
from scratio.stats import (
    ConditionMixture,
    Shrinkage,
    balanced_rows,
    bounded_loss,
    class_gaussian,
    common_components,
    common_responsibility,
    held_out_share,
    held_out_shrinkage,
    labels_are_silent,
    shared_gaussian,
    shared_mixture,
    supported_terms,
    term_shrinkage,
)
from scratio.train import (
    SIGNIFICANT,
    CellDataModule,
    StandardisedCells,
    TrainConfig,
    TrainResult,
    paired_difference,
)

_FIT, _NOISE, _SAMPLE = 13, 14, 16

NONE, COMPONENTS, TYPES = "none", (4, 8), 16
MAX_SHARED, MAX_CLASS, MAX_MIXED = 256, 16, 128
"""Largest numbers of conditions, and of components over all conditions, for which a closed form is tried."""

MOST_FITTED = 50_000
"""Cells, of every combination alike, from which closed forms are fitted at most."""

FEW = 1_000
"""Held-out cells below which the best of several closed forms is the best by chance."""

Fit = Callable[[np.ndarray], ConditionMixture]
"""From the rows of the cells to fit, sorted."""


Part = tuple[Tensor, Tensor, Tensor]
"""Log weight, mean and covariance of one member."""


def closed_forms(
    network: PotentialNetwork,
    x: Tensor | StandardisedCells,
    condition: Condition,
    strata: np.ndarray,
    random_state: int,
) -> dict[str, Fit]:
    """Candidates in the order of their freedom; "none" is one more.

    Made once for a training, since the starts of the mixtures are kept for whoever fits one. Of many cells a sample is
    looked at.

    Parameters
    ----------
    network
        Network over the combinations of the conditions.
    x, condition
        All cells and their labels.
    strata
        Combination of categories of every cell, shape (n_cells,).
    random_state
        Seed of the mixtures and of the sample.
    """
    # A density for each level of a continuous key would leave out what lies between them.
    if network.values_of_combinations.shape[1] or len(network.combinations) < 2:
        return {}
    sample = balanced_rows(strata, MOST_FITTED, np.random.default_rng(child_seed(random_state, _SAMPLE)))
    index = torch.from_numpy(sample)
    own = network.index(Condition(condition.codes[index], condition.values[index])).numpy()
    fits = _fits(x[index].double().numpy(), own, len(network.combinations), random_state)

    def fit(name: str, rows: np.ndarray) -> ConditionMixture:
        place = np.searchsorted(rows, sample).clip(max=len(rows) - 1)
        return fits[name](np.flatnonzero(rows[place] == sample))

    return {name: partial(fit, name) for name in fits}


def _fits(x: np.ndarray, codes: np.ndarray, n_conditions: int, random_state: int) -> dict[str, Fit]:
    @cache
    def start(k: int) -> np.ndarray:
        # It knows no conditions, so that it may know all cells, and serves all members.
        return common_responsibility(x, k, np.random.default_rng(child_seed(random_state, _FIT, k)))

    def mixture(k: int, rows: np.ndarray) -> ConditionMixture:
        return shared_mixture(x[rows], codes[rows], n_conditions, start(k)[rows])

    def types(rows: np.ndarray) -> ConditionMixture:
        return common_components(x[rows], codes[rows], n_conditions, start(TYPES)[rows])

    fits: dict[str, Fit] = {}
    if n_conditions <= MAX_SHARED:
        fits["shared Gaussian"] = lambda rows: shared_gaussian(x[rows], codes[rows], n_conditions)
    if n_conditions <= MAX_CLASS:
        fits["class Gaussians"] = lambda rows: class_gaussian(x[rows], codes[rows], n_conditions)
    for k in COMPONENTS:
        if n_conditions * k <= MAX_MIXED and len(x) > 10 * k:
            fits[f"mixture of {k}"] = partial(mixture, k)
    if n_conditions * TYPES <= MAX_MIXED and len(x) > 10 * TYPES:
        fits[f"abundances of {TYPES} types"] = types
    return fits


@dataclass(frozen=True)
class Configuration:
    """One way to train: the closed form that the potential starts from, and the strength of the weight decay."""

    closed_form: str
    weight_decay: float


def rank_closed_forms(
    network: PotentialNetwork, fits: dict[str, Fit], data: CellDataModule, config: TrainConfig
) -> tuple[str, str, dict[str, float]]:
    """Simplest closed form that is not worse than the best by two standard errors, and the best.

    Each member's is fitted on the cells it trains on; the criterion is that of the training, on the cells it holds out.

    Parameters
    ----------
    network
        Untrained network with one member for each split of ``data``.
    fits
        From :func:`closed_forms`.
    data, config
        Cells, rows of the members, settings of the training.

    Returns
    -------
    Names of both, and the criterion of every candidate.
    """
    fitted = {name: _fit(name, fits, data, network) for name in (NONE, *fits)}
    losses = {name: _criterion(network, parts, data, config) for name, parts in fitted.items()}
    bounded = {
        name: torch.from_numpy(bounded_loss(loss.numpy(), len(network.combinations))) for name, loss in losses.items()
    }
    best = min(bounded, key=lambda name: float(bounded[name].mean()))

    def is_as_good(name: str) -> bool:
        excess, error = paired_difference(bounded[name], bounded[best])
        return excess <= SIGNIFICANT * error

    simplest = next(filter(is_as_good, losses))
    if len(losses[best]) < FEW:
        best = simplest
    return simplest, best, {name: float(loss.mean()) for name, loss in losses.items()}


def set_closed_form(
    network: PotentialNetwork, names: list[str], fits: dict[str, Fit], data: CellDataModule, config: TrainConfig
) -> None:
    """Fit the closed forms of the candidates, each member's on the cells it trains on.

    Parameters
    ----------
    network
        Untrained network; nothing is set where no candidate has a closed form.
    names
        Closed form of every candidate.
    fits
        From :func:`closed_forms`.
    data, config
        Cells, rows of all members, settings of the training.
    """
    if set(names) == {NONE}:
        return
    fitted = {name: _fit(name, fits, data, network) for name in set(names)}
    parts = [fitted[names[m // config.ensemble_size % len(names)]][m] for m in range(network.n_members)]
    network.closed_form = ClosedFormDensities.stack(parts)


def _fit(name: str, fits: dict[str, Fit], data: CellDataModule, network: PotentialNetwork) -> list[Part]:
    """One closed form for every member; members with the same cells share it."""
    if name == NONE:
        return [_nothing(len(network.combinations), data.x.shape[1])] * len(data.splits)
    known: dict[bytes, Part] = {}
    parts = []
    for split in data.splits:
        key = split.train.tobytes()
        if key not in known:
            found = fits[name](split.train)
            log_weight, mean, covariance = map(torch.from_numpy, (found.log_weight, found.mean, found.covariance))
            known[key] = log_weight, mean, covariance
        parts.append(known[key])
    return parts


def _nothing(n_conditions: int, d: int) -> Part:
    """The same density for every condition."""
    return torch.zeros((n_conditions, 1)), torch.zeros((n_conditions, 1, d)), torch.eye(d)[None, None]


def _criterion(network: PotentialNetwork, parts: list[Part], data: CellDataModule, config: TrainConfig) -> Tensor:
    """Criterion of the closed form alone on the held-out cells of all members, one after the other."""
    untrained = copy.deepcopy(network)
    untrained.closed_form = ClosedFormDensities.stack(parts)
    batches = data.val_dataloader()
    losses = []
    with torch.no_grad():
        for index, (x, codes, values) in enumerate(batches):
            generator = torch_generator(config.random_state, _NOISE, index)
            losses.append(untrained.validation_loss(x, Condition(codes, values), generator))
    return torch.cat(losses, dim=1).double().unflatten(1, (-1, batches.n_cells)).mean(1).flatten()


def choose_group(result: TrainResult, closed_forms: list[str]) -> tuple[int, list[float]]:
    """Candidate to keep, and the held-out losses of all.

    A network that was trained without a closed form can still be averaged with it (see :func:`average`), so training on
    top of one has to be better by more than a standard error.
    """
    if result.held_out is None:
        losses = result.validation_loss.iloc[-1].to_numpy().reshape(len(closed_forms), -1).mean(1)
        return int(losses.argmin()), losses.tolist()
    losses = result.held_out.mean(1).numpy()
    without = [group for group, name in enumerate(closed_forms) if name == NONE]
    best = min(without, key=lambda group: float(losses[group]))
    for group in set(range(len(closed_forms))) - set(without):
        excess, error = paired_difference(result.held_out[best], result.held_out[group])
        best = group if excess > error else best
    return best, losses.tolist()


def average(
    network: PotentialNetwork,
    names: tuple[str, str],
    fits: dict[str, Fit],
    data: CellDataModule,
    config: TrainConfig,
) -> dict[str, list[float]]:
    """Average a potential that was trained without a closed form with one, by the cells that the members held out.

    Where conditions hardly overlap labels cannot tell by how many nats, and the closed form that extrapolates best, the
    simplest, is taken alone.

    Parameters
    ----------
    network
        Trained network.
    names
        Simplest and best closed form, as :func:`rank_closed_forms` found them.
    fits
        From :func:`closed_forms`.
    data, config
        Cells, rows of all members, settings.

    Returns
    -------
    Share of the closed form in each fold, under its name.
    """
    simplest, best = names

    def potentials(name: str) -> list[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        set_closed_form(network, [name], fits, data, config)
        # A network that was discarded has the factor 0, and no share to claim.
        return [
            (fold, prior, base - prior, float(network.factor[fold.start]) * learnt, own)
            for fold, prior, base, learnt, own in _held_out(network, data, config)
        ]

    name, found, is_silent = best, [], False
    if simplest != NONE:
        found = potentials(simplest)
        is_silent = all(labels_are_silent(*potential) for _, *potential in found)
        name = simplest if is_silent else best
    if name != simplest:
        found = potentials(name)
    shares = []
    for fold, prior, closed, learnt, own in found:
        share = 1.0 if is_silent else held_out_share(prior, closed, learnt, own)
        network.gate.data[fold], network.share.data[fold] = share, 1.0 - share
        shares.append(share)
    return {name: shares}


def shrink(
    network: PotentialNetwork, data: CellDataModule, config: TrainConfig, groups: np.ndarray | None = None
) -> dict[str, list[Any]]:
    """Set the factor of every fold's potential, or of its terms, from the cells that its members held out.

    Parameters
    ----------
    network
        Trained network.
    data, config
        Cells, rows of all members, settings.
    groups
        Sample of every cell, if cells of a sample are to count as one piece of evidence.

    Returns
    -------
    Factors, slopes and their standard errors, one per fold, or for each fold one per term.
    """
    projections = network.projections.double().cpu().numpy()
    evidence: dict[str, list[Any]] = {"factor": [], "slope": [], "standard_error": []}
    rows = data.val_dataloader().rows
    for fold, prior, base, learnt, own in _held_out(network, data, config):
        of_cells = None if groups is None else np.unique(groups[rows[fold].ravel()], return_inverse=True)[1]
        if len(projections):
            potential = base - prior + float(network.factor[fold.start]) * learnt
            terms = np.einsum("tcd,nd->tnc", projections, potential)
            found = _shrink_terms(network, fold, prior, terms, own, of_cells)
        else:
            found = [held_out_shrinkage(base, learnt, own, of_cells)]
            # Where the untrained network was kept the factor is 0 already.
            network.factor.data[fold] *= found[0].factor
            found = [replace(found[0], factor=float(network.factor[fold.start]))]
        for name, values in evidence.items():
            numbers = [getattr(term, name) for term in found]
            values.append(numbers if len(projections) else numbers[0])
    return evidence


def _shrink_terms(
    network: PotentialNetwork,
    fold: slice,
    prior: np.ndarray,
    terms: np.ndarray,
    own: np.ndarray,
    groups: np.ndarray | None,
) -> list[Shrinkage]:
    """Set the factors of a fold's terms; a term that the held-out labels clearly need is taken as it is."""
    needed = supported_terms(prior, terms, own, groups)
    found = [
        replace(term, factor=1.0) if keep else term
        for term, keep in zip(term_shrinkage(prior, terms, own, groups), needed, strict=True)
    ]
    network.term_factors.data[fold] = torch.tensor([term.factor for term in found]).to(network.term_factors)
    return found


def _held_out(
    network: PotentialNetwork, data: CellDataModule, config: TrainConfig
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Members of every fold, and of the cells they held out: log shares, logits without the network, what it adds, own.

    The log shares are part of the logits. Own is the combination of each cell.
    """
    x, codes, values = data.val_dataloader().cells
    for start in range(0, network.n_members, config.ensemble_size):
        fold = slice(start, start + config.ensemble_size)
        members = select_members(network, range(network.n_members)[fold])
        with torch.no_grad():
            base, learnt = members.to(x.device).held_out_logits(x[fold])
            own = members.index(Condition(codes[fold], values[fold]))
            prior = members.log_held_out_shares.expand_as(base)
        shares, logits, added = (part.flatten(0, 1).double().numpy() for part in (prior, base, learnt))
        yield fold, shares, logits, added, own.flatten().numpy()


def set_shares(network: PotentialNetwork, index: np.ndarray, data: CellDataModule) -> None:
    """Tell every member the shares of the combinations among the cells it trains on and those it holds out.

    Parameters
    ----------
    network
        Untrained network with one member for each split of ``data``.
    index
        Combination of every cell, shape (n_cells,).
    data
        Rows of all members.
    """
    n = len(network.combinations)

    def shares(rows: list[np.ndarray]) -> Tensor:
        counts = np.stack([np.bincount(index[own], minlength=n) for own in rows])
        # A combination that a member has no cell of has no share that could be divided out.
        kept = np.maximum(counts, 0.5)
        return torch.from_numpy(kept / kept.sum(1, keepdims=True)).float()

    network.set_shares(shares([split.train for split in data.splits]), shares(list(data.val_dataloader().rows)))


def combination_of(network: PotentialNetwork, condition: Condition) -> np.ndarray:
    """Combination of every cell, shape (n_cells,)."""
    parts = [slice(start, start + SLAB) for start in range(0, len(condition.codes), SLAB)]
    return np.concatenate([network.index(condition[part]).numpy() for part in parts]).astype(np.int32)
