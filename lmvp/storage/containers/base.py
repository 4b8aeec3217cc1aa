"""What a container tells about a file, and how it is read: through a window, within a budget, never past the end."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lmvp.storage.safetensors import Span, tensor_size

Read: TypeAlias = Callable[[int, int], "bytes | memoryview"]
"""Gives `n` bytes from an offset: `read(offset, n)`."""

TENSORS = 20_000
"""Tensors of one file at most: more would not fit into a manifest. Such a file is just bytes."""

NAME_LIMIT = 1024
"""Bytes of a tensor's name at most."""

_LEAST, _MOST = 1 << 10, 1 << 16
"""Bytes that are read at once: more and more, as long as they follow one another."""


class Broken(ValueError):
    """The file is not what it looks like. Never leaves this folder: such a file is just bytes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a file is to be cut.

    Attributes
    ----------
    tensors : tuple of Span
        Raw little-endian numbers in C order, in model order; without overlaps, each name once.
    breaks : tuple of int
        Offsets at which something else begins that may be the same in another version.
    """

    tensors: tuple[Span, ...] = ()
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A tensor that lies in another file: at `offset` of the file at `path`, relative to the one that tells it."""

    path: str
    span: Span


def placed(spans: Sequence[Span], size: int) -> tuple[Span, ...]:
    """Return those of the tensors that a manifest may list, in their order.

    What contradicts itself is left out: a size that is not that of dtype and shape, a place beyond the end of the file,
    a name that is no Unicode or stands twice. Of two that overlap, the first in the file stays.
    """
    if len(spans) > TENSORS:
        return ()
    kept, names, position = set(), set(), 0
    for span in sorted(spans, key=lambda span: (span.offset, span.size)):
        end = span.offset + span.size
        apart = position <= span.offset or not span.size
        if apart and end <= size and _makes_sense(span) and span.name not in names:
            kept.add(id(span))
            names.add(span.name)
            position = max(position, end)
    return tuple(span for span in spans if id(span) in kept)


def _makes_sense(span: Span) -> bool:
    try:
        return len(span.name.encode()) <= NAME_LIMIT and tensor_size(span.dtype, span.shape) == span.size
    except UnicodeEncodeError:
        return False


@dataclass(slots=True)
class Budget:
    """What a file may say about itself: so many bytes, in so many steps."""

    bytes: int = 64 << 20
    steps: int = 4_000_000

    def spend(self, count: int) -> None:
        """Take one step over some bytes."""
        self.bytes -= count
        self.steps -= 1
        if self.bytes < 0 or self.steps < 0:
            raise Broken("it says too much about itself")


class Cursor:
    r"""Reads numbers and bytes from `at` on, front to back.

    Examples
    --------
    >>> data = b"\x02\x00abc"
    >>> cursor = Cursor(lambda at, n: data[at : at + n], len(data))
    >>> cursor.number(2), cursor.take(2), cursor.at
    (2, b'ab', 4)
    >>> cursor.take(2)
    Traceback (most recent call last):
    lmvp.storage.containers.base.Broken: 2 bytes wanted at 4, the end is at 5
    """

    def __init__(self, read: Read, end: int, at: int = 0, budget: Budget | None = None) -> None:
        self._read, self._budget = read, budget or Budget()
        self._window, self._start = b"", 0
        self.end, self.at = end, at

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        start = self.at
        self._budget.spend(count)
        self._pass(count)
        if not self._start <= start <= self.at <= self._start + len(self._window):
            self._look(start, count)
        return self._window[start - self._start : self.at - self._start]

    def _look(self, start: int, count: int) -> None:
        """Read ahead."""
        follows = self._start <= start <= self._start + len(self._window)
        ahead = min(2 * len(self._window), _MOST) if follows else _LEAST
        self._window = bytes(self._read(start, min(max(count, ahead), self.end - start)))
        self._start = start

    def skip(self, count: int) -> None:
        """Pass over bytes without reading them."""
        self._budget.spend(0)
        self._pass(count)

    def _pass(self, count: int) -> None:
        if not 0 <= count <= self.end - self.at:
            raise Broken(f"{count} bytes wanted at {self.at}, the end is at {self.end}")
        self.at += count

    def number(self, count: int) -> int:
        """Return the next bytes as an unsigned integer."""
        return int.from_bytes(self.take(count), "little")

    def unpack(self, form: str) -> tuple[int, ...]:
        """Return the next bytes as `struct` reads them, little-endian and without gaps."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))


def within(read: Read, start: int) -> Read:
    """Read a file that lies inside another from `start` on."""
    return lambda offset, count: read(start + offset, count)


def moved(spans: Sequence[Span], by: int) -> Iterator[Span]:
    """Give the tensors of a file that lies inside another, as they lie in that."""
    for span in spans:
        yield Span(span.name, span.dtype, span.shape, span.offset + by, span.size)
