"""FDRL: its losses and flow against what is known, generation, translation, and what it refuses."""

from __future__ import annotations

import functools
import math

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

import scratio
from scratio._random import torch_generator
from scratio.estimators import translate
from scratio.fdrl import _training
from scratio.fdrl._gradient_flow import gradient_flow
from scratio.fdrl._network import DIVERGENCES, StaleRatio
from scratio.fdrl._prior import CellPrior, GaussianPrior, UniformPrior
from scratio.model import FDRL, ScRatio

ENDS = {"source": {"condition": "control"}, "target": {"condition": "treated"}}
SMALL = {"n_hidden": 32, "n_layers": 2, "n_waves": 16, "n_flow_steps": 10}
BRIEF = {"max_steps": 30, "batch_size": 64, "progress_bar": False, "accelerator": "cpu"}
SETTLED = {"max_steps": 400, "batch_size": 128, "progress_bar": False, "accelerator": "cpu"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells(x: np.ndarray, condition: np.ndarray) -> ad.AnnData:
    obs = pd.DataFrame({"condition": condition}, index=[f"cell{i}" for i in range(len(x))])
    return ad.AnnData(obs=obs, obsm={"X_pca": x})


@functools.cache
def two_gaussians() -> ad.AnnData:
    """Control around 0, treated around (3, 0); spread 1 in both."""
    rng = np.random.default_rng(0)
    treated = rng.uniform(size=2_000) < 0.5
    x = rng.normal(size=(2_000, 2)) + 3.0 * treated[:, None] * np.array([1.0, 0.0])
    adata = cells(x, np.where(treated, "treated", "control"))
    FDRL.setup_anndata(adata, condition_keys=["condition"])
    return adata


def again() -> ad.AnnData:
    """The same cells, not registered: scvi-tools takes a copy for the original."""
    return cells(two_gaussians().obsm["X_pca"], two_gaussians().obs["condition"].to_numpy())


@functools.cache
def trained(**kwargs) -> FDRL:
    model = FDRL(two_gaussians(), **SMALL, **{name: dict(value) for name, value in kwargs.items()})
    model.train(**SETTLED)
    return model


def energy(x: np.ndarray, y: np.ndarray) -> float:
    """Energy distance of two samples, without bias."""

    def within(a: np.ndarray) -> float:
        return cdist(a, a).sum() / (len(a) * (len(a) - 1))

    return 2.0 * cdist(x, y).mean() - within(x) - within(y)


@pytest.mark.parametrize("loss", ["logistic", "lsif"])
def test_the_losses_are_least_at_the_true_ratio(loss, monkeypatch):
    # Improved samples N(1/2, 1), data N(0, 1): log r = x / 2 - 1/8.
    network = StaleRatio(1, loss=loss, n_hidden=4, n_layers=1, n_waves=2, generator=generator())
    data = torch.randn((400_000, 1), generator=generator(1))
    improved = 0.5 + torch.randn((400_000, 1), generator=generator(2))

    def at(offset: float, slope: float) -> float:
        def forward(x):
            log_ratio = offset + slope * (x - 0.25)
            r = torch.exp(log_ratio)
            # The inverse of the softplus that keeps r positive.
            return log_ratio if loss == "logistic" else r + torch.log(-torch.expm1(-r)) - math.log(math.expm1(1.0))

        monkeypatch.setattr(network, "forward", forward)
        monkeypatch.setattr(StaleRatio, "__call__", lambda self, x: self.forward(x))
        assert torch.allclose(network.log_ratio(data[:5]), offset + slope * (data[:5, 0] - 0.25), atol=1e-4)
        return float(network.loss(data, improved))

    best = at(0.0, 0.5)
    for others in ((0.1, 0.5), (-0.1, 0.5), (0.0, 0.4), (0.0, 0.6)):
        assert at(*others) > best


F = {
    "pearson": lambda r: (r - 1.0) ** 2,
    "kl": lambda r: r * torch.log(r),
    "js": lambda r: r * torch.log(r) - (r + 1.0) * torch.log(0.5 * (r + 1.0)),
    "logd": lambda r: (r + 1.0) * torch.log(r + 1.0) - 2.0 * math.log(2.0),
}


@pytest.mark.parametrize("name", list(DIVERGENCES))
def test_the_slopes_are_derivatives_of_the_divergences(name):
    r = torch.linspace(0.05, 5.0, 40, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F[name](r).sum(), r)
    torch.testing.assert_close(DIVERGENCES[name](torch.log(r.detach())), slope)


def test_the_flow_takes_the_steps_it_says():
    x = torch.randn((20, 3), generator=generator())
    moved = gradient_flow(lambda y: 0.5 * (y**2).sum(1), x, n_steps=4, step_size=0.1, noise=0.0, generator=generator())
    torch.testing.assert_close(moved, x * 0.9**4)


def test_no_step_of_the_flow_is_longer_than_allowed():
    x = torch.ones((5, 4))
    moved = gradient_flow(lambda y: 1e6 * y.sum(1), x, n_steps=3, step_size=1.0, noise=0.0, generator=generator())
    torch.testing.assert_close((moved - x).norm(dim=1), torch.full((5,), 3.0))  # 3 steps of 0.5 sqrt(4)


def test_the_flow_on_the_true_ratio_reaches_the_data():
    # KL flow from N(2, 3^2) to N(0, 1) with the ratio of where the samples are: both moments arrive.
    x = 2.0 + 3.0 * torch.randn((20_000, 1), generator=generator())
    for _ in range(60):
        mean, variance = float(x.mean()), float(x.var())

        def descent(y, mean=mean, variance=variance):
            return (-0.5 * (y - mean) ** 2 / variance + 0.5 * y**2)[:, 0]

        x = gradient_flow(descent, x, n_steps=1, step_size=0.1, noise=0.0, generator=generator())
    assert float(x.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(x.std()) == pytest.approx(1.0, abs=0.02)


def test_an_extreme_ratio_stays_finite():
    network = StaleRatio(1, loss="lsif", n_hidden=4, n_layers=1, n_waves=2, generator=generator())
    x = torch.zeros((3, 1))
    with torch.no_grad():
        for output in (-120.0, -15.0, 40.0):
            network.output.bias.fill_(output)
            found = network.log_ratio(x)
            shifted = output + math.log(math.expm1(1.0))
            expected = shifted if output < 0 else math.log(shifted)
            torch.testing.assert_close(found, torch.full((3,), expected), rtol=1e-5, atol=1e-5)
    network.output.bias.data.fill_(-120.0)
    moved = gradient_flow(network.log_ratio, x, n_steps=1, step_size=1.0, noise=0.0, generator=generator())
    assert torch.isfinite(moved).all()


def test_priors_are_the_distributions_they_name():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(5_000, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]]) + 3.0).float()
    gaussian = GaussianPrior(x).draw(50_000, generator())
    np.testing.assert_allclose(gaussian.mean(0), x.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(gaussian.T), np.cov(x.T), atol=0.06)
    uniform = UniformPrior(x).draw(50_000, generator())
    low, high = x.mean(0) - 4.0 * x.std(0), x.mean(0) + 4.0 * x.std(0)
    assert (uniform >= torch.maximum(x.amin(0), low) - 1e-4).all()
    assert (uniform <= torch.minimum(x.amax(0), high) + 1e-4).all()
    np.testing.assert_allclose(uniform.std(0), (uniform.amax(0) - uniform.amin(0)) / math.sqrt(12.0), rtol=0.02)
    drawn = CellPrior(x[:10]).draw(100, generator())
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in x[:10].tolist()}


