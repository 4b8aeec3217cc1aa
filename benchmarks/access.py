"""Cost of access checks: requests of a member, compared with the operator, for whom roles are not checked."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable

import numpy as np
import requests

from benchmarks.measure import Row, at_most, interleaved
from lmvp import local
from lmvp.client.models import Client
from lmvp_server.services import Services
from lmvp_server.services.access import READ, Caller
from lmvp_server.stores.base import Put, RecordStore

ROUNDS, REQUESTS = 9, 300
USERS, PROJECTS = 1000, 200


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    return [*_requests(), _check()]


def _requests() -> list[Row]:
    """Send requests as a member of a group and as the operator, in turn."""
    root = Client()
    root.update("access/m", {"w": np.ones(4)}, progress=False)
    root.add_user("grace")
    root.set_group("vision", ["grace"])
    root.set_member("access", "@vision", "contributor")
    member, owner = root.create_token("bench", scope="admin", user="grace").token, local.connection().token
    rows = []
    for what, one in (("GET version", _version), ("POST points", _points)):
        asks = {who: one(root.url, token) for who, token in (("member", member), ("owner", owner))}
        times = interleaved({who: lambda ask=ask: _many(ask) for who, ask in asks.items()}, ROUNDS)
        share = statistics.median(b / a for a, b in zip(times["member"], times["owner"], strict=True))
        rate = REQUESTS / statistics.median(times["member"])
        name = f"{what}, checked beside unchecked"
        rows.append(Row(name, share, "×", "≥ 0.8", share >= 0.8, f"{rate:.0f} requests a second"))
    return rows


def _many(ask: Callable[[], requests.Response]) -> None:
    for _ in range(REQUESTS):
        ask().raise_for_status()


def _session(token: str) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    return session


def _version(url: str, token: str) -> Callable[[], requests.Response]:
    session = _session(token)
    return lambda: session.get(f"{url}/api/v1/projects/access/models/m/versions/1", timeout=10)


def _points(url: str, token: str) -> Callable[[], requests.Response]:
    session, run = _session(token), secrets.token_hex(16)
    base = f"{url}/api/v1/projects/access/runs"
    session.post(base, json={"run": run}, timeout=10).raise_for_status()
    values = {f"metric_{i}": 0.5 for i in range(20)}
    return lambda: session.post(f"{base}/{run}/metrics", json={"values": values}, timeout=10)


def _check() -> Row:
    """Measure one check with few and with many users and projects."""
    few, many = _seconds_a_check(10, 2), _seconds_a_check(USERS, PROJECTS)
    detail = f"{many * 1e6:.1f} µs among {USERS:,} users × {PROJECTS} projects, {few * 1e6:.1f} µs among 10 × 2"
    return at_most("a check among many, beside one among few", many / few, "×", 1.5, detail)


def _seconds_a_check(users: int, projects: int) -> float:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        services = Services.open(Path(folder))
        _fill(services.records, users, projects)
        caller = Caller("u5", user="u5", scope="admin", roles=services.roles)
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for i in range(1000):
                assert caller.may(READ, f"p{i % projects}")
            times.append((time.perf_counter() - start) / 1000)
        services.close()
    return statistics.median(times)


def _fill(records: RecordStore, users: int, projects: int) -> None:
    names = [f"u{i}" for i in range(users)]
    puts = [Put("users", name, {"name": name, "key": name, "disabled": False, "admin": False}) for name in names]
    puts += [Put("belongings", f"g-{name}", {"user": name, "group": f"g{i % 20}"}) for i, name in enumerate(names)]
    for p in range(projects):
        puts.append(Put("projects", f"p{p}", {"name": f"p{p}", "key": f"p{p}"}))
        member = {"project": f"p{p}", "kind": "user", "role": "viewer"}
        puts += [Put("members", f"p{p}-{name}", {**member, "subject": name}) for name in names[:50]]
    records.commit("server", puts)
