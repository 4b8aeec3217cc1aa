"""Damaged files of points: lists and filters state which runs they could not read, and an export is refused."""

import logging

import pytest
from support.in_process import Served

GOOD, BAD = "a" * 32, "b" * 32


@pytest.fixture
def folder(tmp_path):
    """A data folder with two open runs, whose points are in segments."""
    folder = tmp_path / "data"
    with Served(folder) as served:
        assert served("POST", "/projects", json={"name": "p", "description": ""}).ok
        for run in (GOOD, BAD):
            assert served("POST", "/projects/p/runs", json={"run": run, "name": run[0]}).ok
            for step in range(20):
                point = {"values": {"loss": 2.0 + step}, "step": step}
                assert served("POST", f"/projects/p/runs/{run}/metrics", json=point).ok
        for path in (folder / "series").glob("*/*"):
            served.services.runs._series.settle(path.parent.name, path.name)
    return folder


def flip(folder, name):
    (path,) = folder.glob(f"series/*/{BAD}/{name}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def named(answer):
    assert answer.ok, answer.text
    return {one["name"]: one for one in answer.json()["items"]}


def test_list_states_that_points_of_a_run_cannot_be_read(folder, caplog):
    flip(folder, "series")
    with Served(folder) as served, caplog.at_level(logging.ERROR):
        runs = named(served("GET", "/projects/p/runs"))
        assert (runs["a"]["points"], runs["a"]["metrics"], runs["a"]["incomplete"]) == (20, {"loss": 21.0}, "")
        assert runs["b"]["incomplete"] == "the files of its points are damaged: no point can be read"
        assert named(served("GET", "/projects/p/runs"))["b"]["incomplete"]
        logged = [one for one in caplog.records if "cannot be read" in one.getMessage()]
        assert [one.exc_info for one in logged] == [None], "one line, once"
        assert BAD in logged[0].getMessage()


@pytest.mark.parametrize("query", ["where=metrics.loss>1", "order=-metrics.loss"])
def test_filter_and_order_name_runs_that_they_cannot_read(folder, query):
    with Served(folder) as served:
        answer = served("GET", f"/projects/p/runs?{query}")
        assert set(named(answer)) == {"a", "b"}
        assert "LMVP-Incomplete" not in answer.headers
    flip(folder, "series")
    with Served(folder) as served:
        answer = served("GET", f"/projects/p/runs?{query}")
        assert "a" in named(answer)
        assert BAD[:8] in answer.headers["LMVP-Incomplete"]
        assert GOOD[:8] not in answer.headers["LMVP-Incomplete"]


@pytest.mark.parametrize("kind", ["csv", "columns"])
def test_export_of_a_damaged_segment_is_refused_before_it_begins(folder, kind):
    flip(folder, "*.segment")
    with Served(folder) as served:
        refused = served("GET", f"/projects/p/metrics/export?format={kind}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "integrity")
        assert f"run b ({BAD[:8]}): " in refused.json()["error"]["message"]
        assert str(folder) not in refused.text
        assert served("GET", f"/projects/p/metrics/export?format={kind}&run={GOOD}").ok


def test_missing_log_is_stated_and_named_by_fsck(tmp_path):
    """Points that were acknowledged are in the log until a segment has them."""
    folder = tmp_path / "data"
    with Served(folder) as served:
        assert served("POST", "/projects", json={"name": "p", "description": ""}).ok
        for run in (GOOD, BAD):
            assert served("POST", "/projects/p/runs", json={"run": run, "name": run[0]}).ok
            assert served("POST", f"/projects/p/runs/{run}/metrics", json={"values": {"loss": 1.0}, "step": 1}).ok
    (log,) = folder.glob(f"series/*/{BAD}/0.wal")
    log.unlink()
    for _ in range(2):  # new points do not hide the loss
        with Served(folder) as served:
            assert "0.wal is missing" in served("GET", f"/projects/p/runs/{BAD}").json()["incomplete"]
            assert served("GET", f"/projects/p/runs/{GOOD}").json()["incomplete"] == ""
            refused = served("GET", "/projects/p/metrics/export")
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "integrity")
            found = served("POST", "/fsck", json={}).text
            assert f"{BAD}/0.wal is missing" in found
            assert GOOD not in found
            assert served("POST", f"/projects/p/runs/{BAD}/metrics", json={"values": {"loss": 1.0}, "step": 2}).ok
            served.services.runs._series.settle(log.parent.parent.name, BAD)


def test_log_that_is_sealed_is_not_missed(tmp_path):
    folder = tmp_path / "data"
    with Served(folder) as served:
        assert served("POST", "/projects", json={"name": "p", "description": ""}).ok
        assert served("POST", "/projects/p/runs", json={"run": GOOD, "name": "a"}).ok
        for step in range(3):
            assert served("POST", f"/projects/p/runs/{GOOD}/metrics", json={"values": {"loss": 1.0}, "step": step}).ok
            (place,) = (folder / "series").glob("*/*")
            served.services.runs._series.settle(place.parent.name, GOOD)
    assert not [*place.glob("*.begun")]
    with Served(folder) as served:
        assert served("GET", f"/projects/p/runs/{GOOD}").json()["incomplete"] == ""
        assert served("GET", "/projects/p/metrics/export").ok
