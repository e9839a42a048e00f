"""`FDRL`: construction, training, saving and loading. What it answers is in `_queries`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from scratio._blocks import moments
from scratio._caller import differentiable
from scratio._check import check_at_least
from scratio._coordinates import Coordinates
from scratio._progress import Progress
from scratio._random import torch_generator
from scratio.conditions import ConditionDict
from scratio.fdrl._network import DIVERGENCES, LOSSES, StaleRatio
from scratio.fdrl._perceptron import Perceptron
from scratio.fdrl._prior import PRIORS, CellPrior, Prior
from scratio.fdrl._queries import FDRLQueryModel, categories_of
from scratio.fdrl._training import FlowSettings, fit_stale_ratio
from scratio.model import _saving
from scratio.model._embedding_model import to_plain
from scratio.module import Condition
from scratio.stats import standard_scale
from scratio.train import CellDataModule, MemberSplit, TrainConfig
from scratio.train._accelerator import chosen_accelerator
from scratio.train._checkpoint import check_folder

_INITIAL_WEIGHTS = 50
KIND = "FDRL"
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions that leave the weights in float32, in which questions are answered."""


class FDRL(FDRLQueryModel):
    r"""Flow-guided density ratio learning: samples of cells, and cells moved from one condition to another.

    The model improves starting points from a prior by ``n_flow_steps`` steps of

    .. math:: x \leftarrow x - \eta \nabla f'(r_\theta(x)) + \nu \xi ,

    A network estimates :math:`r_\theta = \tilde q_K / p`, the density of the improved samples over that of the cells.
    It is trained on samples that it improved itself (arXiv 2303.03714, algorithm 1).

    .. warning::
        The ratio compares the model's own improved samples with the cells, and is near 1 everywhere after convergence.
        It does not compare treated with control cells. Use :class:`scratio.model.ScRatio` for differential abundance.

    Parameters
    ----------
    adata
        Cells registered with :meth:`setup_anndata`.
    registry
        For scvi-tools; use ``adata``.
    source, target
        Conditions, dicts from a registered key to a category. With ``source`` and ``target`` the model learns to
        translate: samples start at cells of the source and move towards cells of the target. With ``target`` alone the
        model generates cells of the target. Without either it generates cells of all conditions.
    prior
        Where samples start without ``source``: ``"gaussian"``, fitted to the cells (the paper's data-dependent prior),
        or ``"uniform"``.
    divergence
        The f that samples descend: ``"kl"``, ``"pearson"`` (chi²), ``"js"`` or ``"logd"``. With ``"js"``, samples far
        from cells do not move, because the slope vanishes there.
    loss
        Bregman loss of the ratio: ``"logistic"`` (the network is log r) or ``"lsif"`` (the network is r).
    n_flow_steps, step_size, noise
        K, eta and nu, in units of the standardised embedding. The product of K and eta bounds how far samples can move
        at a given ratio. With 0 steps the model only estimates the ratio of the prior to the cells.
    data_noise
        Standard deviation of the noise on cells during training.
    n_hidden, n_layers, n_waves
        Width and number of layers of the network, and number of random waves among its inputs.

    See Also
    --------
    scratio.tl.translate : Write a translation into the cells.
    scratio.pl.translate : Draw a translation on an embedding.
    scratio.model.ScRatio : Model of the log ratio between conditions.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=600, n_dims=2, random_state=0)
    >>> scratio.model.FDRL.setup_anndata(adata, condition_keys=["condition"])
    >>> model = scratio.model.FDRL(adata)
    >>> model.train(max_steps=20, progress_bar=False)
    >>> model.sample(10).shape
    (10, 2)
    """

    COMPARES = False
    _module_cls = StaleRatio
    module: StaleRatio

    @differentiable()
    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        source: ConditionDict | None = None,
        target: ConditionDict | None = None,
        prior: str = "gaussian",
        divergence: str = "kl",
        loss: str = "logistic",
        n_flow_steps: int = 10,
        step_size: float = 2.0,
        noise: float = 0.01,
        data_noise: float = 0.03,
        n_hidden: int = 128,
        n_layers: int = 3,
        n_waves: int = 64,
    ) -> None:
        for name, value, allowed in (
            ("prior", prior, PRIORS),
            ("divergence", divergence, DIVERGENCES),
            ("loss", loss, LOSSES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")
        check_at_least(1, n_hidden=n_hidden, n_layers=n_layers)
        check_at_least(0, n_flow_steps=n_flow_steps, noise=noise, data_noise=data_noise, n_waves=n_waves)
        if not step_size > 0.0:
            raise ValueError(f"step_size must be positive, got {step_size}")
        if source is not None and target is None:
            raise ValueError("a translation needs both: source was given, and target was not")
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        self.source, self.target = categories_of(source, "source"), categories_of(target, "target")
        self.flow = FlowSettings(divergence, n_flow_steps, step_size, noise, data_noise)
        self._settings: dict[str, Any] = {
            "source": self.source,
            "target": self.target,
            "prior": prior,
            "divergence": divergence,
            "loss": loss,
            "n_flow_steps": n_flow_steps,
            "step_size": step_size,
            "noise": noise,
            "data_noise": data_noise,
            "n_hidden": n_hidden,
            "n_layers": n_layers,
            "n_waves": n_waves,
        }
        self.training_: dict[str, Any] = {}
        self.prior: Prior | None = None
        self._membership: dict[str, Perceptron] = {}
        if adata is not None:
            self._read_registry(adata)
            self._prepare(adata)
            self._build()

    @differentiable()
    def train(
        self,
        max_steps: int = 8_000,
        batch_size: int = 256,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        strategy: str = "auto",
        random_state: int = 0,
        *,
        learning_rate: float = 1e-3,
        ema_decay: float = 0.998,
        precision: str = "32-true",
        num_nodes: int = 1,
        progress_bar: bool = True,
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
    ) -> None:
        """Train the ratio; the model keeps the moving average of its weights.

        ``history`` has the loss and the separation: in how many pairs of a sample and a cell the ratio is higher for
        the sample, 0.5 where they cannot be told apart.

        Parameters
        ----------
        max_steps, batch_size, learning_rate, ema_decay
            Of the training. The learning rate falls to 0 along a cosine.
        accelerator, devices, strategy, num_nodes, precision
            For :class:`lightning.pytorch.Trainer`. ``accelerator="auto"`` is CUDA if PyTorch finds it, and else the
            CPU. The network stays on the device until :meth:`to_device` moves it.
        random_state
            Seed. Global generators are neither read nor changed.
        progress_bar
            Whether to show a bar with loss, separation and remaining time.
        checkpoint_dir, resume
            As for :meth:`scratio.model.ScRatio.train`.

        Raises
        ------
        ValueError
            If the model has no cells or a setting is out of range.
        FileExistsError
            If ``checkpoint_dir`` holds a ``last.ckpt`` that is not scratio's.
        FloatingPointError
            If the training diverges.
        """
        if self.adata is None or self.prior is None:
            raise ValueError("the model has no cells to train on; make one with FDRL(adata)")
        if resume and checkpoint_dir is None:
            raise ValueError("resume=True needs checkpoint_dir, the folder of the checkpoint")
        if checkpoint_dir is not None:
            check_folder(Path(checkpoint_dir))
        config = TrainConfig(
            max_steps=max_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            ema_decay=ema_decay,
            weight_decay=0.0,
            warmup_steps=0,
            gradient_clip=float("inf"),
            random_state=random_state,
        )
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {precision!r}")
        x = torch.from_numpy(self.embedding(self.adata)[self._rows_of_target])
        self._build(random_state)
        nothing = Condition(torch.empty((len(x), 0), dtype=torch.int64), torch.empty((len(x), 0)))
        split = MemberSplit(np.arange(len(x)), np.arange(0))
        history, device = fit_stale_ratio(
            self.module,
            self.prior,
            self.flow,
            CellDataModule(x, nothing, [split], config),
            config,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            progress=Progress() if progress_bar else None,
            accelerator=chosen_accelerator(accelerator),
            devices=devices,
            strategy=strategy,
            num_nodes=num_nodes,
            precision=precision,
        )
        self.history_ = {name: history[[name]] for name in history}
        self.training_ = {"random_state": random_state, "max_steps": max_steps, "steps": int(history.index[-1])}
        self.training_["separation"] = float(history["separation"].iloc[-1])
        self.module.to(device)
        self.is_trained_ = True

    def save(self, dir_path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model to a folder, as :meth:`scratio.model.ScRatio.save` does; the source's cells are left out.

        Parameters
        ----------
        dir_path
            Folder.
        overwrite
            Whether a model that lies there may be replaced.

        Raises
        ------
        FileExistsError
            If a model lies there and ``overwrite`` is False.
        """
        description = {
            "kind": KIND,
            "settings": self._settings,
            "schema": self.schema.to_dict(),
            "obsm_key": self.obsm_key,
            "is_trained": self.is_trained_,
            "training": self.training_,
            "history": {name: to_plain(frame) for name, frame in (self.history_ or {}).items()},
        }
        _saving.write(dir_path, description, self._weights(), overwrite=overwrite)

    def _weights(self) -> dict[str, torch.Tensor]:
        prior = {} if self.prior is None else self.prior.state_dict()
        return super()._weights() | {f"prior.{name}": value for name, value in prior.items()}

    @classmethod
    @differentiable()
    def load(cls, dir_path: str | Path, adata: AnnData | None = None) -> FDRL:
        """Read a model that :meth:`save` wrote. Nothing in the files is executed.

        Parameters
        ----------
        dir_path
            Folder.
        adata
            Cells to attach.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        ValueError
            If it holds another kind of model or was written by a newer format, or ``adata`` does not fit.
        """
        description, tensors = _saving.read(dir_path, KIND)
        model = cls(registry={"field_registries": {}}, **description["settings"])
        model._restore(description, tensors)
        model._build()
        model.module.load_state_dict(_saving.part(tensors, "network."))
        if model.source is None:
            model.prior = PRIORS[description["settings"]["prior"]](torch.zeros((2, len(model.location))))
            model.prior.load_state_dict(_saving.part(tensors, "prior."))
        model._restore_training(description, adata)
        if adata is not None:
            model._prepare(adata)
        return model

    @staticmethod
    def _coordinates_of(x: Any) -> Coordinates:
        """Centre and standard deviations, which steps are measured in."""
        return Coordinates.linear(moments(x)[0], standard_scale(x))

    def _prepare(self, adata: AnnData) -> None:
        """Cells of the target, and where samples start."""
        everything = np.ones(adata.n_obs, dtype=bool)
        is_target = everything if self.target is None else self.schema.having(self.target, adata, "target")
        x = torch.from_numpy(self.embedding(adata))
        if self.source is not None:
            self.prior = CellPrior(x[self.schema.having(self.source, adata, "source")])
        elif self.prior is None:
            self.prior = PRIORS[self._settings["prior"]](x[is_target])
        self._rows_of_target = is_target

    def _build(self, random_state: int = 0) -> None:
        """Make the untrained network."""
        names = ("loss", "n_hidden", "n_layers", "n_waves")
        self.module = StaleRatio(
            len(self.location),
            generator=torch_generator(random_state, _INITIAL_WEIGHTS),
            **{name: self._settings[name] for name in names},
        )
        self.module.eval()
        self.is_trained_, self._membership = False, {}
        aim = (
            f"{self.source} to {self.target}" if self.source else f"cells of {self.target}" if self.target else "cells"
        )
        self._model_summary_string = f"FDRL: {aim}, {len(self.location)} dimensions"
