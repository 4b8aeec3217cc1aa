"""Frames of an older attempt of a run that arrive late: they add what they have, and replace nothing newer."""

from __future__ import annotations

import os
import secrets
from datetime import datetime, timezone

import msgspec
import pytest
from support.in_process import Served
from support.runs_over_http import begin, losses

from lmvp.core.run_frames import (
    END,
    UPDATE,
    attempt_frame,
    note,
)
from lmvp.core.schemas.runs import STALE_AFTER
from lmvp_server.stores.base import Put

FIRST, SECOND, RANK = "a" * 32, "b" * 32, "c" * 32
RESUMED = 1_800_000_000_000


def update(**fields):
    return note(UPDATE, msgspec.json.encode(fields))


def end(status, error=""):
    ended_at = datetime(2026, 11, 20, tzinfo=timezone.utc)
    return note(END, msgspec.json.encode({"status": status, "ended_at": ended_at, "error": error}))


class Run:
    """A run on a server, and how far the journal of each of its writers is sent."""

    def __init__(self, served):
        self.served, self.id, self.sent = served, secrets.token_hex(16), {}
        self.path = f"/projects/p/runs/{self.id}"

    def ship(self, writer, data):
        start = self.sent.get(writer, 0)
        answer = self.served("PUT", f"{self.path}/writers/{writer}?from={start}", data=data)
        assert answer.status_code == 200, answer.text
        self.sent[writer] = answer.json()["applied"]
        return self

    def start(self, **fields):
        return self.ship(FIRST, begin(self.id, **fields))

    def resume(self, writer=SECOND, epoch=RESUMED, **fields):
        return self.ship(writer, begin(self.id, resume=True, epoch=epoch, **fields) + attempt_frame(epoch))

    def read(self):
        return self.served("GET", self.path).json()

    @property
    def status(self):
        return self.read()["status"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("data")) as served:
        assert served("POST", "/projects", json={"name": "p"}).status_code == 201
        yield served


@pytest.fixture
def run(served):
    return Run(served)


@pytest.mark.parametrize("status", ["failed", "killed", "finished"])
def test_end_of_an_older_attempt_does_not_end_a_resumed_run(run, status):
    run.start().resume()
    run.ship(FIRST, losses([1.0]) + end(status, "the old process"))
    found = run.read()
    assert (found["status"], found["error"], found["ended_at"]) == ("running", "", None)
    assert found["points"] == 1, "its points count"
    run.ship(SECOND, end("finished"))
    assert run.status == "finished"


def test_end_of_an_older_attempt_does_not_replace_the_end_of_a_resumed_run(run):
    run.start().resume().ship(SECOND, end("finished"))
    run.ship(FIRST, end("failed", "the old process"))
    assert (run.status, run.read()["error"]) == ("finished", "")


def test_end_of_an_older_attempt_counts_until_the_run_is_resumed(run):
    run.start().ship(FIRST, end("failed", "no memory"))
    assert (run.status, run.read()["error"]) == ("failed", "no memory")
    run.resume()
    assert run.status == "running"


def test_end_counts_after_a_rewind_of_another_process_of_the_attempt(run):
    """A rank rewinds, so that its points are of a higher epoch than those of the process that ends the run."""
    run.start().ship(RANK, begin(run.id, joins=True) + attempt_frame(RESUMED, 5))
    assert run.read()["epoch"] == RESUMED
    run.ship(FIRST, end("finished"))
    assert run.status == "finished"


def test_rank_of_a_resumed_run_may_arrive_before_its_start(run):
    run.start().ship(FIRST, end("failed"))
    run.ship(RANK, begin(run.id, joins=True, epoch=RESUMED) + attempt_frame(RESUMED) + losses([1.0]))
    run.resume()
    assert run.status == "running"


