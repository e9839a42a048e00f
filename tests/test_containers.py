"""What cells come in: X itself, files, views of them, MuData, lazy objects, torch's modes; names no file can hold."""

from __future__ import annotations

import random
import warnings

import anndata as ad
import lightning.pytorch as pl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData

import scratio
from scratio.model import FDRL, ScRatio

GROUPS = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}
CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
MODEL = {"n_hidden": 8, "n_members": 2}


def cells(n: int = 240, **columns: object) -> ad.AnnData:
    """Two conditions, markers in X and the same as an embedding."""
    made = scratio.datasets.gaussians(n_cells=n, n_dims=3, distance=1.5, random_state=0)
    var = pd.DataFrame(index=["CD3", "CD4", "CD8"])
    return ad.AnnData(X=made.obsm["X_pca"].copy(), obs=made.obs.assign(**columns), var=var, obsm=dict(made.obsm))


def compare(adata: ad.AnnData, quick: dict, **changes) -> None:
    settings = {"model_kwargs": MODEL, "train_kwargs": quick, **GROUPS}
    scratio.tl.differential_abundance(adata, **{**settings, **changes})


# --- X as embedding ------------------------------------------------------------------------------------------------


def test_x_gives_what_the_same_numbers_in_obsm_give(quick, tmp_path):
    adata, expected = cells(), cells()
    del adata.obsm["X_pca"]
    compare(adata, quick, use_rep="X")
    compare(expected, quick)
    np.testing.assert_array_equal(adata.obs["da_log_ratio"], expected.obs["da_log_ratio"])
    assert list(adata.obsm) == []
    assert "unchanged since" in str(scratio.tl.summary(adata))
    adata.X[0] += 1.0
    assert "embedding changed since" in str(scratio.tl.summary(adata))


def test_obsm_goes_before_x_where_it_has_that_key(quick):
    adata, expected = cells(), cells()
    adata.obsm["X"] = adata.obsm["X_pca"][:, ::-1] ** 3
    expected.obsm["X_pca"] = adata.obsm["X"]
    compare(adata, quick, use_rep="X")
    compare(expected, quick)
    np.testing.assert_array_equal(adata.obs["da_log_ratio"], expected.obs["da_log_ratio"])


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_a_model_of_x_scores_files_and_other_cells(quick, tmp_path):
    adata, expected = cells(), cells()
    ratios = []
    for data, key in ((adata, "X"), (expected, "X_pca")):
        ScRatio.setup_anndata(data, obsm_key=key, condition_keys=["condition"])
        model = ScRatio(data, **MODEL)
        model.train(**quick)
        model.save(tmp_path / key)
        ratios.append(model.log_ratio(**CONTRAST))
    np.testing.assert_array_equal(*ratios)
    fresh = cells(30)
    fresh.write_h5ad(tmp_path / "cells.h5ad")
    fresh.write_zarr(tmp_path / "cells.zarr")
    loaded, other = ScRatio.load(tmp_path / "X"), ScRatio.load(tmp_path / "X_pca")
    wanted = other.log_ratio(fresh, **CONTRAST)
    np.testing.assert_array_equal(loaded.log_ratio(fresh, **CONTRAST), wanted)
    for path in (tmp_path / "cells.h5ad", tmp_path / "cells.zarr"):
        lazy = scratio.io.read_lazy(path, obsm_key="X", obs_keys=["condition"])
        np.testing.assert_allclose(loaded.log_ratio(lazy, **CONTRAST), wanted, atol=1e-6)
    with pytest.raises(ValueError, match="^X has 2 dimensions; the model was trained on 3"):
        loaded.log_ratio(fresh[:, :2], **CONTRAST)


def test_the_genes_of_a_model_of_x_are_its_dimensions(quick):
    adata = cells()
    ScRatio.setup_anndata(adata, obsm_key="X", condition_keys=["condition"])
    model = ScRatio(adata, **MODEL)
    model.train(**quick)
    scratio.tl.driver_genes(adata, model, **CONTRAST)
    expected = model.log_ratio_gradient(**CONTRAST).mean(axis=(0, 1))
    np.testing.assert_allclose(adata.varm["drivers"]["all cells"], expected, rtol=1e-5)


