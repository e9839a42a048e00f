"""More than two groups: all against a reference, each against the rest; known answers and what is refused."""

from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.special import logsumexp
from scipy.stats import norm

import scratio
from scratio import OWN, Rest
from scratio.model import ScRatio

CENTRES = {"a": -1.0, "b": 0.0, "c": 1.5}
SHARES = {"a": 0.2, "b": 0.5, "c": 0.3}
NAMES = list(CENTRES)
TRAINING = {"max_steps": 400, "batch_size": 256, "warmup_steps": 20, "progress_bar": False}


def groups(n: int = 3_000, seed: int = 0) -> AnnData:
    """Cells of three groups N(centre, 1), with 20 unlabelled cells at the end."""
    rng = np.random.default_rng(seed)
    label = rng.choice(NAMES, size=n, p=list(SHARES.values()))
    x = np.stack([rng.normal([CENTRES[name] for name in label]), rng.normal(size=n)], axis=1)
    obs = pd.DataFrame({"group": label, "batch": np.where(rng.random(n) < 0.5, "b1", "b2")})
    obs.loc[n - 20 :, "group"] = np.nan
    obs.index = [f"cell{i}" for i in range(n)]
    return AnnData(obs=obs, obsm={"X_pca": x, "X_umap": x})


def log_density(x: np.ndarray, names: list[str]) -> np.ndarray:
    """Of the mixture of the groups."""
    parts = [norm(CENTRES[name]).logpdf(x) + np.log(SHARES[name]) for name in names]
    return logsumexp(parts, axis=0) - np.log(sum(SHARES[name] for name in names))


def score(adata: AnnData, **kwargs) -> None:
    settings = {"n_folds": 2, "model_kwargs": {"n_hidden": 32, "n_members": 2}, "train_kwargs": TRAINING}
    scratio.tl.differential_abundance(adata, condition_key="group", **{**settings, **kwargs})


@pytest.fixture(scope="module")
def against_c() -> AnnData:
    adata = groups()
    score(adata, treatment=["b", "a"], reference="c")
    return adata


@pytest.fixture(scope="module")
def against_rest() -> AnnData:
    adata = groups()
    score(adata, treatment=None, reference="rest")
    return adata


@pytest.fixture(scope="module")
def model() -> ScRatio:
    """One network for all labelled cells."""
    adata = groups()[:-20].copy()
    ScRatio.setup_anndata(adata, condition_keys=["group", "batch"])
    # The mean over several members obeys no identity that is not linear.
    model = ScRatio(adata, n_hidden=32, n_members=1)
    model.train(**{**TRAINING, "max_steps": 100})
    return model


# --- a condition of all categories but one -------------------------------------------------------------------------


def test_the_rest_is_the_mixture_of_the_other_categories(model):
    weights = model.adata.obs["group"].value_counts(normalize=True)
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        ratios = [
            model.log_ratio(numerator={"group": other}, denominator={"group": name}) + np.log(weights[other])
            for other in others
        ]
        expected = np.log(weights[others].sum()) - logsumexp(ratios, axis=0)
        found = model.log_ratio(numerator={"group": name}, denominator={"group": Rest(name)})
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_rest_of_two_categories_is_the_other_one(model):
    adata = model.adata
    numerator = {"group": "a", "batch": "b1"}
    found, expected = (
        model.log_ratio(adata, numerator=numerator, denominator={"group": "a", "batch": batch})
        for batch in (Rest("b1"), "b2")
    )
    np.testing.assert_array_equal(found, expected)


def test_the_rest_of_own_is_that_of_every_cells_label(model):
    found = model.log_ratio(numerator={"group": OWN}, denominator={"group": Rest(OWN)})
    for name in NAMES:
        cells = (model.adata.obs["group"] == name).to_numpy()
        expected = model.log_ratio(numerator={"group": name}, denominator={"group": Rest(name)})
        np.testing.assert_allclose(found[cells], expected[cells], atol=1e-6)


