"""Training: reproducible bits, independent members, averaging, early stopping, resuming."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import scratio
from scratio import _progress
from scratio._caller import quiet
from scratio._progress import Progress
from scratio.model import ScRatio
from scratio.module import Condition, FlowNetwork, PaperHeads, PotentialNetwork, ResidualHeads
from scratio.paths import GaussianPath
from scratio.train import CellDataModule, MemberSplit, TrainConfig, TrainResult, fit
from scratio.train._callbacks import BestWeights
from scratio.train._config import default_max_steps, default_validation_size, defaults_for
from scratio.train._data import TrainBatches, ValidationBatches
from scratio.train._plan import FlowTrainingPlan, clip_member_gradients

CONFIG = TrainConfig(
    max_steps=30, batch_size=32, warmup_steps=3, validate_every=10, n_validation=48, early_stopping=False
)


def residual(n_hidden: int = 8) -> ResidualHeads:
    return ResidualHeads(
        n_features=2,
        n_categories=[2],
        n_continuous=0,
        path=GaussianPath(0.02),
        generator=torch.Generator().manual_seed(0),
        n_members=2,
        n_hidden=n_hidden,
        n_embed=6,
        n_condition=4,
    ).eval()


def potential(n_hidden: int = 8) -> PotentialNetwork:
    return PotentialNetwork(
        n_features=2,
        combinations=torch.tensor([[0], [1]]),
        weights=torch.tensor([0.5, 0.5]),
        path=GaussianPath(0.02),
        generator=torch.Generator().manual_seed(0),
        n_members=2,
        n_hidden=n_hidden,
        n_embed=6,
    ).eval()


NETWORKS = {"heads": residual, "potential": potential}
"""Makers of a small network of two members; another parametrization is one more line here."""


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def make_network(request: pytest.FixtureRequest):
    return request.param


def cells(config: TrainConfig = CONFIG, n: int = 200, n_train: int = 80) -> CellDataModule:
    """Two narrow groups of unit variance together; each member trains on rows of its own, both validate on the last."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, (n, 1))
    x = torch.from_numpy((0.3 * rng.normal(size=(n, 2)) + 1.9 * codes - 0.95).astype(np.float32))
    held_out = np.arange(160, n)
    splits = [MemberSplit(np.arange(start, start + n_train), held_out) for start in (0, 80)]
    return CellDataModule(x, Condition(torch.from_numpy(codes), torch.zeros((n, 0))), splits, config)


def run(network, config: TrainConfig = CONFIG, data: CellDataModule | None = None, **kwargs) -> TrainResult:
    data = cells(config) if data is None else data
    return fit(network, data, config, accelerator="cpu", **kwargs)


def member(network, index: int) -> list[torch.Tensor]:
    return [parameter.detach()[index].clone() for parameter in network.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- reproducibility -----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(make_network):
    first, again = make_network(), make_network()
    one, other = run(first), run(again)
    assert all(same(member(first, m), member(again, m)) for m in (0, 1))
    pd.testing.assert_frame_equal(one.validation_loss, other.validation_loss, check_exact=True)
    pd.testing.assert_frame_equal(one.train_loss, other.train_loss, check_exact=True)


def test_another_seed_gives_other_weights(make_network):
    first, other = make_network(), make_network()
    run(first)
    run(other, replace(CONFIG, random_state=1))
    assert not any(same(member(first, m), member(other, m)) for m in (0, 1))


def test_training_changes_the_weights_and_lowers_the_loss(make_network):
    network, untrained = make_network(), make_network()
    result = run(network, replace(CONFIG, max_steps=100, learning_rate=1e-2))
    assert not any(same(member(network, m), member(untrained, m)) for m in (0, 1))
    assert (result.validation_loss.iloc[-1] < 0.9 * result.validation_loss.iloc[0]).all()


def test_the_model_has_the_same_bits_for_the_same_seed(gaussian_cells, parametrization, quick):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    ratios = []
    for seed in (0, 0, 1):
        model = ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1)
        model.train(**quick, random_state=seed)
        ratios.append(model.log_ratio(numerator={"condition": "treated"}, denominator={"condition": "control"}))
    np.testing.assert_array_equal(ratios[0], ratios[1])
    assert np.abs(ratios[0] - ratios[2]).max() > 1e-6


