"""The proxy in a real Jupyter server under attack: from browsers, from other users, and from a hostile LMVP server."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from support.ports import reserved_port

from lmvp_jupyter.server_extension import BODY_LIMIT

pytestmark = pytest.mark.notebook

TOKEN = "jupyter-token-for-tests"
LMVP_TOKEN = "lmvp-token-for-tests-" + "x" * 30
MIB = 1 << 20
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OK = b"HTTP/1.1 200 OK\r\nLMVP-API: 1\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok"

USERS = '''
from jupyter_server.auth import Authorizer, IdentityProvider, User

c = get_config()

class Users(IdentityProvider):
    """Signs in the user that a header names, as a hub would; its token counts too."""

    def get_user(self, handler):
        name = handler.request.headers.get("X-Test-User", "")
        if name:
            return User(username=name)
        return super().get_user(handler)

class Rules(Authorizer):
    """Lets grace read all but LMVP, and ada do everything."""

    def is_authorized(self, handler, user, action, resource):
        return user.username != "grace" or (action == "read" and resource != "lmvp")

c.ServerApp.identity_provider_class = Users
c.ServerApp.authorizer_class = Rules
'''


class FakeServer:
    """A server on a raw socket. `respond` is the bytes that it sends, or a function of the connection."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.respond, self.requests, self.ended = OK, [], threading.Event()
        self.closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(60)
            data = b""
            while b"\r\n\r\n" not in data:
                piece = connection.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?im)^content-length: *(\d+)", head)
            while length and len(body) < int(length[1]):
                body += connection.recv(65536)
            self.requests.append((head.decode("latin-1"), body))
            if callable(self.respond):
                self.respond(connection)
            else:
                connection.sendall(self.respond)

    def close(self):
        self.closing.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def wait_for_its_end(self, connection):
        """Wait until the other side closes the connection, and note that."""
        with contextlib.suppress(OSError):
            while connection.recv(1024):
                pass
        self.ended.set()


