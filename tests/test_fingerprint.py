"""Fingerprints of the data beside a result, and the bits of a result in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

import scratio
from scratio.tl._fingerprint import data_fingerprint, scored_fingerprint

KEYS = ["condition", "dose"]


@pytest.fixture
def cells():
    adata = scratio.datasets.gaussians(n_cells=50, n_dims=2, random_state=0)
    adata.obs["dose"] = np.arange(50)
    adata.obs["condition"] = adata.obs["condition"].astype(str)
    return adata


def hashes(data) -> dict:
    """A fingerprint without the names of what it is of."""
    return {name: value for name, value in data.items() if name not in ("use_rep", "keys")}


def changed(cells, edit) -> list[str]:
    """Which fingerprints an edit changes."""
    before, other = hashes(data_fingerprint(cells, "X_pca", KEYS)), cells.copy()
    edit(other)
    after = data_fingerprint(other, "X_pca", KEYS)
    return [name for name in before if before[name] != after[name]]


def rename(adata) -> None:
    adata.obs_names = [f"other{i}" for i in range(adata.n_obs)]


def nudge(adata) -> None:
    adata.obsm["X_pca"][17, 1] = np.nextafter(adata.obsm["X_pca"][17, 1], np.float32(np.inf))


def swap_labels(adata) -> None:
    codes = adata.obs["condition"].to_numpy().copy()
    first, other = codes[0], np.flatnonzero(codes != codes[0])[0]
    codes[0], codes[other] = codes[other], first
    adata.obs["condition"] = codes


def halve_the_dose(adata) -> None:
    adata.obs["dose"] = adata.obs["dose"] / 2


EDITS = [
    (rename, ["cells"]),
    (nudge, ["embedding"]),
    (swap_labels, ["labels"]),
    (halve_the_dose, ["labels"]),
    (lambda adata: adata._inplace_subset_obs(slice(0, 49)), ["n_cells", "cells", "embedding", "labels"]),
    (lambda adata: adata.obs.__setitem__("unused", 1), []),
    (lambda adata: adata.obs.__setitem__("condition", adata.obs["condition"].astype("category")), []),
    (lambda adata: adata.obs.__setitem__("dose", adata.obs["dose"].astype(float)), []),
    (lambda adata: adata.obsm.__setitem__("X_pca", adata.obsm["X_pca"].astype(np.float64)), []),
    (lambda adata: adata.obsm.__setitem__("X_pca", np.asfortranarray(adata.obsm["X_pca"])), []),
    (
        lambda adata: adata.obsm.__setitem__(
            "X_pca", pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names, columns=["a", "b"])
        ),
        [],
    ),
]


@pytest.mark.parametrize(("edit", "differing"), EDITS)
def test_a_fingerprint_tells_what_has_changed_and_nothing_else(cells, edit, differing):
    assert changed(cells, edit) == differing


def test_cells_on_disk_have_the_fingerprint_of_those_in_memory(cells, tmp_path, monkeypatch):
    monkeypatch.setattr("scratio._blocks.slabs.__defaults__", (7,))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    lazy = scratio.io.read_lazy(tmp_path / "cells.h5ad", obs_keys=KEYS)
    assert not isinstance(lazy.obsm["X_pca"], np.ndarray)
    assert hashes(data_fingerprint(lazy, "X_pca", KEYS)) == hashes(data_fingerprint(cells, "X_pca", KEYS))


def test_a_result_keeps_the_fingerprint_of_its_cells_through_a_file(cells, quick, tmp_path):
    cells.obs.loc[cells.obs_names[:5], "condition"] = "another"
    scratio.tl.differential_abundance(
        cells,
        condition_key="condition",
        treatment="treated",
        reference="control",
        n_folds=2,
        model_kwargs={"n_hidden": 8, "n_members": 1},
        train_kwargs={**quick, "max_steps": 5, "n_validation": 8},
    )
    cells.write_h5ad(tmp_path / "cells.h5ad")
    stored = anndata.read_h5ad(tmp_path / "cells.h5ad")
    used = stored[stored.obs["condition"] != "another"]
    found = stored.uns["da"]["data"]
    assert hashes(found) == hashes(data_fingerprint(used, "X_pca", ["condition"]))
    assert list(found["use_rep"]) == ["X_pca"]
    assert list(found["keys"]) == ["condition"]
    assert found["n_cells"] == 45
    assert stored.uns["da"]["analysis"] == "differential_abundance"


def test_a_scored_result_names_its_model(cells, quick):
    cells.obs["condition"] = cells.obs["condition"].astype("category")
    scratio.model.ScRatio.setup_anndata(cells, condition_keys=["condition"])
    ends = {"numerator": {"condition": "treated"}, "denominator": {"condition": "control"}}
    found = []
    for seed in (0, 0, 1):
        model = scratio.model.ScRatio(cells, n_hidden=8, n_members=1)
        model.train(**{**quick, "max_steps": 5, "n_validation": 8, "random_state": seed})
        scratio.tl.log_ratio(cells, model, **ends)
        assert hashes(cells.uns["log_ratio"]["data"]) == hashes(scored_fingerprint(cells, model))
        found.append(cells.uns["log_ratio"]["data"]["model"])
    assert found[0] == found[1] != found[2]


PROGRAM = """
import json, random, sys
import numpy as np, torch
import scratio
seed = int(sys.argv[1])
random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
adata = scratio.datasets.gaussians(n_cells=300, n_dims=3, random_state=0)
scratio.model.ScRatio.setup_anndata(adata, condition_keys=["condition"])
model = scratio.model.ScRatio(adata, n_hidden=16, n_members=2, n_folds=2)
model.train(max_steps=30, batch_size=64, warmup_steps=5, validate_every=10, n_validation=32, progress_bar=False,
            random_state=3, accelerator="cpu")
ends = dict(numerator={"condition": "treated"}, denominator={"condition": "control"})
values, std = model.log_ratio(**ends, return_std=True)
drawn = model.sample(20, condition={"condition": "treated"}, random_state=5)
scratio.tl.log_ratio(adata, model, **ends, method="ito")
found = {"values": values, "std": std, "drawn": np.asarray(drawn), "ito": adata.obs["log_ratio"].to_numpy()}
print(json.dumps({"model": model.fingerprint(), **{name: x.tobytes().hex() for name, x in found.items()}}))
"""


def test_two_processes_with_other_global_seeds_have_the_same_bits():
    runs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, seed], env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        runs.append(json.loads(run.stdout.splitlines()[-1]))
    assert runs[0] == runs[1]
    assert len(set(runs[0].values())) == len(runs[0])
