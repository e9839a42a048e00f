"""What held-out cells decide about a potential: the closed form, its probability, the weights of each fold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scratio
from scratio._coordinates import Coordinates
from scratio.model import ScRatio
from scratio.model._calibration import NETWORK, NONE, calibrate
from scratio.model._closed_forms import ABUNDANCES, CLASS, MIXTURE, SHARED, ClosedForms
from scratio.module import Condition, PotentialNetwork
from scratio.paths import GaussianPath
from scratio.train import CellDataModule, MemberSplit, StandardisedCells, TrainConfig

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
SHORT = {"max_steps": 60, "batch_size": 256, "accelerator": "cpu", "progress_bar": False}
HALVES = [
    MemberSplit(np.arange(3_000), np.arange(3_000, 4_000)),
    MemberSplit(np.arange(1_000, 4_000), np.arange(1_000)),
]


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


def says_first_coordinate(network: PotentialNetwork, size: float) -> None:
    """Make every member's log ratio ``size`` times the first coordinate."""
    with torch.no_grad():
        network.classifier.rotate.weight.copy_(torch.eye(2))
        network.classifier.gate.weight.zero_()
        network.classifier.gate.bias.fill_(1.0)
        network.classifier.mix.weight.copy_(torch.tensor([[0.0, size], [0.0, 0.0]]))


