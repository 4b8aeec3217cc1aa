"""Pull of a version: every chunk is verified before it is written to its target.

Cached chunks are read from the cache. The others are requested in batches over two connections: raw over a fast link,
encoded over a slow one, where deltas depend on cached chunks of an earlier version. The choice depends on measured
speeds, in decoded bytes per second. An interrupted batch continues with the chunk at which it stopped. See
docs/format.md, "The wire".
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from blake3 import blake3

from lmvp.connection import Connection, Interrupted, error_of
from lmvp.core import chunk_frames, codecs
from lmvp.core.chunk_frames import (
    CODECS,
    DELTA,
    FAILED,
    HEADER_SIZE,
    RAW,
    SOLO,
    ZSTD,
    Frame,
)
from lmvp.core.codecs import Buffer
from lmvp.core.files import write_errors
from lmvp.core.manifest import File, Manifest
from lmvp.core.manifest_validation import path_problem
from lmvp.core.number_format import size
from lmvp.core.schemas import WantedChunks
from lmvp.core.throughput import Meter
from lmvp.errors import IntegrityError, InvalidArgument, InvalidManifest, LmvpError, StorageFull
from lmvp.formats.base import check_small
from lmvp.transfer.model_cache import FAST, Base, Held
from lmvp.transfer.progress import Advance, Progress, Workers, showing

T = TypeVar("T")

CONNECTIONS = 2
"""Number of requests at once: while one connection verifies a chunk, the other one uses the link."""
BATCH = 32 << 20
"""Maximum bytes of chunks in one request."""

BATCH_CHUNKS = 4096
"""Maximum chunks in one request. The request body contains the chunk ids, and the server limits its length."""

CODED_BATCH = 8 << 20
"""Bytes of chunks in a request for encoded chunks. It is smaller, so that the next request can use the measurement."""

CODED_BELOW = 80e6
"""Bytes per second of a link below which chunks are first requested encoded."""

_NEARLY = 0.9
"""Encoded chunks are used down to this fraction of the speed of raw ones. It avoids switching because of noise."""

PROBE = 256 << 10
"""Bytes of the first measurement of a link."""


@dataclass(slots=True)
class Wanted:
    """A requested chunk and its targets.

    Attributes
    ----------
    file : str
        Path of its file, for errors.
    direct : memoryview, optional
        Memory of the size of the chunk, to which the verified bytes are copied.
    deliver : list of callable
        Functions that receive the verified bytes.
    """

    chunk: str
    size: int
    file: str
    direct: memoryview | None = None
    deliver: list[Callable[[memoryview], Any]] = field(default_factory=list)

    def take(self, data: Buffer) -> None:
        """Copy verified bytes to all targets."""
        view = memoryview(data)
        if self.direct is not None:
            self.direct[:] = view
        for deliver in self.deliver:
            deliver(view)


class VersionReader:
    """The reader with which formats read a version; see `lmvp.formats.base.Reader`.

    Parameters
    ----------
    version : str
        Path of the version in the API.
    held : Held, optional
        The cached data of the model. Chunks received over a slow link are added to it.
    base : callable, optional
        Returns the base for deltas. It is called when the first encoded chunks are requested.
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
        self._coded = Meter(0.0, enough=CODED_BATCH)  # of decoded bytes; one batch is enough for a comparison
        # `Connection.attempt` starts its count of retries again whenever this changes. Threads count without a lock,
        # because the exact value does not matter.
        self._arrived = 0
        self._received = 0  # also without a lock: it is only displayed

    @cached_property
    def _base(self) -> Base | None:
        return self._find_base()

    @property
    def manifest(self) -> Manifest:
        """The manifest of the version."""
        return self._manifest

    def read(self, path: str) -> bytes:
        """Return a whole file, which must fit into memory.

        Raises
        ------
        DamagedFile
            If the file is long and consists mostly of repeated chunks.
        """
        check_small(self._manifest, path)
        file = self._file(path)
        data = bytearray(file.size)
        self.fetch(file, partial(_put, data))
        return bytes(data)

    def fetch(self, file: File, write: Callable[[int, memoryview], Any]) -> None:
        """Call `write(offset, bytes)` for every chunk of a file, in any order and from several threads."""
        self.fetch_all([file], lambda _, offset, piece: write(offset, piece))

    def fetch_all(self, files: Iterable[File], write: Callable[[str, int, memoryview], Any]) -> None:
        """Call `write(path, offset, bytes)` for every chunk of some files, in any order and from several threads.

        Chunks of all files are requested together, so the number of requests depends on the bytes, not on the files.
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
        """Write tensors of a file to memory, given by name."""
        self.fill_all({path: targets})

    def fill_all(self, targets: Mapping[str, Mapping[str, memoryview]]) -> None:
        """Write tensors to memory, given by path and name."""
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
        with showing(self._progress, sum(piece.size for piece in merged), "pull", self._moved) as advance:
            queue = _Queue(self._take_held(merged, advance))
            if not self._connection.local and not self._connection.down.fresh:  # measure the link first
                self._fetch_batch(queue.probe(), advance, coded=False)
            workers = Workers()

            def advance_on(count: int) -> None:
                advance(count)
                workers.raise_if_stopped()  # after each chunk, so that a thread stops soon after another one failed

            workers.run(lambda: self._work(queue, advance_on), CONNECTIONS)

    def _take_held(self, wanted: Sequence[Wanted], advance: Advance) -> list[Wanted]:
        """Read cached chunks; return those that must be requested."""
        cached = [piece for piece in wanted if self._held.has(piece.chunk)]
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            # A chunk can be damaged or deleted although `has` found its file.
            taken = {piece.chunk for piece, was in zip(cached, threads.map(self._take, cached), strict=True) if was}
        advance(sum(piece.size for piece in cached if piece.chunk in taken))
        return [piece for piece in wanted if piece.chunk not in taken]

    def _moved(self) -> str:
        return f"{size(self._received)} received"

    def _take(self, wanted: Wanted) -> bool:
        """Read a chunk from the cache; return whether it was there."""
        data = self._held.read(wanted.chunk, wanted.size)
        if data is None:
            return False
        wanted.take(data)
        return True

    def _work(self, queue: _Queue, advance: Advance) -> None:
        """Fetch batches until the queue is empty."""
        while True:
            coded = self._better_coded()
            batch = queue.take(CODED_BATCH if coded else self._raw_batch())
            if not batch:
                return
            self._fetch_batch(batch, advance, coded)

    def _raw_batch(self) -> int:
        """Return the bytes of a batch: enough that the latency of the request is at most a tenth of its duration.

        Larger batches would leave connections idle at the end of a pull: while one connection verifies and caches a
        chunk, the other one must have work.
        """
        if self._connection.local:
            return BATCH
        moved = 10 * self._connection.delay * self._connection.down.rate
        return int(min(BATCH, max(CODED_BATCH, moved)))

    def _better_coded(self) -> bool:
        """Return whether encoded chunks arrive faster, according to the measurements."""
        down = self._connection.down
        if self._connection.local:
            return False
        if self._coded.known and down.known:
            return self._coded.rate > _NEARLY * down.rate
        return not down.known or down.rate < CODED_BELOW

    def _fetch_batch(self, batch: list[Wanted], advance: Advance, coded: bool) -> None:
        """Fetch chunks; after an interruption, continue with those that are still missing."""
        left = list(batch)
        if left:
            self._connection.attempt(lambda: self._receive_all(left, advance, coded), lambda: self._arrived)

    def _receive_all(self, left: list[Wanted], advance: Advance, coded: bool) -> None:
        useless: set[str] = set()
        while left:
            try:
                self._receive(left, advance, coded, useless)
            except _NoBase as error:
                # The cache lost a base in the meantime. Request the rest without it. A server that uses the base again
                # would cause an endless loop.
                if self._base is None or error.base not in self._base.slots.chunks or error.base in useless:
                    raise _damaged(left[0], f"it depends on {error.base[:12]}, which is not here") from None
                useless.add(error.base)

    def _receive(self, left: list[Wanted], advance: Advance, coded: bool, useless: set[str]) -> None:
        meter = self._coded if coded else self._connection.down
        body = self._order(left, useless) if coded else WantedChunks(want=tuple(wanted.chunk for wanted in left))
        # The caller's memory must keep its values if a chunk is damaged, so verify the bytes in a buffer first. The
        # extra copy takes less time than the hash.
        scratch = memoryview(bytearray(max(wanted.size for wanted in left)))
        # The server encodes before it answers, so for encoded chunks this time is part of the measurement.
        with (
            meter.busy(0.0 if coded else self._connection.delay),
            self._connection.stream("POST", f"{self._version}/chunks", body) as answer,
        ):
            read = body_reader(answer)
            while left:
                wanted = left[0]
                data = self._receive_frame(read, wanted, scratch[: wanted.size])
                meter.count(wanted.size)
                wanted.take(data)
                left.pop(0)  # after an interruption, a retry requests only the rest
                self._arrived += 1
                advance(wanted.size)

    def _order(self, left: Sequence[Wanted], useless: set[str]) -> WantedChunks:
        """Return the request for chunks in their shortest form, with the possible delta bases."""
        want = tuple(each.chunk for each in left)
        base = self._base
        if base is None:
            return WantedChunks(want=want, accept=(CODECS[ZSTD], CODECS[SOLO]))
        # The server checks that these chunks are in the manifest of the base, and ignores others.
        counterparts = [base.counterpart(chunk) for chunk in want]
        have = tuple({each for each in counterparts if each is not None and each not in useless})
        return WantedChunks(want=want, accept=(CODECS[ZSTD], CODECS[SOLO], CODECS[DELTA]), base=base.digest, have=have)

    def _receive_frame(self, read: Callable[[memoryview], None], wanted: Wanted, scratch: memoryview) -> Buffer:
        """Receive and verify a chunk; cache it if it came over a slow link.

        Parameters
        ----------
        scratch : memoryview
            Buffer of the size of the chunk, for a raw frame.
        """
        head = bytearray(HEADER_SIZE)
        read(memoryview(head))
        frame = chunk_frames.read_header(head, answer=True)
        if frame.codec == FAILED:
            raise _failed(wanted, read, frame.payload)
        if frame.chunk != wanted.chunk or frame.size != wanted.size:
            raise _damaged(wanted, "the server sent another one")
        payload = scratch if frame.codec == RAW else memoryview(bytearray(frame.payload))
        read(payload)
        self._received += HEADER_SIZE + frame.payload
        data = payload if frame.codec == RAW else self._decoded(wanted, frame, payload)
        # The server is not trusted: every chunk is hashed.
        if len(data) != wanted.size or blake3(data).hexdigest() != wanted.chunk:
            raise _damaged(wanted, "its bytes do not match its id")
        self._keep(frame, payload, data)
        return data

    def _decoded(self, wanted: Wanted, frame: Frame, payload: memoryview) -> Buffer:
        try:
            return codecs.decode(frame, payload, self._base_data)
        except IntegrityError as error:
            raise _damaged(wanted, error.message) from None

    def _base_data(self, chunk: str) -> Buffer:
        data = self._base.read(chunk) if self._base else None
        if data is None:
            raise _NoBase(chunk)
        return data

    def _keep(self, frame: Frame, payload: memoryview, data: Buffer) -> None:
        if self._connection.local or self._connection.down.rate >= FAST:
            return
        if frame.codec == DELTA:  # a delta needs its base to decode, so the cache gets the chunk raw
            self._held.keep(frame.chunk, [data])
        else:
            self._held.keep_frame(frame, payload)


class _NoBase(Exception):
    """A delta depends on a chunk that is not cached any more."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.base = base


