"""Cells of several batches and types in which the batch effect is known: what `outside_batch.py` measures scores on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from zlib import crc32

import anndata as ad
import numpy as np
from _rows import FOLDER
from scipy.special import logsumexp

N_CELLS, N_DIMS, MAX_TYPES, MAX_BATCHES = 4_000, 10, 6, 3
BATCHES, TYPES = (0.5, 0.3, 0.2), (0.3, 0.25, 0.2, 0.15, 0.1)
SCALE_PER_STRENGTH = 0.2
"""Log standard deviation between the widest and the narrowest batch, for each unit of strength."""


@dataclass(frozen=True)
class Cells:
    """An embedding with batches and labels; ``truth`` is the exact log ratio of every cell, None where nobody knows."""

    x: np.ndarray
    batch: np.ndarray
    label: np.ndarray
    truth: np.ndarray | None = None


@dataclass(frozen=True)
class Design:
    """Types of cells with shapes of their own, which a batch moves or widens.

    Parameters
    ----------
    strength
        How far every batch moves the cells of a type, in standard deviations of the type and in a direction that
        belongs to this batch and type.
    kind
        ``"shift"``, or ``"scale"``: batches widen the types instead.
    batches, types
        Shares of the batches and of the types.
    moved
        Types that the batches move; all by default.
    own_share
        Share of one more type, which the first batch alone has.
    uneven
        Whether every batch has shares of types of its own.
    labelled
        Whether the scores are told the types.
    """

    strength: float = 0.0
    kind: str = "shift"
    batches: tuple[float, ...] = BATCHES
    types: tuple[float, ...] = TYPES
    moved: tuple[int, ...] | None = None
    own_share: float = 0.0
    uneven: bool = False
    labelled: bool = True

    def joint(self) -> np.ndarray:
        """Probability of every type (rows) and batch (columns)."""
        types, batches = np.array(self.types), np.array(self.batches)
        shares = np.tile(types[:, None], len(batches))
        if self.uneven:
            shares = np.stack([np.roll(types, 2 * shift) for shift in range(len(batches))], axis=1)
        found = (shares * batches) / (shares * batches).sum()
        if self.own_share:
            own = np.eye(len(batches))[:1] * self.own_share
            found = np.concatenate([(1.0 - self.own_share) * found, own])
        return found

    def draw(self, seed: int, name: str, n_cells: int = N_CELLS) -> Cells:
        """Cells and their exact log ratios; types and directions belong to the seed, the noise also to the name."""
        joint, shape = self.joint(), Geometry(seed)
        rng = np.random.default_rng([seed, crc32(name.encode())])
        drawn = rng.choice(joint.size, size=n_cells, p=joint.ravel())
        label, batch = np.divmod(drawn, joint.shape[1])
        offsets, scales = self._effects(shape)
        z = offsets[label, batch] + scales[label, batch, None] * rng.normal(size=(n_cells, N_DIMS))
        log_density = shape.log_density(shape.place(z, label), offsets, scales, len(joint))
        counts = np.zeros(joint.shape)
        np.add.at(counts, (label, batch), 1.0)
        seen = label if self.labelled else np.zeros(n_cells, dtype=int)
        truth = log_ratio(log_density, counts, label if self.labelled else None, batch)
        x = shape.bend(shape.place(z, label))
        return Cells(x - x.mean(0), batch, seen, truth)

    def _effects(self, shape: Geometry) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and standard deviations of every type and batch, in units of the type."""
        n_batches = len(self.batches)
        is_moved = np.isin(np.arange(MAX_TYPES), np.arange(MAX_TYPES) if self.moved is None else self.moved)
        strength = self.strength * is_moved[:, None]
        offsets, log_scales = np.zeros((MAX_TYPES, n_batches, N_DIMS)), np.zeros((MAX_TYPES, n_batches))
        if self.kind == "shift":
            offsets = strength[..., None] * shape.directions[:, :n_batches]
        else:
            log_scales = SCALE_PER_STRENGTH * strength * np.linspace(-0.5, 0.5, n_batches)
        return offsets, np.exp(log_scales)


