"""Processes that are measured one by one: seconds, CPU seconds and peak memory, within limits of time and memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FINISHED, TOO_SLOW, TOO_LARGE, FAILED = "finished", "not finished within the limit", "out of memory", "failed"
"""What becomes of a process."""
INTERVAL, STATUS, KILL = 0.05, "/proc/{}/status", 9
"""Seconds between two looks at the memory of a process; where Linux tells it; number of the signal that ends one."""


@dataclass(frozen=True)
class Limits:
    """Seconds on the wall and GiB of memory after which a process is ended."""

    seconds: float
    gibibytes: float


def peak_gigabytes(number: int | None = None) -> float:
    """Peak memory in GiB of a process, libraries included; of this one by default.

    Parameters
    ----------
    number
        Number of a running process. On macOS its present memory is told, as there is no peak of other processes.
    """
    status = Path(STATUS.format(number or "self"))
    if status.exists():
        # Linux's `ru_maxrss` starts with the memory of the process that started this one.
        lines = status.read_text(encoding="utf-8").splitlines()
        kibibytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return float(kibibytes[0]) / 2**20 if kibibytes else 0.0
    if number is None and sys.platform != "win32":
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
    import psutil  # comes with dask's distributed

    memory = psutil.Process(number).memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 2**30


def watched(command: Sequence[Any], limits: Limits, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command, and end it with all that it started if it takes too long or too much memory.

    Parameters
    ----------
    command
        Program and arguments.
    limits
        Limits of the process.
    environment
        Variables of the environment; by default those of this process.

    Returns
    -------
    ``outcome`` (one of the words above), ``seconds``, ``cpu_seconds``, ``peak_gib``, and ``said``, the last line of the
    console. The peak memory is that of the process alone. Processes that it starts are not counted.
    """
    start, processor = time.perf_counter(), sum(os.times()[2:4])
    peak, outcome = 0.0, ""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as console:
        process = subprocess.Popen(
            list(map(str, command)), stdout=console, stderr=console, env=environment, start_new_session=True
        )
        _first_to_end(process.pid)
        while process.poll() is None:
            # The process may end between two lines.
            with contextlib.suppress(OSError, ProcessLookupError):
                peak = max(peak, peak_gigabytes(process.pid))
            if time.perf_counter() - start > limits.seconds:
                outcome = TOO_SLOW
            elif peak > limits.gibibytes:
                outcome = TOO_LARGE
            if outcome:
                _end(process)
                break
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - start
        console.seek(0)
        said = console.read().strip().splitlines()[-1:] or [""]
    if not outcome:
        # The system ends what takes the last of its memory by this signal.
        ended = TOO_LARGE if process.returncode == -KILL else FAILED
        outcome = ended if process.returncode else FINISHED
    spent = {"seconds": seconds, "cpu_seconds": sum(os.times()[2:4]) - processor, "peak_gib": peak}
    return {"outcome": outcome, **spent, "said": said[0]}


def _first_to_end(number: int) -> None:
    """Have Linux end this process, and no other one, if the memory of the machine is used up."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{number}/oom_score_adj").write_text("1000", encoding="utf-8")


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it has started, where the system tells which these are."""
    end_group = getattr(os, "killpg", None)  # not on Windows
    if end_group is None:
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            end_group(process.pid, KILL)
    process.wait()
