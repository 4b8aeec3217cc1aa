"""What this machine holds of a model: versions that passed through it lately, as far as the cache still has them.

A later version can travel as what changed since one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmvp.connection import Connection
from lmvp.errors import InvalidManifest
from lmvp.records import Version
from lmvp.storage import digest
from lmvp.storage import manifest as manifests
from lmvp.storage.check import check_manifest
from lmvp.storage.codecs import Buffer
from lmvp.storage.frames import RAW, Frame
from lmvp.storage.manifest import Manifest
from lmvp.storage.slots import Slots
from lmvp.transfer import cache as caches
from lmvp.transfer.cache import Cache

FAST = 200e6
"""Bytes a second from which on a link is as good as a cache."""


@dataclass(frozen=True, slots=True)
class Base:
    """A version whose chunks this machine holds, or some of them, and the places of the chunks in another one."""

    digest: str
    slots: Slots
    of: Slots
    cache: Cache

    def counterpart(self, chunk: str) -> str | None:
        """Return the chunk at the same place of the base, if it is held; it is not read yet."""
        found = self.of.counterpart(chunk, self.slots)
        return found if found is not None and found != chunk and self.cache.has(found) else None

    def read(self, chunk: str) -> Buffer | None:
        """Return a chunk of the base; None if it turns out not to be held."""
        size = self.slots.chunks.get(chunk)
        return None if size is None else self.cache.read(chunk, size)


class Held:
    """The view of the cache from one model on one server; without a cache, nothing is held and nothing kept.

    Parameters
    ----------
    model : str
        Names it among all servers.
    """

    def __init__(self, cache: Cache | None, model: str) -> None:
        self._cache, self._model = cache, model

    @classmethod
    def of(cls, connection: Connection, model: str) -> Held:
        """Return what is held of a model; nothing of one on this machine's own server, which is as near as a cache."""
        if connection.local:
            return cls(None, model)
        return cls(caches.opened(), f"{connection.url} {model}")

    @property
    def cache(self) -> Cache | None:
        """The cache, if there is one."""
        return self._cache

    def read(self, chunk: str, size: int) -> Buffer | None:
        """Return a chunk, if it is held."""
        return self._cache.read(chunk, size) if self._cache else None

    def has(self, chunk: str) -> bool:
        """Tell whether a chunk seems to be held."""
        return self._cache is not None and self._cache.has(chunk)

    def keep(self, chunk: str, pieces: Iterable[Buffer]) -> None:
        """Keep a chunk as it is."""
        if self._cache and not self._cache.has(chunk):
            taken = list(pieces)
            size = sum(len(piece) for piece in taken)
            self._cache.keep(Frame(chunk, size, size, RAW), taken)

    def keep_frame(self, frame: Frame, payload: Buffer) -> None:
        """Keep a chunk as it was encoded by itself."""
        if self._cache:
            self._cache.keep(frame, [payload])

    def manifest(self, version: str) -> Manifest | None:
        """Return the manifest of that digest, if it is held."""
        data = self._cache.manifest(version) if self._cache else None
        try:
            manifest = manifests.decode(data) if data else None
            if manifest:
                check_manifest(manifest)
        except InvalidManifest:
            return None
        return manifest

    def keep_manifest(self, version: str, data: bytes) -> None:
        """Keep a manifest, if it is the one of that digest."""
        if self._cache and digest.of_bytes(data) == version:
            self._cache.keep_manifest(version, data)

    def note(self, version: str) -> None:
        """Remember that this version passed through here."""
        if self._cache:
            self._cache.note(self._model, version)

    def base(self, version: Version, manifest: Manifest) -> Base | None:
        """Return the version that another one had best be told as changes of: a parent, or what was here last."""
        candidates = [parent.digest for parent in version.parents] + (
            self._cache.versions(self._model) if self._cache else []
        )
        bases = (self.base_at(one, manifest) for one in candidates if one != version.digest)
        return next((base for base in bases if base), None)

    def base_at(self, version: str, manifest: Manifest) -> Base | None:
        """Return the version of that digest as a base for a manifest, if it is held."""
        known = self.manifest(version)
        return Base(version, Slots(known), Slots(manifest), self._cache) if known and self._cache else None