def test_training_again_starts_anew(gaussian_cells, parametrization, quick):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1)
    drawn = []
    for _ in range(2):
        model.train(**quick)
        drawn.append(model.sample(20, condition={"condition": "treated"}))
    np.testing.assert_array_equal(*drawn)


def test_a_dirty_global_generator_makes_no_difference(make_network):
    first, again = make_network(), make_network()
    run(first)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        run(again)
    assert same(member(first, 0), member(again, 0))


# --- members -------------------------------------------------------------------------------------------------------


def test_a_members_cells_do_not_reach_another_member(make_network):
    first, other = make_network(), make_network()
    run(first)
    data = cells()
    # Cells far out, whose gradients would crowd out member 0's under one norm for both.
    data.x = torch.cat([data.x, 100.0 + 10.0 * data.x])
    data.condition = Condition(torch.cat([data.condition.codes] * 2), torch.cat([data.condition.values] * 2))
    data.splits[1] = MemberSplit(np.arange(280, 360), np.arange(360, 400))
    run(other, data=data)
    assert same(member(first, 0), member(other, 0))
    assert not same(member(first, 1), member(other, 1))


def test_a_members_initial_weights_do_not_reach_another_member(make_network):
    first, other = make_network(), make_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter[1] *= 1.7
    run(first)
    run(other)
    assert same(member(first, 0), member(other, 0))
    assert not same(member(first, 1), member(other, 1))


def test_gradients_are_clipped_member_by_member(make_network):
    network = make_network()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)

    def norms() -> torch.Tensor:
        return torch.stack([p.grad.flatten(1).square().sum(1) for p in network.parameters()]).sum(0).sqrt()

    half = 0.5 / float(norms()[1])
    for parameter in network.parameters():
        parameter.grad[1] *= half
    before = [parameter.grad.clone() for parameter in network.parameters()]
    large = float(norms()[0])
    assert large > 2.0
    clip_member_gradients(network, 1.0)
    for parameter, gradient in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad[0], gradient[0] / large, rtol=1e-5, atol=1e-8)
        assert torch.equal(parameter.grad[1], gradient[1])  # a norm of one half stays as it is


def test_without_a_limit_gradients_stay_as_they_are(make_network):
    network = make_network()
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    clip_member_gradients(network, math.inf)
    assert all(bool((parameter.grad == 1e3).all()) for parameter in network.parameters())


# --- the moving average --------------------------------------------------------------------------------------------


def test_weights_are_averaged_exponentially_with_a_short_memory_at_first(make_network):
    network = make_network()
    plan = FlowTrainingPlan(network, replace(CONFIG, ema_decay=0.5))
    expected = None
    # After k updates the decay is (1 + k) / (10 + k), at most ema_decay, which it reaches at k = 8.
    for k, value in enumerate([3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0]):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(value)
        plan.update_average(k)
        decay = min(0.5, (1 + k) / (10 + k))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        for parameter in plan.averaged.parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, expected), rtol=1e-5, atol=1e-6)


def test_the_averaged_weights_are_kept(make_network):
    # The gradient steps do not depend on the averaging, the weights at the end do.
    averaged, last = make_network(), make_network()
    config = replace(CONFIG, learning_rate=1e-2)
    with_average, without = run(averaged, config), run(last, replace(config, ema_decay=0.0))
    pd.testing.assert_frame_equal(with_average.train_loss, without.train_loss, check_exact=True)
    assert not same(member(averaged, 0), member(last, 0))
    assert averaged.training is False


# --- validation and early stopping ---------------------------------------------------------------------------------


