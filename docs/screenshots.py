"""Screenshots of ten pages, wide and narrow, and of two in the dark mode, for a look before a release.

    make docs docs-screenshots    # docs/_build/screenshots/<page>-<width>.png

It needs Chromium on the path. Nothing is fetched: a formula that shows here shows without a network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BUILD = Path(__file__).parent / "_build"
PAGES = [
    "index",
    "quickstart",
    "decisions",
    "theory",
    "benchmarks",
    "references",
    "tutorials/index",
    "tutorials/kang",
    "api/pl",
    "api/generated/scratio.tl.differential_abundance",
]
DARK = ["index", "api/generated/scratio.pl.embedding"]
WIDTHS = {1280: 2400, 420: 2400}
"""Widths of the window with its height, in pixels."""
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--virtual-time-budget=8000",
]


def take(chromium: str, page: str, width: int, target: Path, *options: str) -> None:
    """Write the screenshot of a page of the build."""
    with tempfile.TemporaryDirectory() as profile:
        window = [f"--user-data-dir={profile}", f"--window-size={width},{WIDTHS[width]}", f"--screenshot={target}"]
        address = (BUILD / "html" / f"{page}.html").as_uri()
        command = [chromium, *OPTIONS, *options, *window, address]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(target, flush=True)


def main() -> None:
    """Take them all."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no Chromium on the path")
    if missing := [page for page in {*PAGES, *DARK} if not (BUILD / "html" / f"{page}.html").exists()]:
        sys.exit(f"no such page in {BUILD / 'html'}: {missing}; run make docs first")
    folder = BUILD / "screenshots"
    folder.mkdir(exist_ok=True)
    dark = "--blink-settings=preferredColorScheme=0"
    for page in PAGES:
        for width in WIDTHS:
            take(chromium, page, width, folder / f"{page.replace('/', '-')}-{width}.png")
    for page in DARK:
        take(chromium, page, 1280, folder / f"{page.replace('/', '-')}-dark.png", dark)


if __name__ == "__main__":
    main()
