"""Real cells, downloaded once from public repositories."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from scratio.datasets import _conversions
from scratio.datasets._cache import load


def kang_pbmc(*, cache_dir: str | Path | None = None) -> AnnData:
    """Load blood cells with and without interferon beta: 10,000 cells, 30 principal components.

    Peripheral blood mononuclear cells of eight lupus patients, stimulated for six hours or not (Kang et al., Nature
    Biotechnology 36, 89, 2018). The cells are a sample that DCATS ships. The principal components look corrected for
    the stimulation, which has a stronger effect on the counts.

    Source: ``data/Kang2017.rda`` of holab-hku/DCATS, whose licence is MIT.

    Parameters
    ----------
    cache_dir
        Folder of downloads and converted files. By default the folder in the environment variable ``SCRATIO_CACHE``, or
        else the user's cache folder.

    Returns
    -------
    AnnData without ``X``, with ``obsm["X_pca"]`` (30), ``obs["condition"]`` (``"ctrl"``, ``"stim"``),
    ``obs["cell_type"]`` (8) and ``obs["orig_row"]``, the row of the cell in the full data.

    Raises
    ------
    ImportError
        If pooch or rdata is not installed: ``pip install "scratio[datasets]"``.
    OSError
        If a file is not in the cache and cannot be downloaded. The message says where to put the file by hand.
    ValueError
        If the sha256 of a downloaded file differs from that of the file which this function was written for.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.kang_pbmc()  # doctest: +SKIP
    >>> adata.obsm["X_pca"].shape  # doctest: +SKIP
    (10000, 30)
    """
    return load(
        "kang2018_pbmc_ifnb_pca",
        version=1,
        raw=("dcats_Kang2017.rda",),
        convert=_conversions.kang_pbmc,
        cache_dir=cache_dir,
    )


def kang_pbmc_counts(*, cache_dir: str | Path | None = None) -> AnnData:
    """Counts of blood cells with and without interferon beta: 2,000 cells, 9,015 genes.

    The experiment of :func:`kang_pbmc` (Kang et al., Nature Biotechnology 36, 89, 2018), 1,000 cells of each condition
    as Harmony ships them, for analyses that start from counts. This function normalises each cell to 10,000 counts,
    log-transforms, scales the 2,000 most variable genes and computes their principal components.

    Source: ``data/pbmc_stim.RData`` of immunogenomics/harmony, whose licence is GPL-3.

    Parameters
    ----------
    cache_dir
        Folder of downloads and converted files. By default the folder in the environment variable ``SCRATIO_CACHE``, or
        else the user's cache folder.

    Returns
    -------
    AnnData with log-normalised ``X`` and ``layers["counts"]`` (both sparse, float32), ``obsm["X_pca"]`` (30),
    ``obs["condition"]`` (``"ctrl"``, ``"stim"``), ``obs["barcode"]``, and in ``var`` what
    :func:`scanpy.pp.highly_variable_genes` finds.

    Raises
    ------
    ImportError
        If pooch or rdata is not installed: ``pip install "scratio[datasets]"``.
    OSError
        If a file is not in the cache and cannot be downloaded. The message says where to put the file by hand.
    ValueError
        If the sha256 of a downloaded file differs from that of the file which this function was written for.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.kang_pbmc_counts()  # doctest: +SKIP
    >>> adata.shape  # doctest: +SKIP
    (2000, 9015)
    """
    return load(
        "kang2018_pbmc_ifnb_counts2k",
        version=1,
        raw=("harmony_pbmc_stim.RData",),
        convert=_conversions.kang_pbmc_counts,
        cache_dir=cache_dir,
    )


def melanoma_icb(*, cache_dir: str | Path | None = None) -> AnnData:
    """Load immune cells of melanoma under checkpoint therapy: 16,291 cells, 10 principal components.

    48 samples, before and after treatment, from tumours of 32 patients who did or did not respond to checkpoint
    inhibitors (Sade-Feldman et al., Cell 175, 998, 2018), as DAseq ships them. Cells of a sample resemble each other:
    samples, not cells, are the replicates. Four patients have samples of both conditions.

    Source: ``data/X.melanoma.rda``, ``X.2d.melanoma.rda``, ``X.label.melanoma.rda`` and ``X.label.info.rda`` of
    KlugerLab/DAseq, whose licence is MIT.

    Parameters
    ----------
    cache_dir
        Folder of downloads and converted files. By default the folder in the environment variable ``SCRATIO_CACHE``, or
        else the user's cache folder.

    Returns
    -------
    AnnData without ``X``, with ``obsm["X_pca"]`` (10), ``obsm["X_tsne"]`` (2), ``obs["condition"]`` (``"R"`` responded,
    ``"NR"`` did not), ``obs["timepoint"]`` (``"Pre"``, ``"Post"``), ``obs["patient"]`` (32) and ``obs["sample"]`` (48).

    Raises
    ------
    ImportError
        If pooch or rdata is not installed: ``pip install "scratio[datasets]"``.
    OSError
        If a file is not in the cache and cannot be downloaded. The message says where to put the file by hand.
    ValueError
        If the sha256 of a downloaded file differs from that of the file which this function was written for.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.melanoma_icb()  # doctest: +SKIP
    >>> adata.obs["sample"].nunique()  # doctest: +SKIP
    48
    """
    return load(
        "sadefeldman2018_melanoma_icb",
        version=1,
        raw=("daseq_X.melanoma.rda", "daseq_X2d.rda", "daseq_label.rda", "daseq_info.rda"),
        convert=_conversions.melanoma_icb,
        cache_dir=cache_dir,
    )


def ra_synovium(*, cache_dir: str | Path | None = None) -> AnnData:
    """Load cells of joints before and after batch correction: 5,265 cells, two sets of 20 principal components.

    Synovial tissue of patients with rheumatoid arthritis or osteoarthritis (Zhang et al., Nature Immunology 20, 928,
    2019), before and after Harmony (Korsunsky et al., Nature Methods 16, 1289, 2019), as scpost ships it. Use
    it to evaluate a batch correction. Disease is confounded with batch: only one of the 24 batches has both diseases.

    Source: ``data/ra_PreHarmObj.rda`` and ``data/ra_HarmObj.rda`` of immunogenomics/scpost, whose licence is MIT.

    Parameters
    ----------
    cache_dir
        Folder of downloads and converted files. By default the folder in the environment variable ``SCRATIO_CACHE``, or
        else the user's cache folder.

    Returns
    -------
    AnnData without ``X``, with ``obsm["X_pca"]`` (20), ``obsm["X_pca_harmony"]`` (20), ``obsm["X_umap"]`` (2),
    ``obs["batch"]`` (24), ``obs["celltype"]`` (4), ``obs["disease"]`` (``"RA"``, ``"OA"``), ``obs["sample"]`` (21),
    ``obs["nUMI"]``, ``obs["nGenes"]``, and the clusters ``obs["preHarmClus"]`` and ``obs["harmClus"]``.

    Raises
    ------
    ImportError
        If pooch or rdata is not installed: ``pip install "scratio[datasets]"``.
    OSError
        If a file is not in the cache and cannot be downloaded. The message says where to put the file by hand.
    ValueError
        If the sha256 of a downloaded file differs from that of the file which this function was written for.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.ra_synovium()  # doctest: +SKIP
    >>> list(adata.obsm)  # doctest: +SKIP
    ['X_pca', 'X_pca_harmony', 'X_umap']
    """
    return load(
        "zhang2019_ra_synovium_harmony",
        version=1,
        raw=("scpost_ra_PreHarmObj.rda", "scpost_ra_HarmObj.rda"),
        convert=_conversions.ra_synovium,
        cache_dir=cache_dir,
    )


def glioblastoma(*, cache_dir: str | Path | None = None) -> AnnData:
    """Load glioblastoma slices of five patients with and without panobinostat: 5,000 cells, 300 genes.

    Slices of each patient's tumour were treated with 0.2 uM panobinostat or with its solvent (Zhao et al., Genome
    Medicine 13, 82, 2021), so that the design is paired. The cells and genes are a sample that lemur ships. This
    function computes the principal components from the scaled log counts.

    Source: ``data/glioblastoma_example_data.rda`` of const-ae/lemur, whose licence is MIT.

    Parameters
    ----------
    cache_dir
        Folder of downloads and converted files. By default the folder in the environment variable ``SCRATIO_CACHE``, or
        else the user's cache folder.

    Returns
    -------
    AnnData with log counts in ``X`` and ``layers["counts"]`` (both sparse, float32), ``obsm["X_pca"]`` (30),
    ``obs["patient_id"]`` (5), ``obs["condition"]`` (``"ctrl"``, ``"panobinostat"``), ``obs["sample_id"]`` (10),
    ``obs["treatment"]``, ``obs["treatment_id"]``, the patient's age, gender, location and diagnosis in ``obs``, and
    ``var["gene_id"]``.

    Raises
    ------
    ImportError
        If pooch or rdata is not installed: ``pip install "scratio[datasets]"``.
    OSError
        If a file is not in the cache and cannot be downloaded. The message says where to put the file by hand.
    ValueError
        If the sha256 of a downloaded file differs from that of the file which this function was written for.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.glioblastoma()  # doctest: +SKIP
    >>> adata.shape  # doctest: +SKIP
    (5000, 300)
    """
    return load(
        "zhao2021_gbm_panobinostat",
        version=1,
        raw=("lemur_gbm.rda",),
        convert=_conversions.glioblastoma,
        cache_dir=cache_dir,
    )


def sachs_signaling(*, cache_dir: str | Path | None = None) -> AnnData:
    """Load signalling proteins of T cells under 14 combinations of stimuli and inhibitors: 11,672 cells, 11 proteins.

    Flow cytometry of human T cells (Sachs et al., Science 308, 523, 2005), as SEMgraph ships it. Cells stimulated by
    CD3 and CD28 were given ICAM-2 or not, and one of five inhibitors or none: five designs of two by two. Each
    condition was measured in a separate run, so conditions are confounded with runs.

    Two properties of the source limit what can be concluded. First, the values of Raf and Mek are identical, row by
    row, under ``"cd3cd28+aktinhib"`` and ``"cd3cd28+ly"``, and under ``"cd3cd28+u0126"`` and ``"cd3cd28+icam2+g0076"``,
    in all rows that both conditions have. The other nine proteins differ. Second, the source's table of details calls
    the five sets of ICAM-2 with an inhibitor simulated.

    Source: ``data/sachs.RData`` of fernandoPalluzzi/SEMgraph, whose licence is GPL-3.

    Parameters
    ----------
    cache_dir
        Folder of downloads and converted files. By default the folder in the environment variable ``SCRATIO_CACHE``, or
        else the user's cache folder.

    Returns
    -------
    AnnData with ``log(1 + x)`` of the intensities in ``X`` (dense, float32), the intensities in ``layers["raw"]``,
    ``X`` with mean 0 and variance 1 in ``obsm["X_scaled"]``, ``obs["condition"]`` (14), and the parts of the condition:
    ``obs["stim"]`` (``"cd3cd28"``, ``"pma"``, ``"b2camp"``), ``obs["icam2"]`` (``"icam2"``, ``"none"``) and
    ``obs["inhibitor"]`` (5 and ``"none"``); ``obs["file"]`` is the condition's name in the source.

    Raises
    ------
    ImportError
        If pooch or rdata is not installed: ``pip install "scratio[datasets]"``.
    OSError
        If a file is not in the cache and cannot be downloaded. The message says where to put the file by hand.
    ValueError
        If the sha256 of a downloaded file differs from that of the file which this function was written for.

    Examples
    --------
    >>> import scratio
    >>> adata = scratio.datasets.sachs_signaling()  # doctest: +SKIP
    >>> adata.obs["condition"].nunique()  # doctest: +SKIP
    14
    """
    return load(
        "sachs2005_flow",
        version=1,
        raw=("sachs.RData",),
        convert=_conversions.sachs_signaling,
        cache_dir=cache_dir,
    )
