"""Points as streams: live events behind a cursor, and every point as CSV, Parquet and columns."""

import asyncio
import csv
import io
import json
import socket
import struct
import threading
import time

import numpy as np
import pytest
import requests
from support.runs_over_http import RUNS, Server, begin, curve, losses

from lmvp import local
from lmvp.core.columns import Columns
from lmvp.core.run_frames import (
    END,
    key_frame,
    note,
    points_frame,
)
from lmvp_server.api import export
from lmvp_server.api.sse import StreamPosition, Streams
from lmvp_server.app import App
from lmvp_server.routes import API
from lmvp_server.settings import Settings

LIVE = "/projects/digits/metrics/live"


class Reader(threading.Thread):
    """Reads events until there are enough of them."""

    def __init__(self, served, query, enough):
        super().__init__(daemon=True)
        self.events, self.enough = [], enough
        self.answer = served("GET", LIVE, params=query, stream=True)
        assert self.answer.ok, self.answer.text
        self.start()

    def run(self):
        name = ""
        for line in self.answer.iter_lines(chunk_size=1 << 16):
            if line.startswith(b"event: "):
                name = line[7:].decode()
            if line.startswith(b"data: "):
                self.events.append((name, json.loads(line[6:])))
            if self.enough(self.events):
                return self.answer.close()
        return None

    def wait(self):
        self.join(10)
        assert not self.is_alive(), self.events
        return self.events


def steps_of(events):
    return [step for name, data in events if name == "points" for c in data["curves"] for step in c["steps"]]


def test_points_come_as_events_once_and_in_order(served, run):
    reader = Reader(served, {"run": str(run)}, lambda events: 205 in steps_of(events))
    for first in range(5, 205, 10):
        run.add(b"".join(points_frame(1.0, [(0, first + i, float(i))]) for i in range(10)))
    time.sleep(0.3)
    run.add(points_frame(1.0, [(0, 205, 1.0)]))
    events = reader.wait()
    assert steps_of(events) == list(range(5, 206))
    assert len(events) < 20
    assert events[0][1]["status"] == {str(run): "running"}
    cursor = events[-1][1]["cursor"]
    run.add(points_frame(1.0, [(0, 206, 1.0)]))
    again = Reader(served, {"run": str(run), "cursor": cursor}, lambda events: 206 in steps_of(events))
    assert steps_of(again.wait()) == [206]


def test_the_end_of_a_run_is_an_event_and_keys_choose(served, run):
    run.add(key_frame(1, "other"))
    ended = lambda events: any("finished" in data.get("status", {}).values() for _, data in events)  # noqa: E731
    reader = Reader(served, {"run": "quiet-wren-44", "key": "other"}, ended)
    run.add(points_frame(1.0, [(0, 50, 1.0)]) + points_frame(1.0, [(1, 7, 1.0)]))
    time.sleep(0.3)
    run.add(note(END, b'{"status": "finished", "ended_at": "2026-11-26T12:00:00Z"}'))
    assert steps_of(reader.wait()) == [7]


def test_a_cursor_that_is_lost_says_reset(served, run, home):
    local.stop()
    for log in (home / "series").glob("*/*"):
        from lmvp_server.stores.local.series.series import Series

        series = Series(log)
        series.seal()
        series.close()
    reader = Reader(Server(), {"run": str(run), "cursor": "2"}, lambda events: len(events) > 0)
    (event,) = reader.wait()
    assert event[0] == "reset"
    assert event[1]["cursor"] == "5"


def test_a_reader_who_does_not_read_holds_nobody(served, run):
    host, port = served.url.split("/")[2].split(":")
    slow = socket.create_connection((host, int(port)))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = (
        f"GET /api/v1{LIVE}?run={run} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {served.token}\r\n\r\n"
    )
    slow.sendall(head.encode())
    reader = Reader(served, {"run": str(run)}, lambda events: events and events[-1][1]["cursor"] == "200000")
    for first in range(5, 200_000, 5_000):
        run.add(b"".join(points_frame(1.0, [(0, first + i, float(i))]) for i in range(min(5_000, 200_000 - first))))
    events = reader.wait()
    assert all(name == "points" or data["cursor"] for name, data in events)
    assert set(steps_of(events[-1:])) <= set(range(200_000))
    slow.close()
    assert curve(served, run, points=10)["count"] == 200_000