def test_generated_cells_are_like_the_cells():
    model = trained()
    x = two_gaussians().obsm["X_pca"]
    found = model.sample(2_000)
    prior = model.prior.draw(2_000, generator()).numpy() * model.scale + model.location
    # Two humps of which the Gaussian prior has none.
    assert energy(found, x) < 0.3 * energy(prior, x)
    assert (found[:, 0] > 1.5).mean() == pytest.approx((x[:, 0] > 1.5).mean(), abs=0.06)
    np.testing.assert_allclose(found.std(0), x.std(0), rtol=0.15)


def test_without_flow_steps_nothing_is_improved_and_the_ratio_is_that_of_the_prior():
    model = FDRL(two_gaussians(), noise=0.0, data_noise=0.0, **{**SMALL, "n_flow_steps": 0})
    model.train(**{**SETTLED, "max_steps": 1_500})
    x = two_gaussians().obsm["X_pca"]
    start = model.prior.draw(2_000, torch_generator(0, 51)).numpy() * model.scale + model.location
    np.testing.assert_allclose(model.sample(2_000), start, atol=1e-5)
    # Prior N(m, S) over the half-and-half mixture, at the middle and at the humps.
    z = (np.array([[1.5, 0.0], [0.0, 0.0], [3.0, 0.0]]) - x.mean(0)) / x.std(0)
    gaussian = -0.5 * (z**2).sum(1) - np.log(2.0 * np.pi * x.std(0).prod())
    mixture = np.logaddexp(*(-0.5 * ((z * x.std(0) + x.mean(0) - m) ** 2).sum(1) for m in ((0, 0), (3, 0))))
    expected = gaussian - (mixture - np.log(2.0) - np.log(2.0 * np.pi))
    found = model.log_stale_ratio(cells(z * x.std(0) + x.mean(0), np.repeat("control", 3)))
    np.testing.assert_allclose(found, expected, atol=0.2)


