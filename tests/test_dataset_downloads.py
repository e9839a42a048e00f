"""Real data sets: converted as the prepared ones were, downloaded once, refused when they are not what they were."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pooch
import pytest
import rdata
import scipy.sparse
from anndata import AnnData

import scratio
from scratio.datasets import _cache, _sources

LOADERS = {
    "kang_pbmc": ("kang2018_pbmc_ifnb_pca", ["dcats_Kang2017.rda"]),
    "kang_pbmc_counts": ("kang2018_pbmc_ifnb_counts2k", ["harmony_pbmc_stim.RData"]),
    "melanoma_icb": (
        "sadefeldman2018_melanoma_icb",
        ["daseq_X.melanoma.rda", "daseq_X2d.rda", "daseq_label.rda", "daseq_info.rda"],
    ),
    "ra_synovium": ("zhang2019_ra_synovium_harmony", ["scpost_ra_PreHarmObj.rda", "scpost_ra_HarmObj.rda"]),
    "glioblastoma": ("zhao2021_gbm_panobinostat", ["lemur_gbm.rda"]),
    "sachs_signaling": ("sachs2005_flow", ["sachs.RData"]),
}
"""Prepared file and public files of every data set."""

COMPUTED = {("kang_pbmc_counts", "X_pca"), ("glioblastoma", "X_pca")}
"""Principal components that the conversion itself computes: other linear algebra rounds them otherwise."""


def no_network(*args: object, **kwargs: object) -> None:
    raise OSError("there is no network in the tests")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gets out, and no cache but the test's own is read."""
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.delenv("SCRATIO_CACHE", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: pytest.fail("the user's own cache would be used"))


