"""Data types of the container readers, and a bounded cursor that reads a file through a window."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lmvp.core.safetensors import Span, tensor_size

Read: TypeAlias = Callable[[int, int], "bytes | memoryview"]
"""Returns `n` bytes at an offset: `read(offset, n)`."""

TENSORS = 20_000
"""Maximum tensors of a file. More would not fit into a manifest, so such a file is treated as plain bytes."""

NAME_LIMIT = 1024
"""Maximum bytes of a tensor's name."""

_LEAST, _MOST = 1 << 10, 1 << 16
"""Minimum and maximum bytes of a window. The size doubles as long as reads are sequential, and starts small because
most reads of a header are short."""


class Broken(ValueError):
    """The file is damaged or of another format. `layout` catches this error and treats the file as plain bytes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The offsets at which a file is cut.

    Attributes
    ----------
    tensors : tuple of Span
        Raw little-endian numbers in C order, in model order, without overlaps and with unique names.
    breaks : tuple of int
        Offsets of other parts that can be equal in another version.
    """

    tensors: tuple[Span, ...] = ()
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A tensor in another file, at `span.offset` in the file at `path`, which is relative to the file that names it."""

    path: str
    span: Span


def placed(spans: Sequence[Span], size: int) -> tuple[Span, ...]:
    """Return the tensors that a manifest can list, in the given order.

    Tensors are omitted if their size does not match dtype and shape, if they reach beyond the end of the file, or if
    their name is not valid Unicode or not unique. Of two overlapping tensors, the first one in the file is listed.
    """
    if len(spans) > TENSORS:
        return ()
    # By identity, because two spans can be equal.
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
    """Limits for the bytes and steps spent on the headers of one file. They reject small files that are costly."""

    bytes: int = 64 << 20
    steps: int = 4_000_000

    def spend(self, count: int) -> None:
        """Count one step and its bytes; raise `Broken` above a limit."""
        self.bytes -= count
        self.steps -= 1
        if self.bytes < 0 or self.steps < 0:
            raise Broken("it says too much about itself")


class Cursor:
    r"""Reads numbers and bytes sequentially, starting at `at`.

    Examples
    --------
    >>> data = b"\x02\x00abc"
    >>> cursor = Cursor(lambda at, n: data[at : at + n], len(data))
    >>> cursor.number(2), cursor.take(2), cursor.at
    (2, b'ab', 4)
    >>> cursor.take(2)
    Traceback (most recent call last):
    lmvp.core.containers.base.Broken: 2 bytes wanted at 4, the end is at 5
    """

    def __init__(self, read: Read, end: int, at: int = 0, budget: Budget | None = None) -> None:
        self._read, self._budget = read, budget or Budget()
        self._window, self._start = b"", 0
        self.end, self.at = end, at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        start = self.at
        self._budget.spend(count)
        self._pass(count)
        if not self._start <= start <= self.at <= self._start + len(self._window):
            self._look(start, count)
        return self._window[start - self._start : self.at - self._start]

    def _look(self, start: int, count: int) -> None:
        """Read a window at `start`, larger than requested if reads are sequential."""
        follows = self._start <= start <= self._start + len(self._window)
        ahead = min(2 * len(self._window), _MOST) if follows else _LEAST
        self._window = bytes(self._read(start, min(max(count, ahead), self.end - start)))
        self._start = start

    def skip(self, count: int) -> None:
        """Move forward without reading."""
        self._budget.spend(0)  # a step is counted, so that a loop of empty skips also reaches the limit
        self._pass(count)

    def _pass(self, count: int) -> None:
        if not 0 <= count <= self.end - self.at:
            raise Broken(f"{count} bytes wanted at {self.at}, the end is at {self.end}")
        self.at += count

    def number(self, count: int) -> int:
        """Return the next bytes as an unsigned little-endian integer."""
        return int.from_bytes(self.take(count), "little")

    def unpack(self, form: str) -> tuple[int, ...]:
        """Unpack the next bytes with a `struct` format, little-endian and without padding."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))


def within(read: Read, start: int) -> Read:
    """Return a function that reads a file embedded in another one at offset `start`."""
    return lambda offset, count: read(start + offset, count)


def moved(spans: Sequence[Span], by: int) -> Iterator[Span]:
    """Yield spans of an embedded file, with offsets in the outer file."""
    for span in spans:
        yield Span(span.name, span.dtype, span.shape, span.offset + by, span.size)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a zip archive.

    The header is at `offset`, the data is `size` bytes at `start`. `plain` is true if the data is uncompressed.
    """

    name: str
    offset: int
    start: int
    size: int
    plain: bool