def test_a_translation_moves_cells_to_the_target_and_keeps_what_they_differ_by():
    adata = two_gaussians()
    model = trained(source=(("condition", "control"),), target=(("condition", "treated"),))
    is_source = (adata.obs["condition"] == "control").to_numpy()
    x = adata.obsm["X_pca"]
    moved = model.translate(**ENDS)[is_source]
    assert energy(moved, x[~is_source]) < 0.05 * energy(x[is_source], x[~is_source])
    assert np.corrcoef(moved[:, 1], x[is_source, 1])[0, 1] > 0.9
    # No cell's translation depends on the others.
    rows = np.flatnonzero(is_source)[[7, 3]]
    np.testing.assert_allclose(model.translate(rows=rows), model.translate()[rows], atol=1e-4)


def test_a_condition_is_generated_by_a_classifier_of_ones_own_or_a_given_one():
    model = trained()
    own = model.sample(1_000, condition={"condition": "treated"}, guidance=0.5)
    assert (own[:, 0] > 1.5).mean() > 0.9
    # log p(control | x) of the known mixture.
    given = model.sample(
        1_000,
        condition={"condition": "control"},
        classifier=lambda x: torch.nn.functional.logsigmoid(4.5 - 3.0 * x[:, 0]),
        guidance=0.5,
    )
    assert (given[:, 0] < 1.5).mean() > 0.9


