"""Versions and devices of this installation, for reports of bugs."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

OPTIONAL = ("dask", "pooch", "rdata", "igraph", "leidenalg", "mudata", "numba")
"""Packages that scratio or scanpy use if they are installed."""


def show_versions() -> None:
    """Print the versions of scratio, Python and the packages it uses, the operating system and the accelerators.

    Paste the output into a report of a bug.

    Examples
    --------
    >>> import scratio
    >>> scratio.show_versions()  # doctest: +ELLIPSIS
    scratio ...
    """
    found = {**_versions(), **_machine()}
    width = max(len(name) for name in found)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in found.items()))


def _versions() -> dict[str, str]:
    """Versions of scratio and the packages it depends on."""
    needed = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in requires("scratio") or [] if "extra ==" not in text]
    found = {"scratio": version("scratio"), "python": platform.python_version()}
    for name in (*sorted(needed), *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name in needed:
                found[name] = "not installed"
    return found


def _machine() -> dict[str, str]:
    """Operating system, processor and accelerators."""
    # Seconds to import, which `import scratio` has no need of.
    import torch

    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    gpus += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
    return {
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {torch.get_num_threads()} threads of PyTorch",
        "accelerators": ", ".join(gpus) or "none",
    }
