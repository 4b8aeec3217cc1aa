"""Series store with a folder for each run. numpy is imported when the first series is opened."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lmvp.core import files
from lmvp.core.files import disk_errors
from lmvp.errors import InvalidArgument, LmvpError
from lmvp_server.stores.base import Buffer, KeyState, SeriesState, SeriesStore

if TYPE_CHECKING:
    from lmvp.core.columns import Columns, ParsedFrames
    from lmvp_server.stores.local.series.reading import View
    from lmvp_server.stores.local.series.series import Series

_logger = logging.getLogger("lmvp_server")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WRITER = re.compile(r"[0-9a-f]{32}")
MEMORY = 64 << 20
"""Bytes of points that all series together hold in memory. Above it, the largest series is sealed."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds until failed work is retried: after the first failure, and at most. The delay doubles in between."""
QUIET = 60.0
"""Minimum seconds between two log lines about failed work."""
_LET_GO = 600.0  # seconds without use after which an idle series is closed
_ALIVE = "alive"


class FolderSeries(SeriesStore):
    """A `SeriesStore` in `<data>/series/<project>/<run>/`.

    Parameters
    ----------
    data : Path
        The data folder. One process owns it.
    clock : callable, default time.monotonic
        Returns the time in seconds. It times the retries.
    """

    def __init__(self, data: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures = _Failures(clock)
        self._root = data / "series"
        self._open: dict[tuple[str, str], Series] = {}
        self._opening: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()
        self._sealers: set[threading.Thread] = set()

    # -- one series

    def _folder(self, project: str, run: str | None = None) -> Path:
        home = self._root / _checked(project)
        return home if run is None else home / _checked(run)

    def _get(self, project: str, run: str) -> Series | None:
        """Return a series, or None if it does not exist."""
        if (project, run) in self._open or self._folder(project, run).is_dir():
            return self._series(project, run)
        return None

    def _series(self, project: str, run: str) -> Series:
        from lmvp_server.stores.local.series.series import Series

        place = project, run
        if (series := self._opened(place)) is not None:
            return series
        with self._lock:
            opening = self._opening.setdefault(place, threading.Lock())
        try:
            with opening:  # a lock for each series: while one long log is read, other series stay available
                if (series := self._opened(place)) is None:
                    series = Series(self._folder(project, run))
                    with self._lock:
                        self._open[place] = series
                return series
        finally:
            with self._lock:
                self._opening.pop(place, None)

    def _opened(self, place: tuple[str, str]) -> Series | None:
        with self._lock:
            series = self._open.get(place)
            return None if series is None or series.broken else series

    def _wait_for_opening(self, project: str, run: str | None) -> None:
        """Wait until no other thread is opening this series, or any series of the project if `run` is None."""
        with self._lock:
            opening = [lock for place, lock in self._opening.items() if place[0] == project and run in (None, place[1])]
        for lock in opening:
            with lock:
                pass

    def _view(self, project: str, run: str, key: str) -> View | None:
        series = self._get(project, run)
        return series.view(key) if series else None

    def append(
        self,
        project: str,
        run: str,
        writer: str,
        start: int,
        data: Buffer,
        shipment: ParsedFrames,
        *,
        alive: bool = True,
    ) -> int:
        """Apply frames, and start a seal in the background if the series has many unsealed points."""
        from lmvp_server.stores.local.series.series import RECOUNT_LIMIT, SEAL_AT

        if not _WRITER.fullmatch(writer):
            raise InvalidArgument(f"{writer[:80]!r} cannot be a writer: 32 hex digits")
        series = self._series(project, run)
        applied = series.append(writer, start, data, shipment) if len(data) else series.applied(writer)
        if alive:
            self.touch(project, run)
        if series.waiting >= SEAL_AT or series.recounted > RECOUNT_LIMIT:
            self._seal_soon(series)
        # The sum over all series is expensive, so only an append to a large series computes it.
        elif series.in_memory > MEMORY // 16:
            self._keep_within_memory()
        return applied

    def _keep_within_memory(self) -> None:
        series = list(self._open.values())
        if sum(each.in_memory for each in series) > MEMORY:
            ready = [each for each in series if not self._failures.delays(_seal_of(each))]
            if ready:
                self._seal_soon(max(ready, key=lambda each: each.in_memory))

    def _seal_soon(self, series: Series) -> None:
        self._soon(_seal_of(series), series.seal)

    def _soon(self, name: str, work: Callable[[], None]) -> None:
        """Run work in a background thread, unless it is running already or failed a short time ago."""
        with self._lock:
            self._sealers = {thread for thread in self._sealers if thread.is_alive()}
            if any(thread.name == name for thread in self._sealers) or self._failures.delays(name):
                return
            thread = threading.Thread(target=self._failures.attempt, args=[name, work], name=name, daemon=True)
            self._sealers.add(thread)
            thread.start()

    def applied(self, project: str, run: str, writer: str) -> int:
        """Return the number of applied bytes of a writer's journal."""
        series = self._get(project, run)
        return series.applied(writer) if series else 0

    def attempt(self, project: str, run: str, writer: str) -> int:
        """Return the attempt of the next points of a writer."""
        series = self._get(project, run)
        return series.attempt(writer) if series else 0

    def touch(self, project: str, run: str) -> None:
        """Set the modification time of a file."""
        path = self._folder(project, run) / _ALIVE
        with disk_errors(path.parent):
            try:
                os.utime(path, follow_symlinks=False)
            except FileNotFoundError:
                files.make_folder(path.parent)
                files.append(path).close()

    def touched(self, project: str, run: str) -> float:
        """Return the time of the last sign of life, in seconds since 1970; 0 without one.

        A list of runs calls this for each run, so it avoids the cost of a `Path`.
        """
        alive = f"{self._root}/{_checked(project)}/{_checked(run)}/{_ALIVE}"
        try:
            return os.stat(alive, follow_symlinks=False).st_mtime  # noqa: PTH116
        except FileNotFoundError:
            return 0.0

    def state(self, project: str, run: str) -> SeriesState | None:
        """Return the properties of a series, or None."""
        series = self._get(project, run)
        return series.state(self.touched(project, run)) if series else None

    def keys(self, project: str, run: str) -> list[KeyState]:
        """Return the state of each key."""
        series = self._get(project, run)
        return series.keys() if series else []

    def count(self, project: str, run: str, key: str, first: int | None = None, last: int | None = None) -> int:
        """Return an upper bound of the number of points: points that were replaced at their step are counted too."""
        view = self._view(project, run, key)
        return view.count(first, last) if view else 0

    def read(
        self, project: str, run: str, key: str, first: int | None = None, last: int | None = None
    ) -> Iterator[Columns]:
        """Yield all points of a key that count."""
        view = self._view(project, run, key)
        return view.read(first, last) if view else iter(())

    def sample(
        self, project: str, run: str, key: str, points: int, first: int | None = None, last: int | None = None
    ) -> Columns:
        """Return points that preserve the shape of the curve."""
        from lmvp.core.columns import Columns

        view = self._view(project, run, key)
        return view.sample(points, first, last) if view else Columns.empty()

    def since(
        self, project: str, run: str, cursor: int, keys: Sequence[str] | None = None, limit: int = 100_000
    ) -> tuple[int, dict[str, Columns]]:
        """Return the points that were received after `cursor`."""
        series = self._get(project, run)
        return series.since(cursor, keys, limit) if series else (0, {})

    def wait(self, project: str, run: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever points are received."""
        return self._series(project, run).watch(wake)

    # -- maintenance

    def settle(self, project: str, run: str) -> None:
        """Seal all points and merge segments that overlap."""
        series = self._get(project, run)
        if series is None:
            return
        series.seal()
        if series.tangled():
            series.merge()

    def settle_soon(self, project: str, run: str) -> None:
        """Settle a series in a background thread."""
        self._soon(f"settle {project}/{run}", lambda: self.settle(project, run))

    def tidy(self, go_on: Callable[[], bool]) -> None:
        """Merge segments that overlap, and close series that were not used for ten minutes."""
        for place, series in list(self._open.items()):
            if not go_on():
                return
            if series.tangled():
                series.merge()
            if time.monotonic() - series.used > _LET_GO and not series.watched:
                with self._lock:
                    self._open.pop(place, None)
                series.close()

    def projects(self) -> list[str]:
        """Return the ids of all projects that have a folder in this store."""
        return _names(self._root)

    def runs(self, project: str) -> list[str]:
        """Return the ids of all series of a project."""
        return _names(self._folder(project))

    def size(self, project: str, run: str) -> int:
        """Return the size of the files of a series in bytes."""
        folder = self._folder(project, run)
        return sum(path.lstat().st_size for path in folder.iterdir()) if folder.is_dir() else 0

    def verify(self, project: str, run: str) -> None:
        """Verify all files of a series."""
        series = self._get(project, run)
        if series:
            series.verify()

    def damage(self, project: str, run: str) -> list[str]:
        """Describe the damage that makes points unavailable."""
        series = self._get(project, run)
        return series.damage() if series else []

    def dump(self, project: str, run: str) -> Iterator[bytes]:
        """Yield a series as one stream."""
        from lmvp_server.stores.local.series.stream import dump

        series = self._get(project, run)
        return dump(series) if series else iter(())

    def load(self, project: str, run: str, pieces: Iterable[bytes]) -> None:
        """Replace a series with a stream of `dump`."""
        from lmvp_server.stores.local.series.stream import load

        with disk_errors(self._root):
            load(self._folder(project, run), pieces)
        # A thread that opened the series before the replacement would continue to serve the old files.
        self._wait_for_opening(project, run)
        with self._lock:
            self._open.pop((project, run), None)

    def mark_incomplete(self, project: str, run: str) -> None:
        """Mark a restored series as incomplete: create an empty log with the name of a damaged log.

        The log has number 0. A restored series was sealed before, so it has no other log with this number.
        """
        folder = self._folder(project, run)
        with disk_errors(self._root):
            files.make_folder(folder)
            files.append(folder / "0.wal.damaged").close()
        with self._lock:
            self._open.pop((project, run), None)

    def drop(self, project: str, run: str | None = None) -> int:
        """Delete the folder of a series or of a project. Return the bytes freed."""
        folder = self._folder(project, run)
        self._wait_for_opening(project, run)
        gone = [place for place in self._open if place[0] == project and run in (None, place[1])]
        for place in gone:
            with self._lock:
                series = self._open.pop(place, None)
            if series:
                series.close()
        if not folder.is_dir():
            return 0
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        with disk_errors(folder):
            shutil.rmtree(folder)
        return size

    def close(self) -> None:
        """Wait for seals in progress, then close all files."""
        for thread in list(self._sealers):
            with suppress(RuntimeError):  # a thread that has not started yet, or the current thread
                thread.join()
        for series in self._open.values():
            series.close()
        self._open.clear()


class _Failures:
    """Delays of failed work, doubled after each failure, with at most one log line per minute about all of it.

    While the disk is full, each append would try to seal the series again. No data is lost meanwhile, because the logs
    have the points.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: dict[str, tuple[float, float]] = {}  # for each name: the delay and the time of the next attempt
        self._count, self._logged_at = 0, float("-inf")
        self._lock = threading.Lock()

    def delays(self, name: str) -> bool:
        """Whether work must wait because it failed a short time ago."""
        with self._lock:
            return self._clock() < self._waiting.get(name, (0.0, float("-inf")))[1]

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """Run work and record whether it fails."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread cannot raise to a caller
            self._add(name, error)
        else:
            with self._lock:
                self._waiting.pop(name, None)

    def _add(self, name: str, error: Exception) -> None:
        with self._lock:
            now = self._clock()
            delay = min(LONGEST_DELAY, 2 * self._waiting.get(name, (FIRST_DELAY / 2, 0.0))[0])
            self._waiting[name] = delay, now + delay
            self._count += 1
            if now - self._logged_at < QUIET:
                return
            count, self._count, self._logged_at = self._count, 0, now
        is_fault = not isinstance(error, (LmvpError, OSError))  # a full disk needs no traceback
        _logger.error(
            "could not %s (%d failures since the last line like this one), next attempt in %g s: %s",
            name, count, delay, error, exc_info=error if is_fault else None,
        )  # fmt: skip


def _seal_of(series: Series) -> str:
    return f"seal {series.folder}"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _checked(part: str) -> str:
    if not _ID.fullmatch(part):
        raise InvalidArgument(f"{part[:80]!r} cannot be the id of a project or a run")
    return part
