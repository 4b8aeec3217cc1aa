"""A fuzzer of the HTTP routes: valid requests from the tables of routes, mutated, sent by every kind of caller.

Every request depends on the seed of the run and on its own number alone, so one request can be repeated by itself.
"""

from __future__ import annotations

import gzip
import http.client
import json
import random
import re
import socket
import string
import struct
import sys
import zlib
from dataclasses import dataclass, field, replace
from urllib.parse import quote, quote_plus

import msgspec
import numpy as np
from api.test_roles import BODIES, MODEL, PROJECT, QUERIES, RIGHTS, RUN, VERSION, small_push
from support.real_server import Server
from support.runs_over_http import begin, losses

from lmvp.core import chunk_frames
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.schemas import ErrorBody
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.http.limits import HEADER_LIMIT
from lmvp_server.openapi import methods_of
from lmvp_server.routes import API, PAGES, ROUTES

WAIT = 30.0
"""Seconds within which every request must be answered."""

QUIET = 0.3
"""Seconds without a request after which the server does its work in idle time."""

_LAUNCH = """
import asyncio, json, os, re, signal, sys, threading
from pathlib import Path
from lmvp_server import app
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.settings import Settings

def ready(_app):
    def count():
        part = Path(sys.argv[3] + ".part")
        names = [thread.name for thread in threading.enumerate()]
        # The names of a pool's threads end in their number, which is below the limit of the pool. A pool starts its
        # threads as they are needed, so it may grow at any time; two threads with one name belong to two pools.
        pooled = {name for name in names if re.fullmatch(r"(lmvp|asyncio).*_[0-9]+", name)}
        part.write_text(json.dumps({"tasks": len(asyncio.all_tasks()), "pooled": len(pooled)}))
        part.replace(sys.argv[3])
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, count)

folder, port = Path(sys.argv[1]), int(sys.argv[2])
targets = WebhookAllowlist.parse(["127.0.0.0/8"])
sys.exit(app.run(Settings(folder, port=port, quiet_seconds=float(sys.argv[4]), webhook_to=targets), ready))
"""


class LoggedServer(Server):
    """A server whose log is kept, and that writes the numbers of its asyncio tasks and pool threads on SIGUSR1."""

    def __init__(self, data):
        super().__init__(data)
        self.log, self.counts = data.parent / "server.log", data.parent / "counts"

    def command(self):
        return [sys.executable, "-c", _LAUNCH, str(self.data), str(self.port), str(self.counts), str(QUIET)]

    def start(self):
        with self.log.open("ab") as log:
            return super().start(log)


# -- requests


@dataclass
class Request:
    """One request before it is bytes. `spans` are the parts of the path that a route reads."""

    method: str
    path: str
    spans: tuple[tuple[int, int], ...] = ()
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    form: bool = False
    changes: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ()
    """Fields that the body may have besides."""
    alone: bool = False
    """Whether the request needs a connection of its own: the server may not agree where it ends."""
    wire: bytes = b""
    cut: bool = False

    def encoded(self) -> bytes:
        """Return the bytes on the wire. Text is Latin-1, so that any byte can be sent."""
        if self.wire:
            return self.wire
        query = "&".join(f"{name}={value}" for name, value in self.query)
        target = f"{self.path}?{query}" if query else self.path
        names = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {target} HTTP/1.1"]
        if "host" not in names:
            lines.append("Host: 127.0.0.1")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not names & {"content-length", "transfer-encoding"} and (self.body or self.method not in {"GET", "HEAD"}):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + self.body


