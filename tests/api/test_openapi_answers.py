"""The OpenAPI document states the query parameters that handlers read, and the errors that they answer with."""

import ast
import inspect
import io
import json
import re
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import numpy as np
import pytest
import requests
from jsonschema import Draft202012Validator
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp.errors import InvalidArgument, InvalidRequest
from lmvp_server import openapi
from lmvp_server.api.base import Handler
from lmvp_server.api.health import OpenApiHandler
from lmvp_server.api.query import NOW, WHERE, Parameter
from lmvp_server.routes import API, ROUTES

DOCUMENT = openapi.document(ROUTES, API)
OPERATIONS = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if method != "parameters"
]
HANDLERS = {handler for _, handler in ROUTES if handler is not OpenApiHandler}
DECLARED = {
    (handler, method, parameter.name)
    for handler in HANDLERS
    for method, parameters in handler.queries.items()
    for parameter in parameters
}
RUN = "0" * 32


def schema_of(schema):
    """A validator of a schema of the document, whose references lead into the document."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("data")) as served:
        client = Client(served.url, TOKEN)
        for factor in (1.0, 2.0):
            client.update("p/m", {"w": np.arange(9.0) * factor}, create=True, progress=False)
        assert served("POST", "/projects/p/runs", json={"run": RUN}).status_code == 201
        assert served("POST", f"/projects/p/runs/{RUN}/metrics", json={"values": {"loss": 1.0}}).status_code == 201
        served.user("grace")
        yield served


NAMES = {"project": "p", "model": "m", "revision": "v2", "run": RUN, "path": "weights.safetensors", "alias": "best"}


def address(path, names=NAMES, missing="0" * 32):
    return re.sub(r"{(\w+)}", lambda found: quote(names.get(found[1], missing)), path)


# -- parameters


def test_document_lists_the_query_parameters_of_each_route():
    found = {
        (method, path): {parameter["name"]: parameter for parameter in operation["parameters"]}
        for method, path, operation in OPERATIONS
        if "parameters" in operation
    }
    runs = found["get", "/projects/{project}/runs"]
    assert set(runs) == {"limit", "cursor", "where", "order"}
    assert runs["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert runs["where"]["schema"] == {"type": "string", "maxLength": 2000}
    curves = found["get", "/projects/{project}/metrics"]
    assert set(curves) == {"run", "key", "points", "from", "to", "axis", "format"}
    assert curves["run"]["required"]
    assert curves["run"]["schema"] == {"type": "array", "items": {"type": "string"}, "minItems": 1}
    assert curves["points"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100_000, "default": 1000}
    status = found["get", "/projects/{project}/contributions"]["status"]["schema"]
    assert status["enum"] == ["proposed", "accepted", "declined", "withdrawn"]
    removal = found["delete", "/projects/{project}/models/{model}"]["now"]["schema"]
    assert removal == {"type": "string", "enum": ["0", "1"], "default": "0"}
    assert all(parameter["description"] for parameters in found.values() for parameter in parameters.values())
    assert len(found) == len({(handler, method) for handler, method, _ in DECLARED})


def test_handlers_read_the_query_by_declared_parameters_alone(served):
    """No handler of the API reads the query past its declaration, and reading an undeclared parameter fails."""
    sources = {inspect.getsourcefile(handler) for handler in HANDLERS}
    for source in sources:
        tree = ast.parse(Path(source).read_text())
        pages = {node.lineno: node.end_lineno for node in tree.body if isinstance(node, ast.ClassDef)
                 and node.name not in {handler.__name__ for handler in HANDLERS}}  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.search(r"get_.*argument|query_arguments", node.attr):
                assert any(first <= node.lineno <= last for first, last in pages.items()), f"{source}:{node.lineno}"

    class Odd(Handler):
        queries: ClassVar = {"GET": (WHERE,)}

        def __init__(self):
            self.request = type("Request", (), {"method": "GET"})

        def get_query_arguments(self, name, strip=True):
            return []

    assert Odd().query(WHERE) == ""
    with pytest.raises(LookupError, match="'now'"):
        Odd().query(NOW)


def given(parameter):
    """A value that the parameter allows."""
    schema = parameter.schema()
    if "enum" in schema:
        return schema["enum"][-1]
    if schema["type"] == "integer":
        return str(schema["minimum"] or 1)
    known = {"where": "1 == 1", "order": "name", "run": RUN, "key": "loss", "against": "v1", "tensor": "w",
             "nonce": "a" * 32, "versions": "2,1", "cursor": "0", "from": "0", "to": "9", "axis": "time",
             "user": "grace", "since": "2026-01-01", "until": "2027-01-01"}  # fmt: skip
    return known.get(parameter.name, "x")


def test_each_declared_parameter_is_read_and_accepted(served, monkeypatch):
    read = set()
    query = Handler.query

    def spy(self, parameter):
        read.add((type(self), self.request.method, parameter.name))
        return query(self, parameter)

    monkeypatch.setattr(Handler, "query", spy)
    for _, handler in ROUTES:
        for method, parameters in getattr(handler, "queries", {}).items():
            names = {**NAMES, "project": "none"} if method == "DELETE" else NAMES
            path = address(handler.path, names)
            values = [(parameter.name, given(parameter)) for parameter in parameters]
            with requests.request(
                method,
                served.url + API + path,
                params=values,
                headers={"Authorization": f"Bearer {TOKEN}"},
                stream=True,
                timeout=60,
            ) as answer:
                allowed = {404} if method == "DELETE" else {200}
                if handler.__name__ == "ExportHandler":  # the last format; pyarrow may be missing
                    allowed = {200, 400}
                assert answer.status_code in allowed, f"{method} {path} {values}: {answer.text}"
    assert read == DECLARED


@pytest.mark.parametrize(("path", "query", "message"), [
    ("/projects/p/runs", "limit=0", "is not a number from 1 to 1000"),
    ("/projects/p/runs", "limit=1001", "is not a number from 1 to 1000"),
    ("/projects/p/runs", "cursor=-1", "is not a number from 0"),
    ("/projects/p/runs", "where=" + "x" * 2001, "the limit is 2,000"),
    ("/projects/p/models/m/versions", "order=" + "x" * 2001, "the limit is 2,000"),
    (f"/projects/p/metrics?run={RUN}", "points=0", "is not a number from 1 to 100000"),
    (f"/projects/p/metrics?run={RUN}", "from=nan", "is not a number"),
    (f"/projects/p/metrics?run={RUN}", "format=xml", "format='xml'"),
    ("/projects/p/metrics", "key=loss", "no run is named"),
    ("/projects/p/contributions", "status=lost", "status='lost'"),
    ("/projects/p/models/m/layers", "versions=a", "is not a list of version numbers"),
    ("/projects/p/models/m/versions/v2/histograms?tensor=w", "bins=513", "is not a number from 1 to 512"),
    ("/health", "nonce=A", "is not a nonce"),
])  # fmt: skip
def test_value_outside_its_declaration_is_refused(served, path, query, message):
    answer = served("GET", f"{path}{'&' if '?' in path else '?'}{query}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("what", [f"runs/{RUN}", "models/m/versions/v1", "models/m"])
def test_removal_with_an_unclear_now_removes_nothing(served, what):
    answer = served("DELETE", f"/projects/p/{what}?now=true")
    assert answer.status_code == 400
    assert served("GET", f"/projects/p/{what}").status_code == 200


# -- errors


def validated(answer, method, path):
    """Check that the document declares the status of an error and that the body matches; return the code."""
    operation = DOCUMENT["paths"][path][method]
    status = str(answer.status_code)
    assert status in operation["responses"], f"{method} {path}: {status} is not declared"
    reference = operation["responses"][status]["$ref"].rpartition("/")[2]
    declared = DOCUMENT["components"]["responses"][reference]
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    schema_of(declared["content"]["application/json"]["schema"]).validate(body)
    return body["error"]["code"]


def test_error_answers_of_every_route_match_the_document(served):
    codes = {}
    for method, path, operation in OPERATIONS:
        there, lost = address(path), address(path, {})
        asked = [
            served(method, there, token="wrong"),
            served(method, lost, data=b"\xff{"),
            served(method, there, headers={"Content-Length": str(1 << 40)}, data=io.BytesIO(b"")),
        ]
        if "requestBody" in operation:
            asked.append(served(method, there, json={"no such field": 1}))
        for parameter in operation.get("parameters", ()):
            if "enum" in parameter["schema"] or parameter["schema"]["type"] == "integer":
                asked.append(served(method, there, params={parameter["name"]: "no such value"}))
        for answer in asked:
            if answer.status_code >= 400 and method != "head":
                codes.setdefault(answer.status_code, set()).add(validated(answer, method, path))
    assert {400, 401, 404, 413} <= set(codes)
    assert codes[401] == {"not_authenticated"}
    assert {"invalid_request", "invalid_argument"} <= codes[400]


def test_special_errors_match_the_document(served):
    token = served("POST", "/tokens", json={"name": "reads", "scope": "read"}).json()["token"]
    file = "/projects/{project}/models/{model}/versions/{revision}/files/{path}"
    version = "/projects/{project}/models/{model}/versions/{revision}"
    identities = "/identities"
    fork, pushes = "/projects/{project}/models/{model}/fork", "/projects/{project}/models/{model}/versions"
    cases = [
        (served("GET", address(file), headers={"Range": "bytes=99999-"}), "get", file, "range_not_satisfiable"),
        (served("DELETE", address(version), token), "delete", version, "access_denied"),
        (served("POST", address(fork), json={"to": "p/m"}), "post", fork, "already_exists"),
        (served("GET", identities, params={"user": "nobody"}), "get", identities, "not_found"),
        (served("POST", "/projects", json={"name": "p"}), "post", "/projects", "already_exists"),
        (served("POST", address(pushes), data=b"\1"), "post", pushes, "invalid_request"),
    ]
    assert [validated(answer, method, path) for answer, method, path, _ in cases] == [code for *_, code in cases]


def test_lines_of_slow_answers_match_the_document(served):
    slow = [(method, path, operation) for method, path, operation in OPERATIONS
            if "application/x-ndjson" in operation["responses"].get("200", {}).get("content", {})]  # fmt: skip
    assert {path.rpartition("/")[2] for _, path, _ in slow} == {"gc", "compact", "fsck", "prune", "changes"}
    bodies = {"prune": {"keep": "last:9"}, "changes": {"against": "v1"}}
    for method, path, operation in slow:
        answer = served(method, address(path), json=bodies.get(path.rpartition("/")[2], {}))
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        check = schema_of(operation["responses"]["200"]["content"]["application/x-ndjson"]["schema"])
        lines = [json.loads(line) for line in answer.text.splitlines()]
        for line in lines:
            check.validate(line)
        assert "result" in lines[-1]


# -- the document


def test_document_is_valid_openapi():
    assert DOCUMENT["openapi"].startswith("3.1.")
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    for method, path, operation in OPERATIONS:
        assert operation["responses"], path
        parameters = [*DOCUMENT["paths"][path].get("parameters", ()), *operation.get("parameters", ())]
        places = [(parameter["in"], parameter["name"]) for parameter in parameters]
        assert len(places) == len(set(places)), f"{method} {path}"
        for parameter in parameters:
            assert set(parameter) <= {"name", "in", "required", "description", "schema"}
            assert parameter["in"] in {"path", "query"}
            assert parameter["required"] or parameter["in"] == "query"
            Draft202012Validator.check_schema(parameter["schema"])
            if "default" in parameter["schema"]:
                Draft202012Validator(parameter["schema"]).validate(parameter["schema"]["default"])
        for status, response in operation["responses"].items():
            assert status == "default" or 200 <= int(status) < 600
            found = response
            if "$ref" in response:
                found = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
            assert found["description"]
            for content in found.get("content", {}).values():
                schema_of(content["schema"]).check_schema(content["schema"])
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in re.findall(r"'\$ref': '#/([^']+)'", str(DOCUMENT)):
        found = DOCUMENT
        for part in reference.split("/"):
            found = found[part]


def test_each_error_status_lists_its_codes():
    declared = DOCUMENT["components"]["responses"]
    code = declared["Error409"]["content"]["application/json"]["schema"]["allOf"][1]["properties"]["error"]
    assert code["properties"]["code"]["enum"] == ["already_exists", "conflict", "protected_alias"]
    assert all(f"Error{kind.http_status}" in declared for kind in openapi.BY_CODE.values())
    assert "Retry-After" in declared["Error429"]["headers"]


def test_parameter_refuses_each_value_that_its_schema_refuses():
    """The check of a parameter and its schema are one rule."""
    texts = [
        "",
        "0",
        "1",
        "-1",
        "1e3",
        "7.0",
        "7.5",
        "99999999999999999999",
        "x",
        "csv",
        "proposed",
        "2,1",
        "a" * 32,
        "y" * 2001,
    ]
    parameters = {parameter for handler in HANDLERS for some in handler.queries.values() for parameter in some}
    assert len(parameters) > 20
    for parameter in parameters:
        assert isinstance(parameter, Parameter)
        check = Draft202012Validator(parameter.schema())
        whole = parameter.schema()["type"] in ("integer", "number")
        for text in texts[1:]:  # an empty text counts as no parameter
            value = text
            if whole:
                try:
                    value = json.loads(text)
                except ValueError:
                    value = text
            try:
                parameter.parse(text)
                accepted = True
            except (InvalidArgument, InvalidRequest):
                accepted = False
            assert accepted == check.is_valid(value), (parameter.name, text)