class Jupyter:
    def __init__(self, process, base):
        self.process, self.base, self.lmvp = psutil.Process(process.pid), base, base + "lmvp"
        self.port = urlsplit(base).port
        self.path = urlsplit(base).path

    def ask(self, path="/", method="GET", **more):
        headers = {"Authorization": f"token {TOKEN}", **more.pop("headers", {})}
        return requests.request(method, self.lmvp + path, headers=headers, timeout=30, allow_redirects=False, **more)

    def raw(self, data, is_all):
        """Send bytes as they are; return all that comes until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            if is_all:  # the server would wait for more, or answer, and then wait for another request
                connection.shutdown(socket.SHUT_WR)
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(65536):
                    found += piece
        return found

    def line(self, line, *headers, body=b"", is_all=False):
        lines = [line, f"Host: 127.0.0.1:{self.port}", f"Authorization: token {TOKEN}", *headers]
        return self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body, is_all)


@pytest.fixture(scope="module")
def fake():
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def started(fake, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "jupyter_server_config.d").mkdir()
    turned_on = {"ServerApp": {"jpserver_extensions": {"lmvp_jupyter": True}}}
    (folder / "jupyter_server_config.d" / "lmvp.json").write_text(json.dumps(turned_on))
    (folder / "jupyter_server_config.py").write_text(USERS)
    names = ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "LMVP_HOME")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LMVP_")}
    environment |= {name: str(folder / name) for name in names}
    environment |= {"JUPYTER_CONFIG_DIR": str(folder), "LMVP_URL": fake.url, "LMVP_TOKEN": LMVP_TOKEN,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # fmt: skip
    port = reserved_port()
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0",
               "--allow-root", f"--IdentityProvider.token={TOKEN}", "--ServerApp.base_url=/user/ada/",
               f"--ServerApp.root_dir={folder}"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    jupyter = Jupyter(process, f"http://127.0.0.1:{port}/user/ada/")
    jupyter.log = folder / "log"
    try:
        while True:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{jupyter.base}api", timeout=5)
                break
            assert process.poll() is None, jupyter.log.read_text()
            time.sleep(0.05)
        yield jupyter
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def jupyter(started, fake):
    fake.respond, fake.requests, fake.ended = OK, [], threading.Event()
    before = started.log.stat().st_size
    yield started
    logged = started.log.read_bytes()[before:].decode()
    assert "Traceback" not in logged, logged
    assert LMVP_TOKEN not in logged
    assert requests.get(f"{started.base}api", timeout=20).status_code == 200, "the event loop runs"


def headers_of(head):
    lines = head.split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


# -- who may use it


@pytest.mark.parametrize("path", ["/", "/api/v1/projects", "/static/look.css", "/login", "//x", "/%2e%2e/x"])
def test_anonymous_request_gets_nothing(jupyter, fake, path):
    for method in METHODS:
        for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": f"Bearer {LMVP_TOKEN}"},
                        {"Cookie": "lmvp_session=x; username-127-0-0-1=x"}):  # fmt: skip
            answer = requests.request(method, jupyter.lmvp + path, headers=headers, timeout=20, allow_redirects=False)
            assert answer.status_code in (302, 403), (method, headers)
            if answer.status_code == 302:
                assert answer.headers["Location"].startswith("/user/ada/login")
    assert fake.requests == []


def test_body_of_an_anonymous_request_is_not_read(jupyter, fake):
    head = f"POST {jupyter.path}lmvp/api HTTP/1.1\r\nHost: 127.0.0.1:{jupyter.port}\r\nContent-Length: 999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", jupyter.port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("method", METHODS)
def test_other_jupyter_user_needs_the_authorizers_consent(jupyter, fake, method):
    for path in ("/", "/api/v1/projects", "/static/look.css"):
        answer = requests.request(method, jupyter.lmvp + path, headers={"X-Test-User": "grace"}, timeout=20,
                                  allow_redirects=False)  # fmt: skip
        assert answer.status_code in (403, 405), path
    assert fake.requests == []
    assert requests.get(f"{jupyter.lmvp}/", headers={"X-Test-User": "ada"}, timeout=20).text == "ok"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_unsafe_method_with_a_cookie_needs_the_xsrf_token(jupyter, fake, method):
    """In a header the token is Jupyter's; in a form, which is forwarded, it is one that the proxy makes."""
    session = requests.Session()
    session.get(f"{jupyter.lmvp}/?token={TOKEN}", timeout=20)
    token = next(cookie.value for cookie in session.cookies if cookie.name == "_xsrf")
    mine = headers_of(fake.requests[0][0])["x-forwarded-xsrf"]
    session.get(f"{jupyter.lmvp}/", timeout=20)
    assert headers_of(fake.requests[1][0])["x-forwarded-xsrf"] == mine
    fake.requests.clear()
    url = f"{jupyter.lmvp}/api/v1/projects"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    parts = {"Content-Type": "multipart/form-data; boundary=x"}
    multipart = f'--x\r\nContent-Disposition: form-data; name="_xsrf"\r\n\r\n{mine}\r\n--x--\r\n'
    refused = [
        {}, {"data": "a=b", "headers": form}, {"data": "_xsrf=forged", "headers": form},
        {"data": f"_xsrf={mine}", "headers": {"Content-Type": "text/plain"}},
        {"data": f"_xsrf={token}", "headers": form}, {"headers": {"X-XSRFToken": mine}},
        {"data": multipart, "headers": {"Content-Type": "multipart/form-data"}},
        {"headers": {"X-XSRFToken": "forged"}},
        {"headers": {"X-XSRFToken": token, "Origin": "https://evil.example"}},
    ]  # fmt: skip
    for options in refused:
        assert session.request(method, url, timeout=20, **options).status_code in (403, 404), options
    assert fake.requests == []
    for options in ({"headers": {"X-XSRFToken": token}}, {"data": f"_xsrf={mine}&a=b", "headers": form},
                    {"data": multipart, "headers": parts}):  # fmt: skip
        assert session.request(method, url, timeout=20, **options).status_code == 200, options
    assert fake.requests[1][1] == f"_xsrf={mine}&a=b".encode(), "the body is forwarded as it came"


