"""What the held-out cells decide: closed form, weight decay, shrinkage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax

import scratio
from scratio.model import ScRatio
from scratio.model._selection import (
    NONE,
    average,
    choose_group,
    closed_forms,
    rank_closed_forms,
    set_closed_form,
    shrink,
)
from scratio.module import Condition, PotentialNetwork
from scratio.paths import GaussianPath
from scratio.stats import bounded_loss, held_out_share, labels_are_silent
from scratio.train import CellDataModule, MemberSplit, TrainConfig, TrainResult

CONFIG = TrainConfig(max_steps=10, ensemble_size=2, n_validation=1_000)
CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
SHORT = {"max_steps": 60, "batch_size": 256, "accelerator": "cpu", "progress_bar": False}


def data_of(x: np.ndarray, codes: np.ndarray, splits: list[MemberSplit], config: TrainConfig = CONFIG):
    condition = Condition(torch.from_numpy(codes)[:, None], torch.zeros((len(x), 0)))
    return CellDataModule(torch.from_numpy(x.astype(np.float32)), condition, splits, config)


def network_of(n_members: int, n_features: int = 2) -> PotentialNetwork:
    return PotentialNetwork(
        n_features=n_features,
        combinations=torch.tensor([[0], [1]]),
        weights=torch.tensor([0.5, 0.5]),
        path=GaussianPath(0.02),
        generator=torch.Generator().manual_seed(0),
        n_members=n_members,
        n_hidden=8,
        n_embed=6,
    )


def fits_of(x: np.ndarray, codes: np.ndarray) -> dict:
    condition = Condition(torch.from_numpy(codes)[:, None], torch.zeros((len(codes), 0)))
    return closed_forms(network_of(2), torch.from_numpy(x).float(), condition, codes, 0)


HALVES = [
    MemberSplit(np.arange(3_000), np.arange(3_000, 4_000)),
    MemberSplit(np.arange(1_000, 4_000), np.arange(1_000)),
]


def rank(x: np.ndarray, codes: np.ndarray) -> tuple[str, dict[str, float]]:
    simplest, _, losses = rank_closed_forms(network_of(2), fits_of(x, codes), data_of(x, codes, HALVES), CONFIG)
    return simplest, losses


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- the closed form -----------------------------------------------------------------------------------------------


def test_without_an_effect_no_closed_form_is_chosen(rng):
    name, losses = rank(rng.normal(size=(4_000, 2)), rng.integers(0, 2, 4_000))
    assert name == NONE
    # Two cross-entropies of a coin.
    assert losses[NONE] == pytest.approx(2.0 * np.log(2.0), abs=1e-6)


def test_shifted_gaussians_are_given_one_covariance(rng):
    codes = rng.integers(0, 2, 4_000)
    assert rank(rng.normal(size=(4_000, 2)) + 2.0 * codes[:, None], codes)[0] == "shared Gaussian"


def test_gaussians_of_different_spread_are_given_one_covariance_each(rng):
    codes = rng.integers(0, 2, 4_000)
    scale = np.where(codes == 1, 2.0, 0.5)[:, None]
    assert rank(scale * rng.normal(size=(4_000, 2)), codes)[0].endswith("class Gaussians")


def test_abundances_of_cell_types_are_given_a_mixture(rng):
    codes = rng.integers(0, 2, 4_000)
    # Types 0 and 3 for one condition, 1 and 2 for the other, in a square: no Gaussian tells them apart.
    kind = np.where(rng.uniform(size=4_000) < 0.9, codes, 1 - codes)
    other = rng.integers(0, 2, 4_000)
    x = 6.0 * np.stack([other, (other + kind) % 2], axis=1) + rng.normal(size=(4_000, 2))
    assert rank(x, codes)[0].startswith("mixture")


def test_a_few_outliers_do_not_hide_that_a_closed_form_is_worse(rng):
    # The types of the test before, and one cell of a thousand far away, of either condition.
    codes = rng.integers(0, 2, 4_000)
    kind = np.where(rng.uniform(size=4_000) < 0.9, codes, 1 - codes)
    other = rng.integers(0, 2, 4_000)
    x = 6.0 * np.stack([other, (other + kind) % 2], axis=1) + rng.normal(size=(4_000, 2))
    outliers = rng.permutation(4_000)[:4]
    x[outliers] *= rng.uniform(20.0, 60.0, size=(4, 1))
    name, losses = rank(x, codes)
    assert losses["class Gaussians"] > losses["mixture of 8"] + 2.0
    assert name.startswith("mixture")


def test_a_members_closed_form_is_fitted_on_the_cells_that_it_trains_on(rng):
    codes, x = rng.integers(0, 2, 400), rng.normal(size=(400, 2))
    splits = [MemberSplit(np.arange(150), np.arange(150, 200)), MemberSplit(np.arange(200, 350), np.arange(350, 400))]
    config = replace(CONFIG, ensemble_size=1)

    def fitted(codes: np.ndarray) -> list[torch.Tensor]:
        network = network_of(2)
        set_closed_form(network, ["class Gaussians"], fits_of(x, codes), data_of(x, codes, splits, config), config)
        return [p.clone() for p in network.closed_form.parameters()]

    flipped = codes.copy()
    flipped[150:] = 1 - flipped[150:]  # all that the first member does not train on
    before, after = fitted(codes), fitted(flipped)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(before, after, strict=True))
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(before, after, strict=True))


def test_candidates_without_a_closed_form_have_none_beside_one_that_has(rng):
    codes = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 2)) + codes[:, None]
    config = replace(CONFIG, ensemble_size=1, weight_decay=(0.1, 0.1))
    network, splits = network_of(2), [MemberSplit(np.arange(300), np.arange(300, 400))] * 2
    set_closed_form(network, [NONE, "shared Gaussian"], fits_of(x, codes), data_of(x, codes, splits, config), config)
    treated = Condition(torch.tensor([[1]]), torch.zeros((1, 0)))
    with torch.no_grad():
        phi = network.potential(torch.ones((2, 1, 2)), torch.ones((1, 1, 1)), treated)
    assert float(phi[0].abs()) < 1e-6
    assert float(phi[1]) > 0.1


# --- between candidates --------------------------------------------------------------------------------------------


def result_of(losses: np.ndarray, steps: list[int]) -> TrainResult:
    frame = pd.DataFrame(losses.mean(1)[None], index=[10])
    return TrainResult(frame, frame, steps, torch.from_numpy(losses))


def test_the_candidate_of_the_lowest_loss_is_kept(rng):
    noise = rng.normal(size=400)
    losses = np.stack([1.0 + noise, 0.9 + noise, 0.95 + noise])
    assert choose_group(result_of(losses, [10, 10, 10]), [NONE, NONE, "shared Gaussian"])[0] == 1


@pytest.mark.parametrize(("gain", "kept"), [(0.004, 0), (0.007, 1)])
def test_training_on_top_of_a_closed_form_has_to_be_better_by_more_than_a_standard_error(rng, gain, kept):
    noise = rng.normal(size=400)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    losses = np.stack([np.ones(400), 1.0 - gain + 0.1 * noise])  # a standard error of .005
    assert choose_group(result_of(losses, [10, 10]), [NONE, "shared Gaussian"])[0] == kept


# --- the average with a closed form --------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "expected"), [(0, 1.0), (1, 0.0)])
def test_a_bad_potential_gets_no_share(rng, right, expected):
    truth = rng.normal(size=(4_000, 1)) * [0.0, 2.0]
    codes = (rng.uniform(size=4_000) < 1.0 / (1.0 + np.exp(-truth[:, 1]))).astype(int)
    noise = rng.normal(size=(4_000, 1)) * [0.0, 6.0]
    potentials = [truth, noise] if right == 0 else [noise, truth]
    assert held_out_share(np.log([0.5, 0.5]), *potentials, codes) == pytest.approx(expected, abs=0.1)


def test_two_potentials_with_errors_of_their_own_share(rng):
    truth = rng.normal(size=(20_000, 1)) * [0.0, 2.0]
    codes = (rng.uniform(size=20_000) < 1.0 / (1.0 + np.exp(-truth[:, 1]))).astype(int)
    first, second = (truth + rng.normal(size=truth.shape) * [0.0, 1.0] for _ in range(2))
    assert held_out_share(np.log([0.5, 0.5]), first, second, codes) == pytest.approx(0.5, abs=0.05)


def far_apart(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells, labels and true logits of Gaussians that a classifier tells apart with certainty."""
    codes = rng.integers(0, 2, 2_000)
    x = rng.normal(size=(2_000, 2)) + 6.0 * codes[:, None]
    return x, codes, np.stack([np.zeros(2_000), 6.0 * x.sum(1) - 36.0], axis=1)


