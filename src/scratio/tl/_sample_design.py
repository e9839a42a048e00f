"""Which samples take part in a test, and its design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from scratio._check import check_at_least, warn_user
from scratio.stats import SampleDesign
from scratio.tl._covariates import formula_columns, formula_keys, label_columns

MIN_CELLS = 5
"""Default of the smallest number of cells of a condition with which a sample takes part."""
ENOUGH = 3
"""Smallest number of samples of each group, or of donors with both groups, for q-values."""
FEWEST_DF, FEWEST_DF_NUMBERS = 2, 4
"""Smallest residual degrees of freedom for q-values. For groups it is that of three pairs. For a tested number it is
that of three samples against three."""
HALF = 0.5
"""If at least this share of the comparison lies within donors, donors are compared with themselves."""
_TREATMENT, _REFERENCE = "treatment", "reference"


@dataclass(frozen=True)
class Samples:
    """Samples of a comparison.

    Parameters
    ----------
    key
        Column of the samples.
    table
        A row for every sample, or every sample of a condition: its name, donor, group, number of cells, why it takes no
        part (empty if it does), and the replicate that it is part of (-1 for none).
    within
        Whether donors are compared with themselves.
    design
        What is tested, of the replicates.
    donors
        Donor of every replicate.
    has_enough
        Whether there are enough samples for q-values.
    reference
        Label of the reference.
    """

    key: str
    table: pd.DataFrame
    within: bool
    design: SampleDesign
    donors: np.ndarray
    has_enough: bool
    reference: str = ""

    def codes(self, obs: pd.DataFrame, is_treatment: np.ndarray | None = None) -> np.ndarray:
        """Number of every cell's replicate, -1 for none."""
        return _replicate_of(obs[self.key], self.table, is_treatment)


@dataclass(frozen=True)
class SampleSettings:
    """Arguments about samples that the analyses share.

    Parameters
    ----------
    sample_key, donor_key
        Columns of samples and of donors; a sample is a donor by default. Without a ``sample_key`` there is no test.
    covariates
        Formula of what is held fixed.
    min_cells
        Cells below which a sample takes no part in a condition.

    Raises
    ------
    ValueError
        If ``min_cells`` is below 1, or the others are given without a ``sample_key``.
    """

    sample_key: str | None
    covariates: str | None = None
    donor_key: str | None = None
    min_cells: int = MIN_CELLS

    def __post_init__(self) -> None:
        check_at_least(1, min_cells=self.min_cells)
        for name in ("covariates", "donor_key"):
            if self.sample_key is None and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} needs sample_key too: name the column with the samples"
                )

    def keys(self, adata: AnnData, tested: Sequence[str]) -> dict[str, list[str]]:
        """Columns of ``obs`` that are read: those with labels, and those of the formula.

        Parameters
        ----------
        adata
            Cells.
        tested
            Columns with what is tested, which the formula must not name.
        """
        labels = [key for key in dict.fromkeys([self.sample_key, self.donor_key]) if key is not None]
        return {"label_keys": labels, "further_keys": formula_keys(adata, self.covariates, [*tested, *labels])}

    @property
    def group_key(self) -> str | None:
        """Column whose groups never share a fold."""
        return self.donor_key or self.sample_key


def samples_of(
    obs: pd.DataFrame,
    key: str,
    condition_key: str,
    treatment: str,
    reference: str,
    covariate_keys: Sequence[str],
    *,
    settings: SampleSettings | None = None,
) -> Samples:
    """Samples of two conditions that can be compared.

    Donors are compared with themselves if at least half of the comparison lies within donors. A comparison of n with m
    cells counts as nm / (n + m) effective cells. So a few stray labels in each of many donors make no pairs, but five
    treated cells in each of six donors do.

    Raises
    ------
    ValueError
        If a group has fewer than 2 samples, a sample is of several donors, or the groups cannot be told from the
        covariates of the samples.
    """
    settings = settings or SampleSettings(key)
    table = _units(obs, settings, condition_key, treatment)
    names = {_TREATMENT: treatment, _REFERENCE: reference}
    cells = table[table["left_out"] == ""].pivot_table(
        index="donor", columns="group", values="n_cells", aggfunc="sum", fill_value=0, observed=True
    )
    cells = cells.reindex(columns=list(names), fill_value=0)
    both = (cells > 0).all(axis=1)
    total = _effective(*cells.sum())
    within = bool(total > 0.0 and _effective(*cells[both].to_numpy().T).sum() >= HALF * total)
    if within:
        alone = table["donor"].map(~both) & (table["left_out"] == "")
        table.loc[alone, "left_out"] = "its donor has no sample of the other condition"
    else:
        main = cells.idxmax(axis=1)
        other = table["donor"].map(both).eq(True) & (table["group"] != table["donor"].map(main))
        table.loc[other & (table["left_out"] == ""), "left_out"] = "its donor takes part with the other condition"
    warn_of_left_out(table, key, names)
    used = table[table["left_out"] == ""]
    donors = used.groupby("group")["donor"].nunique().reindex(list(names), fill_value=0)
    if donors.min() < 2:
        groups = obs.groupby([key, condition_key], observed=True).size().unstack(fill_value=0).to_dict("index")
        kind = "samples" if settings.donor_key is None else f"donors (donor_key={settings.donor_key!r})"
        raise ValueError(
            f"a test across samples needs at least 2 {kind} of each condition, or 2 with both, each with at least "
            f"min_cells={settings.min_cells} cells; obs[{key!r}] has {dict(list(groups.items())[:5])}. "
            "Without sample_key there is no p-value: cells are not replicates"
        )
    table["replicate"] = _numbered(table, ["group", "donor"])
    replicates = _replicates(table)
    is_treatment = (replicates["group"] == _TREATMENT).to_numpy(dtype=float)
    place = _replicate_of(obs[key], table, (obs[condition_key] == treatment).to_numpy())
    design = _design(obs, place, table, is_treatment, within, covariate_keys, settings)
    fewest = int(donors.min())
    has_enough = fewest >= ENOUGH and design.residual_df >= FEWEST_DF
    if not has_enough:
        warn_user(
            f"{fewest} samples of a group and {design.residual_df} degrees of freedom are too few for q-values, which "
            f"are NaN. At least {ENOUGH} samples and {FEWEST_DF} degrees of freedom are needed to tell an "
            "effect from chance",
        )
    return Samples(key, table, within, design, replicates["donor"].to_numpy(), has_enough, reference)


