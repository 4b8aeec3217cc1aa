"""Runs over HTTP: begun once, taken in once, listed, filtered, ended; and what is refused."""

import secrets
import time
from datetime import datetime

import msgspec
import pytest
from support.runs_over_http import RUNS, Server, begin, curve

from lmvp import local
from lmvp.core.run_frames import (
    AUTO,
    END,
    START,
    UPDATE,
    attempt_frame,
    key_frame,
    note,
    points_frame,
)
from lmvp.core.schemas.runs import NewRun


def test_a_journal_makes_the_project_the_run_and_its_points(served, run):
    found = run.get()
    assert (found["name"], found["status"], found["project"]) == ("quiet-wren-44", "running", "digits")
    assert (found["params"], found["tags"], found["metrics"]) == ({"lr": 0.1}, {"gpu": "a100"}, {"train/loss": 1.0})
    points = curve(served, run)
    assert (points["steps"], points["values"], points["count"]) == ([0, 1, 2, 3, 4], [5, 4, 3, 2, 1], 5)
    assert points["times"] == [1.7e9 + i for i in range(5)]


def test_what_is_sent_again_counts_once(served, run):
    for start in (0, len(begin(run, name="quiet-wren-44", params={"lr": 0.1}, tags={"gpu": "a100"}))):
        assert served.ship(run, run.data[start:], start=start).json() == {"applied": len(run.data)}
    more = points_frame(9, [(0, 5, 0.5)])
    assert served.ship(run, run.data + more).json() == {"applied": len(run.data + more)}
    assert curve(served, run)["values"] == [5, 4, 3, 2, 1, 0.5]
    assert served("GET", RUNS).json()["total"] == 1
    assert served("GET", f"{RUNS}/{run}/writers/{'a' * 32}").json() == {"applied": len(run.data + more)}


def test_a_gap_is_refused_and_tells_where_to_go_on(served, run):
    answer = served.ship(run, points_frame(1, [(0, 9, 9.0)]), start=len(run.data) + 40)
    assert answer.status_code == 409
    assert answer.json()["error"]["hint"] == f"send from {len(run.data)}"


def test_several_writers_of_one_run(served, run):
    early = served.ship(secrets.token_hex(16), begin("b" * 32, joins=True), writer="c" * 32)
    assert early.status_code == 400
    joins = note(START, msgspec.json.encode(NewRun(run=str(run), joins=True)))
    data = (
        joins + key_frame(0, "val/acc") + key_frame(1, "train/loss") + points_frame(1, [(0, 1, 0.5), (1, AUTO, 0.25)])
    )
    assert served.ship(run, data, writer="b" * 32).ok
    assert curve(served, run, "val/acc")["values"] == [0.5]
    assert curve(served, run)["steps"] == [0, 1, 2, 3, 4, 5]
    unknown = secrets.token_hex(16)
    joins = note(START, msgspec.json.encode(NewRun(run=unknown, joins=True)))
    assert served.ship(unknown, joins, writer="b" * 32).status_code == 404


def test_updates_and_the_end_come_with_the_journal(served, run):
    update = {
        "params": {"lr": 0.2},
        "summary": {"best": 0.97},
        "tags": {"gpu": None},
        "environment": {"git": {"commit": "abc"}},
    }
    run.add(note(UPDATE, msgspec.json.encode(update)))
    run.add(points_frame(1.7e9 + 9, [(0, 9, float("nan"))]))
    run.add(
        note(
            END, msgspec.json.encode({"status": "failed", "ended_at": "2026-11-26T12:00:00Z", "error": "ValueError: x"})
        )
    )
    found = run.get()
    assert (found["status"], found["error"], found["ended_at"]) == (
        "failed",
        "ValueError: x",
        "2026-11-26T12:00:00.000000Z",
    )
    assert (found["params"], found["tags"], found["summary"]) == ({"lr": 0.2}, {}, {"best": 0.97})
    assert found["environment"]["git"] == {"commit": "abc"}
    assert (found["metrics"], found["points"], found["keys"]) == ({"train/loss": "NaN"}, 6, 1)
    late = run.add(points_frame(1.7e9 + 10, [(0, 10, 7.0)]))
    assert late.ok
    assert run.get()["status"] == "failed"
    assert run.get()["metrics"] == {"train/loss": 7.0}


def test_many_updates_of_a_shipment_are_one_change(served, run):
    """A shipment of small updates does not write the record of the run for each of them."""
    updates = [
        {"name": f"n{at}", "tags": {"gpu": f"g{at}" if at % 2 else None}, "summary": {"at": at}} for at in range(2000)
    ]
    run.add(b"".join(note(UPDATE, msgspec.json.encode(one)) for one in updates))
    found = run.get()
    assert (found["name"], found["tags"], found["summary"]) == ("n1999", {"gpu": "g1999"}, {"at": 1999})
    assert found["revised"] == 1


