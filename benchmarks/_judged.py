"""Tasks with a known answer that scratio is judged by; SCRATIO_BENCH is the folder of their module ``tasks.py``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from _rows import FOLDER

BENCH = Path(os.environ.get("SCRATIO_BENCH", FOLDER.parent / "bench"))


def has_tasks(name: str) -> bool:
    """Whether the module of the tasks is there; says which task is left out if it is not."""
    if (BENCH / "tasks.py").exists():
        return True
    print(f"{name} is left out: {BENCH / 'tasks.py'} not found; set SCRATIO_BENCH to the folder that holds it")
    return False


def tasks() -> ModuleType:
    """Import the module of the tasks; its ``make(name, seed)`` draws one."""
    if str(BENCH) not in sys.path:
        sys.path.append(str(BENCH))
    return importlib.import_module("tasks")