def calibrated(
    x: np.ndarray, codes: np.ndarray, splits: list[MemberSplit], size: int, network: PotentialNetwork, **kwargs
) -> dict:
    condition = Condition(torch.from_numpy(codes)[:, None], torch.zeros((len(x), 0)))
    config = TrainConfig(max_steps=10, ensemble_size=size, n_validation=1_000)
    cells = StandardisedCells(x.astype(np.float32), Coordinates.linear(np.zeros(2), np.ones(2)))
    data = CellDataModule(cells, condition, splits, config, noisy_validation=False)
    forms = ClosedForms(network, cells, condition, codes, 0)
    return calibrate(network, forms, data, **{"groups": None, "with_network": True, **kwargs})


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def types(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Types 0 and 3 for one condition, 1 and 2 for the other, in a square: no Gaussian tells them apart."""
    codes = rng.integers(0, 2, 4_000)
    kind = np.where(rng.uniform(size=4_000) < 0.9, codes, 1 - codes)
    other = rng.integers(0, 2, 4_000)
    return 6.0 * np.stack([other, (other + kind) % 2], axis=1) + rng.normal(size=(4_000, 2)), codes


# --- the closed form -----------------------------------------------------------------------------------------------


def test_without_an_effect_no_closed_form_is_chosen(rng):
    found = calibrated(rng.normal(size=(4_000, 2)), rng.integers(0, 2, 4_000), HALVES, 2, network_of(2))
    assert found["closed_form"] == NONE
    assert found["probability"] == 0.0
    assert found["held_out_loss"][NONE] == pytest.approx(np.log(2.0), abs=1e-4)


def test_shifted_gaussians_are_given_one_covariance(rng):
    codes = rng.integers(0, 2, 4_000)
    found = calibrated(rng.normal(size=(4_000, 2)) + 2.0 * codes[:, None], codes, HALVES, 2, network_of(2))
    assert found["closed_form"] == SHARED
    assert found["probability"] > 0.9


def test_gaussians_of_different_spread_are_given_one_covariance_each(rng):
    codes = rng.integers(0, 2, 4_000)
    scale = np.where(codes == 1, 2.0, 0.5)[:, None]
    found = calibrated(scale * rng.normal(size=(4_000, 2)), codes, HALVES, 2, network_of(2))
    assert found["closed_form"] == CLASS


def test_abundances_of_cell_types_are_given_a_mixture_in_spite_of_outliers(rng):
    x, codes = types(rng)
    x[rng.permutation(4_000)[:4]] *= rng.uniform(20.0, 60.0, size=(4, 1))
    found = calibrated(x, codes, HALVES, 2, network_of(2))
    assert found["closed_form"] == MIXTURE
    assert found["held_out_loss"][MIXTURE] < found["held_out_loss"][CLASS] - 0.05


def test_a_members_closed_form_is_fitted_on_the_cells_that_it_trains_on(rng):
    codes, x = rng.integers(0, 2, 400), rng.normal(size=(400, 2))
    rows = [np.arange(150), np.arange(200, 350)]

    def fitted(codes: np.ndarray) -> list[torch.Tensor]:
        condition = Condition(torch.from_numpy(codes)[:, None], torch.zeros((400, 0)))
        cells = StandardisedCells(x, Coordinates.linear(np.zeros(2), np.ones(2)))
        forms = ClosedForms(network_of(2), cells, condition, np.zeros(400, dtype=int), 0)
        return [p for name in forms.names for p in forms.fit(name, rows).parameters()]

    flipped = codes.copy()
    flipped[150:] = 1 - flipped[150:]  # all that the first member does not train on
    before, after = fitted(codes), fitted(flipped)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(before, after, strict=True))
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(before, after, strict=True))


# --- the weights ---------------------------------------------------------------------------------------------------


def test_every_fold_is_weighed_by_the_cells_that_its_own_members_held_out(rng):
    # The network of either fold says x_0; labels that fold 0 holds out follow 2 x_0, those of fold 1 nothing.
    x = rng.normal(size=(2_000, 2))
    codes = (rng.uniform(size=2_000) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))).astype(int)
    codes[1_000:] = rng.integers(0, 2, 1_000)
    splits = [
        MemberSplit(np.arange(1_000, 1_500), np.arange(1_000)),
        MemberSplit(np.arange(500), np.arange(1_000, 2_000)),
    ]
    network = network_of(2)
    says_first_coordinate(network, 1.0)
    found = calibrated(x, codes, splits, 1, network)
    weights = np.array(found["weights"][NETWORK])[:, 0]
    assert weights[0] > 1.4
    assert weights[1] < 0.5
    np.testing.assert_allclose(network.weights[:, 0, 0].detach().numpy(), weights, rtol=1e-5)


def test_folds_of_few_samples_are_weighed_by_the_samples_of_the_other_folds(rng):
    # The network of either fold says x_0; labels of the first fold follow 2 x_0, those of the second nothing.
    x, n_first = rng.normal(size=(2_000, 2)), 1_300
    codes = (rng.uniform(size=2_000) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))).astype(int)
    codes[n_first:] = rng.integers(0, 2, 700)
    own = [np.arange(n_first), np.arange(n_first, 2_000)]
    # Four samples of unequal sizes in either fold.
    samples = 4 * (np.arange(2_000) >= n_first) + np.searchsorted([0.4, 0.7, 0.9], rng.uniform(size=2_000))
    splits = [MemberSplit(rows[::2], rows[1::2]) for rows in own[::-1]]
    settings = {"groups": samples, "unseen": [rows[None] for rows in own]}

    def weights() -> np.ndarray:
        network = network_of(2)
        says_first_coordinate(network, 1.0)
        return np.array(calibrated(x, codes, splits, 1, network, **settings)["weights"][NETWORK])[:, 0]

    before = weights()
    assert before[0] < 0.5
    assert before[1] > 1.4
    # A fold's own labels do not decide on its weight.
    codes[n_first:] = rng.integers(0, 2, 700)
    after = weights()
    assert after[1] == pytest.approx(before[1], rel=0.05)
    assert after[0] != before[0]


def test_where_labels_cannot_tell_how_far_apart_conditions_are_the_closed_form_is_taken_alone(rng):
    codes = rng.integers(0, 2, 4_000)
    x = rng.normal(size=(4_000, 2)) + 6.0 * codes[:, None] * [1.0, 0.0]
    network = network_of(2)
    # Right about nearly every label, and wrong by a factor of two about the log ratio.
    says_first_coordinate(network, 3.0)
    with torch.no_grad():
        network.classifier.output.bias.copy_(torch.tensor([0.0, -9.0]))
    found = calibrated(x, codes, HALVES, 2, network)
    assert found["closed_form"] == SHARED
    assert found["probability"] > 0.9
    q = torch.full((1, 1, 1), network.path.q_end)
    treated, control = (Condition(torch.tensor([[code]]), torch.zeros((1, 0))) for code in (1, 0))
    z = torch.tanh(q) * torch.from_numpy(x).float().expand(2, -1, -1)
    ratio = (network.potential(z, q, treated) - network.potential(z, q, control)).mean(0).detach().numpy()
    truth = 6.0 * x[:, 0] - 18.0
    assert np.mean((ratio - truth) ** 2) < 0.02 * truth.var()


def test_a_network_that_finds_more_than_a_closed_form_is_not_given_up_for_it(rng):
    # A linear log ratio of cells whose tails are heavy: linear discriminants have the direction and not the slope.
    x = rng.standard_t(1.2, size=(4_000, 2))
    codes = (rng.uniform(size=4_000) < 1.0 / (1.0 + np.exp(-1.5 * x[:, 0]))).astype(int)
    network = network_of(2)
    says_first_coordinate(network, 1.5)
    found = calibrated(x, codes, HALVES, 2, network)
    assert found["probability"] < 0.5
    assert np.mean(found["weights"][NETWORK]) > 0.1


def test_a_quick_calibration_weighs_closed_forms_alone(rng):
    x, codes = types(rng)
    network = network_of(2)
    says_first_coordinate(network, 50.0)
    found = calibrated(x, codes, HALVES, 2, network, with_network=False)
    assert np.abs(found["weights"][NETWORK]).max() == 0.0
    assert {MIXTURE, ABUNDANCES} <= set(found["weights"])


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


def test_closed_forms_and_weights_are_saved_with_the_model(apart, tmp_path):
    apart.save(tmp_path / "model")
    loaded = ScRatio.load(tmp_path / "model")
    cells = scratio.datasets.gaussians(n_cells=50, n_dims=3, distance=4.0, random_state=1)
    np.testing.assert_array_equal(loaded.log_ratio(cells, **CONTRAST), apart.log_ratio(cells, **CONTRAST))
    assert loaded.training_["calibration"] == apart.training_["calibration"]


def test_without_early_stopping_nothing_is_calibrated(gaussian_cells):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = ScRatio(gaussian_cells, n_hidden=8, n_members=2)
    model.train(**{**SHORT, "max_steps": 5}, early_stopping=False)
    assert model.training_["calibration"] == {}
    assert bool((model.module.weights == 1.0).all())
    assert len(model.module.closed_forms) == 0


def test_folds_have_their_own_step_and_weights():
    adata = scratio.datasets.gaussians(n_cells=1_200, n_dims=2, random_state=0)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=16, n_members=2, n_folds=3)
    model.train(**SHORT)
    assert len(model.training_["best_step"]) == 3
    assert np.shape(model.training_["calibration"]["weights"][NETWORK]) == (3, 1)
    error = model.log_ratio(**CONTRAST) - adata.obs["true_log_ratio"]
    assert np.mean(error**2) < 0.1


def test_a_quick_analysis_has_the_outputs_of_a_thorough_one_and_the_answer():
    adata = scratio.datasets.gaussians(n_cells=1_200, n_dims=3, random_state=0)
    question = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 3}
    scratio.tl.differential_abundance(adata, **question, effort="quick")
    thorough = scratio.datasets.gaussians(n_cells=1_200, n_dims=3, random_state=0)
    scratio.tl.differential_abundance(thorough, **question, train_kwargs=SHORT)
    assert list(adata.obs) == list(thorough.obs)
    assert adata.uns["da"]["params"]["effort"] == "quick"
    assert "no network takes part" in adata.uns["da"]["diagnostics"]["verdict"][0]
    error = adata.obs["da_log_ratio"] - adata.obs["true_log_ratio"]
    assert np.mean(error**2) < 0.05 * adata.obs["true_log_ratio"].var()
    assert (adata.obs["da_std"] > 0.0).all()


def test_quick_is_refused_where_there_is_no_closed_form(gaussian_cells):
    with pytest.raises(ValueError, match=r"effort must be one of \['default', 'quick'\], got 'fast'"):
        scratio.tl.differential_abundance(
            gaussian_cells, condition_key="condition", treatment="treated", reference="control", effort="fast"
        )
    gaussian_cells.obs["dose"] = np.arange(200) % 5
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"], continuous_keys=["dose"])
    with pytest.raises(ValueError, match=r"continuous keys \['dose'\]"):
        ScRatio(gaussian_cells).train(effort="quick")