def test_many_rewinds_of_a_shipment_have_few_events(served, run):
    run.add(b"".join(attempt_frame(number, 0) for number in range(1, 1001)))
    events = served("GET", "/projects/digits/events", params={"action": "run.rewind"}).json()["items"]
    assert len(events) == 16
    assert events[0]["after"] == {"step": 0, "epoch": 1000, "not_told": 984}


def test_request_of_too_many_attempts_is_refused_and_changes_nothing(served, run):
    before = run.get()
    data = b"".join(attempt_frame(number, 0) for number in range(1, 1002)) + note(UPDATE, b'{"name": "other"}')
    answer = served.ship(run, data, start=served.ship(run, b"").json()["applied"])
    assert answer.status_code == 400
    assert "1,001 `epoch` frames in one request; the limit is 1,000" in answer.text
    assert run.get()["name"] == before["name"]


def test_journal_of_many_attempts_is_sent_in_several_requests():
    from lmvp.core.run_frames import whole_frames, within_attempts

    journal = key_frame(0, "a") + b"".join(attempt_frame(number, 0) for number in range(1, 2501))
    sent = []
    while journal:
        sent.append(within_attempts(journal))
        journal = journal[len(sent[-1]) :]
    assert [sum(kind == 6 for kind, _, _ in whole_frames(part)) for part in sent] == [1000, 1000, 500]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_times_beyond_the_calendar_are_refused(served, run, at):
    """A time whose year in UTC is none is refused, wherever one may stand."""
    answers = [
        served("POST", RUNS, {"run": secrets.token_hex(16), "started_at": at}),
        served("POST", f"{RUNS}/{run}/end", {"status": "killed", "ended_at": at}),
        *(served("GET", "/events", params={name: at}) for name in ("since", "until")),
    ]
    assert [answer.status_code for answer in answers] == [400] * 4


def test_a_resume_and_a_rewind(served, run):
    run.add(note(END, msgspec.json.encode({"status": "killed", "ended_at": "2026-11-26T12:00:00Z"})))
    again = note(START, msgspec.json.encode(NewRun(run=str(run), resume=True, epoch=7, params={"lr": 0.01})))
    again += attempt_frame(7, 2) + key_frame(0, "train/loss") + points_frame(2e9, [(0, 3, 30.0)])
    assert served.ship(run, again, writer="b" * 32).ok
    found = run.get()
    assert (found["status"], found["epoch"], found["params"]) == ("running", 7, {"lr": 0.01})
    assert curve(served, run)["values"] == [5, 4, 3, 30]
    run.add(points_frame(1, [(0, 99, 99.0)]))  # a late one of the time before
    assert curve(served, run)["values"] == [5, 4, 3, 30]
    events = [event["action"] for event in served("GET", "/projects/digits/events").json()["items"]]
    assert events == ["run.rewind", "run.resume", "run.end", "run.start"]


def test_a_run_without_a_sign_of_life_is_stale_and_comes_back(served, run, home):
    import os

    (alive,) = (home / "series").glob("*/*/alive")
    os.utime(alive, (time.time() - 100, time.time() - 100))
    assert run.get()["status"] == "stale"
    assert served.ship(run, b"", start=len(run.data)).ok
    assert run.get()["status"] == "running"


def test_a_removed_run_stays_removed(served, run):
    assert served("DELETE", f"{RUNS}/{run}").status_code == 409
    end = {"status": "finished", "ended_at": "2026-11-26T12:00:00Z"}
    assert served("POST", f"{RUNS}/{run}/end", end).json()["status"] == "finished"
    assert served("DELETE", f"{RUNS}/{run}").status_code == 204
    assert served.ship(run, run.data).status_code == 404
    assert served("GET", RUNS).json()["total"] == 0


def test_runs_are_found_by_id_prefix_and_name(served, run):
    for name in (str(run), run[:8], "quiet-wren-44", "Quiet-Wren-44"):
        assert served("GET", f"{RUNS}/{name}").json()["id"] == run
    answer = served("GET", f"{RUNS}/quiet-wren-45")
    assert answer.status_code == 404
    assert answer.json()["error"]["hint"] == "did you mean 'quiet-wren-44'?"


