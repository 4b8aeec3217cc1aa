"""The chunks and versions of a model in the cache.

A new version can be transferred as deltas against one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmvp.connection import Connection
from lmvp.core import digest
from lmvp.core import manifest as manifests
from lmvp.core.chunk_alignment import Slots
from lmvp.core.chunk_frames import RAW, Frame
from lmvp.core.codecs import Buffer
from lmvp.core.manifest import Manifest
from lmvp.core.manifest_validation import check_manifest
from lmvp.core.schemas import Version
from lmvp.errors import InvalidManifest
from lmvp.transfer import chunk_cache as caches
from lmvp.transfer.chunk_cache import Cache

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
        found = self.of.counterpart(chunk, self.slots)
        # An equal chunk (`found == chunk`) is no delta base: it is not transferred at all.
        return found if found is not None and found != chunk and self.cache.has(found) else None

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
        return cls(caches.opened(), f"{connection.url} {model}")

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
        bases = (self.base_at(one, manifest) for one in candidates if one != version.digest)
        return next((base for base in bases if base), None)

    def base_at(self, version: str, manifest: Manifest) -> Base | None:
        """Return the version with that digest as a base for a manifest; None if its manifest is not cached."""
        known = self.manifest(version)
        return Base(version, Slots(known), Slots(manifest), self._cache) if known and self._cache else None