def samples_with_numbers(obs: pd.DataFrame, number_key: str, settings: SampleSettings) -> Samples:
    """Samples that have a number, which is tested; donors are held fixed where most of it varies within them.

    Raises
    ------
    ValueError
        If the number differs between the cells of a sample, fewer than 4 samples have one, all have the same, or it
        cannot be told from the covariates.
    """
    key = str(settings.sample_key)
    values = obs.groupby(key, observed=True)[number_key]
    if (values.nunique(dropna=False) > 1).any():
        name = values.nunique(dropna=False).idxmax()
        raise ValueError(
            f"obs[{number_key!r}] must be the same for all cells of a sample; {name!r} in obs[{key!r}] has "
            f"{sorted(obs.loc[obs[key] == name, number_key].unique().tolist())[:5]}"
        )
    table = _units(obs, settings)
    table["value"] = table["sample"].map(values.first()).astype(float)
    table.loc[~np.isfinite(table["value"]) & (table["left_out"] == ""), "left_out"] = (
        f"{number_key} is missing or infinite"
    )
    used = table[table["left_out"] == ""]
    number = used["value"]
    if len(used) < 4 or used["donor"].nunique() < 2 or np.ptp(number) == 0.0:
        values = sorted(set(number.tolist()))
        n_donors = used["donor"].nunique()
        raise ValueError(
            f"an association needs at least 4 samples, of 2 donors, with different values. obs[{key!r}] has "
            f"{len(used)} samples of {n_donors} donors with at least min_cells={settings.min_cells} cells and a value "
            f"in obs[{number_key!r}]: {values[:5]}"
        )
    means = number.groupby(used["donor"]).transform("mean")
    within = bool(((number - means) ** 2).sum() >= HALF * ((number - number.mean()) ** 2).sum())
    if within:
        alone = used.groupby("donor")["sample"].transform("size") == 1
        table.loc[used.index[alone], "left_out"] = "its donor has no other sample"
    warn_of_left_out(table, key)
    table["replicate"] = _numbered(table, ["donor", "sample"] if within else ["donor"])
    replicates = _replicates(table)
    tested = replicates["value"].to_numpy()
    place = _replicate_of(obs[key], table)
    design = _design(obs, place, table, tested - tested.mean(), within, (), settings)
    has_enough = design.residual_df >= FEWEST_DF_NUMBERS
    if not has_enough:
        warn_user(
            f"{len(tested)} replicates leave {design.residual_df} degrees of freedom, too few for q-values, which are "
            f"NaN. At least {FEWEST_DF_NUMBERS} are needed",
        )
    return Samples(key, table, within, design, replicates["donor"].to_numpy(), has_enough)


def _units(
    obs: pd.DataFrame, settings: SampleSettings, condition_key: str | None = None, treatment: str | None = None
) -> pd.DataFrame:
    """A row for every sample, or for every sample of a condition."""
    key, donor_key = str(settings.sample_key), str(settings.group_key)
    groups = {"sample": obs[key].astype(str)}
    if condition_key is not None:
        groups["group"] = np.where(obs[condition_key] == treatment, _TREATMENT, _REFERENCE)
    frame = pd.DataFrame({**groups, "donor": obs[donor_key].astype(str)}, index=obs.index)
    donors = frame.groupby("sample")["donor"].nunique()
    if (donors > 1).any():
        name = donors.idxmax()
        raise ValueError(
            f"a sample must be of one donor; {name!r} in obs[{key!r}] has cells of "
            f"{sorted(frame.loc[frame['sample'] == name, 'donor'].unique())[:5]} in obs[{donor_key!r}]"
        )
    table = frame.groupby(list(groups), as_index=False).agg(donor=("donor", "first"), n_cells=("donor", "size"))
    table["left_out"] = np.where(
        table["n_cells"] < settings.min_cells, f"fewer than min_cells={settings.min_cells} cells", ""
    )
    if condition_key is not None:
        table = table.sort_values(["group", "sample"], ascending=[False, True], ignore_index=True)
    return table


