"""Methods of other packages, where those are installed: MELD, Milo, MrVI."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from lightning.fabric.utilities.warnings import PossibleUserWarning
from scipy.sparse import issparse
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from scratio._caller import differentiable, interruptible, quiet
from scratio._compat import mrvi_of
from scratio._random import child_seed, seeded_globals

INSTALL = {
    "meld": "pip install --no-deps meld graphtools pygsp scprep tasklogger (its own pins exclude current pandas)",
    "pertpy": "pip install pertpy pydeseq2",
    "pydeseq2": "pip install pydeseq2",
}
_MRVI_SPLIT, _MRVI_GLOBAL = 71, 72


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def required(package: str) -> Any:
    """A package that is not among scratio's own requirements.

    Raises
    ------
    ImportError
        If it is not installed, with what installs it.
    """
    if not is_installed(package):
        raise ImportError(f"{package} is not installed: {INSTALL.get(package, 'pip install ' + package)}")
    return import_module(package)


class MELD:
    """MELD (Burkhardt et al. 2021, doi 10.1038/s41587-020-00803-5): densities of both samples, smoothed on a graph.

    MELD scores only the cells that it is fitted on. A new cell gets the log ratio of the nearest fitted cell.

    Parameters
    ----------
    **kwargs
        Arguments for ``meld.MELD``.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._package, self._kwargs = required("meld"), kwargs

    def fit(self, x_num: np.ndarray, x_den: np.ndarray) -> MELD:
        """Build the graph of all cells and smooth the densities on it."""
        x = np.concatenate([x_num, x_den])
        names = np.repeat(["num", "den"], [len(x_num), len(x_den)])
        with redirect_stdout(StringIO()):
            densities = self._package.MELD(**{"verbose": 0, **self._kwargs}).fit_transform(x, names)
        tiny = np.finfo(float).tiny
        num, den = (np.log(np.maximum(densities[name].to_numpy(), tiny)) for name in ("num", "den"))
        self._fitted, self._index = num - den, NearestNeighbors(n_neighbors=1).fit(x)
        return self

    def log_ratio(self, x: np.ndarray) -> np.ndarray:
        """Return the log ratio of the nearest fitted cell, in nats."""
        return self._fitted[self._index.kneighbors(x, return_distance=False)[:, 0]]


@dataclass(frozen=True)
class CellTest:
    """Log ratio (nats), p-value and q-value of every cell, shape (n,)."""

    log_ratio: np.ndarray
    pvalue: np.ndarray
    qvalue: np.ndarray


def milo(
    x: np.ndarray, samples: np.ndarray, is_treatment: np.ndarray, *, n_neighbors: int = 30, random_state: int = 0
) -> CellTest:
    """Run pertpy's Milo (Dann et al. 2022, doi 10.1038/s41587-021-01033-z) with DESeq2's negative binomial model.

    Each cell gets the values of the nearest index cell whose neighbourhood contains it. A cell that lies in no
    neighbourhood has a log ratio of 0, and p- and q-values of 1.

    Parameters
    ----------
    x
        Embedding, shape (n, d).
    samples, is_treatment
        Sample of every cell, and whether it is of the treatment; shape (n,). A sample has one condition.
    n_neighbors
        Number of neighbours in the graph. Neighbourhoods have somewhat more cells.
    random_state
        Seed of the index cells.

    Raises
    ------
    ImportError
        If pertpy or pydeseq2 is not installed.
    ValueError
        If all cells have one condition.
    """
    pertpy, _ = required("pertpy"), required("pydeseq2")
    _both(is_treatment)
    import scanpy as sc

    obs = pd.DataFrame({"sample": np.asarray(samples).astype(str), "group": np.where(is_treatment, "b", "a")})
    adata = AnnData(obs=obs.set_index(obs.index.map("cell{}".format)), obsm={"X": x})
    # Both packages report to the console.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        sc.pp.neighbors(adata, n_neighbors=n_neighbors, use_rep="X", transformer="sklearn")
        tool = pertpy.tl.Milo()
        tool.make_nhoods(adata, prop=0.1, seed=random_state)
        counts = tool.count_nhoods(tool.load(adata), sample_col="sample")
        tool.da_nhoods(counts, design="~group", model_contrasts="groupb-groupa", solver="pydeseq2")
    table = counts["milo"].var
    index = x[adata.obs_names.get_indexer(table["index_cell"])]
    member = counts["rna"].obsm["nhoods"].toarray() > 0
    nearest, is_inside = np.where(member, cdist(x, index), np.inf).argmin(1), member.any(1)

    def of_cells(column: str, missing: float) -> np.ndarray:
        return np.where(is_inside, np.nan_to_num(table[column].to_numpy(dtype=float)[nearest], nan=missing), missing)

    return CellTest(np.log(2.0) * of_cells("logFC", 0.0), of_cells("PValue", 1.0), of_cells("SpatialFDR", 1.0))


