"""Input and output files of a command, checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scratio._atomic import check_replaceable, discard, temporary
from scratio.cli._session import RefusedError

STDOUT = Path("-")
ZARR_FILES = ("zarr.json", ".zgroup")
"""Files that mark a folder as a zarr store."""
PLOT_SUFFIXES = (".pdf", ".png", ".svg")


@dataclass(frozen=True)
class Paths:
    """Input and outputs of a command.

    Parameters
    ----------
    source, out
        Input and result.
    plot, json
        Figure and summary, if asked for.
    force
        Whether files that exist may be replaced.
    """

    source: Path
    out: Path
    plot: Path | None
    json: Path | None
    force: bool

    def check(self, *, copies_source: bool) -> None:
        """Raise an error for files that cannot be read or written.

        Parameters
        ----------
        copies_source
            Whether the result holds everything of the input, so that it may replace the input.

        Raises
        ------
        RefusedError
            If the input is missing, or an output has an unknown suffix, has no folder, or would replace a file
            although ``--force`` was not given.
        """
        _check_source(self.source)
        if self.out.suffix != ".h5ad":
            raise RefusedError(f"--out must name an .h5ad file, got {str(self.out)!r}")
        if self.plot is not None and self.plot.suffix.lower() not in PLOT_SUFFIXES:
            raise RefusedError(f"--plot must end in {', '.join(PLOT_SUFFIXES)}, got {str(self.plot)!r}")
        written = {"--out": self.out, "--plot": self.plot, "--json": None if self.json == STDOUT else self.json}
        outputs = {option: path for option, path in written.items() if path is not None}
        # One spelling on every system: macOS and Windows take names that differ in case alone for one name.
        if len({str(path.resolve()).casefold() for path in outputs.values()}) < len(outputs):
            raise RefusedError(
                f"{', '.join(outputs)} must be different files, and not only in upper and lower case, which macOS and "
                "Windows do not tell apart"
            )
        for option, path in outputs.items():
            self._check_output(option, path, may_be_source=copies_source and option == "--out")

    def _check_output(self, option: str, path: Path, *, may_be_source: bool) -> None:
        if not path.parent.is_dir():
            raise RefusedError(f"{option}: there is no folder {path.parent}; create it first")
        if path.is_dir():
            raise RefusedError(f"{option}: {path} is a folder; name a file in it")
        if not _can_write(path.parent):
            raise RefusedError(f"{option}: no permission to write into the folder {path.parent}")
        if path.exists() and path.samefile(self.source):
            if not may_be_source:
                raise RefusedError(
                    f"{option}: {path} is INPUT, and the result does not hold everything that INPUT does"
                )
            if not self.force:
                raise RefusedError(f"{option}: {path} is INPUT; pass --force to add the results to it")
        if path.exists() and not self.force:
            raise RefusedError(f"{option}: {path} exists; pass --force to replace it, or choose another name")
        if path.exists():
            try:
                check_replaceable(path)
            except PermissionError as error:
                raise RefusedError(f"{option}: {error}") from error


def _can_write(folder: Path) -> bool:
    """Whether a file can be made in a folder, by making one: Windows and network drives do not say beforehand."""
    probe = folder / f"{temporary('probe')}.partial"
    try:
        probe.touch(exist_ok=False)
    except OSError:
        return False
    discard(probe)
    return True


def _check_source(path: Path) -> None:
    if path.is_dir():
        if path.suffix != ".zarr" and not any((path / name).exists() for name in ZARR_FILES):
            raise RefusedError(f"INPUT: {path} is a folder; an .h5ad file is needed")
        file = path.with_suffix(".h5ad")
        file = file.with_stem(f"{file.stem}-from-zarr") if file.exists() else file
        how = f"anndata.read_zarr({str(path)!r}).write_h5ad({str(file)!r})"
        raise RefusedError(f"INPUT: {path} is a zarr store; an .h5ad file is needed: write it with {how}")
    if not path.exists():
        raise RefusedError(f"INPUT: there is no file {path}")
    try:
        path.open("rb").close()
    except PermissionError as error:
        raise RefusedError(f"INPUT: no permission to read {path}, or another program keeps it for itself") from error
