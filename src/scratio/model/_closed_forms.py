"""Closed forms of the conditions' densities, fitted to the cells that each member trains on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from scratio._random import child_seed
from scratio.module import ClosedFormDensities, Condition, PotentialNetwork
from scratio.stats import (
    ConditionMixture,
    abundances,
    balanced_rows,
    class_gaussian,
    common_components,
    common_responsibility,
    shared_gaussian,
    shared_mixture,
)
from scratio.train import StandardisedCells

_FIT, _SAMPLE = 13, 16

SHARED, CLASS, MIXTURE, ABUNDANCES = "shared Gaussian", "class Gaussians", "mixture", "abundances"
N_TYPES = 8
"""Components of the mixtures."""
MAX_SHARED, MAX_CLASS, MAX_MIXED = 256, 16, 256
"""Largest numbers of conditions, and of components over all conditions, for which a closed form is fitted."""
MOST_FITTED, MOST_MIXED = 50_000, 10_000
"""Largest numbers of cells from which closed forms, and mixtures, are fitted; balanced over the combinations."""


class ClosedForms:
    """Closed forms by name, from the least to the most flexible.

    Gaussians and the mixture are candidates for the truth, and at most one of them is chosen. Abundances of cell types
    that all conditions share are a smooth estimate. If they can be fitted, they always take part, beside the others.

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

    def __init__(
        self,
        network: PotentialNetwork,
        x: StandardisedCells,
        condition: Condition,
        strata: np.ndarray,
        random_state: int,
    ) -> None:
        n, self.n_conditions, self.random_state = len(x), len(network.combinations), random_state
        # A density for each level of a continuous key would leave out what lies between them.
        self.is_possible = not network.values_of_combinations.shape[1] and self.n_conditions > 1
        rng = np.random.default_rng(child_seed(random_state, _SAMPLE))
        self.sample = balanced_rows(strata, MOST_FITTED, rng) if self.is_possible else np.arange(0)
        index = torch.from_numpy(self.sample)
        self.x = x[index].double().numpy() if self.is_possible else np.empty((0, x.shape[1]))
        self.codes = np.empty(0, dtype=np.int64)
        if self.is_possible:
            self.codes = network.index(Condition(condition.codes[index], condition.values[index])).numpy()
        self.n_cells = n

    @property
    def names(self) -> list[str]:
        """Closed forms that can be fitted."""
        is_mixed = self.n_conditions * N_TYPES <= MAX_MIXED and len(self.x) > 10 * N_TYPES
        possible = {
            SHARED: self.n_conditions <= MAX_SHARED,
            CLASS: self.n_conditions <= MAX_CLASS,
            MIXTURE: is_mixed,
            ABUNDANCES: is_mixed,
        }
        return [name for name, is_one in possible.items() if is_one and self.is_possible]

    def fit(self, name: str, rows: list[np.ndarray]) -> ClosedFormDensities:
        """One closed form with a member for each list of rows."""
        return ClosedFormDensities.stack([self._fit(name, own) for own in rows])

    def _fit(self, name: str, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        place = np.searchsorted(rows, self.sample).clip(max=len(rows) - 1)
        own = np.flatnonzero(rows[place] == self.sample)
        if name in (MIXTURE, ABUNDANCES):
            own = own[self._is_mixed[own]]
        x, codes, n = self.x[own], self.codes[own], self.n_conditions
        fits: dict[str, Callable[[], ConditionMixture]] = {
            SHARED: lambda: shared_gaussian(x, codes, n),
            CLASS: lambda: class_gaussian(x, codes, n),
            MIXTURE: lambda: shared_mixture(x, codes, n, self._responsibility[own]),
            ABUNDANCES: lambda: abundances(self._components[0], self._components[1][own], codes, n),
        }
        found = fits[name]()
        return torch.from_numpy(found.log_weight), torch.from_numpy(found.mean), torch.from_numpy(found.covariance)

    @cached_property
    def _is_mixed(self) -> np.ndarray:
        """Whether a cell of the sample takes part in fits of mixtures."""
        rng = np.random.default_rng(child_seed(self.random_state, _SAMPLE, 1))
        chosen = np.zeros(len(self.x), dtype=bool)
        chosen[balanced_rows(self.codes, MOST_MIXED, rng)] = True
        return chosen

    @cached_property
    def _responsibility(self) -> np.ndarray:
        # The fit does not see conditions, so it may use all cells, and all members share it.
        return common_responsibility(self.x, N_TYPES, np.random.default_rng(child_seed(self.random_state, _FIT)))

    @cached_property
    def _components(self) -> tuple[ConditionMixture, np.ndarray]:
        return common_components(self.x, self._responsibility)