def api_requests(ids):
    """Return a valid request for each row of the role table, which has a row for each method of each route."""
    found = []
    for method, path in RIGHTS:
        pattern = next(
            pattern for pattern, handler in ROUTES if re.fullmatch(pattern, path) and method in methods_of(handler)
        )
        body = BODIES.get((method, path))
        data = b"" if body is None else msgspec.json.encode(body)
        handler = dict(ROUTES)[pattern]
        takes = handler.routes[method.upper()].request
        names = () if takes in {None, bytes} else takes.__struct_encode_fields__
        query = [(name, quote_plus(str(value))) for name, value in QUERIES.get(path, {}).items()]
        for filled in {path, *_with_ids(path, ids)}:
            match = re.fullmatch(pattern, filled)
            spans = tuple((a + len(API), b + len(API)) for a, b in map(match.span, range(1, len(match.groups()) + 1)))
            found.append(Request(method.upper(), API + filled, spans, query, body=data, names=names))
    special = {
        ("POST", f"{MODEL}/versions"): small_push(),
        ("PUT", f"{PROJECT}/runs/{RUN}/writers/{RUN}"): begin(RUN) + losses([3.0, 2.0, 1.0]),
        ("PUT", f"{MODEL}/pushes/{ids.push}/chunks"): ids.frames,
        ("POST", f"{VERSION}/chunks"): msgspec.json.encode({"want": ids.chunks}),
        ("POST", f"{PROJECT}/webhooks"): b'{"url": "http://127.0.0.1:9/x", "events": ["run."]}',
        ("POST", f"{MODEL}/pushes"): b'{"push": "%s", "manifest": %s}' % (b"c" * 32, ids.manifest),
        ("POST", f"{PROJECT}/runs/{RUN}/metrics"): b'{"values": {"loss": 1.5}, "step": 3, "time": 1.7e9}',
        ("POST", "/users"): b'{"name": "fuzzed", "password": "a long password"}',
        ("POST", f"{PROJECT}/runs"): RUN_BODY,
        ("POST", f"{MODEL}/fork"): b'{"to": "digits/forked"}',
    }
    for one in found:
        one.body = special.get((one.method, one.path.removeprefix(API)), one.body)
        if one.body[:1] == b"{":
            one.headers = [("Content-Type", "application/json")]
    return found


RUN_BODY = json.dumps(
    {
        "run": RUN,
        "name": "quiet-wren-44",
        "params": {"lr": 0.1},
        "tags": {"gpu": "a100"},
        "environment": {"git": {"commit": "0" * 40, "dirty": True}, "packages": {"numpy": "2"}, "code": "x = 1"},
    }
).encode()


def _with_ids(path, ids):
    """Return paths in which the placeholder `x` of the role table is the id of something that is there."""
    real = {
        "/tokens/x": f"/tokens/{ids.token}",
        "/users/x": "/users/fuzzed",
        "/groups/x": "/groups/vision",
        "/backups/x": f"/backups/{ids.backup}",
        "/webhooks/x": f"/webhooks/{ids.webhook}",
        f"/pushes/{'b' * 32}": f"/pushes/{ids.push}",
    }
    for placeholder, value in real.items():
        if placeholder in path:
            yield re.sub("/(records|chunks)/x$", rf"/\1/{ids.space}", path.replace(placeholder, value))


_FORM = {
    "name": "fuzzed", "password": "a long password", "token": "x", "next": "admin", "code": "BCDF-GHJK", "as_me": "1",
    "verdict": "approve", "everywhere": "", "old": "a long password", "new": "another long password", "days": "3",
    "scope": "read", "project": "digits", "users": "fuzzed", "removed": "1", "description": "x", "was": "x",
    "public": "1", "everyone": "viewer", "url": "http://127.0.0.1:9/", "events": "run.", "webhook": "x",
    "role": "viewer", "words": "well", "alias": "best", "keep": "last:3", "require": "loss", "protected": "best",
    "status": "killed", "revision": "1", "member": "fuzzed", "model": "mlp", "kind": "model", "version": "1",
}  # fmt: skip
_QUERY = {
    "run": RUN, "key": "loss", "where": "metrics.loss < 3", "order": "-metrics.loss", "column": "params.lr",
    "group": "params.lr", "from": "0", "to": "10", "x": "params.lr", "y": "metrics.loss", "cursor": "1", "limit": "5",
    "before": "3", "after": "1", "who": "owner", "action": "run.", "what": "mlp", "since": "2026-01-01",
    "until": "2027-01-01", "project": "digits", "next": "p/digits", "code": "BCDF-GHJK", "versions": "1",
    "against": "1", "tensor": "w", "format": "csv", "points": "100", "axis": "step", "q": "mlp", "status": "proposed",
    "bins": "10", "prefix": "lo", "metric": "loss", "alias": "best", "as": "json", "state": "x", "iss": "x",
}  # fmt: skip