@pytest.mark.parametrize("tool", ["batch_effect", "treatment_response", "combination_effect", "compare_methods"])
def test_all_analyses_take_x_and_numbers_as_labels(tool, quick):
    adata = cells(drug=np.arange(240) % 2 * 1.0, other=np.arange(240) // 2 % 2 * 1.0, donor=np.arange(240) % 3 * 1.0)
    del adata.obsm["X_pca"]
    fitted = {"use_rep": "X", "n_folds": 2, "model_kwargs": MODEL, "train_kwargs": quick}
    settings, column = {
        "batch_effect": ({"batch_key": "donor", **fitted}, "batch_effect_log_ratio"),
        "treatment_response": (
            {"treatment_key": "drug", "donor_key": "donor", "reference": 0, **fitted},
            "response_log_ratio",
        ),
        "combination_effect": (
            {"condition_keys": ["drug", "other"], "combination": (1, 1), "reference": (0, 0), **fitted},
            "combination_log_ratio",
        ),
        "compare_methods": (
            {"condition_key": "drug", "treatment": 1, "reference": 0, "methods": ["qda"], "use_rep": "X"},
            None,
        ),
    }[tool]
    getattr(scratio.tl, tool)(adata, **settings)
    found = adata.obsm["comparison"]["qda"] if column is None else adata.obs[column]
    assert found.notna().all()


def test_a_contrast_names_categories_by_any_number(quick):
    adata = cells(dose_group=np.arange(240) % 2 * 1.0)
    ScRatio.setup_anndata(adata, condition_keys=["dose_group"])
    model = ScRatio(adata, **MODEL)
    model.train(**quick)
    ratios = [
        model.log_ratio(numerator={"dose_group": one}, denominator={"dose_group": none})
        for one, none in (("1.0", "0.0"), (1, 0), (1.0, 0.0), (np.int64(1), np.float32(0)))
    ]
    for ratio in ratios[1:]:
        np.testing.assert_array_equal(ratio, ratios[0])
    for odd in (True, None, 2, "1"):
        with pytest.raises(ValueError, match="no category"):
            model.log_ratio(numerator={"dose_group": odd}, denominator={"dose_group": 0})


@pytest.mark.parametrize("dtype", [int, float, bool, "Int64", "boolean", "category", str])
def test_a_summary_knows_labels_of_any_type_again(dtype, quick):
    adata = cells(drug=pd.Series(np.arange(240) % 2, index=cells().obs_names).astype(dtype))
    one, none = adata.obs["drug"].iloc[1], adata.obs["drug"].iloc[0]
    compare(adata, quick, condition_key="drug", treatment=one, reference=none)
    assert scratio.tl.summary(adata).details.facts["computed from"] == "240 of 240 cells; unchanged since"
    adata.obs["drug"] = adata.obs["drug"].to_numpy()[::-1]
    assert scratio.tl.summary(adata).details.facts["computed from"] == "240 of 240 cells; their labels changed since"


@pytest.mark.filterwarnings("ignore:.*too few for q-values:UserWarning")
def test_groups_are_named_by_any_number_in_plots_and_regions(quick):
    # Donors of 8 to 24 cells.
    donor = np.random.default_rng(0).choice(16, 240, p=np.linspace(0.5, 1.5, 16) / 16).astype(str)
    adata = cells(drug=np.arange(240) % 2 * 1.0, donor=donor)
    compare(adata, quick, condition_key="drug", treatment=[1], reference=0, sample_key="donor", min_cells=1)
    for group in (1, 1.0, "1.0", np.int64(1)):
        assert scratio.pl.embedding(adata, basis="X_pca", group=group).get_title() == f"da: {group}"
        assert scratio.pl.calibration(adata, group=group).get_title() == "1.0 over 0.0"
        scratio.tl.regions(adata, group=group)
    for call in (scratio.pl.calibration, scratio.tl.regions):
        with pytest.raises(KeyError, match="no group '?2'?; found: .'1.0'"):
            call(adata, group=2)
    plt.close("all")


# --- what cells come in --------------------------------------------------------------------------------------------


def calls(adata: object, quick: dict) -> dict[str, object]:
    """Everything that takes cells."""
    made = cells()
    ScRatio.setup_anndata(made, condition_keys=["condition"])
    model = ScRatio(made, **MODEL)
    model.train(**quick)
    return {
        "differential_abundance": lambda: compare(adata, quick),
        "batch_effect": lambda: scratio.tl.batch_effect(adata, batch_key="condition"),
        "combination_effect": lambda: scratio.tl.combination_effect(
            adata, condition_keys="drug", combination="a+b", reference="none"
        ),
        "treatment_response": lambda: scratio.tl.treatment_response(
            adata, treatment_key="condition", donor_key="donor", reference="control"
        ),
        "compare_methods": lambda: scratio.tl.compare_methods(
            adata, condition_key="condition", treatment="treated", reference="control"
        ),
        "log_ratio": lambda: scratio.tl.log_ratio(adata, model, **CONTRAST),
        "driver_genes": lambda: scratio.tl.driver_genes(adata, model, **CONTRAST),
        "covariate_curve": lambda: scratio.tl.covariate_curve(adata, model, covariate_key="dose", reference=0.0),
        "translate": lambda: scratio.tl.translate(adata, model, source={}, target={}),
        "regions": lambda: scratio.tl.regions(adata),
        "summary": lambda: scratio.tl.summary(adata),
        "setup_anndata": lambda: ScRatio.setup_anndata(adata, condition_keys=["condition"]),
        "model.log_ratio": lambda: model.log_ratio(adata, **CONTRAST),
        "pl.embedding": lambda: scratio.pl.embedding(adata),
        "pl.violin": lambda: scratio.pl.violin(adata, groupby="condition"),
        "pl.calibration": lambda: scratio.pl.calibration(adata),
        "pl.history": lambda: scratio.pl.history(adata),
    }


@pytest.mark.filterwarnings("ignore")
def test_a_mudata_is_told_how_to_pass_a_modality(quick):
    state = random.getstate()
    data = MuData({"rna": cells(), "prot": cells()})
    random.setstate(state)  # MuData draws from the global generator
    for name, call in calls(data, quick).items():
        with pytest.raises(TypeError, match=r"MuData.*mdata\['rna'\], mdata\['prot'\]"):
            call()
            pytest.fail(f"{name} took a MuData")
    compare(data["rna"], quick)
    assert data["rna"].obs["da_log_ratio"].notna().all()


@pytest.mark.parametrize("other", [pd.DataFrame({"a": [1.0]}), np.zeros((3, 2)), "cells.h5ad", None])
def test_what_is_no_anndata_is_named(other, quick):
    for name, call in calls(other, quick).items():
        if other is None and name == "model.log_ratio":
            continue  # None stands for the model's own cells
        with pytest.raises(TypeError, match=f"must be an AnnData, got {type(other).__name__}"):
            call()
            pytest.fail(f"{name} took a {type(other).__name__}")


def test_a_lazy_anndata_is_told_how_to_be_opened(quick, tmp_path):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    lazy = ad.experimental.read_lazy(tmp_path / "cells.h5ad")
    with pytest.raises(TypeError, match=r"read_lazy.*scratio\.io\.read_lazy\(path\).*to_memory"):
        compare(lazy, quick)


def test_results_in_a_file_are_replaced_by_those_of_cells_on_disk(quick, tmp_path):
    adata = cells()
    compare(adata, quick)
    adata.uns["mine"] = {"colours": np.array(["red"])}
    for how in ("h5ad", "zarr"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            getattr(adata, f"write_{how}")(tmp_path / f"cells.{how}")
        lazy = scratio.io.read_lazy(tmp_path / f"cells.{how}")
        assert list(lazy.uns) == ["da"]
        compare(lazy, quick, random_state=1)
        assert not np.array_equal(lazy.obs["da_log_ratio"], adata.obs["da_log_ratio"])


def test_all_methods_are_compared_on_cells_on_disk(quick, tmp_path):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    lazy, adata = scratio.io.read_lazy(tmp_path / "cells.h5ad"), cells()
    training = {name: value for name, value in quick.items() if name != "progress_bar"}
    settings = {**GROUPS, "methods": ["scratio", "qda"], "method_kwargs": {"scratio": training}}
    for data in (lazy, adata):
        scratio.tl.compare_methods(data, **settings)
    found, expected = lazy.obsm["comparison"], adata.obsm["comparison"]
    np.testing.assert_allclose(found["qda"], expected["qda"], rtol=1e-6)
    # Cells on disk are shuffled in blocks, so that the batches of a training are others.
    assert np.corrcoef(found["scratio"], expected["scratio"])[0, 1] > 0.99


def test_the_same_question_twice_in_one_call_is_refused_and_nothing_is_lost(quick, unchanged):
    adata = cells(a=np.arange(240) % 2 * 1, b=np.arange(240) // 2 % 2 * 1)
    settings = {"condition_keys": ["a", "b"], "reference": (0, 0), "n_folds": 2, "train_kwargs": quick}
    scratio.tl.combination_effect(adata, **settings, combination=[(1, 1)])
    with unchanged(adata), pytest.raises(ValueError, match="same names.*combination_1\\+1_log_ratio"):
        scratio.tl.combination_effect(adata, **settings, combination=[(1, 1), (1, 1)])


@pytest.mark.parametrize("copy", [False, True])
def test_a_view_or_copy_of_a_backed_file_is_refused_before_training(copy, quick, tmp_path, monkeypatch):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    monkeypatch.setattr(ScRatio, "train", lambda *args, **kwargs: pytest.fail("trained"))
    adata = backed if copy else backed[:200]
    for tool, settings in (
        ("differential_abundance", GROUPS),
        ("batch_effect", {"batch_key": "condition", "use_rep": "X_pca"}),
        ("compare_methods", {k: v for k, v in GROUPS.items() if k != "n_folds"}),
    ):
        with pytest.raises(ValueError, match=r"backed.*adata\.to_memory\(\)"):
            getattr(scratio.tl, tool)(adata, **settings, copy=copy)
    backed.file.close()


def test_views_of_backed_files_can_be_scored_by_a_model(quick, tmp_path):
    adata = cells()
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, **MODEL)
    model.train(**quick)
    cells().write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_array_equal(model.log_ratio(backed[:50], **CONTRAST), model.log_ratio(**CONTRAST)[:50])
    backed.file.close()


# --- names that files cannot hold ----------------------------------------------------------------------------------


def with_slashes() -> ad.AnnData:
    return cells(drug=np.tile(["ctrl", "IFN", "IFN/TNF"], 80), type=np.tile(["B", "CD4/CD8"], 120), donor="d1")


@pytest.mark.parametrize("treatment", [None, ["IFN", "IFN/TNF"], ["IFN/TNF"]])
def test_a_slash_in_a_name_that_becomes_a_column_is_refused_before_training(treatment, quick, unchanged, monkeypatch):
    adata = with_slashes()
    monkeypatch.setattr(ScRatio, "train", lambda *args, **kwargs: pytest.fail("trained"))
    settings = {"condition_key": "drug", "treatment": treatment, "reference": "ctrl"}
    with unchanged(adata), pytest.raises(ValueError, match=r"obs\['drug'\].*'IFN/TNF'.*Rename") as found:
        compare(adata, quick, **settings)
    response = {"treatment_key": "drug", "donor_key": "donor", "reference": "ctrl", "n_folds": 2}
    with unchanged(adata), pytest.raises(ValueError, match=r"obs\['drug'\].*'IFN/TNF'"):
        scratio.tl.treatment_response(adata, **response)
    # The line of code in the message does what it says.
    line = str(found.value).split("first: ")[1]
    exec(line, {"adata": adata})
    # Windows has no "|" in names of files, which a zarr store would need.
    assert set(adata.obs["drug"]) == {"ctrl", "IFN", "IFN-TNF"}


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.parametrize("how", ["h5ad", "zarr"])
def test_a_slash_is_no_matter_where_one_treatment_is_compared(how, quick, tmp_path):
    adata = with_slashes()
    compare(adata, quick, condition_key="drug", treatment="IFN/TNF", reference="ctrl")
    getattr(adata, f"write_{how}")(tmp_path / f"cells.{how}")
    again = getattr(ad, f"read_{how}")(tmp_path / f"cells.{how}")
    np.testing.assert_array_equal(again.obs["da_log_ratio"], adata.obs["da_log_ratio"])
    assert list(again.uns["da"]["table"]["treatment"]) == ["IFN/TNF"]


def test_groups_and_combinations_with_a_slash_are_refused(quick, unchanged):
    adata = with_slashes()
    adata.obs["several"] = np.array(["none", "a", "b/c", "a+b/c", "d", "a+d"])[np.arange(240) % 6]
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, **MODEL)
    model.train(**quick)
    with unchanged(adata), pytest.raises(ValueError, match=r"obs\['type'\].*CD4/CD8"):
        scratio.tl.driver_genes(adata, model, **CONTRAST, groupby="type")
    several = {"condition_keys": "several", "combination": ["a+b/c", "a+d"], "reference": "none", "n_folds": 2}
    with unchanged(adata), pytest.raises(ValueError, match="slash.*a\\+b/c"):
        scratio.tl.combination_effect(adata, **several)


# --- torch's modes, the user's logger and callbacks ----------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_analyses_do_the_same_in_any_mode_of_torch(mode, quick, tmp_path):
    adata, expected = cells(), cells()
    compare(expected, quick)
    with mode():
        compare(adata, quick)
        scratio.tl.compare_methods(adata, **GROUPS, methods=["tsm"], method_kwargs={"tsm": {"n_steps": 3}})
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert torch.is_grad_enabled()
    np.testing.assert_array_equal(adata.obs["da_log_ratio"], expected.obs["da_log_ratio"])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_models_do_the_same_in_any_mode_of_torch(mode, quick, tmp_path):
    settings = {"max_steps": 20, "batch_size": 64, "accelerator": "cpu", "progress_bar": False}
    ends = {"source": {"condition": "control"}, "target": {"condition": "treated"}}
    found = []
    for context in (torch.enable_grad, mode):
        with context():
            adata = cells()
            ScRatio.setup_anndata(adata, condition_keys=["condition"])
            model = ScRatio(adata, **MODEL)
            model.train(**quick)
            model.save(tmp_path / "model", overwrite=True)
            loaded = ScRatio.load(tmp_path / "model", adata)
            found += [model.log_ratio(**CONTRAST), loaded.log_ratio(**CONTRAST, method="ode", n_steps=4)]
            found += [loaded.log_ratio_gradient(**CONTRAST)]
            FDRL.setup_anndata(adata, condition_keys=["condition"])
            other = FDRL(adata, **ends, n_hidden=8, n_flow_steps=2)
            other.train(**settings)
            found += [other.translate(adata, **ends)]
        # What was made in inference mode could not be trained on.
        loaded.train(**quick)
    for first, second in zip(found[:4], found[4:], strict=True):
        np.testing.assert_array_equal(first, second)


class Listener(pl.Callback):
    """What a user's callback sees at the end of every epoch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Log(pl.loggers.logger.DummyLogger):
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def test_a_users_logger_and_callbacks_see_the_losses(quick):
    adata, listener, log = cells(), Listener(), Log()
    compare(adata, {**quick, "logger": log, "callbacks": [listener]})
    history = adata.uns["da"]["history"]
    assert len(listener.seen) == len(history["step"])
    for name in ("train_loss", "validation_loss"):
        expected = history[name].mean(axis=1)
        np.testing.assert_allclose([row[name] for row in listener.seen], expected, rtol=1e-5)
        np.testing.assert_allclose([row[name] for _, row in log.rows if name in row], expected, rtol=1e-5)


def test_a_users_callback_can_stop_the_training(quick):
    adata = cells()
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    stop = pl.callbacks.EarlyStopping("validation_loss", patience=1, min_delta=1e9)
    model = ScRatio(adata, **MODEL)
    model.train(**quick, callbacks=[stop])
    assert model.training_["steps"] == 20  # at the second validation
    plain = ScRatio(adata, **MODEL)
    plain.train(**quick)
    assert plain.training_["steps"] == 40


def test_a_warning_points_to_the_line_of_the_user(quick):
    adata = cells(drug=np.where(np.arange(240) % 2, "a", "b"))
    adata.obs["donor"] = (np.arange(240) % 2).astype(str) + (np.arange(240) // 80).astype(str)
    adata.obs.iloc[:3, adata.obs.columns.get_loc("donor")] = "few"
    with pytest.warns(UserWarning) as caught:
        compare(adata, quick, condition_key="drug", treatment="a", reference="b", sample_key="donor")
    assert any("take no part" in str(warning.message) for warning in caught)
    assert {warning.filename for warning in caught} == {__file__}
