"""All routes as all roles with mutated requests: no 5xx, no traceback, no growth, and the work beside it is intact."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
import numpy as np
import psutil
import pytest
import requests
from api.test_roles import MODEL, PROJECT, RUN, VERSION
from support import fuzzing
from support.fuzzing import Line, LoggedServer, mutated, problem
from support.runs_over_http import begin, losses
from support.soak import size

from lmvp.client.models import Client
from lmvp.errors import LmvpError
from lmvp_server.routes import API, PAGES, ROUTES
from lmvp_server.services import Services
from lmvp_server.services.access import ROLES
from lmvp_server.services.catalog import SERVER
from lmvp_server.stores.base import Put

LINES = 4
"""Connections that send mutated requests at the same time."""
PASSWORD = "a long password"
ANONYMOUS, SESSION, OWN = "anonymous", "session", "server"
LIMITED, READS, EXPIRED = "limited token", "read token", "expired token"
CALLERS = (ANONYMOUS, "stranger", *ROLES, "admin", LIMITED, READS, EXPIRED, SESSION, OWN)


@dataclass
class Ids:
    """Ids of what is there, for requests that need one."""

    token: str = "x"
    backup: str = "x"
    webhook: str = "x"
    space: str = "x"
    push: str = "d" * 32
    manifest: bytes = b""
    frames: bytes = b""
    chunks: tuple[str, ...] = ()


class World:
    """A server with a project that mutated requests may change, and one that they do not name."""

    def __init__(self, folder):
        self.server = LoggedServer(folder / "data")
        self.server.token = self.server.start()
        self.tokens = {OWN: self.server.token}
        self._lines = requests.Session()
        self._lines.trust_env = False
        self.cookie = self.xsrf = ""
        self.ids = Ids()
        self.ids.manifest, self.ids.chunks, self.ids.frames = fuzzing.push_with_a_missing_chunk()
        self._growing = threading.Lock()
        self.grow()
        assert set(CALLERS) - {ANONYMOUS, SESSION, EXPIRED} == set(self.tokens)
        assert self.xsrf
        assert "x" not in (self.ids.backup, self.ids.space, self.ids.webhook, self.ids.token)
        self._expire(folder / "data")

    @property
    def root(self):
        return Client(self.server.url, self.server.token)

    def ask(self, method, path, body=None, token=OWN, data=None, **options):
        headers = {"Authorization": f"Bearer {self.tokens.get(token, token)}"}
        encoded = data if body is None else msgspec.json.encode(body)
        url = self.server.url + API + path
        return self._lines.request(method, url, data=encoded, headers=headers, timeout=60, **options)

    def _expire(self, folder):
        """Make a token whose time is over: its record is changed while the server is down."""
        made = self.ask("post", "/tokens", {"name": "expired", "expires_days": 1, "user": "owner"}).json()
        self.tokens[EXPIRED] = made["token"]
        self.server.end()
        services = Services.open(folder)
        record = services.records.get(SERVER, "tokens", made["id"])
        data = {**record.data, "expires_at": "2026-01-01T00:00:00+00:00"}
        services.records.commit(SERVER, [Put("tokens", made["id"], data, expect=record.rev)])
        services.close()
        self.server.start()
        self._lines.close()
        assert self.ask("get", "/me", token=EXPIRED).status_code == 401

    def grow(self):
        """Make what allowed requests may have taken away; others may take it away again at the same time."""
        with self._growing:
            for step in (self._accounts, self._project, self._tokens, self._session):
                with suppress(LmvpError, LookupError, ValueError):
                    step()

    def _accounts(self):
        known = {one["name"]: one for one in self.ask("get", "/users", params={"limit": "1000"}).json()["items"]}
        for name in ("stranger", *ROLES, "admin", "fuzzed"):
            if name not in known:
                self.ask("post", "/users", {"name": name, "password": PASSWORD, "admin": name == "admin"})
            elif known[name]["disabled"] or known[name]["admin"] != (name == "admin"):
                self.ask("patch", f"/users/{name}", {"disabled": False, "admin": name == "admin"})
        if not any(one["name"] == "vision" for one in self.ask("get", "/groups").json()["items"]):
            self.ask("put", "/groups/vision", {"users": ["fuzzed"]})

    def _project(self):
        tree = {"w": np.arange(4.0)}
        if not self.ask("get", VERSION).ok:
            self.ask("delete", MODEL)
            self.root.update("digits/mlp", tree, alias="best", create=True, progress=False, expect_parent=None)
        members = {one["name"]: one["role"] for one in self.ask("get", f"{PROJECT}/members").json()["items"]}
        for role in ROLES:
            if members.get(role) != role:
                self.ask("put", f"{PROJECT}/members/{role}", {"role": role})
        if not self.ask("get", f"{PROJECT}/runs/{RUN}").ok:
            self.ask("post", f"{PROJECT}/runs", msgspec.Raw(fuzzing.RUN_BODY))
            points = begin(RUN) + losses([5, 4, 3, 2])
            self.ask("put", f"{PROJECT}/runs/{RUN}/writers/{'e' * 32}?from=0", data=points)
        if not self.ask("get", f"{MODEL}/pushes/{self.ids.push}").ok:
            new = {"push": self.ids.push, "manifest": msgspec.Raw(self.ids.manifest)}
            self.ask("post", f"{MODEL}/pushes", new)
        if not self.ask("get", f"{MODEL}/contributions/c1").ok:
            token = self.ask("post", "/tokens", {"name": "p", "user": "contributor", "scope": "write"}).json()["token"]
            contributor = Client(self.server.url, token)
            contributor.update("digits/mlp", {"w": np.arange(4.0) + 1}, propose=True, progress=False)
        if not any(one["id"] == self.ids.webhook for one in self.ask("get", f"{PROJECT}/webhooks").json()["items"]):
            new = {"url": "http://127.0.0.1:9/", "events": ["run."]}
            answer = self.ask("post", f"{PROJECT}/webhooks", new)
            self.ids.webhook = answer.json()["id"] if answer.ok else self.ids.webhook

    def _tokens(self):
        wanted = {name: {"user": name, "scope": "admin"} for name in ("stranger", *ROLES, "admin")}
        wanted[LIMITED] = {"user": "owner", "scope": "write", "project": "digits"}
        wanted[READS] = {"user": "owner", "scope": "read"}
        for name, how in wanted.items():
            if name not in self.tokens or self.ask("get", PROJECT, token=name).status_code == 401:
                self.tokens[name] = self.ask("post", "/tokens", {"name": name, **how}).json()["token"]
        if not self.ask("get", f"/backups/{self.ids.backup}").ok:
            made = self.ask("post", "/backups").json()
            self.ids.backup, self.ids.space = made["id"], made["spaces"][-1]["space"]
        tokens = self.ask("get", "/tokens", params={"limit": "1000"}).json()["items"]
        if not any(one["id"] == self.ids.token for one in tokens):
            self.ids.token = self.ask("post", "/tokens", {"name": "spare", "user": "fuzzed"}).json()["id"]

    def _session(self):
        """Sign in as the owner of the project, by the form of the page."""
        if self.cookie and self._form_mark("/account"):
            return
        self.ask("patch", "/users/owner", {"password": PASSWORD})
        line = requests.Session()
        form = line.get(f"{self.server.url}/login", timeout=60).text
        fields = {"name": "owner", "password": PASSWORD, "_xsrf": _mark_in(form), "next": "."}
        line.post(f"{self.server.url}/login", data=fields, timeout=60, allow_redirects=False)
        self.cookie = "; ".join(f"{one.name}={one.value}" for one in line.cookies)
        self.xsrf = self._form_mark("/account")

    def _form_mark(self, page):
        answer = requests.get(
            self.server.url + page, headers={"Cookie": self.cookie}, timeout=60, allow_redirects=False
        )
        return _mark_in(answer.text) if answer.ok else ""

    def signed(self, request, caller):
        """Return a request with what its caller has: a token, or the cookie and the mark of forms."""
        if caller == SESSION:
            body = request.body + b"&_xsrf=" + quote(self.xsrf).encode() if request.form else request.body
            return fuzzing.replace(request, headers=[("Cookie", self.cookie), *request.headers], body=body)
        if caller == ANONYMOUS:
            return request
        return fuzzing.replace(request, headers=[("Authorization", f"Bearer {self.tokens[caller]}"), *request.headers])

    def measured(self):
        """Return what the server's process holds now."""
        time.sleep(5 * fuzzing.QUIET)  # the server gives memory back when it is quiet
        for _ in range(100):  # connections that were closed are noticed soon
            process = psutil.Process(self.server.process.pid)
            open_lines = [one for one in process.net_connections() if one.status == psutil.CONN_ESTABLISHED]
            if not open_lines:
                break
            time.sleep(0.05)
        self.server.counts.unlink(missing_ok=True)
        os.kill(self.server.process.pid, signal.SIGUSR1)
        while not self.server.counts.exists():
            time.sleep(0.02)
        counts = json.loads(self.server.counts.read_text())
        staged = [path for path in (self.server.data).rglob("staging/**/*") if path.is_file()]
        return {
            "memory": process.memory_info().rss,
            "descriptors": process.num_fds(),
            "threads outside pools": process.num_threads() - counts["pooled"],
            "tasks": counts["tasks"],
            "temporary files": len(list(self.server.data.rglob("tmp-*"))),
            "staged": len(staged),
        }


