"""Arguments and options that the commands share. Nothing heavy is imported here: ``--help`` reads it."""

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
    """What is fitted, as in :meth:`scratio.model.ScRatio.train`."""

    default = "default"
    quick = "quick"


class Accelerator(StrEnum):
    """Devices that Lightning trains on."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    cuda = "cuda"
    mps = "mps"


FILES, TRAINING, TALK = "Files", "Training", "What is shown"
"""Panels of the help."""

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="Cells, an .h5ad file.", show_default=False)]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Result, an .h5ad file.", rich_help_panel=FILES, show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", help="Figure of the result: .png, .pdf or .svg.", rich_help_panel=FILES),
]
Basis = Annotated[
    str | None,
    typer.Option(
        "--basis",
        help="Coordinates in obsm for the figure. By default X_umap, else the first two dimensions of the embedding.",
        rich_help_panel=FILES,
    ),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Summary for programs; - writes it to stdout.", rich_help_panel=FILES),
]
Force = Annotated[
    bool, typer.Option("--force", "-f", help="Replace files that exist.", rich_help_panel=FILES, show_default=False)
]

Treatments = Annotated[
    list[str] | None,
    typer.Option("--treatment", help="Category to ask about; may be repeated. By default all but the reference."),
]
CovariateKeys = Annotated[
    list[str] | None, typer.Option("--covariate-key", help="Column of labels to be held fixed; may be repeated.")
]
SampleKey = Annotated[
    str | None,
    typer.Option("--sample-key", help="Column with donors or samples, across which differences are tested."),
]
Covariates = Annotated[
    str | None,
    typer.Option("--covariates", help="Formula of what the test across samples holds fixed, such as '~ age + sex'."),
]
DonorKey = Annotated[
    str | None, typer.Option("--donor-key", help="Column with donors, where some gave several samples.")
]
MinCells = Annotated[
    int, typer.Option("--min-cells", min=1, help="Cells of a condition below which a sample takes no part in it.")
]
UseRep = Annotated[str, typer.Option("--use-rep", help="Embedding in obsm, or X, the matrix itself.")]
KeyAdded = Annotated[str, typer.Option("--key-added", help="Prefix of the results in obs, obsm and uns.")]
NFolds = Annotated[int, typer.Option("--n-folds", min=2, help="Cross-fitting folds.", rich_help_panel=TRAINING)]
MethodOption = Annotated[
    Method, typer.Option("--method", help="Estimator of the log ratio.", rich_help_panel=TRAINING, show_choices=True)
]
EffortOption = Annotated[
    Effort,
    typer.Option(
        "--effort",
        help="[bold]quick[/] trains no network: closed forms of the densities, weighed by held-out labels, in seconds; "
        "coarser.",
        rich_help_panel=TRAINING,
        show_choices=True,
    ),
]
RandomState = Annotated[
    int, typer.Option("--random-state", min=0, help="Seed of everything.", rich_help_panel=TRAINING)
]
MaxSteps = Annotated[
    int | None,
    typer.Option(
        "--max-steps",
        min=1,
        help="Training steps at most. By default as many as the cells need; a few for a quick try.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Cells per step.", rich_help_panel=TRAINING)]
AcceleratorOption = Annotated[
    Accelerator | None,
    typer.Option("--accelerator", help="Device to train on. By default the best there is.", rich_help_panel=TRAINING),
]
Backed = Annotated[
    bool,
    typer.Option(
        "--backed",
        help="Train from disk; the diagnostics still read the embedding once. Batches, and so results, differ by "
        "chance from those in memory.",
        rich_help_panel=TRAINING,
        show_default=False,
    ),
]

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Warnings and errors alone.", rich_help_panel=TALK, show_default=False),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also where an error arose, and what dependencies warn of.",
        rich_help_panel=TALK,
        show_default=False,
    ),
]
