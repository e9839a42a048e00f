"""Association: cell states whose share goes with a number of the samples, such as age."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from scratio._check import (
    check_anndata,
    check_categories,
    check_groups,
    check_obs_key,
    check_source,
    check_spread,
    check_unique_names,
    source_name,
)
from scratio._modality import takes_modality
from scratio.stats import robust_coordinates
from scratio.tl._cross_fit import with_columns
from scratio.tl._fingerprint import data_fingerprint
from scratio.tl._sample_design import MIN_CELLS, SampleSettings, samples_with_numbers
from scratio.tl._samples import FDR, assign_neighborhoods, compare, named, neighborhood_table, samples_table
from scratio.tl._write import begin, check_key_added, finish, record

RESULTS = ("effect", "effect_std", "effect_per_sd", "pvalue", "qvalue")


@takes_modality
def association(
    adata: AnnData,
    *,
    key: str,
    sample_key: str,
    use_rep: str = "X_pca",
    covariates: str | None = None,
    donor_key: str | None = None,
    min_cells: int = MIN_CELLS,
    key_added: str = "association",
    random_state: int = 0,
    copy: bool = False,
    mod: str | None = None,
) -> AnnData | None:
    r"""Test for every cell whether its state is more frequent in samples with larger numbers, such as age.

    .. math:: \log E\,y_{sp} = \log n_s + \alpha_p + \beta_p a_s + x_s^\top \gamma_p

    Here :math:`y_{sp}` is the number of cells of sample s near place p, :math:`n_s` the number of all cells of sample
    s, :math:`a_s` the number of ``obs[key]`` for sample s, and :math:`x_s` its covariates. The slope :math:`\beta` is
    in nats per unit. It is positive where the cell state is more frequent in samples with larger numbers. The model and
    the test are those of :func:`scratio.tl.differential_abundance`. No network is trained.

    Parameters
    ----------
    adata
        Cells.
    key
        Numeric column of ``obs``, with one value for all cells of a sample. Samples without a number are left out.
    sample_key
        Column with samples, the replicates.
    use_rep
        Embedding in ``obsm``, shape (n_cells, d); ``"X"`` is ``adata.X`` itself.
    covariates
        Formula of the covariates that are held fixed, for example ``"~ sex + C(site)"``.
    donor_key
        Column with donors, if some donors gave several samples. Each donor gets its own effect if most of the variation
        of the number lies within donors, for example if the number is a time. Otherwise the samples of a donor are
        added up.
    min_cells
        A sample with fewer cells is left out. A warning names the samples that are left out.
    key_added
        Prefix of the results.
    random_state
        Seed of the neighbourhoods and of the rotations.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or a copy if ``copy=True``. The results are

    ``obs[key_added + "_effect"]``, ``obs[key_added + "_effect_std"]``
        Slope in nats per unit, and its standard error across samples.
    ``obs[key_added + "_effect_per_sd"]``
        Slope in nats per standard deviation of the number over the samples that take part.
    ``obs[key_added + "_pvalue"]``, ``obs[key_added + "_qvalue"]``
        Two-sided p-value of the slope, and its q-value. The false discovery rate is measured over cells, and no q-value
        is below the global p-value.
    ``obs[key_added + "_neighborhood"]``
        The cell's neighbourhood, of about 50 similar cells.
    ``uns[key_added]["neighborhoods"]``, ``uns[key_added]["samples"]``
        Tables like those of :func:`scratio.tl.differential_abundance`.
    ``uns[key_added]["table"]``
        One row: number of samples, mean and standard deviation of the number, global p-value, and number of
        cells with a q-value of at most 0.1.

    Raises
    ------
    KeyError
        If a key is missing in ``obs`` or ``obsm``.
    TypeError
        If the column is not numeric, or the embedding is sparse or not numeric.
    ValueError
        If the number differs between the cells of a sample, if fewer than 4 samples have a number, if all samples have
        one and the same number, if the covariates explain the number, or if a column that would be overwritten was not
        written by scratio.

    See Also
    --------
    scratio.pl.embedding : Draw the slope on an embedding.
    scratio.pl.volcano : Draw the tested slopes against their significance.
    scratio.get.neighborhoods : Return the tested neighbourhoods as a table.
    scratio.get.table : Return the results as a table.

    Examples
    --------
    >>> import numpy as np
    >>> import scratio
    >>> adata = scratio.datasets.gaussians(n_cells=800, n_dims=2, random_state=0)
    >>> adata.obs["donor"] = np.arange(800) % 8
    >>> adata.obs["age"] = 30.0 + 5.0 * (np.arange(800) % 8)
    >>> scratio.tl.association(adata, key="age", sample_key="donor")
    >>> bool((adata.obs["association_qvalue"] > 0.1).all())
    True
    """
    check_anndata(adata, copy=copy)
    settings = SampleSettings(sample_key, covariates, donor_key, min_cells)
    cells, keys = _cells(adata, key, use_rep, settings)
    plan = check_key_added(
        adata,
        key_added,
        obs=[f"{key_added}_{name}" for name in (*RESULTS, "neighborhood")],
        reads={"obs": keys, "obsm": [use_rep]},
    )
    samples = samples_with_numbers(cells.obs, key, settings)
    x = np.asarray(check_source(cells, use_rep), dtype=np.float32)
    x = robust_coordinates(x, np.random.default_rng(0)).forward(x).astype(np.float32)
    place = assign_neighborhoods(x, random_state)
    found = compare(x, place, cells.obs, samples, None, random_state)
    table = neighborhood_table(found, np.arange(place.max() + 1).astype(str), place, samples)
    numbers = samples.table.loc[samples.table["left_out"] == "", "value"]
    table.insert(4, "effect_per_sd", table["effect"] * numbers.std())
    target = begin(adata, key_added, copy)
    with_columns(target, cells.obs_names, {f"{key_added}_{name}": table[name].to_numpy()[place] for name in RESULTS})
    target.obs[f"{key_added}_neighborhood"] = named(place, cells.obs_names).reindex(target.obs_names)
    params = {"key": key, "use_rep": use_rep, **vars(settings), "random_state": random_state}
    tables: dict[str, Any] = {"neighborhoods": table, "samples": samples_table({key: samples}, {key: found})}
    tables["samples"] = tables["samples"].drop(columns="treatment")
    row = {
        "key": key,
        "n_samples": len(numbers),
        "mean": numbers.mean(),
        "sd": numbers.std(),
        "global_pvalue": found.test.global_pvalue,
        "n_cells_found": int(table.loc[table["qvalue"] <= FDR, "n_cells"].sum()),
    }
    tables["table"] = pd.DataFrame([row])
    data = data_fingerprint(cells, use_rep, keys)
    return finish(target, key_added, record("association", params, data, **tables), plan, copy)


def _cells(adata: AnnData, key: str, use_rep: str, settings: SampleSettings) -> tuple[AnnData, list[str]]:
    """Validate the input and return the cells with what the test needs, and the columns that were read."""
    check_unique_names(adata)
    x = check_source(adata, use_rep)
    check_spread(x, source_name(adata, use_rep))
    check_obs_key(adata, key)
    column = adata.obs[key]
    if not is_numeric_dtype(column) or is_bool_dtype(column):
        raise TypeError(
            f"obs[{key!r}] must be a column of numbers, it is of type {column.dtype}; conditions are compared by "
            "scratio.tl.differential_abundance"
        )
    about = settings.keys(adata, [key])
    if key in about["label_keys"]:
        raise ValueError(f"key and sample_key or donor_key are the same column, {key!r}")
    obs = pd.DataFrame({key: column.astype(float)})
    for name in about["label_keys"]:
        check_groups(adata, name, [])
        check_categories(adata, name)
        obs[name] = adata.obs[name].astype(str)
    for name in about["further_keys"]:
        obs[name] = adata.obs[name]
    return AnnData(obs=obs, obsm={use_rep: x}), list(obs)