def _mark_in(html):
    found = re.search(r'name="_xsrf" value="([^"]*)"', html) or re.search(r'value="([^"]*)" name="_xsrf"', html)
    return found[1] if found else ""


class Reference:
    """Work on a project of its own while mutated requests come: versions and points, remembered as acknowledged."""

    def __init__(self, world):
        self.world, self.versions, self.points, self.failed = world, {}, {}, []
        self._end, self._pause, self._paused = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _work(self):
        step, run, client = 0, "f" * 32, self.world.root
        self.world.ask("post", "/projects", {"name": "kept"})
        self.world.ask("post", "/projects/kept/runs", {"run": run})
        while not self._end.wait(0.05):
            if self._pause.is_set():
                self._paused.set()
                continue
            step += 1
            try:
                if step % 20 == 1:
                    tree = {"w": np.full(50, step, np.float32)}
                    made = client.update("kept/net", tree, create=True, progress=False)
                    self.versions[made.number] = tree
                point = {"values": {"loss": step / 7}, "step": step, "time": 1.7e9 + step}
                answer = self.world.ask("post", f"/projects/kept/runs/{run}/metrics", point)
                if answer.ok:
                    self.points[step] = step / 7
                else:
                    self.failed.append(answer.text)
            except LmvpError as error:
                self.failed.append(str(error))

    @contextmanager
    def paused(self):
        """Send nothing for a while."""
        self._paused.clear()
        self._pause.set()
        assert self._paused.wait(60)
        yield
        self._pause.clear()

    def check(self):
        """Everything that was acknowledged is there, and nothing was refused."""
        assert self.failed == []
        assert len(self.points) > 5
        client = self.world.root
        for number, tree in self.versions.items():
            assert np.array_equal(client.download(f"kept/net@v{number}")["w"], tree["w"])
        asked = {"run": "f" * 32, "key": "loss", "points": 10_000}
        (curve,) = self.world.ask("get", "/projects/kept/metrics", params=asked).json()["curves"]
        assert dict(zip(curve["steps"], curve["values"], strict=True)) == self.points


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    before = dict(os.environ)
    os.environ["LMVP_HOME"] = str(tmp_path_factory.mktemp("home"))
    made = World(tmp_path_factory.mktemp("fuzzed"))
    yield made
    made.server.kill()
    os.environ.clear()
    os.environ.update(before)