def page_requests(ids):
    """Return requests for each pattern of PAGES: GET, HEAD, and a form for each action that the page has."""
    found = []
    for pattern, handler, *_ in PAGES:
        for path in _page_paths(pattern):
            match = re.fullmatch(pattern, path)
            spans = tuple(map(match.span, range(1, len(match.groups()) + 1)))
            found += [Request(method, path, spans) for method in ("GET", "GET", "HEAD")]
            posts = sorted(getattr(handler, "actions", ())) or ["", "gc", "fsck"]
            if "post" not in methods_of(handler):
                posts = posts[:1]
            for action in posts:
                form = "&".join(f"{name}={quote_plus(value)}" for name, value in {"do": action, **_FORM}.items())
                kind = [("Content-Type", "application/x-www-form-urlencoded")]
                found.append(Request("POST", path, spans, [], kind, form.encode(), form=True))
    return found


def _page_paths(pattern):
    """Return paths that match a pattern of a page."""
    names = iter(["digits", RUN if "runs/" in pattern else "mlp"])
    if "static" in pattern:
        return ["/static/tokens.css", "/static/console/nothing.js"]
    if pattern == "/p/(.*)":
        return ["/p/digits/-/nothing"]
    path = pattern.replace("(.+)", "weights.safetensors")
    if "@" in path.replace("[^/@]", ""):
        head, revision = path.rsplit("@([^/]+)", 1)
        ends = [f"@{name}{revision}" for name in ("1", "c1", "best")]
    else:
        head, ends = path, [""]
    head = re.sub(r"\(\[\^/@?\]\+\)", lambda _: next(names), head)
    return [head + end for end in ends]


# -- mutations

