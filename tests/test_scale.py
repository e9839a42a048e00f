"""Cells on disk: the same numbers as in memory, block by block, by clusters, and after a process was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import cloudpickle
import dask
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import scratio
from scratio import OWN, _blocks
from scratio._atomic import atomic
from scratio._coordinates import Coordinates
from scratio.conditions import distinct_rows
from scratio.model import ScRatio
from scratio.stats import robust_coordinates
from scratio.tl import _score_file
from scratio.train import StandardisedCells
from scratio.train._stream import BlockStream

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")

CONTRAST = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
OF_DONOR = {name: {**condition, "donor": OWN} for name, condition in CONTRAST.items()}
TRAINING = {
    "max_steps": 30,
    "batch_size": 64,
    "warmup_steps": 5,
    "validate_every": 10,
    "n_validation": 64,
    "accelerator": "cpu",
    "progress_bar": False,
}


def cells(n: int = 600) -> ad.AnnData:
    adata = scratio.datasets.gaussians(n_cells=n, n_dims=3, random_state=0)
    adata.obs["donor"] = np.array(["a", "b", "c"])[np.arange(n) % 3]
    return adata


def on_disk(adata: ad.AnnData, kind: str, folder: Path) -> ad.AnnData:
    """The same cells with an embedding that is not in memory."""
    path = folder / "cells"
    if kind == "h5ad":
        adata.write_h5ad(path.with_suffix(".h5ad"))
        return scratio.io.read_lazy(path.with_suffix(".h5ad"))
    if kind == "zarr":
        adata.write_zarr(path.with_suffix(".zarr"))
        return scratio.io.read_lazy(path.with_suffix(".zarr"))
    lazy = adata.copy()
    lazy.obsm["X_pca"] = da.from_array(adata.obsm["X_pca"], chunks=(137, 2))
    return lazy


def trained(adata: ad.AnnData, **settings) -> ScRatio:
    ScRatio.setup_anndata(adata, condition_keys=["condition", "donor"])
    model = ScRatio(adata, n_hidden=8, n_members=2, n_folds=settings.pop("n_folds", 1))
    model.train(**{**TRAINING, **settings})
    return model


@pytest.fixture(scope="module")
def model() -> ScRatio:
    return trained(cells(), early_stopping=False)


@pytest.fixture
def small_slabs(monkeypatch):
    """Blocks of 100 cells, so that 600 are several."""
    monkeypatch.setattr(_blocks, "SLAB", 100)
    monkeypatch.setattr(_blocks.slabs, "__defaults__", (100,))


KINDS = ("h5ad", "zarr", "dask")


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_in_memory_come_in_the_order_asked_for(kind, tmp_path, small_slabs):
    adata = cells()
    x = on_disk(adata, kind, tmp_path).obsm["X_pca"]
    rows = np.array([[599, 3, 3], [100, 99, 0]])
    np.testing.assert_array_equal(_blocks.take_rows(x, rows), adata.obsm["X_pca"][rows])


def test_blocks_have_the_moments_of_the_whole(small_slabs):
    x = 1e3 + cells(650).obsm["X_pca"].astype(np.float64)
    mean, deviation = _blocks.moments(x)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, x.std(0), rtol=1e-12)


def test_the_scale_is_that_of_the_cells_in_memory(tmp_path, small_slabs):
    adata = cells()
    lazy = on_disk(adata, "h5ad", tmp_path).obsm["X_pca"]
    found, there = (robust_coordinates(x, np.random.default_rng(0)) for x in (lazy, adata.obsm["X_pca"]))
    np.testing.assert_allclose(found.scale, there.scale, rtol=1e-12)


def test_an_embedding_in_memory_is_not_copied(model):
    x = model.adata.obsm["X_pca"]
    assert model._standardised(model.adata).source is x


@pytest.mark.parametrize("codes", [np.array([[3, 1], [0, 1], [3, 1], [0, -2]]), np.array([[0, 2**40], [5, 0], [0, 0]])])
def test_distinct_rows_are_numpys(codes):
    rows, inverse, counts = distinct_rows(codes)
    expected = np.unique(codes, axis=0, return_counts=True)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(counts, expected[1])
    np.testing.assert_array_equal(rows[inverse], codes)


def test_a_file_is_opened_with_the_labels_that_were_asked_for(tmp_path):
    adata = cells()
    on_disk(adata, "h5ad", tmp_path)
    lazy = scratio.io.read_lazy(tmp_path / "cells.h5ad", obs_keys=["donor"])
    assert list(lazy.obs) == ["donor"]
    assert list(lazy.obs["donor"]) == list(adata.obs["donor"])
    assert list(lazy.obs_names) == list(adata.obs_names)


@pytest.mark.parametrize(
    ("change", "kwargs", "error", "message"),
    [
        (lambda path: path.unlink(), {}, FileNotFoundError, "no file"),
        (lambda path: path.write_bytes(b"not a file of cells"), {}, ValueError, "neither"),
        (lambda path: h5py.File(path, "w").close(), {}, ValueError, "no obs"),
        (lambda path: None, {"obsm_key": "X_scVI"}, KeyError, "X_scVI.*X_pca"),
        (lambda path: None, {"obs_keys": ["dose"]}, KeyError, "dose.*condition"),
        (lambda path: None, {"obs_keys": "donor"}, TypeError, "list"),
    ],
)
def test_files_that_cannot_be_opened_say_why(change, kwargs, error, message, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells(50).write_h5ad(path)
    change(path)
    with pytest.raises(error, match=message):
        scratio.io.read_lazy(path, **kwargs)


# --- scoring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contrast", [CONTRAST, OF_DONOR], ids=["named", "own"])
def test_cells_on_disk_have_the_scores_of_those_in_memory(kind, contrast, model, tmp_path, small_slabs):
    adata = cells(333)
    lazy = on_disk(adata, kind, tmp_path)
    mean, error = (np.asarray(values) for values in model.log_ratio(lazy, **contrast, return_std=True))
    expected = model.log_ratio(adata, **contrast, return_std=True)
    np.testing.assert_allclose(mean, expected[0], atol=1e-6)
    np.testing.assert_allclose(error, expected[1], rtol=1e-5)
    np.testing.assert_array_equal(model.typicality(lazy, **contrast), model.typicality(adata, **contrast))


def test_a_cell_in_no_block_is_left_out(model, small_slabs):
    adata = cells(333)
    found, whole = [], model.log_ratio(adata, **CONTRAST)
    for rows in (slice(0, 99), slice(99, 333)):
        found.append(model.log_ratio(adata, **CONTRAST, rows=rows))
    np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_cells_on_disk_are_scored_out_of_fold(kind, tmp_path, small_slabs):
    adata = cells()
    expected = trained(adata, n_folds=2, early_stopping=False)
    lazy = on_disk(adata, kind, tmp_path)
    folded = trained(lazy, n_folds=2, early_stopping=False)
    with torch.no_grad():
        for mine, other in zip(folded.module.parameters(), expected.module.parameters(), strict=True):
            mine.copy_(other)
    np.testing.assert_array_equal(folded.folds, expected.folds)
    found = np.asarray(folded.log_ratio(**CONTRAST))
    np.testing.assert_allclose(found, expected.log_ratio(**CONTRAST), atol=1e-6)
    # In another AnnData, in memory or not, they are the same cells; by all networks they would have other scores.
    others = [lazy.copy() if kind == "dask" else lazy.to_memory(), adata]
    for other in others:
        np.testing.assert_allclose(np.asarray(folded.log_ratio(other, **CONTRAST)), found, atol=1e-6)
    folded.known = None
    assert np.abs(found - folded.log_ratio(adata, **CONTRAST)).max() > 0.01


def test_a_lazy_embedding_has_lazy_scores_and_one_scorer(model):
    adata = cells(333)
    adata.obsm["X_pca"] = da.from_array(adata.obsm["X_pca"], chunks=(50, 3))
    lazy = model.log_ratio(adata, **CONTRAST)
    assert isinstance(lazy, da.Array)
    assert lazy.chunks == ((50,) * 6 + (33,),)
    # One task holds the networks, also after dask has merged tasks; the chunks' tasks name it.
    for graph in (lazy.__dask_graph__(), dask.optimize(lazy)[0].__dask_graph__()):
        assert sum("scratio-scorer" in str(key) for key in dict(graph)) == 1
        assert sum(len(cloudpickle.dumps(task)) > 20_000 for task in dict(graph).values()) == 1


CLUSTER = """
import sys
sys.path.insert(0, {folder!r})
import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster, wait
from scratio.model import ScRatio
from test_scale import CONTRAST, cells

