"""Fetching a version: every chunk is checked, and only then written to where it belongs.

What the cache has is taken from there. The rest is asked for in batches over two connections: raw over a fast link;
over a slow one encoded, against chunks that the cache has of an earlier version. Which is better is measured: bytes a
second, as they are when decoded, either way. A batch that breaks off is taken up at the chunk that it broke off in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock
from typing import Any, TypeVar

from blake3 import blake3

from lmvp.connection import Connection, Interrupted, error_of
from lmvp.errors import IntegrityError, LmvpError
from lmvp.formats.base import check_small
from lmvp.meter import Meter
from lmvp.records import WantedChunks
from lmvp.render.numbers import size
from lmvp.storage import codecs, frames
from lmvp.storage.codecs import Buffer
from lmvp.storage.frames import CODECS, DELTA, FAILED, HEADER_SIZE, RAW, SOLO, ZSTD, Frame
from lmvp.storage.manifest import File, Manifest
from lmvp.transfer.held import FAST, Base, Held
from lmvp.transfer.progress import Advance, Progress, showing
from lmvp.transfer.workers import Workers

T = TypeVar("T")

CONNECTIONS = 2
BATCH = 32 << 20
"""Bytes of chunks that one request asks for."""

BATCH_CHUNKS = 4096
"""Chunks that one request asks for at most: their ids are the body of the request, which the server limits."""

CODED_BATCH = 8 << 20
"""The same where they come encoded: what is measured on the way is heeded with the next request."""

CODED_BELOW = 80e6
"""Bytes a second over the link below which chunks are first asked for encoded."""

_NEARLY = 0.9
"""Share of the speed of raw chunks down to which encoded ones are stuck to: no two measurements are the same."""

PROBE = 256 << 10
"""Bytes that a link is first measured by."""


@dataclass(slots=True)
class Wanted:
    """A chunk that is wanted.

    Attributes
    ----------
    file : str
        The path it belongs to, for errors.
    direct : memoryview, optional
        Memory of just its size that its checked bytes are copied into.
    deliver : list of callable
        Called with the checked bytes.
    """

    chunk: str
    size: int
    file: str
    direct: memoryview | None = None
    deliver: list[Callable[[memoryview], Any]] = field(default_factory=list)

    def take(self, data: Buffer) -> None:
        """Bring checked bytes to where they belong."""
        view = memoryview(data)
        if self.direct is not None:
            self.direct[:] = view
        for deliver in self.deliver:
            deliver(view)


class VersionReader:
    """What formats read a version through; see `lmvp.formats.base.Reader`.

    Parameters
    ----------
    version : str
        The path of the version in the API.
    held : Held, optional
        What the cache has of the model; what comes over a slow link is added.
    base : callable, optional
        Finds a version that the chunks may come as changes of; asked when the first are.
    """

    def __init__(
        self,
        connection: Connection,
        version: str,
        manifest: Manifest,
        progress: Progress = None,
        held: Held | None = None,
        base: Callable[[], Base | None] = lambda: None,
    ) -> None:
        self._connection, self._version, self._progress = connection, version, progress
        self._manifest, self._held, self._find_base = manifest, held or Held(None, ""), base
        self._coded = Meter(0.0, enough=CODED_BATCH)
        self._arrived = 0  # counted by all threads without a lock: it only tells that something came
        self._received = 0  # likewise, for people to see

    @cached_property
    def _base(self) -> Base | None:
        return self._find_base()

    @property
    def manifest(self) -> Manifest:
        """The content of the version."""
        return self._manifest

    def read(self, path: str) -> bytes:
        """Return a whole file; it must fit into memory.

        Raises
        ------
        DamagedFile
            If most of a long file is a repetition.
        """
        check_small(self._manifest, path)
        file = self._file(path)
        data = bytearray(file.size)
        self.fetch(file, partial(_put, data))
        return bytes(data)

    def fetch(self, file: File, write: Callable[[int, memoryview], Any]) -> None:
        """Call `write(offset, bytes)` for every chunk of a file, in any order, from several threads."""
        self.fetch_all([file], lambda _, offset, piece: write(offset, piece))

    def fetch_all(self, files: Iterable[File], write: Callable[[str, int, memoryview], Any]) -> None:
        """Call `write(path, offset, bytes)` for every chunk of some files, in any order, from several threads.

        The chunks of all files are asked for together: their number of requests depends on the bytes, not on the files.
        """
        wanted = []
        for file in files:
            offset = 0
            for chunk in file.chunks:
                wanted.append(Wanted(chunk.id, chunk.size, file.path, deliver=[partial(write, file.path, offset)]))
                offset += chunk.size
        if wanted:
            self._fetch(wanted)

    def fill(self, path: str, targets: Mapping[str, memoryview]) -> None:
        """Write tensors of a file into memory, by name."""
        self.fill_all({path: targets})

    def fill_all(self, targets: Mapping[str, Mapping[str, memoryview]]) -> None:
        """Write tensors into memory, by path and name."""
        places: dict[str, list[tuple[int, int, memoryview]]] = {path: [] for path in targets}
        for tensor in self._manifest.tensors:
            buffer = targets.get(tensor.path, {}).get(tensor.name)
            if buffer is not None and tensor.size:
                places[tensor.path].append((tensor.offset, tensor.offset + tensor.size, buffer))
        wanted = [
            one for path, each in places.items() for one in _plan(self._file(path), sorted(each, key=lambda p: p[:2]))
        ]
        if wanted:
            self._fetch(wanted)

    @cached_property
    def _files(self) -> dict[str, File]:
        return {file.path: file for file in self._manifest.files}

    def _file(self, path: str) -> File:
        file = self._files.get(path)
        if file is None:
            raise IntegrityError(f"the version says it has tensors in {path!r}, but has no such file")
        return file

    def _fetch(self, wanted: Sequence[Wanted]) -> None:
        merged = _merge(wanted)
        with showing(self._progress, sum(one.size for one in merged), "pull", self._moved) as advance:
            queue = _Queue(self._take_held(merged, advance))
            if not self._connection.local and not self._connection.down.fresh:
                self._fetch_batch(queue.probe(), advance, coded=False)
            workers = Workers()

            def advance_on(count: int) -> None:
                advance(count)
                workers.go_on()

            workers.run(lambda: self._work(queue, advance_on), CONNECTIONS)

    def _take_held(self, wanted: Sequence[Wanted], advance: Advance) -> list[Wanted]:
        """Take out of the cache what it has; return the others."""
        held = [one for one in wanted if self._held.has(one.chunk)]
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            found = {one.chunk for one, was in zip(held, threads.map(self._take, held), strict=True) if was}
        advance(sum(one.size for one in held if one.chunk in found))
        return [one for one in wanted if one.chunk not in found]

    def _moved(self) -> str:
        return f"{size(self._received)} received"

    def _take(self, one: Wanted) -> bool:
        """Take a chunk out of the cache, if it is there."""
        data = self._held.read(one.chunk, one.size)
        if data is None:
            return False
        one.take(data)
        return True

    def _work(self, queue: _Queue, advance: Advance) -> None:
        """Fetch batch after batch until nothing is left."""
        while True:
            coded = self._better_coded()
            batch = queue.take(CODED_BATCH if coded else self._raw_batch())
            if not batch:
                return
            self._fetch_batch(batch, advance, coded)

    def _raw_batch(self) -> int:
        """Return how many bytes to ask for at once: so many that the delay of a request is little beside them.

        Not more, so that all connections are busy to the end: while one of them checks and keeps a chunk, another has
        the link.
        """
        if self._connection.local:
            return BATCH
        moved = 10 * self._connection.delay * self._connection.down.rate
        return int(min(BATCH, max(CODED_BATCH, moved)))

    def _better_coded(self) -> bool:
        """Tell whether chunks are here sooner if they are encoded, going by what was measured."""
        down = self._connection.down
        if self._connection.local:
            return False
        if self._coded.known and down.known:
            return self._coded.rate > _NEARLY * down.rate
        return not down.known or down.rate < CODED_BELOW

    def _fetch_batch(self, batch: list[Wanted], advance: Advance, coded: bool) -> None:
        """Fetch chunks; take up after an interruption with what is still wanted."""
        left = list(batch)
        if left:
            self._connection.attempt(lambda: self._receive_all(left, advance, coded), lambda: self._arrived)

    def _receive_all(self, left: list[Wanted], advance: Advance, coded: bool) -> None:
        useless: set[str] = set()
        while left:
            try:
                self._receive(left, advance, coded, useless)
            except _NoBase as error:
                if self._base is None or error.base not in self._base.slots.chunks or error.base in useless:
                    raise _damaged(left[0], f"it leans on {error.base[:12]}, which is not here") from None
                useless.add(error.base)

    def _receive(self, left: list[Wanted], advance: Advance, coded: bool, useless: set[str]) -> None:
        meter = self._coded if coded else self._connection.down
        body = self._order(left, useless) if coded else WantedChunks(want=tuple(one.chunk for one in left))
        # Not into the caller's memory, which must keep its values when a chunk is damaged: one more copy of the chunk,
        # which costs less than its digest does.
        scratch = memoryview(bytearray(max(one.size for one in left)))
        with (
            meter.busy(0.0 if coded else self._connection.delay),
            self._connection.stream("POST", f"{self._version}/chunks", body) as answer,
        ):
            read = body_reader(answer)
            while left:
                one = left[0]
                data = self._receive_frame(read, one, scratch[: one.size])
                meter.count(one.size)
                one.take(data)
                left.pop(0)
                self._arrived += 1
                advance(one.size)

    def _order(self, left: Sequence[Wanted], useless: set[str]) -> WantedChunks:
        """Ask for chunks in whatever form is shortest, and say what deltas may lean on."""
        want = tuple(one.chunk for one in left)
        base = self._base
        if base is None:
            return WantedChunks(want=want, accept=(CODECS[ZSTD], CODECS[SOLO]))
        counterparts = [base.counterpart(chunk) for chunk in want]
        have = tuple({one for one in counterparts if one is not None and one not in useless})
        return WantedChunks(want=want, accept=(CODECS[ZSTD], CODECS[SOLO], CODECS[DELTA]), base=base.digest, have=have)

    def _receive_frame(self, read: Callable[[memoryview], None], one: Wanted, scratch: memoryview) -> Buffer:
        """Receive a chunk and return its checked bytes; keep it if it came over a slow link.

        Parameters
        ----------
        scratch : memoryview
            Memory of the size of the chunk, for a raw one.
        """
        head = bytearray(HEADER_SIZE)
        read(memoryview(head))
        frame = frames.read_header(head, answer=True)
        if frame.codec == FAILED:
            raise _failed(one, read, frame.payload)
        if frame.chunk != one.chunk or frame.size != one.size:
            raise _damaged(one, "the server sent another one")
        payload = scratch if frame.codec == RAW else memoryview(bytearray(frame.payload))
        read(payload)
        self._received += HEADER_SIZE + frame.payload
        data = payload if frame.codec == RAW else self._decoded(one, frame, payload)
        if len(data) != one.size or blake3(data).hexdigest() != one.chunk:
            raise _damaged(one, "its bytes do not match its id")
        self._keep(frame, payload, data)
        return data

    def _decoded(self, one: Wanted, frame: Frame, payload: memoryview) -> Buffer:
        try:
            return codecs.decode(frame, payload, self._base_data)
        except IntegrityError as error:
            raise _damaged(one, error.message) from None

    def _base_data(self, chunk: str) -> Buffer:
        data = self._base.read(chunk) if self._base else None
        if data is None:
            raise _NoBase(chunk)
        return data

    def _keep(self, frame: Frame, payload: memoryview, data: Buffer) -> None:
        if self._connection.local or self._connection.down.rate >= FAST:
            return
        if frame.codec == DELTA:
            self._held.keep(frame.chunk, [data])
        else:
            self._held.keep_frame(frame, payload)


class _NoBase(Exception):
    """A delta leans on a chunk that the cache has lost by now."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.base = base


