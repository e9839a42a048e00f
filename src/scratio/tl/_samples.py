"""Tests across samples: of counts of cells in neighbourhoods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scratio._random import child_seed
from scratio.stats import N_ROTATIONS, SampleTest, compare_samples, effects_without, neighbor_counts, neighborhoods
from scratio.tl._question import Question
from scratio.tl._sample_design import Samples, SampleSettings, samples_of

FDR, REMAINS = 0.1, 0.5
"""Largest q-value at which a place is tested again without each sample; share of the effect that has to remain."""
_NEIGHBORHOODS, _ROTATIONS = 31, 32


@dataclass(frozen=True)
class NeighborhoodTest:
    """Outcome of a test and what becomes of it without single samples.

    Parameters
    ----------
    test
        Outcome at every neighbourhood.
    weakest
        Weakest or most opposite effect after leaving out one donor (or sample). NaN where the q-value is above 0.1.
    carried_by
        Name of that donor (or sample) if less than half of the effect remains; otherwise empty.
    """

    test: SampleTest
    weakest: np.ndarray
    carried_by: np.ndarray


def samples_of_all(obs: pd.DataFrame, question: Question, settings: SampleSettings) -> dict[str, Samples]:
    """Samples of the comparison of every treatment; none without a sample key."""
    labels = obs[question.condition_key]
    found: dict[str, Samples] = {}
    if settings.sample_key is None:
        return found
    for treatment in question.treatments:
        part = obs.assign(**{question.condition_key: question.sides(labels, treatment)})
        part = part[question.compared(labels, treatment)]
        found[treatment] = samples_of(
            part,
            settings.sample_key,
            question.condition_key,
            treatment,
            question.reference,
            question.covariate_keys,
            settings=settings,
        )
    return found


def assign_neighborhoods(x: np.ndarray, random_state: int) -> np.ndarray:
    """Neighbourhood of every cell, blind to samples and conditions."""
    return neighborhoods(x, int(child_seed(random_state, _NEIGHBORHOODS) % 2**32))


def named(neighborhoods: np.ndarray, index: pd.Index) -> pd.Series:
    """Numbers of neighbourhoods as categories in the order of the numbers."""
    names = [str(number) for number in range(neighborhoods.max() + 1)]
    return pd.Series(pd.Categorical.from_codes(neighborhoods, names), index=index)


def compare(
    x: np.ndarray,
    neighborhood: np.ndarray,
    obs: pd.DataFrame,
    samples: Samples,
    sides: pd.Series | None,
    random_state: int,
    *,
    n_rotations: int = N_ROTATIONS,
) -> NeighborhoodTest:
    """Test across samples how many of their cells lie near the centre of each neighbourhood.

    Parameters
    ----------
    x, neighborhood, obs
        Standardised embedding, neighbourhoods and labels of the cells that are compared.
    samples
        Samples that take part.
    sides
        Condition of every cell, the treatment or the reference; None where a number of samples is tested.
    random_state, n_rotations
        Seed and number of the rotations.
    """
    codes = samples.codes(obs, None if sides is None else (sides != samples.reference).to_numpy())
    counts = neighbor_counts(x, neighborhood, codes)
    rng = np.random.default_rng(child_seed(random_state, _ROTATIONS))
    cells = np.bincount(neighborhood)
    test = compare_samples(counts, samples.design, rng, donors=samples.donors, weights=cells, n_rotations=n_rotations)
    return NeighborhoodTest(test, *_without_each(counts, samples, test))


def _without_each(counts: np.ndarray, samples: Samples, test: SampleTest) -> tuple[np.ndarray, np.ndarray]:
    """Find the weakest effect after leaving out one donor (or sample), and the name of the one that carries it."""
    n_places = counts.shape[2]
    weakest, carried_by = np.full(n_places, np.nan), np.full(n_places, "", dtype=object)
    found = np.flatnonzero(test.qvalue <= FDR) if samples.has_enough else np.array([], dtype=int)
    if not len(found):
        return weakest, carried_by
    part = test.at(found)
    donors = samples.donors
    names = np.unique(donors)
    remaining = np.stack(
        [effects_without(counts[..., found], samples.design, part, np.flatnonzero(donors == name)) for name in names]
    )
    share = remaining / part.effect
    worst = np.where(np.isnan(share), np.inf, share).argmin(0)
    columns = np.arange(len(found))
    weakest[found] = remaining[worst, columns]
    carried_by[found] = np.where(share[worst, columns] < REMAINS, names[worst], "")
    return weakest, carried_by


def samples_table(samples: dict[str, Samples], tests: dict[str, NeighborhoodTest]) -> pd.DataFrame:
    """A row for every sample of a condition of every comparison; the variance factor is NaN where it takes no part."""
    tables = []
    for treatment, found in samples.items():
        number = found.table["replicate"].to_numpy()
        factor = np.where(number < 0, np.nan, tests[treatment].test.variance_factor[number])
        table = found.table.drop(columns="replicate").assign(variance_factor=factor)
        design = "within donors" if found.within else "between donors"
        tables.append(table.assign(treatment=treatment, design=design))
    joined = pd.concat(tables, ignore_index=True)
    return joined[["treatment", *joined.columns.drop("treatment")]]


def neighborhood_table(
    found: NeighborhoodTest, names: np.ndarray, neighborhood: np.ndarray, samples: Samples
) -> pd.DataFrame:
    """A row for every neighbourhood, under its name; q-values count neighbourhoods by their cells."""
    test = found.test
    return pd.DataFrame(
        {
            "neighborhood": names,
            "n_cells": np.bincount(neighborhood),
            "effect": test.effect,
            "effect_std": test.standard_error,
            "pvalue": test.pvalue,
            "qvalue": test.qvalue if samples.has_enough else np.nan,
            "familywise_pvalue": test.familywise_pvalue,
            "effect_without_one": found.weakest,
            "carried_by": found.carried_by,
        }
    )
