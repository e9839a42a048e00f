"""How far the log ratios of a comparison can be believed: numbers, and a verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics import roc_auc_score

from scratio._constants import SIGNIFICANT
from scratio.model import ScRatio
from scratio.stats import label_slope, overlap, reliability, residual_inflation
from scratio.tl._question import Question, Tables
from scratio.tl._samples import FDR, NeighborhoodTest

TOLERANCE = 0.15
"""Deviation of the slope from 1 that does not matter."""
LITTLE_OVERLAP, FEW_SUPPORTED, FEW_EFFECTIVE, RARE = 0.1, 0.9, 50.0, 0.02


def diagnose(
    model: ScRatio,
    used: AnnData,
    results: Tables,
    question: Question,
    group_key: str | None,
    tests: Mapping[str, NeighborhoodTest],
) -> dict[str, pd.DataFrame]:
    """Diagnostics and reliability curves of every comparison.

    Standard errors in ``results`` that held-out labels show to be too small are enlarged.

    Parameters
    ----------
    model, used
        Cross-fitted model and its cells.
    results
        Log ratios, standard errors and support.
    question
        What is compared.
    group_key
        Column of the samples or donors that the folds were made of, if they were.
    tests
        Tests across samples by treatment; empty without samples.
    """
    labels, x, folds = used.obs[question.condition_key], model.embedding(used), np.asarray(model.folds)
    strata = np.zeros(used.n_obs, dtype=int)
    if question.covariate_keys:
        strata = used.obs.groupby(question.covariate_keys, observed=True).ngroup().to_numpy()
    samples = None if group_key is None else np.unique(used.obs[group_key], return_inverse=True)[1]
    rows, curves = [], []
    for place, treatment in enumerate(question.treatments):
        cells = np.flatnonzero(question.compared(labels, treatment))
        is_treatment = (labels == treatment).to_numpy()[cells]
        values, errors, support = (
            results[name].iloc[cells, place].to_numpy() for name in ("log_ratio", "std", "support")
        )
        # Folds of whole samples have class sizes of their own.
        own = np.unique(np.stack([strata[cells], folds[cells]]), axis=1, return_inverse=True)[1]
        offset = _log_odds(is_treatment, own.ravel())
        inflation = 1.0
        if model.n_members > 1:
            inflation = residual_inflation(x[cells], folds[cells], values, errors, is_treatment, offset)
            results["std"].iloc[cells, place] = errors * np.sqrt(inflation)
        of_cells = None if samples is None else samples[cells]
        row = _row(values, is_treatment, support, offset, of_cells) | {"variance_inflation": inflation}
        row |= {"closed_form": str(model.training_["closed_form"])}
        if treatment in tests:
            row["global_pvalue"] = tests[treatment].test.global_pvalue
        found = [verdict(row, held_out="cells" if samples is None else "samples")]
        if treatment in tests:
            found.append(_across_samples(tests[treatment]))
        if model.training_.get("effort") == "quick":
            found.append("With effort='quick' no network takes part: what is finer than cell types is not resolved.")
        row["verdict"] = " ".join(found)
        rows.append({"treatment": treatment, "reference": question.reference, **row})
        curves.append(pd.DataFrame({"treatment": treatment, **reliability(values, is_treatment, offset, of_cells)}))
    return {"diagnostics": pd.DataFrame(rows), "calibration": pd.concat(curves, ignore_index=True)}


def _log_odds(is_treatment: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Log odds of the treatment among the cells of each cell's stratum; half a cell is added to either side."""
    treated = np.bincount(strata, weights=is_treatment)
    odds = np.log((treated + 0.5) / (np.bincount(strata) - treated + 0.5))
    return odds[strata]


def _row(
    log_ratio: np.ndarray,
    is_treatment: np.ndarray,
    support: np.ndarray,
    offset: np.ndarray,
    samples: np.ndarray | None,
) -> dict[str, Any]:
    slope = label_slope(log_ratio, is_treatment, offset, samples)
    return {
        "n_treatment": int(is_treatment.sum()),
        "n_reference": int((~is_treatment).sum()),
        "slope": slope.slope,
        "slope_standard_error": slope.standard_error,
        "auc": float(roc_auc_score(is_treatment, log_ratio)),
        **overlap(log_ratio, is_treatment),
        "supported_fraction": float(support.mean()),
    }


