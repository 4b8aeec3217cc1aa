"""Who did what, and the proof that nothing of it was altered, taken away or cut off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.local_server import SharedServer

import lmvp
from lmvp.cli import main
from lmvp_server.services import INDEXES
from lmvp_server.stores.base import Put
from lmvp_server.stores.local.records import TinyDbRecords


@pytest.fixture
def server(home, tmp_path, monkeypatch):
    server = SharedServer(tmp_path / "served")
    monkeypatch.setenv("LMVP_TOKEN", server.start())
    monkeypatch.setenv("LMVP_URL", server.url)
    for i in range(3):
        lmvp.update("digits/mlp", {"w": np.full(3, i)}, message=f"m{i}", create=True, progress=False)
    lmvp.alias("digits/mlp@v2", "production")
    yield server
    server.kill()


@pytest.fixture
def say(capsys):
    def run(*words, code=0):
        assert main(words) == code
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    return run


def test_it_is_filtered_and_written_out_whole(server, say):
    told = say("audit", "list", "digits")
    assert [line.split()[3] for line in told.splitlines()[1:] if line.startswith("20")] == [
        "alias.move", "version.create", "version.create", "version.create", "model.create",
    ]  # fmt: skip
    assert "version.create" not in say("audit", "list", "digits", "--action", "alias.")
    assert "no entries" in say("audit", "list", "digits", "--who", "nobody")
    assert "no entries" in say("audit", "list", "digits", "--until", "2020-01-01")
    assert "alias.move" in say("audit", "list", "digits", "--since", "2020-01-01", "--target", "digits/mlp@prod")
    lines = say("audit", "list", "digits", "--json", "--limit", "2").splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["alias.move", "version.create"]
    assert "project.create" in say("audit")
    assert "is no time" in say("audit", "--since", "yesterday", code=2)
    assert len(lmvp.Client().events("digits", action="version", limit=2)) == 2


def test_a_head_that_was_kept_proves_what_came_before_it(server, say, tmp_path):
    kept = tmp_path / "head"
    kept.write_text(say("audit", "head"))
    assert "digits" in kept.read_text()
    assert "no problem found" in say("fsck", "--head", str(kept))
    lmvp.update("digits/mlp", {"w": np.full(3, 9)}, progress=False)
    assert "no problem found" in say("fsck", "--head", str(kept)), "what came since does not matter"
    assert "no head" in say("fsck", "--head", str(Path(__file__)), code=2)
    (tmp_path / "empty").write_text("")
    assert "is empty" in say("fsck", "--head", str(tmp_path / "empty"), code=2)


def forge(records, folder, how):
    """Write the records of the project anew, with other events, as the server itself would."""
    old, new = TinyDbRecords(records, INDEXES), TinyDbRecords(folder, INDEXES)
    (space,) = [name for name in old.spaces() if name != "server"]
    events = [{key: value for key, value in each.items() if key not in ("seq", "chain")} for each in old.events(space)]
    if how == "altered":
        events[2]["who"] = "somebody else"
    else:
        events.pop()
    tables = old.snapshot(space).tables
    new.commit(space, [Put(name, each.id, each.data) for name, rows in tables.items() for each in rows], events)
    old.close(), new.close()
    for path in (records / "projects").glob(f"{space}.*"):
        path.unlink()
    for path in (folder / "projects").iterdir():
        shutil.copy(path, records / "projects")


@pytest.mark.parametrize("how", ["altered", "cut off"])
def test_a_log_that_was_written_anew_is_found_out(server, say, tmp_path, how):
    """Whoever owns the disk can write a whole new chain; only the head tells."""
    kept = tmp_path / "head"
    kept.write_text(say("audit", "head"))
    server.kill()
    forge(server.data / "records", tmp_path / "forged", how)
    server.start()
    assert "no problem found" in say("fsck"), "it hangs together"
    assert how in say("fsck", "--head", str(kept), code=9)


def test_a_project_that_was_removed_took_its_log_along(server, say, tmp_path):
    kept = tmp_path / "head"
    kept.write_text(say("audit", "head"))
    say("rm", "digits/", "--yes")
    assert "no problem found" in say("fsck", "--head", str(kept))
    assert "project.remove" in say("audit")
