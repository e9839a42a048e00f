"""Class sizes do not enter a log ratio: shares of the conditions belong to the cells that a network was trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.stats import norm

import scratio
from scratio.model import ScRatio
from scratio.module import MARGINAL, Condition, PotentialNetwork
from scratio.paths import GaussianPath

CALL = {"condition_key": "condition", "treatment": "treated", "reference": "control", "sample_key": "donor"}


def cells(sizes: dict[str, int], shift: float = 0.0, seed: int = 0, d: int = 3) -> AnnData:
    """Donors whose names begin with t are treated; treated cells are shifted in the first dimension."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame({"donor": np.repeat(list(sizes), list(sizes.values()))})
    obs["condition"] = np.where(obs["donor"].str[0] == "t", "treated", "control")
    obs.index = obs.index.map("cell{}".format)
    x = rng.normal(size=(len(obs), d))
    x[:, 0] += shift * (obs["condition"] == "treated")
    return AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})


@pytest.fixture
def network() -> PotentialNetwork:
    """Three conditions in unequal shares, two members, with potentials that are not nothing."""
    generator = torch.Generator().manual_seed(0)
    made = PotentialNetwork(
        n_features=2,
        combinations=torch.tensor([[0], [1], [2]]),
        weights=torch.tensor([0.7, 0.2, 0.1]),
        path=GaussianPath(),
        generator=generator,
        n_members=2,
        n_hidden=8,
    )
    with torch.no_grad():
        for parameter in made.classifier.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def of(code: int) -> Condition:
    return Condition(torch.tensor([[code]]), torch.empty((1, 0)))


TRAIN = torch.tensor([[0.2, 0.3, 0.5], [0.8, 0.1, 0.1]])
HELD_OUT = torch.tensor([[0.1, 0.1, 0.8], [0.4, 0.3, 0.3]])


def test_the_shares_of_a_members_cells_do_not_change_what_is_asked_of_it(network):
    z, q = torch.randn((2, 50, 2), generator=torch.Generator().manual_seed(1)), torch.full((1, 1, 1), 1.5)
    asked = [of(0), of(1), of(MARGINAL)]
    before = [part.clone() for part in network.log_likelihoods(z, q, asked)]
    network.set_shares(TRAIN, HELD_OUT)
    for one, other in zip(network.log_likelihoods(z, q, asked), before, strict=True):
        torch.testing.assert_close(one, other)


def test_conditions_mix_to_the_marginal_of_all_cells_whatever_a_member_saw(network):
    z, q = torch.randn((2, 50, 2), generator=torch.Generator().manual_seed(1)), torch.full((1, 1, 1), 1.5)
    network.set_shares(TRAIN, HELD_OUT)
    ratios = torch.stack([network.potential(z, q, of(code)) for code in range(3)], dim=-1)
    mixed = (network.log_weights.exp() * ratios.exp()).sum(-1)
    torch.testing.assert_close(mixed, torch.ones_like(mixed))


def test_the_losses_are_those_under_the_shares_of_the_cells_that_they_are_about(network):
    with torch.no_grad():
        for parameter in network.classifier.parameters():
            parameter.zero_()
    network.set_shares(TRAIN, HELD_OUT)
    codes = torch.tensor([0, 1, 2, 2]).repeat(2, 1).unsqueeze(-1)
    condition, x = Condition(codes, torch.empty((2, 4, 0))), torch.zeros((2, 4, 2))
    held_out = network.validation_loss(x, condition, torch.Generator().manual_seed(0))
    # Without a potential: minus the log share.
    torch.testing.assert_close(held_out, -HELD_OUT.log()[:, [0, 1, 2, 2]])
    assert (network.parts(x) == 0.0).all()
    difference = network.loss(x, condition, torch.Generator().manual_seed(0))
    network.set_shares(HELD_OUT, HELD_OUT)
    difference = difference - network.loss(x, condition, torch.Generator().manual_seed(0))
    expected = (HELD_OUT.log() - TRAIN.log())[:, [0, 1, 2, 2]].mean(1)
    torch.testing.assert_close(difference.detach(), expected, atol=1e-5, rtol=0.0)


def test_every_member_is_told_the_shares_of_its_own_cells():
    adata = cells({"t0": 300, "t1": 40, "c0": 90, "c1": 110})
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=8, n_members=1, n_folds=2)
    model.train(max_steps=3, group_key="donor", progress_bar=False)
    is_treated = (adata.obs["condition"] == "treated").to_numpy()
    names = model.schema.categories["condition"]
    for fold in range(2):
        outside = model.folds != fold
        # Few donors: what a member holds out for validation are cells, a share of every donor's.
        share = is_treated[outside].mean()
        found = model.module.log_train_shares[fold, 0, list(names).index("treated")].exp().item()
        assert found == pytest.approx(share, abs=0.04)
    both = model.module.log_train_shares.exp()[:, 0]
    assert abs(both[0, 0] - both[1, 0]) > 0.1
    torch.testing.assert_close(both.sum(1), torch.ones(2))


SIZES = {"t0": 1500, "t1": 150, "t2": 150, "t3": 150, "c0": 490, "c1": 490, "c2": 480, "c3": 490}


@pytest.mark.parametrize("name", ["given", "log-normal"])
def test_no_donor_is_shifted_where_nothing_differs(name):
    sizes = SIZES
    if name == "log-normal":
        drawn = np.exp(np.random.default_rng(4).normal(5.5, 0.7, size=8)).astype(int)
        sizes = dict(zip(SIZES, (int(n) for n in drawn), strict=True))
    adata = cells(sizes)
    settings = {"n_folds": 4, "model_kwargs": {"n_hidden": 32, "n_members": 2}}
    scratio.tl.differential_abundance(adata, **CALL, **settings, train_kwargs={"max_steps": 150, "progress_bar": False})
    shift = adata.obs.groupby("donor")["da_log_ratio"].mean()
    assert shift.abs().max() < 0.05
    assert not adata.uns["da"]["diagnostics"]["verdict"][0].startswith("Calibrated")


def test_a_difference_is_as_large_whatever_the_sizes_of_donors_and_groups():
    adata = cells(SIZES, shift=1.0)
    settings = {"n_folds": 4, "model_kwargs": {"n_hidden": 32, "n_members": 2}}
    scratio.tl.differential_abundance(adata, **CALL, **settings, train_kwargs={"max_steps": 200, "progress_bar": False})
    x = adata.obsm["X_pca"][:, 0].astype(float)
    truth = norm.logpdf(x, 1.0) - norm.logpdf(x, 0.0)
    error = (adata.obs["da_log_ratio"] - truth).groupby(adata.obs["donor"]).mean()
    assert error.abs().max() < 0.25  # it was up to .7 in held-out donors
    assert adata.uns["da"]["diagnostics"]["slope"][0] == pytest.approx(1.0, abs=0.25)
