"""Versions: lists, records, manifests, layers, and pushes that come in one request."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import msgspec

from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp.records import Against, Amendment, NewPush
from lmvp.storage.frames import BATCH_LIMIT, Frame, FrameReader
from lmvp.storage.manifest import MANIFEST_LIMIT
from lmvp_server.handlers.base import JSON_LIMIT, READING, Handler, as_json, is_number
from lmvp_server.services import access
from lmvp_server.services.asked import EVERY, Asked
from lmvp_server.services.histograms import BINS
from lmvp_server.services.pushes import OpenPush

FRAMES = "application/x-lmvp-frames"
_LENGTH = struct.Struct("<I")


class ProjectVersions(Handler):
    """`/projects/{project}/versions`."""

    in_public = READING

    async def get(self, project: str) -> None:
        """List the versions of all models of a project."""
        of_project = self.services.versions.of_project
        asked = _asked(self)
        run = self.run_public if asked is EVERY else self.run_long
        self.answer(await run(as_json(of_project), self.caller, project, self.page(), asked))


class Versions(Handler):
    """`…/{model}/versions`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.PROPOSE}
    makes_project: ClassVar[frozenset[str]] = frozenset({"POST"})
    in_public = READING
    body_limit = BATCH_LIMIT + MANIFEST_LIMIT + 2 * JSON_LIMIT

    async def get(self, project: str, model: str) -> None:
        """List the versions of a model."""
        of_model = self.services.versions.of_model
        asked = _asked(self)
        run = self.run_public if asked is EVERY else self.run_long
        self.answer(await run(as_json(of_model), self.caller, project, model, self.page(), asked))

    async def post(self, project: str, model: str) -> None:
        """Make a version of a push that comes whole in this request."""
        pushes = self.services.pushes
        push = await self.run(self._receive, project, model, b"".join(self._body))
        await self.verify_tensors(push)
        self.answer(await self.run(pushes.commit_small, self.caller, push), 201)

    def _receive(self, project: str, model: str, data: bytes) -> OpenPush:
        head, received = _split(data)
        pushes = self.services.pushes
        push = pushes.prepare_small(self.caller, project, model, head)
        for frame, payload in received:
            if frame.chunk in push.missing:
                pushes.receive(push, frame, payload)
        return push


class Version(Handler):
    """`…/{model}/versions/{revision}`."""

    needs: ClassVar[Mapping[str, str]] = {"PATCH": access.WRITE}
    of_model: ClassVar[bool] = True
    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """Return one version."""
        self.answer(await self.run(self.services.versions.version, self.caller, project, model, revision))

    async def patch(self, project: str, model: str, revision: str) -> None:
        """Amend the record of a version."""
        given = self.read(Amendment)
        amend = self.services.versions.amend
        self.answer(await self.run(amend, self.caller, project, model, revision, given))

    async def delete(self, project: str, model: str, revision: str) -> None:
        """Take away a version; `now=1`: for good."""
        remove = partial(self.services.removal.version, for_good=self.flag("now"))
        self.answer(await self.run(remove, self.caller, project, model, revision))


class Changes(Handler):
    """`…/versions/{revision}/changes`."""

    needs: ClassVar[Mapping[str, str]] = {"POST": access.READ}
    of_model: ClassVar[bool] = True
    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """Tell how much each tensor changed since another version."""
        against = self.get_query_argument("against", "")
        changes = self.services.measuring.changes
        self.answer(await self.run_long(as_json(changes), self.caller, project, model, revision, against))

    async def post(self, project: str, model: str, revision: str) -> None:
        """Compare versions of any size, and report the progress; takes an account."""
        against, measured = self.read(Against).against, self.services.measuring.measured
        work = lambda tell: measured(self.caller, project, model, revision, against, tell)  # noqa: E731
        await self.answer_slowly(work, access.READ, project)


class Children(Handler):
    """`…/versions/{revision}/children`."""

    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """List what grew from a version."""
        children = self.services.versions.children
        self.answer(await self.run_public(as_json(children), self.caller, project, model, revision, self.page()))


class Histograms(Handler):
    """`…/versions/{revision}/histograms`."""

    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """Tell how the numbers of some tensors are spread."""
        bins = self.get_query_argument("bins", str(BINS))
        if not is_number(bins):
            raise InvalidArgument(f"bins={bins[:40]!r} is not a number of bins")
        work = partial(
            self.services.histograms.of_version,
            bins=int(bins),
            against=self.get_query_argument("against", ""),
        )
        tensors = self.get_query_arguments("tensor", strip=False)
        self.answer(await self.run_long(as_json(work), self.caller, project, model, revision, tensors))


class Manifest(Handler):
    """`…/versions/{revision}/manifest`."""

    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """Return the manifest as it is kept."""
        digest, data = await self.run_public(self.services.versions.manifest, self.caller, project, model, revision)
        self.set_header("ETag", f'"{digest}"')
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.answer(data)


class Layers(Handler):
    """`…/{model}/layers`."""

    in_public = READING

    async def get(self, project: str, model: str) -> None:
        """Return what changed in some versions, layer by layer."""
        asked = [number for number in self.get_query_argument("versions", "").split(",") if number]
        if not all(number.isascii() and number.isdigit() and len(number) < 12 for number in asked):
            raise InvalidArgument("`versions` is a list of version numbers: versions=3,2,1")
        numbers = [int(number) for number in asked]
        strips = as_json(self.services.layers.strips)
        self.answer(await self.run_long(strips, self.caller, project, model, numbers))


def _asked(handler: Handler) -> Asked:
    where, order = handler.get_query_argument("where", ""), handler.get_query_argument("order", "")
    return Asked(where, order) if where or order else EVERY


def _split(data: bytes) -> tuple[NewPush, list[tuple[Frame, list[memoryview]]]]:
    """Take the body of a small push apart: its head and its frames."""
    if len(data) < _LENGTH.size or len(data) - _LENGTH.size < _LENGTH.unpack_from(data)[0]:
        raise InvalidRequest("the body is shorter than it says", hint="see docs/api.md, A push")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    try:
        head = msgspec.json.decode(memoryview(data)[_LENGTH.size : end], type=NewPush)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the head of this push is not what it must be: {error}") from None
    reader = FrameReader()
    received = list(reader.feed(data[end:]))
    if not reader.between:
        raise InvalidRequest("the last frame is cut short")
    return head, received
