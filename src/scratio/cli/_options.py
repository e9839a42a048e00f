"""Arguments and options that the commands share. ``--help`` reads this file, so that it imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class SeveralValues(TyperCommand):
    """A command whose conditions may have several values: ``-x a=1 b=2`` stands for ``-x a=1 -x b=2``."""

    CONDITIONS = ("--numerator", "--denominator")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before every further value."""
        spread: list[str] = []
        option, wants_value = None, False
        for text in args:
            if text.startswith("-"):
                name, sign, _ = text.partition("=")
                option, wants_value = (name, not sign) if name in self.CONDITIONS else (None, False)
            elif wants_value:
                wants_value = False
            elif option is not None and "=" in text:
                spread.append(option)
            else:
                option = None
            spread.append(text)
        return super().parse_args(ctx, spread)


class Method(StrEnum):
    """Estimators of the log ratio, as in :meth:`scratio.model.ScRatio.log_ratio`."""

    auto = "auto"
    head = "head"
    ode = "ode"
    naive = "naive"
    quadrature = "quadrature"
    ito = "ito"


class Effort(StrEnum):
    """How much is fitted, as in :meth:`scratio.model.ScRatio.train`."""

    default = "default"
    quick = "quick"


class Accelerator(StrEnum):
    """Devices that Lightning trains on."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    cuda = "cuda"
    mps = "mps"


FILES, TRAINING, TALK = "Files", "Training", "Messages"
"""Panels of the help."""

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="File with the cells (.h5ad).", show_default=False)]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="File for the result (.h5ad).", rich_help_panel=FILES, show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", help="File for a figure of the result (.png, .pdf or .svg).", rich_help_panel=FILES),
]
Basis = Annotated[
    str | None,
    typer.Option(
        "--basis",
        help="Coordinates in obsm for the figure. By default X_umap, or the first two dimensions of the embedding.",
        rich_help_panel=FILES,
    ),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="File for a summary in JSON; - writes it to stdout.", rich_help_panel=FILES),
]
Force = Annotated[
    bool, typer.Option("--force", "-f", help="Replace existing files.", rich_help_panel=FILES, show_default=False)
]

Treatments = Annotated[
    list[str] | None,
    typer.Option(
        "--treatment",
        help="Category to compare with the reference. Repeat it for several. By default all other categories.",
    ),
]
CovariateKeys = Annotated[
    list[str] | None,
    typer.Option("--covariate-key", help="Column of labels to hold fixed, such as a batch. Repeat it for several."),
]
SampleKey = Annotated[
    str | None,
    typer.Option("--sample-key", help="Column with the samples or donors, the replicates of the test."),
]
Covariates = Annotated[
    str | None,
    typer.Option("--covariates", help="Formula of what the test across samples holds fixed, such as '~ age + sex'."),
]
DonorKey = Annotated[
    str | None, typer.Option("--donor-key", help="Column with the donors, if some donors have several samples.")
]
MinCells = Annotated[
    int,
    typer.Option(
        "--min-cells", min=1, help="Smallest number of cells of a condition that a sample needs to take part."
    ),
]
UseRep = Annotated[str, typer.Option("--use-rep", help="Embedding in obsm, or X for the matrix itself.")]
KeyAdded = Annotated[str, typer.Option("--key-added", help="Prefix of the results in obs, obsm and uns.")]
NFolds = Annotated[
    int, typer.Option("--n-folds", min=2, help="Number of cross-fitting folds.", rich_help_panel=TRAINING)
]
MethodOption = Annotated[
    Method, typer.Option("--method", help="Estimator of the log ratio.", rich_help_panel=TRAINING, show_choices=True)
]
EffortOption = Annotated[
    Effort,
    typer.Option(
        "--effort",
        help="[bold]quick[/] trains no network and answers in seconds from simple densities, with less detail.",
        rich_help_panel=TRAINING,
        show_choices=True,
    ),
]
RandomState = Annotated[
    int, typer.Option("--random-state", min=0, help="Seed of all random numbers.", rich_help_panel=TRAINING)
]
MaxSteps = Annotated[
    int | None,
    typer.Option(
        "--max-steps",
        min=1,
        help="Largest number of training steps. By default it depends on the number of cells.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Number of cells in a training step.", rich_help_panel=TRAINING),
]
AcceleratorOption = Annotated[
    Accelerator | None,
    typer.Option(
        "--accelerator",
        help="Device to train on. By default an NVIDIA GPU if there is one, else the CPU.",
        rich_help_panel=TRAINING,
    ),
]
ScoringAccelerator = Annotated[
    Accelerator | None,
    typer.Option("--accelerator", help="Device to score on. By default the CPU.", show_default=False),
]
Backed = Annotated[
    bool,
    typer.Option(
        "--backed",
        help="Train from disk. The diagnostics still read the embedding into memory once. The batches differ by chance "
        "from those in memory, and so do the results.",
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show warnings and errors only.", rich_help_panel=TALK, show_default=False),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also show where an error occurred, and the warnings of dependencies.",
        rich_help_panel=TALK,
        show_default=False,
    ),
]
