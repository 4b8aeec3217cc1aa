"""Costly work ends when its client closes the connection; work that writes does not."""

import secrets
import socket
import threading
import time

import numpy as np
import pytest
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp.core import tensor_change, tensor_values
from lmvp_server.process.cancellation import Cancellation, Cancelled, check
from lmvp_server.services import audit, chunk_reader, search
from lmvp_server.services.metrics import Metrics
from lmvp_server.services.runs import Runs
from lmvp_server.services.versions import Versions

LAYERS, MODELS, RUNS, VERSIONS = 60, 60, 60, 60
API = "/api/v1/projects/p"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("cancellation") / "data") as served:
        root = Client(served.url, served.settings.token)
        assert served("POST", "/projects", json={"name": "p"}).ok
        weights = {f"layer{at:02}.weight": np.full(4, at, "f4") for at in range(LAYERS)}
        for number in range(VERSIONS):
            root.update("p/m", {name: data + number for name, data in weights.items()}, create=True, progress=False)
        served.runs = [secrets.token_hex(16) for _ in range(RUNS)]
        for number, run in enumerate(served.runs):
            assert served("POST", "/projects/p/runs", json={"run": run, "params": {"lr": number}}).ok
            assert served("POST", f"/projects/p/runs/{run}/metrics", json={"values": {"loss": 1.0}, "step": 0}).ok
        assert served("PATCH", "/projects/p", json={"public": True}).ok
        yield served


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


class Work:
    """Counts the calls of a function, and holds the second one until it is told to go on."""

    def __init__(self, monkeypatch, owner, name):
        self.calls, self.begun, self.go_on = 0, threading.Event(), threading.Event()
        real = getattr(owner, name)

        def counted(*args, **options):
            self.calls += 1
            if self.calls == 2:
                self.begun.set()
                assert self.go_on.wait(60), "the test did not go on"
            return real(*args, **options)

        monkeypatch.setattr(owner, name, counted)


def send(served, path, token, method="GET", body=b""):
    connection = socket.create_connection(("127.0.0.1", served.port), 30)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    connection.sendall(head.encode() + b"\r\n" + body)
    return connection


def runs_query(served):
    return "&".join(f"run={run}" for run in served.runs[:50])


VERSION = f"{API}/models/m/versions"
WHERE = "where=number%20%3E%200"
CASES = {
    "page of a diff": (lambda _: "/p/p/m/-/diff?from=v1&to=v5", tensor_change, "measure"),
    "changes": (lambda _: f"{VERSION}/v9/changes?against=v3", tensor_change, "measure"),
    "layers": (lambda _: f"{API}/models/m/layers?versions={','.join(map(str, range(1, VERSIONS + 1)))}",
               chunk_reader, "check_manifest_digest"),
    "histograms": (lambda _: f"{VERSION}/v4/histograms?" + "&".join(f"tensor=layer{at:02}.weight" for at in range(50)),
                   tensor_values.Spread, "of"),
    "page of a search": (lambda _: "/search?q=v", search, "_has"),
    "palette": (lambda _: "/search?q=v&as=json", search, "_has"),
    "filter of versions": (lambda _: f"{API}/versions?{WHERE}", Versions, "_model_of"),
    "filter of runs": (lambda _: f"{API}/runs?where=params.lr%20%3E%200", Runs, "present"),
    "page of runs": (lambda _: "/p/p/-/runs", Runs, "present"),
    "page of a comparison": (lambda served: f"/p/p/-/compare?{runs_query(served)}", Runs, "present"),
    "curves": (lambda served: f"{API}/metrics?{runs_query(served)}", Metrics, "_curve"),
    "curves of a page": (lambda served: f"/p/p/-/curves?{runs_query(served)}", Metrics, "_curve"),
    "usage": (lambda _: f"{API}/usage", chunk_reader, "check_manifest_digest"),
    "filter of events": (lambda _: f"{API}/events?who=nobody", audit.Filter, "matches"),
}  # fmt: skip
OWNER_ONLY = {"usage", "filter of events", "layers", "histograms"}
"""Requests that need a token, and those whose results the server keeps in memory, so that they cost once."""
SLACK = {"filter of events": audit._BATCH}
"""Calls after the client has left, where more than one item is read at once."""


@pytest.mark.parametrize(
    ("case", "token"),
    [
        *(pytest.param(case, TOKEN, id=f"{case}-owner") for case in CASES),
        *(pytest.param(case, "", id=f"{case}-anonymous") for case in CASES if case not in OWNER_ONLY),
    ],
)
def test_costly_work_ends_when_its_client_leaves(served, monkeypatch, case, token):
    path, owner, name = CASES[case]
    work = Work(monkeypatch, owner, name)
    connection = send(served, path(served), token)
    assert work.begun.wait(30), "the request does none of this work"
    connection.close()
    until(lambda: served.on_loop(lambda: served.app._server.in_flight) == 0)
    work.go_on.set()
    until(lambda: not running(served))
    assert work.calls <= 3 + SLACK.get(case, 0)
    finished = Work(monkeypatch, owner, name)
    finished.go_on.set()
    with send(served, path(served), token) as connection:  # the same work in full, for a client that stays
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert finished.calls >= 40


def running(served):
    """Whether a thread of one of the pools is at work."""
    settings = served.app._server.request_callback.settings
    queues = [settings[name]._pool for name in ("costly", "long_reads", "comparisons")]
    pools = settings["pool"], *queues
    return any(pool._idle_semaphore._value < len(pool._threads) for pool in pools)


def test_measuring_with_progress_ends_when_its_client_leaves(served, monkeypatch):
    work = Work(monkeypatch, tensor_change, "measure")
    connection = send(served, f"{VERSION}/v30/changes", TOKEN, "POST", b'{"against": "v7"}')
    assert work.begun.wait(30)
    connection.close()
    until(lambda: served.on_loop(lambda: served.app._server.in_flight) == 0)
    work.go_on.set()
    until(lambda: not running(served))
    assert work.calls <= 3


def test_work_that_writes_ends_when_it_is_done(served, monkeypatch):
    """A request to remove versions that match a rule has its full effect, though its client has left."""
    root = Client(served.url, served.settings.token)
    for number in range(5):
        root.update("p/pruned", {"w": np.full(4, number, "f4")}, create=True, progress=False)
    work = Work(monkeypatch, Versions, "present")
    body = b'{"keep": "last:1", "dry_run": false}'
    connection = send(served, f"{API}/models/pruned/prune", TOKEN, "POST", body)
    assert work.begun.wait(30)
    connection.close()
    until(lambda: served.on_loop(lambda: served.app._server.in_flight) == 0)
    work.go_on.set()
    until(lambda: served("GET", "/projects/p/models/pruned/versions").json()["total"] == 1)


def test_check_raises_in_cancelled_work_only():
    token, other = Cancellation(), Cancellation()
    check()
    token.cancel()
    check()
    assert other.run(lambda: check() or "done") == "done"
    with pytest.raises(Cancelled):
        token.run(lambda: pytest.fail("the work has begun"))
    check()
