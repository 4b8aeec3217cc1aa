"""A running server is copied to a folder, and a data folder is made of it: whole, proved, and whatever happens."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import requests
from support.faults import acting_at, full, killed_at
from support.in_process import Served

import lmvp
from lmvp import errors, local
from lmvp.archive import backup
from lmvp.archive.backup import _Run
from lmvp.archive.backup_folder import BackupFolder
from lmvp.archive.verification import FrameVerifier
from lmvp.cli import main
from lmvp.core.schemas import (
    Invite,
    MakeToken,
    NewUser,
    NewWebhook,
    WantedPieces,
)
from lmvp.core.schemas.runs import NewPoints, NewRun
from lmvp_server.restore import restore
from lmvp_server.services import Services
from lmvp_server.services import backups as service
from lmvp_server.services.access import Caller
from lmvp_server.services.webhook_allowlist import WebhookAllowlist

ADA = Caller("ada", is_operator=True, scope="admin")
RNG = np.random.default_rng(5)


def tree(rows=60):
    kinds = ("f4", "f2", "f4")  # one chunk each: neighbours of one dtype would share one
    return {f"w{i}": RNG.standard_normal((rows, 500)).astype(kind) for i, kind in enumerate(kinds)}


def tuned(weights):
    return {name: w + w.dtype.type(1e-4) * RNG.standard_normal(w.shape).astype(w.dtype) for name, w in weights.items()}


def fill(versions=3, rows=60):
    weights = tree(rows)
    for number in range(versions):
        lmvp.update("digits/mlp", weights, message=f"turn {number}", metrics={"loss": float("nan")})
        weights = tuned(weights)
    lmvp.update("other/cnn", {"w": np.arange(9)})
    lmvp.alias("digits/mlp@v1", "first")


@pytest.fixture
def server(home):
    """A server whose chunks are deltas, some of them."""
    fill()
    lmvp.Client().compact()
    lmvp.update("digits/mlp", tree())
    return lmvp.Client()


def picture(services):
    """Return all that a store holds, except how far it is encoded, which goes on when the server is idle.

    The last events are left out if they are of the backup or the restore itself, which a backup cannot hold, or of a
    collection after it.
    """
    found = {}
    for space in services.records.spaces():
        moment = services.records.snapshot(space)
        rows = {table: [row_of(table, row) for row in rows] for table, rows in moment.tables.items() if rows}
        events = list(moment.events())
        while events and events[-1]["action"] in {"backup.begin", "backup.end", "server.gc", "server.restore"}:
            events.pop()
        found[space] = rows, {k: seq for k, seq in moment.next_seq.items() if seq > 1}, events
    return found


def row_of(table, row):
    if table != "versions":
        return row.id, row.seq, row.rev, row.data
    return row.id, row.seq, {key: value for key, value in row.data.items() if key not in ("packed", "stored")}


def opened(folder):
    services = Services.open(folder)
    assert services.fsck.check(ADA, repair=False)["problems"] == []
    return services


def restored(backup, data):
    """Restore, and return what is there once it is proved."""
    assert restore(backup, data).problems == []
    services = opened(data)
    try:
        return picture(services)
    finally:
        services.close()


def original(home):
    """End the server, and return what it held."""
    local.stop(home)
    services = opened(home)
    try:
        return picture(services)
    finally:
        services.close()


def files_below(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip(path, at=-5):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_round_trip(server, home, tmp_path):
    done = server.back_up(tmp_path / "backup")
    assert (done.projects, done.versions, done.copied, done.kept) == (2, 5, done.chunks, 0)
    assert restored(tmp_path / "backup", tmp_path / "data") == original(home)
    assert not (tmp_path / "data/token").exists()
    assert not (tmp_path / "data/server.json").exists()
    secret = {path.name for path in (tmp_path / "backup").rglob("*")} & {"token", "server.json"}
    assert secret == set()
    assert (tmp_path / "backup").stat().st_mode & 0o77 == 0
    assert {path.stat().st_mode & 0o77 for path in (tmp_path / "backup").rglob("*.jsonl")} == {0}


def test_a_restored_folder_is_served(server, tmp_path, monkeypatch, capsys):
    before = [(version.reference, version.digest, version.aliases) for version in lmvp.show_history("digits/")]
    weights = lmvp.download("digits/mlp@first")
    server.back_up(tmp_path / "backup")
    assert main(["restore", str(tmp_path / "backup"), "--data", str(tmp_path / "data"), "--no-progress"]) == 0
    assert capsys.readouterr().out.startswith("2 projects, 5 versions, 15 chunks restored; serve them with: ")
    monkeypatch.setenv("LMVP_HOME", str(tmp_path / "data"))
    try:
        assert [(one.reference, one.digest, one.aliases) for one in lmvp.show_history("digits/")] == before
        assert all((lmvp.download("digits/mlp@first")[name] == w).all() for name, w in weights.items())
        assert lmvp.update("digits/mlp", tree()).number == 5
        lmvp.Client().remove("digits/mlp@v2", now=True)
        assert lmvp.Client().check().problems == ()
    finally:
        local.stop(tmp_path / "data")


def with_grants(folder):
    """Make a data folder with grants of each kind; return its services and the secrets of a token and a session."""
    services = Services.open(folder, shared=True, allowlist=WebhookAllowlist.parse(["127.0.0.1"]))
    services.catalog.create_project(ADA, "digits")
    services.users.add(ADA, NewUser(name="grace", password="correct horse battery"))
    services.members.set_member(ADA, "digits", "grace", "owner")
    token = services.tokens.create(ADA, MakeToken(name="ci", user="grace", scope="admin")).token
    services.tokens.create(ADA, MakeToken(name="operator"))
    session = services.sessions.begin("grace", "correct horse battery", "192.0.2.1")
    services.invitations.create(ADA, Invite(project="digits", role="viewer", days=30))
    services.webhooks.add(ADA, "digits", NewWebhook(url="http://127.0.0.1:9/"))
    return services, token, session


@pytest.mark.parametrize("words", [[], ["--keep-grants"]], ids=["default", "keep"])
def test_restore_ends_the_grants_of_the_backup_unless_they_are_kept(tmp_path, capsys, words):
    """A token is revoked after the backup, because it leaked: a restore must not let it work again unasked."""
    services, token, session = with_grants(tmp_path / "old")
    services.close()
    with Served(tmp_path / "old") as served:
        lmvp.Client(served.url, served.settings.token).back_up(tmp_path / "backup")
    assert main(["restore", str(tmp_path / "backup"), "--data", str(tmp_path / "new"), "--no-progress", *words]) == 0
    counts = "1 session, 2 tokens, 1 invitation, 1 webhook"
    done = "kept" if words else "ended"
    assert capsys.readouterr().err.startswith(f"the restore {done} the grants of the backup: {counts}\n")
    services = Services.open(tmp_path / "new", shared=True)
    try:
        found = services.tokens.caller(token, "x"), services.sessions.caller(session, "x")
        assert [one is not None for one in found] == [bool(words)] * 2
        [hook] = services.webhooks.of_project(ADA, "digits")["items"]
        assert hook.disabled is (not words)
        kept = [services.records.count("server", table) for table in ("tokens", "sessions", "invitations")]
        assert kept == ([2, 1, 1] if words else [0, 0, 0])
        [last] = services.records.events("server", newest_first=True, limit=1)
        numbers = {"sessions": 1, "tokens": 2, "invitations": 1, "webhooks": 1}
        assert (last["action"], last["after"][done]) == ("server.restore", numbers)
        assert services.sessions.begin("grace", "correct horse battery", "192.0.2.1")
        services.webhooks.enable(ADA, "digits", hook.id)
        assert not services.webhooks.of_project(ADA, "digits")["items"][0].disabled
    finally:
        services.close()


def test_restore_without_grants_tells_nothing_of_them(server, tmp_path, capsys):
    server.back_up(tmp_path / "backup")
    assert main(["restore", str(tmp_path / "backup"), "--data", str(tmp_path / "data"), "--no-progress"]) == 0
    assert "grants" not in capsys.readouterr().err


def test_the_next_backup_copies_only_what_is_new(server, tmp_path):
    folder = tmp_path / "backup"
    first = server.back_up(folder)
    before = files_below(folder / "chunks")
    again = server.back_up(folder)
    assert (again.copied, again.kept, again.written) == (0, first.chunks, 0)
    assert files_below(folder / "chunks") == before
    lmvp.update("digits/mlp", tree())
    third = server.back_up(folder, quick=True)
    assert (third.copied, third.kept) == (3, first.chunks)
    assert len(list((folder / "records").iterdir())) == 3


def test_what_the_server_removed_leaves_the_next_backup(server, home, tmp_path):
    folder = tmp_path / "backup"
    server.back_up(folder)
    before = sum(map(len, files_below(folder / "chunks").values()))
    server.remove("digits/mlp@v4", now=True)
    server.remove("other/", now=True, yes=True)
    done = server.back_up(folder)
    assert done.projects == 1
    assert sum(map(len, files_below(folder / "chunks").values())) < before
    assert len(list((folder / "manifests").glob("*/*/*"))) == done.versions == 3
    assert restored(folder, tmp_path / "data") == original(home)


def test_a_backup_follows_what_was_encoded_anew(home, tmp_path):
    """Frames of different days lean on one another rightly, whatever was raw when, and what was removed between."""
    weights = tree()
    client = lmvp.Client()
    for turn in range(6):
        lmvp.update("digits/mlp", weights)
        weights = tuned(weights)
        if turn % 2:
            client.compact()
        if turn in (3, 4):
            client.remove(f"digits/mlp@v{turn - 1}", now=True)
        client.back_up(tmp_path / "backup", quick=bool(turn % 3))
        data = tmp_path / f"data{turn}"
        restored(tmp_path / "backup", data)
        shutil.rmtree(data)
    assert restored(tmp_path / "backup", tmp_path / "data") == original(home)


@pytest.mark.parametrize("kind", ["chunks", "manifests", "notes"])
def test_a_flipped_bit_is_found_by_the_restore_and_healed_by_the_next_backup(server, home, tmp_path, kind):
    folder = tmp_path / "backup"
    server.back_up(folder)
    path = next(path for path in sorted((folder / kind).rglob("*")) if path.is_file())
    flip(path)
    with pytest.raises(errors.IntegrityError) as raised:
        restore(folder, tmp_path / "data")
    assert str(path) in raised.value.message
    assert "--keep-going" in raised.value.hint
    with pytest.raises(errors.Conflict, match="broke off"):
        local_open(tmp_path / "data")
    server.back_up(folder)
    assert restored(folder, tmp_path / "data") == original(home)


def local_open(data):
    from lmvp_server.data_folder import DataFolder

    DataFolder.open(data, patience=0).close()


@pytest.mark.parametrize("name", ["backup.json", "format.json", "records/server"])
def test_flipped_bits_in_what_is_said_of_a_backup(server, tmp_path, name):
    folder = tmp_path / "backup"
    server.back_up(folder)
    path = folder / name if name.endswith("json") else next((folder / "records").glob("server.*"))
    good = path.read_bytes()
    for at in range(0, len(good), max(1, len(good) // 40)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises((errors.DamagedFile, errors.Conflict, errors.ServerMismatch)) as raised:
            restore(folder, tmp_path / "data")
        assert path.name in raised.value.message or name == "format.json"
        shutil.rmtree(tmp_path / "data", ignore_errors=True)


def test_going_on_without_what_is_damaged(server, tmp_path, capsys):
    folder = tmp_path / "backup"
    server.back_up(folder)
    path = max((folder / "chunks").rglob("*"), key=lambda path: path.stat().st_size)
    path.unlink()
    words = ["restore", str(folder), "--data", str(tmp_path / "data"), "--no-progress"]
    assert main(words) == 9
    assert str(path) in capsys.readouterr().err
    assert main([*words, "--keep-going"]) == 9
    assert "lmvp fsck" in capsys.readouterr().err
    services = Services.open(tmp_path / "data")
    problems = services.fsck.check(ADA, repair=False)["problems"]
    services.close()
    assert problems
    assert all("chunk" in problem.what for problem in problems)


def test_a_chunk_that_is_damaged_on_the_server(server, home, tmp_path):
    path = max((home / "chunks").rglob("*"), key=lambda path: path.stat().st_size)
    good = path.read_bytes()
    flip(path)
    with pytest.raises(errors.IntegrityError, match="damaged or gone on the server"):
        server.back_up(tmp_path / "backup")
    path.write_bytes(good)
    assert server.back_up(tmp_path / "backup").copied >= 1
    flip(path)
    assert server.back_up(tmp_path / "backup").copied == 0  # what the backup has already is none the worse for it
    path.write_bytes(good)
    assert restored(tmp_path / "backup", tmp_path / "data") == original(home)


def test_a_manifest_that_is_gone_on_the_server(server, home, tmp_path):
    digest = server.version("digits/mlp@v2").digest
    (home / "manifests" / server.projects()[0].id / digest[:2] / digest[2:]).unlink()
    with pytest.raises(errors.IntegrityError, match=f"1 chunks or manifests .*{digest[:12]} of digits"):
        server.back_up(tmp_path / "backup")
    with pytest.raises(errors.IntegrityError, match=digest[2:]):
        restore(tmp_path / "backup", tmp_path / "data")
    assert restore(tmp_path / "backup", tmp_path / "data", keep_going=True).versions == 5
    services = Services.open(tmp_path / "data")
    problems = services.fsck.check(ADA, repair=False)["problems"]
    services.close()
    assert [problem.kind for problem in problems] == ["manifest"]


# -- kills


@pytest.mark.server_process
def test_the_server_is_killed_at_any_point_of_a_backup(home, tmp_path):
    fill(4)
    point, killed = 0, True
    while killed:
        point += 2
        folder, calls, killed = tmp_path / f"backup{point}", [], False

        def tell(done, total, calls=calls, point=point):
            calls.append(done)
            if len(calls) == point:
                os.kill(local.find(home).pid, signal.SIGKILL)

        done = lmvp.Client().back_up(folder, progress=tell)
        killed = len(calls) > point
        assert done.chunks == 15
    assert point > 8
    assert restored(folder, tmp_path / "data") == original(home)
    assert restored(tmp_path / "backup2", tmp_path / "data2") == restored(folder, tmp_path / "data3")


@pytest.mark.server_process
def test_a_backup_is_killed_before_every_third_step(home, tmp_path):
    fill(2, rows=10)
    lmvp.Client().back_up(tmp_path / "first")
    lmvp.update("digits/mlp", tree(10))
    number, killed, first = -2, True, tmp_path / "first"
    expected = restored(first, tmp_path / "expected")
    while killed:
        number += 3
        folder = tmp_path / "backup"
        shutil.copytree(first, folder)
        killed, _ = killed_at(number, lambda _, folder=folder: lmvp.Client().back_up(folder, quick=True))
        if number % 4 == 1:  # the one before counts until the new one does, at every moment
            assert restored(folder, tmp_path / f"old{number}") in (expected, last(home, tmp_path))
            shutil.rmtree(tmp_path / f"old{number}")
        done = lmvp.Client().back_up(folder)
        assert (done.versions, done.chunks) == (4, 12)
        proofs = [FrameVerifier(BackupFolder(folder), space.name) for space in (folder / "chunks").iterdir()]
        assert sum(len(list(map(p.verify, keys(folder, p)))) for p in proofs) == 12
        if killed:
            shutil.rmtree(folder)
    assert number > 20
    assert restored(folder, tmp_path / "data") == original(home)


def keys(folder, proofs):
    return [key for key, _ in BackupFolder(folder).pieces("chunks", proofs._space)]


_LAST = {}


def last(home, tmp_path):
    """Return what a backup of now restores to."""
    if home not in _LAST:
        lmvp.Client().back_up(tmp_path / "now")
        _LAST[home] = restored(tmp_path / "now", tmp_path / "now data")
    return _LAST[home]


@pytest.mark.server_process
def test_a_restore_is_killed_before_every_third_step(home, tmp_path):
    first = {"w": RNG.standard_normal((10, 500)).astype("f4")}
    for weights in (first, tuned(first)):
        lmvp.update("d/m", weights)
    lmvp.Client().compact()
    lmvp.Client().back_up(tmp_path / "backup")
    expected = original(home)
    number, killed, data = -2, True, tmp_path / "data"
    while killed:
        number += 3
        killed, _ = killed_at(number, lambda _: restore(tmp_path / "backup", data))
        if killed and (data / "restoring.json").exists():
            with pytest.raises(errors.Conflict, match="broke off"):
                local_open(data)
        assert whole(tmp_path / "backup", data) == expected
        shutil.rmtree(data)
    assert number > 50


def whole(backup, data):
    """Go on with a restore if it is not through, and return what is there."""
    if not (data / "format.json").exists() or (data / "restoring.json").exists():
        return restored(backup, data)
    services = opened(data)
    try:
        return picture(services)
    finally:
        services.close()


# -- full disks


@pytest.mark.server_process
def test_a_disk_that_is_full_at_every_write_of_a_backup(home, tmp_path):
    fill(1, rows=10)
    client, number, folder, done = lmvp.Client(), 0, tmp_path / "backup", [0]
    while len(done) >= number:
        number += 1
        with acting_at(number, full, ("write",)) as done:
            try:
                client.back_up(folder)
            except errors.StorageFull as error:
                assert str(folder) in error.message  # noqa: PT017 - the last round has none
        if number % 3:
            shutil.rmtree(folder)
    assert number > 8
    client.back_up(folder)
    assert restored(folder, tmp_path / "data") == original(home)


@pytest.mark.server_process
def test_a_disk_that_is_full_at_every_write_of_a_restore(home, tmp_path):
    lmvp.update("d/m", {"w": np.arange(300)})
    lmvp.Client().back_up(tmp_path / "backup")
    expected, number, done, failed = original(home), 0, [0], 0
    while len(done) >= number:
        number += 1
        data = tmp_path / f"data{number}"
        with acting_at(number, full, ("write",)) as done:
            try:
                restore(tmp_path / "backup", data)
            except errors.StorageFull as error:
                assert str(data) in error.message  # noqa: PT017 - the last round has none
                failed += 1
        assert whole(tmp_path / "backup", data) == expected
        shutil.rmtree(data)
    assert failed > 8


@pytest.mark.parametrize("name", ["out", "out.tar"])
@pytest.mark.server_process
def test_a_disk_that_is_full_at_every_write_of_an_export(home, tmp_path, name):
    fill(2, rows=10)
    number, done, path = 0, [0], tmp_path / "exports" / name
    while len(done) >= number:
        number += 1
        with acting_at(number, full, ("write", "pwrite")) as done:
            try:
                lmvp.export_model("digits/mlp", path)
            except errors.StorageFull as error:
                assert "exports" in error.message  # noqa: PT017 - the last round has none
                assert name == "out" or list(path.parent.iterdir()) == []
    assert number > 4
    assert lmvp.import_model(path, "x/y").versions == 2


# -- while others work


@pytest.mark.server_process
def test_a_backup_while_pushes_removals_and_collections_go_on(home, tmp_path):
    fill(2)
    stop, failures, pushed = threading.Event(), [], []

    def work(what):
        try:
            while not stop.is_set():
                what()
        except Exception as error:
            failures.append(error)

    def push():
        version = lmvp.update("digits/mlp", tuned(tree()), progress=False)
        pushed.append(version.number)
        if version.number % 3 == 0:
            lmvp.Client().remove(f"digits/mlp@v{version.number - 1}", now=True)

    def keep_house():
        lmvp.Client().collect_garbage()
        lmvp.Client().compact()

    def come_and_go():
        lmvp.update("brief/m", {"w": np.arange(50)}, progress=False)
        lmvp.Client().remove("brief/", now=True, yes=True)

    threads = [threading.Thread(target=work, args=(what,)) for what in (push, keep_house, come_and_go)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(3):
            lmvp.Client().back_up(tmp_path / "backup", quick=turn % 2 == 1, progress=False)
            pushed_before = len(pushed)
            found = restored(tmp_path / "backup", tmp_path / f"data{turn}")
            numbers = [data["number"] for rows, *_ in found.values() for *_, data in rows.get("versions", ())]
            assert len(numbers) >= 3
            shutil.rmtree(tmp_path / f"data{turn}")
            while len(pushed) <= pushed_before and not failures:
                stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    lmvp.Client().back_up(tmp_path / "backup")
    lmvp.Client().collect_garbage()
    assert restored(tmp_path / "backup", tmp_path / "data") == original(home)


def test_two_backups_to_one_folder(server, tmp_path):
    folder = tmp_path / "backup"
    tried = []

    def tell(done, total):
        if not tried:
            tried.append(True)
            with pytest.raises(errors.Conflict, match="another backup to"):
                lmvp.Client().back_up(folder)

    server.back_up(folder, progress=tell)
    assert tried


# -- mistakes


@pytest.fixture
def typed(server, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    server.back_up(tmp_path / "backup")

    def type_(*words):
        code = main(words)
        found = capsys.readouterr()
        return code, found.out.strip() + found.err.strip()

    return type_


def test_the_verb(typed):
    code, said = typed("backup", "other", "--no-progress")
    assert code == 0
    assert said.startswith("2 projects, 5 versions, 15 chunks in other; 15 copied, ")
    assert "; 0 copied, 0 B written" in typed("backup", "other", "--quick", "--no-progress")[1]


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["backup", "full"], 4, "is not a backup"),
        (["backup", "home"], 4, "something else of LMVP's"),
        (["backup", "file"], 6, "cannot write to file"),
        (["backup", "/proc/none"], 6, "cannot write"),
        (["restore", "nowhere", "--data", "new"], 3, "there is no folder nowhere"),
        (["restore", "full", "--data", "new"], 4, "is not a backup"),
        (["restore", "home", "--data", "new"], 4, "is not a backup"),
        (["restore", "backup", "--data", "full"], 4, "there is something already"),
        (["restore", "backup", "--data", "home"], 4, "there is something already"),
        (["restore", "backup", "--data", "backup/new"], 2, "lies in the backup itself"),
        (["restore", "backup", "--data", "file"], 2, "is not a folder"),
    ],
)
def test_bad_arguments(typed, words, code, part):
    before = files_below(Path("full")), files_below(Path("backup")).keys()
    found, said = typed(*words)
    assert found == code, said
    assert part in said
    assert "Traceback" not in said
    assert (files_below(Path("full")), files_below(Path("backup")).keys()) == before
    assert not Path("new").exists()


def test_a_newer_format_is_refused_by_name(server, tmp_path):
    server.back_up(tmp_path / "backup")
    (tmp_path / "backup/format.json").write_text('{"kind": "lmvp backup", "format": 2}')
    for work in (server.back_up, lambda folder: restore(folder, tmp_path / "data")):
        with pytest.raises(errors.ServerMismatch, match="has format 2; this side reads 1"):
            work(tmp_path / "backup")


def test_an_unfinished_backup_is_not_restored(server, tmp_path):
    server.back_up(tmp_path / "backup")
    (tmp_path / "backup/backup.json").unlink()
    with pytest.raises(errors.NotFound, match="was finished"):
        restore(tmp_path / "backup", tmp_path / "data")


def sealed(folder, change):
    """Change `backup.json` as an enemy would: with the right digest."""
    index = BackupFolder(folder).index()
    evil = msgspec.structs.replace(index, spaces=change(index.spaces)).sealed()
    (folder / "backup.json").write_bytes(msgspec.json.encode(evil))


def test_a_hostile_backup_stays_in_its_folder(server, tmp_path):
    server.back_up(tmp_path / "backup")
    good = (tmp_path / "backup/backup.json").read_bytes()
    for fields in ({"space": "../../evil"}, {"file": "../backup.json"}, {"digest": "0" * 64}, {"space": "a/b"}):
        (tmp_path / "backup/backup.json").write_bytes(good)

        def change(spaces, fields=fields):
            return (*spaces[:-1], msgspec.structs.replace(spaces[-1], **fields))

        sealed(tmp_path / "backup", change)
        with pytest.raises(errors.DamagedFile):
            restore(tmp_path / "backup", tmp_path / "data")
    assert not list(tmp_path.glob("**/evil*"))


# -- the routes


def ask(method, path, body=None, token=None):
    found = local.connection()
    headers = {"Authorization": f"Bearer {found.token if token is None else token}"}
    return requests.request(method, f"{found.url}/api/v1{path}", json=body, headers=headers, timeout=30)


def test_the_routes_refuse_what_makes_no_sense(server):
    about = ask("POST", "/backups", {}).json()
    at, space = f"/backups/{about['id']}", about["spaces"][1]["space"]
    assert ask("GET", at).json()["id"] == about["id"]
    for method, path, body, status in [
        ("GET", "/backups/none", None, 404),
        ("GET", f"{at}/records/none", None, 404),
        ("POST", f"{at}/tokens/{space}", {"want": []}, 404),
        ("POST", f"{at}/chunks/..%2f..", {"want": ["a"]}, 404),
        ("POST", f"{at}/chunks/{space}", {"want": 3}, 400),
        ("POST", f"{at}/chunks/{space}", {"have": []}, 400),
        *(("POST", f"{at}/{kind}/{space}", {"want": ["0" * 64] * 2}, 400) for kind in ("chunks", "manifests", "notes")),
        ("POST", f"{at}/series/{space}", {"want": ["0" * 32, "1" * 32, "0" * 32]}, 400),
    ]:
        answer = ask(method, path, body)
        assert answer.status_code == status, (method, path, answer.text)
    repeated = ask("POST", f"{at}/chunks/{space}", {"want": ["a"] * 3 + ["b"] * 2}).json()["error"]
    assert repeated["message"] == "`want` names 'a' 3 times"
    nothing = ask("POST", f"{at}/chunks/{space}", {"want": ["../../../token", "0" * 64]})
    assert (nothing.status_code, nothing.content) == (200, bytes(8))
    assert ask("DELETE", at).status_code == 204
    assert ask("DELETE", at).status_code == 204
    assert ask("GET", at).status_code == 404
    assert ask("POST", "/backups", {}, token="wrong").status_code == 401


def test_the_records_are_plain_lines(server, tmp_path):
    server.back_up(tmp_path / "backup")
    [path] = (tmp_path / "backup/records").glob("server.*")
    head, *rest = [json.loads(line) for line in path.read_text().splitlines()]
    assert (head["kind"], head["format"], head["space"]) == ("lmvp records", 1, "server")
    assert {line["data"]["name"] for line in rest if line.get("table") == "projects"} == {"digits", "other"}
    assert set(rest[-1]) == {"digest"}


@pytest.mark.server_process
def test_one_of_each_is_said_in_the_singular(home, tmp_path, capsys):
    lmvp.update("d/m", {"w": np.zeros(3)})
    main(["backup", str(tmp_path / "backup"), "--no-progress"])
    capsys.readouterr()
    assert main(["restore", str(tmp_path / "backup"), "--data", str(tmp_path / "data"), "--no-progress"]) == 0
    assert capsys.readouterr().out.startswith("1 project, 1 version, 2 chunks restored; ")


@pytest.mark.server_process
def test_the_points_of_runs_are_backed_up_and_restored(home, tmp_path):
    with lmvp.start_run("digits", name="kept", params={"lr": 0.1}, system_metrics=False) as run:
        run.log_batch(range(5000), {"loss": np.arange(5000) / 7})
    lmvp.Client().back_up(tmp_path / "copy")
    with lmvp.start_run("digits", resume=run, system_metrics=False) as more:
        more.log({"loss": -1.0})
    backed = lmvp.Client().back_up(tmp_path / "copy")
    assert backed.projects == 1
    assert len(list((tmp_path / "copy" / "series").glob("*/*/*"))) == 1, "what the backup before needed is gone"
    restore(tmp_path / "copy", tmp_path / "again")
    services = Services.open(tmp_path / "again")
    found = services.runs.run(ADA, "digits", "kept")
    (space,) = services.series.projects()
    points = [value for part in services.series.read(space, run.id, "loss") for value in part.values.tolist()]
    services.close()
    assert (found["status"], found["params"]) == ("finished", {"lr": 0.1})
    assert points == [*(np.arange(5000) / 7).tolist(), -1.0]


def noisy_run(name="long", points=600_000):
    """Log a run whose points do not compress, and return its id and values."""
    values = RNG.standard_normal(points)
    with lmvp.start_run("digits", name=name, system_metrics=False) as run:
        for start in range(0, points, 100_000):
            run.log_batch(range(start, start + 100_000), {"loss": values[start : start + 100_000]})
    return run.id, values


def restored_values(backup, folder, run):
    restore(backup, folder)
    services = Services.open(folder)
    try:
        (space,) = services.series.projects()
        return np.concatenate([part.values for part in services.series.read(space, run, "loss")])
    finally:
        services.close()


@pytest.mark.server_process
def test_series_longer_than_a_piece_is_backed_up_and_restored(home, tmp_path, monkeypatch):
    """A run of 10 million points has more than 64 MiB, the limit of a piece; here the limit is 2 MiB."""
    monkeypatch.setattr(backup, "PIECE_LIMIT", 2 << 20)
    run, values = noisy_run()
    lmvp.Client().back_up(tmp_path / "copy")
    [kept] = (tmp_path / "copy" / "series").glob("*/*/*")
    assert kept.stat().st_size > 2 * backup.PIECE_LIMIT
    assert (restored_values(tmp_path / "copy", tmp_path / "again", run) == values).all()


@pytest.mark.server_process
def test_backup_of_a_server_that_sends_a_series_as_one_piece(home, tmp_path, monkeypatch):
    """A server of an earlier release has no route for a series by itself."""
    run, values = noisy_run(points=100_000)
    asking = _Run._asking

    def without_the_route(self, method, path, body):
        return asking(self, method, f"no/such/{path}" if method == "GET" and path.startswith("series/") else path, body)

    monkeypatch.setattr(_Run, "_asking", without_the_route)
    lmvp.Client().back_up(tmp_path / "copy")
    assert (restored_values(tmp_path / "copy", tmp_path / "again", run) == values).all()


def test_series_too_long_for_one_piece_is_refused_to_old_clients(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "PIECE_LIMIT", 100)
    services = Services.open(tmp_path / "data")
    try:
        services.catalog.create_project(ADA, "digits")
        home = services.catalog.find_project(ADA, "digits")
        services.runs.begin(ADA, home, NewRun(run="a" * 32))
        for step in range(20):
            services.metrics.add(ADA, "digits", "a" * 32, NewPoints(values={"loss": 0.5}, step=step))
        about = services.backups.begin(ADA)
        with pytest.raises(errors.TooLarge, match=r"the points of run a{32} have [0-9,]+ bytes"):
            services.backups.pieces(ADA, about.id, home.id, "series", WantedPieces(want=("a" * 32,)))
        assert b"".join(services.backups.series(ADA, about.id, home.id, "a" * 32))
    finally:
        services.close()


def test_damaged_series_of_the_server_is_named_and_its_earlier_copy_kept(tmp_path):
    """The backup used to hold no points of such a run, and said nothing."""
    run = "a" * 32
    with Served(tmp_path / "data") as served:
        services = served.services
        services.catalog.create_project(ADA, "digits")
        home = services.catalog.find_project(ADA, "digits")
        services.runs.begin(ADA, home, NewRun(run=run))
        services.metrics.add(ADA, "digits", run, NewPoints(values={"loss": 0.5}, step=0))
        client = lmvp.Client(served.url, served.settings.token)
        client.back_up(tmp_path / "copy")
        services.metrics.add(ADA, "digits", run, NewPoints(values={"loss": 0.25}, step=1))
        services.series.settle(home.id, run)
        state = tmp_path / "data" / "series" / home.id / run / "series"
        state.write_bytes(state.read_bytes()[:-1] + b"?")
        with pytest.raises(errors.IntegrityError, match=r"the points of 1 run are damaged on the server \(aaaaaaaa of"):
            client.back_up(tmp_path / "copy")
    assert restored_values(tmp_path / "copy", tmp_path / "again", run).tolist() == [0.5]


@pytest.mark.server_process
def test_damaged_points_in_a_backup_are_named(home, tmp_path):
    with lmvp.start_run("digits", name="kept", system_metrics=False) as run:
        run.log({"loss": 1.0})
    lmvp.Client().back_up(tmp_path / "copy")
    (piece,) = (tmp_path / "copy" / "series").glob("*/*/*")
    data = bytearray(piece.read_bytes())
    data[len(data) // 2] ^= 1
    piece.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match="series"):
        restore(tmp_path / "copy", tmp_path / "again")


@pytest.mark.server_process
def test_note_that_is_gone_on_the_server_stays_in_the_backup(server, home, tmp_path):
    folder = tmp_path / "backup"
    server.back_up(folder)
    kept = files_below(folder / "notes")
    assert kept
    for path in (home / "notes").rglob("*"):
        if path.is_file():
            path.unlink()
    server.back_up(folder)
    assert files_below(folder / "notes") == kept


@pytest.mark.server_process
def test_chunks_stay_in_the_backup_while_a_manifest_is_damaged_on_both_sides(server, home, tmp_path):
    """Nobody knows which chunks the version needs, until the manifest is mended."""
    folder = tmp_path / "backup"
    server.back_up(folder)
    kept = files_below(folder / "chunks")
    path = next(path for path in sorted((home / "manifests").rglob("*")) if path.is_file())
    sound = path.read_bytes()
    flip(path)
    flip(folder / path.relative_to(home))
    with pytest.raises(errors.IntegrityError, match="1 chunks or manifests are damaged or gone on the server"):
        server.back_up(folder)
    assert files_below(folder / "chunks") == kept
    path.write_bytes(sound)
    server.back_up(folder)
    assert files_below(folder / "chunks") == kept
    assert restored(folder, tmp_path / "data") == original(home)