def test_server_learns_no_token_that_counts_in_jupyter(jupyter, fake):
    session = requests.Session()
    session.get(f"{jupyter.lmvp}/?token={TOKEN}", timeout=20)
    own = next(cookie.value for cookie in session.cookies if cookie.name == "_xsrf")
    session.get(f"{jupyter.lmvp}/?_xsrf={own}", timeout=20)
    assert all(own not in head for head, _ in fake.requests)
    learned = headers_of(fake.requests[1][0])["x-forwarded-xsrf"]
    for options in (
        {"params": {"_xsrf": learned}},
        {"headers": {"X-XSRFToken": learned}},
        {"data": {"_xsrf": learned}},
    ):
        answer = session.post(f"{jupyter.base}api/contents", json={"type": "notebook"}, timeout=20, **options)
        assert answer.status_code in (403, 404), options
    allowed = session.post(f"{jupyter.base}api/contents", json={"type": "file"}, params={"_xsrf": own}, timeout=20)
    assert allowed.status_code == 201, "Jupyter's own token counts there"


def test_form_token_of_another_user_does_not_count(jupyter, fake):
    mine = {}
    for name in ("ada", "lovelace"):
        requests.get(f"{jupyter.lmvp}/", headers={"X-Test-User": name}, timeout=20)
        mine[name] = headers_of(fake.requests[-1][0])["x-forwarded-xsrf"]
    assert mine["ada"] != mine["lovelace"]
    for token, status in ((mine["lovelace"], 403), (mine["ada"], 200)):
        answer = requests.post(
            f"{jupyter.lmvp}/x",
            headers={"X-Test-User": "ada"},
            data={"_xsrf": token},
            timeout=20,
            allow_redirects=False,
        )
        assert answer.status_code == status


def test_policy_keeps_pages_below_the_prefix(jupyter, fake):
    policy = jupyter.ask("/").headers["Content-Security-Policy"].rpartition(", ")[2]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    place = f"127.0.0.1:{jupyter.port}{jupyter.path}lmvp/"
    assert rules == {
        "default-src": place, "script-src": f"{place}static/", "style-src": f"{place} 'unsafe-inline'",
        "img-src": f"{place} data:", "object-src": "'none'", "frame-src": "'none'", "child-src": "'none'",
        "worker-src": "'none'", "base-uri": "'none'", "form-action": place, "frame-ancestors": "'self'",
    }  # fmt: skip
    for host in ("[::1]", "evil.example; script-src *", "x,y"):
        headers = {"Host": f"{host}:{jupyter.port}"}
        assert "evil" not in jupyter.ask("/", headers=headers).headers.get("Content-Security-Policy", "")


# -- where requests go


@pytest.mark.parametrize(
    "target",
    [
        "{path}lmvp/../../api", "{path}lmvp/%2e%2e/api", "{path}lmvp/%2E%2E%2fapi", "{path}lmvp/..%5c..%5cx",
        "{path}lmvp/a/./b", "{path}lmvp/a%00b", "{path}lmvp/a%0d%0aX-Evil:%201", "{path}lmvp/%ff%fe/..",
        "{path}lmvp/static/%ff%fe", "{path}lmvp/static/%ff/%2e%2e/x",
        "{path}lmvp//evil.example/x", "{path}lmvp/%2fevil.example/x", "{path}lmvp/\\evil.example",
        "{path}lmvp/\xfc", "{path}lmvp/a\x7fb", "{path}lmvp/static/../../../setup.cfg",
        "{path}lmvp/static/%2e%2e/app.py", "{path}lmvp/static/..%2fapp.py", "{path}lmvp/static//etc/passwd",
        "http://evil.example{path}lmvp/", "http://127.0.0.1:1{path}lmvp/", "//evil.example{path}lmvp/", "*",
    ],
)  # fmt: skip
def test_path_that_leads_elsewhere_is_refused(jupyter, fake, target):
    answer = jupyter.line(f"GET {target.format(path=jupyter.path)} HTTP/1.1", "Connection: close")
    assert answer.split(b" ")[1][:3] in (b"400", b"403", b"404"), answer[:200]
    assert fake.requests == []


def test_path_and_query_are_forwarded_as_they_came(jupyter, fake):
    for path in ("/p/a%2Fb", "/p/%c3%bc?q=%C3%BC&a=&a=1", "/x;y=1/@v1/~a", "/?next=//evil.example"):
        jupyter.line(f"GET {jupyter.path}lmvp{path} HTTP/1.1", "Connection: close")
    targets = [head.split(" ")[1] for head, _ in fake.requests]
    assert targets == ["/p/a%2Fb", "/p/%c3%bc?q=%C3%BC&a=&a=1", "/x;y=1/@v1/~a", "/?next=%2F%2Fevil.example"]


