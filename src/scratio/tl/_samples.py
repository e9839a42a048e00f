"""Tests across samples for `tl.differential_abundance`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scratio._seed import child_seed
from scratio.stats import (
    SampleTest,
    compare_pairs,
    compare_samples,
    group_contrast,
    log_abundance,
    neighborhoods,
    weighted_fdr,
)
from scratio.tl._question import Question

ENOUGH = 4
"""Samples of each group below which no q-value is given: 3 against 3 have 20 arrangements, and no p-value below .1."""
_NEIGHBORHOODS, _ARRANGEMENTS = 31, 32


@dataclass(frozen=True)
class Samples:
    """Which samples are compared.

    Parameters
    ----------
    key
        Column of the samples.
    names
        Samples that take part.
    is_treatment
        Group of each; None where each has cells of both conditions.
    nuisance
        Covariates that are the same for all cells of a sample, as indicators, shape (n_samples, n_covariates).
    reference
        Label of the reference.
    """

    key: str
    names: list[str]
    is_treatment: np.ndarray | None
    nuisance: np.ndarray | None
    reference: str

    @property
    def are_pairs(self) -> bool:
        """Whether conditions are compared within samples."""
        return self.is_treatment is None

    @property
    def smallest_group(self) -> int:
        """Samples of the smaller group, or pairs."""
        if self.is_treatment is None:
            return len(self.names)
        return int(min(self.is_treatment.sum(), (~self.is_treatment).sum()))


def samples_of_all(obs: pd.DataFrame, question: Question, key: str) -> dict[str, Samples]:
    """Samples of the comparison of every treatment."""
    labels, found = obs[question.condition_key], {}
    for treatment in question.treatments:
        part = obs.assign(**{question.condition_key: question.sides(labels, treatment)})
        part = part[question.compared(labels, treatment)]
        found[treatment] = samples_of(
            part, key, question.condition_key, treatment, question.reference, question.covariate_keys
        )
    return found


def samples_of(
    obs: pd.DataFrame, key: str, condition_key: str, treatment: str, reference: str, covariate_keys: list[str]
) -> Samples:
    """Samples that can be compared, paired where at least half of them have cells of both conditions.

    Raises
    ------
    ValueError
        If a group has fewer than 2 samples, or cannot be told from the covariates of the samples.
    """
    counts = pd.crosstab(obs[key], obs[condition_key])
    has = {name: counts[name] > 0 for name in (treatment, reference)}
    both, either = has[treatment] & has[reference], has[treatment] | has[reference]
    are_pairs = both.sum() >= 0.5 * either.sum()
    kept = counts.index[both if are_pairs else either & ~both]
    left_out = sorted(counts.index[either].difference(kept))
    if left_out:
        reason = "have cells of one condition alone" if are_pairs else "have cells of both conditions"
        warnings.warn(
            f"{len(left_out)} of {int(either.sum())} samples in obs[{key!r}] {reason} and take no part in the test: "
            f"{left_out[:5]}",
            stacklevel=4,
        )
    is_treatment = None if are_pairs else has[treatment][kept].to_numpy()
    found = Samples(key, list(kept), is_treatment, _nuisance(obs, key, list(kept), covariate_keys), reference)
    if found.smallest_group < 2:
        groups = counts.loc[either, [treatment, reference]].to_dict("index")
        raise ValueError(
            f"a test across samples needs at least 2 samples of each condition, or 2 with both; obs[{key!r}] has "
            f"{dict(list(groups.items())[:5])}. Without sample_key there is no p-value: cells are not replicates"
        )
    if found.is_treatment is not None:
        try:
            group_contrast(found.is_treatment, found.nuisance)
        except ValueError as error:
            raise ValueError(f"covariate_keys={covariate_keys} across the samples of obs[{key!r}]: {error}") from None
    if found.smallest_group < ENOUGH:
        warnings.warn(
            f"{found.smallest_group} samples of a group are too few for q-values: no arrangement of so few labels is "
            f"rare enough. They are NaN; at least {ENOUGH} samples of each group are needed",
            stacklevel=4,
        )
    return found


def _nuisance(obs: pd.DataFrame, key: str, names: list[str], covariate_keys: list[str]) -> np.ndarray | None:
    """Indicators of the covariates that are the same for all cells of each sample."""
    groups = obs.groupby(key, observed=True)
    levels = [
        groups[covariate].first()[names] for covariate in covariate_keys if groups[covariate].nunique().max() == 1
    ]
    if not levels:
        return None
    return pd.get_dummies(pd.DataFrame(levels).T, drop_first=True).to_numpy(dtype=float)


def assign_neighborhoods(x: np.ndarray, random_state: int) -> np.ndarray:
    """Neighbourhood of every cell, blind to samples and conditions."""
    return neighborhoods(x, int(child_seed(random_state, _NEIGHBORHOODS) % 2**32))


def compare(
    x: np.ndarray, neighborhood: np.ndarray, obs: pd.DataFrame, samples: Samples, sides: pd.Series, random_state: int
) -> SampleTest:
    """Test across samples of how many of their cells lie near the centre of each neighbourhood.

    The value of a sample is the log of that share, or, of pairs, its difference between treatment and reference, so
    that the effect is a log ratio in nats.

    Parameters
    ----------
    x, neighborhood, obs
        Standardised embedding, neighbourhoods and labels of the cells that are compared.
    samples
        Samples that take part.
    sides
        Condition of every cell, the treatment or the reference.
    random_state
        Seed of the arrangements.
    """
    codes = pd.Categorical(obs[samples.key], categories=samples.names).codes.astype(int)
    cells = np.bincount(neighborhood)
    rng = np.random.default_rng(child_seed(random_state, _ARRANGEMENTS))
    if samples.is_treatment is not None:
        values = log_abundance(x, neighborhood, codes)
        return compare_samples(values, samples.is_treatment, rng, nuisance=samples.nuisance, weights=cells)
    is_treatment = (sides != samples.reference).to_numpy()
    # Sample s has the codes s without and s + n_samples with the treatment.
    both = np.where(codes < 0, codes, codes + len(samples.names) * is_treatment)
    reference, treated = np.split(log_abundance(x, neighborhood, both), 2, axis=1)
    return compare_pairs(treated - reference, rng, weights=cells)


def samples_table(samples: dict[str, Samples]) -> pd.DataFrame:
    """A row for every sample of every comparison."""
    tables = []
    for treatment, found in samples.items():
        group = "both" if found.is_treatment is None else np.where(found.is_treatment, "treatment", "reference")
        tables.append(pd.DataFrame({"treatment": treatment, "sample": found.names, "group": group}))
    return pd.concat(tables, ignore_index=True)


def neighborhood_table(test: SampleTest, names: np.ndarray, neighborhood: np.ndarray, samples: Samples) -> pd.DataFrame:
    """A row for every neighbourhood, under its name; q-values count neighbourhoods by their cells."""
    cells = np.bincount(neighborhood)
    enough = samples.smallest_group >= ENOUGH
    return pd.DataFrame(
        {
            "neighborhood": names,
            "n_cells": cells,
            "effect": test.effect,
            "standard_error": test.standard_error,
            "pvalue": test.pvalue,
            "pooled_pvalue": test.pooled_pvalue,
            "familywise_pvalue": test.familywise_pvalue,
            "qvalue": weighted_fdr(test.pooled_pvalue, cells) if enough else np.nan,
        }
    )
