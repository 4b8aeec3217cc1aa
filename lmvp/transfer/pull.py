"""Fetching a version: every chunk goes straight to where it belongs and is checked before it counts.

Chunks are asked for in batches over two connections. A batch that breaks off is taken up at the chunk that it broke
off in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from blake3 import blake3

from lmvp.connection import Connection, Interrupted, error_of
from lmvp.errors import IntegrityError, LmvpError
from lmvp.records import WantedChunks
from lmvp.storage import frames
from lmvp.storage.frames import FAILED, HEADER_SIZE
from lmvp.storage.manifest import File, Manifest
from lmvp.transfer.progress import Advance, Progress, showing

CONNECTIONS = 2
BATCH = 32 << 20
"""Bytes of chunks that one request asks for."""


@dataclass(slots=True)
class Wanted:
    """A chunk that is wanted.

    Attributes
    ----------
    file : str
        The path it belongs to, for errors.
    direct : memoryview, optional
        Memory of just its size that it is received into.
    deliver : list of callable
        Called with the checked bytes.
    """

    chunk: str
    size: int
    file: str
    direct: memoryview | None = None
    deliver: list[Callable[[memoryview], Any]] = field(default_factory=list)


class VersionReader:
    """What formats read a version through; see `lmvp.formats.base.Reader`.

    Parameters
    ----------
    version : str
        The path of the version in the API.
    """

    def __init__(self, connection: Connection, version: str, manifest: Manifest, progress: Progress = None) -> None:
        self._connection, self._version, self._progress = connection, version, progress
        self._manifest = manifest

    @property
    def manifest(self) -> Manifest:
        """The content of the version."""
        return self._manifest

    def read(self, path: str) -> bytes:
        """Return a whole file; it must fit into memory."""
        file = self._file(path)
        data = bytearray(file.size)
        self.fetch(file, partial(_put, data))
        return bytes(data)

    def fetch(self, file: File, write: Callable[[int, memoryview], Any]) -> None:
        """Call `write(offset, bytes)` for every chunk of a file, in any order, from several threads."""
        wanted = []
        offset = 0
        for chunk in file.chunks:
            wanted.append(Wanted(chunk.id, chunk.size, file.path, deliver=[partial(write, offset)]))
            offset += chunk.size
        self._fetch(wanted)

    def fill(self, path: str, targets: Mapping[str, memoryview]) -> None:
        """Write tensors of a file into memory, by name."""
        file = self._file(path)
        tensors = [t for t in self._manifest.tensors if t.path == path and t.name in targets and t.size]
        tensors.sort(key=lambda tensor: tensor.offset)
        places = [(tensor.offset, tensor.offset + tensor.size, targets[tensor.name]) for tensor in tensors]
        self._fetch(list(_plan(file, places)))

    def _file(self, path: str) -> File:
        file = self._manifest.file(path)
        if file is None:
            raise IntegrityError(f"the version says it has tensors in {path!r}, but has no such file")
        return file

    def _fetch(self, wanted: Sequence[Wanted]) -> None:
        merged = _merge(wanted)
        with (
            showing(self._progress, sum(one.size for one in merged), "pull") as advance,
            ThreadPoolExecutor(CONNECTIONS) as threads,
        ):
            for _ in threads.map(lambda batch: self._fetch_batch(batch, advance), list(_batches(merged))):
                pass

    def _fetch_batch(self, batch: list[Wanted], advance: Advance) -> None:
        """Fetch chunks; take up after an interruption with what is still wanted."""
        left = list(batch)

        def go_on() -> None:
            before = len(left)
            try:
                self._receive(left, advance)
            except Interrupted:
                if len(left) == before:
                    raise
                self._connection.attempt(go_on)  # it got further: that does not count as a failed attempt

        self._connection.attempt(go_on)

    def _receive(self, left: list[Wanted], advance: Advance) -> None:
        body = WantedChunks(want=tuple(one.chunk for one in left))
        scratch = bytearray(max((one.size for one in left if one.direct is None), default=0))
        with self._connection.stream("POST", f"{self._version}/chunks", body) as answer:
            read = _reader(answer)
            while left:
                one = left[0]
                target = one.direct if one.direct is not None else memoryview(scratch)[: one.size]
                _receive_frame(read, one, target)
                for deliver in one.deliver:
                    deliver(target)
                left.pop(0)
                advance(one.size)


def _receive_frame(read: Callable[[memoryview], None], one: Wanted, target: memoryview) -> None:
    head = bytearray(HEADER_SIZE)
    read(memoryview(head))
    frame = frames.read_header(head, answer=True)
    if frame.codec == FAILED:
        raise _failed(one, read, frame.payload)
    if frame.chunk != one.chunk or frame.size != one.size:
        raise _damaged(one, "the server sent another one")
    read(target)
    if blake3(target).hexdigest() != one.chunk:
        raise _damaged(one, "its bytes do not match its id")


def _failed(one: Wanted, read: Callable[[memoryview], None], length: int) -> LmvpError:
    """Return the error that a server tells of in the place of a frame."""
    data = bytearray(length)
    read(memoryview(data))
    error = error_of(bytes(data))
    if isinstance(error, IntegrityError):
        return IntegrityError(
            f"the chunk {one.chunk[:12]} of {one.file!r} is damaged: {error.message}", hint=error.hint
        )
    return error


def _damaged(one: Wanted, why: str) -> IntegrityError:
    return IntegrityError(
        f"the chunk {one.chunk[:12]} of {one.file!r} is damaged: {why}",
        hint="`lmvp fsck` on the server tells what else is",
    )


def _reader(answer: Any) -> Callable[[memoryview], None]:
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


def _batches(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    batch: list[Wanted] = []
    size = 0
    for one in wanted:
        batch.append(one)
        size += one.size
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
