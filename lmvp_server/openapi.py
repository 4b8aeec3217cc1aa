"""Generator of the OpenAPI document, from the routes, the handlers' docstrings and the message structs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from tornado.web import RequestHandler

import lmvp
from lmvp.core import schemas
from lmvp.core.manifest import Manifest
from lmvp.core.schemas import runs as tracking
from lmvp.errors import BY_CODE, LmvpError
from lmvp_server.api import (
    aliases,
    backups,
    catalog,
    contributions,
    devices,
    downloads,
    events,
    export,
    forks,
    maintenance,
    metrics,
    pushes,
    runs,
    sse,
    team,
    trash,
    versions,
    webhooks,
)
from lmvp_server.api.health import HealthHandler
from lmvp_server.web import auth

_METHODS = ("get", "head", "post", "put", "patch", "delete")
_BYTES = {"type": "string", "format": "binary"}


@dataclass(frozen=True, slots=True)
class Shape:
    """The bodies of a request and its response.

    Parameters
    ----------
    gives, takes : type or None
        A struct, `bytes`, or None.
    many : bool
        Whether the response is a page of a list.
    slow : bool
        Whether the response consists of JSON lines: progress, then the result or an error (`Handler.answer_slowly`).
    """

    gives: Any
    takes: Any = None
    status: int = 200
    many: bool = False
    needs_body: bool = True
    slow: bool = False


SHAPES: dict[tuple[type, str], Shape] = {
    (HealthHandler, "get"): Shape(schemas.Health),
    (events.ServerEvents, "get"): Shape(schemas.Event, many=True),
    (events.Heads, "get"): Shape(schemas.Head, many=True),
    (devices.DeviceCodes, "post"): Shape(schemas.DeviceCode, schemas.AskCode),
    (devices.DeviceTokens, "post"): Shape(schemas.DeviceToken, schemas.AskToken),
    (devices.DeviceDecisions, "post"): Shape(schemas.DeviceDecision, schemas.Decide),
    (devices.TokenList, "get"): Shape(schemas.TokenRecord, many=True),
    (devices.TokenList, "post"): Shape(schemas.NewToken, schemas.MakeToken, 201),
    (devices.Token, "delete"): Shape(None, status=204),
    (devices.IdentityList, "get"): Shape(schemas.IdentityRecord, many=True),
    (devices.Identity, "delete"): Shape(None, schemas.Disconnect, 204, needs_body=False),
    (team.Me, "get"): Shape(schemas.User),
    (team.UserList, "get"): Shape(schemas.User, many=True),
    (team.UserList, "post"): Shape(schemas.User, schemas.NewUser, 201),
    (team.User, "patch"): Shape(schemas.User, schemas.UserChange),
    (contributions.ProjectContributions, "get"): Shape(schemas.Contribution, many=True),
    (contributions.Contribution, "get"): Shape(schemas.Contribution),
    (contributions.Accept, "post"): Shape(schemas.Contribution),
    (contributions.Decline, "post"): Shape(schemas.Contribution, schemas.Words),
    (contributions.Withdraw, "post"): Shape(schemas.Contribution),
    (contributions.Comments, "post"): Shape(schemas.Contribution, schemas.Words),
    (auth.SignInLinks, "post"): Shape(schemas.SignInLink, schemas.NewSignInLink, 201),
    (auth.Invitations, "get"): Shape(schemas.Invitation, many=True),
    (auth.Invitations, "post"): Shape(schemas.Invitation, schemas.Invite, 201),
    (auth.Invitation, "delete"): Shape(None, status=204),
    (team.GroupList, "get"): Shape(schemas.Group, many=True),
    (team.Group, "put"): Shape(schemas.Group, schemas.SetGroup),
    (team.Group, "delete"): Shape(None, status=204),
    (team.MemberList, "get"): Shape(schemas.Member, many=True),
    (team.Member, "put"): Shape(schemas.Member, schemas.SetRole),
    (team.Member, "delete"): Shape(None, status=204),
    (catalog.Project, "patch"): Shape(schemas.Project, schemas.ProjectChange),
    (events.ProjectEvents, "get"): Shape(schemas.Event, many=True),
    (catalog.Projects, "get"): Shape(schemas.Project, many=True),
    (catalog.Projects, "post"): Shape(schemas.Project, schemas.NewProject, 201),
    (backups.Backups, "post"): Shape(schemas.Backup, status=201),
    (backups.Backup, "get"): Shape(schemas.Backup),
    (backups.Backup, "delete"): Shape(None, status=204),
    (backups.Records, "get"): Shape(bytes),
    (backups.Series, "get"): Shape(bytes),
    (backups.Pieces, "post"): Shape(bytes, schemas.WantedPieces),
    (maintenance.ServerUsage, "get"): Shape(schemas.Usage),
    (forks.Fork, "post"): Shape(schemas.Model, schemas.Fork, 201),
    (forks.Contribute, "post"): Shape(schemas.Version, schemas.Contribute, 201),
    (webhooks.Webhooks, "get"): Shape(schemas.Webhook, many=True),
    (webhooks.Webhooks, "post"): Shape(schemas.MadeWebhook, schemas.NewWebhook, 201),
    (webhooks.Webhook, "delete"): Shape(None, status=204),
    (webhooks.Enable, "post"): Shape(schemas.Webhook),
    (webhooks.Test, "post"): Shape(schemas.Ping),
    (trash.Removed, "get"): Shape(schemas.RemovedItem, many=True),
    (trash.ProjectRemoved, "get"): Shape(schemas.RemovedItem, many=True),
    (trash.UndeleteProject, "post"): Shape(schemas.Project),
    (trash.UndeleteModel, "post"): Shape(schemas.Model),
    (trash.UndeleteVersion, "post"): Shape(schemas.Version),
    (maintenance.Garbage, "post"): Shape(schemas.Collected, schemas.Collect, slow=True),
    (maintenance.Compaction, "post"): Shape(schemas.Compacted, slow=True),
    (maintenance.Proof, "post"): Shape(schemas.Checked, schemas.Check, slow=True),
    (maintenance.ProjectUsage, "get"): Shape(schemas.Usage),
    (maintenance.ModelUsage, "get"): Shape(schemas.Usage),
    (maintenance.Pruning, "post"): Shape(schemas.Pruned, schemas.Prune, slow=True),
    (runs.Runs, "get"): Shape(tracking.RunRecord, many=True),
    (runs.Runs, "post"): Shape(tracking.RunRecord, tracking.NewRun, 201),
    (runs.Run, "get"): Shape(tracking.RunRecord),
    (runs.Run, "patch"): Shape(tracking.RunRecord, tracking.RunUpdate),
    (runs.Run, "delete"): Shape(None, status=204),
    (runs.End, "post"): Shape(tracking.RunRecord, tracking.RunEnd),
    (runs.Undelete, "post"): Shape(tracking.RunRecord),
    (runs.Writer, "get"): Shape(tracking.Applied),
    (runs.Writer, "put"): Shape(tracking.Applied, bytes),
    (metrics.RunMetrics, "get"): Shape(tracking.KeyRecord, many=True),
    (metrics.RunMetrics, "post"): Shape(tracking.Applied, tracking.NewPoints, 201),
    (metrics.Curves, "get"): Shape(tracking.Curves),
    (export.Export, "get"): Shape(bytes),
    (sse.Live, "get"): Shape(bytes),
    (catalog.Project, "get"): Shape(schemas.Project),
    (catalog.Project, "delete"): Shape(schemas.Removed),
    (catalog.Models, "get"): Shape(schemas.Model, many=True),
    (catalog.Models, "post"): Shape(schemas.Model, schemas.NewModel, 201),
    (catalog.Model, "get"): Shape(schemas.Model),
    (catalog.Model, "patch"): Shape(schemas.Model, schemas.ModelChange),
    (catalog.Model, "delete"): Shape(schemas.Removed),
    (versions.ProjectVersions, "get"): Shape(schemas.Version, many=True),
    (versions.Versions, "get"): Shape(schemas.Version, many=True),
    (versions.Versions, "post"): Shape(schemas.Version, bytes, 201),
    (versions.Version, "get"): Shape(schemas.Version),
    (versions.Version, "patch"): Shape(schemas.Version, schemas.Amendment),
    (versions.Version, "delete"): Shape(schemas.Removed),
    (versions.Changes, "get"): Shape(schemas.Changes),
    (versions.Changes, "post"): Shape(schemas.Changes, schemas.Against, slow=True),
    (versions.Children, "get"): Shape(schemas.Child, many=True),
    (versions.Histograms, "get"): Shape(schemas.Histograms),
    (versions.Manifest, "get"): Shape(Manifest),
    (versions.Layers, "get"): Shape(schemas.Layers),
    (aliases.Aliases, "get"): Shape(schemas.Alias, many=True),
    (aliases.Alias, "get"): Shape(schemas.Alias),
    (aliases.Alias, "put"): Shape(schemas.Alias, schemas.MoveAlias),
    (aliases.Alias, "delete"): Shape(None, status=204),
    (downloads.Chunks, "post"): Shape(bytes, schemas.WantedChunks),
    (downloads.File, "get"): Shape(bytes),
    (downloads.File, "head"): Shape(None),
    (pushes.Pushes, "post"): Shape(schemas.Push, schemas.NewPush, 201),
    (pushes.Push, "get"): Shape(schemas.Push),
    (pushes.Chunks, "put"): Shape(schemas.Received, bytes),
    (pushes.Commit, "post"): Shape(schemas.Version, status=201),
}
"""Shapes by handler and method. A test compares them with the routes."""


def methods_of(handler: type) -> list[str]:
    """Return the HTTP methods that a handler implements."""
    return [name for name in _METHODS if getattr(handler, name) is not getattr(RequestHandler, name)]


def document(routes: Sequence[tuple[str, type]], prefix: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the routes."""
    types = {shape for shapes in SHAPES.values() for shape in (shapes.gives, shapes.takes)} - {None, bytes}
    ordered = sorted({*types, schemas.ErrorBody}, key=lambda each: each.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "LMVP", "version": lmvp.__version__},
        "servers": [{"url": prefix}],
        "security": [{"token": []}],
        "paths": {_template(handler, pattern): _operations(handler) for pattern, handler in routes if _known(handler)},
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "responses": {f"Error{status}": _error_answer(status) for status in CODES},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _known(handler: type) -> bool:
    return any(known is handler for known, _ in SHAPES)


