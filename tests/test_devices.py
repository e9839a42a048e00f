"""A rehearsal of the accelerator: all of scratio on a device that only pretends to exist (``support/pretended.py``).

The device has the numbers of the CPU, so every result has to be that of the CPU. It refuses what accelerators refuse:
tensors and generators of the other device, and double precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pretended
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from pretended import OnDevice, PretendedAccelerator, Recorder, rehearsal
from torch import Tensor

import scratio
from scratio import OWN, Rest
from scratio._random import torch_generator
from scratio.conditions import ConditionDict
from scratio.estimators import (
    Divergence,
    log_density,
    log_ratio_head,
    log_ratio_ito,
    log_ratio_naive,
    log_ratio_ode,
    log_ratio_quadrature,
    normal_noise,
    rademacher_probes,
    sample,
    translate,
)
from scratio.model import FDRL, ScRatio
from scratio.model._networks import new_denoiser
from scratio.module import Condition, FlowNetwork, PotentialNetwork
from scratio.train._accelerator import chosen_accelerator, default_precision, device_of

if pretended.is_possible():
    # Now: PyTorch counts its devices at the first derivative of a process.
    pretended.install()
DEVICE = pretended.NAME
pytestmark = pytest.mark.skipif(not pretended.is_possible(), reason="this PyTorch cannot pretend to have a device")

ROUNDING = {"rtol": 1e-4, "atol": 2e-4}
"""What single precision costs: states are in double precision on the CPU alone."""

TRAINING: dict[str, Any] = {
    "max_steps": 20,
    "batch_size": 64,
    "warmup_steps": 5,
    "validate_every": 10,
    "n_validation": 64,
    "progress_bar": False,
    "precision": "32-true",
}

MODELS: dict[str, dict[str, Any]] = {
    "potential": {},
    "potential, two keys": {"condition_keys": ["condition", "donor"]},
    "potential, many combinations": {"condition_keys": ["condition", "drug"]},
    "potential, a number": {"continuous_keys": ["dose"]},
    "heads": {"parametrization": "heads", "continuous_keys": ["dose"]},
    "heads, separate and deep": {"parametrization": "heads", "separate_heads": True, "n_layers": 3},
    "heads, the paper's": {"parametrization": "heads", "block": "mlp"},
}
"""A model with every kind of network."""


def cells(n: int = 400) -> Any:
    """Cells of two conditions, four donors of unequal sizes, twenty drugs, and a dose."""
    adata = scratio.datasets.gaussians(n_cells=n, n_dims=3, random_state=0)
    rng = np.random.default_rng(0)
    adata.obs["donor"] = pd.Categorical(rng.choice(list("abcd"), size=n, p=[0.4, 0.3, 0.2, 0.1]))
    adata.obs["drug"] = pd.Categorical([f"drug {k}" for k in rng.integers(20, size=n)])
    adata.obs["dose"] = rng.choice([0.0, 1.0, 2.5], size=n)
    return adata


def made(name: str) -> ScRatio:
    """Untrained model of a kind."""
    settings = dict(MODELS[name])
    keys = {key: settings.pop(key) for key in ("condition_keys", "continuous_keys") if key in settings}
    adata = cells()
    ScRatio.setup_anndata(adata, **{"condition_keys": ["condition"], **keys})
    return ScRatio(adata, n_hidden=16, n_members=2, n_folds=2, **settings)


@pytest.fixture(scope="session")
def models() -> dict[str, ScRatio]:
    """Every kind of model, trained on the CPU."""
    found = {}
    for name in MODELS:
        found[name] = made(name)
        found[name].train(accelerator="cpu", **TRAINING)
    return found


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, models: dict[str, ScRatio]) -> ScRatio:
    """Each kind of model in turn."""
    return models[request.param]


@pytest.fixture
def device() -> Iterator[Recorder]:
    """The pretended device."""
    with rehearsal() as recorder:
        yield recorder


def moved(network: FlowNetwork) -> FlowNetwork:
    """Copy of a network on the device."""
    return copy.deepcopy(network).to(DEVICE)


def denoised(model: ScRatio) -> FlowNetwork:
    """Network of a model, with a denoiser of random weights where it needs one."""
    network = copy.deepcopy(model.module)
    if isinstance(network, PotentialNetwork):
        network.marginal = new_denoiser(model._settings, 3, random_state=3).eval()
    return network


def embedded(model: ScRatio, n: int = 12) -> Tensor:
    """Standardised cells."""
    return torch.from_numpy(model.embedding(model.adata)[:n])


def asked(model: ScRatio, condition: ConditionDict) -> Condition:
    return model.schema.encode(condition, model.adata, "condition")[slice(0, 12)]


def equal(found: Any, expected: Any) -> None:
    """Compare results of the device, which must lie on it, with those of the CPU."""
    for own, other in zip(_tensors(found), _tensors(expected), strict=True):
        assert own.device.type == pretended.NAME
        torch.testing.assert_close(own.cpu().double(), other.double(), **ROUNDING)


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result.detach()]
    parts = result if isinstance(result, list | tuple) else vars(result).values()
    return [tensor for part in parts for tensor in _tensors(part)]


# --- networks -------------------------------------------------------------------------------------------------------

OF_NETWORKS: dict[str, Callable[[FlowNetwork, Tensor, Tensor, list[Condition]], Any]] = {
    "flow": lambda network, z, q, given: network.flow(z, q, given[0]),
    "flows": lambda network, z, q, given: network.flows(z, q, given),
    "flow and divergence": lambda network, z, q, given: network.flow_and_divergence(z, q, given[0]),
    "flows and divergences": lambda network, z, q, given: network.flows_and_divergences(z, q, given),
    "gradients": lambda network, z, q, given: network.condition_gradients(z, q, given),
    "velocity": lambda network, z, q, given: network.velocity(z, torch.sigmoid(q), given[0]),
    "score": lambda network, z, q, given: network.score(z, torch.sigmoid(q), given[0]),
    "denoiser": lambda network, z, q, given: network.denoiser(z, torch.sigmoid(q), given[0]),
}


@pytest.mark.parametrize("what", OF_NETWORKS)
def test_networks_compute_on_the_device(what, model, device):
    network, x = denoised(model), embedded(model)
    z = x.expand(network.n_members, *x.shape).contiguous()
    q = torch.linspace(0.3, 2.0, len(x)).reshape(1, -1, 1)
    given = [asked(model, {"condition": OWN}), asked(model, {})]
    expected = OF_NETWORKS[what](network, z, q, given)
    there = [condition.to(DEVICE) for condition in given]
    equal(OF_NETWORKS[what](moved(network), z.to(DEVICE), q.to(DEVICE), there), expected)


@pytest.mark.parametrize("criterion", ["loss", "validation_loss"])
def test_losses_and_their_gradients_are_computed_on_the_device(criterion, model, device):
    network, x = copy.deepcopy(model.module).train(), embedded(model)
    x1, own = x.expand(network.n_members, *x.shape).contiguous(), model.schema.own(model.adata)[slice(0, 12)]
    own = own.stack(network.n_members)
    there = moved(network)
    found, expected = [], []
    for at, results in (("cpu", expected), (DEVICE, found)):
        trained = network if at == "cpu" else there
        loss = getattr(trained, criterion)(x1.to(at), own.to(at), torch_generator(0, 1, device=at))
        loss.sum().backward()
        results += [loss, *(p.grad for p in trained.parameters() if p.grad is not None)]
    equal(found, expected)


def test_a_generator_of_the_cpu_is_refused_on_the_device(device):
    with pytest.raises(RuntimeError, match="generator of cpu"):
        torch.randn(3, device=DEVICE, generator=torch_generator(0, 1))


def test_the_device_refuses_what_accelerators_refuse(device):
    there = torch.ones(3).to(DEVICE)
    with pytest.raises(RuntimeError, match="two devices"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="double precision"):
        there.double()
    assert not device.waits
    assert bool((there + torch.tensor(1.0)).sum() == 6.0)
    assert device.waits == ["aten._local_scalar_dense.default"]


# --- estimators -----------------------------------------------------------------------------------------------------


def _noise(x: Tensor) -> Tensor:
    return normal_noise(x.cpu().numpy(), (2, 3, x.shape[1]), 1).to(x.device, torch.float32)


ESTIMATORS: dict[str, Callable[..., Any]] = {
    "S1": lambda network, x, top, bottom: log_ratio_ode(network, x, top, bottom, n_steps=1),
    "S2": lambda network, x, top, bottom: log_ratio_ode(network, x, top, bottom, field=bottom, n_steps=1),
    "probes": lambda network, x, top, bottom: log_ratio_ode(
        network, x, top, bottom, divergence=Divergence(rademacher_probes(x.cpu().numpy(), 2, 0)), n_steps=1
    ),
    "naive": lambda network, x, top, bottom: log_ratio_naive(network, x, top, bottom, n_steps=1),
    "quadrature": lambda network, x, top, bottom: log_ratio_quadrature(network, x, top, bottom, n_nodes=2),
    "ito": lambda network, x, top, bottom: log_ratio_ito(network, x, top, bottom, noise=_noise(x)),
    "density": lambda network, x, top, bottom: log_density(network, x, top, n_steps=1),
    "samples": lambda network, x, top, bottom: sample(
        network, x.expand(network.n_members, *x.shape).contiguous(), bottom, n_steps=1
    ),
    "translation": lambda network, x, top, bottom: translate(network, x, top, bottom, n_steps=1),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_compute_on_the_device(name, model, device):
    network, x = denoised(model), embedded(model)
    ends = [asked(model, {"condition": OWN}), asked(model, {})]
    with torch.no_grad():
        expected = ESTIMATORS[name](network, x, *ends)
        found = ESTIMATORS[name](moved(network), x.to(DEVICE), *(end.to(DEVICE) for end in ends))
    equal(found, expected)


def test_the_head_computes_on_the_device(models, device):
    for name in ("potential", "potential, two keys", "potential, many combinations", "potential, a number"):
        network, x = models[name].module, embedded(models[name])
        ends = [asked(models[name], {"condition": OWN}), asked(models[name], {})]
        with torch.no_grad():
            expected = log_ratio_head(network, x, *ends)
            found = log_ratio_head(moved(network), x.to(DEVICE), *(end.to(DEVICE) for end in ends))
        equal(found, expected)


# --- models ---------------------------------------------------------------------------------------------------------

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}


@pytest.fixture(params=["potential", "heads"])
def elsewhere(request: pytest.FixtureRequest, models: dict[str, ScRatio], device: Recorder) -> tuple[ScRatio, ScRatio]:
    """A model on the CPU, and the same on the device."""
    model = models[request.param]
    here, there = copy.copy(model), copy.copy(model)
    here.module, there.module = denoised(model), denoised(model)
    there.to_device(DEVICE)
    return here, there


METHODS: dict[str, dict[str, Any]] = {
    "auto": {},
    "ode": {"method": "ode", "n_steps": 1, "field": "unconditional"},
    "probes": {"method": "ode", "n_steps": 1, "divergence": "rademacher"},
    "naive": {"method": "naive", "n_steps": 1},
    "quadrature": {"method": "quadrature", "n_steps": 2},
    "ito": {"method": "ito", "n_steps": 2},
}


def same_arrays(found: Any, expected: Any) -> None:
    for own, other in zip(np.atleast_2d(found), np.atleast_2d(expected), strict=True):
        assert isinstance(own, np.ndarray) and own.dtype == np.float64
        np.testing.assert_allclose(own, other, **ROUNDING)


@pytest.mark.parametrize("name", METHODS)
def test_log_ratios_with_standard_errors_are_scored_on_the_device(name, elsewhere):
    rows = np.arange(60)
    found, expected = (
        one.log_ratio(**CONTRAST, **METHODS[name], rows=rows, return_std=True) for one in reversed(elsewhere)
    )
    same_arrays(found, expected)


def test_every_kind_of_condition_is_scored_on_the_device(models, device):
    model = copy.copy(models["potential, two keys"])
    questions = [
        {"numerator": {"condition": "treated", "donor": OWN}, "denominator": {"donor": OWN}},
        {"numerator": {"donor": "a"}, "denominator": {"donor": Rest("a")}},
        {"numerator": {"condition": OWN}, "denominator": {}},
    ]
    expected = [model.log_ratio(**question, return_std=True) for question in questions]
    model.module = moved(model.module)
    for question, values in zip(questions, expected, strict=True):
        same_arrays(model.log_ratio(**question, return_std=True), values)


def test_new_cells_and_known_cells_are_scored_on_the_device(models, device):
    model = copy.copy(models["potential"])
    new = cells()[::2].copy()
    new.obsm["X_pca"][::3] += 0.1
    expected = model.log_ratio(new, **CONTRAST, return_std=True)
    model.module = moved(model.module)
    same_arrays(model.log_ratio(new, **CONTRAST, return_std=True), expected)


QUERIES: dict[str, Callable[[ScRatio], Any]] = {
    "log density": lambda model: model.log_prob(condition={"condition": "treated"}, n_steps=1),
    "gradient": lambda model: model.log_ratio_gradient(**CONTRAST),
    "typicality": lambda model: model.typicality(**CONTRAST),
    "samples": lambda model: model.sample(20, condition={"condition": "treated"}, n_steps=1),
    "translation": lambda model: model.translate(
        source={"condition": "control"}, target={"condition": "treated"}, n_steps=1, rows=np.arange(20)
    ),
    "velocity": lambda model: model.velocity(np.ones((4, 3)), 0.5, {"condition": "treated"}).numpy(),
    "score": lambda model: model.score(np.ones((4, 3)), 0.5, {"condition": "treated"}).numpy(),
}


@pytest.mark.parametrize("name", QUERIES)
def test_queries_are_answered_on_the_device(name, elsewhere):
    here, there = elsewhere
    same_arrays(QUERIES[name](there), QUERIES[name](here))


def test_results_of_the_device_are_saved_and_hashed_as_those_of_the_cpu(elsewhere, tmp_path):
    here, there = elsewhere
    assert there.fingerprint() == here.fingerprint()
    there.save(tmp_path / "model")
    loaded = ScRatio.load(tmp_path / "model", there.adata)
    assert loaded.device.type == "cpu"
    assert loaded.fingerprint() == here.fingerprint()


# --- training -------------------------------------------------------------------------------------------------------


class CountWaits(pl.Callback):
    """Waits from the beginning of every step to that of the next one, unless a validation lies between them."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder, self.of_steps, self.seen = recorder, [], []
        self.start: int | None = None

    def on_train_batch_start(self, trainer: Any, plan: Any, batch: Any, index: int) -> None:
        if self.start is not None:
            self.of_steps.append(self.recorder.waits[self.start :])
        self.seen.append(type(batch[0]))
        self.start = len(self.recorder.waits)

    def on_train_epoch_end(self, trainer: Any, plan: Any) -> None:
        self.start = None