def take_probe(queue: deque[T], size_of: Callable[[T], int], size: int) -> list[T]:
    """Remove chunks of about `size` bytes from a queue, for a measurement of the link in one request.

    Takes one chunk of at least `size` bytes, or several shorter ones, because a small transfer is too short to measure.
    Returns an empty list if the chunks would be more than a quarter of the queue.
    """
    # Sort key: chunks of at least `size` first, then by the distance from `size`.
    best = min(queue, key=lambda each: (size_of(each) < size, abs(size_of(each) - size)), default=None)
    if best is None:
        return []
    taken, left = [best], size - size_of(best)
    for each in queue:
        if left <= 0 or len(taken) >= BATCH_CHUNKS:
            break
        if each is not best:
            taken.append(each)
            left -= size_of(each)
    if 4 * sum(map(size_of, taken)) > sum(map(size_of, queue)):
        return []
    chosen = set(map(id, taken))
    left_over = [each for each in queue if id(each) not in chosen]
    queue.clear()
    queue.extend(left_over)
    return taken


class _Queue:
    """Queue of the chunks that are not requested yet. Several threads remove chunks from the queue."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted, self._lock = deque(wanted), Lock()

    def probe(self) -> list[Wanted]:
        """Take chunks for a measurement of the link; see `take_probe`."""
        return take_probe(self._wanted, lambda wanted: wanted.size, PROBE)

    def take(self, size: int) -> list[Wanted]:
        """Take the next chunks until they have `size` bytes or more, at most `BATCH_CHUNKS`."""
        batch: list[Wanted] = []
        with self._lock:
            while self._wanted and size > 0 and len(batch) < BATCH_CHUNKS:
                batch.append(self._wanted.popleft())
                size -= batch[-1].size
        return batch


def _failed(wanted: Wanted, read: Callable[[memoryview], None], length: int) -> LmvpError:
    """Return the error in a failure frame of the server. See docs/format.md, "The wire"."""
    data = bytearray(length)
    read(memoryview(data))
    error = error_of(bytes(data))
    if isinstance(error, IntegrityError):
        return _damaged(wanted, error.message)
    return error


def _damaged(wanted: Wanted, why: str) -> IntegrityError:
    return IntegrityError(
        f"the chunk {wanted.chunk[:12]} of {wanted.file!r} is damaged: {why}",
        hint="`lmvp fsck` on the server tells what else is",
    )


def body_reader(answer: Any) -> Callable[[memoryview], None]:
    """Return a function that reads the body of a response into memory, without a copy in between."""
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
    """Yield the chunks that overlap ranges of a file, with the targets of their bytes.

    Parameters
    ----------
    places : sequence of (start, end, memory)
        Ranges of the file, sorted and without overlaps.
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
    # A chunk completely inside the range is copied at once; otherwise copy the part that overlaps.
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
    """Request a chunk once if it occurs several times in the version, for example in a tensor of zeros."""
    merged: dict[str, Wanted] = {}
    for piece in wanted:
        earlier = merged.setdefault(piece.chunk, piece)
        if earlier is not piece:
            earlier.deliver += piece.deliver
            if piece.direct is not None:
                earlier.deliver.append(partial(_copy, piece.direct))
    return list(merged.values())