def test_labels_are_silent_about_the_size_of_a_log_ratio_where_conditions_are_far_apart(rng):
    _, codes, truth = far_apart(rng)
    prior = np.log([0.5, 0.5])
    assert labels_are_silent(prior, truth, 0.3 * truth, codes)
    # Not so if one of them contradicts the labels, or where conditions overlap.
    assert not labels_are_silent(prior, -0.3 * truth, truth, codes)
    near = 0.02 * truth
    codes = (rng.uniform(size=2_000) < 1.0 / (1.0 + np.exp(-near[:, 1]))).astype(int)
    assert not labels_are_silent(prior, near, 0.8 * near, codes)


def test_labels_are_not_silent_because_of_a_few_outliers(rng):
    # Conditions overlap, and labels tell the potentials apart; but for ten cells of 2,000, where one is off by 10^4.
    truth = np.stack([np.zeros(2_000), rng.normal(size=2_000)], axis=1)
    codes = (rng.uniform(size=2_000) < 1.0 / (1.0 + np.exp(-truth[:, 1]))).astype(int)
    wild = 0.2 * truth
    wild[:10, 1] = np.where(codes[:10] == 1, 1e4, -1e4)
    assert not labels_are_silent(np.log([0.5, 0.5]), wild, truth, codes)
    # One cell that a potential has altogether wrong leaves the losses of all others as certain as they were.
    wild[:, 1], wild[0, 1] = -truth[:, 1], 1e6 * (1 - 2 * codes[0])
    losses = [-log_softmax(potential, axis=1)[np.arange(2_000), codes] for potential in (wild, truth)]
    bounded = [bounded_loss(loss, 2) for loss in losses]
    assert bounded[0].max() == pytest.approx(np.log(4_000.0))
    np.testing.assert_array_equal(bounded[1], losses[1])


