"""Code of a user with mistakes, each of which mypy refuses for the reason beside it: see test_typing.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scratio
from scratio.model import ScRatio

if TYPE_CHECKING:
    from anndata import AnnData


def mistakes(adata: AnnData, model: ScRatio) -> None:
    ScRatio.setup_anndata(adata, condition_keys=3)  # refused: arg-type
    ScRatio.setup_anndata(adata)  # refused: call-arg
    ScRatio(adata, parametrisation="potential")  # refused: call-arg
    model.log_ratio(numerator={"condition": "a"})  # refused: call-arg
    model.log_ratio(numerator={"condition": "a"}, denominator={"condition": "b"}, n_step=8)  # refused: call-arg
    question = {"condition": "a"}
    model.log_ratio(numerator=question, denominator={}, return_std="yes")  # refused: arg-type
    scratio.tl.differential_abundance(  # refused: call-arg
        adata, condition_key="condition", treatment="a", reference="b", sample="donor"
    )
    scratio.tl.differential_abundance(
        adata,
        condition_key="condition",
        treatment="a",
        reference="b",
        mod=1,  # refused: arg-type
    )
    scratio.get.table(adata, modality="rna")  # refused: call-arg
    scratio.get.table(adata, mod=0)  # refused: arg-type
    scratio.pl.embedding(adata, mod=0)  # refused: arg-type
    scratio.pl.violin(adata, groupby=["cell_type"], ax="left")  # refused: arg-type
    scratio.tl.diferential_abundance(adata)  # refused: attr-defined
    scratio.plot.embedding(adata)  # refused: attr-defined
    scratio.model.ScRatoi(adata)  # refused: attr-defined
