"""Costly requests (pages, comparisons, curves) have a queue of their own and keep no other request waiting."""

import asyncio
import logging
import re
import socket
import threading
import time

import numpy as np
import pytest
from support.in_process import Served
from tornado.template import Template

from lmvp.client.models import Client
from lmvp.errors import TooManyRequests
from lmvp_server.api.errors import log_failure
from lmvp_server.http import compression
from lmvp_server.http.queues import (
    ADDRESS_QUEUE,
    ANONYMOUS_QUEUE,
    RETRY_SECONDS,
    CallerQueue,
    CostlyWork,
    ServerStopping,
    run_in_pool,
)
from lmvp_server.services.runs import Runs
from lmvp_server.services.tensors import TensorChanges

DIFF = "/p/p/m/-/diff?from=v1&to=v2"


class Gate:
    """Holds each comparison of a caller without an account until the gate opens."""

    def __init__(self, monkeypatch):
        self.open, self.begun = threading.Event(), []
        real = TensorChanges.changes

        def changes(tensor_changes, caller, *args):
            if not caller.known:
                self.begun.append(caller.name)
                assert self.open.wait(60), "the gate did not open"
            return real(tensor_changes, caller, *args)

        monkeypatch.setattr(TensorChanges, "changes", changes)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("costly") / "data") as served:
        root = Client(served.url, served.settings.token)
        assert served("POST", "/projects", json={"name": "p", "description": ""}).ok
        weights = {f"layer.{at:04}": np.full(1, at, "f4") for at in range(1200)}
        root.update("p/m", weights, create=True, progress=False)
        root.update("p/m", {**weights, "layer.0000": np.ones(1, "f4")}, progress=False)
        assert served("PATCH", "/projects/p", json={"public": True}).ok
        served.member = served.user("ada", "viewer")["token"]
        yield served