_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE)


def pull_files(reader: VersionReader, folder: Path) -> list[Path]:
    """Write all files of a version to a folder, byte-identical. Existing files with the same names are replaced.

    All files are written under temporary names and renamed when they are complete, so a failed pull leaves the folder
    unchanged.

    Returns
    -------
    list of Path
        Paths of the files, in the order of the version.

    Raises
    ------
    StorageFull, StorageReadOnly
        If the disk is full or does not allow writing.
    InvalidManifest
        If a path leads out of the folder, or if the disk treats two names of the version as the same.
    InvalidArgument
        If a folder exists under the name of a file.
    """
    files = reader.manifest.files
    full, refused = "free some space and pull again", "choose another folder"
    with write_errors(folder, full=full, refused=refused), _temporaries() as temporaries:
        targets = [(file, _target_path(folder, file)) for file in files]
        _check_room(folder, sum(file.size for file in files))
        folder.mkdir(parents=True, exist_ok=True)
        _check_case(folder, files)
        parts: dict[str, Path] = {}
        for file, target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            parts[file.path] = temporary = target.with_name(f".lmvp-{secrets.token_hex(6)}.part")
            temporaries[temporary] = target
            # The mode before the umask, as for every file that a user creates.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        reader.fetch_all(files, lambda path, offset, piece: _write(parts[path], offset, piece))
        for temporary, target in temporaries.items():
            temporary.replace(target)
    return [target for _, target in targets]


