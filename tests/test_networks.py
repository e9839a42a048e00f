"""The networks: exact divergences, an untrained network's flow, mixed conditions, dropout, independent members."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from scratio.estimators import log_density, log_ratio_head, log_ratio_ode
from scratio.module import (
    MARGINAL,
    ClosedFormDensities,
    Condition,
    FlowNetwork,
    PaperHeads,
    PotentialNetwork,
    ResidualHeads,
    _potential,
    _residual,
    select_members,
)
from scratio.module._base import add_noise
from scratio.module._basis import FactorisedBasis
from scratio.module._derivatives import Derivatives
from scratio.module._layers import StackedEmbedding, StackedLinear
from scratio.module._residual import ResidualNet
from scratio.paths import GaussianPath

N_CATEGORIES = [3, 2]
"""Categories of the two categorical keys of the networks tested here; there is one continuous key beside them."""


def residual(**kwargs) -> FlowNetwork:
    return make(ResidualHeads, **{"n_hidden": 12, "n_embed": 8, "n_condition": 5, **kwargs})


def paper(**kwargs) -> FlowNetwork:
    return make(PaperHeads, **{"n_hidden": 12, "n_layers": 2, "n_encoder": 8, "n_condition": 5, "n_time": 6, **kwargs})


def make(kind: type[FlowNetwork], *, seed: int = 0, **kwargs) -> FlowNetwork:
    """Small network of two members on four dimensions."""
    settings = {
        "n_features": 4,
        "n_categories": N_CATEGORIES,
        "n_continuous": 1,
        "path": GaussianPath(0.02),
        "n_members": 2,
        "generator": torch.Generator().manual_seed(seed),
    }
    return kind(**{**settings, **kwargs}).eval()


def potential(**kwargs) -> FlowNetwork:
    """Potential over all combinations of the two categorical keys."""
    settings = {
        "combinations": torch.cartesian_prod(torch.arange(3), torch.arange(2)),
        "weights": torch.tensor([0.1, 0.2, 0.05, 0.25, 0.3, 0.1]),
        "n_features": 4,
        "path": GaussianPath(0.02),
        "n_members": 2,
        "generator": torch.Generator().manual_seed(0),
        "n_hidden": 12,
        "n_embed": 8,
    }
    network = PotentialNetwork(**{**settings, **kwargs})
    network.marginal = ResidualHeads(
        n_features=network.n_features, n_categories=[], n_continuous=0, path=network.path,
        generator=torch.Generator().manual_seed(7), n_hidden=10, n_embed=6,
    )  # fmt: skip
    return network.eval()


def mixtures(n_covariances: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log weights, means and covariances of mixtures of two components for each of six conditions."""
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet([2.0, 2.0], size=6)
    factors = 0.5 * rng.normal(size=(n_covariances, 2, 4, 4))
    covariance = factors @ factors.swapaxes(-1, -2) + 0.2 * np.eye(4)
    return torch.from_numpy(np.log(weight)), torch.from_numpy(rng.normal(size=(6, 2, 4))), torch.from_numpy(covariance)


def potential_on_mixtures(**kwargs) -> FlowNetwork:
    """The same with a closed form, another for each member: one with covariances in common, one without."""
    network = potential(**kwargs)
    closed_form = ClosedFormDensities.stack([mixtures(1, 0), mixtures(6, 1)])
    network.calibrate([closed_form], torch.ones((2, 2, network.n_terms)))
    return network


def potential_on_levels(**kwargs) -> FlowNetwork:
    """The same over three levels of the continuous key as well, its logits composed of fewer features."""
    combinations = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(3))
    values = torch.tensor([-1.2, 0.3, 0.8])[combinations[:, 2:]]
    weights = torch.rand(18, generator=torch.Generator().manual_seed(4)) + 0.1
    settings = {"combinations": combinations[:, :2], "values": values, "weights": weights / weights.sum()}
    return potential(**settings, **kwargs)


NETWORKS = {
    "residual": residual,
    "residual, separate heads": lambda **kwargs: residual(separate_heads=True, **kwargs),
    "paper": paper,
    "potential": potential,
    "potential on mixtures": potential_on_mixtures,
    "potential on levels": potential_on_levels,
}
"""Makers of every kind of network; another parametrization is one more line here."""


HEADS = {name: make for name, make in NETWORKS.items() if not name.startswith("potential")}
"""Those that learn a marginal by dropping keys."""

NUMERIC = {name: make for name, make in NETWORKS.items() if name not in {"potential", "potential on mixtures"}}
"""Those that take numbers as conditions."""


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def initial(request: pytest.FixtureRequest) -> FlowNetwork:
    """Each kind of network with its initial weights."""
    return request.param()


@pytest.fixture
def network(initial: FlowNetwork) -> FlowNetwork:
    """Each kind of network with random weights."""
    return randomise(initial)


@pytest.fixture(params=NUMERIC.values(), ids=NUMERIC.keys())
def numeric(request: pytest.FixtureRequest) -> FlowNetwork:
    """Each kind that takes numbers as conditions, with random weights."""
    return randomise(request.param())


@pytest.fixture(params=HEADS.values(), ids=HEADS.keys())
def heads(request: pytest.FixtureRequest) -> FlowNetwork:
    """Each kind of heads with random weights."""
    return randomise(request.param())