@pytest.fixture
def gate(served, monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()
    until(lambda: not waiting(served) and not running(served))


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def costly(served):
    return served.app._server.request_callback.settings["costly"]


def waiting(served):
    return served.on_loop(costly(served).waiting)


def running(served):
    return served.on_loop(lambda: sum(costly(served)._running.values()))


def send(served, path=DIFF):
    """Send a request without an account, and do not read the answer."""
    connection = socket.create_connection(("127.0.0.1", served.port))
    connection.settimeout(30)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nConnection: close\r\n\r\n".encode())
    return connection


def read(connection):
    with connection:
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def fill(served, gate):
    """Let one request run up to the gate, and as many wait as may."""
    first = send(served)
    until(lambda: gate.begun)
    rest = [send(served) for _ in range(ADDRESS_QUEUE)]
    until(lambda: waiting(served) == ADDRESS_QUEUE)
    return [first, *rest]


def test_costly_requests_without_account_keep_no_member_waiting(served, gate):
    connections = fill(served, gate)
    assert served("GET", "/projects", served.member).json()["total"] == 1
    assert served("GET", f"~{DIFF}", served.member).status_code == 200
    assert served("GET", "/projects/p/models/m/versions/v2/changes?against=v1", served.member).ok
    assert len(gate.begun) == 1
    assert waiting(served) == ADDRESS_QUEUE
    gate.open.set()
    assert all(read(one).startswith(b"HTTP/1.1 200") for one in connections)
    assert len(gate.begun) == 1 + ADDRESS_QUEUE


@pytest.mark.parametrize("path", ["/projects/p/models/m/versions/v2/changes?against=v1", f"~{DIFF}"])
def test_costly_request_beyond_the_queue_is_refused(served, gate, path):
    connections = fill(served, gate)
    refused = served("GET", path, None)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == str(RETRY_SECONDS)
    assert "too many pages or comparisons wait already for callers without an account" in refused.text
    gate.open.set()
    assert all(read(one).startswith(b"HTTP/1.1 200") for one in connections)
    assert served("GET", path, None).status_code == 200


def test_costly_request_of_closed_connection_never_runs(served, gate):
    first, *rest = fill(served, gate)
    left = rest[: ADDRESS_QUEUE - 1]
    for one in left:
        one.close()
    until(lambda: waiting(served) == 1)
    gate.open.set()
    assert read(first).startswith(b"HTTP/1.1 200")
    assert read(rest[-1]).startswith(b"HTTP/1.1 200")
    until(lambda: not running(served))
    assert len(gate.begun) == 2


def test_costly_lists_without_account_wait_and_others_do_not(served, gate):
    connections = fill(served, gate)
    assert served("GET", "/projects/p/models/m/versions", None).status_code == 429
    assert served("GET", "/projects/p/models/m/versions/v2", None).status_code == 200
    assert served("GET", "~/login", None).status_code == 200
    assert served("GET", "/projects/p/models/m/versions", served.member).status_code == 200
    gate.open.set()
    assert all(read(one).startswith(b"HTTP/1.1 200") for one in connections)


def test_pages_without_account_show_fewer_tensors(served):
    for path in (DIFF, "/p/p/m@v2"):
        note = "The first 1,000 tensors"
        assert note in served("GET", f"~{path}", None).text
        page = served("GET", f"~{path}", served.member).text
        assert note not in page
        assert "layer.1199" in page


def test_costly_work_gives_turns_in_rotation(served):
    ada, grace, first, second = (
        CallerQueue("ada", True),
        CallerQueue("grace", True),
        CallerQueue("::1", False),
        CallerQueue("::2", False),
    )

    def turns():
        work = CostlyWork(2)
        waiting = [(queue, work.enter(queue)) for queue in (ada, ada, ada, first, second, grace)]
        begun = []
        for ended in range(len(waiting)):
            begun += [queue for queue, turn in waiting if turn.done()]
            waiting = [one for one in waiting if not one[1].done()]
            work.leave(begun[ended])
        work.shutdown()
        return begun

    assert served.on_loop(turns) == [ada, first, ada, second, grace, ada]


def test_costly_work_without_account_has_a_limit_for_all_addresses(served):
    def refused():
        work = CostlyWork(1)
        work.enter(CallerQueue("ada", True))
        for at in range(ANONYMOUS_QUEUE):
            work.enter(CallerQueue(f"192.0.2.{at}", False))
        with pytest.raises(TooManyRequests, match="callers without an account") as error:
            work.enter(CallerQueue("198.51.100.1", False))
        work.enter(CallerQueue("grace", True))
        work.shutdown()
        return error.value.retry_after

    assert served.on_loop(refused) == RETRY_SECONDS


def test_queued_work_at_shutdown_is_refused_and_not_logged(caplog):
    """A request whose turn comes while the server stops is no fault of the server."""
    first, second = CallerQueue("ada", True), CallerQueue("grace", True)

    async def stopped():
        work = CostlyWork(1)
        turns = [work.enter(first), work.enter(second)]
        running = asyncio.ensure_future(work.run(first, time.sleep, 0.1))
        await asyncio.sleep(0.01)
        work.shutdown()  # blocks the event loop until the first request is done
        await asyncio.gather(running, *turns)
        with pytest.raises(ServerStopping) as error:
            await work.run(second, int)
        with pytest.raises(ServerStopping):
            await run_in_pool(work._pool, int)
        assert work._free == 1
        log_failure(None, error.type, error.value, error.tb)
        return error.value.http_status

    assert asyncio.run(stopped()) == 503
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("path", ["/", "/p/p", "/p/p/m", "/p/p/m@v2", DIFF, "/p/p/-/runs", "/search?q=m"])
def test_page_is_rendered_and_compressed_beside_other_requests(served, monkeypatch, path):
    """While a template is rendered, the event loop answers other requests; it compresses no page itself."""
    go_on, begun, looped = threading.Event(), threading.Event(), []
    generate, transform = Template.generate, compression.Gzip.transform_chunk

    def held(template, **fields):
        begun.set()
        assert go_on.wait(30), "the event loop waits for a template"
        return generate(template, **fields)

    def counted(gzip, chunk, finishing):
        looped.append(len(chunk) if gzip._gzipping else 0)
        return transform(gzip, chunk, finishing)

    monkeypatch.setattr(Template, "generate", held)
    monkeypatch.setattr(compression.Gzip, "transform_chunk", counted)
    answers = []
    headers = {"Accept-Encoding": "gzip"}
    page = threading.Thread(target=lambda: answers.append(served("GET", f"~{path}", served.member, headers=headers)))
    page.start()
    assert begun.wait(30)
    assert served("GET", "/health").ok
    go_on.set()
    page.join(30)
    assert (answers[0].status_code, answers[0].headers["Content-Encoding"]) == (200, "gzip")
    assert answers[0].headers["Vary"] == "Accept-Encoding"
    assert int(answers[0].headers["Content-Length"]) < len(answers[0].content)
    assert max(looped, default=0) == 0


def test_large_page_is_compressed(served):
    """A page has its `Content-Length` in both forms, and both forms have the same content."""
    small = served("GET", f"~{DIFF}", served.member, headers={"Accept-Encoding": "gzip"})
    whole = served("GET", f"~{DIFF}", served.member, headers={"Accept-Encoding": "identity"})
    assert len(whole.content) > 100_000
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    assert "ETag" not in whole.headers
    mask = re.compile(rb'"[0-9a-f]{128}"|>\d+ s ago<')
    assert mask.sub(b"", small.content) == mask.sub(b"", whole.content)


@pytest.fixture
def held(served, monkeypatch):
    """Hold the comparisons and filters of grace until the gate opens."""
    gate, begun = threading.Event(), []

    def holding(real):
        def call(self, caller, *args, **options):
            if caller.name == "grace":
                begun.append(caller.name)
                assert gate.wait(60), "the gate did not open"
            return real(self, caller, *args, **options)

        return call

    for owner, name in ((TensorChanges, "changes"), (TensorChanges, "measured"), (Runs, "of_project")):
        monkeypatch.setattr(owner, name, holding(getattr(owner, name)))
    yield begun
    gate.set()
    settings = served.app._server.request_callback.settings
    until(lambda: not served.on_loop(lambda: any(settings[one]._running for one in ("long_reads", "comparisons"))))


CHANGES = "/projects/p/models/m/versions/v2/changes"
LONG = {
    "changes": ("GET", f"{CHANGES}?against=v1", {}),
    "measured": ("POST", CHANGES, {"json": {"against": "v1"}}),
    "filter": ("GET", "/projects/p/runs?where=points>1", {}),
}


@pytest.fixture(scope="module")
def grace(served):
    return served.user("grace", "viewer")["token"]


@pytest.mark.parametrize("kind", LONG)
def test_long_work_of_one_account_keeps_no_other_waiting(served, grace, held, kind):
    method, path, fields = LONG[kind]
    most = 1 if method == "POST" else 2
    calls = [threading.Thread(target=served, args=(method, path, grace), kwargs=fields) for _ in range(6)]
    for call in calls:
        call.start()
    until(lambda: len(held) == most)
    queue = "comparisons" if method == "POST" else "long_reads"
    settings = served.app._server.request_callback.settings
    until(lambda: served.on_loop(lambda: settings[queue].waiting() + sum(settings[queue]._running.values())) == 6)
    for method, path, fields in LONG.values():
        assert served(method, path, served.member, **fields).ok
    assert served("GET", f"~{DIFF}", served.member).ok
    assert len(held) == most, "the others of this account wait for their turn"


def test_comparison_of_any_size_takes_an_account(served):
    refused = served("POST", CHANGES, None, json={"against": "v1"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "not_authenticated")
    assert served("GET", f"{CHANGES}?against=v1", None).ok


def test_client_without_account_gets_the_short_comparison(served, monkeypatch):
    monkeypatch.delenv("LMVP_TOKEN", raising=False)
    diff = Client(served.url, "").diff("p/m@v1", "@v2", progress=lambda *_: None)
    assert [one.name for one in diff.tensors if one.amount is not None and one.amount.changed] == ["layer.0000"]
