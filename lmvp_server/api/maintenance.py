"""Routes of maintenance: storage usage, pruning, garbage collection, compaction and verification (fsck)."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.route import Cost, Route
from lmvp_server.services import access


class ServerUsageHandler(
    Handler,
    path="/usage",
    routes=(
        Route(
            "GET",
            "Return the storage usage of all projects.",
            schemas.Usage,
            right=access.ADMIN,
            cost=Cost.LONG,
            call=lambda services, caller, _: services.usage.of_server(caller),
        ),
    ),
):
    """The storage usage of the server."""


class GcHandler(
    Handler,
    path="/gc",
    routes=(
        Route(
            "POST",
            "Delete unreferenced data; if requested, also the removed objects in the trash.",
            schemas.Collected,
            request=schemas.Collect,
            right=access.ADMIN,
            note="`removed` also deletes the files of decided contributions.",
            slow_call=lambda services, caller, given, _: services.trash.collect(caller, removed=given.body.removed),
        ),
    ),
):
    """Garbage collection."""


class CompactionHandler(
    Handler,
    path="/compact",
    routes=(
        Route(
            "POST",
            "Compact all chunks now, instead of when the server is idle.",
            schemas.Compacted,
            right=access.ADMIN,
            slow_call=lambda services, caller, _, __: services.upkeep.compact(caller),
        ),
    ),
):
    """Compaction of chunks."""


class FsckHandler(
    Handler,
    path="/fsck",
    routes=(
        Route(
            "POST",
            "Verify all digests; with `repair`, set damaged data aside.",
            schemas.Checked,
            request=schemas.Check,
            right=access.ADMIN,
            slow_call=lambda services, caller, given, on_progress: services.fsck.check(
                caller, given.body.repair, on_progress, given.body.heads
            ),
        ),
    ),
):
    """Verification of the stored data."""


class ProjectUsageHandler(
    Handler,
    path="/projects/{project}/usage",
    routes=(
        Route(
            "GET",
            "Return the storage usage of the models of a project.",
            schemas.Usage,
            right=access.READ,
            cost=Cost.LONG,
            call=lambda services, caller, given: services.usage.of_project(caller, given.project),
        ),
    ),
):
    """The storage usage of a project."""


class ModelUsageHandler(
    Handler,
    path="/projects/{project}/models/{model}/usage",
    routes=(
        Route(
            "GET",
            "Return the storage usage of the versions of a model.",
            schemas.Usage,
            right=access.READ,
            cost=Cost.LONG,
            call=lambda services, caller, given: services.usage.of_model(caller, given.project, given.model),
        ),
    ),
):
    """The storage usage of a model."""


class PruneHandler(
    Handler,
    path="/projects/{project}/models/{model}/prune",
    routes=(
        Route(
            "POST",
            "Delete the versions that a retention rule does not keep, or only list them.",
            schemas.Pruned,
            request=schemas.Prune,
            right=access.MAINTAIN,
            slow_call=lambda services, caller, given, _: services.retention.prune(
                caller, given.project, given.model, given.body
            ),
        ),
    ),
):
    """Deletion by a retention rule."""