def test_jupyters_secrets_and_hop_by_hop_headers_stay_here(jupyter, fake):
    session = requests.Session()
    session.get(f"{jupyter.lmvp}/?token={TOKEN}", timeout=20)
    sent = {"Authorization": f"token {TOKEN}", "Host": f"127.0.0.1:{jupyter.port}", "X-Forwarded-For": "1.2.3.4",
            "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil",
            "X-Forwarded-Xsrf": "evil", "X-Real-IP": "1.2.3.4", "Forwarded": "for=1.2.3.4",
            "Connection": "X-Gone, close",
            "X-Gone": "1", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "TE": "trailers", "Keep-Alive": "1",
            "Proxy-Authorization": "Basic eDp5", "Proxy-Connection": "keep-alive", "Expect": "", "Origin": "http://x",
            "Referer": f"{jupyter.base}?token={TOKEN}", "X-XSRFToken": "x", "X-Test-User": "",
            "Sec-Fetch-Site": "same-origin", "Cookie": "lmvp_session=stolen; lmvp_theme=dark; _xsrf=y"}  # fmt: skip
    session.get(f"{jupyter.lmvp}/p?token={TOKEN}&_xsrf=x&q=1", headers=sent, timeout=20)
    sent["Cookie"] = "lmvp_theme=evil; lmvp_visitor=x"
    session.get(f"{jupyter.lmvp}/p", headers=sent, timeout=20)
    head, _ = fake.requests[1]
    assert head.startswith("GET /p?q=1 HTTP/1.1\r\n")
    found = headers_of(head)
    assert found["host"] == urlsplit(fake.url).netloc
    assert found["authorization"] == f"Bearer {LMVP_TOKEN}"
    assert found["cookie"] == "lmvp_theme=dark"
    assert found["x-forwarded-prefix"] == "/user/ada/lmvp"
    assert found["x-forwarded-xsrf"] not in {"evil", "x"}
    assert set(found) <= {"host", "authorization", "cookie", "accept", "accept-encoding", "accept-language",
                          "x-forwarded-prefix", "x-forwarded-xsrf"}  # fmt: skip
    assert "cookie" not in headers_of(fake.requests[2][0])
    for each, body in fake.requests:
        assert TOKEN not in each + body.decode()


SMUGGLED = b"0\r\n\r\nGET /user/ada/lmvp/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Content-Length: 60"],
        ["Content-Length: 5, 60"],
        ["Content-Length: +5"],
        ["Content-Length: -1"],
        ["Content-Length: 0x5"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding : chunked"],
        ["Content-Length: 5", "Content-Type: a\x0bb\r\nTransfer-Encoding:\tchunked"],
        ["Range: bytes=0-1\rX-Evil: 1"],
        ["If-Match: a\nX-Evil: 1"],
        ["Accept: a\x00b"],
    ],
)
def test_smuggled_request_does_not_arrive(jupyter, fake, headers):
    answer = jupyter.line(f"POST {jupyter.path}lmvp/first HTTP/1.1", *headers, body=SMUGGLED, is_all=True)
    assert len(fake.requests) <= 1
    for head, _ in fake.requests:
        assert "smuggled" not in head
        assert "x-evil" not in {name.strip() for name in headers_of(head)}
        assert head.count("\r\nContent-Length:") <= 1
        assert "transfer-encoding" not in headers_of(head)
    assert b" 500 " not in answer[:20]


# -- what comes back


