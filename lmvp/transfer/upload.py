"""Push of a version: send the manifest, send the chunks that the server lacks, commit.

A small push is one request. A large push sends batches of frames over several connections; raw chunks are sent from the
memory of the tensors without a copy. An interrupted push continues with the chunks that are still missing. Chunks of an
abandoned push are reused by the next one. See docs/format.md, "The wire".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from lmvp.connection import Connection
from lmvp.core import manifest as manifests
from lmvp.core.number_format import size
from lmvp.core.schemas import NewPush, Push, Version
from lmvp.errors import FileChanged, IntegrityError, MissingChunks
from lmvp.formats.base import Package
from lmvp.transfer.chunk_upload import Batch, Sender, raw
from lmvp.transfer.manifest_builder import Description, describe
from lmvp.transfer.model_cache import FAST, Held
from lmvp.transfer.progress import Advance, Progress, halves, showing

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
