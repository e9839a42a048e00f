"""Questions to a trained `ScRatio`: log ratios, densities, velocity and score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from scratio._blocks import slabs
from scratio._check import check_finite
from scratio._progress import with_progress
from scratio.conditions import ConditionDict
from scratio.estimators import log_density
from scratio.model._scoring import ScoringModel, in_order
from scratio.scoring import BATCH_SIZES, DEFAULT_BATCH_SIZE, Estimate, Judges, log_ratio_estimator, resolve


class QueryModel(ScoringModel):
    """A model that answers questions."""

    def log_ratio(
        self,
        adata: AnnData | None = None,
        *,
        numerator: ConditionDict,
        denominator: ConditionDict,
        method: str = "auto",
        field: str | ConditionDict = "numerator",
        divergence: str = "exact",
        n_steps: int | None = None,
        return_std: bool = False,
        batch_size: int | None = None,
        rows: np.ndarray | slice | None = None,
        progress_bar: bool | None = None,
        accelerator: str | int | torch.device | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        r"""Compute the log ratio of every cell, in nats.

        .. math:: \log r(x) = \log p(x | numerator) - \log p(x | denominator)

        The log ratio is positive where the cell state is more likely under the numerator. A condition is a dict of
        registered keys. Its values are a category, a number (for a continuous key), :data:`scratio.OWN` (each cell's
        own label) or :class:`scratio.Rest` (every category but one). Keys that are left out are marginalised over.

        Parameters
        ----------
        adata
            Cells; by default those the model was trained on. New cells need the embedding, and labels only for `OWN`.
            A cross-fitted model recognises its training cells by their embedding, and scores each with networks that
            were not trained on it.
        numerator, denominator
            Conditions to compare.
        method
            ``"auto"`` is ``"head"`` for ``parametrization="potential"``, and ``"ode"`` otherwise. ``"head"`` takes the
            difference of two potentials in one forward pass, and requires ``parametrization="potential"``. ``"ode"``
            solves one ODE per cell (Proposition 4.1 of arXiv 2602.24201). ``"naive"`` subtracts two log likelihoods.
            ``"quadrature"`` integrates Proposition 4.1 along a frozen path, over a few nodes of the noise level.
            ``"ito"`` uses a pathwise identity that needs no divergence and has a Monte-Carlo standard error.
        field
            Simulating field of ``"ode"``: ``"numerator"`` (S1), ``"unconditional"`` (S2), or a condition.
        divergence
            ``"exact"`` has a closed form with up to two residual blocks: it costs about one more pass for ``"heads"``,
            and d / 2 passes through the classifier for ``"potential"``. With more blocks it takes d Jacobian-vector
            products. ``"rademacher"`` uses 4 random probes, fixed per cell and shared by numerator and denominator.
        n_steps
            Steps of the fixed-grid Runge-Kutta solver (4 evaluations each), 16 by default; nodes of ``"quadrature"``,
            20 by default; steps of ``"ito"``, 64 by default.
        return_std
            Whether to return the standard error as well. It is a delete-a-group jackknife over the members, each of
            which was trained on different cells, plus the Monte-Carlo error for ``"ito"``. For ``"head"``, the variance
            is the geometric mean of the jackknife's variances of similar training cells, or a third of the cell's own
            variance if that is larger, plus the variance between the network and closed forms
            (``scratio.stats.moderated_error``).
        batch_size
            Cells per batch. Results depend on neither the batch size nor the order of the cells, except for rounding.
        rows
            Positions of the cells to score, by default all.
        progress_bar
            Whether to show a bar with the remaining time. By default a bar is shown from a million cells on.
        accelerator
            Where to score: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"``, or a device such as ``"cuda:1"``.
            By default the networks score where they lie (:meth:`to_device`). A denoiser that a method needs is trained
            where they lie. Chunks of a dask array are scored on the CPUs of the workers.

        Returns
        -------
        Log ratios in nats, shape (n_cells,) or (n_rows,), float64. With ``return_std`` also their standard errors. If
        the embedding is a dask array, the results are dask arrays, computed chunk by chunk by the active scheduler. An
        HDF5 or zarr array is read block by block.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError
            If a key is not registered or a label is missing.
        ValueError
            If a category is unknown, or an argument is out of range.

        See Also
        --------
        scratio.model.ScRatio.typicality : Tell where a log ratio is an extrapolation.
        scratio.model.ScRatio.log_ratio_gradient : Compute the gradient of the log ratio.
        scratio.tl.log_ratio : Write log ratios to ``obs``.

        Examples
        --------
        >>> import scratio
        >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
        >>> scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
        >>> model = scratio.model.ScRatio(adata)
        >>> model.train(max_steps=20, progress_bar=False)
        >>> forward = model.log_ratio(numerator={"condition": "treated"}, denominator={})
        >>> forward.dtype
        dtype('float64')
        """
        method = resolve(method, self._settings["parametrization"] == "potential")
        if return_std and method != "ito":
            self._check_ensemble()
        estimate, further = log_ratio_estimator(method, field, n_steps)
        conditions: dict[str, Any] = {"numerator": numerator, "denominator": denominator, **further}
        size = BATCH_SIZES.get(method) if batch_size is None else batch_size
        mean, std = self._evaluate(
            adata,
            conditions,
            estimate,
            divergence,
            n_steps,
            size,
            with_std=return_std,
            moderate=method == "head",
            denoised=None if method == "head" else f"method={method!r}",
            rows=rows,
            progress_bar=progress_bar,
            accelerator=accelerator,
        )
        return (mean, std) if return_std else mean

    def typicality(
        self,
        adata: AnnData | None = None,
        *,
        numerator: ConditionDict,
        denominator: ConditionDict,
        rows: np.ndarray | slice | None = None,
        progress_bar: bool | None = None,
    ) -> np.ndarray:
        """Compute how typical every cell is of both conditions, compared with up to 10,000 training cells.

        The typicality is the share of a condition's cells that lie at least as far from other cells of that condition
        as the given cell does. The smaller value of the two conditions is returned (``scratio.stats.typicality``). A
        log ratio is an extrapolation if the typicality is below 0.01: the cell is an outlier, or lies where only one
        condition has cells.

        Parameters
        ----------
        adata, numerator, denominator, rows, progress_bar
            As in :meth:`log_ratio`. With `OWN`, a cell is compared with cells of its own category. Continuous keys are
            ignored.

        Returns
        -------
        Typicality from 0 to 1, shape (n_cells,) or (n_rows,). NaN if a condition has fewer than 2 training cells.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError, ValueError
            As in :meth:`log_ratio`, or if the model was saved before models kept training cells.
        """
        cells, _ = self._cells(adata, rows)
        x, kept = self._standardised(cells, finite=False), self.kept
        if kept is None:
            raise ValueError("the model was saved before models kept cells to judge others by; train it again")
        ends = {"numerator": numerator, "denominator": denominator}
        given = {name: self._encode(value, cells, name) for name, value in ends.items()}
        found, judges = [], Judges(kept)
        for start, raw in with_progress(slabs(x.source), len(x), "typicality", progress_bar):
            check_finite(raw, start, cells, self.obsm_key)
            here = slice(start, start + len(raw))
            block = x.standardise(raw).numpy()
            judged = [judges(block, condition[here].codes.numpy()) for condition in given.values()]
            found.append(np.minimum(*judged))
        return np.concatenate(found)

    def log_ratio_gradient(
        self,
        adata: AnnData | None = None,
        *,
        numerator: ConditionDict,
        denominator: ConditionDict,
        noise_level: float = 0.1,
        rows: np.ndarray | slice | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        r"""Compute the gradient of the log ratio in every cell: in which direction, and how fast, it grows.

        .. math:: \nabla_x \log p_\sigma(x | numerator) - \nabla_x \log p_\sigma(x | denominator)

        This is the difference of two scores at a small noise level.

        Parameters
        ----------
        adata, numerator, denominator, rows, batch_size
            As in :meth:`log_ratio`.
        noise_level
            Noise in standard deviations of the standardised embedding. The gradient is that of densities smoothed by
            this noise. Without smoothing, the gradient would follow the noise of the log ratio.

        Returns
        -------
        Gradients of each member in nats per unit of the embedding, shape (n_members, n_cells, d), float64. With folds,
        a training cell has the gradients of members that were not trained on it.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError, ValueError
            As in :meth:`log_ratio`, or if the noise level is not positive.
        """
        if not noise_level > 0.0:
            raise ValueError(f"noise_level must be positive, got {noise_level}")
        q = torch.full((1, 1, 1), min(math.asinh(1.0 / noise_level), self.module.path.q_end))
        parts, places = [], []
        cells, folds = self._cells(adata, rows)
        x = self._standardised(cells)
        ends = {"numerator": numerator, "denominator": denominator}
        conditions = {name: self._encode(value, cells, name) for name, value in ends.items()}
        size = batch_size or DEFAULT_BATCH_SIZE
        for network, place, batch, given in self._batches(x, folds, conditions, size):
            z = (torch.tanh(q) * torch.from_numpy(batch)).expand(network.n_members, -1, -1).to(self.device)
            with torch.no_grad():
                top, bottom = network.condition_gradients(z, q.to(z), [given["numerator"], given["denominator"]])
                parts.append((torch.tanh(q).to(z) * (top - bottom)).cpu().double().numpy())
            places.append(place)
        raw = np.concatenate([np.asarray(block) for _, block in slabs(x.source)])
        return in_order(parts, places, axis=1) * self.coordinates.slope(raw)

    def log_prob(
        self,
        adata: AnnData | None = None,
        *,
        condition: ConditionDict,
        divergence: str = "exact",
        n_steps: int | None = None,
        return_std: bool = False,
        batch_size: int | None = None,
        accelerator: str | int | torch.device | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Compute the log density of every cell by a continuous normalising flow.

        Parameters
        ----------
        adata
            Cells; by default those the model was trained on.
        condition
            Condition. Keys that are left out are marginalised over.
        divergence, n_steps, return_std, batch_size, accelerator
            As in :meth:`log_ratio`.

        Returns
        -------
        Log densities in nats, in the units of the embedding, of the data smoothed by ``sigma_min``: shape (n_cells,),
        float64, averaged over the members. With ``return_std`` also their standard errors.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError, ValueError
            As in :meth:`log_ratio`.
        """

        def estimate(network, x, given, how, cells) -> Estimate:
            return log_density(network, x, given["condition"], divergence=how, n_steps=n_steps), None

        if return_std:
            self._check_ensemble()
        given = {"condition": condition}
        mean, std = self._evaluate(
            adata,
            given,
            estimate,
            divergence,
            n_steps,
            batch_size,
            with_std=return_std,
            denoised="log_prob",
            accelerator=accelerator,
        )
        cells = self._cells(adata, None)[0]
        raw = np.asarray(self._standardised(cells).source)
        mean = mean + np.log(self.coordinates.slope(raw)).sum(1)
        return (mean, std) if return_std else mean

    def velocity(self, x: Any, t: float | Tensor, condition: ConditionDict) -> Tensor:
        r"""Compute the velocity u(x, t, c) of the path :math:`x_t = t x_1 + \lambda(t) x_0`, averaged over the members.

        The path joins noise and data in standardised coordinates; x and the velocity are in the units of the embedding.

        Parameters
        ----------
        x
            States, shape (n, d), array or tensor.
        t
            Time in [0, 1], one number or shape (n,) or (n, 1).
        condition
            Condition, without `OWN`.

        Returns
        -------
        Tensor of shape (n, d).

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If a shape does not fit, or t lies outside of [0, 1].
        """
        field, slope, _ = self._vector_field("velocity", x, t, condition)
        return field / slope

    def score(self, x: Any, t: float | Tensor, condition: ConditionDict) -> Tensor:
        r"""Compute the score :math:`\nabla_x \log p_t(x | c)` of the path, averaged over the members.

        Units are as in :meth:`velocity`.

        Parameters
        ----------
        x
            States, shape (n, d), array or tensor.
        t
            Time in [0, 1], one number or shape (n,) or (n, 1).
        condition
            Condition, without `OWN`.

        Returns
        -------
        Tensor of shape (n, d).

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If a shape does not fit, or t lies outside of [0, 1].
        """
        field, slope, bend = self._vector_field("score", x, t, condition)
        return field * slope + bend

    def _vector_field(
        self,
        name: str,
        x: Any,
        t: float | Tensor,
        condition: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A field in standardised coordinates, the slope of these, and the gradient of the log slope."""
        self._check_if_trained(warn=False)
        x = torch.as_tensor(x, dtype=torch.float64).cpu()
        if x.ndim != 2 or x.shape[1] != len(self.location):
            raise ValueError(f"x must have shape (n, {len(self.location)}), got {tuple(x.shape)}")
        t = torch.as_tensor(t, dtype=torch.float32).cpu().reshape(1, -1, 1)
        if t.shape[1] not in (1, len(x)) or not bool(((t >= 0.0) & (t <= 1.0)).all()):
            raise ValueError("t must be one number or one per row of x, between 0 (noise) and 1 (data)")
        given = self._encode(condition, None, "condition")
        self._train_denoiser(name)
        raw, where = x.numpy(), self.coordinates
        z = torch.from_numpy(where.forward(raw)).float()
        stacked, device = z.expand(self.module.n_members, *z.shape), self.device
        with torch.no_grad():
            field = getattr(self.module, name)(stacked.to(device), t.to(device), given.to(device)).mean(0)
        slopes = torch.from_numpy(where.slope(raw)), torch.from_numpy(where.slope_of_log_slope(raw))
        return field.cpu().double(), *slopes