def on_device() -> dict[str, Any]:
    """Settings of Lightning's for the device."""
    return {"accelerator": PretendedAccelerator(), "strategy": pl.strategies.SingleDeviceStrategy(DEVICE)}


@pytest.mark.parametrize("name", MODELS)
def test_a_training_on_the_device_is_that_of_the_cpu_and_waits_for_no_step(name, models, device):
    model, waits = made(name), CountWaits(device)
    model.train(**on_device(), **TRAINING, callbacks=[waits])
    assert waits.seen == [OnDevice] * TRAINING["max_steps"]
    # Validations are after 10 and after 20 steps.
    assert waits.of_steps == [[]] * 18
    for key, losses in models[name].history.items():
        np.testing.assert_allclose(model.history[key], losses, rtol=1e-5)
    assert model.training_["best_step"] == models[name].training_["best_step"]
    for own, other in zip(model.module.parameters(), models[name].module.parameters(), strict=True):
        torch.testing.assert_close(own.cpu(), other, rtol=1e-4, atol=1e-5)


def test_a_trained_model_stays_on_its_device_and_scores_there(models, device):
    model = made("potential")
    model.train(**on_device(), **TRAINING)
    assert model.device.type == pretended.NAME
    same_arrays(
        model.log_ratio(**CONTRAST, return_std=True), models["potential"].log_ratio(**CONTRAST, return_std=True)
    )
    same_arrays(model.log_ratio(**CONTRAST, accelerator="cpu"), models["potential"].log_ratio(**CONTRAST))
    assert model.device.type == pretended.NAME
    model.to_device("cpu")
    assert model.device.type == "cpu"


