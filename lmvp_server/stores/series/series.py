"""The series of one run: what came since the last seal is in memory and in a log, what came before in segments."""

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

from lmvp import private
from lmvp.durable import sync_folder
from lmvp.errors import IntegrityError, InvalidRequest
from lmvp.log_recovery import LogReader
from lmvp.tracking.columns import Columns, Epoch, Points, Shipment
from lmvp.tracking.frames import AUTO, Buffer
from lmvp.tracking.parsing import parse
from lmvp_server import cancellation
from lmvp_server.stores.base import CursorLost, Gap, KeyState, SeriesState
from lmvp_server.stores.disk import disk_errors
from lmvp_server.stores.journal import AppendFile, make_folder
from lmvp_server.stores.series import saved, wal
from lmvp_server.stores.series.auto import numbered
from lmvp_server.stores.series.columns import Cuts, Table, kept, settled
from lmvp_server.stores.series.reading import View, has_dropped, overlap
from lmvp_server.stores.series.saved import Saved, Writer
from lmvp_server.stores.series.segment import Segment, write_segment
from lmvp_server.stores.series.stats import ROW, Stats

_logger = logging.getLogger("lmvp_server")
_SMALL = 5_000
SEAL_AT = 1_000_000
"""Points in memory at which they are sealed."""

CUTS_LIMIT = 10_000
"""Cuts of a run that are not redundant, at most."""

KEYS_LIMIT = 100_000
"""Keys of a run, and keys that one writer names, at most."""

NAMES_LIMIT = 16 << 20
"""Characters of all keys of a run, at most."""

RECOUNT_LIMIT = 20_000_000
"""Points that one request may make the server count again, beyond `RECOUNTS_FREE` times; about 3 s of work. After as
many, the series is sealed, so that opening it does not repeat the work."""

RECOUNTS_FREE = 16
"""How often one request may make the server count all points again, whatever their number."""

SET_ASIDE = "a backup may have the points; the damaged file stays until you delete it"
"""The way out of a damaged log."""

SYSTEM = "system/"
"""Keys that begin so have steps of their own: no cut drops their points."""