def test_scores_of_a_category_and_its_rest_mix_to_the_marginal_score(model):
    # grad log p = P(a | x) grad log p(x | a) + P(rest | x) grad log p(x | rest), at any time.
    x, t = model.adata.obsm["X_pca"][:50], 1.0
    share = float((model.adata.obs["group"] == "a").mean())
    single = [model.score(x, t, condition) for condition in ({"group": "a"}, {"group": Rest("a")}, {})]
    ratio = model.log_ratio(model.adata[:50], numerator={"group": "a"}, denominator={})
    posterior = torch.from_numpy(share * np.exp(ratio))[:, None]
    mixed = posterior * single[0] + (1.0 - posterior) * single[1]
    np.testing.assert_allclose(mixed, single[2], atol=1e-3)


@pytest.mark.parametrize("method", ["quadrature", "ode", "naive"])
def test_other_estimators_agree_on_the_rest(model, method):
    contrast = {"numerator": {"group": "a"}, "denominator": {"group": Rest("a")}}
    cells = model.adata[:200]
    head, other = (model.log_ratio(cells, **contrast, method=name) for name in ("head", method))
    assert np.corrcoef(head, other)[0, 1] > 0.95


def test_what_rest_refuses(model, quick):
    with pytest.raises(ValueError, match=r"obs\['group'\] has no category 'd'; found: \['a', 'b', 'c'\]"):
        model.log_ratio(numerator={"group": "a"}, denominator={"group": Rest("d")})
    heads = ScRatio(model.adata, parametrization="heads", n_hidden=8, n_members=1)
    heads.train(**quick)
    with pytest.raises(ValueError, match="Rest needs parametrization='potential'"):
        heads.log_ratio(numerator={"group": "a"}, denominator={"group": Rest("a")})


# --- tl.differential_abundance -------------------------------------------------------------------------------------


def test_every_treatment_is_compared_with_the_reference(against_c):
    x, table = against_c.obsm["X_pca"][:, 0], against_c.obsm["da_log_ratio"]
    assert list(table.columns) == ["b", "a"]
    for name in ("a", "b"):
        cells = against_c.obs["group"].isin([name, "c"]).to_numpy()
        np.testing.assert_array_equal(table[name].notna(), cells)
        truth = log_density(x, [name]) - log_density(x, ["c"])
        assert np.mean((table[name] - truth)[cells] ** 2) < 0.05 * np.var(truth[cells])


def test_every_group_is_compared_with_all_others(against_rest):
    x, table = against_rest.obsm["X_pca"][:, 0], against_rest.obsm["da_log_ratio"]
    labelled = against_rest.obs["group"].notna().to_numpy()
    for name in NAMES:
        np.testing.assert_array_equal(table[name].notna(), labelled)
        truth = log_density(x, [name]) - log_density(x, [other for other in NAMES if other != name])
        assert np.mean((table[name] - truth)[labelled] ** 2) < 0.06 * np.var(truth[labelled])


def test_obs_has_every_cells_own_treatment(against_c, against_rest):
    for adata, treatments in ((against_c, ["a", "b"]), (against_rest, NAMES)):
        for name in ("log_ratio", "std", "support"):
            column, table = adata.obs[f"da_{name}"], adata.obsm[f"da_{name}"]
            for group in treatments:
                own = (adata.obs["group"] == group).to_numpy()
                np.testing.assert_array_equal(column[own], table.loc[own, group])
        other = ~adata.obs["group"].isin(treatments).to_numpy()
        assert adata.obs["da_log_ratio"][other].isna().all()
        assert not adata.obs["da_support"][other].any()


