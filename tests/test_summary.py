"""What summaries say, and how much scratio says."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scratio
from scratio._settings import _Stderr
from scratio._summary import Summary


@pytest.fixture(scope="module")
def cells():
    """Twelve donors, half of them treated, scored by a training that ends at once."""
    adata = scratio.datasets.gaussians(n_cells=300, n_dims=2, random_state=0)
    adata.obs["donor"] = [f"d{i % 12}" for i in range(300)]
    adata.obs["condition"] = np.where(np.arange(300) % 12 < 6, "treated", "control")
    adata.obs.iloc[::10, 0] = "another"
    scratio.tl.differential_abundance(
        adata,
        condition_key="condition",
        treatment="treated",
        reference="control",
        sample_key="donor",
        model_kwargs={"n_hidden": 8, "n_members": 1},
        train_kwargs={"max_steps": 10, "progress_bar": False, "accelerator": "cpu"},
    )
    return adata


def test_a_summary_holds_what_the_result_holds(cells):
    summary = scratio.tl.summary(cells)
    values = cells.obs["da_log_ratio"].dropna()
    row = summary.tables["Log ratios of the cells (nats)"].iloc[0]
    assert summary.title == "treated over control, 270 cells, X_pca (differential_abundance, key 'da')"
    assert row["log ratio"] == "da_log_ratio"
    assert row["n_cells"] == len(values) == 270
    np.testing.assert_allclose(row[["5%", "median", "95%"]].astype(float), np.quantile(values, [0.05, 0.5, 0.95]))
    scored = cells.obs["da_log_ratio"].notna()
    assert row["supported"] == cells.obs.loc[scored, "da_support"].mean()
    assert row["q < 0.1"] == (cells.obs["da_qvalue"] < 0.1).sum() / 270
    assert list(summary.tables) == ["Log ratios of the cells (nats)"]  # no groups unless they are asked for
    assert any(cells.uns["da"]["diagnostics"]["verdict"].iloc[0] in note for note in summary.notes)
    facts = summary.details.facts
    assert facts["sample_key"] == "donor"
    assert not {"min_cells", "covariates", "n_folds", "random_state"} & set(facts)  # as by default
    assert "closed form" not in facts
    pd.testing.assert_frame_equal(summary.details.tables["Results"], cells.uns["da"]["table"])


def test_a_summary_answers_by_annotation(cells):
    adata = cells.copy()
    names = np.where(adata.obsm["X_pca"][:, 0] > 0, 2, 1)
    adata.obs["cluster"] = pd.Series(names, index=adata.obs_names).where(np.arange(300) % 5 > 0)
    summary = scratio.tl.summary(adata, groupby="cluster")
    table = summary.tables["Log ratios by cluster (nats)"].set_index("cluster")
    scored = adata.obs[adata.obs["da_log_ratio"].notna()]
    assert set(table.index) == {"1.0", "2.0", "unlabelled"}
    for name, rows in (("1.0", scored["cluster"] == 1), ("unlabelled", scored["cluster"].isna())):
        own, row = scored[rows], table.loc[name]
        assert row["n_cells"] == len(own)
        expected = [
            len(own) / 270,
            own["da_log_ratio"].mean(),
            own["da_support"].mean(),
            (own["da_qvalue"] < 0.1).mean(),
        ]
        np.testing.assert_allclose(row[["share", "mean", "supported", "q < 0.1"]].astype(float), expected)
    assert table["mean"].is_monotonic_decreasing
    for text in (str(summary), summary._repr_html_()):
        assert "unlabelled" in text
    with pytest.raises(KeyError, match="no key 'kind'; found"):
        scratio.tl.summary(adata, groupby="kind")


def test_several_treatments_have_a_row_and_a_table_each():
    adata = scratio.datasets.gaussians(n_cells=240, n_dims=2, random_state=0)
    adata.obs["dose"] = np.arange(240) % 3
    adata.obs["kind"] = np.where(np.arange(240) < 100, "a", "b")
    scratio.tl.differential_abundance(adata, condition_key="dose", treatment=None, reference=0, effort="quick")
    summary = scratio.tl.summary(adata, groupby="kind")
    assert summary.title.startswith("1, 2 over 0, 240 cells, X_pca")
    spread = summary.tables["Log ratios of the cells (nats)"]
    assert list(spread["log ratio"]) == ["1", "2"]
    np.testing.assert_array_equal(spread["n_cells"], [160, 160])
    table = summary.tables["Log ratios of 2 by kind (nats)"].set_index("kind")
    values = adata.obsm["da_log_ratio"]["2"][(adata.obs["kind"] == "a").to_numpy()]
    assert table.loc["a", "mean"] == pytest.approx(values.mean())
    assert table["share"].sum() == pytest.approx(1.0)


def test_no_line_of_a_table_is_long_and_nothing_is_cut_off():
    wide = pd.DataFrame({f"a rather long name {i}": [1234.5678, 0.00012345] for i in range(12)})
    long = pd.concat([wide] * 4, ignore_index=True)
    text = str(Summary("title", {}, {"wide": wide, "long": long}, ["many words " * 30]))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("1,235") == 12 + 4 * text.split("long\n")[1].splitlines()[0].count("name")
    assert "(not shown: a rather long name" not in text.split("long\n")[0]
    assert "a rather long name 11" in text.split("not shown: ")[1].replace("\n", " ")
    cut = pd.DataFrame({"text": ["x" * 200]})
    for shown in (str(Summary("t", {}, {"cut": cut})), Summary("t", {}, {"cut": cut})._repr_html_()):
        assert "x" * 200 in shown
        assert "..." not in shown


def test_details_are_folded_and_come_last():
    details = Summary("Details", {"n_folds": "3"}, {"numbers": pd.DataFrame({"v": [7]})}, ["more"])
    summary = Summary("title", {}, {}, ["verdict"], details)
    assert str(summary) == "title\n\nverdict\n\nDetails\n  n_folds  3\nmore"
    html = summary._repr_html_()
    assert html.index("verdict") < html.index("<details><summary>Details</summary>") < html.index("n_folds")
    assert "<td>7</td>" in html


def test_every_analysis_has_a_summary_that_says_what_was_asked(quick):
    adata = scratio.datasets.gaussians(n_cells=240, n_dims=2, random_state=0)
    adata.obs["drug"] = np.array(["none", "a", "b", "a+b"])[np.arange(240) % 4]
    adata.obs["donor"] = [f"d{i % 6}" for i in range(240)]
    adata.obs["age"] = np.arange(240) % 6 * 1.5
    kwargs = {"train_kwargs": quick, "model_kwargs": {"n_hidden": 8, "n_members": 1}, "n_folds": 2}
    scratio.tl.batch_effect(adata, batch_key="condition", **kwargs)
    scratio.tl.combination_effect(adata, condition_keys="drug", combination="a+b", reference="none", **kwargs)
    scratio.tl.treatment_response(adata, treatment_key="condition", donor_key="donor", reference="control", **kwargs)
    scratio.tl.association(adata, key="age", sample_key="donor")
    scratio.tl.compare_methods(
        adata, condition_key="condition", treatment="treated", reference="control", methods=["qda"], n_folds=2
    )
    asked = {
        "batch_effect": "each cell's own condition over all, 240 cells",
        "combination": "a+b over its first treatment, 240 cells",
        "response": "condition over control, by donor, 240 cells",
        "association": "cells by age, 240 cells",
        "comparison": "treated over control, 240 cells",
    }
    for key, title in asked.items():
        summary = scratio.tl.summary(adata, key=key, groupby="drug")
        assert summary.title.startswith(title)
        assert "computed from" in str(summary)
        assert "None" not in str(summary)
    assert any("by drug" in title for title in scratio.tl.summary(adata, key="batch_effect", groupby="drug").tables)
    assert "Results" in scratio.tl.summary(adata, key="comparison").tables


def shift(adata) -> None:
    adata.obsm["X_pca"] = adata.obsm["X_pca"] + 1


def relabel(adata) -> None:
    adata.obs["donor"] = "d0"


def forget(adata) -> None:
    del adata.obsm["X_pca"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda adata: None, "270 of 300 cells; unchanged since"),
        (shift, "270 of 300 cells; their embedding changed since"),
        (relabel, "270 of 300 cells; their labels changed since"),
        (forget, "270 of 300 cells; obsm['X_pca'] is gone since"),
        (
            lambda adata: adata._inplace_subset_obs(slice(0, 100)),
            "270 of 100 cells; other cells than these now, or only some of these",
        ),
    ],
)
def test_a_summary_says_whether_the_cells_are_those_it_was_computed_from(cells, edit, said):
    adata = cells.copy()
    edit(adata)
    summary = scratio.tl.summary(adata)
    assert summary.details.facts["computed from"] == said
    # What changed is not folded away.
    assert (f"Note: {said}." in summary.notes) == ("unchanged" not in said)


def test_a_summary_shows_its_numbers_as_text_and_as_html_that_is_escaped():
    summary = Summary(
        "a <b>", {"key": "x & y"}, {"numbers": pd.DataFrame({"v": [0.12345], "name": ["<i>"]})}, ["n > 1"]
    )
    for part in ("a <b>", "key  x & y", "0.123", "<i>", "n > 1"):
        assert part in str(summary)
    html = summary._repr_html_()
    for part in ("a &lt;b&gt;", "x &amp; y", "0.123", "&lt;i&gt;", "n &gt; 1"):
        assert part in html
    assert "<i>" not in html


def test_there_is_no_summary_of_what_is_not_scratios(cells):
    adata = cells.copy()
    adata.uns["own"] = {"a": 1}
    for key in ("own", "absent"):
        with pytest.raises(KeyError, match=f"{key}.*found: \\['da'\\]"):
            scratio.tl.summary(adata, key=key)
    del adata.uns["da"]["analysis"]
    with pytest.raises(KeyError, match="earlier version"):
        scratio.tl.summary(adata)


def test_a_model_describes_itself(gaussian_cells, quick, capsys):
    scratio.model.ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = scratio.model.ScRatio(gaussian_cells, n_hidden=8, n_members=1)
    assert "no; call train()" in repr(model)
    model.train(**quick)
    for text in (repr(model), model._repr_html_()):
        assert "control, treated" in text
        assert f"steps {model.training_['steps']}" in text
        assert "X_pca" in text
    assert f"{model.history['validation_loss'].iloc[-1].mean():.4g}" in repr(model)
    assert capsys.readouterr().out == ""


# --- verbosity -----------------------------------------------------------------------------------------------------


@pytest.fixture
def logger():
    """The logger of scratio, put back after the test."""
    found = logging.getLogger("scratio")
    before = found.level, list(found.handlers), found.propagate
    found.setLevel(logging.NOTSET)
    found.handlers.clear()  # an example that ran before leaves one
    found.propagate = True
    yield found
    found.setLevel(before[0])
    found.handlers[:] = before[1]
    found.propagate = before[2]


@pytest.mark.parametrize(
    ("value", "number", "heard"),
    [("error", 0, []), ("warning", 1, ["w"]), (2, 2, ["w", "i"]), ("hint", 3, ["w", "i"]), (4, 4, ["w", "i", "d"])],
)
def test_the_verbosity_decides_what_is_said(logger, capsys, value, number, heard):
    scratio.settings.verbosity = value
    scratio.settings.verbosity = value  # no second handler
    assert scratio.settings.verbosity == number
    for level, text in ((logging.WARNING, "w"), (logging.INFO, "i"), (logging.DEBUG, "d")):
        logging.getLogger("scratio.tl").log(level, text)
    assert capsys.readouterr().err.split() == heard
    assert sum(isinstance(handler, _Stderr) for handler in logger.handlers) == 1


@pytest.mark.parametrize("value", ["loud", 5, -1, True, None, 1.5])
def test_a_verbosity_that_does_not_exist_is_refused(logger, value):
    with pytest.raises(ValueError, match=r"verbosity must be one of \['error', .*got"):
        scratio.settings.verbosity = value
    assert logger.handlers == []


def test_an_analysis_says_what_it_wrote_where_that_is_asked_for(logger, cells, capsys):
    adata = cells.copy()
    scratio.settings.verbosity = "info"
    scratio.tl.compare_methods(
        adata, condition_key="condition", treatment="treated", reference="control", methods=["qda"]
    )
    said = capsys.readouterr().err
    assert said.strip() == "compare_methods: wrote uns['comparison'], obsm['comparison']"


def test_a_training_says_how_long_it_will_take(logger, gaussian_cells, quick, capsys, monkeypatch):
    clock = iter(np.arange(0.0, 1_000.0, 4.0))  # 4 s between the two looks at it, for 20 steps
    # Its clock alone: dependencies look at the time as well.
    monkeypatch.setattr("scratio.train._callbacks.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    scratio.model.ScRatio.setup_anndata(gaussian_cells, condition_keys=["condition"])
    model = scratio.model.ScRatio(gaussian_cells, n_hidden=8, n_members=1)
    scratio.settings.verbosity = "info"
    model.train(**{**quick, "max_steps": 600, "validate_every": 300, "early_stopping": False})
    assert "training: 0.2 s per step, so 2 min 0 s for all 600 steps" in capsys.readouterr().err


def test_the_import_sets_no_level_and_no_handler():
    program = (
        "import json, logging, scratio; found = logging.getLogger('scratio'); "
        "print(json.dumps([found.level, len(found.handlers), found.propagate, scratio.settings.verbosity]))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout.splitlines()[-1]) == [0, 0, True, 1]


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("merge", ["first", "same", "unique"])
def test_a_summary_of_joined_results_says_what_they_have_in_common(early_stopping, merge):
    parts = []
    for k, n in enumerate((240, 100)):
        adata = scratio.datasets.gaussians(n_cells=n, n_dims=2, random_state=k)
        adata.obs_names = [f"{k}-{name}" for name in adata.obs_names]
        settings = {"max_steps": 10, "n_validation": 64, "early_stopping": early_stopping, "progress_bar": False}
        scratio.tl.differential_abundance(
            adata, condition_key="condition", treatment="treated", reference="control", n_folds=2 + k,
            random_state=k, model_kwargs={"n_hidden": 8, "n_members": 1}, train_kwargs=settings,
        )  # fmt: skip
        parts.append(adata)
    joined = ad.concat(parts, uns_merge=merge)
    summary = scratio.tl.summary(joined)
    assert summary.details.facts["treatment"] == "treated"
    assert summary.tables["Log ratios of the cells (nats)"].iloc[0]["n_cells"] == 340
    if merge == "first":
        assert summary.details.facts["n_folds"] == "2"
        assert summary.details.facts["computed from"].startswith("240 of 340 cells; other cells than these")
    else:
        assert "n_folds" not in summary.details.facts  # they differ
        assert summary.details.facts["computed from"] == "several sets of cells, whose results were joined"
    for text in (str(summary), summary._repr_html_()):
        assert summary.details.facts["computed from"] in text


def test_results_joined_without_their_records_have_no_summary(cells):
    with pytest.raises(KeyError, match="no result of scratio under 'da'; found: \\[\\]"):
        scratio.tl.summary(ad.concat([cells, cells], index_unique="-"))
