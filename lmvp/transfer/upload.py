"""Push of a version: send the manifest, send the chunks that the server lacks, commit.

A small push is one request. A large push sends batches of frames over several connections; raw chunks are sent from the
memory of the tensors without a copy. An interrupted push continues with the chunks that are still missing. Chunks of an
abandoned push are reused by the next one. See docs/format.md, "The wire".
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Any

import msgspec

from lmvp.connection import Connection
from lmvp.core import chunk_frames, codecs
from lmvp.core import manifest as manifests
from lmvp.core.chunk_alignment import Slots
from lmvp.core.chunk_frames import (
    BATCH_LIMIT,
    DELTA,
    HEADER_SIZE,
    RAW,
    Frame,
)
from lmvp.core.codecs import Buffer, Encoded, Link
from lmvp.core.manifest import Manifest
from lmvp.core.number_format import size
from lmvp.core.schemas import NewPush, Push, Received, Version
from lmvp.errors import Conflict, FileChanged, IntegrityError, InvalidRequest, MissingChunks
from lmvp.formats.base import Package
from lmvp.transfer.download import take_probe
from lmvp.transfer.manifest_builder import Description, Place, describe
from lmvp.transfer.model_cache import FAST, Base, Held
from lmvp.transfer.progress import Advance, Progress, Workers, halves, showing

SMALL = 1 << 20
"""Maximum bytes of a push in one request."""

_SOON = 0.1
"""Maximum seconds that the body of such a request can take. A larger push first asks which chunks are missing."""

_LENGTH = struct.Struct("<I")


def push(
    connection: Connection,
    model: str,
    package: Package,
    body: NewPush,
    progress: Progress = None,
    held: Held | None = None,
) -> Version:
    """Publish a package as a version.

    Parameters
    ----------
    model : str
        Path of the model in the API.
    body : NewPush
        The request without the manifest, which this function adds.
    held : Held, optional
        The cached data of the model. Chunks sent over a slow link are added to it.

    Raises
    ------
    FileChanged
        If the bytes changed while they were read.
    """
    total = sum(file.size for file in package.files)
    before = connection.sent

    def moved() -> str:
        return f"{size(connection.sent - before)} sent"

    with showing(progress, total, "push", moved) as bar:
        advance = halves(bar)  # each byte is hashed, and then sent or known to the server
        described = describe(package, advance)
        try:
            return push_described(connection, model, described, body, package.finish, advance, held)
        except IntegrityError as error:
            # The server hashed other bytes than `describe` did.
            raise FileChanged(
                f"the bytes changed while they were pushed ({error.message})",
                hint="push a model while nothing trains it or writes to its files",
            ) from error


def push_described(
    connection: Connection,
    model: str,
    described: Description,
    body: NewPush,
    finish: Callable[[], None] = lambda: None,
    advance: Advance = lambda _: None,
    held: Held | None = None,
) -> Version:
    """Publish a package whose manifest was computed already; see `push`.

    Parameters
    ----------
    finish : callable
        Called after the last byte was read and before the commit.
    """
    manifest = msgspec.Raw(msgspec.json.encode(described.manifest, order="sorted"))
    full = msgspec.structs.replace(body, manifest=manifest)
    work = _Push(connection, model, described, full, finish, held or Held(None, ""), advance)
    version = work.small() or work.large()
    work.remember(version)
    return version


@dataclass(frozen=True, slots=True)
class _Push:
    """The state of a running push."""

    connection: Connection
    model: str
    described: Description
    body: NewPush
    finish: Callable[[], None]
    held: Held
    advance: Advance

    @property
    def path(self) -> str:
        """Path of the push in the API."""
        return f"{self.model}/pushes/{self.body.push}"

    def small(self) -> Version | None:
        """Push in one request; return None if it is too large or the server lacks chunks afterwards."""
        limit = SMALL if self.connection.local else min(SMALL, int(_SOON * self.connection.up.rate))
        if self.described.bytes > limit:
            return None
        encoded = msgspec.json.encode(self.body)
        pieces = [raw(chunk, place) for chunk, place in self.described.places.items()]
        whole = b"".join(Batch(pieces, _LENGTH.pack(len(encoded)) + encoded))  # one write avoids waiting for ACKs
        self.finish()
        try:
            version = self.connection.send_frames("POST", f"{self.model}/versions", whole, Version)
        except MissingChunks:  # the server lost chunks during the push; a large push sends them again
            return None
        self.advance(self.described.manifest.size)
        return version

    def large(self) -> Version:
        """Push in several requests."""
        begun = self.connection.send_json("POST", f"{self.model}/pushes", self.body, Push)
        missing = begun.missing
        # Chunks that the server has count as sent.
        self.advance(self.described.manifest.size - sum(self.described.places[chunk].size for chunk in missing))
        base = self.held.base_at(begun.base, self.described.manifest) if begun.base else None
        sender = Sender(self.connection, self.path, self.described, self.held, base, self.advance)
        for _ in range(2):  # the commit after the loop reports the error
            sender.send(missing)
            self.finish()
            try:
                return self.commit()
            except MissingChunks as error:  # the server lost chunks, for example because its disk was full
                missing = tuple(error.missing)
        return self.commit()

    def commit(self) -> Version:
        """Commit the push; return the new version."""
        return self.connection.send_json("POST", f"{self.path}/commit", {}, Version)

    def remember(self, version: Version) -> None:
        """Cache the version as a base of the next push, unless the link is so fast that this does not pay off."""
        if self.connection.local or (self.connection.up.known and self.connection.up.rate >= FAST):
            return
        # The server adds the parents, so the digest of the version needs them.
        parents = tuple(parent.digest for parent in version.parents)
        self.held.keep_manifest(
            version.digest, manifests.encode(msgspec.structs.replace(self.described.manifest, parents=parents))
        )
        for chunk, place in self.described.places.items():
            if not self.held.has(chunk):
                self.held.keep(chunk, place.read())
        self.held.note(version.digest)


CONNECTIONS = 3
"""Number of batches that are sent at once."""

CODED_BATCH = 4 << 20
"""Maximum bytes of chunks in a request with encoded chunks. It is smaller than a raw batch, so that the choice between
raw and encoded follows new measurements soon."""

PROBE = 256 << 10
"""Bytes of the first measurement of a link."""

_SYNC = 0.004
"""Minimum seconds that a server takes to sync a chunk to disk. They do not count as time of the link."""

_AT_ONCE = 2
"""Maximum number of chunks that are encoded at once. Encoding takes several times the memory of a chunk."""

_COLD = 100e6
"""Bytes per second below which the first encoding is measured again, because it can include the import of modules."""

_TELLING = 0.04
"""Minimum seconds of a request from which the speed of the link is measured. In shorter ones, latency and the server's
disk dominate."""

_MARGIN = 0.8
"""Fraction of the encoding speed that is counted on, because the server must decode at the same speed."""

_QUICK, _SHORT = 60e6, 1.5
"""A push of less than `_SHORT` seconds over a link of more than `_QUICK` bytes per second is sent raw: loading the
encoders could take longer."""

_SO_FAST = 500e6
"""Bytes per second of a link above which encoding is not tried, because it is slower than the link."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A frame to send: the header, and the payload or the place from which a raw chunk is read."""

    frame: Frame
    payload: Buffer | Place

    @property
    def length(self) -> int:
        """Bytes of header and payload."""
        return HEADER_SIZE + self.frame.payload

    def read(self) -> list[Any]:
        """Return the payload in pieces."""
        return self.payload.read() if isinstance(self.payload, Place) else [self.payload]


