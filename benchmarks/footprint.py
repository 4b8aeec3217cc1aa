"""Time and memory of importing, starting and idling."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.measure import Row, at_most, seconds
from lmvp import local

ROUNDS = 9


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    bare = [seconds(lambda: _python("pass")) for _ in range(ROUNDS)]
    loaded = [seconds(lambda: _python("import lmvp")) for _ in range(ROUNDS)]
    starts, idle = zip(*(_start() for _ in range(ROUNDS)), strict=True)
    return [
        at_most("import lmvp", 1000 * (statistics.median(loaded) - statistics.median(bare)), "ms", 100),
        at_most("start of the server", statistics.median(starts), "s", 0.5, "until it answers"),
        at_most("idle server", statistics.median(idle), "MB", 60),
    ]


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def _start() -> tuple[float, float]:
    home = Path(tempfile.mkdtemp())
    try:
        took = seconds(lambda: local.find_or_start(home))
        found = local.find(home)
        assert found is not None
        memory = psutil.Process(found.pid).memory_info().rss / 1e6
        return took, memory
    finally:
        local.stop(home)
        shutil.rmtree(home)
