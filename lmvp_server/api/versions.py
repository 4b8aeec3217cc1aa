"""Handlers of versions: lists, records, manifests, layers, and pushes in a single request."""

from __future__ import annotations

import struct

import msgspec

from lmvp.core import schemas
from lmvp.core.chunk_frames import BATCH_LIMIT, Frame, FrameReader
from lmvp.core.manifest import MANIFEST_LIMIT
from lmvp.core.manifest import Manifest as ManifestBody
from lmvp.errors import InvalidRequest
from lmvp_server.api.base import (
    Handler,
)
from lmvp_server.api.query import (
    NOW,
    ORDER,
    PAGE,
    WHERE,
    Text,
    Whole,
)
from lmvp_server.api.route import JSON_LIMIT, Cost, Given, Route
from lmvp_server.services import access
from lmvp_server.services.histograms import BINS, BINS_LIMIT, LIMITS
from lmvp_server.services.pushes import OpenPush
from lmvp_server.services.versions import EVERY, VersionQuery

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


class ProjectVersionsHandler(
    Handler,
    path="/projects/{project}/versions",
    routes=(
        Route(
            "GET",
            "List the versions of all models of a project.",
            schemas.Version,
            many=True,
            right=access.READ,
            public=True,
            query=(*PAGE, WHERE, ORDER),
            cost=Cost.PUBLIC,
            filtered_cost=Cost.LONG,
            note='The newest comes first. See "Filters".',
            call=lambda services, caller, given: services.versions.of_project(
                caller, given.project, given.page, _query(given)
            ),
        ),
    ),
):
    """The versions of a project."""


class VersionsHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions",
    routes=(
        Route(
            "GET",
            "List the versions of a model.",
            schemas.Version,
            many=True,
            right=access.READ,
            public=True,
            query=(*PAGE, WHERE, ORDER),
            cost=Cost.PUBLIC,
            filtered_cost=Cost.LONG,
            note='The newest comes first, without the code of notebooks. See "Filters".',
            call=lambda services, caller, given: services.versions.of_model(
                caller, given.project, given.model, given.page, _query(given)
            ),
        ),
        Route(
            "POST",
            "Push a version in a single request.",
            schemas.Version,
            request=bytes,
            status=201,
            right=access.WRITE,
            admission=access.PROPOSE,
            creates_project=True,
            body_limit=BATCH_LIMIT + MANIFEST_LIMIT + 2 * JSON_LIMIT,
            note='A proposal needs the role contributor. See "A push".',
        ),
    ),
):
    """The versions of a model."""

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


class VersionHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}",
    routes=(
        Route(
            "GET",
            "Return one version.",
            schemas.Version,
            right=access.READ,
            public=True,
            call=lambda services, caller, given: services.versions.version(
                caller, given.project, given.model, given.revision
            ),
        ),
        Route(
            "PATCH",
            "Amend the record of a version.",
            schemas.Version,
            request=schemas.Amendment,
            right=access.WRITE,
            note="The event contains the previous state.",
            call=lambda services, caller, given: services.versions.amend(
                caller, given.project, given.model, given.revision, given.body
            ),
        ),
        Route(
            "DELETE",
            "Remove a version; `now=1` deletes it permanently.",
            schemas.Removed,
            right=access.MAINTAIN,
            query=(NOW,),
            note="409 if an alias points at it.",
            call=lambda services, caller, given: services.trash.remove_version(
                caller, given.project, given.model, given.revision, for_good=given.now
            ),
        ),
    ),
):
    """One version."""


class ChangesHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/changes",
    routes=(
        Route(
            "GET",
            "Return how much each tensor changed since another version.",
            schemas.Changes,
            right=access.READ,
            public=True,
            query=(AGAINST,),
            cost=Cost.LONG,
            note="For versions of more than 1 GiB: only the changes that were measured in idle time.",
            call=lambda services, caller, given: services.tensor_changes.changes(
                caller, given.project, given.model, given.revision, given.against
            ),
        ),
        Route(
            "POST",
            "Compare versions of any size and stream the progress; requires an account.",
            schemas.Changes,
            request=schemas.Against,
            right=access.READ,
            note="Reads at most 4 times the bytes of both versions, each counted with at most 1 GiB and 64 times its "
            "distinct chunks. Tensors beyond that are not measured.",
            slow_call=lambda services, caller, given, on_progress: services.tensor_changes.measured(
                caller, given.project, given.model, given.revision, given.body.against, on_progress
            ),
        ),
    ),
):
    """The changes between two versions."""


class ChildrenHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/children",
    routes=(
        Route(
            "GET",
            "List the children of a version.",
            schemas.Child,
            many=True,
            right=access.READ,
            public=True,
            query=PAGE,
            cost=Cost.PUBLIC,
            note="Only the versions of the same project; the newest comes first.",
            call=lambda services, caller, given: services.versions.children(
                caller, given.project, given.model, given.revision, given.page
            ),
        ),
    ),
):
    """The children of a version."""


class HistogramsHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/histograms",
    routes=(
        Route(
            "GET",
            "Return histograms of the values of some tensors.",
            schemas.Histograms,
            right=access.READ,
            public=True,
            query=(TENSORS, BIN_COUNT, OTHER),
            cost=Cost.LONG,
            note="At most 64 tensors. A tensor of more than 64 MiB is sampled evenly.",
            call=lambda services, caller, given: services.histograms.of_version(
                caller, given.project, given.model, given.revision, given.tensor, bins=given.bins, against=given.against
            ),
        ),
    ),
):
    """Histograms of tensors."""


class ManifestHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/manifest",
    routes=(
        Route(
            "GET",
            "Return the manifest of a version as canonical JSON.",
            ManifestBody,
            cost=Cost.PUBLIC,
            right=access.READ,
            public=True,
            note="The ETag is the digest of the version.",
        ),
    ),
):
    """The manifest of a version."""

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


class LayersHandler(
    Handler,
    path="/projects/{project}/models/{model}/layers",
    routes=(
        Route(
            "GET",
            "Return the layer strips of some versions: the change of each layer since the first parent.",
            schemas.Layers,
            right=access.READ,
            public=True,
            query=(NUMBERS,),
            cost=Cost.LONG,
            call=lambda services, caller, given: services.layers.strips(
                caller, given.project, given.model, [int(number) for number in given.versions.split(",") if number]
            ),
        ),
    ),
):
    """Layer strips of versions."""


def _query(given: Given) -> VersionQuery:
    return VersionQuery(given.where, given.order) if given.where or given.order else EVERY


def _split(data: bytes) -> tuple[schemas.NewPush, list[tuple[Frame, list[memoryview]]]]:
    """Split the body of a single-request push into its header and its frames."""
    if len(data) < _LENGTH.size or len(data) - _LENGTH.size < _LENGTH.unpack_from(data)[0]:
        raise InvalidRequest("the body is shorter than it says", hint="see docs/api.md, A push")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    try:
        head = msgspec.json.decode(memoryview(data)[_LENGTH.size : end], type=schemas.NewPush)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the head of this push is not what it must be: {error}") from None
    reader = FrameReader()
    received = list(reader.feed(data[end:]))
    if not reader.between:
        raise InvalidRequest("the last frame is cut short")
    return head, received