class Batch:
    """The frames of one request. Its length is known, and each iteration reads the raw chunks again, for a retry.

    Parameters
    ----------
    go_on : callable
        Called before each frame; an error that it raises stops the request.
    """

    def __init__(
        self, pieces: Sequence[Piece], head: bytes = b"", raise_if_stopped: Callable[[], None] = lambda: None
    ) -> None:
        self._pieces, self._head, self._raise_if_stopped = pieces, head, raise_if_stopped
        self._length = len(head) + sum(piece.length for piece in pieces)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if self._head:
            yield self._head
        for piece in self._pieces:
            self._raise_if_stopped()
            yield chunk_frames.header(piece.frame)
            yield from piece.read()


def raw(chunk: str, place: Place) -> Piece:
    """Return a raw frame of a chunk."""
    return Piece(Frame(chunk, place.size, place.size), place)


class _Coded:
    """Measurements of encoding during one push: time and compression ratio."""

    def __init__(self) -> None:
        self.size = 0
        self._length, self._seconds = 0, 0.0
        self._lock = Lock()

    def note(self, piece: Piece, seconds: float) -> None:
        """Add the measurement of one encoded chunk."""
        with self._lock:
            self.size += piece.frame.size
            self._length += piece.length
            self._seconds += seconds

    def rate(self, link: float) -> float:
        """Return the decoded bytes per second if chunks are sent encoded over a link of `link` bytes per second."""
        with self._lock:
            if not self.size:
                return 0.0
            # The slower one of link and encoder limits the transfer, because they overlap.
            return min(link * self.size / self._length, _MARGIN * self.size / self._seconds)


