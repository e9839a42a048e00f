"""Divergences between all categories of a key, from one pass over the cells of a trained `ScRatio`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scratio._blocks import slabs
from scratio._check import check_finite
from scratio._progress import with_progress
from scratio.conditions import OWN
from scratio.estimators import log_likelihoods_head
from scratio.model._scoring import ScoringModel
from scratio.module import PotentialNetwork
from scratio.stats import Divergences, divergences

ENTRIES = 2**23
"""Most log densities (networks x cells x combinations) that are held at once."""


class DivergenceModel(ScoringModel):
    """A model that tells how far the categories of a key lie apart."""

    def divergences(self, *, key: str, progress_bar: bool | None = None) -> Divergences:
        r"""Compute the Kullback-Leibler divergence between every two categories of a key, in nats.

        .. math:: KL(a \| b) = E_{x \sim p(x | a)} [\log p(x | a) - \log p(x | b)]

        The expectation is the mean over the training cells of category a, each scored by networks that were not trained
        on it if the model has folds. One pass over the cells serves all pairs. Other keys are marginalised over.

        Parameters
        ----------
        key
            Categorical key that the model was registered with.
        progress_bar
            Whether to show a bar with the remaining time. By default a bar is shown from a million cells on.

        Returns
        -------
        ``scratio.stats.Divergences``: names and numbers of cells of the groups, KL(row || column), the sum of both
        directions, and their standard errors (NaN for a model of one network, and where too few cells leave all weights
        of the calibration at 0).

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError
            If the key is not registered.
        ValueError
            If the key is continuous, if the model has ``parametrization="heads"``, or if it was loaded without cells.

        See Also
        --------
        scratio.tl.sample_distance : Divergences between samples, as an analysis.

        Examples
        --------
        >>> import scratio
        >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
        >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
        >>> model = scratio.model.ScRatio(adata)
        >>> model.train(max_steps=20, progress_bar=False)
        >>> model.divergences(key="condition").groups
        ['control', 'treated']
        """
        self._check_if_trained(warn=False)
        if self.adata is None:
            raise ValueError("the model was loaded without cells, whose means divergences are; load it with adata")
        cells, folds = self._cells(None, None)
        network = self.module
        if not isinstance(network, PotentialNetwork):
            raise ValueError("divergences need a model with parametrization='potential'")
        codes = self._encode({key: OWN}, cells, "key").codes
        if key not in self.schema.categories:
            raise ValueError(f"{key!r} is a continuous key; divergences are between categories")
        column = list(self.schema.categories).index(key)
        x, own = self._standardised(cells, finite=False), codes[:, column].numpy()
        folds = self._folds_of_known(x, folds)
        kinds, group = np.unique(own, return_inverse=True)
        of_kinds = network.combinations[:, column].cpu().numpy()[:, None] == kinds
        sums = _Sums(network, of_kinds, self.n_members)
        for start, raw in with_progress(slabs(x.source), len(x), "scoring", progress_bar):
            check_finite(raw, start, cells, self.obsm_key)
            here = slice(start, start + len(raw))
            sums.add(x.standardise(raw), group[here], None if folds is None else folds[here])
        names = [self.schema.categories[key][kind] for kind in kinds]
        parts = self._parts(of_kinds, kinds, column)
        # Where no part of the potential takes part, the divergences are 0, and nobody knows how wrong that is.
        is_silent = network.is_calibrated and not bool(network.weights.any())
        factor = np.nan if is_silent else self._variance_factor(network)
        return divergences(names, *sums.moments(), sums.of_networks(), factor, *parts)

    def _parts(self, of_kinds: np.ndarray, kinds: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean log ratios by each part of the potential alone less those of all, over the kept cells, and its share."""
        network, kept, n = self.module, self.kept, len(kinds)
        if kept is None or not isinstance(network, PotentialNetwork) or not network.is_calibrated:
            return np.zeros((0, n, n)), np.zeros(0)
        # Kept cells of categories that these cells lack say nothing of the others.
        kept = kept.part(np.flatnonzero(np.isin(kept.condition.codes[:, column].numpy(), kinds)))
        group = np.searchsorted(kinds, kept.condition.codes[:, column].numpy())

        def means(one: PotentialNetwork) -> np.ndarray:
            sums = _Sums(one, of_kinds, self.n_members)
            sums.add(torch.from_numpy(kept.x), group, None)
            return sums.of_networks().mean(0)

        whole, every = means(network), network.each_part()
        if not every:
            return np.zeros((0, n, n)), np.zeros(0)
        alone = np.stack([means(part) - whole for _, part in every])
        return alone, np.array([share for share, _ in every])


class _Sums:
    """Sums of log ratios over the cells of each group, so that no table of cells by groups is held.

    Parameters
    ----------
    network
        Network of all members.
    of_groups
        Which combinations (rows) belong to which group (columns).
    n_members
        Members of a fold.
    """

    def __init__(self, network: PotentialNetwork, of_groups: np.ndarray, n_members: int) -> None:
        self.network, self.n_members = network, n_members
        self.of_groups, self.log_weights = torch.from_numpy(of_groups), network.log_weights.cpu().double()
        n = of_groups.shape[1]
        self.n_cells, self.total, self.squares = np.zeros(n), np.zeros((n, n)), np.zeros((n, n))
        self.of_each = np.zeros((network.n_members, n, n))

    def add(self, x: Tensor, group: np.ndarray, folds: np.ndarray | None) -> None:
        """Add standardised cells of shape (n, d), their groups, and their folds."""
        device = next(self.network.parameters()).device
        size = max(ENTRIES // (self.network.n_members * len(self.of_groups)), 1)
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            with torch.no_grad():
                found = log_likelihoods_head(self.network, x[rows].to(device)).cpu().double()
            values = _of_groups(found, self.of_groups, self.log_weights)
            self._add(values, group[rows], None if folds is None else folds[rows])

    def _add(self, values: np.ndarray, group: np.ndarray, folds: np.ndarray | None) -> None:
        n = len(group)
        ratio = values[:, np.arange(n), group][:, :, None] - values
        if folds is None:
            scored = ratio.mean(0)
        else:
            of_fold = self.n_members * folds[:, None] + np.arange(self.n_members)
            scored = ratio[of_fold, np.arange(n)[:, None]].mean(1)
        is_of = (group == np.arange(len(self.n_cells))[:, None]).astype(float)
        self.n_cells += is_of.sum(1)
        self.total += is_of @ scored
        self.squares += is_of @ scored**2
        self.of_each += is_of @ ratio

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of cells, and mean and variance over them of the log ratio of the row's group over the column's."""
        n = self.n_cells[:, None]
        mean = self.total / n
        variance = np.maximum(self.squares / n - mean**2, 0.0) * n / np.maximum(n - 1.0, 1.0)
        return self.n_cells.astype(int), mean, variance

    def of_networks(self) -> np.ndarray:
        """Mean log ratios by each network."""
        # Of a group without cells there are none.
        return self.of_each / np.maximum(self.n_cells, 1.0)[:, None]


def _of_groups(values: Tensor, of_groups: Tensor, log_weights: Tensor) -> np.ndarray:
    """Log densities of groups of combinations, from those of the combinations, which are weighted by their shares."""
    found = []
    for inside in of_groups.T:
        weights = log_weights[inside]
        found.append((values[..., inside] + weights).logsumexp(-1) - weights.logsumexp(0))
    return torch.stack(found, dim=-1).numpy()