BYTES = "".join(map(chr, range(256)))
_TEXTS = (
    "", " ", "\0", "a\0b", "..", ".", "../..", "/", "//", "\\", "a/b", "-1", "0", "00", "1e309", "-1e309", "nan", "inf",
    "1_000", "9" * 19, str(1 << 63), str(-(1 << 63) - 1), str(1 << 64), "9" * 400, "9" * 5000, "1.5", "1e5", "0x10",
    "\u0663", "\u00b2", "\uff11", "\u00e9", "\u65e5\u672c\u8a9e", "\U0001f600", "\u202e", "\ufeff", "a" * 300,
    "a" * 5000, "@", "a@b", "@vision", "v1", "v0", "v99999999999999999999", "latest", "best", "c1", "c99", "~1", "v1~9",
    "{", "[" * 3000, "'", '"', "<script>", "\r\nX: y", "\n", "\t", "=1+1", "last:-1", "last:" + "9" * 30, "every:1s",
    "metrics.loss <", "metrics.loss < 1e999", "a" * 200 + " = 1", "(((((((", "not " * 500, "None", "null", "true",
    "digits", "mlp", "1", "fuzzed", "vision", RUN, "b" * 32, "*", "%", "%s%n", "${x}", "{{x}}", "CON", "~", "-", "-/x",
    "weights.safetensors", "\u2028", "\x7f", "\x85", "\u00a0", "2026-13-45", "0001-01-01", "9999-12-31T23:59:59Z",
    "10000-01-01", "1970-01-01T00:00:00+99:99", "production", "server", "members", "runs",
)  # fmt: skip
_RAW = (
    "%00", "%2e%2e", "%2f", "%2e%2e%2f", "%5c", "%ff", "%c3%28", "%ed%a0%80", "%", "%zz", "%u0041", "%25", "%0d%0a",
    "%F0%9F%98%80", "\xff", "\xc3\x28", "+", ";", "a;b", "#x", "?", "??", "&", "=", "&&=", "%c0%ae%c0%ae", "%2525",
)  # fmt: skip
_JSON = (
    "null", "true", "false", "-1", "0", str(1 << 31), str(1 << 63), str(-(1 << 63) - 1), str(1 << 64), "9" * 400,
    "9" * 5000, "1e308", "1e309", "-1e999999", "1.5", "-0.0", "1e-400", "NaN", "Infinity", '""', '" "', '"\\u0000"',
    '"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"', '"\\uffff"', '"' + "a" * 5000 + '"', "[]", "{}", "[[]]",
    "[" * 150 + "]" * 150, "[" * 5000 + "]" * 5000, '{"a":' * 190 + "1" + "}" * 190, '[null,1,"x"]', '{"":1}',
    '{"a":1,"a":2}', '{"\\ud800":1}', '"=1+1"', '"\\u202e"', '"2026-11-26T20:00:00Z"', '"0001-01-01T00:00:00+23:59"',
    '"9999-12-31T23:59:59-23:59"', '"a/b"', '".."', '"digits"', '"mlp"', '"v1"', '"latest"', '"viewer"', '"http://x"',
    '["x","x"]', "[" + ",".join(["0"] * 3000) + "]", '{"loss":1e308}', '{"loss":null}', '{"' + "k" * 2000 + '":1}',
    '{"git":"x","packages":[],"command":{"arguments":3}}', '{"git":{"commit":7},"code":5,"packages":"x"}',
)  # fmt: skip
_METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "BREW",
    "get",
    "X" * 300,
    "*",
)
_HEADERS = {
    "Content-Type": ("", "text/plain", "application/json; charset=utf-16", "multipart/form-data; boundary=x", "\xff"),
    "Content-Encoding": ("gzip", "deflate", "identity", "gzip, gzip", "br", "\xff"),
    "Range": (
        "bytes=0-", "bytes=-1", "bytes=5-2", "bytes=0-0,2-3", "bytes=" + "9" * 400 + "-", "bytes=-" + "9" * 5000,
        "bytes=\xb2-", "items=1", "bytes=", "bytes=--1", "=", "bytes=1e3-", "bytes=-0", "bytes=0-" + "9" * 30,
    ),
    "If-None-Match": ("*", '"x"', 'W/"x"', '"\xff"', "a" * 9000, '"' * 500),
    "If-Modified-Since": ("x", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo 99999 99:99:99 GMT", "\xff", "0"),
    "Cookie": (
        "lmvp_session=x", "lmvp_session=\xff", "lmvp_session=", ";;;=;", "lmvp_theme=\x01",
        "lmvp_visitor=" + "v" * 4000,
        'lmvp_session="\\377"', "lmvp_session=a; lmvp_session=b", "lmvp_theme=<b>", "lmvp_visitor=\xe9", "a=" * 500,
        'lmvp_visitor="a\\073 b\\012"', 'lmvp_visitor="\\015\\012x"', "lmvp_theme=\\ud800", "$Version=1; __Host-x=",
    ),
    "Authorization": (
        "", "Bearer", "Bearer ", "Bearer \xff", "Basic eDp5", "Bearer " + "x" * 9000, "bearer x", "Bearer a b", "\xe9",
    ),
    "Host": ("evil.example", "", "127.0.0.1:99999999", "[::1", "\xff", "a b", "localhost:x", "127.0.0.1,evil"),
    "X-Forwarded-For": ("x", "\xff", "1.2.3.4, ::1", "a" * 3000, ",,,"),
    "X-Forwarded-Proto": ("https", "x", "\xff", "https,http"),
    "X-Forwarded-Prefix": ("/a/b", "//evil", "\xff", "/" * 3000, "/a\x00"),
    "X-Forwarded-Xsrf": ("x", "\xff", "<b>", "a" * 300),
    "X-Forwarded-Host": ("evil.example", "\xff"),
    "X-Real-Ip": ("x", "\xff"),
    "X-Http-Method-Override": ("DELETE",),
    "Accept": ("application/x-lmvp-columns", "application/x-ndjson", "text/html", "*/*;q=x", "\xff", "," * 3000),
    "Accept-Encoding": ("gzip", "gzip;q=0", "\xff", "identity;q=0, *;q=0"),
    "Last-Event-ID": ("x", "-1", "1,2", "9" * 30, "\xb2", "\xff"),
    "Origin": ("null", "http://evil.example", "http://[", "\xff", "://"),
    "Referer": ("http://evil.example/", "\xff"),
    "Sec-Fetch-Site": ("same-origin", "cross-site", "\xff"),
    "Connection": ("close", "keep-alive, upgrade", "\xff", "Content-Length"),
    "Upgrade": ("websocket", "h2c"),
    "X-Empty": ("",),
}  # fmt: skip
_FRAMING = {
    "Content-Length": (
        "0",
        "1",
        "-1",
        "x",
        "\xb2",
        "9" * 30,
        "9" * 5000,
        "1, 1",
        "1, 2",
        " 5 ",
        "+5",
        "1_0",
        "0x5",
        "",
    ),
    "Transfer-Encoding": (
        "chunked",
        "gzip, chunked",
        "identity",
        "chunked, chunked",
        "CHUNKED",
        " chunked",
        "x",
        "\xff",
    ),
    "Expect": ("100-continue", "x"),
}


def mutated(rng, request):
    """Return a request with 0 to 4 changes, chosen by a random generator."""
    one = replace(request, query=list(request.query), headers=list(request.headers), changes=[])
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        change = rng.choices(_CHANGES, _WEIGHTS)[0]
        one.changes.append(change.__name__.strip("_"))
        change(rng, one)
    if rng.random() < 0.04:
        _change_wire(rng, one)
    elif rng.random() < 0.03:
        data = one.encoded()
        one.wire, one.cut, one.alone = data[: rng.randrange(len(data) + 1)], True, True
        one.changes.append("cut")
    return one


def text(rng):
    """Return a text that a server may not expect."""
    kind = rng.randrange(5)
    if kind == 0:
        return "".join(rng.choice(string.printable) for _ in range(rng.randrange(1, 40)))
    if kind == 1:
        return "".join(chr(rng.choice((rng.randrange(1, 0xD7FF), rng.randrange(128)))) for _ in range(rng.randrange(9)))
    return rng.choice(_TEXTS)


def _change_path(rng, one):
    if not one.spans:
        one.path += rng.choice(("/", "/x", "//", "?", "/..", "%00", ";x", "%2f", "."))
        return
    start, end = rng.choice(one.spans)
    value = rng.choice(_RAW) if rng.random() < 0.3 else quote(text(rng), safe=rng.choice(("", "/@~")))
    if rng.random() < 0.2:  # a part of the path that the request already has, with something before or behind it
        value = one.path[start:end] + value
    one.path = one.path[:start] + value + one.path[end:]
    one.spans = tuple(span for span in one.spans if span[1] <= start)


def _change_query(rng, one):
    kind = rng.randrange(4)
    if kind == 0 and one.query:
        one.query.pop(rng.randrange(len(one.query)))
        return
    name = rng.choice([*(name for name, _ in one.query), rng.choice(list(_QUERY)), rng.choice(list(_QUERY))])
    value = quote(_QUERY.get(name, "x")) if kind == 1 else quote(text(rng)) if kind == 2 else rng.choice(_RAW)
    for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 2, 60, 300))):
        one.query.append((name, value))
    if rng.random() < 0.5:  # the first of several values counts in some handlers, the last in others
        one.query.insert(0, one.query.pop())


