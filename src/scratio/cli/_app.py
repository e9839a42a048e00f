"""The commands and their options. ``--help`` imports nothing heavy from here; the work begins in ``_work``."""

from __future__ import annotations

import io
import sys
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from scratio.cli._conditions import parse_pairs
from scratio.cli._options import (
    AcceleratorOption,
    Backed,
    Basis,
    BatchSize,
    CovariateKeys,
    Covariates,
    DonorKey,
    Effort,
    EffortOption,
    Force,
    Input,
    Json,
    KeyAdded,
    MaxSteps,
    Method,
    MethodOption,
    MinCells,
    NFolds,
    Out,
    Plot,
    Quiet,
    RandomState,
    SampleKey,
    ScoringAccelerator,
    SeveralValues,
    Treatments,
    UseRep,
    Verbose,
)
from scratio.cli._paths import STDOUT, Paths
from scratio.cli._session import RefusedError, Talk, session

app = typer.Typer(
    name="scratio",
    help="Compute log density ratios between conditions for every cell, in nats: how much more likely is a cell state "
    "under one condition than under another?",
    no_args_is_help=True,
    # Completion by the shell would import torch at every Tab.
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the command ``scratio``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Labels may hold characters that the terminal cannot show.
            stream.reconfigure(errors="backslashreplace")
    app()


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"scratio {version('scratio')}")
        raise typer.Exit