if __name__ == "__main__":
    adata, model = cells(3_000), ScRatio.load(sys.argv[1])
    expected = model.log_ratio(adata, **CONTRAST)
    adata.obsm["X_pca"] = da.from_array(adata.obsm["X_pca"], chunks=(100, 3))
    lazy = model.log_ratio(adata, **CONTRAST)
    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        # Which worker is free first depends on the load of the machine, so each is given its half.
        addresses = list(client.has_what())
        halves = [client.persist(part, workers=[at]) for part, at in zip((lazy[:1500], lazy[1500:]), addresses)]
        wait(halves)
        for half, at, wanted in zip(halves, addresses, (expected[:1500], expected[1500:])):
            where = [workers for key, workers in client.who_has().items() if key in half.__dask_keys__()]
            print("CHUNKS", sum(list(workers) == [at] for workers in where), flush=True)
            np.testing.assert_allclose(half.compute(), wanted, atol=1e-6)
"""


def test_both_workers_of_a_cluster_score(model, tmp_path):
    # In a process of its own: dask draws from the global generator.
    model.save(tmp_path / "model")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER.format(folder=str(Path(__file__).parent)), "utf-8")
    done = subprocess.run([sys.executable, script, tmp_path / "model"], capture_output=True, text=True, check=True)
    chunks = [int(n) for line in done.stdout.splitlines() if line.startswith("CHUNKS") for n in line.split()[1:]]
    assert chunks == [15, 15]


def test_cells_that_are_not_finite_are_named(model, tmp_path, small_slabs):
    adata = cells(333)
    adata.obsm["X_pca"][250, 1] = np.nan
    lazy = on_disk(adata, "h5ad", tmp_path)
    with pytest.raises(ValueError, match=f"X_pca.*{adata.obs_names[250]}"):
        model.log_ratio(lazy, **CONTRAST)
    with pytest.raises(ValueError, match=f"in 1 of 333.*{adata.obs_names[250]}"):
        ScRatio.setup_anndata(lazy, condition_keys=["condition"])
    lazy = on_disk(adata, "dask", tmp_path)
    with pytest.raises(ValueError, match="NaN"):
        np.asarray(model.log_ratio(lazy, **CONTRAST))


# --- training ------------------------------------------------------------------------------------------------------


def stream(n: int = 1_000, block: int = 16, per_group: int = 8, seed: int = 0) -> BlockStream:
    x = np.arange(n, dtype=np.float32)[:, None]
    rows = [np.flatnonzero(np.arange(n) % 3 != held_out) for held_out in (0, 1)]
    standardised = StandardisedCells(x, Coordinates.linear(np.zeros(1), np.ones(1)))
    return BlockStream(standardised, rows, seed, block=block, blocks_per_group=per_group)


def test_a_stream_has_every_row_once_before_any_again():
    streamed = stream()
    for member, rows in enumerate(streamed.rows):
        n = len(rows)
        taken = [streamed.take(member, start, 50) for start in range(0, 2 * n + 50, 50)]
        order = np.concatenate([rows for rows, _ in taken])
        np.testing.assert_array_equal(np.concatenate([x.numpy()[:, 0] for _, x in taken]), order)
        for epoch in (order[:n], order[n : 2 * n]):
            np.testing.assert_array_equal(np.sort(epoch), rows)
        assert not np.array_equal(order[:n], order[n : 2 * n])


def test_what_a_stream_yields_depends_on_its_position_alone():
    whole, later = stream(), stream()
    for start in range(0, 900, 60):
        whole.take(0, start, 60)
        whole.take(1, start, 60)
    np.testing.assert_array_equal(whole.take(1, 900, 60)[0], later.take(1, 900, 60)[0])
    assert not np.array_equal(later.take(1, 900, 60)[0], stream(seed=1).take(1, 900, 60)[0])


def test_a_streams_batch_is_of_cells_from_all_over_the_file():
    # A file sorted by condition: of 64 batches none has fewer than a quarter of either half.
    streamed = stream(n=64_000, block=64, per_group=128)
    for start in range(0, 64 * 500, 500):
        rows, _ = streamed.take(0, start, 500)
        assert 0.25 < (rows < 32_000).mean() < 0.75


def test_a_stream_reads_a_group_of_blocks_once(monkeypatch):
    streamed, reads = stream(), []
    original = streamed._read
    monkeypatch.setattr(streamed, "_read", lambda blocks: reads.append(len(blocks)) or original(blocks))
    for start in range(0, 600, 50):
        streamed.take(0, start, 50)
        streamed.take(1, start, 50)
    # 63 blocks in groups of 8; the members are never more than a group apart.
    assert sum(reads) <= 64


def test_training_from_disk_reaches_the_known_answer(tmp_path, small_slabs):
    adata = scratio.datasets.gaussians(n_cells=2_000, n_dims=2, random_state=0)
    lazy = on_disk(adata, "h5ad", tmp_path)
    ScRatio.setup_anndata(lazy, condition_keys=["condition"])
    model = ScRatio(lazy, n_hidden=32, n_members=2)
    model.train(**{**TRAINING, "max_steps": 200, "batch_size": 256, "n_validation": 400})
    fresh = scratio.datasets.gaussians(n_cells=2_000, n_dims=2, random_state=1)
    truth = fresh.obs["true_log_ratio"]
    assert np.mean((model.log_ratio(fresh, **CONTRAST) - truth) ** 2) < 0.02 * np.var(truth)


def test_the_bits_of_a_training_do_not_depend_on_how_cells_are_stored(tmp_path, small_slabs, monkeypatch):
    # Blocks of 64 cells in groups of 2, so that 600 cells are several groups.
    monkeypatch.setattr(BlockStream.__init__, "__defaults__", (64, 2))
    found = [trained(on_disk(cells(), kind, tmp_path), early_stopping=False).fingerprint() for kind in KINDS]
    assert len(set(found)) == 1
    assert found[0] != trained(cells(), early_stopping=False).fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_compares_cells_on_disk(kind, tmp_path, small_slabs):
    adata = cells()
    lazy = on_disk(adata, kind, tmp_path)
    settings = {"model_kwargs": {"n_hidden": 8, "n_members": 2}, "train_kwargs": {**TRAINING, "early_stopping": False}}
    question = {"condition_key": "condition", "treatment": "treated", "reference": "control", "n_folds": 2}
    scratio.tl.differential_abundance(lazy, **question, **settings)
    assert not isinstance(lazy.obsm["X_pca"], np.ndarray)
    assert np.corrcoef(lazy.obs["da_log_ratio"], adata.obs["true_log_ratio"])[0, 1] > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_cells_on_disk_leaves_them_alone(kind, model, tmp_path):
    lazy = on_disk(cells(), kind, tmp_path)
    before = list(lazy.obs)
    result = scratio.tl.log_ratio(lazy, model, **CONTRAST, copy=True)
    assert list(lazy.obs) == before
    assert not isinstance(result.obsm["X_pca"], np.ndarray)
    np.testing.assert_allclose(result.obs["log_ratio"], model.log_ratio(cells(), **CONTRAST), atol=1e-6)


def test_closed_forms_of_many_cells_are_fitted_to_a_sample(monkeypatch):
    from scratio.model import _closed_forms

    adata = scratio.datasets.gaussians(n_cells=4_000, n_dims=2, random_state=0)
    monkeypatch.setattr(_closed_forms, "MOST_FITTED", 1_000)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=8, n_members=1)
    seen = []
    original = _closed_forms.class_gaussian
    monkeypatch.setattr(_closed_forms, "class_gaussian", lambda x, *args: seen.append(len(x)) or original(x, *args))
    model.train(**TRAINING)
    # Nine tenths of 1,000, those that the member trains on.
    assert seen
    assert all(850 < n < 950 for n in seen)


# --- many combinations ---------------------------------------------------------------------------------------------


def test_a_score_costs_as_much_with_a_thousand_combinations_as_with_a_few(monkeypatch):
    from scratio.module import Condition, PotentialNetwork
    from scratio.paths import GaussianPath

    def flops(n_donors: int, n_drugs: int) -> list[int]:
        codes = torch.cartesian_prod(torch.arange(n_donors), torch.arange(n_drugs))
        network = PotentialNetwork(
            n_features=10,
            combinations=codes,
            weights=torch.full((len(codes),), 1.0 / len(codes)),
            path=GaussianPath(0.02),
            generator=torch.Generator().manual_seed(0),
        )
        x, nothing = torch.randn((1, 4_000, 10), generator=torch.Generator().manual_seed(0)), torch.empty((1, 0))
        own = torch.arange(4_000) % n_donors
        asked = [
            [torch.tensor([[1, 2]]), torch.tensor([[1, 0]])],
            [torch.stack([own, torch.full_like(own, drug)], dim=1) for drug in (2, 0)],
        ]
        counts = []
        for ends in asked:
            conditions = [Condition(codes, nothing.expand(len(codes), 0)) for codes in ends]
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network.log_likelihoods(x, torch.full((1, 1, 1), network.path.q_end), conditions)
            counts.append(counter.get_total_flops())
        return counts

    from torch.utils.flop_counter import FlopCounterMode

    few, many = flops(12, 3), flops(12, 91)
    for small, large in zip(few, many, strict=True):
        # The network's own outputs grow with donors + drugs, not with donors x drugs.
        assert large < 2.0 * small


@pytest.mark.parametrize(
    "asked", [{"donor": OWN, "condition": "treated"}, {"condition": "treated"}, {"donor": "b"}, {}]
)
def test_the_combinations_that_are_asked_about_are_enough(asked, monkeypatch):
    # 3 donors x 15 drugs share outputs; all logits, and those alone that are named, say the same.
    from scratio.module._queries import NamedCombinations

    rng = np.random.default_rng(0)
    obs = {"donor": rng.choice(list("abc"), 900), "condition": rng.choice(["treated", *map(str, range(14))], 900)}
    adata = ad.AnnData(
        obs=pd.DataFrame(obs, index=[str(k) for k in range(900)]), obsm={"X_pca": rng.normal(size=(900, 2))}
    )
    model = trained(adata, early_stopping=False)
    assert model.module.basis is not None
    found = model.log_ratio(numerator=asked, denominator={"condition": "3"})
    monkeypatch.setattr(NamedCombinations, "size", property(lambda self: np.inf))
    np.testing.assert_allclose(found, model.log_ratio(numerator=asked, denominator={"condition": "3"}), atol=1e-5)


# --- files and kills -----------------------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old", "utf-8")
    with pytest.raises(RuntimeError, match="power"), atomic(path) as partial:
        partial.write_text("ne", "utf-8")
        raise RuntimeError("power cut")
    assert path.read_text("utf-8") == "old"
    with atomic(path) as partial:
        partial.write_text("new", "utf-8")
        assert path.read_text("utf-8") == "old"
    assert path.read_text("utf-8") == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_results_are_written_to_a_file_and_to_the_cells(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_score_file, "CHUNK", 100)
    adata, lazy = cells(333), on_disk(cells(333), "h5ad", tmp_path)
    out = tmp_path / "scores.h5ad"
    scratio.tl.log_ratio(lazy, model, **CONTRAST, return_std=True, out=out)
    scratio.tl.log_ratio(adata, model, **CONTRAST, return_std=True)
    written = ad.read_h5ad(out)
    for name in ("log_ratio", "log_ratio_std", "log_ratio_typicality", "log_ratio_support"):
        np.testing.assert_allclose(written.obs[name], adata.obs[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(written.obs[name], lazy.obs[name])
    assert list(written.obs["condition"]) == list(adata.obs["condition"])
    assert written.uns["log_ratio"]["params"]["numerator"] == CONTRAST["numerator"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cells.h5ad", "scores.h5ad"]


def test_a_scoring_goes_on_where_it_was_stopped(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_score_file, "CHUNK", 100)
    adata, out = cells(333), tmp_path / "scores.h5ad"
    original, scored = ScRatio.log_ratio, []

    def counted(self, *args, rows=None, **kwargs):
        if len(scored) == 3:
            scored.append("cut")
            raise KeyboardInterrupt
        scored.append(rows)
        return original(self, *args, rows=rows, **kwargs)

    monkeypatch.setattr(ScRatio, "log_ratio", counted)
    before = list(adata.obs)
    with pytest.raises(KeyboardInterrupt):
        scratio.tl.log_ratio(adata, model, **CONTRAST, out=out)
    assert not out.exists()
    assert list(adata.obs) == before
    with pytest.raises(ValueError, match="another question"):
        scratio.tl.log_ratio(adata, model, numerator={}, denominator={"condition": "control"}, out=out)
    scratio.tl.log_ratio(adata, model, **CONTRAST, out=out)
    assert scored == [slice(0, 1), slice(0, 100), slice(100, 200), "cut", slice(200, 300), slice(300, 333)]
    np.testing.assert_allclose(ad.read_h5ad(out).obs["log_ratio"], original(model, adata, **CONTRAST), atol=1e-6)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ("scores.csv", ValueError, "h5ad"),
        ("no/scores.h5ad", ValueError, "no folder"),
        ("there.h5ad", FileExistsError, "overwrite"),
    ],
)
def test_a_result_that_cannot_be_written_is_refused_before_anything_is_scored(out, error, message, model, tmp_path):
    (tmp_path / "there.h5ad").touch()
    adata = cells(50)
    before = list(adata.obs)
    with pytest.raises(error, match=message):
        scratio.tl.log_ratio(adata, model, **CONTRAST, out=tmp_path / out)
    assert list(adata.obs) == before


def test_a_question_that_makes_no_sense_leaves_nothing_behind_that_would_refuse_the_next(model, tmp_path):
    adata, out = cells(50), tmp_path / "scores.h5ad"
    with pytest.raises(ValueError, match="treatd"):
        scratio.tl.log_ratio(adata, model, numerator={"condition": "treatd"}, denominator={}, out=out)
    assert list(tmp_path.iterdir()) == []
    scratio.tl.log_ratio(adata, model, **CONTRAST, out=out)
    assert out.exists()


SCRIPT = """
import sys, time, numpy as np, torch
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
import scratio
from test_scale import CONTRAST, TRAINING, cells
from scratio.model import ScRatio
from scratio.tl import _score_file
from pathlib import Path