def _change_headers(rng, one):
    if rng.random() < 0.2:
        name = rng.choice(list(_FRAMING))
        one.headers.append((name, rng.choice(_FRAMING[name])))
        one.alone = True
        if name == "Transfer-Encoding" and rng.random() < 0.6:
            size = rng.choice(("", "-", "0x", "f" * 17, " ")) if rng.random() < 0.3 else f"{len(one.body):x}"
            one.body = (
                size.encode() + b"\r\n" + one.body + b"\r\n" + rng.choice((b"0\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n"))
            )
        return
    name = rng.choice(list(_HEADERS))
    value = rng.choice(_HEADERS[name]) if rng.random() < 0.8 else text(rng).encode("utf-8", "replace").decode("latin-1")
    if {"\n", "\r", "\0"} & set(value):
        one.alone = True
    one.headers.append((name, value))
    if name == "Content-Encoding" and rng.random() < 0.7:
        bomb = b"\0" * (20 << 20) if rng.random() < 0.1 else one.body
        one.body = gzip.compress(bomb, 1) if rng.random() < 0.5 else zlib.compress(bomb, 1)


def _change_method(rng, one):
    one.method = rng.choice(_METHODS)
    one.alone = True


def _change_body(rng, one):
    if one.form:
        one.body = _changed_form(rng, one.body)
    elif one.body[:1] == b"{" and rng.random() < 0.85:
        one.body = _changed_json(rng, one.body, one.names)
    else:
        one.body = _changed_bytes(rng, one.body)


