"""Files of mode 0600 and folders of mode 0700 in all that LMVP keeps, whatever the umask and whatever was there."""

import os
import secrets
import stat
from pathlib import Path

import numpy as np
import pytest
import requests
from support.runs_over_http import begin, losses

import lmvp
from lmvp import errors, local
from lmvp.client.models import Client
from lmvp.core import files
from lmvp_server.restore import restore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")

OTHERS = 0o077


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def loose(root):
    """Return what does not have exactly the private modes, links aside."""
    found = []
    for path in (root, *root.rglob("*")):
        mode = path.lstat().st_mode
        wanted = 0o700 if stat.S_ISDIR(mode) else 0o600
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) != wanted:
            found.append(f"{stat.S_IMODE(mode):o} {path.relative_to(root)}")
    return found


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def use_everything(login=True):
    """Use what writes files: pushes, deltas, notes, forks, runs, accounts, webhooks, repairs, credentials, caches."""
    rng = np.random.default_rng(1)
    tree = {"w": rng.standard_normal((300, 400)).astype("f4"), "b": np.arange(9)}
    for turn in range(3):
        lmvp.update("p/m", tree, message=f"turn {turn}", progress=False)
        tree = {**tree, "w": tree["w"] + np.float32(1e-4)}
    lmvp.alias("p/m@v1", "best")
    lmvp.download("p/m", progress=False)
    client = Client()
    client.compact()
    lmvp.diff("p/m@v2", "p/m@v3")
    client.fork("p/m", "q/fork")
    client.add_user("grace", "a long password")
    client.create_token("t", user="grace")
    with lmvp.start_run("p", params={"lr": 0.1}) as run:
        for step in range(50):
            run.log({"loss": 1.0 / (step + 1)}, step=step)
    if login:
        lmvp.login(local.connection().url, local.connection().token)
    lmvp.update("p/gone", {"w": np.arange(5)}, progress=False)
    client.remove("p/gone", yes=True)
    found = local.connection()
    shipped = secrets.token_hex(16)
    journal = begin(shipped) + losses([5, 4, 3])
    for part in (f"/projects/p/runs/{shipped}/writers/{'a' * 32}?from=0",):
        headers = {"Authorization": f"Bearer {found.token}"}
        assert requests.put(f"{found.url}/api/v1{part}", data=journal, headers=headers, timeout=30).ok
    folder = Path(os.environ["LMVP_HOME"])
    flip(next(path for path in (folder / "chunks").rglob("*") if path.is_file()))
    client.check(repair=True)
    return client


def back_up(client, folder):
    with pytest.raises(errors.IntegrityError, match="all else is in the backup"):  # a chunk was damaged, and set aside
        client.back_up(folder, progress=False)


def test_every_file_and_folder_is_private(home, umask):
    home.mkdir()
    home.chmod(0o755)
    client = use_everything()
    running = lmvp.start_run("p")
    running.log({"loss": 0.5}, step=0)
    body = {"push": secrets.token_hex(16), "manifest": {
        "files": [{"path": "a", "size": 3, "digest": "ab" * 32, "chunks": [["ab" * 32, 3]]}],
        "format": "files", "lmvp": 1, "meta": {}, "parents": [], "tensors": [],
    }}  # fmt: skip
    found = local.connection()
    headers = {"Authorization": f"Bearer {found.token}"}
    pushes = f"{found.url}/api/v1/projects/p/models/m/pushes"
    assert requests.post(pushes, json=body, headers=headers, timeout=30).status_code == 201
    kept = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()}
    assert kept >= {"chunks", "manifests", "notes", "damaged", "staging", "series", "records", "journals", "cache",
                    "config", "format.json", "server.json", "lock", "start.lock"}  # fmt: skip
    assert loose(home) == []
    running.finish()
    backup = home.parent / "deep" / "backup"
    back_up(client, backup)
    back_up(client, backup)
    assert loose(backup) == []
    assert loose(backup.parent) == []
    data = home.parent / "restored"
    data.mkdir()
    data.chmod(0o755)
    restore(backup, data, keep_going=True)
    assert loose(data) == []


def test_files_that_users_ask_for_follow_the_umask(home, tmp_path):
    lmvp.update("p/m", {"w": np.arange(5)}, progress=False)
    before = os.umask(0o022)
    try:
        lmvp.download("p/m", to=tmp_path / "pulled", progress=False)
        Client().export_model("p/m", tmp_path / "exported", progress=False)
    finally:
        os.umask(before)
    for root in ("pulled", "exported"):
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / root).rglob("*") if path.is_file()}
        assert modes == {0o644}
        assert stat.S_IMODE((tmp_path / root).stat().st_mode) == 0o755


def open_up(root):
    for path in (*root.rglob("*"), root):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_server_that_starts_closes_an_old_folder_and_follows_no_link(home, tmp_path):
    use_everything(login=False)
    local.stop(home)
    open_up(home)
    theirs = tmp_path / "shared"
    theirs.mkdir()
    (theirs / "file").write_text("of a team")
    open_up(theirs)
    (home / "chunks" / "link").symlink_to(theirs)
    (home / "records" / "link").symlink_to(theirs / "file")
    note = home / "notes.txt"  # not of LMVP: the folder may be one that somebody uses otherwise
    note.write_text("mine")
    note.chmod(0o644)
    assert sorted(one.name for one in Client().projects()) == ["p", "q"]  # starts the server
    note.chmod(0o600)
    assert loose(home) == []
    assert [stat.S_IMODE(path.stat().st_mode) for path in (theirs, theirs / "file")] == [0o755, 0o644]


def test_walk_that_was_interrupted_is_repeated_and_a_finished_one_is_not(tmp_path, monkeypatch):
    deep = tmp_path / "data" / "chunks" / "p" / "ab"
    deep.mkdir(parents=True)
    (deep / "c").write_bytes(b"x")
    open_up(tmp_path / "data")
    walk = os.fwalk

    def interrupted(*args, **options):
        yield next(walk(*args, **options))
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fwalk", interrupted)
        files.secure(tmp_path / "data", ["chunks"])
    assert loose(tmp_path / "data") != []
    files.secure(tmp_path / "data", ["chunks"])
    assert loose(tmp_path / "data") == []
    monkeypatch.setattr(os, "fwalk", None)
    files.secure(tmp_path / "data", ["chunks"])


@pytest.mark.parametrize("mask", [0o000, 0o777], ids=oct)
def test_private_file_has_its_mode_from_the_start(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.make_folder(tmp_path / "a" / "b")
        files.atomic_write(tmp_path / "a" / "b" / "c", b"secret")
        files.append(tmp_path / "a" / "log").close()
    finally:
        os.umask(before)
    assert loose(tmp_path / "a") == []
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"secret"