def test_scores_are_computed_on_the_accelerator_that_is_asked_for(models, device):
    model = models["potential"]
    expected = model.log_ratio(**CONTRAST, return_std=True)
    device.waits.clear()
    same_arrays(model.log_ratio(**CONTRAST, return_std=True, accelerator=pretended.NAME), expected)
    assert device.waits, "nothing came from the device"
    assert model.device.type == "cpu"


def test_a_killed_run_on_the_accelerator_may_go_on_without_it(models, device, tmp_path, monkeypatch):
    model, expected = models["potential"], models["potential"].log_ratio(**CONTRAST)
    monkeypatch.setattr("scratio.tl._score_file.CHUNK", 150)
    rows = model.log_ratio

    def killed(*args: Any, **kwargs: Any) -> Any:
        if kwargs["rows"].start:
            raise KeyboardInterrupt
        return rows(*args, **kwargs)

    monkeypatch.setattr(model, "log_ratio", killed)
    out = tmp_path / "scores.h5ad"
    with pytest.raises(KeyboardInterrupt):
        scratio.tl.log_ratio(model.adata, model, **CONTRAST, out=out, copy=True, accelerator=pretended.NAME)
    assert device.waits
    monkeypatch.undo()
    monkeypatch.setattr("scratio.tl._score_file.CHUNK", 150)
    device.waits.clear()
    found = scratio.tl.log_ratio(model.adata, model, **CONTRAST, out=out, copy=True)
    assert not device.waits
    np.testing.assert_allclose(found.obs["log_ratio"], expected, **ROUNDING)