def test_response_headers_cannot_reach_jupyters_origin(jupyter, fake):
    fake.respond = (
        b"HTTP/1.1 200 OK\r\nLMVP-API: 1\r\nContent-Type: text/html\r\nContent-Length: 2\r\n"
        b'Set-Cookie: username-127=evil; Path=/\r\nSet-Cookie2: a=b\r\nClear-Site-Data: "*"\r\n'
        b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nService-Worker-Allowed: /\r\n"
        b"Content-Security-Policy: default-src * 'unsafe-inline'; frame-ancestors *\r\n"
        b"Refresh: 0; url=//evil.example\r\n"
        b"Link: </evil.js>; rel=preload\r\nSourceMap: /evil\r\nStrict-Transport-Security: max-age=1\r\n"
        b"X-Content-Type-Options: none\r\nContent-Location: //evil.example\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
        b'Alt-Svc: h3=":1"\r\nWWW-Authenticate: Basic\r\nAuthorization: Bearer ' + LMVP_TOKEN.encode() + b"\r\n\r\nok"
    )
    answer = jupyter.ask()
    assert answer.text == "ok"
    gone = ("Set-Cookie2", "Clear-Site-Data", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
            "Service-Worker-Allowed", "Refresh", "Link", "SourceMap", "Strict-Transport-Security", "Content-Location",
            "Upgrade", "Alt-Svc", "WWW-Authenticate", "Authorization")  # fmt: skip
    assert [name for name in gone if answer.headers.get(name)] == []
    assert "evil" not in answer.headers.get("Set-Cookie", "")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policies = [policy.strip() for policy in answer.headers["Content-Security-Policy"].split(",")]
    place = f"127.0.0.1:{jupyter.port}{jupyter.path}lmvp/"
    assert any(policy.startswith(f"default-src {place}; script-src {place}static/;") for policy in policies)
    assert any("frame-ancestors 'self'" in policy and "'unsafe-inline'" not in policy.partition("style-src")[0]
               for policy in policies)  # fmt: skip
    assert LMVP_TOKEN not in str(answer.headers)


@pytest.mark.parametrize(
    "kind", ["text/javascript", "APPLICATION/x-Javascript", "text/ecmascript; charset=x", "text/jscript"]
)
@pytest.mark.parametrize("path", ["/evil.js", "/api/v1/evil", "/console/main.js"])
def test_script_of_the_server_does_not_run(jupyter, fake, kind, path):
    fake.respond = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind.encode() + b"\r\nContent-Length: 5\r\n\r\nevil1"
    answer = jupyter.ask(path)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_scripts_of_the_console_are_those_of_this_installation(jupyter, fake):
    from importlib.resources import files

    for name in ("look.css", "console/main.js", "widgets/history.js"):
        answer = jupyter.ask(f"/static/{name}")
        assert answer.content == (files("lmvp_server") / "static" / name).read_bytes()
        assert jupyter.ask(f"/static/{name}", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
        assert jupyter.ask(f"/static/{name}", "HEAD").headers["Content-Length"] == str(len(answer.content))
    assert jupyter.ask("/static/missing.js").status_code == 404
    assert fake.requests == []


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("digits?x=1", "/user/ada/lmvp/p/digits?x=1"),
        ("/p/digits", "/user/ada/lmvp/p/digits"),
        ("/user/ada/lmvp/p", "/user/ada/lmvp/p"),
        ("https://evil.example/", "/user/ada/lmvp/"),
        ("//evil.example/", "/user/ada/lmvp/"),
        ("/\\evil.example/", "/user/ada/lmvp/"),
        ("javascript:alert(1)", "/user/ada/lmvp/"),
        ("/user/ada/lmvp/%2e%2e/files/x", "/user/ada/lmvp/"),
        ("/user/ada/lmvp/../../files/x", "/user/ada/lmvp/user/files/x"),
        ("/user/ada/lmvp/..%5cfiles", "/user/ada/lmvp/"),
        ("http://[::1", "/user/ada/lmvp/"),
        ("https://{host}/", "/user/ada/lmvp/"),
        ("/\xfc", "/user/ada/lmvp/"),
        ("/a\r\n\tb", None),
    ],
)
def test_redirect_leads_to_no_other_place(jupyter, fake, location, leads):
    told = location.replace("{host}", urlsplit(fake.url).netloc).encode("latin-1")
    fake.respond = b"HTTP/1.1 303 See Other\r\nLocation: " + told + b"\r\nContent-Length: 0\r\n\r\n"
    answer = jupyter.ask("/p/x")
    assert answer.headers["Location"].startswith("/user/ada/lmvp/")
    if leads is not None:
        assert (answer.status_code, answer.headers["Location"]) == (303, leads)


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag: a\r\n b\x01\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nETag: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
def test_malformed_response_is_a_bad_gateway(jupyter, fake, response):
    fake.respond = response
    answer = jupyter.ask()
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "server_unavailable"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 evil\x01reason\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200\r\n\r\nhello",
    ],
)
def test_contradictory_length_does_no_harm(jupyter, fake, head):
    fake.respond = head
    assert jupyter.ask().content == b"hello"