def test_late_update_of_an_older_attempt_does_not_replace_newer_values(run):
    run.start(params={"lr": 0.1, "seed": 1}, tags={"gpu": "a100"})
    run.resume(params={"lr": 0.2})
    newer = update(
        tags={"gpu": "h100", "draft": None}, summary={"best": 2}, environment={"host": "b"}, name="new", notes="n"
    )
    run.ship(SECOND, newer)
    older = {"params": {"lr": 0.3, "seed": 2, "width": 8}, "tags": {"gpu": "v100", "draft": "yes", "queue": "night"}}
    run.ship(FIRST, update(**older, summary={"best": 1, "loss": 9}, environment={"host": "a"}, name="old", notes="o"))
    found = run.read()
    assert found["params"] == {"lr": 0.2, "seed": 2, "width": 8}
    assert found["tags"] == {"gpu": "h100", "queue": "night"}
    assert found["summary"] == {"best": 2, "loss": 9}
    assert found["environment"]["host"] == "b"
    assert (found["name"], found["notes"]) == ("new", "n")


def test_late_update_does_not_replace_an_amendment_after_the_resume(run):
    run.start(tags={"gpu": "a100"}).resume()
    amended = run.served("PATCH", run.path, json={"tags": {"gpu": "h100"}, "name": "by hand"})
    assert amended.status_code == 200
    run.ship(FIRST, update(tags={"gpu": "v100"}, name="by the old process"))
    assert (run.read()["tags"], run.read()["name"]) == ({"gpu": "h100"}, "by hand")
    run.ship(SECOND, update(tags={"gpu": "b200"}))
    assert run.read()["tags"] == {"gpu": "b200"}, "the current attempt goes on"


def test_updates_of_several_attempts_in_one_request_apply_each_to_its_own(run):
    run.start().resume().resume(RANK, RESUMED + 1)
    run.ship(RANK, update(tags={"a": "third"}))
    run.ship(
        SECOND, update(tags={"a": "second", "b": "second"}) + attempt_frame(RESUMED + 2) + update(tags={"c": "rewound"})
    )
    run.ship(FIRST, update(tags={"a": "first", "b": "first", "d": "first"}))
    assert run.read()["tags"] == {"a": "third", "b": "second", "c": "rewound", "d": "first"}


def test_start_of_the_first_attempt_that_arrives_late_adds_its_values(run):
    run.resume(params={"lr": 0.2})
    run.start(params={"lr": 0.1, "seed": 1}, tags={"gpu": "a100"})
    found = run.read()
    assert (found["params"], found["tags"], found["status"]) == ({"lr": 0.2, "seed": 1}, {"gpu": "a100"}, "running")


def test_request_that_repeats_frames_applies_their_updates_once(run):
    first, second = update(tags={"a": "1"}), update(tags={"b": "2"})
    run.start().ship(FIRST, first)
    at = run.sent[FIRST] - len(first)
    assert run.served("PATCH", run.path, json={"tags": {"a": "by hand"}}).status_code == 200
    answer = run.served("PUT", f"{run.path}/writers/{FIRST}?from={at}", data=first + second)
    assert answer.json()["applied"] == at + len(first) + len(second)
    assert run.read()["tags"] == {"a": "by hand", "b": "2"}


@pytest.mark.parametrize("sign", ["heartbeat", "points"])
def test_older_attempt_is_no_sign_of_life_of_a_resumed_run(run, sign):
    run.start().resume()
    series, space = run.served.services.series, run.served("GET", "/projects/p").json()["id"]
    alive = series._folder(space, run.id) / "alive"
    past = series.touched(space, run.id) - 2 * STALE_AFTER
    os.utime(alive, (past, past))
    assert run.status == "stale"
    run.ship(FIRST, b"" if sign == "heartbeat" else losses([1.0]))
    assert run.status == "stale"
    run.ship(SECOND, b"" if sign == "heartbeat" else losses([1.0]))
    assert run.status == "running"


def test_record_of_an_earlier_release_takes_ends_and_resumes(run):
    """Records without the attempt of the last resume, as earlier releases wrote them."""
    run.start().resume()
    records, space = run.served.services.records, run.served("GET", "/projects/p").json()["id"]
    found = records.get(space, "runs", run.id)
    records.commit(
        space, [Put("runs", run.id, {k: v for k, v in found.data.items() if k not in ("resumed", "attempts")})]
    )
    run.ship(SECOND, update(tags={"a": "1"}) + end("finished"))
    assert (run.status, run.read()["tags"]) == ("finished", {"a": "1"})
    run.resume(RANK, RESUMED + 1)
    assert run.status == "running"


def test_attempts_are_no_part_of_what_callers_see(run):
    run.start().resume(params={"lr": 0.1})
    assert not {"attempts", "resumed"} & set(run.read())
