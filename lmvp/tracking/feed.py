"""The curves of a run, read from its local journals for a live view, without a server.

Needs numpy: import this module lazily. Points without a step get the key's greatest step + 1, as on the server.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from lmvp.core.columns import AttemptStart, Columns, Points
from lmvp.core.downsample import reduced
from lmvp.core.frame_parsing import parse
from lmvp.core.run_frames import AUTO, whole_size
from lmvp.tracking.destination import files_in
from lmvp.tracking.journal import read_file

ROOM = 4000
"""Number of points of a key in memory; a longer curve is downsampled to half of it."""
# Bytes of a journal that are read at once.
_PART = 4 << 20
SYSTEM = "system/"


class Feed:
    """The curves of a run, downsampled so that memory stays bounded however long the run is.

    Parameters
    ----------
    folder : Path
        The folder of the run's journals.

    Attributes
    ----------
    points : int
        The number of points that were read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._read: dict[Path, int] = {}
        self._names: dict[Path, dict[int, str]] = {}
        self._curves: dict[str, _Thinned] = {}
        self.points = 0

    def look(self) -> set[str]:
        """Read new frames; return the keys that have new points."""
        changed: set[str] = set()
        with self._lock:
            for path in files_in(self._folder):
                while new := self._part(path):
                    changed |= new
        return changed

    def _part(self, path: Path) -> set[str]:
        """Read the next part of a journal; return the keys of its points, or an empty name if it has no points."""
        start = self._read.get(path, 0)
        try:
            data = read_file(path, start, _PART)
        except OSError:  # the journal was delivered and deleted
            return set()
        size = whole_size(data)
        if not size:
            return set()
        self._read[path] = start + size
        frames = parse(memoryview(data)[:size])
        names = self._names.setdefault(path, {})
        names.update(frames.keys)
        # The empty name makes the result true, so that `look` continues while a part has frames.
        changed = {""}
        for part in frames.parts:
            if isinstance(part, AttemptStart):
                self._cut(part)
            else:
                changed |= self._add(part, names)
        return changed

    def _add(self, points: Points, names: dict[int, str]) -> set[str]:
        self.points += len(points)
        order = np.argsort(points.keys, kind="stable")
        keys, starts = np.unique(points.keys[order], return_index=True)
        for key, rows in zip(keys.tolist(), np.split(order, starts[1:]), strict=True):
            curve = self._curves.setdefault(names[key], _Thinned())
            curve.add(Columns(points.steps[rows], points.values[rows], points.times[rows]))
        return {names[key] for key in keys.tolist()}

    def _cut(self, epoch: AttemptStart) -> None:
        for key, curve in self._curves.items():
            if epoch.cut != AUTO and not key.startswith(SYSTEM):
                curve.cut(epoch.cut)

    def known(self) -> list[str]:
        """Return the keys in the order of their first points."""
        with self._lock:
            return list(self._curves)

    def curve(self, key: str) -> tuple[Columns, int]:
        """Return the curve of a key, sorted by step, and the number of points that it represents."""
        with self._lock:
            curve = self._curves[key]
            return curve.columns(), curve.count


class _Thinned:
    """A curve that is downsampled when it exceeds `ROOM`."""

    def __init__(self) -> None:
        self._parts: list[Columns] = []
        self._held = 0
        self._next = 0
        self.count = 0

    def add(self, points: Columns) -> None:
        steps = points.steps
        open_ = steps == AUTO
        if open_.all():
            steps = np.arange(self._next, self._next + len(steps), dtype=np.int64)
        elif open_.any():
            steps = np.array(_numbered(steps.tolist(), self._next), np.int64)
        self._next = max(self._next, int(steps.max()) + 1)
        self._parts.append(Columns(steps, points.values, points.times))
        self._held += len(points)
        self.count += len(points)
        if self._held > ROOM:
            self._keep(reduced(self.columns(), ROOM // 2))

    def cut(self, step: int) -> None:
        """Drop the points above a step."""
        whole = self.columns()
        below = whole.steps <= step
        self._keep(Columns(whole.steps[below], whole.values[below], whole.times[below]))
        self._next = int(whole.steps[below][-1]) + 1 if below.any() else 0

    def columns(self) -> Columns:
        """Return the points sorted by step. If a step has several points, keep the last."""
        if len(self._parts) == 1:
            return self._parts[0]
        whole = Columns.join(self._parts)
        order = np.argsort(whole.steps, kind="stable")
        last = np.ones(len(order), np.bool_)
        last[:-1] = whole.steps[order][1:] != whole.steps[order][:-1]
        rows = order[last]
        self._keep(Columns(whole.steps[rows], whole.values[rows], whole.times[rows]))
        return self._parts[0]

    def _keep(self, points: Columns) -> None:
        self._parts, self._held = [points], len(points)


def _numbered(steps: list[int], following: int) -> list[int]:
    numbers = []
    for step in steps:
        numbers.append(following if step == AUTO else step)
        following = max(following, numbers[-1] + 1)
    return numbers