class Sender:
    """Sends the chunks of one push.

    Parameters
    ----------
    push : str
        Path of the push in the API.
    base : Base, optional
        The cached version whose chunks are delta bases.
    """

    def __init__(
        self,
        connection: Connection,
        push: str,
        described: Description,
        held: Held,
        base: Base | None,
        advance: Advance,
    ) -> None:
        self._connection, self._push, self._described = connection, push, described
        self._held, self._base, self._advance = held, base, advance
        self._slots = None if connection.local else _slots(described.manifest, base)
        self._coded = _Coded()
        # `Connection.attempt` starts its count of retries again whenever this changes. Threads count without a lock,
        # because the exact value does not matter.
        self._arrived = 0
        self._queue: deque[str] = deque()
        self._total = 0
        self._workers = Workers()
        self._lock, self._turns = Lock(), BoundedSemaphore(_AT_ONCE)

    def send(self, missing: Sequence[str]) -> None:
        """Send chunks in several batches at once."""
        self._queue, self._total = deque(missing), sum(map(self._size, missing))
        if not self._connection.local and not self._connection.up.fresh:
            self._probe()
        self._workers.run(self._work, CONNECTIONS)

    def _work(self) -> None:
        while True:
            self._workers.raise_if_stopped()
            coded = self._better_coded()
            chunks = self._take(CODED_BATCH if coded else BATCH_LIMIT)
            if not chunks:
                return
            if coded:
                self._send_coded(chunks)
            else:
                self._send_raw(chunks)

    def _take(self, limit: int) -> list[str]:
        """Take the next chunks from the queue, up to `limit` bytes but at least one."""
        taken: list[str] = []
        with self._lock:
            while self._queue and (not taken or self._size(self._queue[0]) <= limit):
                taken.append(self._queue.popleft())
                limit -= self._size(taken[-1])
        return taken

    def _probe(self) -> None:
        """Measure the link with a few raw chunks, and with more until a request takes long enough."""
        size, seconds = PROBE, 0.0
        while seconds < _TELLING and self._queue:
            chunks = take_probe(self._queue, self._size, size)
            if not chunks:
                return
            start = time.perf_counter()
            self._send_raw(chunks)
            seconds = time.perf_counter() - start
            size = max(size, int(self._connection.up.rate * _TELLING))

    def _size(self, chunk: str) -> int:
        return self._described.places[chunk].size

    # -- raw or encoded

    def _better_coded(self) -> bool:
        """Return whether sending encoded chunks is faster than sending them raw."""
        rate = self._connection.up.rate
        if self._connection.local or rate > _SO_FAST or (rate > _QUICK and self._total < _SHORT * rate):
            return False
        with self._lock:  # one thread measures; the others wait, because they need the result
            if not self._coded.size and self._queue:
                # The largest chunk, because short ones say little about the speed.
                self._sample(max(self._queue, key=self._size))
        return self._coded.rate(rate) > rate

    def _sample(self, chunk: str) -> None:
        """Encode a chunk for a measurement; repeat it if it was slow, because the first one loads modules."""
        start = time.perf_counter()
        piece = self._encoded(chunk, deltas=True)
        seconds = time.perf_counter() - start
        if piece.frame.size < _COLD * seconds:
            self._timed(chunk, deltas=True)
        else:
            self._coded.note(piece, seconds)

    def _timed(self, chunk: str, *, deltas: bool) -> Piece:
        """Encode a chunk and add the measurement."""
        with self._turns:  # without the time that this thread waits for its turn
            start = time.perf_counter()
            piece = self._encoded(chunk, deltas=deltas)
            self._coded.note(piece, time.perf_counter() - start)
        return piece

    # -- one batch

    def _send_raw(self, chunks: Sequence[str]) -> None:
        self._put([raw(chunk, self._described.places[chunk]) for chunk in chunks])

    def _send_coded(self, chunks: Sequence[str]) -> None:
        pieces = [self._timed(chunk, deltas=True) for chunk in chunks]
        try:
            self._put(pieces)
        except (Conflict, InvalidRequest):  # a delta base is missing or damaged on the server, or was refused
            if all(piece.frame.codec != DELTA for piece in pieces):
                raise
            self._base = None
            self._put([self._timed(chunk, deltas=False) for chunk in chunks])

    def _encoded(self, chunk: str, *, deltas: bool) -> Piece:
        """Encode a chunk to the shortest form: delta, standalone or raw."""
        source = self._described.places[chunk]
        pieces = source.read()
        data: Buffer = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        dtype = self._slots.dtype(chunk) if self._slots else None
        # A delta is only returned if its sample is smaller than that of the standalone encoding.
        encoded = (self._delta(chunk, data, dtype) if deltas and dtype else None) or codecs.encode(data, dtype)
        if encoded.codec == RAW:
            return raw(chunk, source)
        return Piece(Frame(chunk, source.size, len(encoded.payload), encoded.codec), encoded.payload)

    def _delta(self, chunk: str, data: Buffer, dtype: str) -> Encoded | None:
        base = self._base
        counterpart = base.counterpart(chunk) if base else None
        old = base.read(counterpart) if base and counterpart else None
        if old is None or counterpart is None or len(old) != len(data):
            return None
        # Depth 1: the server decodes an uploaded delta and stores it raw, so chains do not grow.
        return codecs.encode_delta(data, dtype, old, Link(counterpart, 1))

    def _put(self, pieces: Sequence[Piece]) -> None:
        """Send frames. After an interruption, send those that the server still lacks."""
        left = list(pieces)
        if not left:
            return
        tried = False

        def attempt() -> None:
            nonlocal tried
            if tried:
                self._drop_arrived(left)
            tried = True
            if left:
                batch = Batch(left, raise_if_stopped=self._workers.raise_if_stopped)
                with self._connection.up.busy(self._connection.delay + _SYNC):
                    self._connection.put_frames(f"{self._push}/chunks", batch, Received)
                    self._connection.sent += len(batch)
                    if all(piece.frame.codec == RAW for piece in left):  # otherwise the server's decoding would count
                        self._connection.up.count(sum(piece.length for piece in left))

        self._connection.attempt(attempt, lambda: self._arrived)
        self._arrived += 1
        for piece in pieces:
            self._advance(piece.frame.size)
            self._keep(piece)

    def _drop_arrived(self, left: list[Piece]) -> None:
        # Frames before the interruption can have arrived; ask, instead of sending them again.
        missing = set(self._connection.get_once(self._push, Push).missing)
        lacking = [piece for piece in left if piece.frame.chunk in missing]
        self._arrived += len(left) - len(lacking)
        left[:] = lacking

    def _keep(self, piece: Piece) -> None:
        """Cache a chunk as a delta base of the next push, unless the link is so fast that this does not pay off."""
        chunk = piece.frame.chunk
        if self._connection.local or self._connection.up.rate >= FAST or self._held.has(chunk):
            return
        # A delta needs its base to decode, so the cache gets the chunk raw.
        if piece.frame.codec in (RAW, DELTA):
            self._held.keep(chunk, self._described.places[chunk].read())
        else:
            self._held.keep_frame(piece.frame, piece.payload if not isinstance(piece.payload, Place) else b"")


def _slots(manifest: Manifest, base: Base | None) -> Slots:
    return base.of if base else Slots(manifest)