def _changed_form(rng, body):
    if rng.random() < 0.1:
        return body + b"&f=1" * rng.choice((51, 2000)) if rng.random() < 0.5 else _changed_bytes(rng, body)
    fields = body.split(b"&")
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(fields))
        name = fields[at].partition(b"=")[0]
        kind = rng.randrange(5)
        if kind == 0 and name != b"do":
            fields[at] = b"x"
        elif kind == 1:
            fields[at] = name + b"=" + rng.choice(_RAW).encode("latin-1")
        elif name != b"do" or kind == 2:
            fields[at] = name + b"=" + quote_plus(text(rng)).encode()
    return b"&".join(fields)


def _changed_json(rng, body, names):
    """Replace, remove or add a value somewhere in a JSON document; the result may be no JSON."""
    mark = "\ue000"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # a change before this one has broken it
        return _changed_bytes(rng, body)
    places, stack = [], [document]
    while stack:
        one = stack.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, value in items:
            places.append((one, key))
            stack.append(value)
    kind = rng.randrange(10)
    if kind < 4 or not places or not isinstance(document, dict):
        name = rng.choice(names or ("x", "", "run", "status"))
        document = {**document, name: mark} if isinstance(document, dict) else mark
    else:
        home, key = rng.choice(places)
        if kind == 4:
            del home[key]
        else:
            home[key] = mark
    value = rng.choice(_JSON) if rng.random() < 0.7 else json.dumps(text(rng))
    return json.dumps(document).replace(json.dumps(mark), value).encode("utf-8", "surrogatepass")


def _changed_bytes(rng, body):
    data = bytearray(body)
    kind = rng.randrange(8)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data) + 1)])
    if kind == 1:
        return bytes(data) + rng.randbytes(rng.choice((1, 4, 48, 5000)))
    if kind == 2:
        return rng.choice((b"", b"[]", b"{", b"null", b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b'"', b"\0" * 9000))
    if kind == 3:
        return bytes(data) * 2
    if kind == 4:
        return rng.randbytes(rng.randrange(200))
    if kind == 5 and len(data) > 4:  # a length in front of something
        struct.pack_into(
            "<I", data, rng.choice((0, rng.randrange(len(data) - 3))), rng.choice((0, 1, 1 << 31, 0xFFFFFFFF))
        )
        return bytes(data)
    for _ in range(rng.randrange(1, 5)):
        if data:
            data[rng.randrange(len(data))] = rng.choice((0, 255, 128, rng.randrange(256)))
    return bytes(data)