def test_a_closed_form_is_taken_alone_where_labels_are_silent(rng):
    x, codes, truth = far_apart(rng)
    splits = [MemberSplit(np.arange(1_000, 2_000), np.arange(1_000))] * 2
    config = replace(CONFIG, ensemble_size=2, n_validation=1_000)
    network = network_of(2)
    with torch.no_grad():
        # A network that is right about every label and wrong about how far apart the conditions are.
        network.classifier.rotate.weight.copy_(torch.eye(2))
        network.classifier.gate.weight.zero_()
        network.classifier.gate.bias.fill_(1.0)
        network.classifier.mix.weight.copy_(torch.tensor([[0.0, 2.0], [0.0, 2.0]]))
        network.classifier.output.bias.copy_(torch.tensor([0.0, -12.0]))
    names = ("shared Gaussian", "mixture of 4")
    found = average(network, names, fits_of(x, codes), data_of(x, codes, splits, config), config)
    assert found == {"shared Gaussian": [1.0]}
    q = torch.full((1, 1, 1), network.path.q_end)
    treated, control = (Condition(torch.tensor([[code]]), torch.zeros((1, 0))) for code in (1, 0))
    z = torch.tanh(q) * torch.from_numpy(x).float().expand(2, -1, -1)
    ratio = (network.potential(z, q, treated) - network.potential(z, q, control)).mean(0).detach().numpy()
    assert np.mean((ratio - truth[:, 1]) ** 2) < 0.01 * truth[:, 1].var()


def test_a_potential_is_averaged_with_a_closed_form_by_the_cells_of_its_own_fold(rng):
    # The conditions differ along x_0, log r = x_0 - 1/2, which the closed form finds. The network of fold 0 says
    # nothing, that of fold 1 says x_0.
    codes = rng.integers(0, 2, 2_000)
    x = rng.normal(size=(2_000, 2)) + codes[:, None] * [1.0, 0.0]
    splits = [MemberSplit(np.arange(1_000, 2_000), np.arange(1_000))] * 2
    config = replace(CONFIG, ensemble_size=1, n_validation=1_000)
    network = network_of(2)
    with torch.no_grad():
        network.classifier.rotate.weight.copy_(torch.eye(2))
        network.classifier.gate.weight.zero_()
        network.classifier.gate.bias.fill_(1.0)
        network.classifier.mix.weight[1] = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    names = ("shared Gaussian", "shared Gaussian")
    found = average(network, names, fits_of(x, codes), data_of(x, codes, splits, config), config)
    (shares,) = found.values()
    assert shares[0] > 0.8
    assert network.gate.flatten().tolist() == pytest.approx(shares)
    assert network.share.flatten().tolist() == pytest.approx([1.0 - share for share in shares])
    # Logits are the weighted mean of both: at x = (0, 0) the closed form alone says something, -1/2.
    base, learnt = (
        (part[:, 0, 1] - part[:, 0, 0]).detach() for part in network.held_out_logits(torch.zeros((2, 1, 2)))
    )
    np.testing.assert_allclose(base, [-0.5 * share for share in shares], atol=0.08)
    np.testing.assert_allclose(learnt, 0.0, atol=1e-6)