class Geometry:
    """Centres, axes and directions of as many types and batches as any design has.

    Parameters
    ----------
    seed
        Seed of all these.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self.centres = 4.0 * rng.normal(size=(MAX_TYPES, N_DIMS))
        self.axes = np.linalg.qr(rng.normal(size=(MAX_TYPES, N_DIMS, N_DIMS)))[0]
        self.widths = np.exp(0.3 * rng.normal(size=(MAX_TYPES, N_DIMS)))
        self.directions = rng.normal(size=(MAX_TYPES, MAX_BATCHES, N_DIMS))
        self.directions /= np.linalg.norm(self.directions, axis=-1, keepdims=True)
        self.turns = np.linalg.qr(rng.normal(size=(2, N_DIMS, N_DIMS)))[0]

    def place(self, z: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Cells of types at their places, from those in units of their type."""
        return self.centres[label] + np.einsum("nij,nj->ni", self.axes[label], self.widths[label] * z)

    def bend(self, x: np.ndarray) -> np.ndarray:
        """An invertible map, which makes the types no Gaussians and leaves ratios of densities as they are."""
        half = N_DIMS // 2
        for turn in self.turns:
            x = x @ turn
            x[:, half:] += np.cos(x[:, :half])
        return x

    def log_density(self, x: np.ndarray, offsets: np.ndarray, scales: np.ndarray, n_types: int) -> np.ndarray:
        """Log densities of every cell (before it is bent) in every type and batch, less a constant that all have."""
        found = np.empty((len(x), n_types, offsets.shape[1]))
        for kind in range(n_types):
            z = (x - self.centres[kind]) @ self.axes[kind] / self.widths[kind]
            for batch in range(offsets.shape[1]):
                scale = scales[kind, batch]
                square = (((z - offsets[kind, batch]) / scale) ** 2).sum(1)
                found[:, kind, batch] = -0.5 * square - np.log(self.widths[kind]).sum() - N_DIMS * np.log(scale)
        return found


def log_ratio(log_density: np.ndarray, counts: np.ndarray, label: np.ndarray | None, batch: np.ndarray) -> np.ndarray:
    """Exact log p(x | batch, label) - log p(x | label) of every cell; without labels log p(x | batch) - log p(x).

    Parameters
    ----------
    log_density
        Log densities, shape (n, n_types, n_batches).
    counts
        Numbers of cells of every type and batch.
    label, batch
        Of every cell.
    """
    rows = np.arange(len(batch))
    with np.errstate(divide="ignore"):  # a batch without cells of a type
        if label is None:
            of_type = np.log(counts / counts.sum(0))
            own = logsumexp(log_density + of_type, axis=1)
            shares = np.log(counts.sum(0) / counts.sum())
        else:
            own = log_density[rows, label]
            shares = np.log(counts[label] / counts[label].sum(1, keepdims=True))
    return own[rows, batch] - logsumexp(own + shares, axis=1)


def entropy(batch: np.ndarray, label: np.ndarray) -> float:
    """Entropy of the batch given the label in nats, the largest mean log ratio there can be."""
    counts = np.zeros((label.max() + 1, batch.max() + 1))
    np.add.at(counts, (label, batch), 1.0)
    shares = counts[label, batch] / counts[label].sum(1)
    return float(-np.log(shares).mean())