def test_the_same_seed_gives_the_same_bits():
    models = [FDRL(two_gaussians(), **SMALL) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        model.train(**BRIEF, random_state=seed)
    same, again, other = (model.sample(50) for model in models)
    np.testing.assert_array_equal(same, again)
    assert np.abs(same - other).max() > 1e-3
    assert np.abs(models[0].sample(50, random_state=1) - same).max() > 1e-3


def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(tmp_path, monkeypatch):
    whole, cut, resumed = (FDRL(two_gaussians(), **SMALL) for _ in range(3))
    whole.train(**BRIEF)
    step = _training.StaleRatioPlan.training_step

    def interrupted(self, batch, batch_idx):
        if self.global_step == 17:
            raise RuntimeError("power cut")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(_training.StaleRatioPlan, "training_step", interrupted)
        cut.train(**BRIEF, checkpoint_dir=tmp_path)
    resumed.train(**BRIEF, checkpoint_dir=tmp_path, resume=True)
    np.testing.assert_array_equal(whole.sample(50), resumed.sample(50))
    pd.testing.assert_frame_equal(whole.history["separation"], resumed.history["separation"])


@pytest.mark.parametrize("prior", ["gaussian", "uniform"])
@pytest.mark.parametrize("ends", [{}, ENDS])
def test_a_loaded_model_gives_the_same_bits(ends, prior, tmp_path):
    model = FDRL(two_gaussians(), prior=prior, loss="lsif", divergence="js", **ends, **SMALL)
    model.train(**BRIEF)
    model.save(tmp_path)
    loaded = FDRL.load(tmp_path)
    if ends:
        np.testing.assert_array_equal(loaded.translate(two_gaussians()), model.translate())
        with pytest.raises(ValueError, match="without cells"):
            loaded.translate()
    else:
        np.testing.assert_array_equal(loaded.sample(20), model.sample(20))
        with pytest.raises(ValueError, match="pass classifier"):
            loaded.sample(5, condition={"condition": "treated"})
    with pytest.raises(ValueError, match="no cells to train on"):
        loaded.train()
    pd.testing.assert_frame_equal(loaded.history["loss"], model.history["loss"])
    with pytest.raises(ValueError, match=r"class FDRL; load it with scratio\.model\.FDRL\.load"):
        ScRatio.load(tmp_path)


@pytest.mark.parametrize("ends", [{}, ENDS])
def test_a_model_loaded_with_its_cells_can_do_all_it_could(ends, tmp_path):
    model = FDRL(two_gaussians(), **ends, **SMALL)
    model.train(**BRIEF)
    model.save(tmp_path)
    loaded = FDRL.load(tmp_path, two_gaussians())
    asked = {"condition": {"condition": "treated"}}
    for one in (model, loaded):
        one.answer = one.translate() if ends else one.sample(20, **asked)
    np.testing.assert_array_equal(loaded.answer, model.answer)
    for one in (model, loaded):
        one.train(**BRIEF, random_state=1)
        one.answer = one.translate() if ends else one.sample(20, **asked)
    np.testing.assert_array_equal(loaded.answer, model.answer)


def test_a_training_that_fails_leaves_no_model_that_answers():
    model = FDRL(two_gaussians(), **SMALL)
    model.train(**BRIEF)
    with pytest.raises(FloatingPointError):
        model.train(**BRIEF, learning_rate=1e20)
    with pytest.raises(RuntimeError, match="train"):
        model.sample(2)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="precision must be one of"):
        model.train(**BRIEF, precision="64-true")
    assert np.isfinite(model.sample(2)).all()


def test_conditions_are_the_models_own_and_plain():
    adata = again()
    adata.obs["code"] = (adata.obs["condition"] == "treated").astype(int)
    FDRL.setup_anndata(adata, condition_keys=["code"])
    target = {"code": np.int64(1)}
    model = FDRL(adata, source={"code": 0}, target=target, **SMALL)
    target["code"] = 0
    assert (model.source, model.target) == ({"code": "0"}, {"code": "1"})
    model.train(**BRIEF)
    model.translate(source={"code": "0"}, target={"code": 1})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_dimension_that_is_constant_but_for_rounding_says_nothing(dtype):
    x = np.column_stack([two_gaussians().obsm["X_pca"], np.full(2_000, 0.1)]).astype(dtype)
    adata = cells(x, two_gaussians().obs["condition"].to_numpy())
    FDRL.setup_anndata(adata, condition_keys=["condition"])
    assert FDRL(adata).scale[2] == 1.0


def test_cells_that_lie_close_together_can_be_reached_from_afar():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(1_000, 2)), 0.05 * rng.normal(size=(100, 2))])
    adata = cells(x, np.repeat(["wide", "tight"], [1_000, 100]))
    FDRL.setup_anndata(adata, condition_keys=["condition"])
    ends = {"source": {"condition": "wide"}, "target": {"condition": "tight"}}
    model = FDRL(adata, **ends, **SMALL)
    model.train(**SETTLED)
    assert np.linalg.norm(model.translate(rows=np.arange(1_000)), axis=1).mean() < 0.5


def test_a_training_that_blows_up_is_stopped():
    model = FDRL(two_gaussians(), **SMALL)
    with pytest.raises(FloatingPointError, match="Lower step_size or learning_rate"):
        model.train(**BRIEF, learning_rate=1e20)
    assert not model.is_trained


