"""Samples and translations of a trained `FDRL`, and the ratio that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor, nn

from scratio._check import check_at_least
from scratio._random import torch_generator
from scratio.conditions import OWN, ConditionDict, Rest
from scratio.fdrl._membership import fit_membership
from scratio.fdrl._network import StaleRatio
from scratio.fdrl._perceptron import Perceptron
from scratio.fdrl._prior import CellPrior, Prior
from scratio.fdrl._training import FlowSettings
from scratio.model._embedding_model import EmbeddingModel

_SAMPLES, _TRANSLATION = 51, 52
BATCH_SIZE = 16_384

LogProbability = Callable[[Tensor], Tensor]
"""From cells in units of the embedding, shape (n, d), to the log probability that they have a condition, (n,)."""


class FDRLQueryModel(EmbeddingModel):
    """A model that draws and translates cells along its own ratio."""

    source: ConditionDict | None
    target: ConditionDict | None
    module: StaleRatio
    prior: Prior | None
    flow: FlowSettings
    _membership: dict[str, Perceptron]
    _rows_of_target: np.ndarray

    def sample(
        self,
        n_samples: int,
        *,
        condition: ConditionDict | None = None,
        classifier: LogProbability | None = None,
        guidance: float = 0.1,
        extra_steps: int = 0,
        random_state: int = 0,
    ) -> np.ndarray:
        r"""Draw cells from the model.

        Cells of a condition are drawn by composing the ratio with a classifier (arXiv 2303.03714, appendix D):

        .. math:: x \leftarrow x - \eta \nabla \left( f'(r_\theta(x)) - \varphi \log p(y | x) \right) + \nu \xi

        Parameters
        ----------
        n_samples
            Number of cells.
        condition
            Dict from a registered key to a category. By default, cells are drawn without a classifier.
        classifier
            Differentiable function from a tensor of cells in units of the embedding, shape (n, d), to the log
            probability that they have the condition, shape (n,). By default a classifier is trained on the model's
            cells when a condition is first used.
        guidance
            phi, the weight of the classifier. A larger weight makes the condition more certain, and the cells less like
            real ones.
        extra_steps
            Steps beyond those of the training (the paper's kappa).
        random_state
            Seed.

        Returns
        -------
        Cells in the units of the embedding, shape (n_samples, d), float64.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If an argument is out of range, if the model was made with a ``source``, or if it has no cells to train a
            classifier on.
        """
        self._check_if_trained(warn=False)
        if self.prior is None or isinstance(self.prior, CellPrior):
            raise ValueError(
                f"this model moves cells of {self.source} to {self.target}: translate them, or make a "
                "model without source"
            )
        check_at_least(1, n_samples=n_samples)
        check_at_least(0, extra_steps=extra_steps, guidance=guidance)
        if classifier is not None and condition is None:
            raise ValueError("classifier is given and condition is not: name the condition whose probability it is")
        reward = None
        if condition is not None:
            log_probability = self._log_probability(condition, classifier)

            def reward(x: Tensor) -> Tensor:
                return guidance * log_probability(x)

        generator = torch_generator(random_state, _SAMPLES, device=self.device)
        start = self.prior.to(self.device).draw(n_samples, generator)
        return self._to_units(self.flow.improve(self.module, start, generator, extra_steps=extra_steps, reward=reward))

    def translate(
        self,
        adata: AnnData | None = None,
        *,
        source: ConditionDict | None = None,
        target: ConditionDict | None = None,
        extra_steps: int = 0,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Move every cell from the source to where it would lie in the target (unpaired translation).

        The steps have no noise, so that the translation of a cell does not depend on other cells. All cells are treated
        as cells of the source, whatever their label. To check a translation, compare
        :meth:`scratio.model.ScRatio.log_ratio` before and after it.

        Parameters
        ----------
        adata
            Cells; by default the model's.
        source, target
            Conditions of the translation. If given, they must be those that the model was made with.
        extra_steps
            Steps beyond those of the training.
        rows
            Positions of the cells to move, by default all.

        Returns
        -------
        Cells in the units of the embedding, shape (n_cells, d) or (n_rows, d), float64.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the model was not made for this translation, or an argument is out of range.

        See Also
        --------
        scratio.tl.translate : Write the translation and the displacement into the cells.
        """
        self._check_if_trained(warn=False)
        for name, asked, own in (("source", source, self.source), ("target", target, self.target)):
            if own is None or (asked is not None and categories_of(asked, name) != own):
                raise ValueError(
                    f"this model was made with {name}={own}, and not for {name}={asked}; make one with "
                    "FDRL(adata, source=..., target=...)"
                )
        check_at_least(0, extra_steps=extra_steps)
        cells = self.adata if adata is None else adata
        if cells is None:
            raise ValueError("the model was loaded without cells: pass adata")
        x = torch.from_numpy(self.embedding(cells if rows is None else cells[rows]))
        flow, generator = replace(self.flow, noise=0.0), torch_generator(0, _TRANSLATION, device=self.device)
        parts = [
            flow.improve(self.module, part.to(self.device), generator, extra_steps=extra_steps)
            for part in x.split(BATCH_SIZE)
        ]
        return self._to_units(torch.cat(parts))

    def log_stale_ratio(self, adata: AnnData | None = None) -> np.ndarray:
        r"""Compute :math:`\log(\tilde q_K / p)`, improved samples against cells, in nats: near 0 after convergence.

        This is not the log ratio of two conditions, which :class:`scratio.model.ScRatio` computes.

        Parameters
        ----------
        adata
            Cells; by default the model's.

        Returns
        -------
        Shape (n_cells,), float64.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        """
        self._check_if_trained(warn=False)
        cells = self.adata if adata is None else adata
        if cells is None:
            raise ValueError("the model was loaded without cells: pass adata")
        with torch.no_grad():
            found = self.module.log_ratio(torch.from_numpy(self.embedding(cells)).to(self.device))
        return found.cpu().double().numpy()

    def log_ratio(self, *args: Any, **kwargs: Any) -> NoReturn:
        """FDRL has no log ratio of conditions.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            "FDRL's ratio is that of its improved samples to the cells, not of treated to control: use "
            "scratio.model.ScRatio for differential abundance, and log_stale_ratio for FDRL's own"
        )

    def _to_units(self, x: Tensor) -> np.ndarray:
        return x.cpu().double().numpy() * self.scale + self.location

    def _log_probability(self, condition: ConditionDict, classifier: LogProbability | None) -> LogProbability:
        """From standardised cells; ``classifier`` reads cells in units of the embedding."""
        if classifier is not None:
            scale, location = (
                torch.from_numpy(values).float().to(self.device) for values in (self.scale, self.location)
            )
            return lambda x: classifier(x * scale + location)
        key = str(sorted(condition.items()))
        if key not in self._membership:
            if self.adata is None:
                raise ValueError("the model was loaded without cells to train a classifier on: pass classifier")
            has_it = self.schema.having(condition, self.adata, "condition") & self._rows_of_target
            used = self._rows_of_target
            x = torch.from_numpy(self.embedding(self.adata)[used])
            seed = self.training_["random_state"]
            self._membership[key] = fit_membership(x, has_it[used], seed, self.device)
        network = self._membership[key].to(self.device)
        return lambda cells: nn.functional.logsigmoid(network(cells)[:, 0])


def categories_of(condition: ConditionDict | None, name: str) -> dict[str, str] | None:
    """A condition of categories alone, as the schema spells them.

    Raises
    ------
    TypeError
        If it is not a dict.
    ValueError
        If it holds `OWN` or `Rest`.
    """
    if condition is None:
        return None
    if not isinstance(condition, Mapping):
        raise TypeError(f"{name} must be a dict from a registered key to a category, got {type(condition).__name__}")
    if any(value is OWN or isinstance(value, Rest) for value in condition.values()):
        raise ValueError(f"{name} must name categories alone, got {dict(condition)}")
    return {str(key): str(value) for key, value in condition.items()}