@dataclass(frozen=True)
class Real:
    """Real cells, drawn at random, with a share of the batches permuted among cells of a type.

    Parameters
    ----------
    file, rep, batch_key, label_key
        File, embedding, and columns of the batch and of the type.
    permuted
        Share of the cells among which batches are permuted.
    thinned
        Name of a batch of which a third of the cells is kept, so that sizes are unequal.
    """

    file: str
    rep: str
    batch_key: str
    label_key: str
    permuted: float = 0.0
    thinned: str | None = None

    def draw(self, seed: int, name: str, n_cells: int = N_CELLS) -> Cells:
        """Cells; the seed chooses them, the name nothing, so that designs of one seed have the same cells."""
        del name
        rng, adata = np.random.default_rng([seed, 2]), ad.read_h5ad(FOLDER / self.file)
        batches = adata.obs[self.batch_key].astype(str).to_numpy()
        keep = (batches != self.thinned) | (rng.uniform(size=len(batches)) < 1.0 / 3.0)
        rows = rng.permutation(np.flatnonzero(keep))[:n_cells]
        batch = np.unique(batches[rows], return_inverse=True)[1]
        label = np.unique(adata.obs[self.label_key].astype(str).to_numpy()[rows], return_inverse=True)[1]
        batch = permuted(rng, batch, label, self.permuted)
        x = np.asarray(adata.obsm[self.rep], dtype=float)[rows]
        return Cells(x, batch, label, np.zeros(len(rows)) if self.permuted == 1.0 else None)


def permuted(rng: np.random.Generator, batch: np.ndarray, label: np.ndarray, share: float) -> np.ndarray:
    """Batches of which this share, chosen at random, is permuted among the cells of each label."""
    found, chosen = batch.copy(), rng.uniform(size=len(batch)) < share
    for code in np.unique(label):
        own = np.flatnonzero(chosen & (label == code))
        found[own] = batch[rng.permutation(own)]
    return found


STRENGTHS, PERMUTED, UNEVEN = (0.0, 0.25, 0.5, 1.0, 2.0), (0, 33, 67, 100), (0.5, 0.25, 0.12, 0.08, 0.05)
SIZES = {1: (1 / 2, 1 / 2), 5: (5 / 6, 1 / 6), 20: (20 / 21, 1 / 21)}
LOCAL = {30: (0.3, 0.25, 0.2, 0.12, 0.08, 0.05), 5: (0.05, 0.3, 0.25, 0.2, 0.12, 0.08)}
"""Share of the one type that is moved, in percent, and the shares of all types; the moved one is the first."""
SYNOVIUM = Real("zhang2019_ra_synovium_harmony.h5ad", "X_pca", "batch", "celltype")
HARMONY = replace(SYNOVIUM, rep="X_pca_harmony")
KANG = Real("kang2018_pbmc_ifnb_pca.h5ad", "X_pca", "condition", "cell_type", thinned="stim")

DESIGNS: dict[str, Design | Real] = {
    **{f"shift-{s:g}": Design(s) for s in STRENGTHS},
    **{f"scale-{s:g}": Design(s, "scale") for s in STRENGTHS[2:]},
    **{f"some-types-{s:g}": Design(s, moved=(1, 3)) for s in STRENGTHS[2:]},
    **{f"sizes-{n}-{s:g}": Design(s, batches=shares) for n, shares in SIZES.items() for s in (0.0, 1.0)},
    **{f"own-type-{s:g}": Design(s, own_share=0.15) for s in (0.0, 1.0)},
    **{f"uneven-types-{s:g}": Design(s, types=UNEVEN, uneven=True) for s in (0.0, 1.0)},
    "own-type-unlabelled": Design(own_share=0.15, labelled=False),
    "uneven-types-unlabelled": Design(types=UNEVEN, uneven=True, labelled=False),
    **{f"local-{n}": Design(1.0, types=shares, moved=(0,)) for n, shares in LOCAL.items()},
    "synovium": SYNOVIUM,
    "synovium-harmony": HARMONY,
    "synovium-permuted": replace(SYNOVIUM, permuted=1.0),
    "synovium-harmony-permuted": replace(HARMONY, permuted=1.0),
    **{f"kang-{n}": replace(KANG, permuted=n / 100) for n in PERMUTED},
}
"""Designs by name."""
