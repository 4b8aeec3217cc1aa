"""Sending the chunks that a server lacks: raw over a fast link, encoded over a slow one.

Which is better is reckoned from what was measured: how fast the link is, how fast this machine encodes, and how much
shorter chunks become by it. Encoding, sending and the server's decoding overlap, since several batches are under way. A
batch that breaks off goes on with what the server still lacks of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Any

from lmvp.connection import Connection
from lmvp.errors import Conflict, InvalidRequest
from lmvp.records import Push, Received
from lmvp.storage import codecs, frames
from lmvp.storage.codecs import Buffer, Encoded, Link
from lmvp.storage.frames import BATCH_LIMIT, DELTA, HEADER_SIZE, RAW, Frame
from lmvp.storage.manifest import Manifest
from lmvp.storage.slots import Slots
from lmvp.transfer.describe import Description, Place
from lmvp.transfer.held import FAST, Base, Held
from lmvp.transfer.progress import Advance
from lmvp.transfer.pull import take_probe
from lmvp.transfer.workers import Workers

CONNECTIONS = 3

CODED_BATCH = 4 << 20
"""Bytes of chunks in a request that carries them encoded."""

PROBE = 256 << 10
"""Bytes that a link is first measured by."""

_SYNC = 0.004
"""Seconds that a server's disk takes to sync a chunk, at the least."""

_AT_ONCE = 2
"""Chunks that are encoded at once: each takes several times its size while that lasts."""

_COLD = 100e6
"""Bytes a second below which a first encoding may have been slow for want of what it loads."""

_TELLING = 0.04
"""Seconds of a transfer that tell of the link more than of delays on the way and on the server's disk."""

_MARGIN = 0.8
"""Share of the speed of encoding that is counted on: the other side must keep up, with decoding."""

_QUICK, _SHORT = 60e6, 1.5
"""Bytes a second from which on a push of fewer seconds is sent raw: to load what encodes might take longer."""

_SO_FAST = 500e6
"""Bytes a second over a link from which on nobody encodes faster: not even tried."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A frame that is ready to be sent: its payload, or where it is read from if it goes raw."""

    frame: Frame
    payload: Buffer | Place

    @property
    def length(self) -> int:
        """Bytes with the header."""
        return HEADER_SIZE + self.frame.payload

    def read(self) -> list[Any]:
        """Return the payload, in pieces."""
        return self.payload.read() if isinstance(self.payload, Place) else [self.payload]


class Batch:
    """Frames of one request: as long as it says, and read from their places at each iteration.

    Parameters
    ----------
    go_on : callable
        Called before each frame; what it raises ends the request.
    """

    def __init__(self, pieces: Sequence[Piece], head: bytes = b"", go_on: Callable[[], None] = lambda: None) -> None:
        self._pieces, self._head, self._go_on = pieces, head, go_on
        self._length = len(head) + sum(piece.length for piece in pieces)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if self._head:
            yield self._head
        for piece in self._pieces:
            self._go_on()
            yield frames.header(piece.frame)
            yield from piece.read()


def raw(chunk: str, place: Place) -> Piece:
    """Return a chunk as it is."""
    return Piece(Frame(chunk, place.size, place.size), place)


class _Coded:
    """What encoding cost and gained so far in one push."""

    def __init__(self) -> None:
        self.size = 0
        self._length, self._seconds = 0, 0.0
        self._lock = Lock()

    def note(self, piece: Piece, seconds: float) -> None:
        """Take in a chunk that was encoded."""
        with self._lock:
            self.size += piece.frame.size
            self._length += piece.length
            self._seconds += seconds

    def rate(self, link: float) -> float:
        """Return how many bytes a second, as they are when decoded, go encoded over a link of that many."""
        with self._lock:
            if not self.size:
                return 0.0
            return min(link * self.size / self._length, _MARGIN * self.size / self._seconds)