class Series:
    """Everything about one run's points.

    Parameters
    ----------
    folder : Path
        Made by the first append.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used = time.monotonic()
        self._lock = threading.RLock()
        self._sealing = threading.Lock()
        self._wakes: dict[object, Callable[[], None]] = {}
        self._log: AppendFile | None = None
        self._frozen: list[Table] = []
        self._tail: list[Table] = []
        self._damaged: dict[int, str] = {}
        self._load(saved.load(folder))
        self._replay()

    # -- what lies on the disk

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
        """Apply the points of the logs that were not sealed.

        A damaged log stays as it is, and so does its name. Its sound records count, and new points go to the next
        generation. A torn end is cut off when the next record is written.
        """
        if not self.folder.is_dir():
            return
        for generation in wal.generations(self.folder, damaged=True):
            log = wal.read_log(wal.damaged_path(self.folder, generation)).read()
            self._damaged[generation] = str(log.gaps[0]) if log.gaps else "set aside as damaged"
        for generation in wal.generations(self.folder):
            log = wal.read_log(wal.wal_path(self.folder, generation))
            if generation >= self._generation:
                if self._torn:  # a torn end is cut before the next log begins
                    self._damaged.setdefault(self._generation, f"damaged at byte {self._whole:,}: another log follows")
                self._generation = generation
                self._replay_log(generation, log)
                self._whole, self._torn = log.end, log.end < len(log.data)
            elif log.read().gaps:
                self._damaged[generation] = str(log.gaps[0])
                self._retire(generation)
            else:
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
                self._damaged.setdefault(generation, f"lacks what a writer sent from byte {applied:,} of its journal")
                self._apply_behind_gap(writer, parse(frames))
            elif start + len(frames) > applied:  # a writer repeats what was lost, and some more
                self._apply(writer, start + len(frames), parse(frames[applied - start :]))
        if log.gaps:
            self._damaged[generation] = str(log.gaps[0])

    def _apply_behind_gap(self, writer: str, shipment: Shipment) -> None:
        """Apply the points of a sound record that follows a lost one.

        Points whose key was named in the lost record are left out, and so are points whose step the server would
        count. The place in the writer's journal stays: a writer that still has its journal sends all of it again.
        """
        of = self._writers.setdefault(writer, Writer(keys={}))
        applied, epoch = of.applied, of.epoch
        keys = np.array([*of.keys, *shipment.keys], np.int64)
        parts: list[Points | Epoch] = []
        for part in shipment.parts:
            if isinstance(part, Points):
                rows = np.isin(part.keys, keys) & (part.steps != AUTO)
                part = Points(part.keys[rows], part.steps[rows], part.values[rows], part.times[rows])
                if not len(part.keys):
                    continue
            parts.append(part)
        self._apply(writer, applied, Shipment(keys=shipment.keys, parts=parts))
        of.epoch = epoch

    def _retire(self, generation: int) -> None:
        """Delete a log whose points are sealed, or set it aside if it is damaged."""
        path = wal.wal_path(self.folder, generation)
        wal.begun_path(self.folder, generation).unlink(missing_ok=True)  # first: a crash must not look like a loss
        if generation in self._damaged:
            path.rename(wal.damaged_path(self.folder, generation))
        else:
            path.unlink()

    def damage(self) -> list[str]:
        """See `SeriesStore.damage`."""
        with self._lock:
            return [self._damage_of(generation, what) for generation, what in sorted(self._damaged.items())]

    def _damage_of(self, generation: int, what: str) -> str:
        path = wal.damaged_path(self.folder, generation)
        name = path.name if path.exists() else wal.wal_path(self.folder, generation).name
        return f"{name} is {what}" if what.startswith(("damaged", "set")) else f"{name} {what}"

    def _open_log(self) -> AppendFile:
        if self._log is None:
            with disk_errors(self.folder):
                make_folder(self.folder)
                path = wal.wal_path(self.folder, self._generation)
                size = self._whole if path.exists() else 0
                self._log = wal.open_wal(self.folder, self._generation, size)
                self._torn = False
                private.append(wal.begun_path(self.folder, self._generation)).close()
                sync_folder(self.folder)  # before a record is acknowledged
        return self._log

    _whole = 0
    _torn = False

    # -- taking in

    def append(self, writer: str, start: int, data: Buffer, shipment: Shipment) -> int:
        """See `SeriesStore.append`."""
        with self._lock:
            self.used = time.monotonic()
            applied = self.applied(writer)
            if start > applied:
                raise Gap(applied)
            if start + len(data) <= applied:
                return applied
            if start < applied:
                data = memoryview(data)[applied - start :]
                start, shipment = applied, parse(data)
            self._check(writer, shipment)
            self._write(wal.packed(writer, start, data))
            self._apply(writer, start + len(data), shipment)
            applied = start + len(data)
        for wake in list(self._wakes.values()):
            wake()
        return applied

    def _check(self, writer: str, shipment: Shipment) -> None:
        """Refuse unknown keys, and more keys, cuts or work than a run may have, before anything is written."""
        known = self._writers.get(writer, Writer()).keys
        if shipment.keys:
            self._check_keys(known, shipment.keys)
        if any(isinstance(part, Epoch) for part in shipment.parts):
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

    def _check_cuts(self, parts: Sequence[Points | Epoch]) -> None:
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
        """Points in memory and in segments, which a recount reads."""
        loose = sum(len(table) for table in (*self._frozen, *self._tail))
        return loose + sum(int(segment.starts[-1]) for segment in self._segments)

    def _write(self, record: bytes) -> None:
        log = self._open_log()
        with disk_errors(self.folder):
            before = log.size
            log.append(record)
            try:
                log.sync()
            except OSError:  # what came before was synced; the series is read anew from that
                log.cut(before)
                log.broken = True
                raise

    @property
    def broken(self) -> bool:
        """Nobody knows what the log holds: the series must be read from the disk again."""
        return self._log is not None and self._log.broken

    def _apply(self, writer: str, applied: int, shipment: Shipment) -> None:
        of = self._writers.setdefault(writer, Writer(keys={}))
        for local, name in shipment.keys.items():
            of.keys[local] = self._number(name)
        self._make_room()
        for part in shipment.parts:
            if isinstance(part, Epoch):
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
        """Have a row of `_stats` and of `_spared` for each key."""
        fresh = self._names[len(self._spared) :]
        if fresh:
            spared = np.array([name.startswith(SYSTEM) for name in fresh], np.bool_)
            self._spared = np.concatenate([self._spared, spared])
        self._stats.make_room(len(self._names))

    def _begin(self, writer: Writer, epoch: Epoch) -> None:
        writer.epoch = epoch.epoch
        self._epoch = max(self._epoch, epoch.epoch)
        if epoch.cut != AUTO:
            self._cut(epoch.epoch, epoch.cut)

    def _take_in(self, writer: Writer, points: Points) -> None:
        keys = _translated(points.keys, writer.keys)
        if self._stale and (points.steps == AUTO).any():
            self._recount()
        steps = numbered(keys, points.steps, self._stats)
        epochs = np.full(len(keys), writer.epoch, np.int64)
        table = kept(Table(keys, steps, points.values, points.times, epochs), self._cuts, self._spared)
        if not self._stale:
            self._stats.add(table)
        self._points += len(table)
        while self._tail and len(self._tail[-1]) <= 2 * len(table):  # few tables, and each point copied seldom
            table = Table.join([self._tail.pop(), table])
        self._tail.append(table)

    def _cut(self, epoch: int, step: int) -> None:
        """Let points of older epochs above a step not count.

        The points are not read here but once for any number of cuts, in `_recount`, when somebody asks for them or
        logs a point without a step.
        """
        self._cut_at = self._points + 1
        if not self._cuts.add(epoch, step):
            return
        self._cuts_added += 1
        if not self._stale:
            self._stale = bool(((self._stats.rows["step"] > step) & ~self._spared).any())

    _cuts_added = 0
    """How many cuts that are not redundant came since the series was opened."""

    _stale = False
    """Whether a cut may have dropped points since `_stats` was computed."""

    recounted = 0
    """Points that were counted again since the last seal."""

    def _recount(self) -> None:
        """Drop the points that cuts drop, and compute again what is known of each key."""
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

    # -- what is known

    def applied(self, writer: str) -> int:
        """See `SeriesStore.applied`."""
        with self._lock:
            return self._writers[writer].applied if writer in self._writers else 0

    def attempt(self, writer: str) -> int:
        """See `SeriesStore.attempt`."""
        with self._lock:
            return self._writers[writer].epoch if writer in self._writers else 0

    def state(self, touched: float) -> SeriesState:
        """See `SeriesStore.state`."""
        with self._lock:
            return SeriesState(self._points, len(self._names), self._epoch, touched)

    def keys(self) -> list[KeyState]:
        """See `SeriesStore.keys`."""
        with self._lock:
            self._recount()
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
        """Bytes of points that are not sealed."""
        return sum(table.nbytes for table in self._tail)

    @property
    def waiting(self) -> int:
        """Points that are not sealed."""
        return sum(len(table) for table in self._tail)

    # -- reading

    def view(self, key: str) -> View | None:
        """Return what there is of a key now, to be read at leisure; None if there is no such key."""
        with self._lock:
            self.used = time.monotonic()
            number = self._numbers.get(key)
            if number is None:
                return None
            self._recount()
            self._tail = [Table.join(self._tail)] if self._tail else []
            loose = [self._of_key(table, number) for table in [*self._frozen, *self._tail]]
            segments = [segment for segment in self._segments if segment.span(number)]
            cuts = Cuts() if self._spared[number] else self._cuts.copy()
            return View(number, segments, settled(Table.join(loose)), cuts, self._spared)

    def _of_key(self, table: Table, key: int) -> Table:
        """Return the points of a key, in the order of their arrival; quick for many keys of one table."""
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
        """See `SeriesStore.since`."""
        with self._lock:
            self.used = time.monotonic()
            if cursor >= self._points:
                return self._points, {}
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
        """See `SeriesStore.wait`."""
        token = object()
        self._wakes[token] = wake

        def stop() -> None:
            self._wakes.pop(token, None)

        return stop

    @property
    def watched(self) -> bool:
        """Whether anybody waits for points."""
        return bool(self._wakes)

    # -- sealing

    def seal(self) -> None:
        """Make a segment of all points in memory. Readers and writers go on meanwhile."""
        with self._sealing:
            with self._lock:
                if not self.waiting and self._log is None and not self._whole:
                    return
                self._recount()
                if self._torn:  # a log that another one follows ends with a sound record
                    self._open_log()
                before, self._log = self._log, None
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
                with self._lock:  # the logs have them still
                    self._tail, self._frozen = [*self._frozen, *self._tail], []
                raise

    def _put_away(self, number: int, state: Saved, frozen: Table, cuts: Cuts) -> None:
        path = self.folder / f"{number}.segment"
        with disk_errors(self.folder):
            if len(frozen):
                write_segment(path, kept(frozen, cuts, self._spared))
                state.segments.append(number)
            saved.save(self.folder, state)
        with self._lock:
            if len(frozen):
                self._segments.append(Segment(path))
            self._frozen, self._base = [], state.points
        for generation in wal.generations(self.folder):
            if generation < state.generation:
                self._retire(generation)

    def tangled(self) -> bool:
        """Whether segments hold points that do not count, or not in order: merging them makes reading quicker."""
        with self._lock:
            segments, cuts = list(self._segments), self._cuts.copy()
            state = [segment.path.name for segment in segments], self._cuts_added
        if state == self._straight:  # idle work asks again and again
            return False
        found = overlap(segments) or any(has_dropped(segment, cuts, self._spared) for segment in segments)
        if not found:
            self._straight = state
        return found

    _straight: tuple[list[str], int] = [], 0
    """The segments, and the number of cuts, of which `tangled` has found that they need no merge."""

    def merge(self) -> None:
        """Make one segment of all, of the points that count."""
        with self._sealing:
            with self._lock:
                old, cuts = list(self._segments), self._cuts.copy()
            tables = [page for segment in old for page in segment.rows(0, int(segment.starts[-1]))]
            whole = settled(kept(Table.join(tables), cuts, self._spared))
            number = 1 + max(int(segment.path.stem) for segment in old)
            path = self.folder / f"{number}.segment"
            with disk_errors(self.folder):
                write_segment(path, whole)
                state = saved.load(self.folder)
                state.segments = [number]
                saved.save(self.folder, state)
            with self._lock:
                self._segments = [Segment(path)]
            for segment in old:
                segment.delete_when_let_go()

    def verify(self) -> None:
        """See `SeriesStore.verify`."""
        with self._sealing, self._lock:
            saved.load(self.folder)
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
        size = self._log.size if self._log is not None else self._whole
        if log.gaps:
            return [f"{path} is {log.gaps[0]}"]
        if generation == self._generation and log.end != size:
            return [f"{path} is damaged at byte {log.end:,}"]
        return []

    def open_files(self) -> list[tuple[str, IO[bytes]]]:
        """Seal all points, and return name and open file of all that makes up the series.

        An open file keeps its bytes when a merge replaces it, so nothing waits for the reader.
        """
        self.seal()
        with self._sealing, ExitStack() as stack:
            names = [saved.NAME, *(f"{number}.segment" for number in saved.load(self.folder).segments)]
            names += [wal.damaged_path(self.folder, number).name for number in sorted(self._damaged)]
            there = [name for name in names if os.path.lexists(self.folder / name)]
            found = [(name, stack.enter_context(private.open_read(self.folder / name))) for name in there]
            stack.pop_all()  # the caller closes them
            return found

    def close(self) -> None:
        """Let go of the log."""
        with self._sealing, self._lock:
            if self._log is not None:
                self._log.close()


def _translated(keys: npt.NDArray[np.uint32], numbers: dict[int, int]) -> npt.NDArray[np.uint32]:
    """Return the series' numbers of a writer's keys."""
    local, back = np.unique(keys, return_inverse=True)
    return np.array([numbers[key] for key in local.tolist()], np.uint32)[back]
