"""The chunks and versions of a model in the cache.

A new version can be transferred as deltas against one of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from lmvp import config
from lmvp.connection import Connection
from lmvp.core import chunk_frames, digest
from lmvp.core import files as private
from lmvp.core import manifest as manifests
from lmvp.core.chunk_alignment import Slots
from lmvp.core.chunk_frames import DELTA, HEADER_SIZE, RAW, Frame
from lmvp.core.codecs import Buffer
from lmvp.core.files import atomic_write
from lmvp.core.manifest import Manifest
from lmvp.core.manifest_validation import check_manifest
from lmvp.core.schemas import Version
from lmvp.core.validation import size_of
from lmvp.errors import IntegrityError, InvalidManifest, InvalidRequest, LmvpError

if TYPE_CHECKING:
    from lmvp.core.codecs import Buffer

FAST = 200e6
"""Bytes per second from which a link is as fast as the cache, so that nothing is cached."""


@dataclass(frozen=True, slots=True)
class Base:
    """A version whose chunks are at least partly cached, used as the base of deltas.

    Attributes
    ----------
    digest : str
        Digest of the base.
    slots, of : Slots
        Slots of the base, and of the version that is transferred.
    """

    digest: str
    slots: Slots
    of: Slots
    cache: Cache

    def counterpart(self, chunk: str) -> str | None:
        """Return the cached chunk of the base with the same slot, or None. This does not read or verify it."""
        match = self.of.counterpart(chunk, self.slots)
        # An equal chunk (`found == chunk`) is no delta base: it is not transferred at all.
        return match if match is not None and match != chunk and self.cache.has(match) else None

    def read(self, chunk: str) -> Buffer | None:
        """Return a chunk of the base; None if it is not cached or damaged."""
        size = self.slots.chunks.get(chunk)
        return None if size is None else self.cache.read(chunk, size)


class Held:
    """The cache from the viewpoint of one model on one server. Without a cache, every lookup returns nothing.

    Parameters
    ----------
    model : str
        Identifies the model among all servers.
    """

    def __init__(self, cache: Cache | None, model: str) -> None:
        self._cache, self._model = cache, model

    @classmethod
    def of(cls, connection: Connection, model: str) -> Held:
        """Return the cached data of a model; without a cache for a server on this machine, which is as fast."""
        if connection.local:
            return cls(None, model)
        return cls(opened(), f"{connection.url} {model}")

    @property
    def cache(self) -> Cache | None:
        """The cache; None if it is switched off or not used for this server."""
        return self._cache

    def read(self, chunk: str, size: int) -> Buffer | None:
        """Return a chunk, or None if it is not cached."""
        return self._cache.read(chunk, size) if self._cache else None

    def has(self, chunk: str) -> bool:
        """Return whether a chunk seems to be cached. Only `read` verifies it."""
        return self._cache is not None and self._cache.has(chunk)

    def keep(self, chunk: str, pieces: Iterable[Buffer]) -> None:
        """Store a chunk raw."""
        if self._cache and not self._cache.has(chunk):
            taken = list(pieces)
            size = sum(len(piece) for piece in taken)
            self._cache.keep(Frame(chunk, size, size, RAW), taken)

    def keep_frame(self, frame: Frame, payload: Buffer) -> None:
        """Store a chunk as a standalone frame."""
        if self._cache:
            self._cache.keep(frame, [payload])

    def manifest(self, version: str) -> Manifest | None:
        """Return the manifest with that digest, or None if it is not cached or invalid."""
        # A server can send a manifest that breaks the rules and has the right digest, so validate it too.
        data = self._cache.manifest(version) if self._cache else None
        try:
            manifest = manifests.decode(data) if data else None
            if manifest:
                check_manifest(manifest)
        except InvalidManifest:
            return None
        return manifest

    def keep_manifest(self, version: str, data: bytes) -> None:
        """Store a manifest if it has that digest."""
        if self._cache and digest.of_bytes(data) == version:
            self._cache.keep_manifest(version, data)

    def note(self, version: str) -> None:
        """Record that this version was transferred."""
        if self._cache:
            self._cache.note(self._model, version)

    def base(self, version: Version, manifest: Manifest) -> Base | None:
        """Return the best base for deltas: a parent of the version, otherwise the version transferred last."""
        candidates = [parent.digest for parent in version.parents] + (
            self._cache.versions(self._model) if self._cache else []
        )
        bases = (self.base_at(candidate, manifest) for candidate in candidates if candidate != version.digest)
        return next((base for base in bases if base), None)

    def base_at(self, version: str, manifest: Manifest) -> Base | None:
        """Return the version with that digest as a base for a manifest; None if its manifest is not cached."""
        base = self.manifest(version)
        return Base(version, Slots(base), Slots(manifest), self._cache) if base and self._cache else None


MOST = 10 << 30
"""Default limit in bytes; a tenth of the free disk space if that is less."""

_ROOM_AFTER = 0.9
"""Fraction of the limit that remains after files were deleted, so that not every write deletes some."""

_RECOUNT = 1 / 16
"""Fraction of the limit that is written before the size is measured again: other processes write too."""

_REMEMBERED = 8
"""Number of versions of a model that are recorded as possible bases."""

_OLD = 3600.0
"""Age in seconds of a temporary file that was left by a killed process."""

_DIGEST = re.compile("[0-9a-f]{64}")
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This is a cache of LMVP: it can be deleted at any time.\n"


@dataclass(frozen=True, slots=True)
class Usage:
    """The number of files in a cache and their bytes."""

    files: int
    bytes: int


class Cache:
    """A folder of chunks and manifests with a limited size.

    Parameters
    ----------
    folder : Path
        Created by the first write; only its owner can read it.
    limit : int
        Maximum bytes.

    Examples
    --------
    >>> import tempfile
    >>> cache = Cache(Path(tempfile.mkdtemp()) / "cache", limit=1 << 20)
    >>> chunk = digest.of_bytes(b"abc")
    >>> cache.keep(Frame(chunk, size=3, payload=3), [b"abc"])
    >>> bytes(cache.read(chunk, 3)), cache.read(digest.of_bytes(b"other"), 5)
    (b'abc', None)
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._chunks, self._manifests, self._models = folder / "chunks", folder / "manifests", folder / "models"
        self._lock = Lock()
        self._size: int | None = None
        self._unseen = 0
        self._usable = True  # False after a failed write: one error is enough to stop trying

    # -- chunks

    def has(self, chunk: str) -> bool:
        """Return whether the file of a chunk exists. Only `read` verifies it."""
        return _place(self._chunks, chunk).is_file()

    def read(self, chunk: str, size: int) -> Buffer | None:
        """Return a verified chunk; None if it is missing or damaged. A damaged one is deleted."""
        path = _place(self._chunks, chunk)
        data = _read(path)
        if data is None:
            return None
        decoded = _decoded(chunk, size, data)
        if decoded is None:
            _unlink(path)
            return None
        with suppress(OSError):
            os.utime(path)  # the modification time is the time of last use, for `_evict`
        return decoded

    def keep(self, frame: Frame, payload: Sequence[Buffer]) -> None:
        """Store a standalone frame of a verified chunk."""
        if frame.codec != DELTA and not self.has(frame.chunk):
            self._write(_place(self._chunks, frame.chunk), [chunk_frames.header(frame), *payload])

    # -- manifests

    def manifest(self, name: str) -> bytes | None:
        """Return the verified manifest with that digest; None if it is missing or damaged. A damaged one is deleted."""
        path = _place(self._manifests, name)
        data = _read(path)
        if data is not None and digest.of_bytes(data) != name:
            _unlink(path)
            return None
        return data

    def keep_manifest(self, name: str, data: bytes) -> None:
        """Store a verified manifest."""
        path = _place(self._manifests, name)
        if not path.is_file():
            self._write(path, [data])

    def versions(self, model: str) -> list[str]:
        """Return the digests of the recorded versions of a model, the latest first.

        Parameters
        ----------
        model : str
            Identifies the model among all servers.
        """
        data = _read(self._list_of(model))
        try:
            stored = json.loads(data) if data else []
        except (ValueError, RecursionError):
            stored = []
        return [
            version
            for version in (stored if isinstance(stored, list) else ())
            if isinstance(version, str) and _DIGEST.fullmatch(version)
        ]

    def note(self, model: str, version: str) -> None:
        """Record that a version of a model was transferred."""
        versions = self.versions(model)
        if versions[:1] != [version]:
            recent = [version, *(each for each in versions if each != version)][:_REMEMBERED]
            self._write(self._list_of(model), [json.dumps(recent).encode()])

    def _list_of(self, model: str) -> Path:
        return _place(self._models, digest.of_bytes(model.encode()))

    # -- maintenance

    def usage(self) -> Usage:
        """Return the number of files and their bytes."""
        sizes = [size for _, size, _ in self._files()]
        return Usage(len(sizes), sum(sizes))

    def clear(self) -> Usage:
        """Delete everything; return the number of deleted files and their bytes."""
        before = self.usage()
        for folder in (self._chunks, self._manifests, self._models):
            shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            self._size = None
        after = self.usage()
        return Usage(before.files - after.files, before.bytes - after.bytes)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of last use, size and path of each file."""
        for folder in (self._chunks, self._manifests, self._models):
            for path in folder.glob("??/*"):
                with suppress(OSError):  # another process deleted it
                    status = path.stat()
                    yield status.st_mtime, status.st_size, path

    def _write(self, path: Path, pieces: Sequence[Buffer]) -> None:
        """Write a file atomically. After a failure, this process writes nothing more to the cache."""
        size = sum(len(piece) for piece in pieces)
        if not self._usable or size > self.limit:
            return
        try:
            self._make_room(size)
            if not path.parent.is_dir():
                _make_folders(path.parent, self.folder)
            # Not synced: after a crash, a file with wrong content does not match its digest and is deleted.
            atomic_write(path, *pieces, sync=False)
        except OSError:  # a full or read-only disk, or the folder of another user
            self._usable = False

    def _make_room(self, size: int) -> None:
        """Count `size` bytes; delete the least recently used files if they exceed the limit."""
        with self._lock:
            if self._size is None or self._unseen > self.limit * _RECOUNT:  # other processes write here too
                self._size, self._unseen = self.usage().bytes, 0
            self._size += size
            self._unseen += size
            if self._size > self.limit:
                self._size = self._evict(size) + size

    def _evict(self, size: int) -> int:
        """Delete files until `size` more bytes fit; return the bytes that remain."""
        files = sorted(self._files())  # by time of last use
        left = sum(length for _, length, _ in files)
        for used, length, path in files:
            stale = path.name.startswith(".") and time.time() - used > _OLD
            if stale or left > self.limit * _ROOM_AFTER - size:
                _unlink(path)
                left -= length
        return left


_opened: dict[tuple[Path, str], Cache] = {}
"""The caches of this process by folder and limit, because both can change in the environment of a notebook."""


def opened() -> Cache | None:
    """Return the cache of the user, always the same object; None if it is switched off.

    Raises
    ------
    InvalidArgument
        If `LMVP_CACHE_LIMIT` is not a size.
    """
    folder, text = config.cache_home(), os.environ.get("LMVP_CACHE_LIMIT", "").strip()
    if (folder, text) not in _opened:
        _opened[folder, text] = Cache(folder, size_of(text) if text else _default_limit(folder))
    cache = _opened[folder, text]
    return cache if cache.limit else None


def _default_limit(folder: Path) -> int:
    # The folder does not always exist yet; its nearest parent is on the same disk.
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    try:
        return min(MOST, shutil.disk_usage(above).free // 10)
    except OSError:
        return 0


def _place(root: Path, name: str) -> Path:
    if not _DIGEST.fullmatch(name):  # it can come from a server and must not lead to another folder
        raise IntegrityError(f"{name[:64]!r} is no digest")
    return root / name[:2] / name[2:]


def _decoded(chunk: str, size: int, data: bytes) -> Buffer | None:
    """Decode a stored frame; return None unless it is a standalone frame of that chunk and has its digest."""
    from lmvp.core import codecs

    try:
        head = chunk_frames.read_header(data[:HEADER_SIZE])
        if (head.chunk, head.size) != (chunk, size) or head.codec == DELTA:  # the cache never stores a delta
            return None
        decoded = codecs.decode(head, memoryview(data)[HEADER_SIZE:], _no_base)
    except LmvpError:
        return None
    return decoded if digest.of_bytes(decoded) == chunk else None


def _no_base(chunk: str) -> Buffer:
    raise InvalidRequest(f"a frame in the cache depends on {chunk[:12]}")


def _read(path: Path) -> bytes | None:
    try:
        return private.read_bytes(path)
    except (OSError, IntegrityError):
        return None


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _make_folders(folder: Path, root: Path) -> None:
    """Create a folder below the root, with access only for its owner."""
    private.make_folder(folder)
    tag = root / "CACHEDIR.TAG"  # backup programs skip folders with this file
    private.secure(root, [folder.parent.name, tag.name])
    if not tag.exists():
        atomic_write(tag, _TAG.encode(), sync=False)