def _template(handler: type, pattern: str) -> str:
    """Replace the groups of a route's pattern with path parameters, named as the arguments of the handler's methods."""
    path = pattern
    for name in _parameters(handler):
        path = re.sub(r"\([^)]*\)", f"{{{name}}}", path, count=1)
    return path


def _parameters(handler: type) -> list[str]:
    function = getattr(handler, _first_method(handler))
    named = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    # The methods of `pushes.Chunks` take their path arguments from `path_args`.
    return list(named) or ["project", "model", "push"] * (handler is pushes.Chunks)


def _first_method(handler: type) -> str:
    return next(method for known, method in SHAPES if known is handler)


def _operations(handler: type) -> dict[str, Any]:
    found = {
        method: _operation(handler, method, shape) for (known, method), shape in SHAPES.items() if known is handler
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _parameters(handler)
    ]
    return {"parameters": parameters, **found} if parameters else found


def _operation(handler: type, method: str, shape: Shape) -> dict[str, Any]:
    statuses = errors_of(handler, method, in_path=bool(_parameters(handler)))
    errors = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in statuses}
    operation: dict[str, Any] = {
        "operationId": f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}.{method}",
        "summary": (getattr(handler, method).__doc__ or "").strip().partition("\n")[0],
        "responses": {str(shape.status): _answer(shape), **errors, "default": _error("another error")},
    }
    queries = handler.queries.get(method.upper(), ())  # type: ignore[attr-defined]
    if queries:
        operation["parameters"] = [parameter.document() for parameter in queries]
    if shape.takes is not None:
        operation["requestBody"] = {"required": shape.needs_body, "content": _content(shape.takes)}
    if getattr(handler, "open_to_all", False):
        operation["security"] = []
    return operation


