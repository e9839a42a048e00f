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
        directions, and their standard errors (NaN for a model of one network).

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
        cells, folds = self._cells(None, None)
        network = self.module
        if not isinstance(network, PotentialNetwork):
            raise ValueError("divergences need a model with parametrization='potential'")
        codes = self._encode({key: OWN}, cells, "key").codes
        if key not in self.schema.categories:
            raise ValueError(f"{key!r} is a continuous key; divergences are between categories")
        column = list(self.schema.categories).index(key)
        x, own = self._standardised(cells, finite=False), codes[:, column].numpy()
        kinds, group = np.unique(own, return_inverse=True)
        of_kinds = network.combinations[:, column].cpu().numpy()[:, None] == kinds
        sums = _Sums(len(kinds), network.n_members)
        size = max(ENTRIES // (network.n_members * len(of_kinds)), 1)
        for start, raw in with_progress(slabs(x.source), len(x), "scoring", progress_bar):
            check_finite(raw, start, cells, self.obsm_key)
            block = x.standardise(raw)
            for first in range(0, len(raw), size):
                rows = slice(first, min(first + size, len(raw)))
                with torch.no_grad():
                    found = log_likelihoods_head(network, block[rows].to(self.device)).cpu().double()
                place = slice(start + rows.start, start + rows.stop)
                values = _of_groups(found, torch.from_numpy(of_kinds), network.log_weights.cpu().double())
                sums.add(values, group[place], None if folds is None else folds[place], self.n_members)
        names = [self.schema.categories[key][kind] for kind in kinds]
        return sums.divergences(names, self._variance_factor(network))


class _Sums:
    """Sums of log ratios over the cells of each group, so that no table of cells by groups is held.

    Parameters
    ----------
    n_groups, n_networks
        Numbers of groups and of networks.
    """

    def __init__(self, n_groups: int, n_networks: int) -> None:
        self.n_cells = np.zeros(n_groups)
        self.total, self.squares = np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups))
        self.of_networks = np.zeros((n_networks, n_groups, n_groups))

    def add(self, values: np.ndarray, group: np.ndarray, folds: np.ndarray | None, n_members: int) -> None:
        """Add cells: log densities of shape (n_networks, n, n_groups), their groups, and their folds."""
        n = len(group)
        ratio = values[:, np.arange(n), group][:, :, None] - values
        if folds is None:
            scored = ratio.mean(0)
        else:
            of_fold = n_members * folds[:, None] + np.arange(n_members)
            scored = ratio[of_fold, np.arange(n)[:, None]].mean(1)
        is_of = (group == np.arange(len(self.n_cells))[:, None]).astype(float)
        self.n_cells += is_of.sum(1)
        self.total += is_of @ scored
        self.squares += is_of @ scored**2
        self.of_networks += is_of @ ratio

    def divergences(self, names: list[str], variance_factor: float) -> Divergences:
        """Divergences between the groups of all cells that were added."""
        n = self.n_cells[:, None]
        mean = self.total / n
        variance = np.maximum(self.squares / n - mean**2, 0.0) * n / np.maximum(n - 1.0, 1.0)
        return divergences(names, self.n_cells.astype(int), mean, variance, self.of_networks / n, variance_factor)


def _of_groups(values: Tensor, of_groups: Tensor, log_weights: Tensor) -> np.ndarray:
    """Log densities of groups of combinations, from those of the combinations, which are weighted by their shares."""
    found = []
    for inside in of_groups.T:
        weights = log_weights[inside]
        found.append((values[..., inside] + weights).logsumexp(-1) - weights.logsumexp(0))
    return torch.stack(found, dim=-1).numpy()
