"""`ScRatio` against known answers: Gaussians, marginals, units, folds, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import scratio
from scratio import OWN
from scratio.estimators import log_density, log_ratio_ito, log_ratio_ode, normal_noise
from scratio.estimators._ito import N_PATHS
from scratio.model import ScRatio
from scratio.module import Condition
from scratio.scoring import networks_and_rows
from scratio.scoring._methods import _PATHS

TREATED, CONTROL = {"condition": "treated"}, {"condition": "control"}
CONTRAST = {"numerator": TREATED, "denominator": CONTROL}

METHODS = {
    "S1": {"method": "ode"},
    "S2": {"method": "ode", "field": "unconditional"},
    "the denominator's field": {"method": "ode", "field": CONTROL},
    "naive": {"method": "naive"},
    "quadrature": {"method": "quadrature"},
    "auto": {"method": "auto"},
}
"""Ways to a log ratio that every parametrization has; another estimator is one more line here."""


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> dict:
    return request.param


def train(adata, parametrization: str, settings: dict, *, keys=("condition",), continuous=(), **kwargs) -> ScRatio:
    ScRatio.setup_anndata(adata, condition_keys=list(keys), continuous_keys=list(continuous))
    model = ScRatio(adata, **{"parametrization": parametrization, "n_hidden": 32, "n_members": 1, **kwargs})
    model.train(**settings)
    return model


def mse(values: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean((values - truth) ** 2))


@pytest.fixture(scope="module")
def few(trained) -> scratio.model.ScRatio:
    """60 of the training cells, as new cells."""
    return trained.adata[:60].copy()


# --- known answers


def test_log_ratio_of_gaussians_is_near_the_closed_form(trained, method):
    cells = trained.adata[:400].copy()
    truth = cells.obs["true_log_ratio"].to_numpy()
    # The truth has variance d distance^2 (1 + d distance^2 / 4) = 5.25 here; 500 steps leave a fiftieth of it.
    assert mse(trained.log_ratio(cells, **CONTRAST, **method, n_steps=8), truth) < 0.1
    assert truth.var() > 4.0


def test_log_ratio_to_the_marginal_is_near_the_closed_form(trained):
    x = trained.adata.obsm["X_pca"][:400].astype(float)
    treated, control = (multivariate_normal(np.full(3, m), np.eye(3)).logpdf(x) for m in (1.0, 0.0))
    share = (trained.adata.obs["condition"] == "treated").mean()
    marginal = logsumexp([treated + np.log(share), control + np.log(1 - share)], axis=0)
    cells = trained.adata[:400].copy()
    ratio = trained.log_ratio(cells, numerator=TREATED, denominator={})
    assert mse(ratio, treated - marginal) < 0.1
    assert (treated - marginal).var() > 0.5


def test_log_prob_of_gaussians_is_near_the_closed_form(trained, few):
    x = few.obsm["X_pca"].astype(float)
    for condition, mean in ((TREATED, 1.0), (CONTROL, 0.0)):
        truth = multivariate_normal(np.full(3, mean), np.eye(3)).logpdf(x)
        assert mse(trained.log_prob(few, condition=condition, n_steps=8), truth) < 0.15


def test_naive_is_the_difference_of_log_probs(trained, few):
    parts = [trained.log_prob(few, condition=condition, n_steps=4) for condition in (TREATED, CONTROL)]
    ratio = trained.log_ratio(few, **CONTRAST, method="naive", n_steps=4)
    np.testing.assert_allclose(ratio, parts[0] - parts[1], rtol=0, atol=1e-9)


def test_samples_have_the_mean_and_covariance_of_the_condition(trained):
    for condition, mean in ((TREATED, 1.0), (CONTROL, 0.0)):
        drawn = trained.sample(4_000, condition=condition)
        np.testing.assert_allclose(drawn.mean(0), mean, atol=0.12)
        np.testing.assert_allclose(np.cov(drawn.T), np.eye(3), atol=0.2)


def test_samples_follow_the_cells_also_where_the_conditions_do_not_differ(thorough):
    # Two groups far apart, labels that mean nothing. The classifier has no say, the density must have one: .023 of the
    # cells lie between, .24 of the samples of an untrained network.
    adata = scratio.datasets.gaussians(n_cells=1_000, n_dims=1, distance=0.0, random_state=0)
    adata.obsm["X_pca"] = adata.obsm["X_pca"] + 6.0 * (np.arange(1_000) % 2)[:, None]
    model = train(adata, "potential", {**thorough, "max_steps": 1_000})
    drawn = model.sample(1_000, condition=TREATED)
    assert float(np.mean((drawn > 2.0) & (drawn < 4.0))) < 0.06
    assert abs(float(np.mean(drawn > 3.0)) - 0.5) < 0.1


def test_samples_depend_on_the_seed_alone(trained):
    first, again, other = (trained.sample(10, condition=TREATED, random_state=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_imbalance_does_not_shift_the_log_ratio(parametrization, thorough):
    adata = scratio.datasets.gaussians(n_cells=4_000, n_dims=2, random_state=1)
    treated = np.flatnonzero(adata.obs["condition"] == "treated")
    control = np.flatnonzero(adata.obs["condition"] == "control")
    adata = adata[np.concatenate([treated[:200], control])].copy()  # one treated cell to ten
    model = train(adata, parametrization, thorough)
    cells = scratio.datasets.gaussians(n_cells=400, n_dims=2, random_state=2)
    ratio = model.log_ratio(cells, **CONTRAST)
    # A shift by the prior would be log 10 = 2.3.
    assert abs(float(np.mean(ratio - cells.obs["true_log_ratio"]))) < 0.3


def test_two_keys_are_marginalised_with_their_observed_weights(parametrization, thorough):
    # x depends on both keys and the keys on each other: log p(x | a) is a mixture over b with weights p(b | a).
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2, 3_000)
    b = (rng.uniform(size=3_000) < np.where(a == 1, 0.8, 0.3)).astype(int)
    means = np.array([[-1.0, 0.5], [0.0, 2.0]])  # means[a, b]; unlike a sum of two effects
    adata = scratio.datasets.gaussians(n_cells=3_000, n_dims=1)
    adata.obsm["X_pca"] = (means[a, b] + rng.normal(size=3_000))[:, None]
    adata.obs["a"], adata.obs["b"] = a.astype(str), b.astype(str)
    settings = {**thorough, "max_steps": {"heads": 800, "potential": 400}[parametrization], "batch_size": 512}
    model = train(adata, parametrization, settings, keys=("a", "b"), condition_dropout=0.3, n_members=2)

    x = np.linspace(-1.0, 2.0, 21)
    cells = scratio.datasets.gaussians(n_cells=21, n_dims=1)
    cells.obsm["X_pca"] = x[:, None]
    joint = np.array([[np.mean((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)])

    def log_density(**given: int) -> np.ndarray:
        weight = joint.copy()
        for axis, key in enumerate("ab"):
            if key in given:
                weight[(1 - given[key], slice(None)) if axis == 0 else (slice(None), 1 - given[key])] = 0.0
        each = norm(means, 1.0).logpdf(x[:, None, None])
        return logsumexp(each, b=weight / weight.sum(), axis=(1, 2))

    for top, bottom in (({"a": 1}, {"a": 0}), ({"b": 1}, {"b": 0}), ({"a": 1, "b": 1}, {"a": 1}), ({"a": 0}, {})):
        truth = log_density(**top) - log_density(**bottom)
        assert mse(model.log_ratio(cells, numerator=top, denominator=bottom), truth) < 0.06
        assert truth.var() > 0.15


def test_a_continuous_key_may_take_values_between_and_be_left_out(parametrization, thorough):
    # x ~ N(dose, 1) with dose ~ N(2, 1): x | dose in closed form, and marginally N(2, 2).
    rng = np.random.default_rng(0)
    adata = scratio.datasets.gaussians(n_cells=3_000, n_dims=1)
    dose = rng.normal(2.0, 1.0, 3_000)
    adata.obs["dose"] = dose
    adata.obsm["X_pca"] = (dose + rng.normal(size=3_000))[:, None]
    model = train(adata, parametrization, thorough, keys=(), continuous=("dose",))
    x = np.linspace(0.0, 4.0, 17)
    cells = scratio.datasets.gaussians(n_cells=17, n_dims=1)
    cells.obsm["X_pca"] = x[:, None]
    ratio = model.log_ratio(cells, numerator={"dose": 2.7}, denominator={"dose": 1.4})
    assert mse(ratio, norm(2.7, 1.0).logpdf(x) - norm(1.4, 1.0).logpdf(x)) < 0.06
    marginal = model.log_ratio(cells, numerator={"dose": 2.7}, denominator={})
    assert mse(marginal, norm(2.7, 1.0).logpdf(x) - norm(2.0, np.sqrt(2.0)).logpdf(x)) < 0.06


# --- identities


def test_log_ratio_of_a_condition_to_itself_is_zero(trained, few, method):
    ratio = trained.log_ratio(few, numerator=TREATED, denominator=TREATED, **method, n_steps=4)
    np.testing.assert_array_equal(ratio, 0.0)


@pytest.fixture(params=["S2", "naive"])
def consistent(request: pytest.FixtureRequest) -> dict:
    """Methods that are antisymmetric and transitive to rounding for any network; S1 has a path of its own each way."""
    return {**METHODS[request.param], "n_steps": 4}


def test_log_ratio_is_antisymmetric(trained, few, consistent):
    forward = trained.log_ratio(few, **CONTRAST, **consistent)
    backward = trained.log_ratio(few, numerator=CONTROL, denominator=TREATED, **consistent)
    np.testing.assert_allclose(forward, -backward, rtol=0, atol=1e-5)
    assert forward.std() > 1.0


def test_log_ratio_along_the_numerators_field_is_antisymmetric_up_to_the_error_of_the_network(trained, few):
    forward = trained.log_ratio(few, **CONTRAST, method="ode", n_steps=8)
    backward = trained.log_ratio(few, numerator=CONTROL, denominator=TREATED, method="ode", n_steps=8)
    assert mse(forward, -backward) < 0.1


def test_log_ratio_is_transitive(trained, few, consistent):
    pairs = ((TREATED, {}), ({}, CONTROL), (TREATED, CONTROL))
    ratios = [trained.log_ratio(few, numerator=a, denominator=b, **consistent) for a, b in pairs]
    np.testing.assert_allclose(ratios[0] + ratios[1], ratios[2], rtol=0, atol=1e-5)


def test_rescaling_the_embedding_by_powers_of_two_changes_no_bit_of_the_log_ratio(parametrization, quick):
    # 256 cells on a grid of 1/1024: means, deviations and standardised cells are then the same numbers exactly.
    adata = scratio.datasets.gaussians(n_cells=256, n_dims=2, random_state=0)
    adata.obsm["X_pca"] = np.round(adata.obsm["X_pca"].astype(float) * 1024) / 1024
    other = adata.copy()
    other.obsm["X_pca"] = other.obsm["X_pca"] * [4.0, 0.5] + [3.0, -8.0]
    models = [train(cells, parametrization, quick, n_hidden=8) for cells in (adata, other)]
    np.testing.assert_array_equal(models[0].log_ratio(**CONTRAST), models[1].log_ratio(**CONTRAST))
    # Densities, unlike their ratios, are per unit of volume: 4 * 0.5 = 2 times the volume.
    densities = [model.log_prob(condition=TREATED, n_steps=2) for model in models]
    np.testing.assert_allclose(densities[0] - densities[1], np.log(2.0), rtol=1e-12)


def test_rescaling_the_embedding_changes_the_log_ratio_by_rounding_alone(parametrization, quick):
    adata = scratio.datasets.gaussians(n_cells=300, n_dims=2, random_state=0)
    adata.obsm["X_pca"] = adata.obsm["X_pca"].astype(float)
    other = adata.copy()
    other.obsm["X_pca"] = other.obsm["X_pca"] * [37.3, 0.011] + [-5.1, 1e3]
    ratios = [train(cells, parametrization, quick, n_hidden=8).log_ratio(**CONTRAST) for cells in (adata, other)]
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=0, atol=1e-4)
    assert ratios[0].std() > 1e-3


@pytest.mark.parametrize("divergence", ["exact", "rademacher"])
def test_results_do_not_depend_on_the_batch_size(trained, few, method, divergence):
    whole = trained.log_ratio(few, **CONTRAST, **method, divergence=divergence, n_steps=1)
    parts = trained.log_ratio(few, **CONTRAST, **method, divergence=divergence, n_steps=1, batch_size=40)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=2e-4)


@pytest.mark.parametrize("divergence", ["exact", "rademacher"])
def test_results_do_not_depend_on_the_order_of_the_cells(trained, few, method, divergence):
    order = np.random.default_rng(0).permutation(60)
    whole = trained.log_ratio(few, **CONTRAST, **method, divergence=divergence, n_steps=1)
    shuffled = trained.log_ratio(few[order].copy(), **CONTRAST, **method, divergence=divergence, n_steps=1)
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=2e-4)


def test_probes_are_near_the_exact_divergence(trained, few):
    divergences = ("exact", "rademacher")
    exact, probed = (trained.log_ratio(few, **CONTRAST, method="ode", divergence=d, n_steps=4) for d in divergences)
    assert 0.0 < mse(probed, exact) < 0.05


def test_own_is_each_cells_own_label(trained, few):
    own = trained.log_ratio(few, numerator={"condition": OWN}, denominator=CONTROL)
    treated = trained.log_ratio(few, **CONTRAST)
    expected = np.where(few.obs["condition"] == "treated", treated, 0.0)
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-4)
    assert np.abs(treated[few.obs["condition"] == "control"]).min() > 1e-3  # which the zeros are not


def test_own_labels_stay_with_their_cells_in_batches_and_folds(trained, folded, few):
    whole = trained.log_ratio(few, numerator={"condition": OWN}, denominator={})
    parts = trained.log_ratio(few, numerator={"condition": OWN}, denominator={}, batch_size=25)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-4)
    model, _ = folded
    treated = (model.adata.obs["condition"] == "treated").to_numpy()
    each = [model.log_ratio(numerator=condition, denominator={}) for condition in (TREATED, CONTROL)]
    own = model.log_ratio(numerator={"condition": OWN}, denominator={}, batch_size=13)
    np.testing.assert_allclose(own, np.where(treated, *each), rtol=0, atol=1e-4)
    assert np.abs(each[0] - each[1]).mean() > 1e-2


def test_the_head_is_the_default_of_the_potential_and_of_nothing_else(trained, few, parametrization):
    auto = trained.log_ratio(few, **CONTRAST)
    if parametrization == "potential":
        np.testing.assert_array_equal(auto, trained.log_ratio(few, **CONTRAST, method="head"))
    else:
        np.testing.assert_array_equal(auto, trained.log_ratio(few, **CONTRAST, method="ode"))
        with pytest.raises(ValueError, match="head.*potential"):
            trained.log_ratio(few, **CONTRAST, method="head")


# --- members and folds


def test_the_result_is_the_mean_over_the_members_and_the_std_a_jackknife(trained, few, parametrization):
    mean, std = trained.log_ratio(few, **CONTRAST, method="ode", n_steps=2, return_std=True)
    x = torch.from_numpy(trained.embedding(few))
    one, other = (Condition(torch.tensor([[c]]), torch.zeros((1, 0))) for c in (1, 0))  # control, treated in order

    def of(network) -> np.ndarray:
        with torch.no_grad():
            return log_ratio_ode(network, x, one, other, n_steps=2).numpy()

    members = of(trained.module)
    assert members.shape == (2, 60)
    np.testing.assert_allclose(mean, members.mean(0), rtol=1e-9)
    np.testing.assert_allclose(std**2, jackknife(members), rtol=1e-6)


def jackknife(members: np.ndarray) -> np.ndarray:
    """Variance of the mean of two members that left out another tenth each, written out.

    (1 - 1/10) / (1/10) = 9 times the variance between them.
    """
    return 9.0 * 0.5 * (members[0] - members[1]) ** 2


def test_the_standard_error_of_a_log_density_is_the_jackknife_of_the_members(trained, few):
    from_both, std = trained.log_prob(few, condition=TREATED, n_steps=2, return_std=True)
    np.testing.assert_array_equal(from_both, trained.log_prob(few, condition=TREATED, n_steps=2))
    x = torch.from_numpy(trained.embedding(few))
    with torch.no_grad():
        members = log_density(trained.module, x, Condition(torch.tensor([[1]]), torch.zeros((1, 0))), n_steps=2).numpy()
    np.testing.assert_allclose(std**2, jackknife(members), rtol=1e-6)


def test_the_error_of_the_pathwise_estimate_is_that_of_the_members_and_of_the_paths(trained, few):
    mean, std = trained.log_ratio(few, **CONTRAST, method="ito", n_steps=16, return_std=True)
    assert mse(mean, trained.log_ratio(few, **CONTRAST, method="quadrature")) < 0.5
    x = trained.embedding(few)
    noise = normal_noise(x, (N_PATHS, 17, 3), _PATHS)
    one, other = (Condition(torch.tensor([[c]]), torch.zeros((1, 0))) for c in (1, 0))
    with torch.no_grad():
        members, variance = log_ratio_ito(trained.module, torch.from_numpy(x), one, other, noise=noise)
    expected = jackknife(members.numpy()) + (variance.sum(0) / 4.0).numpy()
    np.testing.assert_allclose(std**2, expected, rtol=1e-6)
    assert float(variance.min()) > 0.0


def test_a_single_network_has_the_error_of_the_paths_alone(gaussian_cells, parametrization, quick):
    model = train(gaussian_cells, parametrization, quick, n_hidden=8)
    _, std = model.log_ratio(**CONTRAST, method="ito", n_steps=4, return_std=True)
    assert (std > 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_without_an_effect_the_log_ratio_is_nearly_zero_and_its_error_covers_it(thorough, seed):
    adata = scratio.datasets.gaussians(n_cells=1_000, n_dims=2, distance=0.0, random_state=seed)
    # Of so few cells members hold out a quarter by default, whose labels show that there is nothing.
    model = train(adata, "potential", {**thorough, "validation_size": None}, n_members=2)
    mean, std = model.log_ratio(**CONTRAST, return_std=True)
    assert np.sqrt(np.mean(mean**2)) < 0.15
    assert (std > 0.0).all()
    assert np.mean(np.abs(mean) < 1.645 * std) > 0.5


@pytest.fixture(scope="module")
def folded(parametrization, quick):
    """A cross-fitted model of 3 folds with 2 members each, and the rows that each of its networks was given."""
    adata = scratio.datasets.gaussians(n_cells=150, n_dims=2, random_state=0)
    with pytest.MonkeyPatch.context() as patch:
        given = []
        original = scratio.model._training.CellDataModule

        def spy(x, condition, splits, *args, **kwargs):
            given.extend(splits)
            return original(x, condition, splits, *args, **kwargs)

        patch.setattr("scratio.model._training.CellDataModule", spy)
        settings = {**quick, "validation_size": 0.1}
        model = train(adata, parametrization, settings, n_hidden=8, n_members=2, n_folds=3)
    return model, given


def test_no_cell_is_scored_by_a_network_that_saw_it(folded):
    model, splits = folded
    scored = []
    networks = model._networks(True)
    for fold, rows in networks_and_rows(networks, model.folds, 150, batch_size=20):
        network = networks[fold]
        # Which of the trained members these are is told by their weights.
        parameters = list(zip(network.parameters(), model.module.parameters(), strict=True))
        for part in range(2):
            matches = [m for m in range(6) if all(torch.equal(p[part], q[m]) for p, q in parameters)]
            assert len(matches) == 1
            split = splits[matches[0]]
            assert not set(rows) & (set(split.train) | set(split.validation))
        scored.extend(rows)
    assert sorted(scored) == list(range(150))


def test_the_networks_of_a_fold_decide_the_scores_of_its_cells_alone(folded):
    model, _ = folded
    before = model.log_ratio(**CONTRAST)
    with torch.no_grad():
        kept = [p.clone() for p in model.module.parameters()]
        for parameter in model.module.parameters():
            parameter[2:4] = torch.nan  # the members of fold 1
        spoilt = model.log_ratio(**CONTRAST)
        for parameter, value in zip(model.module.parameters(), kept, strict=True):
            parameter.copy_(value)
    np.testing.assert_array_equal(np.isnan(spoilt), model.folds == 1)
    np.testing.assert_array_equal(spoilt[model.folds != 1], before[model.folds != 1])


def test_the_networks_of_a_fold_saw_all_other_cells(folded):
    model, splits = folded
    for m, split in enumerate(splits):
        seen = np.sort(np.concatenate([split.train, split.validation]))
        np.testing.assert_array_equal(seen, np.flatnonzero(model.folds != m // 2))
        assert len(split.validation) == 10


def test_a_part_of_the_training_cells_is_scored_out_of_fold(folded):
    model, _ = folded
    rows = np.array([140, 3, 77])
    contrast = {"numerator": {"condition": OWN}, "denominator": {}}
    np.testing.assert_allclose(model.log_ratio(**contrast, rows=rows), model.log_ratio(**contrast)[rows], rtol=1e-5)


def test_folds_hold_their_share_of_every_condition(folded):
    model, _ = folded
    treated = (model.adata.obs["condition"] == "treated").to_numpy()
    for cells in (treated, ~treated):
        counts = np.bincount(model.folds[cells], minlength=3)
        assert counts.max() - counts.min() <= 1


def test_new_cells_are_scored_by_all_networks(folded):
    model, splits = folded
    cells = model.adata.copy()
    cells.obsm["X_pca"] = cells.obsm["X_pca"] + 0.01
    mean, std = model.log_ratio(cells, **CONTRAST, method="ode", n_steps=2, return_std=True)
    x = torch.from_numpy(model.embedding(cells))
    one, other = (Condition(torch.tensor([[c]]), torch.zeros((1, 0))) for c in (1, 0))
    with torch.no_grad():
        members = log_ratio_ode(model.module, x, one, other, n_steps=2).numpy()
    np.testing.assert_allclose(mean, members.mean(0), rtol=1e-9)
    # Two networks that have few training cells in common vary by more than two that have most.
    rows = [set(split.train) for split in splits]
    pairs = [(a, b) for a in range(6) for b in range(a)]
    distinct = np.mean([1.0 - len(rows[a] & rows[b]) / np.sqrt(len(rows[a]) * len(rows[b])) for a, b in pairs])
    np.testing.assert_allclose(std**2, members.var(0, ddof=1) / distinct, rtol=1e-5)


# --- new cells


def test_the_same_cells_in_another_anndata_have_the_same_log_ratio(trained):
    np.testing.assert_array_equal(trained.log_ratio(trained.adata.copy(), **CONTRAST), trained.log_ratio(**CONTRAST))


def test_scoring_leaves_the_cells_as_they_were(trained, few, unchanged):
    with unchanged(few):
        trained.log_ratio(few, **CONTRAST)
        trained.log_prob(few, condition=TREATED)


def test_new_cells_need_no_labels_but_for_own(trained, few):
    unlabelled = few.copy()
    del unlabelled.obs["condition"]
    np.testing.assert_array_equal(trained.log_ratio(unlabelled, **CONTRAST), trained.log_ratio(few, **CONTRAST))
    with pytest.raises(KeyError, match="condition"):
        trained.log_ratio(unlabelled, numerator={"condition": OWN}, denominator={})


def test_new_cells_of_an_unseen_category_are_refused_by_name(trained, few):
    cells = few.copy()
    cells.obs["condition"] = np.where(np.arange(60) < 3, "washed out", "treated")
    with pytest.raises(ValueError, match="condition.*washed out"):
        trained.log_ratio(cells, numerator={"condition": OWN}, denominator={})


def test_new_cells_of_another_dimension_are_refused(trained, few):
    cells = few.copy()
    cells.obsm["X_pca"] = cells.obsm["X_pca"][:, :2]
    with pytest.raises(ValueError, match="X_pca.*2 dimensions.*3"):
        trained.log_ratio(cells, **CONTRAST)


def test_new_cells_with_a_bad_embedding_are_refused(trained, few):
    cells = few.copy()
    cells.obsm["X_pca"][4] = np.nan
    with pytest.raises(ValueError, match="X_pca.*cell4"):
        trained.log_ratio(cells, **CONTRAST)


# --- velocity and score


@pytest.fixture(scope="module")
def standard() -> ScRatio:
    """A model that stayed the flow of a standard Gaussian in standardised coordinates, on a stretched embedding."""
    adata = scratio.datasets.gaussians(n_cells=200, n_dims=2, random_state=0)
    adata.obsm["X_pca"] = adata.obsm["X_pca"] * [3.0, 0.2] + [10.0, -1.0]
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, parametrization="heads", n_hidden=8, n_members=2)
    model.train(max_steps=1, learning_rate=1e-30, weight_decay=0.0, progress_bar=False, accelerator="cpu")
    return model


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_velocity_and_score_are_in_the_units_of_the_embedding(standard, t):
    x = standard.adata.obsm["X_pca"][:20]
    z = (x - standard.location) / standard.scale
    lambda_ = 1.0 - 0.98 * t
    variance = t**2 + lambda_**2
    velocity, score = standard.velocity(x, t, TREATED).numpy(), standard.score(x, t, TREATED).numpy()
    np.testing.assert_allclose(velocity, (t - 0.98 * lambda_) / variance * z * standard.scale, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score, -z / variance / standard.scale, rtol=1e-4, atol=1e-4)


def test_the_location_is_the_mean_of_the_central_cells(standard):
    x = standard.adata.obsm["X_pca"]
    central = np.clip(x, *np.quantile(x, [0.01, 0.99], axis=0))
    np.testing.assert_allclose(standard.location, central.mean(0), rtol=1e-9)


def test_log_prob_is_a_density_per_unit_of_the_embedding(standard):
    # N(0, 1 + sigma_min^2) in the coordinates of the networks, exactly, and the Jacobian of these.
    x, where = standard.adata.obsm["X_pca"], standard.coordinates
    expected = norm(0.0, np.sqrt(1 + 0.02**2)).logpdf(where.forward(x)).sum(1) + np.log(where.slope(x)).sum(1)
    np.testing.assert_allclose(standard.log_prob(condition=TREATED), expected, rtol=1e-6, atol=1e-6)


def test_times_may_differ_between_states(trained):
    x, t = np.random.default_rng(0).normal(size=(4, 3)), np.array([0.1, 0.4, 0.4, 0.9])
    for function in (trained.velocity, trained.score):
        together = function(x, t, TREATED)
        for row in range(4):
            alone = function(x[row : row + 1], float(t[row]), TREATED)
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


def test_states_may_be_tensors(trained):
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert torch.equal(trained.velocity(torch.from_numpy(x), 0.5, {}), trained.velocity(x, 0.5, {}))


# --- the paper's network


def test_the_papers_network_learns(thorough):
    # Its own settings need 100,000 steps; wider steps on a small copy show that losses and signs are right.
    adata = scratio.datasets.gaussians(n_cells=2_000, n_dims=2, random_state=0)
    settings = {**thorough, "learning_rate": 2e-3, "ema_decay": 0.99, "max_steps": 200}
    model = train(adata, "heads", settings, block="mlp", n_hidden=32, n_layers=2)
    cells = adata[:80].copy()
    truth = cells.obs["true_log_ratio"].to_numpy()
    for how in (METHODS["S1"], METHODS["naive"]):
        assert mse(model.log_ratio(cells, **CONTRAST, **how, n_steps=8), truth) < 0.3 * truth.var()


# --- refusals


QUERIES = {
    "log_ratio": lambda model: model.log_ratio(**CONTRAST),
    "log_prob": lambda model: model.log_prob(condition=TREATED),
    "sample": lambda model: model.sample(3, condition=TREATED),
    "velocity": lambda model: model.velocity(np.zeros((1, 2)), 0.5, TREATED),
    "score": lambda model: model.score(np.zeros((1, 2)), 0.5, TREATED),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_an_untrained_model_answers_nothing(gaussian_cells, parametrization, query):
    ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = ScRatio(gaussian_cells, parametrization=parametrization, n_hidden=8, n_members=1)
    with pytest.raises(RuntimeError, match="train"):
        query(model)


@pytest.mark.parametrize(
    ("kwargs", "error", "named"),
    [
        ({"numerator": {"batch": "1"}}, KeyError, "numerator.*batch"),
        ({"denominator": {"condition": "placebo"}}, ValueError, "denominator.*condition.*placebo.*control"),
        ({"numerator": "treated"}, TypeError, "numerator.*dict"),
        ({"method": "magic"}, ValueError, "method.*magic"),
        ({"field": "denominator"}, ValueError, "field.*denominator"),
        ({"field": {"condition": "placebo"}}, ValueError, "field.*placebo"),
        ({"divergence": "hutchinson"}, ValueError, "divergence.*hutchinson"),
        ({"n_steps": 0}, ValueError, "n_steps"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_a_wrong_question_is_refused_by_name(trained, kwargs, error, named):
    with pytest.raises(error, match=named):
        trained.log_ratio(**{**CONTRAST, "method": "ode", **kwargs})


def test_each_cells_own_number_is_as_asked_for_by_hand(quick, parametrization):
    adata = scratio.datasets.gaussians(n_cells=100, n_dims=2, random_state=0)
    adata.obs["dose"] = np.random.default_rng(0).normal(size=100)
    model = train(adata, parametrization, quick, continuous=("dose",), n_hidden=8)
    own = model.log_ratio(numerator={"dose": OWN}, denominator={"condition": "control"})
    for cell in (0, 37, 99):
        dose = float(adata.obs["dose"].iloc[cell])
        alone = model.log_ratio(adata[[cell]].copy(), numerator={"dose": dose}, denominator={"condition": "control"})
        np.testing.assert_allclose(own[cell], alone[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(own - model.log_ratio(numerator={"dose": 0.0}, denominator={"condition": "control"})) > 1e-4


@pytest.mark.parametrize("value", ["high", True, np.nan])
def test_a_continuous_key_takes_numbers_alone(quick, value, parametrization):
    adata = scratio.datasets.gaussians(n_cells=100, n_dims=2, random_state=0)
    adata.obs["dose"] = np.arange(100.0)
    model = train(adata, parametrization, quick, continuous=("dose",), n_hidden=8)
    with pytest.raises(ValueError, match="dose"):
        model.log_ratio(numerator={"dose": value}, denominator={})


def test_a_combination_that_no_cell_has_is_refused_by_the_potential(quick):
    adata = scratio.datasets.gaussians(n_cells=100, n_dims=2, random_state=0)
    adata.obs["batch"] = np.where(adata.obs["condition"] == "treated", "1", np.where(np.arange(100) % 2, "1", "2"))
    model = train(adata, "potential", quick, keys=("condition", "batch"), n_hidden=8)
    with pytest.raises(ValueError, match="treated.*2"):
        model.log_ratio(numerator={"condition": "treated", "batch": "2"}, denominator={})


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda m: m.sample(0, condition=TREATED), ValueError, "n_samples"),
        (lambda m: m.sample(3, condition={"condition": OWN}), ValueError, "OWN"),
        (lambda m: m.velocity(np.zeros((2, 2)), 0.5, TREATED), ValueError, r"\(n, 3\)"),
        (lambda m: m.velocity(np.zeros(3), 0.5, TREATED), ValueError, r"\(n, 3\)"),
        (lambda m: m.score(np.zeros((2, 3)), 1.5, TREATED), ValueError, "t must"),
        (lambda m: m.score(np.zeros((2, 3)), np.nan, TREATED), ValueError, "t must"),
        (lambda m: m.score(np.zeros((2, 3)), [0.1, 0.2, 0.3], TREATED), ValueError, "t must"),
        (lambda m: m.score(np.zeros((2, 3)), 0.5, {"condition": OWN}), ValueError, "OWN"),
    ],
)
def test_wrong_states_and_times_are_refused(trained, call, error, named):
    with pytest.raises(error, match=named):
        call(trained)


def test_the_spread_of_a_single_network_is_refused(gaussian_cells, parametrization, quick):
    model = train(gaussian_cells, parametrization, quick, n_hidden=8)
    with pytest.raises(ValueError, match="n_members"):
        model.log_ratio(**CONTRAST, return_std=True)