def _answer(shape: Shape) -> dict[str, Any]:
    if shape.gives is None:
        return {"description": "done"}
    if shape.slow:
        return {"description": "progress, and the result or an error in the last line", "content": _lines(shape.gives)}
    return {"description": "done", "content": _content(shape.gives, shape.many)}


def _lines(type_: Any) -> dict[str, Any]:
    """Return the content of a response with JSON lines, each in one of three forms."""
    count = {"type": "integer", "minimum": 0}
    forms: list[dict[str, Any]] = [
        {"type": "object", "properties": {"done": count, "total": count}, "required": ["done", "total"]},
        {"type": "object", "properties": {"result": {"$ref": _schema(type_)}}, "required": ["result"]},
        {"$ref": "#/components/schemas/Error"},
    ]
    return {"application/x-ndjson": {"schema": {"anyOf": forms}}}


def _schema(type_: Any) -> str:
    return f"#/components/schemas/{type_.__name__}"


def _content(type_: Any, many: bool = False) -> dict[str, Any]:
    if type_ is bytes:
        return {"application/octet-stream": {"schema": _BYTES}}
    reference: dict[str, Any] = {"$ref": _schema(type_)}
    if many:
        pages = {
            "items": {"type": "array", "items": reference},
            "next": {"type": ["string", "null"]},
            "total": {"type": "integer"},
        }
        reference = {"type": "object", "properties": pages, "required": list(pages)}
    return {"application/json": {"schema": reference}}


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"$ref": "#/components/schemas/ErrorBody"}},
    "required": ["error"],
}


