"""Generator of the OpenAPI document, from the declared routes and the message structs."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from tornado.web import RequestHandler

import lmvp
from lmvp.core import schemas
from lmvp.errors import BY_CODE, LmvpError
from lmvp_server.api.base import Handler
from lmvp_server.api.downloads import RangeNotSatisfiable
from lmvp_server.api.health import OpenApiHandler
from lmvp_server.api.route import ANYONE, Route, names_in

_METHODS = ("get", "head", "post", "put", "patch", "delete")
_BYTES = {"type": "string", "format": "binary"}


def methods_of(handler: type) -> list[str]:
    """Return the HTTP methods that a handler implements."""
    return [name for name in _METHODS if getattr(handler, name) is not getattr(RequestHandler, name)]


def document(routes: Sequence[tuple[str, type[Handler]]], prefix: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the routes."""
    handlers = [handler for _, handler in routes if handler is not OpenApiHandler]
    declared = [route for handler in handlers for route in handler.routes.values()]
    types = {type_ for route in declared for type_ in (route.response, route.request)} - {None, bytes}
    ordered = sorted({*types, schemas.ErrorBody}, key=lambda each: each.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "LMVP", "version": lmvp.__version__},
        "servers": [{"url": prefix}],
        "security": [{"token": []}],
        "paths": {handler.path: _operations(handler) for handler in handlers},
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "responses": {f"Error{status}": _error_answer(status) for status in CODES},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operations(handler: type[Handler]) -> dict[str, Any]:
    operations = {method.lower(): _operation(handler, route) for method, route in handler.routes.items()}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names_in(handler.path)
    ]
    return {"parameters": parameters, **operations} if parameters else operations


def _operation(handler: type[Handler], route: Route) -> dict[str, Any]:
    statuses = errors_of(handler.path, route)
    errors = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in statuses}
    operation: dict[str, Any] = {
        "operationId": f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}.{route.method.lower()}",
        "summary": route.summary,
        "responses": {str(route.status): _answer(route), **errors, "default": _error("another error")},
    }
    if route.query:
        operation["parameters"] = [parameter.document() for parameter in route.query]
    if route.request is not None:
        operation["requestBody"] = {"required": route.is_body_required, "content": _content(route.request)}
    if route.right == ANYONE:
        operation["security"] = []
    return operation


def _answer(route: Route) -> dict[str, Any]:
    if route.response is None:
        return {"description": "done"}
    if route.slow_call is not None:
        content = _lines(route.response)
        return {"description": "progress, and the result or an error in the last line", "content": content}
    return {"description": "done", "content": _content(route.response, route.many)}


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


def errors_of(path: str, route: Route) -> list[int]:
    """Return the error statuses of a route.

    They follow from the facts that cause them: objects that the request names (404), a token (401, 403), a change
    (409), byte ranges (416). The other errors can occur on every route.
    """
    statuses = {*ALWAYS, *route.errors}
    if route.right != ANYONE:
        statuses |= {401, 403, 422}
    changes = route.method in ("POST", "PUT", "PATCH", "DELETE")
    if names_in(path) or changes or route.query:
        statuses.add(404)
    if changes:
        statuses.add(409)
    return sorted(statuses)


ALWAYS = (400, 413, 429, 500, 503, 507)
"""Error statuses of every route: invalid request, limits, server faults, a full disk."""


def _codes() -> dict[int, tuple[str, ...]]:
    """Return the error codes of each HTTP status, from the error classes."""
    found: dict[int, set[str]] = {}
    kinds: list[type[LmvpError]] = [*BY_CODE.values(), RangeNotSatisfiable]
    for kind in kinds:
        found.setdefault(kind.http_status, set()).add(kind.code)
    return {status: tuple(sorted(codes)) for status, codes in sorted(found.items())}


CODES = _codes()