def _target_path(folder: Path, file: File) -> Path:
    problem = path_problem(file.path)
    if not problem and os.name == "nt" and is_reserved(file.path):
        problem = "is reserved on Windows"
    if problem:  # the server checked this too, but a client must not rely on it
        raise InvalidManifest(f"the path {file.path[:80]!r} {problem}")
    target = folder / file.path
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise InvalidManifest(f"{file.path!r} leads out of {folder}, by a link", hint="pull to an empty folder")
    if target.is_dir() and not target.is_symlink():
        raise InvalidArgument(f"{target} is a folder, but a file in this version", hint="pull to an empty folder")
    return target


def is_reserved(path: str) -> bool:
    """Return whether Windows would treat a part of a path as a device, a stream, or another name.

    Examples
    --------
    >>> [is_reserved(path) for path in ("a/CON", "nul.txt", "a:b", "x.", "y /z", "console.txt", "a.b")]
    [True, True, True, True, True, False, False]
    """
    return any(
        _RESERVED.fullmatch(part) or part[-1:] in ". " or set(part) & set('<>:"|?*\\') for part in path.split("/")
    )


def _check_room(folder: Path, size: int) -> None:
    """Check the free disk space before the download.

    A manifest can repeat one small chunk, so files can be much larger than the transfer.
    """
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    disk = shutil.disk_usage(above)
    if disk.total and size > disk.free:  # some file systems report a size of 0
        raise StorageFull(f"no room for {size:,} bytes on the disk of {folder}", hint="free some space and pull again")


