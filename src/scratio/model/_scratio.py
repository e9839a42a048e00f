"""`ScRatio`: construction, saving and loading. Set-up, training and queries are in their own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from anndata import AnnData

from scratio._caller import differentiable
from scratio.conditions import Combinations, observed_combinations
from scratio.model import _saving
from scratio.model._divergence import DivergenceModel
from scratio.model._embedding_model import to_plain
from scratio.model._generation import GenerationModel
from scratio.model._networks import new_denoiser
from scratio.model._query import QueryModel
from scratio.model._training import TrainingModel
from scratio.module import ClosedFormDensities, FlowNetwork, PotentialNetwork
from scratio.scoring import KeptCells, KnownCells

PARAMETRIZATIONS, BLOCKS, SCHEDULES = ("potential", "heads"), ("residual", "mlp"), ("linear",)
MEMBERS_OF_FOLD, MEMBERS_ALONE = 2, 5


class ScRatio(TrainingModel, QueryModel, DivergenceModel, GenerationModel):
    r"""Conditional flow-matching model of an embedding, from which per-cell log ratios are computed.

    .. math:: \log r(x) = \log p(x | numerator) - \log p(x | denominator)

    The log ratio is in nats. It is positive where the cell state is more likely under the numerator (arXiv 2602.24201).
    One model answers every contrast of the registered conditions, and can marginalise over any of them.

    Parameters
    ----------
    adata
        Cells registered with :meth:`setup_anndata`.
    registry
        For scvi-tools; use ``adata``.
    parametrization
        ``"potential"`` learns a scalar potential for each condition, the log posterior at every noise level. The log
        ratio then takes one forward pass. Velocity and score also need a denoiser of all cells, which is trained when
        they are first used. ``"heads"`` learns the paper's velocity and score.
    block
        Network for ``parametrization="heads"``. ``"residual"`` has residual blocks modulated by time and condition, and
        is preconditioned by the closed-form flow of a standard Gaussian. It computes velocity and score from one
        denoiser. ``"mlp"`` is exactly the paper's network (3 x 1024 SELU, separate heads, Adam 1e-4).
    schedule
        ``"linear"``: :math:`x_t = t x_1 + \lambda(t) x_0` with :math:`\lambda^2 = (1 - (1 - \sigma_{min}) t)^2 + \sigma
        t (1 - t)`, the paper's schedules (I) ``sigma_min=sigma=0``, (II) ``sigma_min>0``, (III) ``sigma>0``.
    sigma_min
        Noise left at t = 1, in standard deviations of the standardised embedding. The log ratio is that of the
        densities smoothed by this noise. Values below 0.01 act as 0.01 in computations.
    sigma
        Bridge term of schedule (III).
    n_hidden, n_layers
        Width and number of blocks. By default 128 and 2 for ``"potential"``, 256 and 2 for ``"heads"``, and 1024 and 3
        for ``block="mlp"``. Exact divergences have a closed form with up to 2 residual blocks.
    separate_heads
        Whether velocity and score of ``block="residual"`` are separate outputs instead of one denoiser. Separate
        outputs can contradict each other.
    n_members
        Number of members, which are independent networks of an ensemble, in each fold. They are trained together and
        averaged. By default 2 per fold with several folds, and 5 without folds. Standard errors come from the spread of
        the members.
    n_folds
        Number of folds for cross-fitting. With ``n_folds > 1``, cells are split into folds, stratified by condition.
        Each training cell is scored only by networks that were not trained on its fold. Training cells are recognised
        by their embedding, also in copies, subsets and files, and by a saved model.
    condition_dropout
        Probability of hiding each key of each training cell, for ``parametrization="heads"``. A query can then leave
        keys out. ``"potential"`` does not need this: it marginalises exactly.

    See Also
    --------
    scratio.tl.differential_abundance : Train a model and compare two conditions in one call.
    scratio.tl.log_ratio : Write the log ratios of a trained model to ``obs``.
    scratio.pl.history : Draw the losses of the training.
    scratio.model.FDRL : Model of one density ratio, which draws and translates cells.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.model.ScRatio.setup_anndata(adata, obsm_key="X_pca", condition_keys=["condition"])
    >>> model = scratio.model.ScRatio(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> ratio = model.log_ratio(numerator={"condition": "treated"}, denominator={"condition": "control"})
    >>> ratio.shape
    (600,)
    """

    _module_cls = FlowNetwork

    @differentiable()
    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        parametrization: str = "potential",
        block: str = "residual",
        schedule: str = "linear",
        sigma_min: float = 0.02,
        sigma: float = 0.0,
        n_hidden: int | None = None,
        n_layers: int | None = None,
        separate_heads: bool = False,
        n_members: int | None = None,
        n_folds: int = 1,
        condition_dropout: float = 0.1,
    ) -> None:
        for name, value, allowed in (
            ("parametrization", parametrization, PARAMETRIZATIONS),
            ("block", block, BLOCKS),
            ("schedule", schedule, SCHEDULES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")
        for name, number in (("n_members", n_members), ("n_folds", n_folds)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if not 0.0 <= condition_dropout < 1.0:
            raise ValueError(f"condition_dropout must lie in [0, 1), got {condition_dropout}")
        if separate_heads and block == "mlp":
            raise ValueError("block='mlp' has separate heads always; separate_heads belongs to block='residual'")
        if block == "mlp" and parametrization != "heads":
            raise ValueError("block='mlp' is the paper's network; it needs parametrization='heads'")
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        self._settings: dict[str, Any] = {
            "parametrization": parametrization,
            "block": block,
            "schedule": schedule,
            "sigma_min": sigma_min,
            "sigma": sigma,
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "separate_heads": separate_heads,
            "n_members": (MEMBERS_OF_FOLD if n_folds > 1 else MEMBERS_ALONE) if n_members is None else n_members,
            "n_folds": n_folds,
            "condition_dropout": condition_dropout,
        }
        self.folds: np.ndarray | None = None
        self.known: KnownCells | None = None
        self.kept: KeptCells | None = None
        self.training_: dict[str, Any] = {}
        if adata is not None:
            self._read_registry(adata)
            self._combinations = observed_combinations(self.schema.own(adata))
            self._build()

    def save(self, dir_path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model to a folder: settings as JSON, weights as plain arrays (safetensors).

        Parameters
        ----------
        dir_path
            Folder.
        overwrite
            Whether to replace a model that the folder already holds.

        Raises
        ------
        FileExistsError
            If the folder already holds a model and ``overwrite`` is False.
        """
        history = {name: to_plain(frame) for name, frame in (self.history_ or {}).items()}
        description = {
            "settings": self._settings,
            "schema": self.schema.to_dict(),
            "obsm_key": self.obsm_key,
            "n_features": len(self.location),
            "is_trained": self.is_trained_,
            "training": self.training_,
            "history": history,
            "closed_forms": self._closed_form_shapes(),
            "has_denoiser": self._has_denoiser,
            "cells": None if self.adata is None else _saving.fingerprint(self.adata.obs_names),
        }
        tensors = self._weights()
        tensors.update({f"combinations.{name}": value for name, value in vars(self._combinations).items()})
        if self.kept is not None:
            tensors.update({f"reference.{name}": value for name, value in self.kept.to_tensors().items()})
        # A model of before keys were kept has the folds of attached cells alone.
        folds = self.folds if self.known is None else self.known.folds
        if folds is not None:
            tensors["folds"] = torch.from_numpy(folds)
        if self.known is not None:
            # Signed, since not every version of the format has unsigned numbers.
            tensors["keys"] = torch.from_numpy(self.known.keys.view(np.int64))
        _saving.write(dir_path, description, tensors, overwrite=overwrite)

    @classmethod
    @differentiable()
    def load(cls, dir_path: str | Path, adata: AnnData | None = None) -> ScRatio:
        """Read a model that :meth:`save` wrote, without executing anything in the files.

        Parameters
        ----------
        dir_path
            Folder.
        adata
            Cells to attach, with the same keys and no unknown categories.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        ValueError
            If the model was written in a newer format, or ``adata`` does not fit the model.
        """
        description, tensors = _saving.read(dir_path)
        model = cls(registry={"field_registries": {}}, **description["settings"])
        model._restore(description, tensors)
        model._combinations = Combinations(**_saving.part(tensors, "combinations."))
        model._build()
        model._load_network(description, _saving.part(tensors, "network."))
        kept = _saving.part(tensors, "reference.")
        model.kept = KeptCells.from_tensors(kept) if kept else None
        model._restore_training(description, adata)
        if adata is not None and "folds" in tensors:
            if _saving.fingerprint(adata.obs_names) == description["cells"]:
                model.folds = tensors["folds"].numpy()
        if "keys" in tensors:
            model.known = KnownCells(tensors["keys"].numpy().view(np.uint64), tensors["folds"].numpy())
        return model

    def _closed_form_shapes(self) -> list[tuple[int, int]]:
        if not isinstance(self.module, PotentialNetwork):
            return []
        return [cast(ClosedFormDensities, form).shape for form in self.module.closed_forms]

    @property
    def _has_denoiser(self) -> bool:
        return isinstance(self.module, PotentialNetwork) and self.module.marginal is not None

    def _load_network(self, description: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        """Put saved weights into the networks, once these have the parts that the weights are of."""
        network = self.module
        if isinstance(network, PotentialNetwork):
            weights, shapes = _saving.current_weights(description, weights, network.n_members)
            n_conditions, d = len(network.combinations), len(self.location)
            forms = [ClosedFormDensities(network.n_members, n_conditions, *shape, d) for shape in shapes]
            network.calibrate(forms, torch.ones((network.n_members, 1 + len(forms), network.n_terms)))
            if description.get("has_denoiser", False):
                network.marginal = new_denoiser(self._settings, d, 0)
        network.load_state_dict(weights)
        network.eval()

    def _build(self) -> None:
        """Make the untrained networks."""
        settings = self._settings
        self.module = self._new_network(0)
        self.is_trained_ = False
        self._model_summary_string = (
            f"ScRatio: {settings['parametrization']} ({settings['block']}), keys {self.schema.keys}, "
            f"{len(self.location)} dimensions, {settings['n_members']} members, {settings['n_folds']} folds"
        )