def test_response_that_breaks_off_does_not_look_whole(jupyter, fake):
    fake.respond = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"
    with pytest.raises(requests.RequestException):
        assert len(jupyter.ask().content) == 1000


@pytest.mark.parametrize("head", [b"204 No Content", b"304 Not Modified"])
def test_body_where_none_may_be_is_dropped(jupyter, fake, head):
    fake.respond = b"HTTP/1.1 " + head + b"\r\nContent-Length: 4\r\n\r\nevil"
    answer = jupyter.ask()
    assert (answer.status_code, answer.content) == (int(head[:3]), b"")


# -- sizes and times


def test_long_request_is_refused_without_being_kept(jupyter, fake):
    before = jupyter.process.memory_info().rss

    def endless():
        for _ in range(3 * BODY_LIMIT // MIB):
            yield b"x" * MIB

    for data in (b"x" * (BODY_LIMIT + 1), endless()):
        with contextlib.suppress(requests.ConnectionError):  # the rest may be cut off
            assert jupyter.ask("/api/v1/projects", "POST", data=data).status_code == 413
    assert fake.requests == []
    assert jupyter.process.memory_info().rss - before < BODY_LIMIT + (48 << 20)
    assert jupyter.ask("/api/v1/projects", "POST", data=b"y" * MIB).status_code == 200
    assert fake.requests[-1][1] == b"y" * MIB


def test_long_response_streams(jupyter, fake):
    length, before = 300 * MIB, jupyter.process.memory_info().rss
    seen = []

    def respond(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        for _ in range(length // MIB):
            connection.sendall(b"z" * MIB)

    fake.respond = respond
    with requests.get(jupyter.lmvp + "/x", headers={"Authorization": f"token {TOKEN}"}, stream=True, timeout=60) as it:
        total = 0
        for number, piece in enumerate(it.iter_content(MIB)):
            total += len(piece)
            if number % 50 == 0:
                seen.append(jupyter.process.memory_info().rss - before)
    assert total == length
    assert max(seen) < 64 * MIB


def test_browser_that_leaves_ends_a_hung_request(jupyter, fake):
    fake.respond = fake.wait_for_its_end  # no response at all
    with socket.create_connection(("127.0.0.1", jupyter.port)) as connection:
        connection.sendall(
            f"GET {jupyter.path}lmvp/x HTTP/1.1\r\nHost: 127.0.0.1:{jupyter.port}\r\n"
            f"Authorization: token {TOKEN}\r\n\r\n".encode()
        )
        while not fake.requests:
            time.sleep(0.01)
    assert fake.ended.wait(10)


def test_browser_that_leaves_ends_a_silent_stream_and_blocks_nobody(jupyter, fake):
    def respond(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        fake.wait_for_its_end(connection)

    fake.respond = respond
    with requests.get(
        jupyter.lmvp + "/live", headers={"Authorization": f"token {TOKEN}"}, stream=True, timeout=20
    ) as it:
        assert next(it.iter_lines()) == b"data: 1"
    begin = time.monotonic()
    assert fake.ended.wait(10)
    assert requests.get(f"{jupyter.base}api", timeout=20).status_code == 200
    assert time.monotonic() - begin < 15


def test_hung_requests_do_not_stop_jupyter(jupyter, fake):
    fake.respond = fake.wait_for_its_end
    open_ones = []
    try:
        for _ in range(80):  # more than the proxy has threads
            connection = socket.create_connection(("127.0.0.1", jupyter.port))
            connection.sendall(
                f"GET {jupyter.path}lmvp/x HTTP/1.1\r\nHost: 127.0.0.1:{jupyter.port}\r\n"
                f"Authorization: token {TOKEN}\r\n\r\n".encode()
            )
            open_ones.append(connection)
        while len(fake.requests) < 64:
            time.sleep(0.01)
        assert requests.get(f"{jupyter.base}api", timeout=20).status_code == 200
    finally:
        for connection in open_ones:
            connection.close()
    fake.respond = OK
    assert jupyter.ask().text == "ok"


# -- the route of the launcher tile


CONSOLE = "api/lmvp/console"


def post(jupyter, **headers):
    headers = headers or {"Authorization": f"token {TOKEN}"}
    return requests.post(jupyter.base + CONSOLE, headers=headers, timeout=30, allow_redirects=False)


def test_console_address_is_given_after_a_check_of_the_server(jupyter, fake):
    answer = post(jupyter)
    assert (answer.status_code, answer.json()) == (200, {"url": "/user/ada/lmvp/"})
    ((head, body),) = fake.requests
    assert head.startswith("GET /api/v1/me HTTP/1.1\r\n")
    assert body == b""
    assert headers_of(head)["authorization"] == f"Bearer {LMVP_TOKEN}"
    assert LMVP_TOKEN not in answer.text + str(answer.headers)


def test_console_address_takes_nothing_from_the_query(jupyter, fake):
    url = f"{jupyter.base}{CONSOLE}?url=https://evil.example/&next=//evil.example&token={TOKEN}"
    answer = requests.post(url, headers={"Host": f"127.0.0.1:{jupyter.port}"}, timeout=30)
    assert answer.json() == {"url": "/user/ada/lmvp/"}
    assert "evil" not in fake.requests[0][0]


@pytest.mark.parametrize(
    "headers",
    [{"X-Nobody": "1"}, {"Authorization": "token wrong"}, {"Authorization": f"Bearer {LMVP_TOKEN}"},
     {"Cookie": "_xsrf=x", "X-XSRFToken": "x"}, {"X-Test-User": "grace"}],
)  # fmt: skip
def test_console_address_is_for_those_who_may_see_the_console(jupyter, fake, headers):
    answer = post(jupyter, **headers)
    assert answer.status_code == 403
    assert "url" not in answer.json()
    assert fake.requests == []


def test_console_address_needs_the_xsrf_token(jupyter, fake):
    session = requests.Session()
    session.get(f"{jupyter.lmvp}/?token={TOKEN}", timeout=20)
    token = next(cookie.value for cookie in session.cookies if cookie.name == "_xsrf")
    learned = headers_of(fake.requests[0][0])["x-forwarded-xsrf"]
    fake.requests.clear()
    url = jupyter.base + CONSOLE
    for headers in ({}, {"X-XSRFToken": "forged"}, {"X-XSRFToken": learned},
                    {"X-XSRFToken": token, "Origin": "https://evil.example"}):  # fmt: skip
        assert session.post(url, headers=headers, timeout=20).status_code in (403, 404), headers
    assert session.get(url, timeout=20).status_code == 405
    assert fake.requests == []
    assert session.post(url, headers={"X-XSRFToken": token}, timeout=20).status_code == 200


@pytest.mark.parametrize(
    ("response", "code", "message"),
    [
        (b"HTTP/1.1 401 No\r\nLMVP-API: 1\r\nContent-Length: 0\r\n\r\n", "not_authenticated",
         "does not accept the stored token"),
        (b"HTTP/1.1 503 No\r\nLMVP-API: 1\r\nContent-Length: 0\r\n\r\n", "server_unavailable",
         "answers with status 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n", "server_unavailable",
         "does not answer as an LMVP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "server_unavailable", "does not answer as an LMVP server"),
        (b"nonsense\r\n\r\n", "server_unavailable", "does not answer: BadStatusLine"),
        (b"", "server_unavailable", "does not answer: RemoteDisconnected"),
    ],
)  # fmt: skip
def test_console_address_is_kept_back_with_the_reason(jupyter, fake, response, code, message):
    fake.respond = response
    answer = post(jupyter)
    error = answer.json()["error"]
    assert answer.status_code == 502
    assert (error["code"], error["message"]) == (code, f"{fake.url} {message}")
    assert error["hint"]
    assert LMVP_TOKEN not in answer.text


def test_browser_that_leaves_ends_the_check_of_the_server(jupyter, fake):
    fake.respond = fake.wait_for_its_end
    head = f"POST {jupyter.path}{CONSOLE} HTTP/1.1\r\nHost: 127.0.0.1:{jupyter.port}\r\n"
    with socket.create_connection(("127.0.0.1", jupyter.port)) as connection:
        connection.sendall(f"{head}Authorization: token {TOKEN}\r\nContent-Length: 0\r\n\r\n".encode())
        while not fake.requests:
            time.sleep(0.01)
    assert fake.ended.wait(10)