def test_runs_are_made_and_changed_by_hand(served):
    run = secrets.token_hex(16)
    assert served("POST", RUNS, {"run": run, "name": "by hand"}).status_code == 201
    assert served("POST", RUNS, {"run": run, "name": "by hand"}).status_code == 200
    for step, value in enumerate((1.0, "NaN", 3)):
        answer = served("POST", f"{RUNS}/{run}/metrics", {"values": {"loss": value}, "step": step, "time": 1.5})
        assert answer.status_code == 201, answer.text
    assert served("POST", f"{RUNS}/{run}/metrics", {"values": {"loss": 4}}).ok
    assert curve(served, run, "loss")["steps"] == [0, 1, 2, 3]
    assert curve(served, run, "loss")["values"] == [1, "NaN", 3, 4]
    assert served("POST", f"{RUNS}/{run}/metrics", {"values": {"loss": "x"}}).status_code == 400
    changed = served("PATCH", f"{RUNS}/{run}", {"name": "better", "summary": {"best": 3}}).json()
    assert (changed["name"], changed["summary"], changed["revised"]) == ("better", {"best": 3}, 1)
    keys = served("GET", f"{RUNS}/better/metrics").json()
    assert keys["total"] == 1
    assert (keys["items"][0]["count"], keys["items"][0]["low"], keys["items"][0]["high"]) == (4, 1, 4)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("metrics.acc > 0.5", [2, 1]),
        ("metrics['val/x'] >= 2 and params.lr < 0.05", [2]),
        ("not (params.lr > 0.01) or tags.kind == 'odd'", [1, 0]),
        ("name in ('run-0', 'run-2')", [2, 0]),
        ("'run' in name and status == 'running'", [2, 1, 0]),
        ("0.3 < metrics.acc <= 0.8", [1]),
        ("params.nothing > 3", []),
        ("params.nothing is None and params.lr == 0.02", [2]),
        ("created_at > '2020-01-01'", [2, 1, 0]),
        ("metrics.val/x >= 2", [2]),
        ("val/x>=1 and metrics.acc>0.5", [2, 1]),
        ("metrics.val/x in (0, 2) or params.lr == 0.01", [2, 1, 0]),
        ("tags.kind == 'metrics.val/x > 3'", []),
    ],
)
def test_filters(served, where, expected):
    for i in range(3):
        tags = {"kind": "odd" if i % 2 else "even"}
        run = secrets.token_hex(16)
        served("POST", RUNS, {"run": run, "name": f"run-{i}", "params": {"lr": i / 100}, "tags": tags})
        served("POST", f"{RUNS}/{run}/metrics", {"values": {"acc": 0.3 + i * 0.3, "val/x": i}, "step": 1})
    found = served("GET", RUNS, params={"where": where}).json()
    assert [item["name"] for item in found["items"]] == [f"run-{i}" for i in expected]
    assert found["total"] == len(expected)


@pytest.mark.parametrize(
    "where",
    ["__import__('os').system('x')", "metrics.acc >", "1 + 1", "name.__class__", "metrics[0] > 1", "(lambda: 1)()",
     "f'{name}'", "nonsense == 1", "a" * 3000, "(" * 500 + "1" + ")" * 500, "9" * 5000 + " > 1", "params.x @ 3",
     "[x for x in name]"],
)  # fmt: skip
def test_filters_that_are_refused(served, run, where):
    answer = served("GET", RUNS, params={"where": where})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["hint"] or len(where) > 2000


def test_curves_by_range_time_and_another_key(served, run):
    run.add(key_frame(1, "epoch") + points_frame(1.8e9, [(1, 0, 0.0), (1, 3, 1.0)]))
    assert curve(served, run, **{"from": 1, "to": 3})["steps"] == [1, 2, 3]
    by_time = curve(served, run, axis="time", **{"from": 1.7e9 + 2})
    assert by_time["steps"] == [2, 3, 4]
    by_epoch = curve(served, run, axis="epoch")
    assert by_epoch["axis"] == [0, 0, 0, 1, 1]
    answer = served("GET", "/projects/digits/metrics", params={"run": str(run), "key": "train/los"})
    assert answer.status_code == 404
    assert "train/loss" in answer.json()["error"]["hint"]