def randomise(network: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Random weights, also where the initial ones are zero: a zero output has a zero trace, right or wrong."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in (p for p in network.parameters() if p.requires_grad):
        scale = 1.0 / math.sqrt(max(parameter.shape[-2], 1))
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return network


def states(*shape: int, seed: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mixed() -> Condition:
    """Five cells, each with a condition of its own, among them marginalised keys of every kind."""
    codes = torch.tensor([[0, 1], [2, 0], [MARGINAL, 1], [1, MARGINAL], [MARGINAL, MARGINAL]])
    return Condition(codes, torch.tensor([[0.3], [-1.2], [0.8], [torch.nan], [torch.nan]]))


def diagonal_blocks(function, z: torch.Tensor) -> torch.Tensor:
    """Jacobian of every cell of every member, (n_members, n, d_out, d_in), by forward-mode autograd of the whole
    map.
    """
    return torch.einsum("mnimnj->mnij", torch.func.jacfwd(function)(z))


# --- exact divergences


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_closed_form_trace_is_the_trace_of_the_jacobian(n_layers):
    generator = torch.Generator().manual_seed(0)
    net = ResidualNet(3, n_in=4, n_out=4, n_hidden=7, n_layers=n_layers, n_embed=5, generator=generator)
    net = randomise(net.double())
    z, embedding = states(3, 6, 4, dtype=torch.float64), states(3, 6, 5, seed=3, dtype=torch.float64)
    output, trace = net.forward_and_trace(z, embedding)
    jacobian = diagonal_blocks(lambda y: net(y, embedding), z)
    torch.testing.assert_close(trace, torch.einsum("mnii->mn", jacobian), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(output, net(z, embedding), rtol=1e-12, atol=1e-12)


def test_closed_form_trace_serves_cells_that_share_one_embedding():
    generator = torch.Generator().manual_seed(0)
    net = ResidualNet(2, n_in=4, n_out=4, n_hidden=7, n_layers=0, n_embed=5, generator=generator)
    net = randomise(net.double())
    z, embedding = states(2, 6, 4, dtype=torch.float64), states(2, 1, 5, seed=3, dtype=torch.float64)
    _, trace = net.forward_and_trace(z, embedding)
    _, separate = net.forward_and_trace(z, embedding.expand(2, 6, 5))
    torch.testing.assert_close(trace, separate, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("separate_heads", [False, True])
def test_divergence_of_residual_heads_is_the_trace_of_the_velocitys_jacobian(n_layers, separate_heads):
    # Three blocks have no closed form and go through forward mode.
    check_divergence(randomise(residual(n_layers=n_layers, separate_heads=separate_heads)))


def test_divergence_is_the_trace_of_the_velocitys_jacobian(network):
    check_divergence(network)


def test_divergence_does_not_depend_on_whether_gradients_are_recorded(network):
    z, q, condition = states(2, 5, 4), torch.full((1, 1, 1), 0.7), mixed()
    recorded = network.flow_and_divergence(z, q, condition)
    with torch.no_grad():
        plain = network.flow_and_divergence(z, q, condition)
    torch.testing.assert_close(plain.velocity, recorded.velocity, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain.divergence, recorded.divergence, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("at_once", [2**20, 100])
def test_gradients_and_laplacians_of_a_residual_net_are_those_of_autograd(n_layers, at_once, monkeypatch):
    # At most 100 numbers at once: one direction after the other.
    monkeypatch.setattr(_residual, "TANGENT_NUMBERS", at_once)
    net = ResidualNet(
        2, n_in=4, n_out=3, n_hidden=7, n_layers=n_layers, n_embed=5, generator=torch.Generator().manual_seed(0)
    )
    net = randomise(net.double())
    z = states(2, 6, 4, dtype=torch.float64)
    for embedding in (states(2, 6, 5, seed=3, dtype=torch.float64), states(2, 1, 5, seed=3, dtype=torch.float64)):
        check_derivatives(net.derivatives(z, embedding), lambda y, e=embedding: net(y, e), z, curved=n_layers > 0)


@pytest.mark.parametrize("n_covariances", [1, 6])
def test_gradients_and_laplacians_of_mixtures_are_those_of_autograd(n_covariances):
    closed_form = ClosedFormDensities.stack([mixtures(n_covariances, 0), mixtures(n_covariances, 1)]).double()
    z = states(2, 6, 4, dtype=torch.float64)
    for q in (torch.full((1, 1, 1), 0.7).double(), torch.linspace(0.1, 3.5, 6).reshape(1, 6, 1).double()):
        # The eigenbases are orthogonal up to the rounding of float32, in which they are kept.
        check_derivatives(closed_form.derivatives(z, q), lambda y, q=q: closed_form(y, q), z, rtol=1e-6)


def check_derivatives(
    found: Derivatives, function, z: torch.Tensor, *, rtol: float = 1e-9, curved: bool = True
) -> None:
    value = function(z)
    torch.testing.assert_close(found.value - found.value[..., :1], value - value[..., :1], rtol=rtol, atol=rtol)
    torch.testing.assert_close(found.gradient, diagonal_blocks(function, z), rtol=rtol, atol=rtol)
    for member in range(z.shape[0]):
        for cell in range(z.shape[1]):
            for output in range(value.shape[2]):

                def alone(x, at=(member, cell), output=output):
                    moved = z.index_put((torch.tensor(at[0]), torch.tensor(at[1])), x)
                    return function(moved)[(*at, output)]

                trace = torch.func.hessian(alone)(z[member, cell]).trace()
                torch.testing.assert_close(found.laplacian[member, cell, output], trace, rtol=rtol, atol=10 * rtol)
    assert not curved or found.laplacian.abs().min() > 1e-5


def test_several_conditions_at_once_are_each_as_alone(network):
    z, q, cells = states(2, 5, 4), torch.full((1, 1, 1), 0.7), mixed()
    conditions = [cells, Condition(cells.codes[:1], cells.values[:1]), cells.dropped()]
    for together, alone in (
        (network.flows(z, q, conditions), network.flow),
        (network.flows_and_divergences(z, q, conditions), network.flow_and_divergence),
    ):
        for flow, condition in zip(together, conditions, strict=True):
            own = alone(z, q, condition)
            for name, value in vars(own).items():
                torch.testing.assert_close(getattr(flow, name), value, rtol=1e-4, atol=1e-5)
        assert (together[0].velocity - together[1].velocity)[:, 1:].abs().min() > 1e-5


def test_the_exact_divergence_of_a_potential_does_not_depend_on_how_many_cells_are_held_at_once(monkeypatch):
    network, z, condition = randomise(potential_on_levels().double()), states(2, 5, 4, dtype=torch.float64), mixed()
    for q in (torch.full((1, 1, 1), 0.7).double(), torch.linspace(0.0, 3.5, 5).double().reshape(1, 5, 1)):
        whole = network.flow_and_divergence(z, q, condition)
        monkeypatch.setattr(_potential, "LOGIT_GRADIENTS", 2 * 2 * 4 * 18)  # two cells
        parts = network.flow_and_divergence(z, q, condition)
        monkeypatch.undo()
        for name, value in vars(whole).items():
            torch.testing.assert_close(getattr(parts, name), value, rtol=1e-12, atol=1e-12)


def check_divergence(network: FlowNetwork) -> None:
    # The heads take numbers in float32 alone.
    dtype = torch.float64 if isinstance(network, PotentialNetwork) else torch.float32
    network, z, condition = network.to(dtype), states(2, 5, 4, dtype=dtype), mixed()
    for q in (torch.full((1, 1, 1), 0.7, dtype=dtype), torch.linspace(0.0, 3.5, 5, dtype=dtype).reshape(1, 5, 1)):
        flow = network.flow_and_divergence(z, q, condition)
        jacobian = diagonal_blocks(lambda y, q=q: network.flow(y, q, condition).velocity, z)
        torch.testing.assert_close(flow.divergence, torch.einsum("mnii->mn", jacobian), rtol=2e-4, atol=2e-5)
        plain = network.flow(z, q, condition)
        torch.testing.assert_close(flow.velocity, plain.velocity, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(flow.score, plain.score, rtol=1e-5, atol=1e-4)
        assert flow.divergence.abs().min() > 1e-4  # otherwise a divergence of zero would pass


# --- an untrained network ------------------------------------------------------------------------------------------


def test_untrained_residual_heads_are_the_flow_of_a_standard_gaussian():
    network = residual()
    x = states(50, 4, dtype=torch.float64)
    density = log_density(network, x, Condition(torch.tensor([[1, 0]]), torch.tensor([[0.5]])))
    # Cells are read at noise sigma_min: N(0, 1 + sigma_min^2) in every dimension.
    expected = norm(scale=math.sqrt(1.0 + 0.02**2)).logpdf(x.numpy()).sum(1)
    np.testing.assert_allclose(density.detach().numpy(), np.broadcast_to(expected, (2, 50)), rtol=1e-12)


def test_untrained_residual_heads_tell_no_conditions_apart():
    network = residual()
    one, other = (Condition(torch.tensor([[c, 0]]), torch.tensor([[0.5]])) for c in (0, 1))
    ratio = log_ratio_ode(network, states(20, 4), one, other)
    assert torch.equal(ratio, torch.zeros(2, 20, dtype=torch.float64))


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_untrained_residual_heads_have_the_velocity_and_score_of_a_standard_gaussian(t):
    network = residual()
    x, time, lambda_ = states(2, 6, 4), torch.full((1, 1, 1), t), 1.0 - 0.98 * t
    condition = Condition(torch.tensor([[1, 0]]), torch.tensor([[0.5]]))
    variance = t**2 + lambda_**2
    velocity = (t - 0.98 * lambda_) / variance * x  # (t S + lambda lambda') (t^2 S + lambda^2)^-1 x with S = I
    torch.testing.assert_close(network.velocity(x, time, condition), velocity, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.score(x, time, condition), -x / variance, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.denoiser(x, time, condition), t / variance * x, rtol=1e-4, atol=1e-5)


# --- conditions ----------------------------------------------------------------------------------------------------


def test_every_cell_of_a_batch_has_its_own_condition(network):
    z, q, condition = states(2, 5, 4), torch.full((1, 1, 1), 0.9), mixed()
    batch = network.flow_and_divergence(z, q, condition)
    for cell in range(5):
        own = Condition(condition.codes[cell : cell + 1], condition.values[cell : cell + 1])
        alone = network.flow_and_divergence(z[:, cell : cell + 1], q, own)
        torch.testing.assert_close(batch.divergence[:, cell], alone.divergence[:, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(batch.velocity[:, cell], alone.velocity[:, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(batch.score[:, cell], alone.score[:, 0], rtol=1e-4, atol=1e-4)
    first = Condition(condition.codes[:1], condition.values[:1])
    of_first = network.flow_and_divergence(z, q, first).divergence
    assert (of_first[:, 1:] - batch.divergence[:, 1:]).abs().min() > 1e-4


def test_a_marginalised_key_is_unlike_each_of_its_categories(network):
    # Near noise, where no category is certain.
    z, q = states(2, 1, 4), torch.full((1, 1, 1), 0.1)
    value = torch.tensor([[0.5]])
    velocities = [
        network.flow(z, q, Condition(torch.tensor([[code, 0]]), value)).velocity for code in (MARGINAL, 0, 1, 2)
    ]
    for category in velocities[1:]:
        assert (velocities[0] - category).abs().max() > 1e-3


def test_a_marginalised_number_is_unlike_the_mean_number(numeric):
    z, q, code = states(2, 1, 4), torch.full((1, 1, 1), 0.9), torch.tensor([[0, 0]])
    marginal = numeric.flow(z, q, Condition(code, torch.tensor([[torch.nan]]))).velocity
    mean = numeric.flow(z, q, Condition(code, torch.tensor([[0.0]]))).velocity
    assert (marginal - mean).abs().max() > 1e-3
    assert marginal.isfinite().all()


def test_the_marginal_has_an_embedding_of_its_own():
    table = StackedEmbedding(2, 3, 4, generator=torch.Generator().manual_seed(0))
    rows = table(torch.tensor([[0, 2, MARGINAL], [1, 1, MARGINAL]]))
    assert torch.equal(rows[0], table.weight[0, [0, 2, 3]])
    assert torch.equal(rows[1], table.weight[1, [1, 1, 3]])


def test_the_papers_encoder_gives_zeros_for_a_marginalised_key():
    network = randomise(paper())
    with torch.no_grad():
        encoded = network.encoder(mixed().stack(2))
    absent = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=torch.bool)
    blocks = encoded.reshape(2, 5, 3, 5)  # key by key, five numbers each
    assert torch.equal((blocks == 0.0).all(-1), absent.expand(2, 5, 3))


def test_dropout_marginalises_keys_of_cells_one_by_one():
    n, probability = 20_000, 0.3
    condition = Condition(torch.zeros((n, 2), dtype=torch.long), torch.ones((n, 1)))
    dropped = condition.drop(probability, torch.Generator().manual_seed(0))
    gone = torch.cat([dropped.codes == MARGINAL, dropped.values.isnan()], dim=1).double()
    sd = math.sqrt(probability * (1 - probability) / n)
    np.testing.assert_allclose(gone.mean(0), probability, atol=4.5 * sd)
    # Keys, and neighbouring cells, drop independently of each other.
    for one, other in ((gone[:, 0], gone[:, 1]), (gone[:, 0], gone[:, 2]), (gone[1:, 0], gone[:-1, 0])):
        joint = probability**2
        assert abs(float((one * other).mean()) - joint) < 4.5 * math.sqrt(joint * (1 - joint) / n)


def test_dropout_leaves_what_it_keeps():
    codes = torch.arange(40).reshape(20, 2)
    dropped = Condition(codes, codes[:, :1].float()).drop(0.5, torch.Generator().manual_seed(0))
    kept = dropped.codes != MARGINAL
    assert torch.equal(dropped.codes[kept], codes[kept])
    stays = ~dropped.values.isnan()
    assert torch.equal(dropped.values[stays], codes[:, :1].float()[stays])
    assert 0 < int(kept.sum()) < 40


def test_dropout_comes_from_the_given_generator():
    condition = Condition(torch.zeros((100, 2), dtype=torch.long), torch.zeros((100, 0)))
    first, again, other = (condition.drop(0.5, torch.Generator().manual_seed(s)).codes for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dropout_of_zero_and_of_one():
    condition = Condition(torch.zeros((50, 2), dtype=torch.long), torch.zeros((50, 1)))
    none, all_ = (condition.drop(p, torch.Generator().manual_seed(0)) for p in (0.0, 1.0))
    assert torch.equal(none.codes, condition.codes)
    assert bool((all_.codes == MARGINAL).all())
    assert bool(all_.values.isnan().all())


def test_training_with_every_key_dropped_is_training_of_the_marginal(heads):
    x1, condition = states(2, 5, 4), mixed()

    def loss(given: Condition) -> torch.Tensor:
        return heads.loss(x1, given, torch.Generator().manual_seed(4))

    marginal, plain = loss(condition.dropped()), loss(condition)
    heads.condition_dropout = 1.0
    assert torch.equal(loss(condition), plain)  # validation drops nothing
    heads.train()
    assert torch.equal(loss(condition), marginal)
    assert not torch.equal(marginal, plain)


def test_the_loss_has_no_randomness_but_the_generators(network):
    network.train()
    x1 = states(2, 5, 4)
    codes = torch.tensor([[0, 1], [2, 0], [1, 1], [1, 0], [2, 1]])
    condition = Condition(codes, torch.linspace(-1.0, 1.0, 5)[:, None]).stack(2)
    first, again, other = (network.loss(x1, condition, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- losses --------------------------------------------------------------------------------------------------------


def test_loss_of_residual_heads_is_the_targets_variance_where_the_output_is_zero():
    # F = 0 against sech(q) x1 - tanh(q) x0, which has variance 1 at every q for standardised cells.
    network = residual()
    x1 = states(2, 40_000, 4)
    losses = network.loss(
        x1, Condition(torch.tensor([[0, 0]]), torch.tensor([[0.0]])), torch.Generator().manual_seed(0)
    )
    np.testing.assert_allclose(losses.detach(), 1.0, atol=5 * math.sqrt(2 / 160_000))


def test_loss_of_paper_heads_is_the_papers():
    network, n = randomise(paper(path=GaussianPath(0.0, 0.25))), 7
    x1, condition = states(2, n, 4), Condition(torch.tensor([[1, 0]]), torch.tensor([[0.5]]))
    loss = network.loss(x1, condition, torch.Generator().manual_seed(5))

    generator = torch.Generator().manual_seed(5)
    x0 = torch.randn(x1.shape, generator=generator)
    t = torch.rand((2, n, 1), generator=generator).requires_grad_()
    lambda_ = ((1 - t) ** 2 + 0.25 * t * (1 - t)).sqrt()
    prime = torch.autograd.grad(lambda_.sum(), t, retain_graph=True)[0]
    x, target = t * x1 + lambda_ * x0, x1 + prime * x0
    velocity, score = network.velocity(x, t, condition), network.score(x, t, condition)
    weight = lambda_**2 - t * lambda_ * prime
    velocity_loss = ((velocity - target) ** 2).mean((1, 2))
    score_loss = ((weight * score - (t * target - x)) ** 2).mean((1, 2))
    torch.testing.assert_close(loss, velocity_loss + score_loss, rtol=1e-4, atol=1e-5)


def test_the_target_of_the_papers_score_loss_is_the_score():
    # c_t times -x0 / lambda, the conditional score, is t u* - x_t: a head with the true score has no loss on one cell.
    network = paper(n_features=1, n_categories=[2], n_continuous=0, n_members=1)
    x1, x0_and_t = torch.full((1, 1, 1), 0.7), torch.Generator().manual_seed(6)
    x0, t = torch.randn((1, 1, 1), generator=x0_and_t), torch.rand((1, 1, 1), generator=x0_and_t)
    lambda_ = 1.0 - 0.98 * t
    network._heads = lambda x, t, condition: (x1 - 0.98 * x0, -x0 / lambda_)
    loss = network.loss(x1, Condition(torch.tensor([[0]]), torch.zeros((1, 0))), torch.Generator().manual_seed(6))
    assert float(loss) < 1e-9


def test_paper_heads_have_the_papers_sizes():
    network = PaperHeads(
        n_features=20,
        n_categories=[3],
        n_continuous=0,
        path=GaussianPath(),
        generator=torch.Generator().manual_seed(0),
    )

    def sizes(chain) -> list[tuple[int, int]]:
        return [tuple(layer.weight.shape[1:]) for layer in chain if isinstance(layer, StackedLinear)]

    assert sizes(network.data) == [(20, 256), (256, 256)]
    assert sizes(network.encoder.encoders[0]) == [(3, 256), (256, 50)]
    width = 256 + 50 + 50  # cell, condition, time
    for head in network.heads:
        assert sizes(head) == [(width, 1024), (1024, 1024), (1024, 1024), (1024, 20)]
    chains = (network.data, network.encoder.encoders[0], *network.heads)
    assert {type(layer).__name__ for chain in chains for layer in chain} == {"StackedLinear", "SELU"}


# --- the potential


WHOLE = Condition(torch.tensor([[MARGINAL, MARGINAL]]), torch.zeros((1, 0)))


def given(*codes: int) -> Condition:
    return Condition(torch.tensor([codes]), torch.zeros((1, 0)))


@pytest.fixture(params=[0.3, 1.5, 3.5])
def q(request: pytest.FixtureRequest) -> torch.Tensor:
    return torch.full((1, 1, 1), request.param, dtype=torch.float64)


@pytest.fixture(params=[potential, potential_on_mixtures], ids=["no closed form", "mixtures"])
def of_combinations(request: pytest.FixtureRequest) -> FlowNetwork:
    return randomise(request.param().double())


@pytest.fixture
def z() -> torch.Tensor:
    return states(2, 5, 4, dtype=torch.float64)


def test_conditions_mix_to_the_marginal(of_combinations, z, q):
    # sum_c pi_c p(z | c) = p(z), exactly, whatever the weights of the network.
    network = of_combinations
    parts = torch.stack([network.potential(z, q, given(*c)) for c in network.combinations.tolist()], dim=-1)
    total = (network.log_weights + parts).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=1e-6)
    assert parts.std() > 0.01
    assert network.potential(z, q, WHOLE).abs().max() < 1e-6


def test_a_key_left_out_is_summed_over_with_the_observed_weights(of_combinations, z, q):
    network, weights = of_combinations, of_combinations.log_weights.exp()
    parts = [network.potential(z, q, given(1, b)).exp() * weights[2 + b] for b in (0, 1)]
    expected = (sum(parts) / weights[2:4].sum()).log()
    torch.testing.assert_close(network.potential(z, q, given(1, MARGINAL)), expected, rtol=1e-6, atol=1e-6)


def test_the_velocity_of_a_marginal_is_the_mean_over_the_posterior(of_combinations, z, q):
    network, weights = of_combinations, of_combinations.log_weights.exp()
    share = [(network.potential(z, q, given(1, b)).exp() * weights[2 + b]).unsqueeze(-1) for b in (0, 1)]
    parts = [network.flow(z, q, given(1, b)).velocity for b in (0, 1)]
    expected = (share[0] * parts[0] + share[1] * parts[1]) / (share[0] + share[1])
    torch.testing.assert_close(network.flow(z, q, given(1, MARGINAL)).velocity, expected, rtol=1e-6, atol=1e-6)


def test_the_score_of_a_condition_is_that_of_the_marginal_plus_the_gradient_of_the_potential(of_combinations, z, q):
    network, condition = of_combinations, given(2, 0)
    z = z.requires_grad_()
    gradient = torch.autograd.grad(network.potential(z, q, condition).sum(), z)[0]
    difference = network.flow(z, q, condition).score - network.flow(z, q, WHOLE).score
    torch.testing.assert_close(difference, gradient, rtol=1e-9, atol=1e-9)
    assert gradient.abs().max() > 0.01


def test_the_head_is_antisymmetric_and_transitive_to_the_bit(of_combinations, z):
    x = z[0]

    def ratio(numerator: Condition, denominator: Condition) -> torch.Tensor:
        return log_ratio_head(of_combinations, x, numerator, denominator)

    one, two, three = given(0, 0), given(2, 1), given(1, MARGINAL)
    assert torch.equal(ratio(one, two), -ratio(two, one))
    assert torch.equal(ratio(one, one), torch.zeros(2, 5, dtype=torch.float64))
    torch.testing.assert_close(ratio(one, two) + ratio(two, three), ratio(one, three), rtol=1e-12, atol=1e-12)
    assert ratio(one, two).abs().min() > 1e-4


def test_an_untrained_potential_is_zero_whatever_the_class_sizes(z):
    network = potential().double()
    for condition in (given(0, 0), given(2, MARGINAL), WHOLE):
        phi = network.potential(z, torch.full((1, 1, 1), 1.0, dtype=torch.float64), condition)
        torch.testing.assert_close(phi, torch.zeros_like(phi), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("level", [0.02, 0.5, 3.0])
def test_an_untrained_potential_is_its_closed_form_at_every_noise_level(z, level):
    network = potential_on_mixtures().double()
    q = torch.full((1, 1, 1), math.asinh(1.0 / level), dtype=torch.float64)
    smooth, noise = float(torch.tanh(q)), 1.0 / float(torch.cosh(q)) ** 2
    for member, parts in enumerate((mixtures(1, 0), mixtures(6, 1))):
        log_p = [
            logsumexp(
                [
                    w + multivariate_normal(smooth * m, smooth**2 * s + noise * np.eye(4)).logpdf(z[member])
                    for w, m, s in zip(parts[0][c], parts[1][c], parts[2][c % len(parts[2])].numpy(), strict=True)
                ],
                axis=0,
            )
            for c in (1, 4)
        ]
        one, other = (network.potential(z, q, given(*c))[member] for c in ((0, 1), (2, 0)))
        # The stored values are float32.
        np.testing.assert_allclose((one - other).detach(), log_p[0] - log_p[1], rtol=1e-4, atol=1e-4)


def test_a_closed_form_does_not_shift_with_the_class_sizes(z):
    q = torch.full((1, 1, 1), 2.0, dtype=torch.float64)
    ratios = []
    for weights in (torch.full((6,), 1 / 6), torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])):
        network = potential_on_mixtures().double()
        network.log_weights = weights.double().log()
        ratios.append(network.potential(z, q, given(0, 0)) - network.potential(z, q, given(1, 1)))
    torch.testing.assert_close(*ratios, rtol=1e-6, atol=1e-6)


# --- noise


@pytest.mark.parametrize(("n", "cells_per_level", "n_levels"), [(24, 8, 3), (24, 1, 24), (25, 8, 25)])
def test_successive_cells_may_share_a_noise_level_but_not_the_noise(n, cells_per_level, n_levels):
    path = GaussianPath(0.02)
    noised = add_noise(torch.zeros((2, n, 3)), path, torch.Generator().manual_seed(0), cells_per_level=cells_per_level)
    assert noised.levels.shape == (2, n_levels, 1)
    torch.testing.assert_close(noised.q, noised.levels.repeat_interleave(n // n_levels, dim=1))
    # One level in each of as many equal parts of the path, others for the other member.
    parts = (noised.levels / path.q_end * n_levels).floor().squeeze(-1)
    assert torch.equal(parts, torch.arange(n_levels).expand(2, -1).float())
    assert (noised.levels[0] != noised.levels[1]).all()
    noise = noised.z * torch.cosh(noised.q)  # the cells are zero
    assert torch.unique(noise.flatten()).numel() == 2 * n * 3
    torch.testing.assert_close(noised.target, -torch.tanh(noised.q) * noise)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_cells_that_share_a_row_of_the_embedding_are_as_with_one_each(n_layers):
    net = ResidualNet(
        2, n_in=4, n_out=4, n_hidden=7, n_layers=n_layers, n_embed=5, generator=torch.Generator().manual_seed(0)
    )
    net = randomise(net.double())
    z, embedding = states(2, 6, 4, dtype=torch.float64), states(2, 2, 5, seed=3, dtype=torch.float64)
    one_each = embedding.repeat_interleave(3, dim=1)
    torch.testing.assert_close(net(z, embedding), net(z, one_each), rtol=1e-12, atol=1e-12)
    for shared, own in zip(net.forward_and_trace(z, embedding), net.forward_and_trace(z, one_each), strict=True):
        torch.testing.assert_close(shared, own, rtol=1e-12, atol=1e-12)


# --- numbers and many combinations


def numbers(value: float, code: tuple[int, int] = (MARGINAL, MARGINAL)) -> Condition:
    return Condition(torch.tensor([code]), torch.tensor([[value]], dtype=torch.float64))


def test_levels_of_a_number_mix_to_the_marginal(z, q):
    network = randomise(potential_on_levels().double())
    codes, values, weights = network.combinations, network.values_of_combinations, network.log_weights.exp()
    parts = torch.stack(
        [network.potential(z, q, numbers(float(v), tuple(c.tolist()))) for c, v in zip(codes, values, strict=True)], -1
    )
    torch.testing.assert_close((parts.exp() * weights).sum(-1), torch.ones(2, 5, dtype=torch.float64))
    assert parts.std() > 0.01
    # A number alone: the categories are summed over with their shares among the cells of that level.
    at = values[:, 0] == values[1, 0]
    expected = ((parts.exp() * weights)[..., at].sum(-1) / weights[at].sum()).log()
    torch.testing.assert_close(network.potential(z, q, numbers(float(values[1, 0]))), expected)


def test_a_number_between_two_levels_has_a_potential_of_its_own(z, q):
    network = randomise(potential_on_levels().double())
    found = [network.potential(z, q, numbers(value, (1, 0))) for value in (0.3, 0.30001, 0.4)]
    assert (found[1] - found[0]).abs().max() < 0.005
    assert (found[2] - found[0]).abs().min() > 0.01


def test_many_combinations_share_features():
    combinations = torch.cartesian_prod(torch.arange(12), torch.arange(91))
    weights = torch.full((len(combinations),), 1.0 / len(combinations))
    network = potential(combinations=combinations, weights=weights)
    assert network.classifier.output.weight.shape[2] == 12 + 91 + 32
    few = potential()
    assert few.basis is None
    assert few.classifier.output.weight.shape[2] == 6


def test_the_basis_has_a_term_for_each_key_and_one_for_their_interaction():
    levels = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    basis = randomise(FactorisedBasis(2, [3, 2], [levels], generator, n_interaction=4).double())
    codes, values = torch.tensor([[2, 0], [1, 1], [0, 0]]), torch.tensor([[0.5], [-1.0], [3.0]], dtype=torch.float64)
    weight = basis(codes, values)
    assert weight.shape == (2, 3, 3 + 2 + 3 + 2 + 4)
    expected = [
        [0, 0, 1, 1, 0, 0, 0.75, 0.25, 0.5, -0.75],  # a quarter of the way from 0 to 2
        [0, 1, 0, 0, 1, 1, 0, 0, -1.0, 0.0],
        [1, 0, 0, 1, 0, 0, 0, 1, 3.0, 8.0],  # beyond the last level
    ]
    torch.testing.assert_close(weight[0, :, :10], torch.tensor(expected, dtype=torch.float64))
    first, second, third = (table.weight[1] for table in basis.tables)
    number = 0.75 * third[1] + 0.25 * third[2]
    interaction = first[2] * second[0] + (first[2] + second[0]) * number
    torch.testing.assert_close(weight[1, 0, 10:], interaction)


def test_the_closed_form_keeps_full_precision_under_autocast(z):
    closed_form = potential_on_mixtures().closed_forms[0]
    q = torch.full((1, 1, 1), 2.0)
    exact = closed_form(z.float(), q)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(closed_form(z.float(), q), exact)


def test_weights_multiply_the_terms_of_the_parts(z):
    network = randomise(potential_on_mixtures().double())
    forms = list(network.closed_forms)
    parts = network.parts(z, forms)  # (network and closed form, terms, members, cells, combinations)
    assert parts.shape[:2] == (2, 3)
    weights = torch.rand((2, 2, 3), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    network.calibrate(forms, weights)
    q = torch.full((1, 1, 1), network.path.q_end, dtype=torch.float64)
    expected = network.log_weights + torch.einsum("mpt,ptmnc->mnc", weights, parts)
    codes = network.combinations.tolist()
    found = torch.stack([network.potential(torch.tanh(q) * z, q, given(*c)) for c in codes], dim=-1)
    torch.testing.assert_close(found + network.log_weights, expected.log_softmax(-1), rtol=1e-6, atol=1e-6)


def test_each_part_alone_has_the_weights_of_all_and_their_mean_is_the_potential():
    network = randomise(potential_on_mixtures())
    weights = torch.rand(network.weights.shape, generator=torch.Generator().manual_seed(0))
    weights[:, -1, 0] = 0.0
    network.weights.data = weights
    shares, alone = zip(*network.each_part(), strict=True)
    assert sum(shares) == pytest.approx(1.0)
    for place, (share, part) in enumerate(zip(shares, alone, strict=True)):
        assert share == pytest.approx(float(weights[:, place].sum() / weights.sum()))
        torch.testing.assert_close(part.weights.sum(1), weights.sum(1))
        assert not part.weights[:, torch.arange(weights.shape[1]) != place].any()
    assert torch.equal(network.weights, weights)
    weights[:, 0] = 0.0  # a part without weight has no say
    network.weights.data = weights
    assert len(network.each_part()) == weights.shape[1] - 1


def test_gradients_of_conditions_differ_as_their_scores_do(z, q):
    network = randomise(potential_on_mixtures().double())
    conditions = [given(1, 0), given(2, 1)]
    gradients = network.condition_gradients(z, q.double(), conditions)
    flows = network.flows(z, q.double(), conditions)
    torch.testing.assert_close(gradients[0] - gradients[1], flows[0].score - flows[1].score, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("potential")])
def test_members_get_the_same_validation_noise_where_they_are_to_be_compared(name):
    # The potential is judged without noise.
    network = randomise(NETWORKS[name]())
    # Two members with the same weights: the same cells have the same losses with one draw, and not with two.
    for parameter in network.parameters():
        parameter.data[1] = parameter.data[0]
    x = states(1, 6, 4).expand(2, -1, -1)
    condition = Condition(torch.tensor([[0, 1]] * 6), torch.zeros((6, 1))).stack(2)
    with torch.no_grad():
        shared, own = (
            network.validation_loss(x, condition, torch.Generator().manual_seed(0), n_draws=n) for n in (1, None)
        )
    torch.testing.assert_close(shared[0], shared[1])
    assert not torch.allclose(own[0], own[1], rtol=1e-2)


def test_the_loss_of_an_untrained_potential_is_the_entropy_of_the_labels():
    network = potential()
    codes = network.combinations[torch.tensor([0, 1, 1, 4, 4, 4] * 5_000)]
    condition = Condition(codes, torch.zeros((30_000, 0))).stack(2)
    loss = network.loss(states(2, 30_000, 4), condition, torch.Generator().manual_seed(0))
    entropy = -(math.log(0.1) + 2 * math.log(0.2) + 3 * math.log(0.3)) / 6
    np.testing.assert_allclose(loss.detach(), entropy, atol=1e-5)


# --- members -------------------------------------------------------------------------------------------------------


def test_members_of_a_stacked_layer_are_independent():
    layer = StackedLinear(3, 4, 5, generator=torch.Generator().manual_seed(0))
    x = states(3, 6, 4)
    before = layer(x)
    for member in range(3):
        expected = x[member] @ layer.weight[member] + layer.bias[member]
        torch.testing.assert_close(before[member], expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        layer.weight[1] += 1.0
        layer.bias[1] -= 1.0
    x[1] *= 3.0
    after = layer(x)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])


def test_members_of_a_network_are_independent(network):
    z, q, condition = states(2, 5, 4), torch.full((1, 1, 1), 0.9), mixed()
    before = network.flow_and_divergence(z, q, condition)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("marginal"):
                parameter[1] *= 1.5
    z = torch.stack([z[0], -z[1]])
    after = network.flow_and_divergence(z, q, condition)
    for name in ("velocity", "score", "divergence"):
        assert torch.equal(getattr(after, name)[0], getattr(before, name)[0])
        assert not torch.equal(getattr(after, name)[1], getattr(before, name)[1])


def test_members_start_from_different_weights(initial):
    drawn = [
        p for name, p in initial.named_parameters()
        if p.requires_grad and bool((p != 0.0).any()) and not name.startswith("marginal")
    ]  # fmt: skip
    assert len(drawn) > 5
    assert not any(torch.equal(p[0], p[1]) for p in drawn)


def test_selected_members_are_a_slice(network):
    chosen = select_members(network, [1])
    assert chosen.n_members == 1
    parameters = dict(chosen.named_parameters())
    assert parameters.keys() == dict(network.named_parameters()).keys()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameters[name], parameter if name.startswith("marginal") else parameter[1:2])
    z, q, condition = states(2, 5, 4), torch.full((1, 1, 1), 0.9), mixed()
    whole, tolerance = network, 1e-5
    if isinstance(network, PotentialNetwork):
        # In double precision, where the order of sums, which depends on the number of members, does not matter.
        whole, chosen, z, q, tolerance = copy.deepcopy(network).double(), chosen.double(), z.double(), q.double(), 1e-9
    expected, found = whole.flow_and_divergence(z, q, condition), chosen.flow_and_divergence(z[1:], q, condition)
    torch.testing.assert_close(found.velocity, expected.velocity[1:], rtol=tolerance, atol=tolerance / 10)
    torch.testing.assert_close(found.divergence, expected.divergence[1:], rtol=tolerance, atol=tolerance)


def test_selected_members_are_a_copy(network):
    chosen = select_members(network, [0, 1])
    before = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for parameter in chosen.parameters():
            parameter.zero_()
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))
