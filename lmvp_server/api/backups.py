"""Handlers of backups. A client copies the data in pieces, each a uint32 length followed by the bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from tornado.iostream import StreamClosedError

from lmvp.core import schemas
from lmvp.errors import AccessDenied, NotAuthenticated
from lmvp_server.api.base import Handler
from lmvp_server.api.route import Route
from lmvp_server.services import access

PIECES = "application/x-lmvp-pieces"
_LENGTH = struct.Struct("<I")


class BackupsHandler(
    Handler,
    path="/backups",
    routes=(
        Route(
            "POST",
            "Start a backup.",
            schemas.Backup,
            status=201,
            right=access.ADMIN,
            call=lambda services, caller, _: services.backups.begin(caller),
        ),
    ),
):
    """The backups in progress."""


class BackupHandler(
    Handler,
    path="/backups/{backup}",
    routes=(
        Route(
            "GET",
            "Extend the lease of a backup and return its state.",
            schemas.Backup,
            right=access.ADMIN,
            note="A backup belongs to the account that started it.",
            call=lambda services, caller, given: services.backups.about(caller, given.backup),
        ),
        Route(
            "DELETE",
            "Finish a backup and release its lease.",
            None,
            status=204,
            right=access.ADMIN,
            note="The server then deletes the data that waited for the end of the backup.",
            call=lambda services, caller, given: services.backups.end(caller, given.backup),
        ),
    ),
):
    """One backup."""


class BackupRecordsHandler(
    Handler,
    path="/backups/{backup}/records/{space}",
    routes=(
        Route(
            "GET", "Send the records and events of a project; an empty piece marks the end.", bytes, right=access.ADMIN
        ),
    ),
):
    """The records of a project."""

    async def get(self, backup: str, space: str) -> None:
        """Send the records and events of a project; an empty piece marks the end."""
        pieces = await self.run(self.services.backups.records, self.caller, backup, space)
        await _send(self, lambda: next(pieces, None), end=True)


class BackupSeriesHandler(
    Handler,
    path="/backups/{backup}/series/{space}/{run}",
    routes=(
        Route(
            "GET",
            "Send the points of a run; an empty piece marks the end.",
            bytes,
            right=access.ADMIN,
            note="422 if they are damaged.",
        ),
    ),
):
    """The points of a run."""

    async def get(self, backup: str, space: str, run: str) -> None:
        """Send the points of a run; an empty piece marks the end."""
        pieces = await self.run(self.services.backups.series, self.caller, backup, space, run)
        await _send(self, lambda: next(pieces, None), end=True)


class BackupPiecesHandler(
    Handler,
    path="/backups/{backup}/{kind}/{space}",
    routes=(
        Route(
            "POST",
            "Send chunks, manifests or notes in the requested order; a missing one is an empty piece.",
            bytes,
            request=schemas.WantedPieces,
            right=access.ADMIN,
            body_limit=16 << 20,
            note="`kind` is `chunks`, `manifests` or `notes`; `want` names each id once.",
        ),
    ),
):
    """Chunks, manifests or notes of a project."""

    async def post(self, backup: str, kind: str, space: str) -> None:
        """Send chunks, manifests or notes in the requested order; a missing one is an empty piece."""
        wanted = await self.run(self.read, schemas.WantedPieces)
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