class Fuzz:
    """Mutated requests over several connections, numbered from 0 over all of them."""

    def __init__(self, world, seed, most=20):
        self.world, self.seed, self.most = world, seed, most
        self.found, self.statuses = [], {}
        self._lock, self._next, self._last = threading.Lock(), 0, 0
        self.every = fuzzing.requests_for(random.Random(seed), world.ids, CALLERS)

    def run(self, count):
        self._last += count
        threads = [threading.Thread(target=self._send) for _ in range(LINES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self):
        with closing(Line(self.world.server.port)) as line:
            self._send_over(line)

    def _send_over(self, line):
        while (number := self._take()) is not None:
            valid, caller = self.every[number % len(self.every)]
            rng = fuzzing.rng_of(self.seed, number)
            request = mutated(rng, self.world.signed(valid, caller))
            try:
                answer = line.send(request)
            except TimeoutError:
                line.close()
                self._note(number, caller, request, f"no answer in {fuzzing.WAIT:g} s")
                continue
            wrong = problem(request, answer)
            with self._lock:
                status = answer[0] if answer else 0
                self.statuses[status] = self.statuses.get(status, 0) + 1
            if wrong:
                self._note(number, caller, request, wrong)
            if answer and answer[0] < 400 and request.method not in {"GET", "HEAD"} and _destroys(request):
                self.world.grow()

    def _take(self):
        with self._lock:
            if self._next >= self._last or len(self.found) >= self.most:
                return None
            self._next += 1
            number = self._next - 1
        if number % 500 == 499:
            self.world.grow()
        return number

    def _note(self, number, caller, request, wrong):
        sent = request.encoded()[:600]
        with self._lock:
            self.found.append(f"seed {self.seed} number {number} as {caller} {request.changes}: {wrong}\n    {sent!r}")


def _destroys(request):
    ends = b"do=remove" in request.body or b"do=leave_all" in request.body or b"do=set_password" in request.body
    return request.method == "DELETE" or ends or request.path == "/logout"


def test_fuzz_covers_every_route_and_page(world):
    """The requests are made from the tables of routes: a new route is fuzzed without a change here."""
    api, pages = fuzzing.api_requests(world.ids), fuzzing.page_requests(world.ids)
    for pattern, _ in ROUTES:
        assert any(re.fullmatch(API + pattern, one.path) for one in api), pattern
    for pattern, *_ in PAGES:
        assert any(re.fullmatch(pattern, one.path) for one in pages), pattern


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_fuzzed_requests_are_answered_without_a_fault(world):
    seed = os.environ.get("LMVP_FUZZ_SEED", "16")
    count = size("FUZZ", 2000)
    fuzz = Fuzz(world, seed)
    with Reference(world) as reference:
        fuzz.run(count // 2)
        with reference.paused():
            half = world.measured()
        fuzz.run(count - count // 2)
        with reference.paused():
            end = world.measured()
            for _ in range(30):  # on a busy machine, the last requests take seconds to end
                if all(end[name] <= half[name] + 2 for name in ("tasks", "threads outside pools")):
                    break
                end = world.measured()
    log = world.server.log.read_text(errors="replace")
    lines = log.splitlines()
    at = next((at for at, line in enumerate(lines) if "Traceback" in line or " ERROR " in line), None)
    faults = [] if at is None else lines[max(0, at - 3) : at + 60]
    found = "\n".join([f"faults with LMVP_FUZZ_SEED={seed}:", *fuzz.found, "the log:", *faults])
    if fuzz.found or faults:
        pytest.fail(found, pytrace=False)
    assert sum(fuzz.statuses.get(status, 0) for status in (200, 201, 204, 303)) > count / 20, fuzz.statuses
    reference.check()
    assert world.root.check().problems == ()
    check_growth(half, end, count)
    print(half, end, fuzz.statuses)


def check_growth(half, end, count):
    """Nothing that a request needs is kept after it: the second half of the requests needs no more than the first."""
    assert end["tasks"] <= half["tasks"] + 2, (half, end)
    assert end["threads outside pools"] <= half["threads outside pools"] + 2, (half, end)
    assert end["descriptors"] <= half["descriptors"] + 20, (half, end)
    assert end["memory"] <= half["memory"] + (64 << 20) + count * 1000, (half, end)
    assert end["temporary files"] == 0, end


ODD = (
    None, True, -1, 1.5, "", "x" * 2000, "\x00\u202e=1", [], {}, [None, 1, "x", {}], {"a": None}, {"": {"": [1]}},
    {"commit": 7, "dirty": "x", "arguments": 3, "name": [], "numpy": {}}, 10**18, "2026-13-45", [["x"]],
    {"x": "y" * 300},
)  # fmt: skip
KEYS = ("git", "command", "packages", "code", "user", "host", "python", "platform", "cell", "notebook", "gpu", "data")


def test_pages_show_every_stored_document(world):
    """What a client may store about a run or a version is shown, whatever its shape is."""
    wrong, stored = [], 0
    for number, odd in enumerate(ODD):
        run, project = f"{number:032x}", "/projects/odd"
        world.ask("post", "/projects", {"name": "odd"})
        environment = dict.fromkeys(KEYS, odd)
        bodies = [
            {"environment": environment, "params": {"a": odd}, "tags": {"b": odd}},
            {"environment": environment, "params": {"a": 1.5}, "tags": {"=b": "x"}},
        ]
        made = next(
            (body for body in bodies if world.ask("post", f"{project}/runs", {"run": run, **body}).status_code == 201),
            None,
        )
        stored += made is not None
        values = {"values": {"=loss": 1e308, "\u65e5": -0.0, "n": "NaN"}, "step": (1 << 62) + number, "time": 1e308}
        world.ask("post", f"{project}/runs/{run}/metrics", values)
        push = {"push": run, "manifest": msgspec.Raw(world.ids.manifest), "environment": environment, "run": run}
        world.ask("post", f"{project}/models/m/pushes", push)
        world.ask("put", f"{project}/models/m/pushes/{run}/chunks", data=world.ids.frames)
        world.ask("post", f"{project}/models/m/pushes/{run}/commit", {})
        pages = (
            f"/p/odd/-/runs/{run}", "/p/odd/-/runs?column=params.a&column=tags.b&group=params.a&order=params.a",
            f"/p/odd/-/compare?run={run}&run={0:032x}", f"/p/odd/-/curves?run={run}", f"/p/odd/m@{number + 1}",
            "/p/odd/m", "/p/odd", "/p/odd/-/activity", "/",
            f"{API}/projects/odd/runs?where=params.a+%3E+1", "/search?q=x",
            f"{API}/projects/odd/metrics?run={run}&axis=time", f"{API}/projects/odd/metrics/export?run={run}",
            f"{API}/projects/odd/metrics/export?run={run}&format=parquet",
            f"{API}/projects/odd/metrics?run={run}&from=1e300",
            f"{API}/projects/odd/metrics?run={run}&from=-1e300&to=1e300", f"{API}/projects/odd/models/m/versions",
        )  # fmt: skip
        for page in pages:
            headers = {"Authorization": f"Bearer {world.tokens[OWN]}"}
            answer = requests.get(world.server.url + page, headers=headers, timeout=60)
            if answer.status_code >= 500:
                wrong.append(f"{page} with {odd!r}: {answer.status_code}")
    assert wrong == [], world.server.log.read_text(errors="replace")[-8000:]
    assert stored == len(ODD)
