"""A real server, spoken to with plain requests, and the journal of a run for it."""

import msgspec
import requests

from lmvp import local
from lmvp.core.run_frames import (
    START,
    key_frame,
    note,
    points_frame,
)
from lmvp.core.schemas.runs import NewRun
from lmvp_server.routes import API

RUNS = "/projects/digits/runs"


class Server:
    """A real server, spoken to with plain requests."""

    def __init__(self):
        found = local.connection()
        self.url, self.token = found.url + API, found.token

    def __call__(self, method, path, body=None, data=None, **options):
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        encoded = msgspec.json.encode(body) if body is not None else data
        return requests.request(method, self.url + path, data=encoded, headers=headers, timeout=30, **options)

    def ship(self, run, data, writer="a" * 32, start=0, project="digits"):
        return self("PUT", f"/projects/{project}/runs/{run}/writers/{writer}?from={start}", data=data)


def begin(run, **fields):
    return note(START, msgspec.json.encode(NewRun(run=str(run), **fields)))


def losses(values, first=0, time=1.7e9):
    return key_frame(0, "train/loss") + b"".join(
        points_frame(time + i, [(0, first + i, value)]) for i, value in enumerate(values)
    )


class Journal(str):
    def __new__(cls, server, run, data):
        self = super().__new__(cls, run)
        self.server, self.data = server, data
        return self

    def add(self, data):
        start = len(self.data)
        self.data += data
        answer = self.server.ship(self, data, start=start)
        assert answer.ok, answer.text
        return answer

    def get(self, path=""):
        return self.server("GET", f"{RUNS}/{self}{path}").json()


def curve(server, run, key="train/loss", **query):
    answer = server("GET", "/projects/digits/metrics", params={"run": str(run), "key": key, **query})
    assert answer.ok, answer.text
    (found,) = answer.json()["curves"]
    return found
