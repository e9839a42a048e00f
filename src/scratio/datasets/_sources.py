"""Where the real data come from: the one table of public files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawFile:
    """A file of a public repository at a commit, which can so never change."""

    repository: str
    commit: str
    path: str
    sha256: str

    @property
    def url(self) -> str:
        """Address it is downloaded from."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.path}"


_DASEQ = ("KlugerLab/DAseq", "b1f58e0028975dcbe3b38e76a01832d30401aaf6")
_DCATS = ("holab-hku/DCATS", "1bfa00ccb9ee16aba49ebf237c9c7f23eece885f")
_HARMONY = ("immunogenomics/harmony", "df19af23ae0639bd6ea2da63898f973f08c85862")
_LEMUR = ("const-ae/lemur", "0e62bc1287b17deec678f7db435ec09098a475f2")
_SCPOST = ("immunogenomics/scpost", "9e6ce336addc7e0d50e266299e8b46bed7df78d0")
_SEMGRAPH = ("fernandoPalluzzi/SEMgraph", "31eff1eab1f15e93d2e1bfcc869770424f75fb1a")

RAW_FILES = {
    "dcats_Kang2017.rda": RawFile(
        *_DCATS,
        "data/Kang2017.rda",
        "7fc9f1364c40e87ae4dd90752585fdf50853bded99bfc931849e4f235727754c",
    ),
    "harmony_pbmc_stim.RData": RawFile(
        *_HARMONY,
        "data/pbmc_stim.RData",
        "d85a18ce8ec9dcb4ac86c8e195ed53ff893c5952a7d6bf70035a17856c9dc0ef",
    ),
    "daseq_X.melanoma.rda": RawFile(
        *_DASEQ,
        "data/X.melanoma.rda",
        "b843a63e734b38b7eab6bd30c8cfe5c852c2e4e332e3cc1c3a25585824d8f555",
    ),
    "daseq_X2d.rda": RawFile(
        *_DASEQ,
        "data/X.2d.melanoma.rda",
        "f0bf40cc16ce04770133d3fbe53e4af3b256f3b7b790182f37595b9237794743",
    ),
    "daseq_label.rda": RawFile(
        *_DASEQ,
        "data/X.label.melanoma.rda",
        "a4b0183e21b2b4f5663db6186e942b840f53db43d8cfed7453644386931be36b",
    ),
    "daseq_info.rda": RawFile(
        *_DASEQ,
        "data/X.label.info.rda",
        "2e2c89624044a8b4e1c1ed0f5ed1f6ad132fc6569d90c84932d5e10ec132df6e",
    ),
    "scpost_ra_PreHarmObj.rda": RawFile(
        *_SCPOST,
        "data/ra_PreHarmObj.rda",
        "da0c7b4e420743a4ac78f90f710f265f17987571ad2a0071688959afa0c57f53",
    ),
    "scpost_ra_HarmObj.rda": RawFile(
        *_SCPOST,
        "data/ra_HarmObj.rda",
        "285a1dbba060a09007d540e6916ce4fae8b90ce3284e9676a913656b81fca40b",
    ),
    "lemur_gbm.rda": RawFile(
        *_LEMUR,
        "data/glioblastoma_example_data.rda",
        "4e56d9cff16fb6750dd0054a0f7f05a7429c612906dc610c8dd44cb3e60de37e",
    ),
    "sachs.RData": RawFile(
        *_SEMGRAPH,
        "data/sachs.RData",
        "4295e736063f558b3a2be3ad0803264f663f577e51ac90c82922d341c7dba64f",
    ),
}
"""Public files by their name in the cache."""
