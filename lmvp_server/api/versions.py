"""Handlers of versions: lists, records, manifests, layers, and pushes in a single request."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import msgspec

from lmvp.core.chunk_frames import BATCH_LIMIT, Frame, FrameReader
from lmvp.core.manifest import MANIFEST_LIMIT
from lmvp.core.schemas import Against, Amendment, NewPush
from lmvp.errors import InvalidRequest
from lmvp_server.api.base import (
    JSON_LIMIT,
    READING,
    Handler,
    as_json,
)
from lmvp_server.api.query import (
    NOW,
    ORDER,
    PAGE,
    WHERE,
    Parameter,
    Text,
    Whole,
)
from lmvp_server.services import access
from lmvp_server.services.histograms import BINS, BINS_LIMIT, LIMITS
from lmvp_server.services.pushes import OpenPush
from lmvp_server.services.queries import EVERY, Asked

FRAMES = "application/x-lmvp-frames"
AGAINST: Text[str] = Text(
    name="against", description="The version to compare with, as `v3` or `model@v3` of the same project.", required=True
)
OTHER: Text[str] = Text(
    name="against", description="A version whose histograms are in the answer too, with the same bins."
)
TENSORS: Text[tuple[str, ...]] = Text(
    name="tensor", description="The name of a tensor; once for each tensor.", many=True, required=True, strip=False
)
BIN_COUNT: Whole[int] = Whole(
    name="bins",
    description="The number of bins of a histogram.",
    default=BINS,
    least=1,
    most=BINS_LIMIT,
    hint=LIMITS,
)
NUMBERS: Text[str] = Text(
    name="versions",
    description="The numbers of the versions, joined by commas.",
    pattern="[0-9]{0,11}(,[0-9]{0,11})*",
    rule="a list of version numbers: versions=3,2,1",
)
_LENGTH = struct.Struct("<I")


class ProjectVersions(Handler):
    """`/projects/{project}/versions`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (*PAGE, WHERE, ORDER)}
    in_public = READING

    async def get(self, project: str) -> None:
        """List the versions of all models of a project."""
        of_project = self.services.versions.of_project
        asked = _asked(self)
        run = self.run_public if asked is EVERY else self.run_long
        self.answer(await run(as_json(of_project), self.caller, project, self.page(), asked))


class Versions(Handler):
    """`…/{model}/versions`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (*PAGE, WHERE, ORDER)}
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
        """Push a version in a single request."""
        pushes = self.services.pushes
        push = await self.run(self._receive, project, model, b"".join(self._body))
        await self.verify_tensors(push)
        # The caller is checked again: the verification can take long.
        self.answer(await self.run(pushes.commit_small, self.caller, push), 201)

    def _receive(self, project: str, model: str, data: bytes) -> OpenPush:
        head, received = _split(data)
        pushes = self.services.pushes
        push = pushes.prepare_small(self.caller, project, model, head)
        for frame, payload in received:
            # The client can send chunks that were stored since it started; they are skipped.
            if frame.chunk in push.missing:
                pushes.receive(push, frame, payload)
        return push


class Version(Handler):
    """`…/{model}/versions/{revision}`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"DELETE": (NOW,)}
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
        """Remove a version; `now=1` deletes it permanently."""
        remove = partial(self.services.removal.version, for_good=self.query(NOW))
        self.answer(await self.run(remove, self.caller, project, model, revision))


class Changes(Handler):
    """`…/versions/{revision}/changes`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (AGAINST,)}
    needs: ClassVar[Mapping[str, str]] = {"POST": access.READ}
    of_model: ClassVar[bool] = True
    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """Return how much each tensor changed since another version."""
        against = self.query(AGAINST)
        changes = self.services.measuring.changes
        self.answer(await self.run_long(as_json(changes), self.caller, project, model, revision, against))

    async def post(self, project: str, model: str, revision: str) -> None:
        """Compare versions of any size and stream the progress; requires an account."""
        against, measured = self.read(Against).against, self.services.measuring.measured
        work = lambda tell: measured(self.caller, project, model, revision, against, tell)  # noqa: E731
        await self.answer_slowly(work, access.READ, project)


class Children(Handler):
    """`…/versions/{revision}/children`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": PAGE}
    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """List the children of a version."""
        children = self.services.versions.children
        self.answer(await self.run_public(as_json(children), self.caller, project, model, revision, self.page()))


class Histograms(Handler):
    """`…/versions/{revision}/histograms`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (TENSORS, BIN_COUNT, OTHER)}
    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """Return histograms of the values of some tensors."""
        work = partial(
            self.services.histograms.of_version,
            bins=self.query(BIN_COUNT),
            against=self.query(OTHER),
        )
        tensors = self.query(TENSORS)
        self.answer(await self.run_long(as_json(work), self.caller, project, model, revision, tensors))


class Manifest(Handler):
    """`…/versions/{revision}/manifest`."""

    in_public = READING

    async def get(self, project: str, model: str, revision: str) -> None:
        """Return the manifest of a version as canonical JSON."""
        digest, data = await self.run_public(self.services.versions.manifest, self.caller, project, model, revision)
        self.set_header("ETag", f'"{digest}"')
        # A manifest never changes, so its digest is the ETag.
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.answer(data)


class Layers(Handler):
    """`…/{model}/layers`."""

    queries: ClassVar[Mapping[str, tuple[Parameter[Any], ...]]] = {"GET": (NUMBERS,)}
    in_public = READING

    async def get(self, project: str, model: str) -> None:
        """Return the layer strips of some versions: the change of each layer since the first parent."""
        numbers = [int(number) for number in self.query(NUMBERS).split(",") if number]
        strips = as_json(self.services.layers.strips)
        self.answer(await self.run_long(strips, self.caller, project, model, numbers))


def _asked(handler: Handler) -> Asked:
    where, order = handler.query(WHERE), handler.query(ORDER)
    return Asked(where, order) if where or order else EVERY


def _split(data: bytes) -> tuple[NewPush, list[tuple[Frame, list[memoryview]]]]:
    """Split the body of a single-request push into its header and its frames."""
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