class Sender:
    """Sends the chunks of one push.

    Parameters
    ----------
    push : str
        The path of the push in the API.
    base : Base, optional
        What deltas may lean on.
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
        self._arrived = 0  # counted by all threads without a lock: it only tells that something came
        self._queue: deque[str] = deque()
        self._total = 0
        self._workers = Workers()
        self._lock, self._turns = Lock(), BoundedSemaphore(_AT_ONCE)

    def send(self, missing: Sequence[str]) -> None:
        """Send chunks, several batches at once."""
        self._queue, self._total = deque(missing), sum(map(self._size, missing))
        if not self._connection.local and not self._connection.up.fresh:
            self._probe()
        self._workers.run(self._work, CONNECTIONS)

    def _work(self) -> None:
        while True:
            self._workers.go_on()
            coded = self._better_coded()
            chunks = self._take(CODED_BATCH if coded else BATCH_LIMIT)
            if not chunks:
                return
            if coded:
                self._send_coded(chunks)
            else:
                self._send_raw(chunks)

    def _take(self, limit: int) -> list[str]:
        """Take the next chunks, at most so many bytes, and one at least."""
        taken: list[str] = []
        with self._lock:
            while self._queue and (not taken or self._size(self._queue[0]) <= limit):
                taken.append(self._queue.popleft())
                limit -= self._size(taken[-1])
        return taken

    def _probe(self) -> None:
        """Measure the link by a few raw chunks, small ones if it can be, until one took long enough to tell."""
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
        """Tell whether chunks are there sooner if they are encoded."""
        rate = self._connection.up.rate
        if self._connection.local or rate > _SO_FAST or (rate > _QUICK and self._total < _SHORT * rate):
            return False
        with self._lock:
            if not self._coded.size and self._queue:
                self._sample(max(self._queue, key=self._size))
        return self._coded.rate(rate) > rate

    def _sample(self, chunk: str) -> None:
        """Encode a chunk to see what that is worth; once more if it was slow, since the first loads what it needs."""
        start = time.perf_counter()
        piece = self._encoded(chunk, deltas=True)
        seconds = time.perf_counter() - start
        if piece.frame.size < _COLD * seconds:
            self._timed(chunk, deltas=True)
        else:
            self._coded.note(piece, seconds)

    def _timed(self, chunk: str, *, deltas: bool) -> Piece:
        """Encode a chunk, and take in how long that took and what it gained."""
        with self._turns:
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
        except (Conflict, InvalidRequest):  # what a delta leans on is gone there by now
            if all(piece.frame.codec != DELTA for piece in pieces):
                raise
            self._base = None
            self._put([self._timed(chunk, deltas=False) for chunk in chunks])

    def _encoded(self, chunk: str, *, deltas: bool) -> Piece:
        """Return a chunk in its shortest form."""
        place = self._described.places[chunk]
        pieces = place.read()
        data: Buffer = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        dtype = self._slots.dtype(chunk) if self._slots else None
        found = (self._delta(chunk, data, dtype) if deltas and dtype else None) or codecs.encode(data, dtype)
        if found.codec == RAW:
            return raw(chunk, place)
        return Piece(Frame(chunk, place.size, len(found.payload), found.codec), found.payload)

    def _delta(self, chunk: str, data: Buffer, dtype: str) -> Encoded | None:
        base = self._base
        counterpart = base.counterpart(chunk) if base else None
        old = base.read(counterpart) if base and counterpart else None
        if old is None or counterpart is None or len(old) != len(data):
            return None
        return codecs.encode_delta(data, dtype, old, Link(counterpart, 1))

    def _put(self, pieces: Sequence[Piece]) -> None:
        """Send frames; after an interruption, those that the server still lacks."""
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
                batch = Batch(left, go_on=self._workers.go_on)
                with self._connection.up.busy(self._connection.delay + _SYNC):
                    self._connection.put_frames(f"{self._push}/chunks", batch, Received)
                    self._connection.sent += len(batch)
                    if all(piece.frame.codec == RAW for piece in left):  # else the server's decoding would count too
                        self._connection.up.count(sum(piece.length for piece in left))

        self._connection.attempt(attempt, lambda: self._arrived)
        self._arrived += 1
        for piece in pieces:
            self._advance(piece.frame.size)
            self._keep(piece)

    def _drop_arrived(self, left: list[Piece]) -> None:
        missing = set(self._connection.get_once(self._push, Push).missing)
        lacking = [piece for piece in left if piece.frame.chunk in missing]
        self._arrived += len(left) - len(lacking)
        left[:] = lacking

    def _keep(self, piece: Piece) -> None:
        """Keep a chunk for the next push, to lean on, unless the link is so fast that it would not pay."""
        chunk = piece.frame.chunk
        if self._connection.local or self._connection.up.rate >= FAST or self._held.has(chunk):
            return
        if piece.frame.codec in (RAW, DELTA):
            self._held.keep(chunk, self._described.places[chunk].read())
        else:
            self._held.keep_frame(piece.frame, piece.payload if not isinstance(piece.payload, Place) else b"")


def _slots(manifest: Manifest, base: Base | None) -> Slots:
    return base.of if base else Slots(manifest)
