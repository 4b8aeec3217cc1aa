"""Handlers of version contents: chunk frames for clients, files with HTTP ranges for other tools."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import quote

import msgspec
from tornado.iostream import StreamClosedError

from lmvp.core import chunk_frames, schemas
from lmvp.core.chunk_frames import CHUNK_LIMIT, FAILED, Frame
from lmvp.errors import AccessDenied, InvalidRequest, LmvpError, NotAuthenticated, NotFound
from lmvp_server.api.base import Handler
from lmvp_server.api.errors import error_body, log
from lmvp_server.api.route import Cost, Route
from lmvp_server.api.versions import FRAMES
from lmvp_server.services import access
from lmvp_server.services.files import Order, parts

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_SIZE_DIGITS = 18
_SLICE = 1 << 20
_PIECE = CHUNK_LIMIT
"""Maximum number of bytes in one read."""
_GROUP, _GROUP_CHUNKS = 256 << 10, 64
"""Maximum size in bytes, and maximum number, of small chunks that are read together."""


class VersionChunksHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/chunks",
    routes=(
        Route(
            "POST",
            "Stream the requested chunk frames in order, each once.",
            bytes,
            request=schemas.WantedChunks,
            cost=Cost.PUBLIC,
            right=access.READ,
            public=True,
            body_limit=16 << 20,
            note='See "Chunks".',
        ),
    ),
):
    """The chunks of a version."""

    async def post(self, project: str, model: str, revision: str) -> None:
        """Stream the requested chunk frames in order, each once.

        Duplicates are dropped, so that a response is never longer than the version.
        """
        wanted = await self.run_public(self.read, schemas.WantedChunks)
        files = self.services.files
        order = await self.run_public(files.wanted, self.caller, project, model, revision, wanted)
        self.set_header("Content-Type", FRAMES)
        await stream(
            self,
            order.space,
            [partial(self._frames, order, group) for group in _groups(list(dict.fromkeys(wanted.want)), order.sizes)],
        )

    def _frames(self, order: Order, group: Sequence[str]) -> bytes:
        chunk_frames = [self._frame(order, chunk) for chunk in group]
        return chunk_frames[0] if len(chunk_frames) == 1 else b"".join(chunk_frames)

    def _frame(self, order: Order, chunk: str) -> bytes:
        """Return a chunk frame, or an error frame if reading fails: the status of the response is already sent."""
        try:
            return self.services.files.frame(order, chunk)
        except Exception as error:  # noqa: BLE001 - report every error in a frame and in the log
            return self._failure(chunk, error)

    def _failure(self, chunk: str, error: Exception) -> bytes:
        self.log_exception(type(error), error, error.__traceback__)
        body = msgspec.json.encode({"error": error_body(error)})
        return chunk_frames.header(Frame(chunk, 0, len(body), FAILED)) + body


def _groups(chunks: Sequence[str], sizes: Mapping[str, int]) -> Iterator[Sequence[str]]:
    """Group small chunks. A group is read in one call of the pool and sent in one write."""
    start, size = 0, 0
    for index, chunk in enumerate(chunks):
        if start < index and (size + sizes[chunk] > _GROUP or index - start >= _GROUP_CHUNKS):
            yield chunks[start:index]
            start, size = index, 0
        size += sizes[chunk]
    if start < len(chunks):
        yield chunks[start:]


class FileHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/files/{path}",
    routes=(
        Route(
            "GET",
            "Send a file or a range of it.",
            bytes,
            cost=Cost.LONG,
            right=access.READ,
            public=True,
            errors=(416,),
            note="Supports `Range`; the ETag is the digest of the file.",
        ),
        Route(
            "HEAD",
            "Return the size and the ETag of a file as headers.",
            None,
            cost=Cost.LONG,
            right=access.READ,
            public=True,
            errors=(416,),
        ),
    ),
):
    """One file of a version."""

    async def get(self, project: str, model: str, revision: str, path: str) -> None:
        """Send a file or a range of it.

        The headers make a browser download the file, never execute it.
        """
        files = self.services.files
        space, file = await self.run_long(files.file, self.caller, project, model, revision, path)
        self.set_header("ETag", f'"{file.digest}"')
        if self._has(file.digest):
            self.set_status(304)
            return
        self._describe(path)
        start, end = self._range(file.size)
        self.set_header("Content-Length", str(end - start))
        await stream(self, space, [partial(files.read, space, part) for part in parts(file.chunks, start, end)])

    async def head(self, project: str, model: str, revision: str, path: str) -> None:
        """Return the size and the ETag of a file as headers."""
        _, file = await self.run_long(self.services.files.file, self.caller, project, model, revision, path)
        self.set_header("ETag", f'"{file.digest}"')
        self._describe(path)
        self.set_header("Content-Length", str(file.size))
        self.finish()

    def _has(self, digest: str) -> bool:
        """Return whether `If-None-Match` names a digest.

        Tornado's `check_etag_header` compares with the response headers, which are not complete at this point.
        """
        given = self.request.headers.get("If-None-Match", "")
        return given.strip() == "*" or f'"{digest}"' in given

    def _describe(self, path: str) -> None:
        name = quote(path.rpartition("/")[2], safe="")
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{name}")
        self.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
        self.set_header("Accept-Ranges", "bytes")

    def _range(self, size: int) -> tuple[int, int]:
        """Parse the header `Range` and set the status and headers of the response."""
        header = self.request.headers.get("Range")
        found = _RANGE.fullmatch(header.strip()) if header else None
        if found is None or found.group(0) == "bytes=-" or max(map(len, found.groups())) > _SIZE_DIGITS:
            return 0, size  # HTTP allows the complete file for no range, several ranges, or an unknown unit
        first, last = found.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= end:
            self.set_header("Content-Range", f"bytes */{size}")
            raise RangeNotSatisfiable(f"the range {header!r} is outside the {size:,} bytes of this file")
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        return start, end


class RangeNotSatisfiable(InvalidRequest):
    """The requested range contains no byte of the file."""

    code = "range_not_satisfiable"
    http_status = 416


def _break_off(handler: Handler, error: LmvpError) -> None:
    """Close the connection in the middle of a response. A regular end would make damaged data look complete."""
    log.error("%s %s broke off: %s", handler.request.method, handler.request.path, error.message)
    connection = getattr(handler.request.connection, "stream", None)
    if connection is not None:
        connection.close()


async def stream(handler: Handler, space: str, reads: Sequence[Callable[[], bytes]]) -> None:
    """Send pieces in order; the next one is read while the current one is sent.

    The caller must have the right to read the project until the end.

    Parameters
    ----------
    space : str
        The id of the project that is the first part of the path.
    """
    ahead: asyncio.Future[bytes] | None = None
    try:
        for index, read in enumerate(reads):
            await handler.wait_for_room(_PIECE)
            data = await (ahead or handler.run(read))
            handler.release()
            handler.hold(len(data), required=False)
            # If memory is short, the next piece is read only after this one is sent.
            may_read = index + 1 < len(reads) and handler.has_room(_PIECE)
            ahead = asyncio.ensure_future(handler.run(reads[index + 1])) if may_read else None
            for start in range(0, len(data), _SLICE):  # Tornado copies its input, so large pieces are split
                await handler.recheck(access.READ, handler.path_args[0], space=space)
                handler.write(data[start : start + _SLICE])
                await handler.flush()
    except StreamClosedError:
        return  # the client disconnected
    except LmvpError as error:
        if not handler.has_begun:
            raise
        if isinstance(error, (AccessDenied, NotAuthenticated, NotFound)):  # the caller lost the right to read
            handler.break_off()
        else:
            _break_off(handler, error)
        return
    finally:
        if ahead is not None:
            # Retrieve the exception of an abandoned read, so that asyncio does not log it.
            ahead.add_done_callback(lambda done: done.cancelled() or done.exception())
    handler.finish()