def test_too_many_new_points_are_read_anew(served, run):
    reader = Reader(served, {"run": str(run)}, lambda events: events and events[-1][0] == "reset")
    run.add(b"".join(points_frame(1.0, [(0, 5 + i, float(i))]) for i in range(50_000)))
    assert reader.wait()[-1][1]["cursor"] == "50005"


def test_points_of_many_runs_are_read_anew(served):
    """One event tells of no more points than its readers' server can hold."""
    runs = [f"{number:032x}" for number in range(6)]
    for run in runs:
        assert served.ship(run, begin(run) + losses(range(19_000))).ok
    reader = Reader(served, {"run": runs, "cursor": ",".join("0" for _ in runs)}, lambda events: events)
    assert [name for name, _ in reader.wait()] == ["reset"]


def test_run_that_is_named_often_is_told_once(served, run):
    reader = Reader(served, {"run": [str(run)] * 50, "cursor": "0"}, lambda events: events)
    assert steps_of(reader.wait()) == [0, 1, 2, 3, 4]
    wrong = served("GET", LIVE, params={"run": [str(run)] * 50, "cursor": ",".join(["0"] * 50)})
    assert wrong.status_code == 400


def test_streams_share_a_bounded_number_of_bytes():
    """Events that are kept for other readers do not fill the memory."""

    async def ask():
        streams = Streams()
        for number in range(20):
            place = StreamPosition("p", ("a",), None, (number,))
            await streams.shared(place, lambda place: _made(b"x" * (4 << 20), place))
        return sum(len(one.result()[0]) for one in streams._made.values())

    async def _made(event, place):
        return event, place

    assert asyncio.run(ask()) <= 16 << 20


def test_run_that_is_named_often_has_one_curve(served, run):
    answer = served("GET", "/projects/digits/metrics", params={"run": [str(run)] * 200, "points": 100_000})
    assert len(answer.json()["curves"]) == 1


def test_streams_end_with_the_server(served, run):
    reader = Reader(served, {"run": str(run)}, lambda events: False)
    time.sleep(0.3)
    start = time.monotonic()
    local.stop()
    reader.join(10)
    assert not reader.is_alive()
    assert time.monotonic() - start < 8


def test_a_stream_that_comes_when_the_server_ends_does_not_hold_it_up(tmp_path):
    """It is asked for after the others were ended, on a connection that is still open."""

    async def scenario():
        app = App(Settings(tmp_path, token="t" * 40))
        await app.start()

        def ask(method, path, **options):
            headers = {"Authorization": "Bearer " + "t" * 40}
            return requests.request(method, app.url + API + path, headers=headers, timeout=10, **options)

        run = "1" * 32
        data = begin(run, name="late")
        made = await asyncio.to_thread(ask, "POST", "/projects", json={"name": "digits"})
        assert made.ok, made.text
        sent = await asyncio.to_thread(ask, "PUT", f"{RUNS}/{run}/writers/{'a' * 32}?from=0", data=data)
        assert sent.ok, sent.text
        app._streams.end()
        answer = await asyncio.to_thread(ask, "GET", LIVE, params={"run": run})
        assert answer.status_code == 200
        await app.stop()

    asyncio.run(scenario())


# -- export


def test_csv_has_every_point(served, run):
    run.add(key_frame(1, "=danger()") + points_frame(1.7e9, [(1, -3, float("nan"))]))
    text = served("GET", "/projects/digits/metrics/export").content.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 6
    assert [float(row["value"]) for row in rows[:5]] == [5, 4, 3, 2, 1]
    assert rows[0] == {"run": str(run), "name": "quiet-wren-44", "key": "train/loss", "step": "0", "value": "5.0",
                       "time": "2023-11-14T22:13:20.000000Z"}  # fmt: skip
    assert (rows[5]["key"], rows[5]["step"], rows[5]["value"]) == ("'=danger()", "-3", "nan")