# --- shrinkage -----------------------------------------------------------------------------------------------------


def test_every_fold_is_shrunk_by_the_cells_that_its_own_members_held_out(rng):
    # Fold 0 is right about the labels of the cells that it holds out, fold 1 is not.
    x = rng.normal(size=(2_000, 2))
    codes = (rng.uniform(size=2_000) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))).astype(int)
    codes[1_000:] = rng.integers(0, 2, 1_000)
    splits = [
        MemberSplit(np.arange(1_000, 1_500), np.arange(1_000)),
        MemberSplit(np.arange(500), np.arange(1_000, 2_000)),
    ]
    config = replace(CONFIG, ensemble_size=1)
    network = network_of(2)
    with torch.no_grad():
        # The linear part of the network, made to say x_0.
        network.classifier.rotate.weight.copy_(torch.eye(2))
        network.classifier.gate.weight.zero_()
        network.classifier.gate.bias.fill_(1.0)
        network.classifier.mix.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    evidence = shrink(network, data_of(x, codes, splits, config), config)
    assert evidence["factor"][0] > 0.95
    assert evidence["factor"][1] < 0.5
    assert network.factor.flatten().tolist() == pytest.approx(evidence["factor"])
    assert evidence["slope"][0] == pytest.approx(2.0, abs=4 * evidence["standard_error"][0])


# --- the model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart() -> ScRatio:
    """Gaussians so far apart that a classifier is certain of every cell."""
    adata = scratio.datasets.gaussians(n_cells=2_000, n_dims=3, distance=4.0, random_state=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=16, n_members=2)
    model.train(**SHORT)
    return model


def test_far_gaussians_are_read_from_their_closed_form(apart):
    cells = scratio.datasets.gaussians(n_cells=500, n_dims=3, distance=4.0, random_state=1)
    truth = cells.obs["true_log_ratio"].to_numpy()
    assert apart.training_["closed_form"] != NONE
    assert truth.var() > 500.0
    # Half a percent of the variance, where a classifier has nothing to go by.
    assert np.mean((apart.log_ratio(cells, **CONTRAST) - truth) ** 2) < 0.005 * truth.var()


def test_a_closed_form_is_saved_with_the_model(apart, tmp_path):
    apart.save(tmp_path / "model")
    loaded = ScRatio.load(tmp_path / "model")
    cells = scratio.datasets.gaussians(n_cells=50, n_dims=3, distance=4.0, random_state=1)
    np.testing.assert_array_equal(loaded.log_ratio(cells, **CONTRAST), apart.log_ratio(cells, **CONTRAST))
    assert loaded.training_["closed_form"] == apart.training_["closed_form"] != NONE


def test_the_choice_and_its_evidence_are_kept(apart):
    evidence = apart.training_["evidence"]
    assert min(evidence["closed_form"], key=evidence["closed_form"].get) != NONE
    assert evidence["configuration"]["chosen"].startswith(apart.training_["closed_form"])
    assert len(evidence["configuration"]["held_out_loss"]) == 3
    assert apart.module.n_members == 2


def test_without_early_stopping_nothing_is_chosen(gaussian_cells):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = ScRatio(gaussian_cells, n_hidden=8, n_members=2)
    model.train(**{**SHORT, "max_steps": 5}, early_stopping=False)
    assert model.training_["evidence"] == {}
    assert bool((model.module.factor == 1.0).all())


def test_folds_share_one_configuration_and_have_their_own_step_and_factor():
    adata = scratio.datasets.gaussians(n_cells=1_200, n_dims=2, random_state=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=16, n_members=2, n_folds=3)
    model.train(**SHORT)
    assert isinstance(model.training_["closed_form"], str)
    assert len(model.training_["best_step"]) == 3
    assert len(model.training_["evidence"]["shrinkage"]["factor"]) == 3
    assert model.module.n_members == 6
    error = model.log_ratio(**CONTRAST) - adata.obs["true_log_ratio"]
    assert np.mean(error**2) < 0.1
