"""Errors of the disk below a running server: a status and a message, no traceback, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import struct
import threading
import time
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
import requests
from support.faults import STEPS, acting_at
from support.runs_over_http import begin, losses

from lmvp.client.models import Client
from lmvp.core import chunk_frames
from lmvp.core import manifest as manifests
from lmvp.core.chunk_frames import Frame
from lmvp.core.schemas import NewPush
from lmvp.errors import BY_CODE
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.app import App
from lmvp_server.routes import API
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.settings import Settings

STATUS = {
    errno.EIO: (503, "storage_failed"),
    errno.EMFILE: (503, "storage_failed"),
    errno.ENOSPC: (507, "storage_full"),
    errno.EDQUOT: (507, "storage_full"),
    errno.EROFS: (507, "storage_read_only"),
}
ALL_STEPS = (*STEPS, "link")


class Running:
    """A server in a thread of this process, so that a test can break its disk."""

    def __init__(self, folder):
        self.folder = folder
        settings = Settings(folder, quiet_seconds=3600, webhook_to=WebhookAllowlist.parse(["127.0.0.1"]))
        self.app, self._ready = App(settings), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)
        self.token = settings.token

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        await self.app.start()
        self.services = self.app._server.request_callback.settings["services"]
        self._ready.set()
        try:
            await self.app.run()
        finally:
            await self.app.stop()

    def end(self):
        self._loop.call_soon_threadsafe(self.app.end)
        self._thread.join()

    def ask(self, method, path, body=None, **options):
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        url = self.app.url + (path if path.startswith("/p/") else API + path)
        return requests.request(method, url, data=data, headers=headers, timeout=60, allow_redirects=False, **options)


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("LMVP_HOME", str(tmp_path / "home"))
    running = Running(tmp_path / "data")
    client = Client(running.app.url, running.token)
    client.update("digits/mlp", {"w": np.arange(50.0)}, create=True, progress=False, alias="best")
    for step in range(2):
        client.update("digits/mlp", {"w": np.arange(50.0) + step}, progress=False)
    assert running.ask("post", "/projects/digits/runs", {"run": "a" * 32}).status_code == 201
    yield running
    running.end()


def small_push():
    """A new model in a request of its own."""
    described = describe(pack({"w": np.random.default_rng().standard_normal(100)}))
    head = NewPush(push=secrets.token_hex(16), manifest=msgspec.Raw(manifests.encode(described.manifest)))
    encoded = msgspec.json.encode(head)
    parts = [struct.pack("<I", len(encoded)), encoded]
    for chunk, place in described.places.items():
        data = b"".join(map(bytes, place.read()))
        parts += [chunk_frames.header(Frame(chunk, len(data), len(data))), data]
    return b"".join(parts)


def new_push():
    described = describe(pack({"w": np.random.default_rng().standard_normal(100)}))
    return {"push": secrets.token_hex(16), "manifest": msgspec.Raw(manifests.encode(described.manifest))}


def _name():
    return f"n{secrets.token_hex(4)}"


MODEL, RUN = "/projects/digits/models/mlp", f"/projects/digits/runs/{'a' * 32}"
REQUESTS = {
    "records of the server": lambda: ("post", "/projects", {"name": _name()}),
    "records of a project": lambda: ("patch", "/projects/digits", {"description": _name()}),
    "model": lambda: ("post", "/projects/digits/models", {"name": _name()}),
    "small push": lambda: ("post", f"{MODEL}/versions", small_push()),
    "push": lambda: ("post", f"{MODEL}/pushes", new_push()),
    "run": lambda: ("post", "/projects/digits/runs", {"run": secrets.token_hex(16)}),
    "points": lambda: ("post", f"{RUN}/metrics", {"values": {"loss": 1.5}}),
    "journal": lambda: ("put", f"{RUN}/writers/{secrets.token_hex(16)}?from=0", begin("a" * 32) + losses([1, 2])),
    "end of a run": lambda: ("post", f"{RUN}/end", {"status": "finished", "ended_at": "2026-11-26T20:00:00Z"}),
    "alias": lambda: ("put", f"{MODEL}/aliases/{_name()}", {"revision": "1"}),
    "account": lambda: ("post", "/users", {"name": _name()}),
    "token": lambda: ("post", "/tokens", {"name": _name()}),
    "device code": lambda: ("post", "/device/code", {"client_name": "x"}),
    "group": lambda: ("put", f"/groups/{_name()}", {"users": []}),
    "webhook": lambda: ("post", "/projects/digits/webhooks", {"url": "http://127.0.0.1:9/", "events": ["model."]}),
    "fork": lambda: ("post", f"{MODEL}/fork", {"to": f"digits/{_name()}"}),
    "gc": lambda: ("post", "/gc", {}),
    "compact": lambda: ("post", "/compact", b""),
    "backup": lambda: ("post", "/backups", b""),
    "form": lambda: ("post", "/p/digits/-/settings", b"do=remove_webhook&webhook=x"),
}


def raising(number):
    def act(_name):
        raise OSError(number, os.strerror(number))

    return act


@contextmanager
def broken(number):
    """Let every step on the disk fail."""
    real = {name: getattr(os, name) for name in ALL_STEPS}
    hits = []

    def wrap(name):
        def step(*args, **options):
            if name == "open" and not (len(args) > 1 and args[1] & (os.O_WRONLY | os.O_RDWR)):
                return real[name](*args, **options)
            hits.append(name)
            raise OSError(number, os.strerror(number))

        return step

    for name in ALL_STEPS:
        setattr(os, name, wrap(name))
    try:
        yield hits
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def refusal(answer, number):
    """Return what is wrong with the answer of a request that met an error of the disk; None if nothing is."""
    text = answer.text.splitlines()[-1] if answer.text else ""
    status, code = STATUS[number]
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        return None if answer.status_code in {status, 303, 404} else f"{answer.status_code}"
    if "ndjson" in answer.headers.get("Content-Type", "") and '"error"' in text:  # the answer had begun
        return None if msgspec.json.decode(text)["error"]["code"] == code else text
    if answer.status_code < 400:
        return None
    error = answer.json()["error"]
    if (answer.status_code, error["code"]) != (status, code) or not error["hint"] or not error["message"]:
        return f"{answer.status_code} {error}"
    assert BY_CODE[code].http_status == status
    return None


def tracebacks(caplog):
    """Return the messages that were logged with a traceback."""
    return [one.getMessage() for one in caplog.records if one.exc_info and one.levelno >= logging.ERROR]


@pytest.mark.parametrize("number", STATUS, ids=errno.errorcode.get)
def test_disk_that_fails_at_every_step_is_told_by_each_route(served, caplog, number):
    """Requests are refused with 503 or 507; when the disk works again, each of them succeeds."""
    wrong, met = [], 0
    for name, make in REQUESTS.items():
        method, path, body = make()
        with broken(number) as hits:
            answer = served.ask(method, path, body)
        met += bool(hits)
        if (fault := refusal(answer, number)) is not None:
            wrong.append(f"{name} at {hits}: {fault}")
        if hits and answer.ok and name not in {"gc", "compact", "backup"}:
            wrong.append(f"{name} at {hits}: {answer.status_code} although nothing could be written")
        again = served.ask(method, path, body)
        if not (again.status_code < 400 or name == "form"):
            wrong.append(f"{name} afterwards: {again.status_code} {again.text[:200]}")
    assert wrong == []
    assert met >= 15
    assert tracebacks(caplog) == []
    answer = served.ask("post", "/fsck", {})
    assert msgspec.json.decode(answer.text.splitlines()[-1])["result"]["problems"] == []


@pytest.mark.parametrize("name", ["records of a project", "small push", "points", "journal", "run", "model", "token"])
def test_disk_that_fails_at_one_step_loses_nothing_acknowledged(served, caplog, name):
    """EIO at the first step, the second, and so on: what was answered with success is there after a restart."""
    acknowledged, wrong, at = [], [], 0
    while True:
        at += 1
        method, path, body = REQUESTS[name]()
        with acting_at(at, raising(errno.EIO), ALL_STEPS) as steps:
            answer = served.ask(method, path, body)
        if (fault := refusal(answer, errno.EIO)) is not None:
            wrong.append(f"step {at} {steps}: {fault}")
        again = served.ask(method, path, body)
        if answer.ok or again.ok:
            acknowledged.append(answer.json() if answer.ok else again.json())
        if not (again.ok or (again.status_code == 409 and answer.ok)):
            wrong.append(f"step {at} {steps} afterwards: {again.status_code} {again.text[:200]}")
        if len(steps) < at:
            break
    assert wrong == []
    assert at > 1
    assert tracebacks(caplog) == []
    before = found(served)
    served.end()
    served.__init__(served.folder)
    assert found(served) == before
    check_acknowledged(served, name, acknowledged)


def test_long_work_whose_client_has_gone_is_no_fault(served, caplog, monkeypatch):
    """The work is done to its end, and the closed connection is not logged."""
    services, may_end = served.services, threading.Event()
    compact, ended = services.upkeep.compact, threading.Event()

    def slow(caller):
        assert may_end.wait(30)
        try:
            return compact(caller)
        finally:
            ended.set()

    monkeypatch.setattr(services.upkeep, "compact", slow)
    monkeypatch.setattr("lmvp_server.api.base._LOOK", 0.02)
    headers = {"Authorization": f"Bearer {served.token}"}
    with requests.post(f"{served.app.url}{API}/compact", headers=headers, stream=True, timeout=30) as answer:
        assert next(answer.iter_lines()) == b'{"done":0,"total":0}'
    while served.app._server.in_flight:  # until the server has noticed
        time.sleep(0.01)
    may_end.set()
    assert ended.wait(30)
    assert served.ask("get", "/health").ok
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


def found(served):
    """Return everything that the requests make, as the server answers it."""
    asked = ("/projects/digits", "/projects/digits/models", f"{MODEL}/versions", "/projects/digits/runs")
    answers = {path: served.ask("get", path, params={"limit": "1000"}).json() for path in asked}
    points = served.ask("get", "/projects/digits/metrics", params={"run": "a" * 32, "points": "100000"})
    for run in answers["/projects/digits/runs"]["items"]:
        run.pop("seen_at", None)
    return {**answers, "points": points.json() if points.ok else None}


def check_acknowledged(served, name, acknowledged):
    now = found(served)
    if name == "records of a project":
        assert now["/projects/digits"]["description"] == acknowledged[-1]["description"]
    if name == "small push":
        numbers = {one["number"] for one in now[f"{MODEL}/versions"]["items"]}
        assert {one["number"] for one in acknowledged} <= numbers
        answer = served.ask("post", "/fsck", {})
        assert msgspec.json.decode(answer.text.splitlines()[-1])["result"]["problems"] == []
    if name == "points":
        (curve,) = now["points"]["curves"]
        assert len(curve["values"]) >= len(acknowledged)
    if name == "run":
        assert {one["id"] for one in acknowledged} <= {one["id"] for one in now["/projects/digits/runs"]["items"]}
    if name == "model":
        names = {one["name"] for one in now["/projects/digits/models"]["items"]}
        assert {one["name"] for one in acknowledged} <= names
    if name == "token":
        for one in acknowledged:
            token = {"Authorization": f"Bearer {one['token']}"}
            assert requests.get(f"{served.app.url}{API}/me", headers=token, timeout=30).ok
