"""Rights are checked before a body is read, and a manifest after that: a caller without a right causes no work."""

import inspect
import re
import socket

import pytest
from support.in_process import Served

from lmvp.core import manifest_validation
from lmvp.core.schemas import NewPush
from lmvp.errors import AccessDenied, InvalidManifest
from lmvp_server.api.base import Handler
from lmvp_server.api.body import DRAINED
from lmvp_server.routes import API, ROUTES
from lmvp_server.services import access, pushes
from lmvp_server.services.access import Caller

CHECKED_ELSEWHERE = {
    ("/invitations", "POST"): "the body names the project",
    ("/identities/([^/]+)", "DELETE"): "the body is a password at most",
    ("/signin-links", "POST"): "the body has 4 KiB at most",
    ("/projects/([^/]+)/models/([^/]+)/pushes/([^/]+)/chunks", "PUT"): "`prepare` finds the push",
}
BODY = re.compile(r"self\.read\b|self\._body|self\._frames")
GIVEN = "x"


def routes_with_body():
    for path, handler in ROUTES:
        for method in ("post", "put", "patch", "delete"):
            work = getattr(handler, method)
            if work.__qualname__.startswith("RequestHandler") or not issubclass(handler, Handler):
                continue
            declared = handler.routes[method.upper()].request is not None
            if declared or BODY.search(inspect.getsource(work)) or method.upper() in handler.needs:
                yield path, method.upper(), handler


def guarded():
    found = []
    for path, method, handler in routes_with_body():
        if method in handler.needs and handler.needs[method] != access.ENTER:
            found.append((method, re.sub(r"\([^)]*\)", GIVEN, path)))
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("admission") / "data") as served:
        assert served("POST", "/projects", json={"name": GIVEN}).ok
        assert served("POST", f"/projects/{GIVEN}/models", json={"name": GIVEN}).ok
        served.stranger = served.user("ada", scope="read")["token"]
        yield served


def test_routes_with_a_body_name_a_right():
    found = list(routes_with_body())
    assert len(found) > 30
    missing = [
        (path, method)
        for path, method, handler in found
        if method not in handler.needs and not handler.open_to_all and (path, method) not in CHECKED_ELSEWHERE
    ]
    assert missing == []


@pytest.mark.parametrize(("method", "path"), guarded())
def test_body_of_a_caller_without_a_right_is_refused_unread(served, method, path):
    head = (
        f"{method} {API}{path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        f"Authorization: Bearer {served.stranger}\r\nContent-Length: {DRAINED}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), 30) as connection:
        connection.sendall(head.encode())
        connection.sendall(b" " * DRAINED)  # no JSON: a handler that reads it answers 400
        answer = connection.recv(1 << 16).decode()
    assert answer.split()[1] in {"403", "404"}, answer


def test_manifest_of_a_caller_without_the_right_is_not_checked(served, monkeypatch):
    checked = []
    monkeypatch.setattr(pushes, "check_manifest", lambda manifest: checked.append(manifest))
    stranger = Caller("ada", user="u1", scope="write", roles=served.services.roles)
    body = NewPush(push="0" * 32, manifest=b"{}", create=True)
    with pytest.raises(Exception, match=r"no project|the name is taken|no right") as refused:
        served.services.pushes.prepare_small(stranger, GIVEN, GIVEN, body)
    assert refused.value.http_status in {AccessDenied.http_status, 404}
    assert checked == []


@pytest.mark.parametrize("paths", [["a", "a-b", "a/b"], ["a/b/c", "a/b"], ["z", "a/b", "a/b!", "a/b/c/d"]])
def test_file_and_folder_of_the_same_name_are_refused(paths):
    with pytest.raises(InvalidManifest, match="is a file and the folder of"):
        manifest_validation._check_paths(paths)


@pytest.mark.parametrize("paths", [["a-", "a/b", "ab"], ["a/b", "a/bc", "a/b-/c"], ["a\u00e9/b", "a"]])
def test_files_beside_folders_of_similar_names_are_accepted(paths):
    manifest_validation._check_paths(paths)
