"""What a format gives to a push and gets from a pull.

A format turns an object into a `Package`: files, each a row of sources whose bytes are read only when they are
needed, and where the tensors lie in them. The other way, it asks a `Reader` for small files and has tensors filled
straight into the memory where they belong. So neither way writes a temporary file or holds the tensors twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lmvp.errors import DamagedFile
from lmvp.storage.manifest import Manifest
from lmvp.storage.safetensors import Span as Span


@runtime_checkable
class Source(Protocol):
    """A run of bytes that can be read, in pieces, more than once, from any thread."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, size: int) -> memoryview:
        """Return `size` bytes from `offset` on; without a copy where there is one in memory."""
        ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """A source over bytes in memory: anything that has a contiguous buffer."""

    data: memoryview

    @classmethod
    def of(cls, buffer: Any) -> Bytes:
        """Wrap a bytes-like object of any item size."""
        view = memoryview(buffer)
        return cls(view.cast("B") if view.nbytes else memoryview(b""))

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.data.nbytes

    def read(self, offset: int, size: int) -> memoryview:
        """Return a view, no copy."""
        return self.data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file to be pushed: sources in a row, the tensors in it (in model order), and where else to cut it."""

    path: str
    sources: Sequence[Source]
    tensors: Sequence[Span] = ()
    breaks: Sequence[int] = ()

    @property
    def size(self) -> int:
        """Length in bytes."""
        return sum(source.size for source in self.sources)


@dataclass(frozen=True, slots=True)
class Package:
    """An object as files.

    Attributes
    ----------
    format : str
        The name under which `lmvp.formats` finds the way back.
    meta : dict
        What the way back needs besides the files; plain JSON without floats, equal for equal objects.
    finish : callable
        Called after the last byte was read, before the push is committed; raises `FileChanged` where a file on disk
        is no longer what it was.
    pull : dict
        The arguments without which a pull does not return the object: `{"trust": names}`, `{"into": True}` or
        `{"to": True}`. Recorded beside the content, for snippets.
    """

    format: str
    files: Sequence[PackedFile]
    meta: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[], None] = lambda: None
    pull: dict[str, Any] = field(default_factory=dict)


STRUCTURE_LIMIT = 64 << 20
"""Bytes of a text that tells the structure of an object, at most."""

_EXPANSION = 4


def check_small(manifest: Manifest, path: str, limit: int | None = None) -> None:
    """Refuse a file that would take far more memory than the version has bytes; called before it is read.

    A manifest may name one chunk any number of times, so a version of a few kilobytes may hold a file of terabytes.

    Parameters
    ----------
    limit : int, optional
        Bytes of the file at most; none without it, where only repetition is refused.

    Raises
    ------
    DamagedFile
        If the file is too long, or most of it is a repetition.
    """
    file = manifest.file(path)
    if file is None:
        return
    if limit is not None and file.size > limit:
        raise DamagedFile(f"{path!r} has {file.size:,} bytes; the limit for a structure is {limit:,}")
    distinct = sum({chunk.id: chunk.size for chunk in file.chunks}.values())
    if file.size > STRUCTURE_LIMIT and file.size > _EXPANSION * distinct:
        raise DamagedFile(f"{path!r} has {file.size:,} bytes, but only {distinct:,} of them are not repetitions")


def parse_json(reader: Reader, path: str) -> Any:
    """Read a structure that is JSON.

    Raises
    ------
    ValueError
        If it is no JSON as RFC 8259 has it, or an object has a key twice: readers do not agree on what that means.
    DamagedFile
        If it is too long; see `check_small`.
    """
    check_small(reader.manifest, path, STRUCTURE_LIMIT)
    return json.loads(reader.read(path), object_pairs_hook=_without_duplicates)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


class Reader(Protocol):
    """A version, seen by the format that rebuilds the object. Every byte it gives was checked against its digest."""

    @property
    def manifest(self) -> Manifest:
        """The content of the version."""
        ...

    def read(self, path: str) -> bytes:
        """Return a whole (small) file."""
        ...

    def fill_all(self, targets: Mapping[str, Mapping[str, memoryview]]) -> None:
        """Write tensors of several files into memory, by path and name, each as `fill` does."""
        ...

    def fill(self, path: str, targets: Mapping[str, memoryview]) -> None:
        """Write tensors of the file at `path` into writable, contiguous byte buffers of their sizes, by tensor name."""
        ...


class Format(Protocol):
    """What each module of this folder offers, as plain functions."""

    NAMES: tuple[str, ...]
    """The values of `Manifest.format` that it reads."""

    def recognises(self, obj: Any) -> bool:
        """Tell whether this format keeps such an object, without importing its framework."""
        ...

    def pack(self, obj: Any) -> Package:
        """Turn the object into files; reads no tensor bytes yet."""
        ...

    def unpack(self, reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:
        """Build the object again, or fill `into` and return it.

        Raises
        ------
        Untrusted
            If a class is needed that is neither safe by itself nor named in `trust`.
        Mismatch
            If `into` has other names, shapes or dtypes; it is untouched then.
        """
        ...
