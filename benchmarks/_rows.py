"""Benchmarks that write row by row, so that a stopped run keeps its rows: options, clock and files."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from _methods import merged

FOLDER = Path(os.environ.get("SCRATIO_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def parsed(
    description: str | None, results: Path, quick: dict[str, Sequence[Any]], **choices: Sequence[Any] | str | float
) -> argparse.Namespace:
    """Options of the command line: ``--quick``, ``--again``, ``--results``, and a list for each of the ``choices``.

    Parameters
    ----------
    description
        Help.
    results
        Folder of the results. A quick run writes nothing unless ``--results`` names a folder.
    quick
        Defaults of further options in a quick run, where they are others.
    **choices
        Defaults of further options, each a list; options of words take these words alone. A string is the help of an
        option that takes one word and is None by default. A number is the default of an option that takes one number.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure again what the file has, where rows are skipped")
    parser.add_argument("--results", type=Path, help=f"folder of the results; by default {results}")
    for name in [name for name, default in choices.items() if isinstance(default, str)]:
        parser.add_argument(f"--{name}", help=choices.pop(name))
    for name in [name for name, default in choices.items() if isinstance(default, int | float)]:
        default = choices.pop(name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    for name, default in choices.items():
        words = default if isinstance(default[0], str) else None
        parser.add_argument(f"--{name}", nargs="+", type=type(default[0]), choices=words)
    options = parser.parse_args()
    for name, default in choices.items():
        if getattr(options, name) is None:
            setattr(options, name, list(quick.get(name, default) if options.quick else default))
    options.results = options.results or (None if options.quick else results)
    return options


class Clock:
    """Seconds on the wall and of the processor since it was made, those of child processes included."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), _processor_seconds()

    def read(self) -> dict[str, float]:
        """``seconds`` and ``cpu_seconds``."""
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": _processor_seconds() - self._processor,
        }


def _processor_seconds() -> float:
    # Those of children have a resolution of a hundredth of a second.
    return time.process_time() + sum(os.times()[2:4])


@contextmanager
def noted() -> Iterator[list[str]]:
    """Keep warnings from the console, and list what they say."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield said
    said += sorted({str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)})


class Rows:
    """Rows of a CSV file, each printed and written as soon as it is measured.

    Parameters
    ----------
    folder
        Folder of the file; None to print alone.
    name
        Name of the file.
    keys
        Columns that tell one measurement from another; a row that is measured again replaces the earlier one.
    """

    def __init__(self, folder: Path | None, name: str, keys: Sequence[str]) -> None:
        self.folder, self.name, self.keys = folder, name, list(keys)
        self.rows: list[dict[str, Any]] = []

    def known(self) -> set[tuple[Any, ...]]:
        """Keys of the rows that the file has."""
        if self.folder is None or not (self.folder / self.name).exists():
            return set()
        return set(pd.read_csv(self.folder / self.name)[self.keys].itertuples(index=False, name=None))

    def add(self, **row: Any) -> None:
        """Print a row, and write it."""
        has_header = not self.rows or list(self.rows[-1]) != list(row)
        self.rows.append(row)
        print(pd.DataFrame([row]).round(4).to_string(index=False, header=has_header), flush=True)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            merged(self.folder / self.name, [row], self.keys)


def has_data(name: str, purpose: str) -> bool:
    """Whether a file of real cells is there; says so if it is not."""
    if (FOLDER / name).exists():
        return True
    print(f"{purpose} is left out: {FOLDER / name} not found; set SCRATIO_DATA to the folder that holds it", flush=True)
    return False