def _check_case(folder: Path, files: Sequence[File]) -> None:
    """Refuse names that the disk treats as the same, because one file would replace the other."""
    seen: dict[str, str] = {}
    for file in files:
        path = file.path
        while path:  # folders too, for example `A/x` and `a/y`
            other = seen.setdefault(_folded(path), path)
            if other != path and not _tells_apart(folder, other, path):
                raise InvalidManifest(
                    f"{other!r} and {path!r} are one name on the disk of {folder}", hint="pull to another disk"
                )
            path = path.rpartition("/")[0]


def _folded(path: str) -> str:
    """Return a form that is equal for names that some disk treats as the same, in case or Unicode normalization."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _tells_apart(folder: Path, name: str, other: str) -> bool:
    """Return whether the disk treats two names with the same `_folded` form as different."""
    composed = [unicodedata.normalize("NFC", path) for path in (name, other)]
    # Probe with names of this process, so that no file of the user is touched.
    mark = f".lmvp-{secrets.token_hex(6)}"
    pairs = [(f"{mark}.part", f"{mark.upper()}.PART")] if composed[0] != composed[1] else []
    if len({name, other}) > 1 and (composed[0] == composed[1] or [name, other] != composed):
        pairs.append((f"{mark}\u00e4.part", f"{mark}a\u0308.part"))
    return all(_are_two(folder, *pair) for pair in pairs)


def _are_two(folder: Path, name: str, other: str) -> bool:
    probe = folder / name
    probe.touch(exist_ok=False)
    try:
        return not (folder / other).exists()
    finally:
        probe.unlink()


def _write(path: Path, offset: int, piece: memoryview) -> None:
    """Write a piece of an existing file. It is opened for each piece, because thousands of files can be in progress."""
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        _write_at(descriptor, offset, piece)
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, offset: int, piece: memoryview) -> None:
    while piece:  # `pwrite` can write fewer bytes than requested
        count = os.pwrite(descriptor, piece, offset)
        offset, piece = offset + count, piece[count:]


@contextmanager
def _temporaries() -> Iterator[dict[Path, Path]]:
    """Yield a table of temporary files; delete those that still exist at the end."""
    table: dict[Path, Path] = {}
    try:
        yield table
    finally:
        for temporary in table:
            with suppress(OSError):
                temporary.unlink()