def test_a_denoiser_is_trained_where_the_model_lies(models, device, monkeypatch):
    monkeypatch.setattr("scratio.model._denoiser.FEWEST_STEPS", 10)
    monkeypatch.setattr("scratio.model._denoiser.MOST_STEPS", 10)
    found = []
    for at in ("cpu", DEVICE):
        model = copy.copy(models["potential"])
        model.module = copy.deepcopy(model.module)
        model.to_device(at)
        device.waits.clear()
        found.append(model.log_ratio(**CONTRAST, method="quadrature", n_steps=2, rows=np.arange(20)))
        assert next(model.module.marginal.parameters()).device.type == torch.device(at).type
        assert bool(device.waits) == (at == DEVICE)
    same_arrays(*reversed(found))


@pytest.mark.parametrize(
    ("accelerator", "has_cuda", "has_bf16", "cpu_has_bf16", "expected"),
    [
        ("cpu", True, True, False, "32-true"),
        ("cpu", True, False, True, "bf16-mixed"),
        ("cuda", True, True, False, "bf16-mixed"),
        ("cuda", True, False, True, "32-true"),
        ("gpu", True, True, False, "bf16-mixed"),
        ("mps", False, False, True, "32-true"),
        ("tpu", True, True, True, "32-true"),
        (CPUAccelerator(), True, False, True, "bf16-mixed"),
        (CUDAAccelerator(), True, True, False, "bf16-mixed"),
        (PretendedAccelerator(), True, True, True, "32-true"),
        (pretended.NAME, False, False, True, "32-true"),
    ],
)
def test_the_precision_is_that_of_the_accelerator(accelerator, has_cuda, has_bf16, cpu_has_bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    # Emulated bfloat16 does not count.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bf16
    )
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: accelerator == "mps")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": cpu_has_bf16}, raising=False)
    assert default_precision("potential", accelerator) == expected
    assert default_precision("heads", accelerator) == "32-true"


