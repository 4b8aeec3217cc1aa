"""Tables that follow a real server, and say where it is gone."""

import time

import numpy as np
import pytest
from support.local_server import SharedServer

import lmvp
from lmvp_jupyter import following
from lmvp_jupyter.widgets import HistoryTable

pytestmark = pytest.mark.notebook


@pytest.fixture
def server(home, tmp_path, monkeypatch):
    server = SharedServer(tmp_path / "served")
    monkeypatch.setenv("LMVP_TOKEN", server.start())
    monkeypatch.setenv("LMVP_URL", server.url)
    monkeypatch.setattr(following, "EVERY", 0.1)
    yield server
    server.kill()


def until(happens, seconds=20):
    for _ in range(int(seconds / 0.05)):
        if happens():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def table():
    shown = HistoryTable(lmvp.showHistory("digits/mlp"))
    said = []
    shown.send = said.append
    shown._heard(shown, {"kind": "hello"}, [])
    return shown, said


def publish(value, **more):
    return lmvp.update("digits/mlp", {"w": np.full(3, value)}, create=True, progress=False, **more)


def test_new_versions_aliases_and_amendments_come_by_themselves(server):
    publish(1)
    shown, _ = table()
    publish(2)
    until(lambda: shown.data["total"] == 2)
    lmvp.alias("digits/mlp@v1", "production")
    until(lambda: shown.data["rows"][1]["aliases"] == [{"name": "production", "protected": True}])
    lmvp.Client().amend("digits/mlp@v2", message="better said")
    until(lambda: shown.data["rows"][0]["message"] == "better said")
    shown.close()
    until(lambda: not following._followed or all(each.table is not shown for each in following._followed))


def test_a_server_that_is_gone_is_said_and_its_return_too(server):
    publish(1)
    shown, said = table()
    until(lambda: shown._followed._mark is not None)
    server.kill()
    until(
        lambda: any(message.get("kind") == "server" and "shows the state of" in message["words"] for message in said),
        60,
    )
    assert shown.data["total"] == 1
    server.start()
    until(lambda: said[-1] == {"kind": "server", "words": ""}, 60)
    publish(2)
    until(lambda: shown.data["total"] == 2)
    shown.close()


def test_a_table_that_nobody_touches_is_left_alone(server, monkeypatch):
    monkeypatch.setattr(following, "PATIENCE", 0.3)
    publish(1)
    shown, _ = table()
    frozen = []
    shown.at_rest = lambda: frozen.append(shown.data["total"])
    until(lambda: frozen)
    assert frozen == [1]
    publish(2)
    time.sleep(0.5)
    assert shown.data["total"] == 1
    shown.close()
