"""Sending a version: tell what it is, send what the server lacks, commit.

A small push is one request. A large one sends batches of frames over several connections, straight from the memory of
the tensors where they go raw; whatever is interrupted goes on with what is still missing, and a push that was given up
costs the next one nothing for the chunks that came.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from lmvp.connection import Connection
from lmvp.errors import FileChanged, IntegrityError, MissingChunks
from lmvp.formats.base import Package
from lmvp.records import NewPush, Push, Version
from lmvp.render.numbers import size
from lmvp.storage import manifest as manifests
from lmvp.transfer.describe import Description, describe
from lmvp.transfer.held import FAST, Held
from lmvp.transfer.progress import Advance, Progress, halves, showing
from lmvp.transfer.send import Batch, Sender, raw

SMALL = 1 << 20
"""Bytes up to which a push goes in one request."""

_SOON = 0.1
"""Seconds that a push in one request may take to travel; a longer one first asks what is missing."""

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
        The path of the model in the API.
    body : NewPush
        Without the manifest, which is put in here.
    held : Held, optional
        What the cache has of the model; what goes over a slow link is added.

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
    """Publish what is described already; see `push`.

    Parameters
    ----------
    finish : callable
        Called after the last byte was read, before the commit.
    """
    manifest = msgspec.Raw(msgspec.json.encode(described.manifest, order="sorted"))
    full = msgspec.structs.replace(body, manifest=manifest)
    work = _Push(connection, model, described, full, finish, held or Held(None, ""), advance)
    version = work.small() or work.large()
    work.remember(version)
    return version


@dataclass(frozen=True, slots=True)
class _Push:
    """A push under way."""

    connection: Connection
    model: str
    described: Description
    body: NewPush
    finish: Callable[[], None]
    held: Held
    advance: Advance

    @property
    def path(self) -> str:
        """The path of the push in the API."""
        return f"{self.model}/pushes/{self.body.push}"

    def small(self) -> Version | None:
        """Push in one request; None where that is too much, or the server lacks more than it was sent."""
        limit = SMALL if self.connection.local else min(SMALL, int(_SOON * self.connection.up.rate))
        if self.described.bytes > limit:
            return None
        encoded = msgspec.json.encode(self.body)
        pieces = [raw(chunk, place) for chunk, place in self.described.places.items()]
        whole = b"".join(Batch(pieces, _LENGTH.pack(len(encoded)) + encoded))  # one write to the socket is one wait
        self.finish()
        try:
            version = self.connection.send_frames("POST", f"{self.model}/versions", whole, Version)
        except MissingChunks:  # the server lost some between its look and the commit: the long way mends that
            return None
        self.advance(self.described.manifest.size)
        return version

    def large(self) -> Version:
        """Push in several requests."""
        begun = self.connection.send_json("POST", f"{self.model}/pushes", self.body, Push)
        missing = begun.missing
        self.advance(self.described.manifest.size - sum(self.described.places[chunk].size for chunk in missing))
        base = self.held.base_at(begun.base, self.described.manifest) if begun.base else None
        sender = Sender(self.connection, self.path, self.described, self.held, base, self.advance)
        for _ in range(2):
            sender.send(missing)
            self.finish()
            try:
                return self.commit()
            except MissingChunks as error:  # the server lost some, say to a disk that was full for a moment
                missing = tuple(error.missing)
        return self.commit()

    def commit(self) -> Version:
        """Turn what was sent into a version."""
        return self.connection.send_json("POST", f"{self.path}/commit", {}, Version)

    def remember(self, version: Version) -> None:
        """Keep what the next push can lean on, unless the link is so fast that it would not pay."""
        if self.connection.local or (self.connection.up.known and self.connection.up.rate >= FAST):
            return
        parents = tuple(parent.digest for parent in version.parents)
        self.held.keep_manifest(
            version.digest, manifests.encode(msgspec.structs.replace(self.described.manifest, parents=parents))
        )
        for chunk, place in self.described.places.items():
            if not self.held.has(chunk):
                self.held.keep(chunk, place.read())
        self.held.note(version.digest)