@pytest.mark.parametrize(("has_cuda", "expected"), [(True, "cuda"), (False, "cpu")])
def test_the_default_is_never_the_gpu_of_a_mac(has_cuda, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert chosen_accelerator("auto") == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(has_cuda))
    assert device_of("auto").type == expected
    assert device_of("mps").type == "mps"
    assert device_of("gpu").type == "mps"


@pytest.mark.parametrize(
    ("name", "n_gpus"), [("cuda", 0), ("gpu", 0), ("mps", 1), ("cuda:1", 1), ("cuda:7", 2), (2, 2)]
)
def test_a_device_that_is_not_there_is_refused_by_name(name, n_gpus, models, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    message = f"PyTorch finds no device {name!r} on this machine"
    with pytest.raises(ValueError, match=message):
        models["potential"].log_ratio(**CONTRAST, accelerator=name)
    with pytest.raises(ValueError, match=message):
        models["potential"].to_device(name)


def test_a_misspelt_accelerator_is_refused_before_a_denoiser_is_trained(models):
    with pytest.raises(ValueError, match="'auto', 'cpu', 'gpu', 'cuda', 'mps'.*got 'gpuu'"):
        models["potential"].log_ratio(**CONTRAST, accelerator="gpuu", method="quadrature")
    assert models["potential"].module.marginal is None


def test_chunks_of_a_dask_array_are_scored_on_the_cpu_by_a_model_on_the_device(models, device):
    model, expected = copy.copy(models["potential"]), models["potential"].log_ratio(**CONTRAST, return_std=True)
    model.module = moved(model.module)
    lazy = model.adata.copy()
    lazy.obsm["X_pca"] = dask.array.from_array(lazy.obsm["X_pca"], chunks=(150, 3))
    found = model.log_ratio(lazy, **CONTRAST, return_std=True)
    device.waits.clear()
    with dask.config.set(scheduler="synchronous"):
        same_arrays(np.stack([values.compute() for values in found]), np.stack(expected))
    assert not device.waits


@pytest.mark.parametrize("settings", [{}, {"prior": "uniform", "loss": "lsif"}])
def test_fdrl_trains_and_samples_on_the_device(settings, device, monkeypatch):
    monkeypatch.setattr("scratio.fdrl._membership.N_STEPS", 10)
    found = []
    for where in ({"accelerator": "cpu"}, on_device()):
        adata = cells()
        FDRL.setup_anndata(adata, condition_keys=["condition"])
        model = FDRL(adata, n_hidden=16, n_waves=8, n_flow_steps=3, **settings)
        model.train(max_steps=60, batch_size=64, progress_bar=False, **where)
        guided = model.sample(10, condition={"condition": "treated"})
        found.append((model.history["loss"].to_numpy(), model.sample(10), guided, model.log_stale_ratio()))
        assert model.device.type == ("cpu" if len(found) == 1 else pretended.NAME)
    for own, other in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-3)


def test_fdrl_translates_on_the_device(device):
    found = []
    for where in ({"accelerator": "cpu"}, on_device()):
        adata = cells()
        FDRL.setup_anndata(adata, condition_keys=["condition"])
        ends = {"source": {"condition": "control"}, "target": {"condition": "treated"}}
        model = FDRL(adata, n_hidden=16, n_waves=8, n_flow_steps=3, **ends)
        model.train(max_steps=60, batch_size=64, progress_bar=False, **where)
        found.append(model.translate())
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3)
