"""The series of one run: recent points in memory and in a write-ahead log, older points in sealed segments."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from lmvp.core import files
from lmvp.core.columns import (
    AttemptStart,
    Columns,
    ParsedFrames,
    Points,
)
from lmvp.core.files import disk_errors, make_folder, sync_folder
from lmvp.core.frame_parsing import parse
from lmvp.core.framing import LogReader
from lmvp.core.run_frames import AUTO, Buffer
from lmvp.errors import IntegrityError, InvalidRequest
from lmvp_server.process import cancellation
from lmvp_server.stores.base import CursorLost, Gap, KeyState, SeriesState
from lmvp_server.stores.local.journal import AppendFile
from lmvp_server.stores.local.series import seal_state, wal
from lmvp_server.stores.local.series.columns import (
    Cuts,
    Table,
    kept,
    settled,
)
from lmvp_server.stores.local.series.reading import View, has_dropped, overlap
from lmvp_server.stores.local.series.seal_state import Saved, Writer
from lmvp_server.stores.local.series.segment import Segment, write_segment
from lmvp_server.stores.local.series.stats import ROW, Stats, numbered

_logger = logging.getLogger("lmvp_server")
_SMALL = 5_000  # points below which selecting a key from a table needs no sorted index
SEAL_AT = 1_000_000
"""Points in memory at which the series is sealed."""

CUTS_LIMIT = 10_000
"""The maximum number of cuts of a run that are not redundant."""

KEYS_LIMIT = 100_000
"""The maximum number of keys of a run, and of keys that one writer defines."""

NAMES_LIMIT = 16 << 20
"""The maximum number of characters of all keys of a run together."""

RECOUNT_LIMIT = 20_000_000
"""Points that one request can make the server count again after a cut, if it does so more than `RECOUNTS_FREE` times;
about 3 s of work. When a series has recounted this many points, it is sealed, so that opening it does not repeat the
work."""

RECOUNTS_FREE = 16
"""The number of recounts that one request can cause regardless of the number of points."""

SET_ASIDE = "a backup may have the points; the damaged file stays until you delete it"
"""The hint of errors about a damaged log."""

SYSTEM = "system/"
"""The prefix of system keys. Their steps are independent of the training steps, so cuts do not apply to them."""


class Series:
    """All points of one run.

    Parameters
    ----------
    folder : Path
        The folder of the series. The first append creates it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used = time.monotonic()
        # `_lock` guards the state in memory; `_sealing` serialises seals and merges. Take `_sealing` before `_lock`.
        self._lock = threading.RLock()
        self._sealing = threading.Lock()
        self._wakes: dict[object, Callable[[], None]] = {}
        self._log: AppendFile | None = None
        self._frozen: list[Table] = []
        self._tail: list[Table] = []
        self._damaged: dict[int, str] = {}
        self._load(seal_state.load(folder))
        self._replay()

    # -- files

    def _load(self, state: Saved) -> None:
        self._writers = state.writers
        self._names = state.keys
        self._numbers = {name: number for number, name in enumerate(state.keys)}
        self._names_length = sum(map(len, state.keys))
        self._spared = np.array([name.startswith(SYSTEM) for name in state.keys], np.bool_)
        self._stats = Stats(np.frombuffer(state.stats, ROW).copy())
        self._cuts = Cuts(state.cuts)
        self._segments = [Segment(self.folder / f"{number}.segment") for number in state.segments]
        self._generation, self._epoch = state.generation, state.epoch
        self._points, self._cut_at = state.points, state.cut_at
        self._base = state.points

    def _state(self, generation: int) -> Saved:
        return Saved(
            generation=generation,
            segments=[int(segment.path.stem) for segment in self._segments],
            writers={name: Writer(each.applied, each.epoch, dict(each.keys)) for name, each in self._writers.items()},
            keys=list(self._names),
            stats=self._stats.rows.tobytes(),
            cuts=self._cuts.pairs(),
            epoch=self._epoch,
            points=self._points,
            cut_at=self._cut_at,
        )

    def _replay(self) -> None:
        """Apply the points of the logs that are not sealed.

        A damaged log keeps its content and its name. Its sound records are applied, and new points go to the next
        generation. An incomplete record at the end is cut off when the next record is written.
        """
        if not self.folder.is_dir():
            return
        for generation in wal.generations(self.folder, damaged=True):
            log = wal.read_log(wal.damaged_path(self.folder, generation)).read()
            self._damaged[generation] = str(log.gaps[0]) if log.gaps else "set aside as damaged"
        for generation in wal.generations(self.folder):
            log = wal.read_log(wal.wal_path(self.folder, generation))
            if generation >= self._generation:
                if self._torn:  # a seal cuts an incomplete record before the next log begins
                    self._damaged.setdefault(self._generation, f"damaged at byte {self._whole:,}: another log follows")
                self._generation = generation
                self._replay_log(generation, log)
                self._whole, self._torn = log.end, log.end < len(log.data)
            elif log.read().gaps:
                self._damaged[generation] = str(log.gaps[0])
                self._retire(generation)
            else:  # a crash between the seal and the deletion of the log left it
                self._retire(generation)
        for generation in wal.missing(self.folder):
            self._damaged[generation] = "is missing"
            self._generation = max(self._generation, generation)
        if self._generation in self._damaged:
            self._generation, self._whole, self._torn = self._generation + 1, 0, False
        for problem in self.damage():
            _logger.error("%s", self.folder / problem)

    def _replay_log(self, generation: int, log: LogReader) -> None:
        """Apply the sound records of a log."""
        for payload, _ in log:
            cancellation.check()
            writer, start, frames = wal.unpacked(payload)
            applied = self.applied(writer)
            if start > applied:
                # An earlier record was lost, because the writer's journal does not continue at the applied offset.
                self._damaged.setdefault(generation, f"lacks what a writer sent from byte {applied:,} of its journal")
                self._apply_behind_gap(writer, parse(frames))
            elif start + len(frames) > applied:  # skip what was applied; a repeated request can contain new frames too
                self._apply(writer, start + len(frames), parse(frames[applied - start :]))
        if log.gaps:
            self._damaged[generation] = str(log.gaps[0])

    def _apply_behind_gap(self, writer: str, shipment: ParsedFrames) -> None:
        """Apply the points of a sound record that follows a lost record.

        Skip points whose key may have been defined in the lost record, and points that need an automatic step. The
        applied offset of the writer does not change, so a writer that still has its journal sends the points again.
        """
        of = self._writers.setdefault(writer, Writer(keys={}))
        applied, epoch = of.applied, of.epoch
        keys = np.array([*of.keys, *shipment.keys], np.int64)
        parts: list[Points | AttemptStart] = []
        for part in shipment.parts:
            if isinstance(part, Points):
                rows = np.isin(part.keys, keys) & (part.steps != AUTO)
                part = Points(part.keys[rows], part.steps[rows], part.values[rows], part.times[rows])
                if not len(part.keys):
                    continue
            parts.append(part)
        self._apply(writer, applied, ParsedFrames(keys=shipment.keys, parts=parts))
        of.epoch = epoch

    def _retire(self, generation: int) -> None:
        """Delete a log whose points are sealed. Rename it instead if it is damaged."""
        path = wal.wal_path(self.folder, generation)
        wal.begun_path(self.folder, generation).unlink(missing_ok=True)  # first, or a crash makes the log seem lost
        if generation in self._damaged:
            path.rename(wal.damaged_path(self.folder, generation))
        else:
            path.unlink()

    def damage(self) -> list[str]:
        """Implement `SeriesStore.damage`."""
        with self._lock:
            return [self._damage_of(generation, what) for generation, what in sorted(self._damaged.items())]

    def _damage_of(self, generation: int, what: str) -> str:
        path = wal.damaged_path(self.folder, generation)
        name = path.name if path.exists() else wal.wal_path(self.folder, generation).name
        return f"{name} is {what}" if what.startswith(("damaged", "set")) else f"{name} {what}"

    def _open_log(self) -> AppendFile:
        if self._log is None:
            with disk_errors(self.folder):
                make_folder(self.folder, sync=True)
                path = wal.wal_path(self.folder, self._generation)
                size = self._whole if path.exists() else 0
                self._log = wal.open_wal(self.folder, self._generation, size)
                self._torn = False
                # A log that is deleted by accident leaves this marker, so its loss is detected.
                files.append(wal.begun_path(self.folder, self._generation)).close()
                sync_folder(self.folder)  # before the first record is acknowledged
        return self._log

    _whole = 0
    _torn = False

    # -- receiving points

    def append(self, writer: str, start: int, data: Buffer, shipment: ParsedFrames) -> int:
        """Implement `SeriesStore.append`."""
        with self._lock:
            self.used = time.monotonic()
            applied = self.applied(writer)
            if start > applied:
                raise Gap(applied)
            if start + len(data) <= applied:
                return applied
            # A repeated request: skip the part that was applied.
            if start < applied:
                data = memoryview(data)[applied - start :]
                start, shipment = applied, parse(data)
            self._check(writer, shipment)
            # Durable before visible: a point that was read cannot disappear in a crash.
            self._write(wal.packed(writer, start, data))
            self._apply(writer, start + len(data), shipment)
            applied = start + len(data)
        # Without the lock: a callback can call this series again.
        for wake in list(self._wakes.values()):
            wake()
        return applied

    def _check(self, writer: str, shipment: ParsedFrames) -> None:
        """Reject a request with unknown keys, or one that exceeds the limits of a run, before anything is written."""
        known = self._writers.get(writer, Writer()).keys
        if shipment.keys:
            self._check_keys(known, shipment.keys)
        if any(isinstance(part, AttemptStart) for part in shipment.parts):
            self._check_cuts(shipment.parts)
        for part in shipment.parts:
            if isinstance(part, Points):
                for key in np.unique(part.keys).tolist():
                    if key not in known and key not in shipment.keys:
                        raise InvalidRequest(f"a point of key {key}, which this writer has not named before")

    def _check_keys(self, known: dict[int, int], named: dict[int, str]) -> None:
        fresh = {name for name in named.values() if name not in self._numbers}
        keys = max(len(self._names) + len(fresh), len(known) + sum(local not in known for local in named))
        if keys > KEYS_LIMIT:
            raise InvalidRequest(
                f"the run would have {keys:,} metrics; the limit is {KEYS_LIMIT:,}",
                hint="log fewer names: a number that counts something belongs into the step, not into the name",
            )
        length = self._names_length + sum(map(len, fresh))
        if fresh and length > NAMES_LIMIT:
            raise InvalidRequest(
                f"the names of the run's metrics would have {length:,} characters; the limit is {NAMES_LIMIT:,}",
                hint="log fewer or shorter names",
            )

    def _check_cuts(self, parts: Sequence[Points | AttemptStart]) -> None:
        # Simulate the cuts and count the recounts that they cause; see `_cut`.
        cuts, recounts, is_cut, points = self._cuts.copy(), 0, False, self._held
        for part in parts:
            if isinstance(part, Points):
                points += len(part)
                if is_cut and (part.steps == AUTO).any():
                    recounts, is_cut = recounts + 1, False
            elif part.cut != AUTO:
                cuts.add(part.epoch, part.cut)
                is_cut = True
        if len(cuts) > max(CUTS_LIMIT, len(self._cuts)):
            raise InvalidRequest(
                f"the run would have {len(cuts):,} attempts that each cut others; the limit is {CUTS_LIMIT:,}",
                hint="begin a new run",
            )
        if recounts > RECOUNTS_FREE and recounts * points > RECOUNT_LIMIT:
            raise InvalidRequest(
                f"{recounts:,} attempts with points without a step, in one request to a run of {points:,} points; "
                f"the limit is {max(RECOUNTS_FREE, RECOUNT_LIMIT // points):,}",
                hint="send fewer frames at once, or log with a step",
            )

    @property
    def _held(self) -> int:
        """The number of points in memory and in segments. A recount reads all of them."""
        loose = sum(len(table) for table in (*self._frozen, *self._tail))
        return loose + sum(int(segment.starts[-1]) for segment in self._segments)

    def _write(self, record: bytes) -> None:
        log = self._open_log()
        with disk_errors(self.folder):
            before = log.size
            log.append(record)
            try:
                log.sync()
            except OSError:  # the log is in an unknown state: the next request loads the series from disk again
                log.cut(before)
                log.broken = True
                raise

    @property
    def broken(self) -> bool:
        """Whether the content of the log is unknown. The series must then be loaded from disk again."""
        return self._log is not None and self._log.broken

    def _apply(self, writer: str, applied: int, shipment: ParsedFrames) -> None:
        of = self._writers.setdefault(writer, Writer(keys={}))
        for local, name in shipment.keys.items():
            of.keys[local] = self._number(name)
        self._make_room()
        for part in shipment.parts:
            if isinstance(part, AttemptStart):
                self._begin(of, part)
            else:
                self._take_in(of, part)
        of.applied = applied

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
            self._names_length += len(name)
        return self._numbers[name]

    def _make_room(self) -> None:
        """Extend `_stats` and `_spared` to all keys."""
        fresh = self._names[len(self._spared) :]
        if fresh:
            spared = np.array([name.startswith(SYSTEM) for name in fresh], np.bool_)
            self._spared = np.concatenate([self._spared, spared])
        self._stats.make_room(len(self._names))

    def _begin(self, writer: Writer, epoch: AttemptStart) -> None:
        writer.epoch = epoch.epoch
        self._epoch = max(self._epoch, epoch.epoch)
        if epoch.cut != AUTO:
            self._cut(epoch.epoch, epoch.cut)

    def _take_in(self, writer: Writer, points: Points) -> None:
        keys = _translated(points.keys, writer.keys)
        # Automatic steps depend on the statistics, which must not include points that were cut.
        if self._stale and (points.steps == AUTO).any():
            self._recount()
        steps = numbered(keys, points.steps, self._stats)
        epochs = np.full(len(keys), writer.epoch, np.int64)
        table = kept(Table(keys, steps, points.values, points.times, epochs), self._cuts, self._spared)
        if not self._stale:
            self._stats.add(table)
        self._points += len(table)
        while self._tail and len(self._tail[-1]) <= 2 * len(table):  # few tables, few copies of each point
            table = Table.join([self._tail.pop(), table])
        self._tail.append(table)

    def _cut(self, epoch: int, step: int) -> None:
        """Add a cut: points of older attempts above the step no longer count.

        The points are not dropped here. `_recount` drops them once for all cuts, when someone reads the series or logs
        a point without a step.
        """
        self._cut_at = self._points + 1
        if not self._cuts.add(epoch, step):
            return
        self._cuts_added += 1
        if not self._stale:
            self._stale = bool(((self._stats.rows["step"] > step) & ~self._spared).any())

    _cuts_added = 0
    """The number of cuts that were not redundant since the series was opened."""

    _stale = False
    """Whether a cut can have dropped points since `_stats` was computed."""

    recounted = 0
    """The number of points that were recounted since the last seal."""

    def _recount(self) -> None:
        """Drop points to which a cut applies, and compute the statistics of all keys again."""
        if not self._stale:
            return
        self.recounted += self._held
        self._tail = [kept(Table.join(self._tail), self._cuts, self._spared)] if self._tail else []
        self._frozen = [kept(table, self._cuts, self._spared) for table in self._frozen]
        self._stats.forget()
        for segment in self._segments:
            for page in segment.rows(0, int(segment.starts[-1])):
                self._stats.add(kept(page, self._cuts, self._spared))
        for table in [*self._frozen, *self._tail]:
            self._stats.add(table)
        self._stale = False

    # -- state

    def applied(self, writer: str) -> int:
        """Implement `SeriesStore.applied`."""
        with self._lock:
            return self._writers[writer].applied if writer in self._writers else 0

    def attempt(self, writer: str) -> int:
        """Implement `SeriesStore.attempt`."""
        with self._lock:
            return self._writers[writer].epoch if writer in self._writers else 0

    def state(self, touched: float) -> SeriesState:
        """Implement `SeriesStore.state`."""
        with self._lock:
            return SeriesState(self._points, len(self._names), self._epoch, touched)

    def keys(self) -> list[KeyState]:
        """Implement `SeriesStore.keys`."""
        with self._lock:
            self._recount()
            # Clients poll the keys; build the list only if something changed.
            at, known = self._known
            if at == (self._points, len(self._names), self._cut_at):
                return known
            rows, names = self._stats.rows.copy(), list(self._names)
            at = self._points, len(names), self._cut_at
        columns = [rows[name].tolist() for name in ("count", "first", "step", "value", "time", "low", "high")]
        known = [KeyState(name, *row) for name, *row in zip(names, *columns, strict=True) if row[0]]
        self._known = at, known
        return known

    _known: tuple[tuple[int, int, int], list[KeyState]] = (-1, -1, -1), []

    @property
    def in_memory(self) -> int:
        """The size of the unsealed points in bytes."""
        return sum(table.nbytes for table in self._tail)

    @property
    def waiting(self) -> int:
        """The number of unsealed points."""
        return sum(len(table) for table in self._tail)

    # -- reading

    def view(self, key: str) -> View | None:
        """Return a snapshot of a key that can be read without the lock, or None if the key does not exist."""
        with self._lock:
            self.used = time.monotonic()
            number = self._numbers.get(key)
            if number is None:
                return None
            self._recount()
            # Join the tables, so that `_of_key` sorts one table once for many keys.
            self._tail = [Table.join(self._tail)] if self._tail else []
            loose = [self._of_key(table, number) for table in [*self._frozen, *self._tail]]
            segments = [segment for segment in self._segments if segment.span(number)]
            cuts = Cuts() if self._spared[number] else self._cuts.copy()
            return View(number, segments, settled(Table.join(loose)), cuts, self._spared)

    def _of_key(self, table: Table, key: int) -> Table:
        """Return the points of a key, in order of arrival.

        The sorted index of the last table is cached for other keys.
        """
        if len(table) < _SMALL:
            return table.take(table.keys == key)
        if self._order[0] is not table:
            order = np.argsort(table.keys, kind="stable")
            self._order = table, order, table.keys[order]
        _, order, keys = self._order
        return table.take(order[np.searchsorted(keys, key, "left") : np.searchsorted(keys, key, "right")])

    _order: tuple[Table | None, npt.NDArray[np.intp], npt.NDArray[np.uint32]] = (
        None,
        np.empty(0, np.intp),
        np.empty(0, np.uint32),
    )

    def since(self, cursor: int, keys: Sequence[str] | None, limit: int) -> tuple[int, dict[str, Columns]]:
        """Implement `SeriesStore.since`."""
        with self._lock:
            self.used = time.monotonic()
            if cursor >= self._points:
                return self._points, {}
            # Sealed points are sorted by key and step, so their order of arrival is lost.
            if cursor < max(self._base, self._cut_at):
                raise CursorLost
            self._recount()
            self._tail = [Table.join(self._tail)] if self._tail else []
            tail, names = Table.join([*self._frozen, *self._tail]), self._names
            at = len(tail) - (self._points - cursor)
            wanted = None if keys is None else [self._numbers[key] for key in keys if key in self._numbers]
        if at < 0:
            raise CursorLost
        new = tail.take(slice(at, at + limit))
        behind = cursor + len(new)
        if wanted is not None:
            new = new.take(np.isin(new.keys, wanted))
        new = new.take(np.argsort(new.keys, kind="stable"))
        ends = [*np.flatnonzero(new.keys[1:] != new.keys[:-1]) + 1, len(new)] if len(new) else []
        parts = [new.take(slice(begin, end)) for begin, end in pairwise([0, *ends])]
        return behind, {names[int(part.keys[0])]: part.columns() for part in parts}

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Implement `SeriesStore.wait`."""
        token = object()
        self._wakes[token] = wake

        def stop() -> None:
            self._wakes.pop(token, None)

        return stop

    @property
    def watched(self) -> bool:
        """Whether a reader waits for points."""
        return bool(self._wakes)

    # -- sealing

    def seal(self) -> None:
        """Write all points in memory to a segment. Reads and appends continue meanwhile."""
        with self._sealing:
            with self._lock:
                if not self.waiting and self._log is None and not self._whole:
                    return
                self._recount()
                if self._torn:  # opening the log cuts off the incomplete last record; see `_replay`
                    self._open_log()
                before, self._log = self._log, None
                # From here on, appends go to the next log; `_frozen` stays readable until the segment is written.
                self._frozen, self._tail = [Table.join(self._tail)], []
                self._generation, self._whole = self._generation + 1, 0
                number = 1 + max((int(segment.path.stem) for segment in self._segments), default=0)
                state, cuts = self._state(self._generation), self._cuts.copy()
                self.recounted = 0
            if before is not None:
                before.close()
            try:
                self._put_away(number, state, settled(self._frozen[0]), cuts)
            except BaseException:
                with self._lock:  # nothing is lost: the logs still have the points
                    self._tail, self._frozen = [*self._frozen, *self._tail], []
                raise

    def _put_away(self, number: int, state: Saved, frozen: Table, cuts: Cuts) -> None:
        path = self.folder / f"{number}.segment"
        with disk_errors(self.folder):
            if len(frozen):
                write_segment(path, kept(frozen, cuts, self._spared))
                state.segments.append(number)
            seal_state.save(self.folder, state)
        with self._lock:
            if len(frozen):
                self._segments.append(Segment(path))
            self._frozen, self._base = [], state.points
        # Only now that segment and state file are durable can the logs be deleted.
        for generation in wal.generations(self.folder):
            if generation < state.generation:
                self._retire(generation)

    def tangled(self) -> bool:
        """Whether segments overlap or have points that no longer count, so that a merge would make reads faster."""
        with self._lock:
            segments, cuts = list(self._segments), self._cuts.copy()
            state = [segment.path.name for segment in segments], self._cuts_added
        if state == self._straight:  # maintenance calls this repeatedly
            return False
        found = overlap(segments) or any(has_dropped(segment, cuts, self._spared) for segment in segments)
        if not found:
            self._straight = state
        return found

    _straight: tuple[list[str], int] = [], 0
    """The segments and the number of cuts for which `tangled` returned False."""

    def merge(self) -> None:
        """Replace all segments with one that has only the points that count."""
        with self._sealing:
            with self._lock:
                old, cuts = list(self._segments), self._cuts.copy()
            tables = [page for segment in old for page in segment.rows(0, int(segment.starts[-1]))]
            whole = settled(kept(Table.join(tables), cuts, self._spared))
            number = 1 + max(int(segment.path.stem) for segment in old)
            path = self.folder / f"{number}.segment"
            with disk_errors(self.folder):
                write_segment(path, whole)
                state = seal_state.load(self.folder)
                state.segments = [number]
                seal_state.save(self.folder, state)
            with self._lock:
                self._segments = [Segment(path)]
            for segment in old:
                segment.delete_when_let_go()

    def verify(self) -> None:
        """Implement `SeriesStore.verify`."""
        with self._sealing, self._lock:
            seal_state.load(self.folder)
            segments, problems = list(self._segments), [str(self.folder / problem) for problem in self.damage()]
            for generation in wal.generations(self.folder):
                if generation not in self._damaged:
                    problems += self._problems_of_log(generation)
        for segment in segments:
            try:
                Segment(segment.path).verify()
            except IntegrityError as error:
                problems.append(error.message)
        if problems:
            raise IntegrityError("; ".join(problems), hint=SET_ASIDE)

    def _problems_of_log(self, generation: int) -> list[str]:
        path = wal.wal_path(self.folder, generation)
        log = wal.read_log(path).read()
        # The log must be sound exactly up to the last acknowledged record.
        size = self._log.size if self._log is not None else self._whole
        if log.gaps:
            return [f"{path} is {log.gaps[0]}"]
        if generation == self._generation and log.end != size:
            return [f"{path} is damaged at byte {log.end:,}"]
        return []

    def open_files(self) -> list[tuple[str, IO[bytes]]]:
        """Seal all points, and return the name and the open file of each file of the series.

        An open file stays readable when a merge deletes it, so merges need not wait for the reader.
        """
        self.seal()
        with self._sealing, ExitStack() as stack:
            names = [seal_state.NAME, *(f"{number}.segment" for number in seal_state.load(self.folder).segments)]
            names += [wal.damaged_path(self.folder, number).name for number in sorted(self._damaged)]
            there = [name for name in names if os.path.lexists(self.folder / name)]
            found = [(name, stack.enter_context(files.open_read(self.folder / name))) for name in there]
            stack.pop_all()  # the caller closes the files
            return found

    def close(self) -> None:
        """Close the log."""
        with self._sealing, self._lock:
            if self._log is not None:
                self._log.close()


def _translated(keys: npt.NDArray[np.uint32], numbers: dict[int, int]) -> npt.NDArray[np.uint32]:
    """Convert a writer's key numbers to key numbers of the series."""
    local, back = np.unique(keys, return_inverse=True)
    return np.array([numbers[key] for key in local.tolist()], np.uint32)[back]