def _change_wire(rng, one):
    """Change bytes of the request line and the headers."""
    head, _, body = one.encoded().partition(b"\r\n\r\n")
    data = bytearray(head)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        if rng.random() < 0.5:
            data[at] = rng.choice((0, 10, 13, 32, 58, 127, 128, 255, rng.randrange(256)))
        else:
            data[at:at] = rng.choice((b"\r\n", b"\n", b"\0", b"\r", b": ", b" ", b"\xff" * 3, b"\r\n x", b"a" * 70_000))
    one.wire, one.alone = bytes(data) + b"\r\n\r\n" + body, True
    one.changes.append("wire")


_CHANGES = (_change_path, _change_query, _change_headers, _change_method, _change_body)
_WEIGHTS = (4, 4, 4, 1, 5)


# -- sending


class Line:
    """A connection to a server that is kept as long as both sides can."""

    def __init__(self, port):
        self._port, self._socket = port, None

    def close(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, request):
        """Send a request; return the status, headers and body of the answer, or None where there is none."""
        data = request.encoded()
        if request.alone:
            self.close()
        for again in (self._socket is not None, False):
            try:
                return self._exchange(request, data)
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if isinstance(error, TimeoutError):
                    raise
                if not again:  # a connection that was kept may have been closed meanwhile; a new one not
                    return None
        return None

    def _exchange(self, request, data):
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), WAIT)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):  # it was refused before its end; the answer may be there
            request.alone = True
        if request.cut:
            self.close()
            return None
        if request.alone:
            self._end_soon()
        answer = http.client.HTTPResponse(self._socket, method="HEAD" if request.method == "HEAD" else "GET")
        answer.begin()
        if "event-stream" in answer.headers.get("Content-Type", ""):
            self.close()
            return answer.status, answer.headers, b""
        body = answer.read()
        if answer.will_close or request.alone:
            self.close()
        return answer.status, answer.headers, body

    def _end_soon(self):
        """Wait for an answer; say that nothing more comes where the server waits for more."""
        self._socket.settimeout(0.3)
        try:
            begun = self._socket.recv(12, socket.MSG_PEEK)
        except TimeoutError:
            begun = b""
        if begun in {b"", b"HTTP/1.1 100"}:
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.settimeout(WAIT)


def problem(request, answer):
    """Return what is wrong with an answer, or None."""
    if answer is None:  # the server may close where a request breaks HTTP, or its head is over the limit
        broken = request.alone or len(request.encoded()) - len(request.body) > HEADER_LIMIT
        return None if broken else "the connection was closed without an answer"
    status, headers, body = answer
    if status >= 500:
        return f"status {status}: {body[:300]!r}"
    if status < 400 or "LMVP-API" not in headers or request.method == "HEAD":
        return None
    if not body:
        return None if request.alone else f"status {status} without a body"
    kind = headers.get("Content-Type", "")
    if kind.startswith("application/json"):
        try:
            msgspec.convert(json.loads(body)["error"], ErrorBody)
        except (ValueError, KeyError, TypeError) as error:
            return f"status {status}, the body is not of the documented form: {error}: {body[:200]!r}"
    elif not kind.startswith("text/"):
        return f"status {status} as {kind!r}"
    elif request.path.startswith(f"{API}/"):
        return f"status {status}: an error of the API as {kind!r}"
    return None


def push_with_a_missing_chunk():
    """Return the manifest of a small array as JSON, its chunks, and the frames of them."""
    described = describe(pack({"w": np.arange(7.0)}))
    data = {chunk: b"".join(map(bytes, place.read())) for chunk, place in described.places.items()}
    sent = [chunk_frames.header(Frame(chunk, len(each), len(each))) + each for chunk, each in data.items()]
    return manifests.encode(described.manifest), list(data), b"".join(sent)


def requests_for(rng, ids, roles):
    """Return every valid request with every role, in a random order."""
    every = [(one, role) for one in [*api_requests(ids), *page_requests(ids)] for role in roles]
    rng.shuffle(every)
    return every


def rng_of(seed, number):
    """Return the random generator of one request."""
    return random.Random(f"{seed}:{number}")
