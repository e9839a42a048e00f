"""Work of the commands: read, call :mod:`scratio.tl`, write. Everything heavy is imported here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from scratio import io, tl
from scratio.cli._cells import CellFile, Snapshot, opened, reading, write_with_results
from scratio.cli._conditions import as_condition, split_pair
from scratio.cli._paths import STDOUT, Paths
from scratio.cli._session import RefusedError, Talk, message
from scratio.cli._summary import Result, show, summary, write_json
from scratio.model import ScRatio


@dataclass(frozen=True)
class Analysis:
    """One call of an analysis.

    Parameters
    ----------
    command, tool
        Name of the command, and of its function in :mod:`scratio.tl`.
    keys
        Columns of ``obs`` it needs.
    representations
        Embeddings it needs.
    question, settings
        Arguments of the function: those of the question, and those of the method.
    basis
        Coordinates for the figure, if they were asked for.
    backed
        Whether the embedding stays on disk.
    """

    command: str
    tool: str
    keys: list[str]
    representations: list[str]
    question: dict[str, Any]
    settings: dict[str, Any]
    basis: str | None = None
    backed: bool = False

    @property
    def key_added(self) -> str:
        """Prefix of the results."""
        return self.settings["key_added"]


def run_analysis(talk: Talk, paths: Paths, analysis: Analysis) -> None:
    """Run an analysis that trains a model of its own.

    Parameters
    ----------
    talk
        Streams for messages.
    paths
        Input and outputs.
    analysis
        What to do.

    Raises
    ------
    RefusedError
        If the input lacks something.
    """
    start = time.monotonic()
    with opened(paths.source) as cells:
        with reading(paths.source):
            cells.check(obs=analysis.keys, obsm=analysis.representations)
            is_embedding = paths.plot is not None and analysis.command == "da"
            basis = cells.basis(analysis.basis, analysis.representations[0]) if is_embedding else None
            _say_what_is_read(talk, cells, analysis)
            adata = cells.read(analysis.representations, analysis.key_added, backed=analysis.backed)
            coordinates = None if basis is None else {basis: cells.coordinates(basis)}
        before = Snapshot.of(adata, analysis.key_added)
        question = _of_categories(analysis.question, adata.obs) if analysis.command == "combination" else {}
        arguments = {**analysis.question, **question, **analysis.settings}
        arguments["train_kwargs"] = {**arguments["train_kwargs"], "progress_bar": talk.shows_progress}
        function: Callable[..., None] = getattr(tl, analysis.tool)
        function(adata, **arguments)
    # The source is closed, since it may be what is replaced, and Windows does not replace an open file.
    write_with_results(paths.source, paths.out, before, adata, analysis.key_added)
    result = Result(analysis.command, analysis.key_added, arguments, adata, analysis.keys)
    _report(talk, paths, result, coordinates, start)


def run_score(
    talk: Talk,
    paths: Paths,
    model_dir: Path,
    numerator: dict[str, str],
    denominator: dict[str, str],
    settings: dict[str, Any],
    *,
    basis: str | None,
) -> None:
    """Score cells on disk by a saved model.

    Parameters
    ----------
    talk
        Streams for messages.
    paths
        Input and outputs.
    model_dir
        Folder of the model.
    numerator, denominator
        Conditions as they were written.
    settings
        Further arguments of :func:`scratio.tl.log_ratio`.
    basis
        Coordinates for the figure, if they were asked for.

    Raises
    ------
    RefusedError
        If the folder holds no model, or the input or a condition does not fit the model.
    """
    start = time.monotonic()
    key = _loaded(model_dir).obsm_key
    coordinates = None
    with opened(paths.source) as cells, reading(paths.source):
        cells.check(obs=[], obsm=[key])
        if paths.plot is not None:
            name = cells.basis(basis, key)
            coordinates = {name: cells.coordinates(name)}
        talk.note(f"{paths.source}: {cells.n_cells:,} cells; reads obs, and {cells.source_name(key)} block by block")
    with reading(paths.source):
        adata = io.read_lazy(paths.source, obsm_key=key)
    model = _loaded(model_dir, adata)
    ends: dict[str, Any] = {
        name: as_condition(f"--{name}", pairs, model.schema.continuous)
        for name, pairs in (("numerator", numerator), ("denominator", denominator))
    }
    shown = None if talk.shows_progress else False
    tl.log_ratio(adata, model, **ends, **settings, out=paths.out, overwrite=paths.force, progress_bar=shown)
    keys = [name for name in model.schema.categories if name in adata.obs]
    arguments = {"model": str(model_dir), "numerator": numerator, "denominator": denominator, **settings}
    _report(talk, paths, Result("score", settings["key_added"], arguments, adata, keys), coordinates, start)


def _say_what_is_read(talk: Talk, cells: CellFile, analysis: Analysis) -> None:
    names = ", ".join(cells.source_name(key) for key in analysis.representations)
    how = "block by block, and once into memory for the diagnostics" if analysis.backed else "into memory"
    talk.note(f"{cells.path}: {cells.n_cells:,} cells; reads obs and {names} {how}")


def _of_categories(question: Mapping[str, Any], obs: pd.DataFrame) -> dict[str, Any]:
    """Combinations and reference as :func:`scratio.tl.combination_effect` takes them."""
    keys, several, reference = question["condition_keys"], question["combination"], question["reference"]
    if len(keys) == 2:
        labels = [sorted(obs[key].dropna().astype(str).unique()) for key in keys]
        several = [split_pair("--combination", text, *labels) for text in several]
        reference = split_pair("--reference", reference, *labels)
    return {
        "condition_keys": keys[0] if len(keys) == 1 else keys,
        "combination": several[0] if len(several) == 1 else several,
        "reference": reference,
    }


def _loaded(path: Path, adata: AnnData | None = None) -> ScRatio:
    """Load a saved model, with the cells to score if they are given."""
    if adata is not None:
        # The folder was read before. An error here concerns the cells.
        return ScRatio.load(path, adata)
    try:
        return ScRatio.load(path)
    except Exception as error:
        raise RefusedError(f"--model: {path} cannot be loaded: {message(error)}") from error


def _report(talk: Talk, paths: Paths, result: Result, coordinates: Mapping[str, Any] | None, start: float) -> None:
    """Write the figure and the summary of a result, and print its table."""
    if paths.plot is not None:
        from scratio.cli._plots import draw

        draw(result, coordinates, paths.plot)
    found = summary(result, source=paths.source, out=paths.out, seconds=time.monotonic() - start)
    if not talk.quiet:
        show(talk, found)
    if paths.json is not None:
        write_json(found, None if paths.json == STDOUT else paths.json, talk.stdout)
    written = [path for path in (paths.out, paths.plot, paths.json) if path is not None and path != STDOUT]
    talk.note(f"Wrote {', '.join(map(str, written))} in {found['seconds']:.1f} s")