def test_parquet_has_every_point(served, run):
    parquet = pytest.importorskip("pyarrow.parquet")
    data = served("GET", f"/projects/digits/metrics/export?format=parquet&run={run}&key=train/loss").content
    table = parquet.read_table(io.BytesIO(data)).to_pydict()
    assert table["value"] == [5, 4, 3, 2, 1]
    assert table["key"] == ["train/loss"] * 5
    assert table["time"][0].timestamp() == 1.7e9


def test_columns_have_every_point(served, run):
    run.add(b"".join(points_frame(1.0, [(0, i, i / 3)]) for i in range(5, 100_000)))
    data = served("GET", "/projects/digits/metrics/export?format=columns").content
    steps, values, at = [], [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        head = json.loads(data[at + 4 : at + 4 + length])
        at += 4 + length
        for name, dtype in head["columns"]:
            column = np.frombuffer(data, dtype, head["rows"], at)
            at += column.nbytes
            {"steps": steps, "values": values}.get(name, []).append(column)
    assert np.concatenate(steps).tolist() == list(range(100_000))
    assert np.concatenate(values)[7] == 7 / 3


def test_export_holds_a_run_and_a_key_that_are_named_twice_once(served, run):
    name = served("GET", f"/projects/digits/runs/{run}").json()["name"]
    once = served("GET", f"/projects/digits/metrics/export?run={run}&key=train/loss").content
    twice = f"run={run}&run={run}&run={run[:8]}&run={name}&key=train/loss&key=train/loss"
    assert served("GET", f"/projects/digits/metrics/export?{twice}").content == once


def test_export_of_damaged_points_is_refused_before_it_begins(served, run, home):
    run.add(b"".join(points_frame(1.0, [(0, i, i / 3)]) for i in range(5, 200_000)))
    run.add(key_frame(1, "zzz") + points_frame(1.0, [(1, 1, 1.0)]))
    run.add(note(END, b'{"status": "finished", "ended_at": "2026-11-26T12:00:00Z"}'))
    segments = home / "series"
    deadline = time.monotonic() + 10
    while not list(segments.glob("*/*/*.segment")) and time.monotonic() < deadline:
        time.sleep(0.05)
    local.stop()
    (segment,) = segments.glob("*/*/*.segment")
    data = bytearray(segment.read_bytes())
    data[len(data) * 3 // 5] ^= 1
    segment.write_bytes(data)
    served = Server()
    answer = served("GET", "/projects/digits/metrics/export")
    assert answer.status_code == 422
    assert "train/loss" not in answer.text


def test_times_that_are_none_do_not_break_what_is_shown(served, run):
    run.add(points_frame(float("nan"), [(0, 5, 1.0)]) + points_frame(float("inf"), [(0, 6, 1.0)]))
    assert curve(served, run)["times"][-2:] == [0, 0]


def test_whoever_leaves_an_export_leaves_nothing_behind(served, run):
    run.add(b"".join(points_frame(1.0, [(0, i, i / 3)]) for i in range(5, 100_000)))
    for _ in range(3):
        with served("GET", "/projects/digits/metrics/export", stream=True) as answer:
            next(answer.iter_content(1000))
    assert run.get()["points"] == 100_000


@pytest.mark.parametrize("time", [1e15, -1e15, 1e305, 9.3e12])
def test_point_time_beyond_parquet_is_refused(served, run, time):
    answer = served("POST", f"{RUNS}/{run}/metrics", {"values": {"late": 1}, "time": time})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("time= is ")


@pytest.mark.filterwarnings("error")
def test_parquet_has_null_for_time_out_of_range():
    parquet = pytest.importorskip("pyarrow.parquet")
    times = np.array([1.7e9, 1e15, -1e15, 1e305, 9.2e12])  # as journals written before the limit hold them
    part = Columns(np.arange(5), np.ones(5), times)
    data = b"".join(export._parquet([({"id": "a" * 32, "name": "run"}, "late", [part])]))
    column = parquet.read_table(io.BytesIO(data)).column("time").cast("int64")
    assert column.to_pylist() == [1_700_000_000_000_000, None, None, None, 9_200_000_000_000_000_000]