def _numbered(table: pd.DataFrame, keys: list[str]) -> np.ndarray:
    """Number of the replicate of every sample that takes part, samples with equal keys form one; -1 for the others."""
    takes_part = (table["left_out"] == "").to_numpy()
    numbers = np.full(len(table), -1)
    numbers[takes_part] = table[takes_part].groupby(keys).ngroup().to_numpy()
    return numbers


def _replicates(table: pd.DataFrame) -> pd.DataFrame:
    """A row for every replicate; the number that is tested is a mean over its cells."""
    used = table[table["replicate"] >= 0]
    groups = used.groupby("replicate")
    found = groups.agg(donor=("donor", "first"), n_cells=("n_cells", "sum"))
    if "group" in used:
        found["group"] = groups["group"].first()
    if "value" in used:
        found["value"] = (used["value"] * used["n_cells"]).groupby(used["replicate"]).sum() / found["n_cells"]
    return found


def _design(
    obs: pd.DataFrame,
    place: np.ndarray,
    table: pd.DataFrame,
    tested: np.ndarray,
    within: bool,
    covariate_keys: Sequence[str],
    settings: SampleSettings,
) -> SampleDesign:
    """Design matrix of the replicates; covariates of the samples of one are averaged over its cells."""
    cells, number = obs[place >= 0], place[place >= 0]
    sample = cells.groupby([number, cells[settings.sample_key].astype(str).to_numpy()]).ngroup()
    columns = [label_columns(cells, sample, covariate_keys)]
    if settings.covariates is not None:
        columns.append(formula_columns(cells, sample, settings.covariates))
    of_samples = np.column_stack(columns)
    sizes = np.bincount(number).astype(float)
    sums = np.zeros((len(sizes), of_samples.shape[1]))
    np.add.at(sums, number, of_samples[sample.to_numpy()])
    nuisance = sums / sizes[:, None]
    if within:
        donors = _replicates(table)["donor"].astype("category").cat.codes.to_numpy()
        nuisance = np.column_stack([nuisance, donors[:, None] == np.arange(1, donors.max() + 1)])
    design = SampleDesign(tested, nuisance, sizes)
    try:
        design.check()
    except ValueError as error:
        named = {
            "covariate_keys": list(covariate_keys),
            "covariates": settings.covariates,
            "donor_key": settings.donor_key,
        }
        asked = ", ".join(f"{name}={value!r}" for name, value in named.items() if value) or "the test"
        raise ValueError(f"{asked} across the samples of obs[{settings.sample_key!r}]: {error}") from None
    return design


def _replicate_of(sample: pd.Series, table: pd.DataFrame, is_treatment: np.ndarray | None = None) -> np.ndarray:
    """Replicate of every cell, -1 for none."""
    names = sample.astype(str)
    if is_treatment is None:
        place = pd.Index(table["sample"]).get_indexer(names)
    else:
        groups = np.where(is_treatment, _TREATMENT, _REFERENCE)
        place = pd.MultiIndex.from_frame(table[["sample", "group"]]).get_indexer(
            pd.MultiIndex.from_arrays([names, groups])
        )
    return np.where(place < 0, -1, table["replicate"].to_numpy()[place])


def _effective(n: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Effective number of cells of a comparison of n with m: the inverse of 1 / n + 1 / m."""
    return n * m / np.maximum(n + m, 1)


def warn_of_left_out(table: pd.DataFrame, key: str, names: dict[str, str] | None = None) -> None:
    """Say which samples take no part, why, and how many cells they have.

    Parameters
    ----------
    table
        A row for every sample, or for every sample of a condition.
    key
        Column of the samples.
    names
        Labels of the conditions by group, where two are compared.
    """
    names = names or {}
    out = table[table["left_out"] != ""]
    if out.empty:
        return
    parts = []
    for reason, rows in out.groupby("left_out", sort=False):
        of_samples = rows.drop_duplicates("sample")
        shown = [f"{row.sample!r} ({_cells(table, row, names)})" for row in of_samples.head(5).itertuples()]
        more = ", ..." if len(of_samples) > len(shown) else ""
        parts.append(f"{len(rows)} because {reason}: {', '.join(shown)}{more}")
    kind = "samples" if not names else "samples of a condition"
    warn_user(
        f"{len(out)} of {len(table)} {kind} in obs[{key!r}] take no part. {'; '.join(parts)}",
    )


def _cells(table: pd.DataFrame, row: object, names: dict[str, str]) -> str:
    """Number of cells of a sample, of both conditions if there are two."""
    sample, n_cells = row.sample, row.n_cells  # type: ignore[attr-defined]
    if not names:
        return f"{n_cells} cells"
    own = table[table["sample"] == sample].set_index("group")["n_cells"].reindex(list(names), fill_value=0)
    return ", ".join(f"{n} of {names[group]!r}" for group, n in own.items())