@app.callback()
def scratio(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the name of a command."""


def _session(quiet: bool, verbose: bool, json: Path | None) -> AbstractContextManager[Talk]:
    return session(quiet=quiet, verbose=verbose, stdout_is_taken=json == STDOUT)


def _settings(
    key_added: str,
    n_folds: int,
    method: Method,
    random_state: int,
    **train_kwargs: Any,
) -> dict[str, Any]:
    """Arguments that every analysis takes. Training options that were not given keep their defaults."""
    given = {name: value for name, value in train_kwargs.items() if value is not None}
    return {
        "key_added": _checked_key(key_added),
        "n_folds": n_folds,
        "method": method.value,
        "random_state": random_state,
        "train_kwargs": {name: str(value) if name == "accelerator" else value for name, value in given.items()},
    }


def _checked_key(key_added: str) -> str:
    if not key_added or "/" in key_added:
        raise RefusedError(f"--key-added must be a name without '/', which files use for folders; got {key_added!r}")
    return key_added


@app.command(
    epilog="Example: [cyan]scratio da cells.h5ad --condition-key condition --treatment stim --reference ctrl "
    "--sample-key donor --out da.h5ad --plot da.png --json da.json[/]"
)
def da(
    source: Input,
    out: Out,
    condition_key: Annotated[str, typer.Option("--condition-key", help="Column of obs with the condition.")],
    reference: Annotated[
        str,
        typer.Option(
            "--reference", help="Category to compare with, or [bold]rest[/] for all cells but the treatment's."
        ),
    ],
    treatment: Treatments = None,
    use_rep: UseRep = "X_pca",
    covariate_key: CovariateKeys = None,
    sample_key: SampleKey = None,
    covariates: Covariates = None,
    donor_key: DonorKey = None,
    min_cells: MinCells = 5,
    key_added: KeyAdded = "da",
    plot: Plot = None,
    basis: Basis = None,
    json: Json = None,
    force: Force = False,
    n_folds: NFolds = 5,
    method: MethodOption = Method.auto,
    effort: EffortOption = Effort.default,
    random_state: RandomState = 0,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    accelerator: AcceleratorOption = None,
    backed: Backed = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Differential abundance: compute log p(x | treatment) - log p(x | reference) of every cell.

    Each cell is scored by networks that did not see it.
    The command reads obs and one embedding into memory, and no counts.
    OUT is a copy of INPUT with the results.
    """
    with _session(quiet, verbose, json) as talk:
        settings = _settings(
            key_added, n_folds, method, random_state,
            max_steps=max_steps, batch_size=batch_size, accelerator=accelerator,
        )  # fmt: skip
        settings["effort"] = effort.value
        paths = Paths(source, out, plot, json, force)
        paths.check(copies_source=True)
        from scratio.cli import _work

        covariate_keys = covariate_key or []
        question = {
            "condition_key": condition_key,
            "treatment": treatment[0] if treatment and len(treatment) == 1 else treatment or None,
            "reference": reference,
            "use_rep": use_rep,
            "covariate_keys": covariate_keys,
            "sample_key": sample_key,
            "covariates": covariates,
            "donor_key": donor_key,
            "min_cells": min_cells,
        }
        keys = [condition_key, *covariate_keys, *(key for key in (sample_key, donor_key) if key is not None)]
        analysis = _work.Analysis(
            "da", "differential_abundance", keys, [use_rep], question, settings, basis=basis, backed=backed
        )
        _work.run_analysis(talk, paths, analysis)


@app.command(
    epilog="Example: [cyan]scratio batch cells.h5ad --batch-key batch --label-key cell_type --use-rep X_pca "
    "--use-rep X_pca_harmony --out batch.h5ad --plot batch.png[/]"
)
def batch(
    source: Input,
    out: Out,
    batch_key: Annotated[str, typer.Option("--batch-key", help="Column of obs with the batch.")],
    label_key: Annotated[
        str | None, typer.Option("--label-key", help="Column of obs with the cell type, which is held fixed.")
    ] = None,
    use_rep: Annotated[
        list[str] | None,
        typer.Option("--use-rep", help="Embedding in obsm, or X for the matrix itself. Repeat it to compare several."),
    ] = None,
    key_added: KeyAdded = "batch_effect",
    plot: Plot = None,
    json: Json = None,
    force: Force = False,
    n_folds: NFolds = 5,
    method: MethodOption = Method.auto,
    random_state: RandomState = 0,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    accelerator: AcceleratorOption = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Batch effect score: compute log p(x | own batch, label) - log p(x | label) of every cell.

    The score is 0 where no batch effect is left.
    The command reads obs and the embeddings into memory, and no counts.
    OUT is a copy of INPUT with the results.
    """
    with _session(quiet, verbose, json) as talk:
        settings = _settings(
            key_added, n_folds, method, random_state,
            max_steps=max_steps, batch_size=batch_size, accelerator=accelerator,
        )  # fmt: skip
        paths = Paths(source, out, plot, json, force)
        paths.check(copies_source=True)
        from scratio.cli import _work

        embeddings = use_rep or ["X_pca"]
        question = {"batch_key": batch_key, "label_key": label_key, "use_rep": embeddings}
        keys = [batch_key, *([] if label_key is None else [label_key])]
        _work.run_analysis(talk, paths, _work.Analysis("batch", "batch_effect", keys, embeddings, question, settings))


@app.command(
    epilog="Example: [cyan]scratio combination cells.h5ad --condition-key drug --combination a+b --reference none "
    "--out combination.h5ad[/]"
)
def combination(
    source: Input,
    out: Out,
    condition_key: Annotated[
        list[str],
        typer.Option(
            "--condition-key",
            help="Column of obs with the treatments, joined by + in combinations. Repeat it if the treatments have two "
            "columns.",
        ),
    ],
    combination: Annotated[
        list[str],
        typer.Option(
            "--combination", help="Two treatments, as [bold]a+b[/]. The first is held fixed. Repeat it for several."
        ),
    ],
    reference: Annotated[
        str,
        typer.Option(
            "--reference", help="Category with neither treatment. With two columns a pair, as [bold]no+no[/]."
        ),
    ],
    use_rep: UseRep = "X_pca",
    key_added: KeyAdded = "combination",
    plot: Plot = None,
    json: Json = None,
    force: Force = False,
    n_folds: NFolds = 5,
    method: MethodOption = Method.auto,
    random_state: RandomState = 0,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    accelerator: AcceleratorOption = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Combination: compute log p(x | a, b) - log p(x | a) of every cell, and the interaction of the treatments.

    The command reads obs and one embedding into memory, and no counts.
    OUT is a copy of INPUT with the results.
    """
    with _session(quiet, verbose, json) as talk:
        settings = _settings(
            key_added, n_folds, method, random_state,
            max_steps=max_steps, batch_size=batch_size, accelerator=accelerator,
        )  # fmt: skip
        if len(condition_key) > 2:
            raise RefusedError(f"--condition-key is given once or twice, got {condition_key}")
        paths = Paths(source, out, plot, json, force)
        paths.check(copies_source=True)
        from scratio.cli import _work

        question = {
            "condition_keys": condition_key,
            "combination": combination,
            "reference": reference,
            "use_rep": use_rep,
        }
        analysis = _work.Analysis("combination", "combination_effect", condition_key, [use_rep], question, settings)
        _work.run_analysis(talk, paths, analysis)


@app.command(
    epilog="Example: [cyan]scratio response cells.h5ad --treatment-key drug --donor-key patient --reference DMSO "
    "--out response.h5ad --plot response.pdf[/]"
)
def response(
    source: Input,
    out: Out,
    treatment_key: Annotated[str, typer.Option("--treatment-key", help="Column of obs with the treatment.")],
    donor_key: Annotated[str, typer.Option("--donor-key", help="Column of obs with the donor.")],
    reference: Annotated[str, typer.Option("--reference", help="Category of the untreated cells.")],
    use_rep: UseRep = "X_pca",
    key_added: KeyAdded = "response",
    plot: Plot = None,
    json: Json = None,
    force: Force = False,
    n_folds: NFolds = 5,
    method: MethodOption = Method.auto,
    random_state: RandomState = 0,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    accelerator: AcceleratorOption = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Response of every donor: compute log p(x | donor, treatment) - log p(x | donor, reference) of every cell.

    The command reads obs and one embedding into memory, and no counts.
    OUT is a copy of INPUT with the results.
    """
    with _session(quiet, verbose, json) as talk:
        settings = _settings(
            key_added, n_folds, method, random_state,
            max_steps=max_steps, batch_size=batch_size, accelerator=accelerator,
        )  # fmt: skip
        paths = Paths(source, out, plot, json, force)
        paths.check(copies_source=True)
        from scratio.cli import _work

        question = {
            "treatment_key": treatment_key,
            "donor_key": donor_key,
            "reference": reference,
            "use_rep": use_rep,
        }
        keys = [donor_key, treatment_key]
        _work.run_analysis(
            talk, paths, _work.Analysis("response", "treatment_response", keys, [use_rep], question, settings)
        )


@app.command(
    cls=SeveralValues,
    epilog="Example: [cyan]scratio score cells.h5ad --model model --numerator condition=stim donor=OWN "
    "--denominator condition=ctrl donor=OWN --out scores.h5ad[/]",
)
def score(
    source: Input,
    out: Out,
    model: Annotated[
        Path, typer.Option("--model", help="Folder of a saved model (written by model.save).", show_default=False)
    ],
    numerator: Annotated[
        list[str] | None,
        typer.Option(
            "--numerator",
            help="Condition as key=value ... A value is a category, a number, [bold]OWN[/] (each cell's own value) or "
            "[bold]REST:[/]category (all other categories). A key that is left out is averaged over.",
        ),
    ] = None,
    denominator: Annotated[
        list[str] | None, typer.Option("--denominator", help="Condition to compare with, written as for --numerator.")
    ] = None,
    method: Annotated[Method, typer.Option("--method", help="Estimator of the log ratio.")] = Method.auto,
    std: Annotated[
        bool, typer.Option("--std", help="Also compute the standard error of every log ratio.", show_default=False)
    ] = False,
    accelerator: ScoringAccelerator = None,
    key_added: KeyAdded = "log_ratio",
    plot: Plot = None,
    basis: Basis = None,
    json: Json = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score cells with a saved model: compute log p(x | numerator) - log p(x | denominator) of every cell.

    The command reads obs, and the embedding block by block, so that the cells need not fit into memory.
    OUT holds obs and the scores, and nothing else of INPUT.
    If the command was killed, run it again: it goes on where it stopped.
    """
    with _session(quiet, verbose, json) as talk:
        top, bottom = parse_pairs("--numerator", numerator or []), parse_pairs("--denominator", denominator or [])
        if top == bottom:
            raise RefusedError(f"--numerator and --denominator are both {top or 'empty'}; nothing to compare")
        key = _checked_key(key_added)
        paths = Paths(source, out, plot, json, force)
        paths.check(copies_source=False)
        from scratio.cli import _work

        settings = {"key_added": key, "method": method.value, **({"return_std": True} if std else {})}
        settings |= {} if accelerator is None else {"accelerator": accelerator.value}
        _work.run_score(talk, paths, model, top, bottom, settings, basis=basis)
