"""How far the log ratios of a comparison can be believed: numbers, and a verdict in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics import roc_auc_score

from scratio.model import ScRatio
from scratio.stats import label_slope, overlap, reliability, residual_inflation
from scratio.tl._question import Question, Tables

TOLERANCE, SIGNIFICANT = 0.15, 2.0
"""Deviation of the slope from 1 that does not matter; standard errors on either side of it that the data leave open."""
LITTLE_OVERLAP, FEW_SUPPORTED, FEW_EFFECTIVE, RARE = 0.1, 0.9, 50.0, 0.02


def diagnose(
    model: ScRatio, used: AnnData, results: Tables, question: Question, sample_key: str | None
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
    sample_key
        Column of the samples that the folds were made of, if they were.
    """
    labels, x, folds = used.obs[question.condition_key], model.embedding(used), np.asarray(model.folds)
    strata = np.zeros(used.n_obs, dtype=int)
    if question.covariate_keys:
        strata = used.obs.groupby(question.covariate_keys, observed=True).ngroup().to_numpy()
    samples = None if sample_key is None else np.unique(used.obs[sample_key], return_inverse=True)[1]
    rows, curves = [], []
    for place, treatment in enumerate(question.treatments):
        cells = np.flatnonzero(question.compared(labels, treatment))
        is_treatment = (labels == treatment).to_numpy()[cells]
        values, errors, support = (
            results[name].iloc[cells, place].to_numpy() for name in ("log_ratio", "std", "support")
        )
        offset = _log_odds(is_treatment, np.unique(strata[cells], return_inverse=True)[1])
        inflation = 1.0
        if model.n_members > 1:
            inflation = residual_inflation(x[cells], folds[cells], values, errors, is_treatment, offset)
            results["std"].iloc[cells, place] = errors * np.sqrt(inflation)
        of_cells = None if samples is None else samples[cells]
        row = _row(values, is_treatment, support, offset, of_cells) | {"variance_inflation": inflation}
        row |= {"closed_form": closed_form_of(model.training_)}
        row["verdict"] = verdict(row, held_out="cells" if samples is None else "samples")
        rows.append({"treatment": treatment, "reference": question.reference, **row})
        curves.append(pd.DataFrame({"treatment": treatment, **reliability(values, is_treatment, offset, of_cells)}))
    return {"diagnostics": pd.DataFrame(rows), "calibration": pd.concat(curves, ignore_index=True)}


def closed_form_of(training: Mapping[str, Any]) -> str:
    """Closed form that the potential started from, or was averaged with, in words."""
    averaged = training.get("evidence", {}).get("average", {})
    for name, shares in averaged.items():
        if np.mean(shares) > 0.0:
            return f"{name} (mean share {np.mean(shares):.2f})"
    return str(training["closed_form"])


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
    found = [_of_slope(row["slope"], row["slope_standard_error"], held_out)]
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
    effective = min(row["effective_cells_treatment"], row["effective_cells_reference"])
    if effective < FEW_EFFECTIVE:
        found.append(f"A few cells carry the comparison (effective number {effective:.0f}).")
    if held_out == "cells":
        found.append("Cells are not replicates: whether it holds in other samples only sample_key can tell.")
    return " ".join(found)


def _of_slope(slope: float, error: float, held_out: str) -> str:
    """What the slope says. An answer is given only if the data rule out the others."""
    if not np.isfinite(slope):
        return f"No difference that held-out {held_out} support: the log ratio is the same everywhere."
    measured = f"slope of held-out {held_out} {slope:.2f} ± {error:.2f}"
    low, high = slope - SIGNIFICANT * error, slope + SIGNIFICANT * error
    if 1.0 - TOLERANCE <= low and high <= 1.0 + TOLERANCE:
        return f"Calibrated ({measured})."
    if low > 1.0:
        return f"Too cautious ({measured}): differences are larger than the log ratios say."
    if high < 1.0 and low <= 0.0:
        return f"Not borne out ({measured}): differences do not carry over to {held_out} the networks have not seen."
    if high < 1.0:
        return f"Too bold ({measured}): differences are smaller than the log ratios say."
    return (
        f"Cannot be told ({measured}): the log ratios may be right, too large or too small by more than "
        f"{TOLERANCE:.0%}. More {held_out} would tell."
    )
