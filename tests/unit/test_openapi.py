"""The OpenAPI document describes every route, and only what is there."""

import re

from lmvp_server import openapi
from lmvp_server.routes import API, ROUTES


def document():
    return openapi.document(ROUTES, API)


def test_every_method_of_every_route_is_declared():
    implemented = {(handler, method.upper()) for _, handler in ROUTES for method in openapi.methods_of(handler)}
    assert implemented == {(handler, method) for _, handler in ROUTES for method in handler.routes}
    assert len({handler.path for _, handler in ROUTES}) == len(ROUTES) >= 80
    assert len({handler.__name__ for _, handler in ROUTES}) == len(ROUTES)


def test_paths_name_their_parameters():
    paths = document()["paths"]
    assert len(paths) == len(ROUTES) - 1
    assert "/projects/{project}/models/{model}/versions/{revision}/files/{path}" in paths
    for path, operations in paths.items():
        assert "(" not in path
        declared = [parameter["name"] for parameter in operations.get("parameters", [])]
        assert declared == re.findall(r"{(\w+)}", path)


def test_every_reference_leads_somewhere():
    made = document()
    found = set(re.findall(r"#/components/schemas/(\w+)", str(made)))
    assert found
    assert found <= set(made["components"]["schemas"])


def test_only_health_and_the_login_of_devices_are_open():
    made = document()
    open_paths = [
        path
        for path, ops in made["paths"].items()
        for op in ops
        if isinstance(ops[op], dict) and ops[op].get("security") == []
    ]
    assert open_paths == ["/health", "/device/code", "/device/token"]