def _error(description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    reference = schema or {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


def _error_answer(status: int) -> dict[str, Any]:
    """Return the response of an error status, with the error codes that it can contain."""
    code = {"properties": {"error": {"properties": {"code": {"enum": list(CODES[status])}}}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Error"}, code]}
    answer = _error(HTTPStatus(status).phrase, schema)
    if status in (429, 503):
        wait = {"description": "Seconds to wait, if the server knows them.", "schema": {"type": "integer"}}
        answer["headers"] = {"Retry-After": wait}
    return answer


def errors_of(handler: Any, method: str, *, in_path: bool) -> list[int]:
    """Return the error statuses of a method.

    They follow from the facts that cause them: objects that the request names (404), a token (401, 403), a change
    (409), byte ranges (416). The other errors can occur on every route.
    """
    # Errors of every route: invalid request, limits, server faults, a full disk.
    statuses = {400, 413, 429, 500, 503, 507}
    if not getattr(handler, "open_to_all", False):
        statuses |= {401, 403, 422}
    if in_path or method in ("post", "put", "patch", "delete") or method.upper() in handler.queries:
        statuses.add(404)
    if method in ("post", "put", "patch", "delete"):
        statuses.add(409)
    if handler is downloads.File:
        statuses.add(416)
    return sorted(statuses)


def _codes() -> dict[int, tuple[str, ...]]:
    """Return the error codes of each HTTP status, from the error classes."""
    found: dict[int, set[str]] = {}
    kinds: list[type[LmvpError]] = [*BY_CODE.values(), downloads.RangeNotSatisfiable]
    for kind in kinds:
        found.setdefault(kind.http_status, set()).add(kind.code)
    return {status: tuple(sorted(codes)) for status, codes in sorted(found.items())}


CODES = _codes()