def test_validation_uses_the_same_cells_and_noise_every_time(make_network):
    # A learning rate that changes no bit: the validation loss is then a constant, the training loss is not.
    network = make_network()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a potential begins at zero, whatever the cells
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    result = run(network, replace(CONFIG, learning_rate=1e-30, weight_decay=0.0))
    losses = result.validation_loss.to_numpy()
    assert (losses == losses[0]).all()
    assert len(np.unique(result.train_loss["member_0"])) == 3


class NoDoubleOnDevice(TorchDispatchMode):
    """Refuses numbers in double precision outside of the CPU, as Apple's GPUs do."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64 and found.device.type != "cpu":
            raise TypeError(f"{func} would make a tensor in double precision on {found.device}")
        return found


def test_held_out_losses_are_in_double_precision_on_the_cpu_alone(make_network):
    plan = FlowTrainingPlan(make_network(), CONFIG)
    losses = torch.rand((2, 80), generator=torch.Generator().manual_seed(0))
    plan.validation_losses.append(losses)
    expected = losses.double().reshape(2, 2, 40).mean(1)
    torch.testing.assert_close(plan.take_validation_losses(40), expected, rtol=1e-6, atol=0.0)
    with FakeTensorMode(), NoDoubleOnDevice():
        plan.validation_losses.append(torch.empty((2, 80), device="cuda"))
        found = plan.take_validation_losses(40)
        assert (found.device.type, found.dtype, found.shape) == ("cpu", torch.float64, (2, 40))
        with pytest.raises(TypeError, match="double precision on cuda"):
            torch.empty(3, device="cuda").double()


def test_validation_marginalises_no_key(make_network):
    plan = FlowTrainingPlan(make_network(), CONFIG)
    data = cells()
    batch = data.gather(np.stack([np.arange(160, 200)] * 2))
    plan.eval()
    losses = []
    for dropout in (0.0, 1.0):
        plan.averaged.condition_dropout = dropout
        plan.validation_step(batch, 0)
        losses.append(plan.take_validation_losses(40))
    assert torch.equal(*losses)


def test_losses_are_recorded_at_every_validation(make_network):
    result = run(make_network(), replace(CONFIG, max_steps=25))
    assert result.validation_loss.index.tolist() == [10, 20, 25]  # the last interval ends with the training
    assert result.train_loss.index.tolist() == [10, 20, 25]
    assert result.validation_loss.columns.tolist() == ["member_0", "member_1"]


OVERFIT = replace(
    CONFIG,
    max_steps=600,
    learning_rate=3e-2,
    cosine_decay=False,
    ema_decay=0.0,
    early_stopping=True,
    patience=3,
    n_validation=40,
)


def overfit(make_network, config: TrainConfig = OVERFIT) -> tuple[TrainResult, FlowNetwork]:
    """Learn 20 cells by heart."""
    network = make_network(n_hidden=32)
    return run(network, config, cells(config, n_train=20)), network


def test_heads_stop_when_the_held_out_loss_has_risen():
    config = replace(OVERFIT, learning_rate=1e-2, ema_decay=0.9, n_validation=320)
    result = run(residual(n_hidden=32), config, cells(config, n_train=8))
    last = int(result.validation_loss.index[-1])
    assert last < config.max_steps
    for name in ("member_0", "member_1"):
        losses = result.validation_loss[name]
        # Not before three intervals of ten steps, nor before 1.5 times the best step.
        best = int(losses.idxmin())
        assert last >= best + max(30, best // 2)
        assert losses.iloc[-1] > losses.min()


class Recorded:
    """A selection fed with losses that are given, one group of one member with a weight that tells its step."""

    def __init__(self, patience: int = 3) -> None:
        self.network = torch.nn.Module()
        self.network.weight = torch.nn.Parameter(torch.zeros((1, 1)))
        self.best = BestWeights(patience, early_stopping=True)
        config = replace(CONFIG, validate_every=10)
        self.plan = SimpleNamespace(averaged=self.network, network=self.network, config=config)

    def feed(self, step: int, losses: np.ndarray) -> None:
        with torch.no_grad():
            self.network.weight.fill_(step)
        self.best._compare(self.plan, torch.from_numpy(losses)[None], step)

    def kept(self) -> int:
        restored = torch.nn.Module()
        restored.weight = torch.nn.Parameter(torch.full((1, 1), -1.0))
        (step,) = self.best.restore(restored, self.network)
        assert float(restored.weight.detach()) == step
        return step


NOISE = np.random.default_rng(0).normal(size=400)
"""Paired differences between steps are a shift plus a tenth of this: their standard error is .005."""


def test_the_latest_step_within_a_standard_error_of_the_best_is_kept():
    recorded = Recorded()
    for step, excess in ((10, 0.5), (20, 0.0), (30, 0.004), (40, 0.007)):
        shift = 1.0 + excess + (0.0 if excess == 0.0 else 1.0) * 0.1 * (NOISE - NOISE.mean())
        recorded.feed(step, shift)
    assert recorded.kept() == 30


def test_a_fold_is_over_when_it_has_waited_and_its_loss_has_risen_significantly():
    def over(excess: float, step: int, best: int = 20) -> bool:
        recorded = Recorded()
        recorded.feed(best, np.full(400, 1.0))
        recorded.feed(step, 1.0 + excess + 0.1 * (NOISE - NOISE.mean()))
        return recorded.best.is_over[0]

    assert over(0.011, 50)
    assert not over(0.009, 50)  # 1.8 standard errors
    assert not over(0.011, 40)  # two intervals
    assert not over(0.011, 140, best=100)  # less than 1.5 times the best step
    assert over(0.011, 150, best=100)


def test_a_fold_that_is_over_changes_no_more():
    recorded = Recorded()
    recorded.feed(20, np.full(400, 1.0))
    recorded.feed(60, np.full(400, 1.5) + 0.1 * NOISE)
    recorded.feed(70, np.full(400, 0.5))
    assert recorded.kept() == 20


def test_labels_that_an_ensemble_never_saw_have_no_say_in_its_weights(make_network):
    # What makes a score out of fold: the second ensemble trains and validates on cells that the first will score.
    def weights(other_labels: bool) -> list[torch.Tensor]:
        network = make_network(n_hidden=32)
        data = cells(OVERFIT, n_train=20)
        data.splits = [
            MemberSplit(np.arange(20), np.arange(20, 60)),
            MemberSplit(np.arange(100, 120), np.arange(120, 160)),
        ]
        if other_labels:
            data.condition.codes[100:160] = 1 - data.condition.codes[100:160]
        run(network, OVERFIT, data)
        return member(network, 0)

    assert same(weights(False), weights(True))


def test_the_weights_of_the_best_step_are_kept(make_network):
    result, network = overfit(make_network)
    for m, step in enumerate(result.best_step):
        _, last = overfit(make_network, replace(OVERFIT, max_steps=step, early_stopping=False))
        assert same(member(network, m), member(last, m))


def test_without_early_stopping_the_last_weights_are_kept(make_network):
    stopped, best = overfit(make_network)
    steps = int(stopped.validation_loss.index[-1]) + 20
    result, last = overfit(make_network, replace(OVERFIT, max_steps=steps, early_stopping=False))
    assert result.validation_loss.index[-1] == steps
    assert not same(member(best, 0), member(last, 0))


# --- weight decay --------------------------------------------------------------------------------------------------


def test_weight_decay_is_that_of_adamw(make_network):
    network, reference = make_network(), make_network()
    plan = FlowTrainingPlan(network, replace(CONFIG, weight_decay=0.3, learning_rate=0.01, warmup_steps=0))
    ours = plan.configure_optimizers()["optimizer"]
    trained = [p for p in reference.parameters() if p.requires_grad]
    theirs = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for p, r in zip(network.parameters(), reference.parameters(), strict=True):
            if p.requires_grad:
                p.grad = torch.randn(p.shape, generator=generator)
                r.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for p, r in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, r, rtol=1e-5, atol=1e-7)


# --- interruptions -------------------------------------------------------------------------------------------------


class PowerCut(Exception):
    """What interrupts a training."""


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = FlowTrainingPlan.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            raise PowerCut
        return original(self, batch, batch_idx)

    monkeypatch.setattr(FlowTrainingPlan, "training_step", training_step)


@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(make_network, early_stopping, tmp_path, monkeypatch):
    # Interrupted between two validations: resumed at step 20, the last checkpoint.
    config = replace(CONFIG, max_steps=50, early_stopping=early_stopping)
    whole, resumed = make_network(), make_network()
    expected = run(whole, config)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        interrupt_at(patch, 27)
        run(make_network(), config, checkpoint_dir=tmp_path)
    steps = []
    original = FlowTrainingPlan.training_step

    def training_step(self, batch, batch_idx):
        steps.append(self.global_step)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(FlowTrainingPlan, "training_step", training_step)
    result = run(resumed, config, checkpoint_dir=tmp_path, resume=True)
    assert steps == list(range(20, 50))
    assert all(same(member(whole, m), member(resumed, m)) for m in (0, 1))
    pd.testing.assert_frame_equal(result.validation_loss, expected.validation_loss, check_exact=True)
    pd.testing.assert_frame_equal(result.train_loss, expected.train_loss, check_exact=True)
    assert result.best_step == expected.best_step


def test_without_resume_a_checkpoint_is_not_taken_up(make_network, tmp_path):
    first, again = make_network(), make_network()
    run(first, checkpoint_dir=tmp_path)
    result = run(again, checkpoint_dir=tmp_path)
    assert result.train_loss.index.tolist() == [10, 20, 30]
    assert same(member(first, 0), member(again, 0))


def test_resuming_without_a_checkpoint_starts_from_the_beginning(make_network, tmp_path):
    first, other = make_network(), make_network()
    run(first)
    run(other, checkpoint_dir=tmp_path / "empty", resume=True)
    assert same(member(first, 0), member(other, 0))


def test_the_model_resumes_with_the_same_bits(gaussian_cells, parametrization, quick, tmp_path, monkeypatch):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])

    def model() -> ScRatio:
        return ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1, n_folds=2)

    whole, resumed = model(), model()
    whole.train(**quick)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        interrupt_at(patch, 30)
        model().train(**quick, checkpoint_dir=tmp_path)
    resumed.train(**quick, checkpoint_dir=tmp_path, resume=True)
    contrast = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
    np.testing.assert_array_equal(whole.log_ratio(**contrast), resumed.log_ratio(**contrast))


@pytest.mark.parametrize("bar", [False, True])
def test_a_loss_that_is_not_finite_stops_the_training(make_network, bar, capsys):
    with pytest.raises(FloatingPointError, match="learning_rate"):
        fit(
            make_network(),
            cells(replace(CONFIG, learning_rate=1e30)),
            replace(CONFIG, learning_rate=1e30),
            progress=Progress() if bar else None,
            accelerator="cpu",
        )


# --- batches -------------------------------------------------------------------------------------------------------


def batches(data: CellDataModule, start: int, n_steps: int, rank: int = 0, world_size: int = 1) -> list[torch.Tensor]:
    """Rows of every batch, (n_members, batch_size), recovered from a column that numbers the cells."""
    data.x = torch.arange(len(data.x), dtype=torch.float32)[:, None]
    return [x.squeeze(-1).long() for x, _, _ in TrainBatches(data, start, n_steps, rank, world_size)]


def test_members_train_on_their_own_rows_alone():
    data = cells()
    for rows in batches(data, 0, 20):
        for m, split in enumerate(data.splits):
            assert set(rows[m].tolist()) <= set(split.train.tolist())


def test_every_row_is_seen_once_before_any_is_seen_again():
    data = cells()  # 80 rows, batches of 32: five batches are two passes
    for m, split in enumerate(data.splits):
        rows = torch.cat([batch[m] for batch in batches(data, 0, 5)]).numpy()
        for first in (rows[:80], rows[80:]):
            np.testing.assert_array_equal(np.sort(first), split.train)
        assert not np.array_equal(rows[:80], rows[80:])


def test_a_batch_depends_on_its_step_alone():
    whole, later = batches(cells(), 0, 12), batches(cells(), 7, 5)
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], later, strict=True))


def test_processes_share_the_walk_through_the_rows():
    alone = batches(cells(), 0, 6)
    for rank in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(batches(cells(), 0, 3, rank, 2), alone[rank::2], strict=True))


def test_cells_keep_their_conditions():
    data = cells()
    rows = np.array([[3, 50, 7], [170, 9, 11]])
    x, codes, _ = data.gather(rows)
    assert torch.equal(x, data.x[torch.from_numpy(rows)])
    assert torch.equal(codes, data.condition.codes[torch.from_numpy(rows)])


def test_validation_sees_held_out_cells_alone_and_all_of_them_equally_often():
    # Few cells are seen again, with other noise: 40 cells twice, since 48 are asked for.
    data = cells()
    data.x = torch.arange(len(data.x), dtype=torch.float32)[:, None]
    parts = [x.squeeze(-1).long() for x, _, _ in ValidationBatches(data)]
    for m, split in enumerate(data.splits):
        seen = torch.cat([part[m] for part in parts]).tolist()
        assert sorted(seen) == sorted(split.validation.tolist() * 2)


def test_a_batch_is_no_larger_than_the_smallest_members_cells():
    assert cells(replace(CONFIG, batch_size=500), n_train=20).batch_size == 20


# --- settings ------------------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_decays_to_zero(make_network):
    plan = FlowTrainingPlan(make_network(), replace(CONFIG, max_steps=100, warmup_steps=4))
    factor = plan.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert factor(0) == pytest.approx(0.2)
    assert factor(2) == pytest.approx(0.6 * 0.5 * (1 + math.cos(math.pi * 0.02)))
    assert factor(50) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0.0, abs=1e-12)


def test_without_decay_the_learning_rate_stays(make_network):
    plan = FlowTrainingPlan(make_network(), replace(CONFIG, warmup_steps=4, cosine_decay=False))
    factor = plan.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [factor(step) for step in (4, 15, 30)] == [1.0, 1.0, 1.0]


def test_the_papers_network_is_trained_as_in_the_paper():
    paper = PaperHeads(
        n_features=2, n_categories=[2], n_continuous=0, path=GaussianPath(), generator=torch.Generator().manual_seed(0)
    )
    settings = {**defaults_for("heads", "mlp", 1_000, 512), "max_steps": 10}
    plan = FlowTrainingPlan(paper, TrainConfig(**settings))
    configured = plan.configure_optimizers()
    group = configured["optimizer"].param_groups[0]
    # Adam is AdamW without decay.
    assert (group["initial_lr"], group["weight_decay"], group["betas"]) == (1e-4, 0.0, (0.9, 0.999))
    assert [configured["lr_scheduler"]["scheduler"].lr_lambdas[0](step) for step in (0, 5, 10)] == [1.0, 1.0, 1.0]
    assert settings["gradient_clip"] == math.inf


@pytest.mark.parametrize(
    ("n_train", "expected"), [(100, 3_000), (30_000, 3_000), (102_400, 10_000), (10_000_000, 20_000)]
)
def test_default_steps_are_fifty_passes_within_bounds(n_train, expected):
    assert default_max_steps(n_train, 512) == expected


@pytest.mark.parametrize(("n_train", "expected"), [(100, 600), (10_240, 800), (100_000, 2_000)])
def test_default_steps_of_the_potential_are_forty_passes_within_bounds(n_train, expected):
    assert defaults_for("potential", "residual", n_train, 512)["max_steps"] == expected


def test_the_default_weight_decay_of_the_potential_falls_with_the_cells():
    few, many, hardly_any = (defaults_for("potential", "residual", n, 512)["weight_decay"] for n in (1_000, 10_000, 20))
    assert few == pytest.approx(10.0 * many)
    assert hardly_any == 20.0


@pytest.mark.parametrize("value", [(), -1.0, (0.1, -0.1)])
def test_a_weight_decay_that_is_not_one_is_refused(value):
    with pytest.raises(ValueError, match="weight_decay"):
        replace(CONFIG, weight_decay=value)


@pytest.mark.parametrize("name", ["max_steps", "batch_size", "validate_every", "n_validation", "patience"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=name):
        replace(CONFIG, **{name: 0})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_learning_rate_that_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match="learning_rate"):
        replace(CONFIG, learning_rate=value)


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"resume": True}, ValueError, "checkpoint_dir"),
        ({"validation_size": 0.0}, ValueError, "validation_size"),
        ({"validation_size": 1.0}, ValueError, "validation_size"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"learning_rat": 1e-3}, TypeError, "learning_rat"),
    ],
)
def test_a_wrong_argument_of_train_is_refused_by_name(gaussian_cells, parametrization, quick, kwargs, error, named):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1)
    with pytest.raises(error, match=named):
        model.train(**{**quick, **kwargs})
    assert not model.is_trained


def test_fewer_cells_than_folds_need_are_refused(parametrization, quick):
    adata = scratio.datasets.gaussians(n_cells=12, n_dims=2, random_state=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, parametrization=parametrization, n_hidden=8, n_members=1, n_folds=7)
    with pytest.raises(ValueError, match="n_folds=7"):
        model.train(**quick)


# --- precision, noise and bars -------------------------------------------------------------------------------------


def test_bfloat16_ends_near_the_loss_of_float32(make_network):
    config = replace(CONFIG, max_steps=60, learning_rate=4e-3, validate_every=20)
    untrained = run(make_network(), replace(config, learning_rate=1e-30, weight_decay=0.0)).validation_loss.iloc[0]
    exact, half = (run(make_network(), config, precision=p).validation_loss.min() for p in ("32-true", "bf16-mixed"))
    assert (exact != half).all()
    assert (exact < 0.9 * untrained).all()  # it has learnt something
    np.testing.assert_allclose(half / untrained, exact / untrained, rtol=0, atol=0.02)


def test_the_bar_shows_losses_and_remaining_time(make_network, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_is_terminal", lambda: True)
    fit(make_network(), cells(), CONFIG, progress=Progress(), accelerator="cpu")
    shown = capsys.readouterr().err
    assert "training: 100%" in shown
    assert "30/30" in shown
    assert "loss=" in shown
    assert "validation=" in shown
    assert "<00:00" in shown


def test_without_a_bar_training_prints_nothing(make_network, capsys):
    run(make_network())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_quiet_puts_levels_back_after_an_error():
    logger = logging.getLogger("scratio-test-of-quiet")
    logger.setLevel(logging.DEBUG)
    with pytest.raises(PowerCut), quiet("scratio-test-of-quiet"):
        assert logger.level == logging.WARNING
        raise PowerCut
    assert logger.level == logging.DEBUG


@pytest.mark.parametrize(
    ("n_cells", "n_members", "share"), [(100, 3, 1 / 3), (560, 3, 500 / 1_680), (560, 1, 1 / 3), (10_000, 1, 0.1)]
)
def test_members_hold_out_more_of_few_cells(n_cells, n_members, share):
    assert default_validation_size(n_cells, n_members) == pytest.approx(share)


def test_the_default_share_is_that_of_the_cells_of_a_fold(quick):
    adata = scratio.datasets.gaussians(n_cells=1_500, n_dims=2, random_state=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=8, n_members=2, n_folds=3)
    model.train(**quick)
    assert model.training_["validation_size"] == pytest.approx(0.25)
    assert len(model.validation_indices_) == 250
    assert len(model.train_indices_) == 750