# --- the real files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw_folder() -> Path:
    """Public files as they were downloaded; says so and skips where they are absent."""
    folders = [os.environ.get("SCRATIO_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data"]
    found = [Path(folder) / "raw" for folder in folders if folder is not None and (Path(folder) / "raw").is_dir()]
    if not found:
        pytest.skip("raw/ not found: set the environment variable SCRATIO_DATA to the folder that holds it")
    return found[0]


@pytest.fixture(scope="module")
def cache(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache that holds the public files and nothing else at first."""
    folder = tmp_path_factory.mktemp("cache")
    for file in raw_folder.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def converted(cache: Path) -> Callable[[str], AnnData]:
    """Each data set, converted when it is first asked for. Not to be changed by a test."""
    made: dict[str, AnnData] = {}

    def get(name: str) -> AnnData:
        if name not in made:
            made[name] = getattr(scratio.datasets, name)(cache_dir=cache)
        return made[name]

    return get


NORMALISED, ROUNDING, DECOMPOSED = ("kang_pbmc_counts", "sachs_signaling"), 1e-5, 2e-3
"""Sets whose numbers are computed here, by logarithms in single precision, which differ in the last digit between
versions of NumPy; principal components, of a spread of 1 to 10, differ by more between those of scikit-learn."""


def tolerance_of(name: str, key: str) -> float:
    return DECOMPOSED if (name, key) in COMPUTED else ROUNDING if name in NORMALISED else 0.0


def assert_same(found: object, expected: object, tolerance: float = 0.0) -> None:
    """The same numbers of the same type in the same layout."""
    assert type(found) is type(expected)
    if expected is None:
        return
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if scipy.sparse.issparse(expected):
        np.testing.assert_array_equal(found.indptr, expected.indptr)
        np.testing.assert_array_equal(found.indices, expected.indices)
        found, expected = found.data, expected.data
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", LOADERS)
def test_data_sets_are_the_prepared_ones_cell_by_cell(name, converted, real_data):
    found, expected = converted(name), real_data(LOADERS[name][0])
    pd.testing.assert_frame_equal(found.obs, expected.obs, check_exact=True)
    # The index of no features has the type that this version of pandas gives an empty one.
    index_type = "equiv" if len(expected.var) else False
    pd.testing.assert_frame_equal(found.var, expected.var, check_exact=False, rtol=1e-6, check_index_type=index_type)
    assert_same(found.X, expected.X, tolerance=ROUNDING if name in NORMALISED else 0.0)
    for part in ("obsm", "varm", "layers"):
        found_part, expected_part = getattr(found, part), getattr(expected, part)
        assert list(found_part) == list(expected_part)
        for key in expected_part:
            assert_same(found_part[key], expected_part[key], tolerance=tolerance_of(name, key))
    assert dict(found.uns) == dict(expected.uns)


@pytest.mark.parametrize("name", LOADERS)
def test_second_call_reads_the_cache_alone(name, converted, cache, tmp_path, monkeypatch):
    first = converted(name)
    shutil.copy(cache / f"{LOADERS[name][0]}-v1.h5ad", tmp_path)  # and no public file
    for package in ("pooch", "rdata"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    again = getattr(scratio.datasets, name)(cache_dir=tmp_path)
    pd.testing.assert_frame_equal(again.obs, first.obs)
    assert_same(again.X, first.X)
    for key in first.obsm:
        assert_same(again.obsm[key], first.obsm[key])


def test_files_are_those_of_the_table(raw_folder):
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in raw_folder.iterdir()}
    assert {name: file.sha256 for name, file in _sources.RAW_FILES.items()} == hashes


@pytest.mark.parametrize("name", _sources.RAW_FILES)
def test_files_come_from_where_the_prepared_ones_do(name, raw_folder):
    # The page beside the prepared files says so, a line for each data set.
    file = _sources.RAW_FILES[name]
    lines = (raw_folder.parent / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if f"{file.repository} @ {file.commit}" in line]
    assert file.path == f"data/{Path(file.path).name}"
    assert re.search(rf"(data/|, ){re.escape(Path(file.path).name)}\b", line)


def test_facts_that_the_documentation_states(converted):
    melanoma = converted("melanoma_icb").obs
    assert (melanoma.groupby("patient", observed=True)["condition"].nunique() == 2).sum() == 4
    assert melanoma.groupby("sample", observed=True)["condition"].nunique().eq(1).all()
    synovium = converted("ra_synovium").obs
    assert (synovium.groupby("batch", observed=True)["disease"].nunique() == 2).sum() == 1
    glioblastoma = converted("glioblastoma").obs
    assert glioblastoma.groupby("patient_id", observed=True)["condition"].nunique().eq(2).all()


def test_sachs_conditions_that_share_raf_and_mek(converted):
    # As the documentation says: these columns of the source are copies, so far as both sets have rows.
    adata = converted("sachs_signaling")
    copied = {("cd3cd28+aktinhib", "cd3cd28+ly"), ("cd3cd28+icam2+g0076", "cd3cd28+u0126")}
    raw = {name: adata[adata.obs["condition"] == name].layers["raw"] for name in adata.obs["condition"].cat.categories}
    found = set()
    for first in raw:
        for second in raw:
            n = min(len(raw[first]), len(raw[second]))
            same = (raw[first][:n] == raw[second][:n]).mean(axis=0)
            if first < second and (same > 0.5).any():
                assert [adata.var_names[i] for i in np.flatnonzero(same == 1.0)] == ["Raf", "Mek"]
                assert (same[same < 1.0] < 0.05).all()
                found.add((first, second))
    assert found == copied


# --- downloads and the cache, on a file of two conditions -----------------------------------------------------------


PROTEINS = ["Raf", "Mek"]
TABLES = {
    "cd3cd28_psitect": pd.DataFrame([[1.0, 2.0], [3.0, 0.0]], columns=PROTEINS),
    "cd3cd28icam2_ly": pd.DataFrame([[5.0, 6.0]], columns=PROTEINS),
}
NAME = "sachs2005_flow"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Public file of three cells, which stands in for that of Sachs et al."""
    path = tmp_path / "public" / "sachs.RData"
    path.parent.mkdir()
    # What lies beside the part that is read has to be passed over.
    rdata.write_rda(path, {"other": np.zeros(2), "sachs": {"model": "Raf ~ Mek", "rawdata": TABLES}})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    file = replace(_sources.RAW_FILES["sachs.RData"], sha256=sha256)
    monkeypatch.setitem(_sources.RAW_FILES, "sachs.RData", file)
    yield path


@pytest.fixture
def folder(toy: Path, tmp_path: Path) -> Path:
    """Cache that holds the public file."""
    (tmp_path / "cache").mkdir()
    shutil.copy(toy, tmp_path / "cache")
    return tmp_path / "cache"


def load(folder: Path) -> AnnData:
    return scratio.datasets.sachs_signaling(cache_dir=folder)


def check(adata: AnnData) -> None:
    """The three cells."""
    np.testing.assert_array_equal(adata.layers["raw"], [[1, 2], [3, 0], [5, 6]])
    np.testing.assert_allclose(adata.X, np.log([[2, 3], [4, 1], [6, 7]]), rtol=1e-6)
    np.testing.assert_allclose(adata.obsm["X_scaled"].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(adata.obsm["X_scaled"].std(0), 1, rtol=1e-6)
    assert list(adata.var_names) == PROTEINS
    assert list(adata.obs_names) == ["cd3cd28_psitect-0", "cd3cd28_psitect-1", "cd3cd28icam2_ly-0"]
    expected = {
        "condition": ["cd3cd28+psit", "cd3cd28+psit", "cd3cd28+icam2+ly"],
        "file": ["cd3cd28_psitect", "cd3cd28_psitect", "cd3cd28icam2_ly"],
        "stim": ["cd3cd28"] * 3,
        "icam2": ["none", "none", "icam2"],
        "inhibitor": ["psit", "psit", "ly"],
    }
    assert {key: list(column) for key, column in adata.obs.items()} == expected


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def downloads(toy: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses asked for, each answered by what is in the public file at that time."""
    asked: list[str] = []

    def download(self: pooch.HTTPDownloader, url: str, output_file: str, pooch: object, **kwargs: object) -> None:
        asked.append(url)
        Path(output_file).write_bytes(toy.read_bytes())

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    return asked


def test_a_file_that_is_there_is_not_downloaded(folder, downloads):
    check(load(folder))
    assert downloads == []
    assert files(folder) == ["sachs.RData", f"{NAME}-v1.h5ad"]


def test_a_file_is_downloaded_once(toy, downloads, tmp_path):
    check(load(tmp_path / "new" / "cache"))  # neither folder exists
    check(load(tmp_path / "new" / "cache"))
    commit = "31eff1eab1f15e93d2e1bfcc869770424f75fb1a"
    assert downloads == [
        f"https://raw.githubusercontent.com/fernandoPalluzzi/SEMgraph/{commit}/data/sachs.RData",
    ]


@pytest.mark.parametrize("name", LOADERS)
def test_every_file_of_a_data_set_is_asked_for_at_its_commit(name, tmp_path, monkeypatch):
    asked = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        assert Path(path) == tmp_path
        asked.append(fname)
        file = _sources.RAW_FILES[fname]
        assert url == f"https://raw.githubusercontent.com/{file.repository}/{file.commit}/{file.path}"
        assert known_hash == f"sha256:{file.sha256}"
        assert len(file.commit) == 40  # a branch would not stay what it is
        return str(tmp_path / fname)

    class Enough(Exception):
        pass

    def convert(*paths: Path) -> AnnData:
        assert [path.name for path in paths] == asked
        raise Enough

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(scratio.datasets._conversions, name, convert)
    with pytest.raises(Enough):
        getattr(scratio.datasets, name)(cache_dir=tmp_path)
    assert asked == LOADERS[name][1]
    assert files(tmp_path) == []


def test_a_cut_public_file_is_downloaded_again(folder, toy, downloads):
    for number in (1, 2):
        (folder / "sachs.RData").write_bytes(toy.read_bytes()[:-10])
        (folder / f"{NAME}-v1.h5ad").unlink(missing_ok=True)
        check(load(folder))
        assert len(downloads) == number
        assert (folder / "sachs.RData").read_bytes() == toy.read_bytes()
        # It may have been a file of the user's.
        assert (folder / f"sachs.RData.replaced-{number}").read_bytes() == toy.read_bytes()[:-10]
    assert len(files(folder)) == 4


def test_a_download_with_another_hash_is_refused(folder, toy, downloads):
    expected = _sources.RAW_FILES["sachs.RData"].sha256
    toy.write_bytes(toy.read_bytes() + b"x")
    (folder / "sachs.RData").unlink()
    with pytest.raises(ValueError, match=rf"https://raw.*sachs\.RData is not the file.*sha256 should be {expected}"):
        load(folder)
    assert files(folder) == []


def test_without_a_network_the_error_says_what_to_put_where(folder):
    file = _sources.RAW_FILES["sachs.RData"]
    (folder / "sachs.RData").unlink()
    with pytest.raises(OSError, match="no file is there") as found:
        load(folder)
    for part in (file.url, str(folder / "sachs.RData"), file.sha256):
        assert part in str(found.value)
    assert files(folder) == []


def test_without_a_network_a_wrong_file_is_named_as_such(folder):
    (folder / "sachs.RData").write_bytes(b"something else")
    with pytest.raises(OSError, match="another sha256 is there"):
        load(folder)
    assert files(folder) == ["sachs.RData"]


@pytest.mark.parametrize("damage", ["cut to half", "empty", "not HDF5", "lacks the names", "wiped inside"])
def test_a_damaged_cached_file_is_made_anew(folder, damage):
    check(load(folder))
    path = folder / f"{NAME}-v1.h5ad"
    whole = path.read_bytes()
    if damage == "lacks the names":
        with h5py.File(path, "a") as file:
            del file["obs"].attrs["_index"]
    else:
        spoilt = {
            "cut to half": whole[: len(whole) // 2],
            "empty": b"",
            "not HDF5": b"<html>sign in first</html>",
            "wiped inside": whole[:2000] + bytes(len(whole) - 4000) + whole[-2000:],
        }
        path.write_bytes(spoilt[damage])
    check(load(folder))
    (folder / "sachs.RData").unlink()
    check(load(folder))  # what was made anew was kept
    # What could not be read may have been a file of the user's.
    assert files(folder) == [f"{NAME}-v1.h5ad", f"{NAME}-v1.h5ad.replaced-1"]


def test_the_cache_of_another_conversion_is_not_read(folder):
    check(load(folder))
    (folder / f"{NAME}-v1.h5ad").rename(folder / f"{NAME}-v0.h5ad")
    (folder / "sachs.RData").unlink()
    with pytest.raises(OSError, match="no file is there"):
        load(folder)


def test_a_new_version_of_a_conversion_is_made_beside_the_old(tmp_path):
    def converted(version: int) -> int:
        cells = AnnData(obs=pd.DataFrame({"version": [version]}, index=["cell"]))
        read = _cache.load("cells", version=version, raw=(), convert=lambda: cells, cache_dir=tmp_path)
        return int(read.obs["version"].iloc[0])

    assert [converted(version) for version in (1, 2, 1)] == [1, 2, 1]
    assert files(tmp_path) == ["cells-v1.h5ad", "cells-v2.h5ad"]


def test_a_conversion_that_fails_leaves_nothing(folder, monkeypatch):
    def write(self: AnnData, path: Path, **kwargs: object) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(AnnData, "write_h5ad", write)
        load(folder)
    assert files(folder) == ["sachs.RData"]
    check(load(folder))


def test_which_cache_is_used_is_decided_at_the_call(folder, tmp_path, monkeypatch):
    names = ("argument", "variable", "system")
    caches = {name: shutil.copytree(folder, tmp_path / name) for name in names}
    used = []

    def call(cache_dir: Path | None = None) -> None:
        check(scratio.datasets.sachs_signaling(cache_dir=cache_dir))
        used.append([name for name, path in caches.items() if (path / f"{NAME}-v1.h5ad").exists()])

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "system" if project == "scratio" else None)
    monkeypatch.setenv("SCRATIO_CACHE", str(caches["variable"]))
    call(caches["argument"])
    call()
    monkeypatch.setenv("SCRATIO_CACHE", "")
    call()
    assert used == [["argument"], ["argument", "variable"], ["argument", "variable", "system"]]


def test_a_cache_in_the_home_folder_may_be_written_with_a_tilde(folder, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):  # the latter on Windows
        monkeypatch.setenv(name, str(tmp_path))
    check(scratio.datasets.sachs_signaling(cache_dir="~/cache"))
    assert f"{NAME}-v1.h5ad" in files(folder)


def test_a_cache_that_cannot_be_made_is_named(toy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file cannot be made.*another cache_dir"):
        load(tmp_path / "file")


@pytest.mark.parametrize("package", ["pooch", "rdata"])
def test_a_missing_package_is_named_before_anything_is_downloaded(package, folder, downloads, monkeypatch):
    (folder / "sachs.RData").unlink()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package} is needed.*pip install "scratio\[datasets\]"'):
        load(folder)
    assert downloads == []
    assert files(folder) == []


def test_a_file_without_the_part_that_is_read_is_refused(folder, toy, monkeypatch):
    rdata.write_rda(folder / "sachs.RData", {"sachs": {"rawdat": TABLES}})
    sha256 = hashlib.sha256((folder / "sachs.RData").read_bytes()).hexdigest()
    file = replace(_sources.RAW_FILES["sachs.RData"], sha256=sha256)
    monkeypatch.setitem(_sources.RAW_FILES, "sachs.RData", file)
    with pytest.raises(KeyError, match=r"'rawdata' is not among .*'rawdat'"):
        load(folder)