def test_bad_input_is_told_what_is_wrong_with_it(served, run):
    for answer, status in [
        (served.ship("x", b""), 400),
        (served.ship(run, b"", writer="x"), 400),
        (served.ship(run, b"garbage", start=len(run.data)), 400),
        (served.ship(run, points_frame(1, [(0, 1, 1.0)])[:-1], start=len(run.data)), 400),
        (served.ship(run, points_frame(1, [(9, 1, 1.0)]), start=len(run.data)), 400),
        (served.ship(run, points_frame(1, [(0, 1, 1.0)]), writer="d" * 32), 400),
        (served.ship(run, note(START, b'{"run": 3}'), writer="d" * 32), 400),
        (served.ship(run, begin("b" * 32), writer="d" * 32), 400),
        (served.ship(run, begin(run, format=2), writer="d" * 32), 400),
        (served.ship(run, bytes((8 << 20) + (1 << 20) + 1)), 413),
        (served("PUT", f"{RUNS}/{run}/writers/{'a' * 32}?from=-1", data=b""), 400),
        (served("GET", "/projects/digits/metrics"), 400),
        (served("GET", f"/projects/digits/metrics?run={run}&points=x"), 400),
        (served("GET", f"/projects/digits/metrics?run={run}&points=1e9"), 400),
        (served("GET", f"/projects/digits/metrics?run={run}&from=nan"), 400),
        (served("GET", f"/projects/digits/metrics/live?run={run}&cursor=x"), 400),
        (served("GET", "/projects/digits/metrics/live"), 400),
        (served("GET", f"/projects/digits/metrics/export?run={run}&format=xls"), 400),
        (served("POST", RUNS, {"run": "../../etc"}), 400),
        (served("POST", RUNS, {"run": "a" * 32, "name": "x" * 251}), 400),
        (served("GET", "/projects/nothing/runs"), 404),
    ]:
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]
    assert curve(served, run)["values"] == [5, 4, 3, 2, 1]


def test_everything_is_there_after_a_restart(served, run):
    local.stop()
    served = Server()
    assert served("GET", f"{RUNS}/{run}").json()["metrics"] == {"train/loss": 1.0}
    assert served.ship(run, run.data).json() == {"applied": len(run.data)}
    assert curve(served, run)["values"] == [5, 4, 3, 2, 1]


def test_a_version_knows_its_run(served, run):
    import numpy as np

    import lmvp

    lmvp.update("digits/mlp", {"w": np.arange(3.0)}, run=str(run))
    assert run.get()["versions"] == ["digits/mlp@v1"]
    assert served("GET", "/projects/digits/models/mlp/versions/1").json()["run"] == run


def test_removing_the_project_removes_its_series(served, run, home):
    assert served("DELETE", "/projects/digits?now=1").json()["bytes"] > 0
    assert list((home / "series").iterdir()) == []


def test_usage_and_fsck_know_of_series(served, run, home):
    assert served("GET", "/usage").json()["disk"]["series"] > 300
    local.stop()
    (log,) = (home / "series").glob("*/*/*.wal")
    state = log.parent / "series"
    state.write_bytes(b"nonsense")
    served = Server()
    lines = served("POST", "/fsck", {"repair": False}).text.splitlines()
    problems = msgspec.json.decode(lines[-1])["result"]["problems"]
    assert [problem["kind"] for problem in problems] == ["series"]


BEYOND_UTC = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00", "9999-01-01T00:00:00Z"]


@pytest.mark.parametrize("time", BEYOND_UTC)
def test_run_time_out_of_range_is_refused(served, run, time):
    started = served("POST", RUNS, {"run": secrets.token_hex(16), "started_at": time})
    ended = served("POST", f"{RUNS}/{run}/end", {"status": "finished", "ended_at": time})
    for answer, field in ((started, "started_at"), (ended, "ended_at")):
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(f"{field} is ")
    assert run.get()["status"] == "running"


@pytest.mark.parametrize("moment", BEYOND_UTC)
def test_journal_time_out_of_range_becomes_server_time(served, moment):
    before, run = time.time(), secrets.token_hex(16)
    start = note(START, msgspec.json.encode({"run": run, "started_at": moment}))
    end = note(END, msgspec.json.encode({"status": "finished", "ended_at": moment}))
    frames = start + key_frame(0, "loss") + points_frame(1, [(0, 1, 0.5)]) + end
    assert served.ship(run, frames).json() == {"applied": len(frames)}
    found = served("GET", f"{RUNS}/{run}").json()
    assert found["status"] == "finished"
    assert found["metrics"] == {"loss": 0.5}
    for field in ("created_at", "ended_at"):
        assert before - 1 <= datetime.fromisoformat(found[field].replace("Z", "+00:00")).timestamp() <= time.time()
    more = points_frame(2, [(0, 2, 0.25)])  # the journal is not blocked, and the first end stays
    assert served.ship(run, frames + end + more).json() == {"applied": len(frames + end + more)}
    assert served("GET", f"{RUNS}/{run}").json()["ended_at"] == found["ended_at"]


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("time", BEYOND_UTC[:2])
def test_audit_time_out_of_range_is_refused(served, run, field, time):
    answer = served("GET", "/projects/digits/events", params={field: time})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{field}=")