def main(out, resume):
    adata = cells(1_000)
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=16, n_members=2, n_folds=2)
    print("training", flush=True)
    model.train(**{{**TRAINING, "max_steps": 60}}, checkpoint_dir=out / "run", resume=resume)
    model.save(out / "model", overwrite=True)
    print("scoring", flush=True)
    _score_file.CHUNK = 50
    scratio.tl.log_ratio(adata, model, **CONTRAST, out=out / "scores.h5ad", overwrite=True)
    print("done", flush=True)

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "resume")
"""


def test_a_killed_process_loses_nothing_beyond_its_last_checkpoint(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)), "utf-8")

    def start(out: Path, how: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, script, out, how], stdout=subprocess.DEVNULL)

    def wait_for(found: Callable[[], bool], process: subprocess.Popen) -> None:
        while process.poll() is None and not found():
            time.sleep(0.001)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    assert start(whole, "new").wait() == 0
    # In the training, while the scores are written.
    waits = [
        lambda: (cut / "run" / "last.ckpt").exists(),
        lambda: len(list((cut / "scores.h5ad.partial").glob("[0-9]*.npy"))) > 3,
    ]
    for killed, found in enumerate(waits):
        process = start(cut, "resume")
        wait_for(found, process)
        process.kill()
        assert process.wait() != 0, killed
        assert not (cut / "scores.h5ad").exists()
        for file in cut.rglob("last.ckpt"):
            torch.load(file, weights_only=True)
    assert start(cut, "resume").wait() == 0
    first, second = (ad.read_h5ad(folder / "scores.h5ad").obs for folder in (whole, cut))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    models = [ScRatio.load(folder / "model").module.state_dict() for folder in (whole, cut)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_another_training_does_not_take_up_a_checkpoint(tmp_path):
    trained(cells(), early_stopping=False, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="another training"):
        trained(cells(), early_stopping=False, checkpoint_dir=tmp_path, resume=True, random_state=1)
    other = cells()
    other.obsm["X_pca"] = other.obsm["X_pca"][::-1].copy()
    with pytest.raises(ValueError, match="another training"):
        trained(other, early_stopping=False, checkpoint_dir=tmp_path, resume=True)


def test_a_model_is_replaced_whole_or_not_at_all(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    before = ScRatio.load(tmp_path / "model").fingerprint()
    other = trained(cells(), early_stopping=False, random_state=1)
    replaced, replace = [], os.replace

    def cut(source, target):
        replaced.append(target)
        if len(replaced) == 2:
            raise RuntimeError("power cut")
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(os, "replace", cut)
        other.save(tmp_path / "model", overwrite=True)
    assert ScRatio.load(tmp_path / "model").fingerprint() == before
    other.save(tmp_path / "model", overwrite=True)
    assert ScRatio.load(tmp_path / "model").fingerprint() == other.fingerprint() != before
    assert len(list((tmp_path / "model").iterdir())) == 2


# --- several processes ---------------------------------------------------------------------------------------------

DDP = """
import json, os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
from test_scale import TRAINING, cells
from scratio.model import ScRatio

