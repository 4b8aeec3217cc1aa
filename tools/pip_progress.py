"""Run `pip install` and show its progress: `python tools/pip_progress.py ARGUMENTS`.

pip prints either nothing (`--quiet`) or hundreds of lines. This script shows one line: on a terminal, the line is
updated; otherwise a line is printed every few seconds. If pip fails, its complete output follows.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

EVERY = 10.0
"""Seconds between two lines if the output is not a terminal."""
_STEP = re.compile(
    r"\s*(Collecting|Downloading|Installing build dependencies|Building|Installing collected packages)\b"
)
_WIDTH = 78


class Progress:
    """The progress line."""

    def __init__(self, what: str) -> None:
        self._what, self._begun = what, time.monotonic()
        self._told = self._begun
        self._packages: set[str] = set()
        self._step = ""
        self._terminal = sys.stdout.isatty()
        self._show("starting", first=True)

    def take(self, line: str) -> None:
        """Process a line of pip's output."""
        step = _STEP.match(line)
        if step is None:
            return
        words = line.split()
        if step[1] == "Collecting":
            self._packages.add(words[1])
            self._show(f"{len(self._packages)} packages found")
        elif step[1] == "Installing collected packages":
            self._show(f"installing {line.count(',') + 1} packages", first=True)
        else:
            self._show(f"{step[1].lower()} {words[1].rpartition('/')[2] if len(words) > 1 else ''}")

    def tick(self) -> None:
        """Show the elapsed time, because pip can install for minutes without output."""
        self._show(self._step)

    def end(self, code: int) -> None:
        """Show the final state."""
        self._show("failed" if code else "done", first=True)
        if self._terminal:
            print(flush=True)

    def _show(self, step: str, *, first: bool = False) -> None:
        at, self._step = time.monotonic(), step
        text = f"{self._what}: {step}, {at - self._begun:.0f} s"
        if self._terminal:
            print(f"\r{text[:_WIDTH]:<{_WIDTH}}", end="", flush=True)
        elif first or at - self._told >= EVERY:
            self._told = at
            print(text, flush=True)


def _next(output: queue.Queue[str | None]) -> str | None:
    """Return the next line; empty after a second without a line, None at the end."""
    try:
        return output.get(timeout=1.0)
    except queue.Empty:
        return ""


def main(arguments: Sequence[str]) -> int:
    """Run pip; return its exit code."""
    what = " ".join(each for each in arguments if not each.startswith("-") and not each.endswith(".txt"))
    progress, lines = Progress(f"pip install {what}"), []
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        output: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=lambda: [*map(output.put, pip.stdout or ()), output.put(None)], daemon=True).start()
        while (line := _next(output)) is not None:
            if line:
                lines.append(line)
                progress.take(line)
            else:
                progress.tick()
    progress.end(pip.returncode)
    if pip.returncode:
        print("".join(lines), end="", file=sys.stderr)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