def monitored(separations: list[float], spread: float = 1.0) -> None:
    monitor = _training.FlowMonitor()
    for step, separation in enumerate(separations):
        monitor.record(step, 1.0, separation, spread)


def test_a_separation_that_is_lost_again_stops_the_training():
    monitored([1.0] * 10 + [0.6] * 3 + [1.0] * 4)
    # A ratio that learns to tell them apart has lost nothing.
    monitored([0.6, 0.8, 0.95] + [1.0] * 10)
    with pytest.raises(FloatingPointError, match="told from cells better than in 60%"):
        monitored([1.0] * 10 + [0.6] * 3 + [1.0] * 5)
    with pytest.raises(FloatingPointError, match="times as spread as cells and starting points"):
        monitored([0.6], spread=1e3)


def test_a_training_that_does_not_arrive_says_so():
    far = cells(np.concatenate([np.zeros((200, 2)), np.full((200, 2), 50.0)]), np.repeat(["a", "b"], 200))
    far.obsm["X_pca"] += np.random.default_rng(0).normal(size=(400, 2))
    FDRL.setup_anndata(far, condition_keys=["condition"])
    model = FDRL(far, source={"condition": "a"}, target={"condition": "b"}, **{**SMALL, "n_flow_steps": 0})
    with pytest.warns(UserWarning, match="has not converged"):
        model.train(**{**BRIEF, "max_steps": 100})


def test_its_ratio_is_not_offered_as_a_log_ratio():
    with pytest.raises(TypeError, match="ScRatio for differential abundance"):
        trained().log_ratio(numerator={"condition": "treated"}, denominator={"condition": "control"})
    assert np.abs(trained().log_stale_ratio()).mean() < 0.5


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"prior": "beta"}, ValueError, "prior must be one of"),
        ({"divergence": "tv"}, ValueError, "divergence must be one of"),
        ({"loss": "hinge"}, ValueError, "loss must be one of"),
        ({"n_flow_steps": -1}, ValueError, "n_flow_steps must be at least 0"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive"),
        ({"noise": float("nan")}, ValueError, "noise must be at least 0"),
        ({"source": {"condition": "control"}}, ValueError, "target was not"),
        ({"target": {"condition": "stim"}}, ValueError, r"obs\['condition'\] has no category 'stim'"),
        ({"target": {"dose": 1}}, KeyError, "not registered"),
        ({"target": {"condition": scratio.Rest("treated")}}, ValueError, "categories alone"),
    ],
)
def test_wrong_settings_are_refused(kwargs, error, match):
    with pytest.raises(error, match=match):
        FDRL(two_gaussians(), **kwargs)


