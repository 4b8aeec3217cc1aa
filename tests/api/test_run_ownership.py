"""Runs, pushes and backups belong to accounts: other contributors cannot change them."""

import secrets
import struct

import msgspec
import pytest
from support.in_process import Served
from support.runs_over_http import begin, losses

from lmvp.core import chunk_frames, digest
from lmvp.core.chunk_frames import Frame
from lmvp.core.run_frames import END, UPDATE, note
from lmvp_server.stores.base import Put

ENDED = {"status": "finished", "ended_at": "2026-11-26T20:00:00Z"}
WRITER = "a" * 32


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("owners") / "data") as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        assert served("POST", "/projects/p/models", json={"name": "m"}).ok
        yield served


@pytest.fixture(scope="module")
def tokens(served):
    roles = {"ada": "contributor", "grace": "contributor", "maintainer": "maintainer"}
    return {name: served.user(name, role)["token"] for name, role in roles.items()}


def start(served, token):
    run = secrets.token_hex(16)
    assert served("POST", "/projects/p/runs", token, json={"run": run}).status_code == 201
    return run


def write(served, token, run, data, offset=0):
    return served("PUT", f"/projects/p/runs/{run}/writers/{WRITER}?from={offset}", token, data=data)


CHANGES = {
    "amend": lambda served, token, run: served("PATCH", f"/projects/p/runs/{run}", token, json={"tags": {"a": "b"}}),
    "end": lambda served, token, run: served("POST", f"/projects/p/runs/{run}/end", token, json=ENDED),
    "points": lambda served, token, run: served(
        "POST", f"/projects/p/runs/{run}/metrics", token, json={"values": {"x": 1.0}}
    ),
    "journal": lambda served, token, run: write(served, token, run, begin(run) + losses([1.0])),
    "journal of a rank": lambda served, token, run: write(served, token, run, begin(run, joins=True) + losses([1.0])),
    "journal that ends it": lambda served, token, run: write(
        served, token, run, begin(run, joins=True) + note(END, msgspec.json.encode(ENDED))
    ),
    "sign of life": lambda served, token, run: write(served, token, run, b""),
    "start again": lambda served, token, run: served("POST", "/projects/p/runs", token, json={"run": run}),
    "resume": lambda served, token, run: served(
        "POST", "/projects/p/runs", token, json={"run": run, "resume": True, "epoch": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_run_is_changed_by_its_author_and_maintainers_alone(served, tokens, change):
    run = start(served, tokens["ada"])
    before = served("GET", f"/projects/p/runs/{run}").json()
    refused = CHANGES[change](served, tokens["grace"], run)
    assert refused.status_code == 403
    assert refused.json()["error"]["message"].endswith("belongs to ada")
    after = served("GET", f"/projects/p/runs/{run}").json()
    for unsteady in ("duration", "seen_at"):
        before.pop(unsteady), after.pop(unsteady)
    assert after == before
    assert CHANGES[change](served, tokens["ada"], run).ok
    other = start(served, tokens["ada"])
    assert CHANGES[change](served, tokens["maintainer"], other).ok


DATA = b"of a version"
CHUNK = digest.of_bytes(DATA)


def pushing(run, **fields):
    file = {"path": "w", "size": len(DATA), "digest": CHUNK, "chunks": [[CHUNK, len(DATA)]]}
    manifest = {"lmvp": 1, "format": "files", "meta": {}, "files": [file], "tensors": [], "parents": []}
    return {"push": secrets.token_hex(16), "manifest": manifest, "run": run, "message": secrets.token_hex(4), **fields}


def push_at_once(served, token, body):
    data = msgspec.json.encode(body)
    frame = chunk_frames.header(Frame(CHUNK, len(DATA), len(DATA))) + DATA
    sent = struct.pack("<I", len(data)) + data + frame
    headers = {"Content-Type": "application/x-lmvp-frames"}
    return served("POST", "/projects/p/models/m/versions", token, data=sent, headers=headers)


def push_staged(served, token, body):
    begun = served("POST", "/projects/p/models/m/pushes", token, json=body)
    if not begun.ok:
        return begun
    frame = chunk_frames.header(Frame(CHUNK, len(DATA), len(DATA))) + DATA
    path = f"/projects/p/models/m/pushes/{body['push']}"
    assert served("PUT", f"{path}/chunks", token, data=frame).ok
    return served("POST", f"{path}/commit", token)


@pytest.mark.parametrize("push", [push_at_once, push_staged])
def test_version_names_a_run_that_its_pusher_may_change(served, tokens, push):
    run = start(served, tokens["ada"])
    refused = push(served, tokens["grace"], pushing(run, propose=True))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "access_denied")
    assert refused.json()["error"]["message"].endswith("belongs to ada")
    assert push(served, tokens["ada"], pushing(run, propose=True)).json()["run"] == run
    assert push(served, tokens["maintainer"], pushing(run)).json()["run"] == run
    unsent = secrets.token_hex(16)
    assert push(served, tokens["grace"], pushing(unsent, propose=True)).json()["run"] == unsent


def test_version_names_no_run_of_another_project(served, tokens):
    served("POST", "/projects", json={"name": "elsewhere"})
    run = secrets.token_hex(16)
    assert served("POST", "/projects/elsewhere/runs", json={"run": run}).ok
    for push in (push_at_once, push_staged):
        refused = push(served, tokens["maintainer"], pushing(run))
        assert refused.status_code == 404
        assert refused.json()["error"]["message"] == f"no run {run} in project 'p'"


def test_commit_checks_a_run_that_began_after_the_push(served, tokens):
    run = secrets.token_hex(16)
    body = pushing(run, propose=True)
    begun = served("POST", "/projects/p/models/m/pushes", tokens["grace"], json=body)
    assert begun.ok
    if begun.json()["missing"]:
        frame = chunk_frames.header(Frame(CHUNK, len(DATA), len(DATA))) + DATA
        assert served("PUT", f"/projects/p/models/m/pushes/{body['push']}/chunks", tokens["grace"], data=frame).ok
    assert served("POST", "/projects/p/runs", tokens["ada"], json={"run": run}).ok
    assert served("POST", f"/projects/p/models/m/pushes/{body['push']}/commit", tokens["grace"]).status_code == 403


def test_journal_is_refused_in_the_middle(served, tokens):
    run = secrets.token_hex(16)
    data = begin(run) + losses([1.0])
    assert write(served, tokens["ada"], run, data).ok
    more = note(UPDATE, msgspec.json.encode({"tags": {"taken": "over"}}))
    assert write(served, tokens["grace"], run, more, len(data)).status_code == 403
    assert write(served, tokens["ada"], run, more, len(data)).ok


def test_run_belongs_to_the_account_and_not_to_its_name(served, tokens):
    """The server's own token may name any author; that makes the run nobody else's."""
    run = secrets.token_hex(16)
    assert served("POST", "/projects/p/runs", json={"run": run, "author": "grace"}).ok
    assert served("GET", f"/projects/p/runs/{run}").json()["author"] == "grace"
    assert CHANGES["end"](served, tokens["grace"], run).status_code == 403
    assert "by" not in served("GET", f"/projects/p/runs/{run}").json()


def test_run_of_an_earlier_version_belongs_to_the_name_of_its_author(served, tokens):
    run = start(served, tokens["ada"])
    records = served.services.records
    space = records.find("server", "projects", {"key": "p"})[0].id
    found = records.get(space, "runs", run)
    data = {key: value for key, value in found.data.items() if key != "by"}
    records.commit(space, [Put("runs", run, data, expect=found.rev)])
    assert CHANGES["end"](served, tokens["grace"], run).status_code == 403
    assert CHANGES["end"](served, tokens["ada"], run).ok


def test_author_without_the_role_cannot_change_a_run(served):
    token = served.user("former", "contributor")["token"]
    run = start(served, token)
    assert served("PUT", "/projects/p/members/former", json={"role": "viewer"}).ok
    assert CHANGES["points"](served, token, run).status_code == 403


def test_run_page_offers_the_end_to_those_who_may_end_it(served, tokens):
    run = start(served, tokens["ada"])
    for name, offered in (("ada", True), ("grace", False), ("maintainer", True)):
        page = served("GET", f"~/p/p/-/runs/{run}", tokens[name]).text
        assert ('value="end"' in page) is offered, name


def a_push(push):
    chunk = digest.of_bytes(b"x")
    file = {"path": "x.txt", "size": 1, "digest": digest.of_chunks([chunk]), "chunks": [[chunk, 1]]}
    manifest = {"files": [file], "format": "files", "lmvp": 1, "meta": {}, "parents": [], "tensors": []}
    return {"push": push, "manifest": manifest, "propose": True}


@pytest.mark.parametrize("restarted", [False, True])
def test_open_push_is_of_its_author_alone(served, tokens, restarted):
    push = secrets.token_hex(16)
    pushes = "/projects/p/models/m/pushes"
    assert served("POST", pushes, tokens["ada"], json=a_push(push)).ok
    if restarted:  # it is read from the disk again
        served.services.pushes._open.clear()
    for method, path in (("GET", ""), ("PUT", "/chunks"), ("POST", "/commit")):
        assert served(method, f"{pushes}/{push}{path}", tokens["grace"]).status_code == 404
        assert served(method, f"{pushes}/{push}{path}", tokens["maintainer"]).status_code == 404
    assert served("POST", pushes, tokens["grace"], json=a_push(push)).status_code == 409
    assert served("GET", f"{pushes}/{push}", tokens["ada"]).ok


def test_push_that_an_earlier_version_staged_goes_on(served, tokens):
    push, body = secrets.token_hex(16), None
    body = a_push(push)
    assert served("POST", "/projects/p/models/m/pushes", tokens["ada"], json=body).ok
    space = served.services.records.find("server", "projects", {"key": "p"})[0].id
    served.services.chunks.stage(space, push, msgspec.json.encode(body))
    served.services.pushes._open.clear()
    assert served("GET", f"/projects/p/models/m/pushes/{push}", tokens["ada"]).ok
    assert served("POST", "/gc", json={}).json().get("result")


def test_backup_is_read_and_ended_by_the_admin_who_began_it(served):
    first, second = (served.user(name, admin=True)["token"] for name in ("first", "second"))
    backup = served("POST", "/backups", first).json()["id"]
    for method, path, body in (("GET", "", None), ("DELETE", "", None), ("GET", "/records/server", None),
                               ("POST", "/chunks/server", {"want": []})):  # fmt: skip
        assert served(method, f"/backups/{backup}{path}", second, json=body).status_code == 404, path
    assert served("GET", f"/backups/{backup}", first).ok
    assert served("DELETE", f"/backups/{backup}", first).status_code == 204


def test_contribution_is_withdrawn_by_its_author_alone(served, tokens):
    import struct

    from lmvp.core import chunk_frames
    from lmvp.core.chunk_frames import Frame

    head = msgspec.json.encode(a_push(secrets.token_hex(16)))
    body = struct.pack("<I", len(head)) + head + chunk_frames.header(Frame(digest.of_bytes(b"x"), 1, 1)) + b"x"
    assert served("POST", "/projects/p/models/m/versions", tokens["ada"], data=body).ok
    path = "/projects/p/models/m/contributions/c1/withdraw"
    assert served("POST", path, tokens["grace"]).status_code == 403
    assert served("POST", path, tokens["ada"]).ok
