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
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        r"""Log density ratio of every cell, in nats.

        .. math:: \log r(x) = \log p(x | numerator) - \log p(x | denominator)

        Positive where the cell state is more likely under the numerator. A condition is a dict from a registered key to
        a category, a number (continuous keys), :data:`scratio.OWN`, each cell's own label, or :class:`scratio.Rest`,
        every category but one; a key left out is marginalised over.

        Parameters
        ----------
        adata
            Cells; by default those the model was trained on. New cells need the embedding, and labels only for `OWN`.
            Training cells of a cross-fitted model are recognised by their embedding, and scored by the networks that
            did not see them.
        numerator, denominator
            Conditions.
        method
            ``"head"``: difference of potentials, one forward pass (``parametrization="potential"``).
            ``"ode"``: Proposition 4.1 of arXiv 2602.24201, one ODE per cell. ``"naive"``: two likelihoods, subtracted.
            ``"quadrature"``: the proposition along a frozen path, a few nodes of the noise level. ``"ito"``: a
            pathwise identity that needs no divergence and has a Monte-Carlo standard error.
            ``"auto"``: ``"head"`` where there is a potential, else ``"ode"``.
        field
            Simulating field of ``"ode"``: ``"numerator"`` (S1), ``"unconditional"`` (S2), or a condition.
        divergence
            ``"exact"``: with up to two residual blocks in closed form, for ``"heads"`` at the cost of about one more
            pass, for ``"potential"`` of d / 2 passes through the classifier; else d Jacobian-vector products.
            ``"rademacher"``: 4 random probes, fixed per cell and shared by numerator and denominator.
        n_steps
            Steps of the fixed-grid Runge-Kutta solver (4 evaluations each), 16 by default; nodes of ``"quadrature"``,
            20 by default; steps of ``"ito"``, 64 by default.
        return_std
            Whether to return the standard error as well: a delete-a-group jackknife over the members, each of which
            trained on other cells, and the Monte-Carlo error of ``"ito"``. That of ``"head"`` is the geometric mean of
            the jackknife's variance over similar training cells, or a third of the cell's own if that is more
            (``scratio.stats.moderated_error``).
        batch_size
            Cells per batch. Results depend neither on it nor on the order of the cells, beyond rounding.
        rows
            Positions of the cells to score, by default all.
        progress_bar
            Whether to show a bar with the remaining time; by default from a million cells on.

        Returns
        -------
        Log ratios in nats, shape (n_cells,) or (n_rows,), float64; with ``return_std`` also their standard errors. If
        the embedding is a dask array they are too, computed chunk by chunk by whatever scheduler there is; of an HDF5
        or zarr array a block is read at a time.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError
            If a key is not registered or a label is missing.
        ValueError
            If a category is unknown, or an argument is out of range.

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
        """How typical every cell is of both conditions, judged by up to 10,000 training cells.

        It is the share of a condition's cells that lie at least as far from their fellows as the given cell does, the
        smaller of the two conditions (``scratio.stats.typicality``). Below 0.01 a log ratio is an extrapolation: the
        cell is an outlier, or lies where only one condition has cells.

        Parameters
        ----------
        adata, numerator, denominator, rows, progress_bar
            As in :meth:`log_ratio`. With `OWN` a cell is compared with cells of its own category; numbers are not
            looked at.

        Returns
        -------
        Shape (n_cells,) or (n_rows,), from 0 to 1; NaN where a condition has fewer than 2 training cells.

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
        r"""Gradient of the log ratio in every cell: in which direction, and how fast, it grows.

        .. math:: \nabla_x \log p_\sigma(x | numerator) - \nabla_x \log p_\sigma(x | denominator),

        the difference of two scores at a small noise level.

        Parameters
        ----------
        adata, numerator, denominator, rows, batch_size
            As in :meth:`log_ratio`.
        noise_level
            Noise in standard deviations of the standardised embedding. The gradient is that of densities smoothed by
            it; without smoothing it follows the noise of the log ratio.

        Returns
        -------
        Gradients of each member in nats per unit of the embedding, shape (n_members, n_cells, d), float64. With folds,
        a training cell's are of the members that did not see it.

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
            z = (torch.tanh(q) * torch.from_numpy(batch)).expand(network.n_members, -1, -1).to(self._device)
            with torch.no_grad():
                top, bottom = network.condition_gradients(z, q.to(z), [given["numerator"], given["denominator"]])
                parts.append((torch.tanh(q).to(z) * (top - bottom)).double().cpu().numpy())
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
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Log density of every cell in nats, in the units of the embedding, by the continuous normalising flow.

        Parameters
        ----------
        adata
            Cells; by default those the model was trained on.
        condition
            Condition; a key left out is marginalised over.
        divergence, n_steps, return_std, batch_size
            As in :meth:`log_ratio`.

        Returns
        -------
        Log densities, shape (n_cells,), float64: the mean over the members. Of the data smoothed by ``sigma_min``. With
        ``return_std`` also their standard errors.

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
            adata, given, estimate, divergence, n_steps, batch_size, with_std=return_std, denoised="log_prob"
        )
        cells = self._cells(adata, None)[0]
        raw = np.asarray(self._standardised(cells).source)
        mean = mean + np.log(self.coordinates.slope(raw)).sum(1)
        return (mean, std) if return_std else mean

    def velocity(self, x: Any, t: float | Tensor, condition: ConditionDict) -> Tensor:
        r"""Velocity u(x, t, c) of the path :math:`x_t = t x_1 + \lambda(t) x_0`, averaged over the members.

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
        r"""Score :math:`\nabla_x \log p_t(x | c)` of the path, averaged over the members; units as in :meth:`velocity`.

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
        stacked, device = z.expand(self.module.n_members, *z.shape), self._device
        with torch.no_grad():
            field = getattr(self.module, name)(stacked.to(device), t.to(device), given.to(device)).mean(0)
        slopes = torch.from_numpy(where.slope(raw)), torch.from_numpy(where.slope_of_log_slope(raw))
        return field.double().cpu(), *slopes