if __name__ == "__main__":
    adata, n = cells(2_000), int(sys.argv[1])
    ScRatio.setup_anndata(adata, condition_keys=["condition"])
    model = ScRatio(adata, n_hidden=32, n_members=2)
    several = {{"strategy": "ddp", "devices": n}} if n > 1 else {{}}
    settings = {{**TRAINING, "max_steps": 200, "batch_size": 256 // n, "n_validation": 400, "precision": "32-true"}}
    model.train(**settings, **several)
    losses = model.history["validation_loss"].to_numpy().mean(1)
    found = {{"losses": [losses[-1], losses.min()], "model": model.fingerprint()}}
    Path(sys.argv[2], os.environ.get("LOCAL_RANK", "0")).write_text(json.dumps(found), "utf-8")
"""


def test_two_processes_learn_what_one_does_at_the_same_total_batch(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(DDP.format(folder=str(Path(__file__).parent)), "utf-8")
    losses = []
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        subprocess.run([sys.executable, script, str(n), folder], check=True, timeout=500)
        found = [json.loads(file.read_text("utf-8")) for file in folder.iterdir()]
        assert len(found) == n
        # Both processes have the same model.
        assert len({process["model"] for process in found}) == 1
        losses.append(found[0]["losses"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)


def test_the_devices_of_a_machine_are_not_taken_unasked():
    from scratio.train._fit import _between_processes

    assert _between_processes(devices="auto", strategy="auto")["devices"] == 1
    assert _between_processes(devices=4, strategy="auto")["devices"] == 4