@differentiable()
def mrvi(
    counts: Any,
    samples: np.ndarray,
    is_treatment: np.ndarray,
    *,
    max_epochs: int | None = None,
    random_state: int = 0,
    **kwargs: Any,
) -> np.ndarray:
    """Run MrVI of scvi-tools (Boyeau et al. 2025, doi 10.1038/s41592-025-02808-x), which models differences of samples.

    The log ratio of a cell compares the mean densities of the treated and of the other samples, at the place of the
    cell in MrVI's latent space. The cell's own sample is left out of these means. The model was trained on the cell.

    scvi-tools 1.4.3 corrected MrVI's architecture and needs Python 3.12 or newer. On Python 3.11 this function runs the
    MrVI of 1.4.1 or 1.4.2, so name the version with any result.

    Parameters
    ----------
    counts
        Counts, shape (n, n_genes), dense or sparse. The time grows with the number of genes.
    samples, is_treatment
        Sample of every cell, and whether it is of the treatment; shape (n,). A sample has one condition, and a
        condition has at least two samples.
    max_epochs
        Passes over the cells; by default MrVI's own default, 400 for up to 20,000 cells.
    random_state
        Seed of the networks, and of the tenth of the cells that is held out for the validation loss.
    **kwargs
        Arguments for MrVI's ``train``.

    Returns
    -------
    Log ratio of every cell in nats, shape (n,).

    Raises
    ------
    ImportError
        If the MrVI of the installed scvi-tools does not learn.
    ValueError
        If all cells have one condition, if a sample has two conditions or a condition has one sample, or if the counts
        are not whole numbers of at least 0.
    """
    _both(is_treatment)
    obs = pd.DataFrame({"sample": np.asarray(samples).astype(str), "group": np.where(is_treatment, "num", "den")})
    _check_samples(obs)
    _check_counts(counts)
    adata = AnnData(counts, obs=obs.set_index(obs.index.map("cell{}".format)))
    # scvi-tools takes the seed of its split from the operating system, unless one is set for the whole process.
    order = np.random.default_rng(child_seed(random_state, _MRVI_SPLIT)).permutation(len(obs))
    held_out, train = np.split(order, [len(obs) // 10])
    with seeded_globals(child_seed(random_state, _MRVI_GLOBAL)), _silent():
        model = mrvi_of(adata, "sample")
        split = {"datasplitter_kwargs": {"external_indexing": [train, held_out, np.array([], dtype=int)]}}
        with interruptible():
            model.train(max_epochs=max_epochs, **{"enable_progress_bar": False, **split, **kwargs})
        found = model.differential_abundance(sample_cov_keys=["group"])["group_log_probs"]
    return np.asarray(found.sel(group="num") - found.sel(group="den"), dtype=np.float64)


def _check_samples(obs: pd.DataFrame) -> None:
    groups = obs.groupby("sample")["group"].nunique()
    if (groups > 1).any():
        raise ValueError(f"a sample must have one condition; both are in {sorted(groups.index[groups > 1])}")
    if (obs.groupby("group")["sample"].nunique() < 2).any():
        raise ValueError(
            "each condition must have at least two samples: MrVI leaves the cell's own sample out of its density, and "
            "nothing is left of a condition with one"
        )


def _check_counts(counts: Any) -> None:
    values = counts.data if issparse(counts) else np.asarray(counts)
    if (values < 0.0).any() or (values % 1.0 != 0.0).any():
        raise ValueError("counts must be whole numbers of at least 0: pass the counts themselves, not log values")


@contextmanager
def _silent() -> Iterator[None]:
    """Keep from the console what scvi-tools, Lightning and their progress bars print or advise."""
    loggers = ("scvi", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), quiet(*loggers):
        warnings.filterwarnings("ignore", category=PossibleUserWarning)
        # scvi-tools makes a tensor of a pandas array, and only reads it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        yield


def _both(is_treatment: np.ndarray) -> None:
    if len(np.unique(is_treatment)) < 2:
        raise ValueError("is_treatment must hold both conditions")
