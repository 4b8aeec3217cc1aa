"""Interface between formats, pushes and pulls.

A format turns an object into a `Package`: files that consist of sources, and the positions of the tensors in them. A
source reads its bytes only when the push needs them. For a pull, the format reads small files through a `Reader`, which
writes tensors directly into their final memory. So neither direction writes a temporary file or holds the tensors
twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lmvp.core.manifest import Manifest
from lmvp.core.safetensors import Span as Span
from lmvp.errors import DamagedFile


@runtime_checkable
class Source(Protocol):
    """A range of bytes that can be read in pieces, repeatedly, and from any thread.

    A push reads each source at least once. It reads again if a transfer is repeated, so `read` must return the same
    bytes each time or raise an error.
    """

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, size: int) -> memoryview:
        """Return some of the bytes, without a copy if they are in memory.

        Parameters
        ----------
        offset : int
            Offset of the first byte, 0 or greater.
        size : int
            Number of bytes. `offset + size` is at most `self.size`.

        Returns
        -------
        memoryview
            Exactly `size` bytes; the caller does not change them.

        Raises
        ------
        FileChanged
            If the source is a file that changed since the object was packed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """A source over bytes in memory.

    Attributes
    ----------
    data : memoryview
        A contiguous view of single bytes.

    Examples
    --------
    >>> bytes(Bytes.of(b"weights").read(1, 3))
    b'eig'
    """

    data: memoryview

    @classmethod
    def of(cls, buffer: Any) -> Bytes:
        """Wrap any object with a contiguous buffer.

        Parameters
        ----------
        buffer : bytes-like
            Items of any size.

        Returns
        -------
        Bytes
            A source over the same memory.
        """
        view = memoryview(buffer)
        # `cast` raises TypeError for a view with a zero in its shape.
        return cls(view.cast("B") if view.nbytes else memoryview(b""))

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.data.nbytes

    def read(self, offset: int, size: int) -> memoryview:
        """Return a view without a copy."""
        return self.data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of a package.

    Attributes
    ----------
    path : str
        The path of the file in the version.
    sources : sequence of Source
        The content of the file is the concatenation of these sources.
    tensors : sequence of Span
        The tensors in the file, in the order of the model.
    breaks : sequence of int
        Further offsets at which the file is cut into chunks, for example the start of a member of an archive. Cuts at
        boundaries of the content let equal parts of two files become equal chunks.
    """

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
        The name of the format, one of its `NAMES`. A pull uses it to find the format.
    files : sequence of PackedFile
        The files of the version.
    meta : dict
        Further data that `unpack` needs: plain JSON without floats. Equal objects have equal `meta`, because it is part
        of the digest.
    finish : callable
        Called after the last byte was read and before the push is committed. It raises `FileChanged` if a file on disk
        changed in the meantime.
    pull : dict
        The arguments that a pull needs to return the object: `{"trust": names}`, `{"into": True}` or `{"to": True}`.
        They are stored in the record, not in the content, for the code snippets of the console.
    """

    format: str
    files: Sequence[PackedFile]
    meta: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[], None] = lambda: None
    pull: dict[str, Any] = field(default_factory=dict)


STRUCTURE_LIMIT = 64 << 20
"""Largest file that describes the structure of an object, in bytes."""

# Ratio of the length of a file to its distinct bytes. A weights file repeats some chunks (zeros, tied tensors), so the
# ratio of real files is above 1.
_EXPANSION = 4


def check_small(manifest: Manifest, path: str, limit: int | None = None) -> None:
    """Refuse to read a file that needs far more memory than the version has bytes.

    A manifest can name one chunk any number of times, so a version of a few kilobytes can hold a file of terabytes.
    Call this before the file is read into memory.

    Parameters
    ----------
    manifest : Manifest
        The content of the version.
    path : str
        A file of the version. A missing file is accepted here; reading it raises the error.
    limit : int, optional
        The largest length in bytes. Without it, only files above `STRUCTURE_LIMIT` that are mostly repetitions are
        refused.

    Raises
    ------
    DamagedFile
        If the file is longer than the limit, or mostly a repetition of its chunks.
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
    """Read and parse a JSON file that describes the structure of an object.

    Parameters
    ----------
    reader : Reader
        The version.
    path : str
        A file of the version.

    Returns
    -------
    object
        Plain Python data.

    Raises
    ------
    ValueError
        If the text is not valid JSON (RFC 8259), or an object has a key twice: parsers disagree about duplicate keys,
        so a check and a later reader could see different values.
    DamagedFile
        If the file is too long; see `check_small`.
    """
    check_small(reader.manifest, path, STRUCTURE_LIMIT)
    return json.loads(reader.read(path), object_pairs_hook=_without_duplicates)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


class Reader(Protocol):
    """Read access to a version, for a format that rebuilds the object.

    All bytes that a reader returns or writes are verified against their digests.
    """

    @property
    def manifest(self) -> Manifest:
        """The content of the version."""
        ...

    def read(self, path: str) -> bytes:
        """Return a whole file. Use it for small files only; see `check_small`.

        Parameters
        ----------
        path : str
            A file of the version.

        Returns
        -------
        bytes
            The content of the file.
        """
        ...

    def fill_all(self, targets: Mapping[str, Mapping[str, memoryview]]) -> None:
        """Write tensors of several files into memory.

        Parameters
        ----------
        targets : mapping of str to mapping of str to memoryview
            For each path, the buffers by tensor name, as for `fill`.
        """
        ...

    def fill(self, path: str, targets: Mapping[str, memoryview]) -> None:
        """Write tensors of one file into memory.

        Parameters
        ----------
        path : str
            A file of the version.
        targets : mapping of str to memoryview
            For each tensor name, a writable and contiguous buffer of exactly the tensor's size in bytes.
        """
        ...


class Format(Protocol):
    """Interface of a format: each module of this folder implements it with plain functions.

    A format must not import its framework before an object of that framework is passed to it.
    """

    NAMES: tuple[str, ...]
    """The values of `Manifest.format` that `unpack` accepts."""

    def recognises(self, obj: Any) -> bool:
        """Return whether this format can store an object, without importing the framework.

        Parameters
        ----------
        obj : object
            Any object.

        Returns
        -------
        bool
            True if `pack` accepts objects of this kind; `pack` can still refuse this one.
        """
        ...

    def pack(self, obj: Any) -> Package:
        """Turn an object into files, without reading the bytes of tensors.

        Parameters
        ----------
        obj : object
            An object that `recognises` accepts.

        Returns
        -------
        Package
            The files. Their sources refer to the memory of the object, so a change of the object before the push ends
            changes the pushed bytes.

        Raises
        ------
        UnknownFormat
            If a part of the object cannot be stored.
        """
        ...

    def unpack(self, reader: Reader, *, into: Any = None, trust: Sequence[str | type] = ()) -> Any:
        """Build the object of a version, or fill `into` and return it.

        Parameters
        ----------
        reader : Reader
            The version.
        into : object, optional
            An object whose tensors are overwritten in place.
        trust : sequence of str or type
            Classes that may run code: `"my_pkg.Net"`, `"my_pkg.*"`, or the class itself.

        Returns
        -------
        object
            A new object, or `into`.

        Raises
        ------
        Untrusted
            If the object needs a class that is neither known to be safe nor listed in `trust`.
        Mismatch
            If `into` has other names, shapes or dtypes. It is unchanged then.
        DamagedFile
            If the version's files contradict each other.
        """
        ...
