"""`BaseClient`, the base class of all parts of `Client`: connection, references, paged lists and manifests.

`lmvp.Client` inherits its methods from several classes, for example from those in `lmvp.client.maintenance`,
`lmvp.client.team` and `lmvp.client.archive`. They share the helpers of this class.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from lmvp import config
from lmvp.connection import Address, Connection, own_connection
from lmvp.core import digest, server_file, validation
from lmvp.core import manifest as manifests
from lmvp.core.manifest import Manifest
from lmvp.core.manifest_validation import check_manifest
from lmvp.core.references import Reference, Revision, check_name
from lmvp.core.schemas import Struct, Version
from lmvp.errors import IntegrityError, InvalidReference, ServerError

if TYPE_CHECKING:
    from lmvp.transfer.model_cache import Held

T = TypeVar("T")
PAGE = 1000
"""Items of a full page of a list; the maximum of the server."""
PAGES_LIMIT = 10_000
"""Maximum number of pages of a list; with 1,000 items per page, ten million items."""
LIST_LIMIT = 1 << 30
"""Maximum size of all items of a list in bytes. A faulty server must not fill the memory of its clients."""


class Page(Struct, frozen=True, kw_only=True):
    """A page of a list in the API."""

    items: list[msgspec.Raw]  # decoded later, by the type that the caller asks for
    next: str | None = None
    total: int = 0


class BaseClient:
    """Base class of `Client` with its connection, its properties and `version`.

    Parameters
    ----------
    url, token, project : str, optional
        See `lmvp.Client`.
    """

    def __init__(self, url: str | None = None, token: str | None = None, project: str | None = None) -> None:
        self._project = check_name(project, "project name") if project else None
        fixed = config.server_url(url)
        self._fixed, self._token = url, token
        self._connection = _connect(Address(fixed, config.token_for(fixed, token)) if fixed else None)

    def __repr__(self) -> str:
        return f"<lmvp.Client project={self.project!r}>"

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._connection.url

    @property
    def fixed_url(self) -> str | None:
        """The URL that was given to the constructor; None if the client uses the configured server."""
        return self._fixed

    @property
    def fixed_token(self) -> str | None:
        """The token that was given to the constructor; None if the client uses the configured token."""
        return self._token

    @property
    def project(self) -> str:
        """The project of references that contain no project."""
        return config.current_project(self._project)

    def version(self, name: str) -> Version:
        """Return the record of a version.

        Parameters
        ----------
        name : str
            `[project/]model[@revision]`. Without a revision, the latest version.

        Returns
        -------
        Version
            The record. `pull` returns the content.

        Raises
        ------
        NotFound
            If the version does not exist.
        InvalidReference
            If the name is not a reference, or belongs to another server.
        IntegrityError
            If the reference contains a digest, and the server returns a version with another digest.

        Examples
        --------
        >>> client.version("digits/mlp@production").metrics  # doctest: +SKIP
        {'val_acc': 0.97}
        """
        place = self._reference(name)
        version = self._connection.get(f"{model_path(place)}/versions/{quote(place.revision, safe='')}", Version)
        revision = Revision.parse(place.revision)
        # A digest in a reference pins the content, so the client does not trust the server to choose the version.
        if revision.kind == "digest" and not revision.back and not version.digest.startswith(revision.value):
            raise IntegrityError(
                f"the answer of {self.url} for {name!r} is not a version with the digest {revision.value}",
                hint="do not use this version; the server or a proxy before it changes answers",
            )
        return version

    # -- helpers

    def _reference(self, name: str) -> Reference:
        """Parse a reference; refuse an `lmvp://` URL of another server, because the token is for this one."""
        place = Reference.parse(name, project=self.project)
        if place.server and place.server.casefold() != urlsplit(self.url).netloc.casefold():
            raise InvalidReference(
                f"{name!r} is on another server than {self.url}",
                hint="`lmvp login URL` makes that server the one in use",
            )
        return place

    def _manifest(self, version: Version, held: Held | None = None) -> Manifest:
        """Return the manifest of a version from the cache or the server, verified by its digest."""
        known = held.manifest(version.digest) if held else None
        if known is not None:
            return known
        place = Reference(version.project, version.model)
        data = self._connection.send("GET", f"{model_path(place)}/versions/{version.name}/manifest").content
        if digest.of_bytes(data) != version.digest:
            raise IntegrityError(
                f"the manifest of {place} {version.name} does not match its digest",
                hint="`lmvp fsck` tells what is damaged on the server",
            )
        manifest = manifests.decode(data)
        # The digest only shows that these bytes were pushed. Another client can have pushed an invalid manifest.
        check_manifest(manifest)
        if held:
            held.keep_manifest(version.digest, data)
        return manifest

    def _list(self, path: str, type_: type[T]) -> list[T]:
        """Return all items of a list."""
        decode = self._item_decoder(type_)
        return [decode(item) for page in self._pages(path, None) for item in page.items]

    def _some(self, path: str, type_: type[T], limit: int | None, **query: Any) -> tuple[list[T], int]:
        """Return the first items of a list, and the total number of items."""
        decode = self._item_decoder(type_)
        found, total = [], 0
        for page in self._pages(path, limit, **query):
            found += [decode(item) for item in page.items]
            total = page.total
        return found, total

    def _item_decoder(self, type_: type[T]) -> Callable[[msgspec.Raw], T]:
        """Return a function that decodes an item of a page; it raises `ServerError` for an invalid item."""
        decoder, connection = msgspec.json.Decoder(type_), self._connection

        def decode(item: msgspec.Raw) -> T:
            try:
                return decoder.decode(item)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise connection.unreadable(error) from None

        return decode

    def _pages(self, path: str, limit: int | None, *, cursor: Any = None, **query: Any) -> Iterator[Page]:
        """Yield the pages of a list; each page is requested when it is needed.

        Raises
        ------
        InvalidArgument
            If the limit is not a number above 0.
        ServerError
            If the list does not end: the server repeats a cursor, or exceeds `PAGES_LIMIT` or `LIST_LIMIT`.
        """
        validation.check_limit(limit)  # with a limit of 0, an existing list would look empty
        left = math.inf if limit is None else limit
        seen, size = {cursor}, 0
        while left > 0:
            page = self._connection.get(path, Page, limit=int(min(left, PAGE)), cursor=cursor, **query)
            size += sum(memoryview(item).nbytes for item in page.items)
            if size > LIST_LIMIT:
                raise self._endless(path, f"it has more than {LIST_LIMIT >> 20} MiB")
            yield page
            left -= len(page.items)
            cursor = page.next
            if cursor is None:
                return
            if cursor in seen:
                raise self._endless(path, "the server sends the same cursor again")
            seen.add(cursor)
            if len(seen) > PAGES_LIMIT:
                raise self._endless(path, f"it has more than {PAGES_LIMIT:,} pages")

    def _endless(self, path: str, why: str) -> ServerError:
        return ServerError(
            f"the list {path} of {self._connection.url} does not end: {why}",
            hint="is this an LMVP server? check LMVP_URL",
        )


_connections: dict[tuple[int, Address | Path], Connection] = {}


def _connect(address: Address | None) -> Connection:
    """Return the connection of this process to a server (None: the server of this machine).

    All clients of the process share the connection and its sockets.
    """
    # The process id is part of the key: after a fork, the child must not use the sockets of its parent.
    key = os.getpid(), address or server_file.data_home()
    if key not in _connections:
        _connections[key] = own_connection(address)
    return _connections[key]


def model_path(place: Reference) -> str:
    """Return the API path of a model."""
    return f"/projects/{quote(place.project or '', safe='')}/models/{quote(place.model, safe='')}"