def verdict(row: dict[str, Any], held_out: str) -> str:
    """What the diagnostics mean, in a few sentences.

    Parameters
    ----------
    row
        Diagnostics without the verdict.
    held_out
        What the log ratios were tested on, "cells" or "samples".
    """
    found = [_of_slope(row, held_out)]
    if row["variance_inflation"] > 1.0:
        enlarged = f"standard errors were enlarged by {np.sqrt(row['variance_inflation']):.1f}"
        found.append(
            f"Samples differ in what others say nothing about: {enlarged}."
            if held_out == "samples"
            else f"Labels of neighbouring cells agree in what the networks missed: {enlarged}; train longer."
        )
    if row["overlap"] < LITTLE_OVERLAP:
        found.append(
            f"The conditions hardly overlap ({row['overlap']:.0%}): signs can be trusted, sizes are extrapolations."
        )
    if row["supported_fraction"] < FEW_SUPPORTED:
        found.append(f"{1.0 - row['supported_fraction']:.0%} of the cells are atypical of one condition or of both.")
    share = min(row["n_treatment"], row["n_reference"]) / (row["n_treatment"] + row["n_reference"])
    if share < RARE:
        found.append(f"Only {share:.1%} of the cells are of the smaller condition; rare states of it are not resolved.")
    if _effective(row) < FEW_EFFECTIVE:
        found.append(f"A few cells carry the comparison (effective number {_effective(row):.0f}).")
    if held_out == "cells":
        found.append("Cells are not replicates: whether it holds in other samples only sample_key can tell.")
    return " ".join(found)


def _of_slope(row: dict[str, Any], held_out: str) -> str:
    """What the slope says. An answer is given only if the data rule out the others."""
    slope, error = row["slope"], row["slope_standard_error"]
    if not np.isfinite(slope):
        return f"No difference that held-out {held_out} support: the log ratio is the same everywhere."
    measured = f"slope of held-out {held_out} {slope:.2f} ± {error:.2f}"
    low, high = slope - SIGNIFICANT * error, slope + SIGNIFICANT * error
    if 1.0 - TOLERANCE <= low and high <= 1.0 + TOLERANCE:
        if row["overlap"] < LITTLE_OVERLAP or _effective(row) < FEW_EFFECTIVE:
            return (
                f"Cannot be told ({measured}): too few cells are of states that both conditions have, and the slope is "
                "about those. Only more cells of such states would tell."
            )
        return f"Calibrated ({measured})."
    if low > 1.0:
        return f"Too cautious ({measured}): differences are larger than the log ratios say."
    if high < 1.0 and low <= 0.0:
        return f"Not borne out ({measured}): differences do not carry over to other {held_out}."
    if high < 1.0:
        return f"Too bold ({measured}): differences are smaller than the log ratios say."
    return (
        f"Cannot be told ({measured}): the log ratios may be right, too large or too small by more than "
        f"{TOLERANCE:.0%}. More {held_out} would tell."
    )


def _effective(row: dict[str, Any]) -> float:
    """Effective number of cells of the condition that has fewer."""
    return min(row["effective_cells_treatment"], row["effective_cells_reference"])


def _across_samples(found: NeighborhoodTest) -> str:
    """What the test across samples says of all neighbourhoods together, and who carries it."""
    pvalue = found.test.global_pvalue
    if pvalue > FDR:
        return f"Across samples nothing differs more than chance allows (global p = {pvalue:.2g})."
    text = f"Across samples something differs (global p = {pvalue:.2g})."
    names = found.carried_by[found.carried_by != ""]
    if not len(names):
        return text
    called, (first, *_) = int(np.isfinite(found.weakest).sum()), pd.Series(names).value_counts().index
    return (
        f"{text} In {len(names)} of the {called} neighbourhoods with q <= {FDR} more than half of the effect comes "
        f"from one donor, most often {first!r}."
    )