def test_wrong_questions_are_refused():
    generating, translating = trained(), FDRL(two_gaussians(), **ENDS, **SMALL)
    with pytest.raises(RuntimeError, match="train"):
        translating.translate()
    translating.train(**BRIEF)
    for call, match in (
        (lambda: generating.translate(**ENDS), "make one with"),
        (lambda: translating.translate(source=ENDS["target"]), "not for source="),
        (lambda: translating.sample(5), "translate them"),
        (lambda: generating.sample(0), "n_samples must be at least 1"),
        (lambda: generating.sample(5, extra_steps=-1), "extra_steps"),
        (lambda: generating.sample(5, classifier=lambda x: x[:, 0]), "condition is not"),
        (lambda: generating.sample(5, condition={}), "cannot be told apart"),
        (lambda: generating.train(max_steps=0), "max_steps"),
        (lambda: flow_model().translate(**ENDS, n_steps=0), "n_steps must be at least 1"),
        (lambda: flow_model().translate(**ENDS, batch_size=0), "batch_size must be at least 1"),
        (lambda: flow_model().sample(2, condition={}, n_steps=0), "n_steps must be at least 1"),
        (lambda: generating.train(resume=True), "checkpoint_dir"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("divergence", list(DIVERGENCES))
@pytest.mark.parametrize("loss", ["logistic", "lsif"])
def test_every_divergence_and_loss_translates(divergence, loss):
    adata = two_gaussians()
    model = FDRL(adata, **ENDS, divergence=divergence, loss=loss, **SMALL)
    model.train(**SETTLED)
    is_source = (adata.obs["condition"] == "control").to_numpy()
    x = adata.obsm["X_pca"]
    assert energy(model.translate()[is_source], x[~is_source]) < 0.1 * energy(x[is_source], x[~is_source])


@functools.cache
def flow_model() -> ScRatio:
    adata = again()
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_members=1, n_hidden=32)
    model.train(
        max_steps=250, batch_size=256, warmup_steps=20, early_stopping=False, progress_bar=False, accelerator="cpu"
    )
    return model


def test_the_exact_flow_carries_a_gaussian_to_the_other(make_analytic, codes):
    variances = np.array([[1.0, 0.5, 0.8], [0.7, 1.2, 0.9], [1.0, 0.6, 1.1]])
    network = make_analytic(covariances=np.stack([np.diag(v) for v in variances]))
    x, means = network.draw(50), network.means.numpy()
    moved = translate(network, torch.from_numpy(x), codes(0), codes(1))[0].numpy()
    # The optimal map between axis-aligned Gaussians, at the smallest noise level.
    noise = network.path.smallest_noise_level**2
    expected = means[1] + np.sqrt((variances[1] + noise) / (variances[0] + noise)) * (x - means[0])
    np.testing.assert_allclose(moved, expected, atol=2e-3)


def test_the_flow_model_translates_too():
    model = flow_model()
    x, is_source = model.adata.obsm["X_pca"], (model.adata.obs["condition"] == "control").to_numpy()
    rows = np.flatnonzero(is_source)[:400]
    moved = model.translate(**ENDS, rows=rows)
    assert energy(moved, x[~is_source]) < 0.05 * energy(x[rows], x[~is_source])
    # No cell goes anywhere between one condition and itself, and none depends on its batch.
    back = model.translate(source=ENDS["source"], target=ENDS["source"], rows=rows)
    np.testing.assert_allclose(back, x[rows], atol=2e-3)
    np.testing.assert_allclose(model.translate(**ENDS, rows=rows[[7, 3]], batch_size=1), moved[[7, 3]], atol=1e-4)


def test_translations_are_written_for_cells_of_the_source(unchanged):
    adata = again()
    model = trained(source=(("condition", "control"),), target=(("condition", "treated"),))
    is_source = (adata.obs["condition"] == "control").to_numpy()
    scratio.tl.translate(adata, model, **ENDS)
    moved, displacement = adata.obsm["X_fdrl"], adata.obsm["X_fdrl_displacement"]
    assert np.isnan(moved[~is_source]).all()
    np.testing.assert_allclose(moved[is_source] - displacement[is_source], adata.obsm["X_pca"][is_source])
    # The check that it worked: the log ratio of an independent model rises.
    after = cells(moved[is_source], np.repeat("control", is_source.sum()))
    contrast = {"numerator": ENDS["target"], "denominator": ENDS["source"]}
    rise = flow_model().log_ratio(after, **contrast) - flow_model().log_ratio(adata[is_source].copy(), **contrast)
    assert (rise > 0.0).mean() > 0.95
    few = adata[:60].copy()
    scratio.tl.translate(few, flow_model(), **ENDS)
    rows = np.flatnonzero(is_source[:60])
    np.testing.assert_array_equal(few.obsm["X_scratio"][rows], flow_model().translate(few, **ENDS, rows=rows))
    assert few.uns["X_scratio"]["params"]["model"] == "ScRatio"
    own = again()
    own.obsm["X_fdrl"] = own.obsm["X_pca"]
    with unchanged(own), pytest.raises(ValueError, match="X_fdrl"):
        scratio.tl.translate(own, model, **ENDS)
    with unchanged(adata), pytest.raises(ValueError, match="no category 'stim'"):
        scratio.tl.translate(adata, model, source={"condition": "stim"}, target=ENDS["target"], key_added="other")
    copied = scratio.tl.translate(own, model, **ENDS, key_added="moved", copy=True)
    assert "moved" in copied.obsm
    assert "moved" not in own.obsm