def test_the_table_is_that_of_the_cells(against_c):
    table = against_c.uns["da"]["table"].set_index("treatment")
    assert list(table.index) == ["b", "a"]
    for name, row in table.iterrows():
        assert row["reference"] == "c"
        values, support = against_c.obsm["da_log_ratio"][name], against_c.obsm["da_support"][name]
        for side, label in (("treatment", name), ("reference", "c")):
            cells = (against_c.obs["group"] == label).to_numpy()
            assert row[f"n_{side}"] == cells.sum()
            assert row[f"mean_{side}"] == pytest.approx(values[cells].mean())
            assert 0.0 < row[f"standard_error_{side}"] < 0.5
        assert row["supported_fraction"] == pytest.approx(support[values.notna()].mean())
        assert row["mean_treatment"] > 0.0 > row["mean_reference"]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_tables_survive_writing_and_reading(against_c, kind, tmp_path):
    adata = against_c.copy()
    adata.obs["group"] = adata.obs["group"].astype("category")
    getattr(adata, f"write_{kind}")(tmp_path / f"cells.{kind}")
    again = getattr(anndata, f"read_{kind}")(tmp_path / f"cells.{kind}")
    for name in ("log_ratio", "std", "support"):
        pd.testing.assert_frame_equal(again.obsm[f"da_{name}"], adata.obsm[f"da_{name}"], check_index_type=False)


def test_a_single_treatment_against_the_rest_is_in_obs_alone(quick):
    adata = groups(300)
    score(adata, treatment="a", reference="rest", train_kwargs=quick)
    assert list(adata.obsm) == ["X_pca", "X_umap"]
    np.testing.assert_array_equal(adata.obs["da_log_ratio"].notna(), adata.obs["group"].notna())


def test_a_category_called_rest_is_that_category(quick):
    adata = groups(300)
    adata.obs["group"] = adata.obs["group"].replace("c", "rest")
    score(adata, treatment="a", reference="rest", train_kwargs=quick)
    np.testing.assert_array_equal(adata.obs["da_log_ratio"].notna(), adata.obs["group"].isin(["a", "rest"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"treatment": ["a", "d"], "reference": "c"}, r"obs\['group'\] has no category 'd'; found: \['a', 'b', 'c'\]"),
        ({"treatment": ["a", "a"], "reference": "c"}, "names a category twice"),
        ({"treatment": ["a", "c"], "reference": "c"}, "nothing to compare"),
        ({"treatment": [], "reference": "c"}, "names no category"),
        (
            {"treatment": "a", "reference": "rest", "model_kwargs": {"parametrization": "heads"}},
            "reference='rest' needs parametrization='potential'",
        ),
        (
            {"treatment": "a", "reference": "rest", "covariate_keys": ["site"]},
            r"covariate_keys=\['site'\]: cells with the labels \['s3'\] are all of 'a' or all of 'rest'",
        ),
        (
            {"treatment": "a", "reference": "b", "covariate_keys": ["site"]},
            r"cells with the labels \['s2'\] are all of 'a' or all of 'b'",
        ),
    ],
)
def test_what_is_refused_before_training(arguments, message, unchanged):
    adata = groups(300)
    # Site s1 has all groups, s2 has a and c, s3 has c alone.
    adata.obs["site"] = np.where(adata.obs["group"] == "b", "s1", np.where(np.arange(300) % 2, "s1", "s2"))
    is_c = (adata.obs["group"] == "c").to_numpy()
    adata.obs.loc[is_c & (np.arange(300) % 3 == 0), "site"] = "s3"
    with unchanged(adata), pytest.raises(ValueError, match=message):
        score(adata, **arguments)


def test_plots_show_the_group_that_is_asked_for(against_rest):
    ax = scratio.pl.embedding(against_rest, group="b")
    assert ax.get_title() == "da: b"
    shown = against_rest.obsm["da_log_ratio"]["b"].where(against_rest.obsm["da_support"]["b"])
    drawn = np.ma.filled(ax.collections[-1].get_array().astype(float), np.nan)
    np.testing.assert_allclose(np.sort(drawn[np.isfinite(drawn)]), np.sort(shown.dropna()))
    plt.close("all")
    ax = scratio.pl.violin(against_rest, groupby="group", group="b")
    assert ax.get_yticklabels()[0].get_text().split(" (")[0] == "b"
    plt.close("all")
    with pytest.raises(KeyError, match=r"obsm\['da_log_ratio'\] has no group 'd'; found: \['a', 'b', 'c'\]"):
        scratio.pl.embedding(against_rest, group="d")
    with pytest.raises(KeyError, match=r"obsm has no table 'other_log_ratio'"):
        scratio.pl.violin(against_rest, groupby="group", key="other", group="b")