def take_probe(queue: deque[T], size_of: Callable[[T], int], size: int) -> list[T]:
    """Take chunks out of a queue that a link is measured by: about `size` bytes, in one request.

    One chunk of that size where there is one; else the first small ones together, as a chunk of a few bytes tells
    nothing about a link. Nothing where that is more than a quarter of all.
    """
    best = min(queue, key=lambda one: (size_of(one) < size, abs(size_of(one) - size)), default=None)
    if best is None:
        return []
    taken, left = [best], size - size_of(best)
    for one in queue:
        if left <= 0 or len(taken) >= BATCH_CHUNKS:
            break
        if one is not best:
            taken.append(one)
            left -= size_of(one)
    if 4 * sum(map(size_of, taken)) > sum(map(size_of, queue)):
        return []
    chosen = set(map(id, taken))
    left_over = [one for one in queue if id(one) not in chosen]
    queue.clear()
    queue.extend(left_over)
    return taken


class _Queue:
    """Chunks that are still to be asked for; several threads take from it."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted, self._lock = deque(wanted), Lock()

    def probe(self) -> list[Wanted]:
        """Take some to measure by, small ones if possible; nothing if they are much of all."""
        return take_probe(self._wanted, lambda one: one.size, PROBE)

    def take(self, size: int) -> list[Wanted]:
        """Take the next ones: up to and beyond so many bytes, at most `BATCH_CHUNKS`."""
        batch: list[Wanted] = []
        with self._lock:
            while self._wanted and size > 0 and len(batch) < BATCH_CHUNKS:
                batch.append(self._wanted.popleft())
                size -= batch[-1].size
        return batch


def _failed(one: Wanted, read: Callable[[memoryview], None], length: int) -> LmvpError:
    """Return the error that a server tells of in the place of a frame."""
    data = bytearray(length)
    read(memoryview(data))
    error = error_of(bytes(data))
    if isinstance(error, IntegrityError):
        return _damaged(one, error.message)
    return error


def _damaged(one: Wanted, why: str) -> IntegrityError:
    return IntegrityError(
        f"the chunk {one.chunk[:12]} of {one.file!r} is damaged: {why}",
        hint="`lmvp fsck` on the server tells what else is",
    )


def body_reader(answer: Any) -> Callable[[memoryview], None]:
    """Return a function that fills memory from the body of an answer, without a copy in between."""
    import http.client

    import urllib3

    body = getattr(answer.raw, "_fp", None)  # urllib3's own readinto copies; http.client's does not
    source = body if isinstance(body, http.client.HTTPResponse) else answer.raw

    def read(target: memoryview) -> None:
        filled = 0
        while filled < len(target):
            try:
                count = source.readinto(target[filled:])
            except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
                raise Interrupted(f"the connection broke off: {error}") from error
            if not count:
                raise Interrupted("the connection broke off")
            filled += count

    return read


def _plan(file: File, places: Sequence[tuple[int, int, memoryview]]) -> Iterator[Wanted]:
    """Give the chunks that overlap the places, and how to bring their bytes there.

    Parameters
    ----------
    places : sequence of (start, end, memory)
        Stretches of the file, sorted, without overlaps.
    """
    start, first = 0, 0
    for chunk in file.chunks:
        end = start + chunk.size
        while first < len(places) and places[first][1] <= start:
            first += 1
        wanted = Wanted(chunk.id, chunk.size, file.path)
        index = first
        while index < len(places) and places[index][0] < end:
            _add(wanted, start, end, *places[index])
            index += 1
        if wanted.direct is not None or wanted.deliver:
            yield wanted
        start = end


def _add(wanted: Wanted, start: int, end: int, low: int, high: int, memory: memoryview) -> None:
    if low <= start and end <= high:
        wanted.direct = memory[start - low : end - low]
        return
    first, last = max(start, low), min(end, high)
    target, offset = memory[first - low : last - low], first - start
    wanted.deliver.append(lambda piece: _copy(target, piece[offset : offset + len(target)]))


def _copy(target: memoryview, piece: memoryview) -> None:
    target[:] = piece


def _put(data: bytearray, offset: int, piece: memoryview) -> None:
    data[offset : offset + len(piece)] = piece


def _merge(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Ask for a chunk once, however often it stands in the version (a tensor of zeros, say)."""
    merged: dict[str, Wanted] = {}
    for one in wanted:
        known = merged.setdefault(one.chunk, one)
        if known is not one:
            known.deliver += one.deliver
            if one.direct is not None:
                known.deliver.append(partial(_copy, one.direct))
    return list(merged.values())
