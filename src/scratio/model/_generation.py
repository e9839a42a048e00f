"""Cells from a trained `ScRatio`: drawn anew, or carried from one condition to another."""

from __future__ import annotations

import math

import numpy as np
import torch
from anndata import AnnData

from scratio._check import check_at_least
from scratio._random import torch_generator
from scratio.conditions import ConditionDict
from scratio.estimators import precision_of, sample, translate
from scratio.model._scoring import ScoringModel, in_order
from scratio.scoring import DEFAULT_BATCH_SIZE

_SAMPLES = 21


class GenerationModel(ScoringModel):
    """A model that draws and translates cells."""

    def sample(
        self,
        n_samples: int,
        *,
        condition: ConditionDict,
        random_state: int = 0,
        n_steps: int | None = None,
    ) -> np.ndarray:
        """Draw cells from the model, an equal share from each member.

        Parameters
        ----------
        n_samples
            Number of cells.
        condition
            Condition, without `OWN`. Keys that are left out are marginalised over.
        random_state
            Seed.
        n_steps
            Steps of the solver.

        Returns
        -------
        Cells in the units of the embedding, shape (n_samples, d), float64.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If ``n_samples`` is not positive, or the condition holds `OWN`.
        """
        self._check_if_trained(warn=False)
        check_at_least(1, n_samples=n_samples, n_steps=n_steps)
        given = self._encode(condition, None, "condition").to(self.device)
        self._train_denoiser("sample")
        n_members = self.module.n_members
        shape = (n_members, math.ceil(n_samples / n_members), len(self.location))
        # Drawn on the CPU, so that a seed gives the same cells on every device.
        noise = torch.randn(shape, generator=torch_generator(random_state, _SAMPLES), dtype=torch.float64)
        noise = noise.to(precision_of(self.device)).to(self.device)
        with torch.no_grad():
            drawn = sample(self.module, noise, given, n_steps=n_steps).cpu().double().numpy()
        # Cell i comes from member i mod n_members, so that any first part of the samples is balanced.
        return self.coordinates.inverse(drawn.swapaxes(0, 1).reshape(-1, shape[-1])[:n_samples])

    def translate(
        self,
        adata: AnnData | None = None,
        *,
        source: ConditionDict,
        target: ConditionDict,
        n_steps: int | None = None,
        batch_size: int | None = None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Move every cell from one condition to where it would lie in another condition (unpaired translation).

        Each cell is carried to noise along the flow of the source, and then to data along the flow of the target. The
        two flows differ by the difference of the scores at every noise level. The noise keeps what distinguishes a cell
        from other cells of its condition (Su et al. 2022, arXiv 2203.08382). :class:`scratio.model.FDRL` learns such a
        map directly. All cells are treated as cells of the source, whatever their label.

        Parameters
        ----------
        adata
            Cells; by default those the model was trained on. With folds, each is moved by networks that were not
            trained on it.
        source, target
            Conditions, as in :meth:`log_ratio`.
        n_steps
            Steps of the solver, each way.
        batch_size
            Cells per batch.
        rows
            Positions of the cells to move, by default all.

        Returns
        -------
        Moved cells in the units of the embedding, shape (n_cells, d) or (n_rows, d), float64, averaged over the
        members.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError, ValueError
            As in :meth:`log_ratio`.

        Examples
        --------
        >>> import scratio
        >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
        >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
        >>> model = scratio.model.ScRatio(adata)
        >>> model.train(max_steps=20, progress_bar=False)
        >>> model.translate(source={"condition": "control"}, target={"condition": "treated"}).shape
        (600, 2)
        """
        check_at_least(1, n_steps=n_steps, batch_size=batch_size)
        cells, folds = self._cells(adata, rows)
        x, ends = self._standardised(cells), {"source": source, "target": target}
        conditions = {name: self._encode(value, cells, name) for name, value in ends.items()}
        self._train_denoiser("translate")
        parts, places = [], []
        for network, place, batch, given in self._batches(x, folds, conditions, batch_size or DEFAULT_BATCH_SIZE):
            start = torch.from_numpy(batch).to(self.device)
            with torch.no_grad():
                moved = translate(network, start, given["source"], given["target"], n_steps=n_steps)
            parts.append(moved.mean(0).cpu().double().numpy())
            places.append(place)
        return self.coordinates.inverse(in_order(parts, places, axis=0))
