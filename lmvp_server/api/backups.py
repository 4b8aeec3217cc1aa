"""Handlers of backups. A client copies the data in pieces, each a uint32 length followed by the bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from tornado.iostream import StreamClosedError

from lmvp.core.schemas import WantedPieces
from lmvp.errors import AccessDenied, NotAuthenticated
from lmvp_server.api.base import Handler
from lmvp_server.services import access

PIECES = "application/x-lmvp-pieces"
_LENGTH = struct.Struct("<I")


class Backups(Handler):
    """`/backups`."""

    async def post(self) -> None:
        """Start a backup."""
        self.answer(await self.run(self.services.backups.begin, self.caller), 201)


class Backup(Handler):
    """`/backups/{backup}`."""

    async def get(self, backup: str) -> None:
        """Extend the lease of a backup and return its state."""
        self.answer(await self.run(self.services.backups.about, self.caller, backup))

    async def delete(self, backup: str) -> None:
        """Finish a backup and release its lease."""
        await self.run(self.services.backups.end, self.caller, backup)
        self.set_status(204)
        self.finish()


class Records(Handler):
    """`/backups/{backup}/records/{space}`."""

    async def get(self, backup: str, space: str) -> None:
        """Send the records and events of a project; an empty piece marks the end."""
        pieces = await self.run(self.services.backups.records, self.caller, backup, space)
        await _send(self, lambda: next(pieces, None), end=True)


class Series(Handler):
    """`/backups/{backup}/series/{space}/{run}`."""

    async def get(self, backup: str, space: str, run: str) -> None:
        """Send the points of a run; an empty piece marks the end."""
        pieces = await self.run(self.services.backups.series, self.caller, backup, space, run)
        await _send(self, lambda: next(pieces, None), end=True)


class Pieces(Handler):
    """`/backups/{backup}/{kind}/{space}`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.ADMIN}
    body_limit = 16 << 20

    async def post(self, backup: str, kind: str, space: str) -> None:
        """Send chunks, manifests or notes in the requested order; a missing one is an empty piece."""
        wanted = await self.run(self.read, WantedPieces)
        # The reads are lazy: a piece is read from disk only when the client has received the previous one.
        reads = iter(await self.run(self.services.backups.pieces, self.caller, backup, space, kind, wanted))
        await _send(self, lambda: _next(reads))


def _next(reads: Iterator[Callable[[], bytes]]) -> bytes | None:
    read = next(reads, None)
    return None if read is None else read()


async def _send(handler: Handler, read: Callable[[], bytes | None], *, end: bool = False) -> None:
    handler.set_header("Content-Type", PIECES)
    try:
        while (piece := await handler.run(read)) is not None:
            await handler.wait_for_room(len(piece))
            # A backup can take hours. A revoked token must stop it.
            await handler.recheck(access.ADMIN)
            handler.write(_LENGTH.pack(len(piece)))
            handler.write(piece)
            await handler.flush()
        if end:
            handler.write(_LENGTH.pack(0))
    except StreamClosedError:
        return  # the client disconnected
    except (AccessDenied, NotAuthenticated):
        if not handler.has_begun:
            raise
        handler.break_off()
        return
    handler.finish()
