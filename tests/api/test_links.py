"""Links in the place of files of a data folder: none is followed, and fsck names those that hide data."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress

import pytest
from support.workshop import ADA, Shop, step, weights

from lmvp.core import files, server_file
from lmvp.core.schemas.runs import NewPoints, NewRun
from lmvp.errors import DamagedFile, IntegrityError
from lmvp.tracking.destination import files_in
from lmvp_server.data_folder import DataFolder
from lmvp_server.services import Services

RUN = "a" * 32
PLACES = {
    "snapshot of the server": "records/server.json",
    "journal of the server": "records/server.json.j*",
    "events of the server": "records/server.events.jsonl",
    "snapshot of a project": "records/projects/*.json",
    "journal of a project": "records/projects/*.json.j*",
    "events of a project": "records/projects/*.events.jsonl",
    "chunk": "chunks/*/??/*",
    "manifest": "manifests/*/??/*",
    "note": "notes/*/??/*",
    "open push": "staging/*/*",
    "state of a series": "series/*/*/series",
    "segment of a series": "series/*/*/*.segment",
    "log of a series": "series/*/*/*.wal",
    "sign of life of a series": "series/*/*/alive",
}
HARMLESS = {"note", "open push", "sign of life of a series"}
"""These hold nothing that a version or a run needs: the server makes them again."""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A data folder with a file of each kind."""
    folder = tmp_path_factory.mktemp("links") / "data"
    shop = Shop(folder)
    tree = weights(0, layers=1, rows=64)
    shop.push(tree)
    shop.push(step(tree))
    shop.begin(weights(1, layers=1, rows=8))
    services = shop.services
    home = services.catalog.find_project(ADA, "p")
    services.runs.begin(ADA, home, NewRun(run=RUN))
    for number in range(4):
        services.metrics.add(ADA, "p", RUN, NewPoints(values={"loss": 0.5}, step=number))
        if number == 1:
            services.series.settle(home.id, RUN)
    for space in services.records.spaces():
        services.records.rewrite_files(space)
    services.aliases.move(ADA, "p", "m", "best", "v1")  # behind the snapshot
    services.tensor_changes.changes(ADA, "p", "m", "v2", "v1")  # makes a note
    services.close()
    return folder


@pytest.fixture
def folder(template, tmp_path):
    shutil.copytree(template, tmp_path / "data")
    return tmp_path / "data"


def planted(folder, pattern, tmp_path):
    """Move the first file of a kind elsewhere, and put a link to it in its place; return both."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("tmp-"))
    assert found, f"no {pattern}"
    link, target = found[0], tmp_path / "elsewhere"
    link.rename(target)
    link.symlink_to(target)
    return link, target


def use(services):
    """Read and change all that there is, as far as it goes."""
    home = services.catalog.find_project(ADA, "p")
    for work in (
        lambda: services.metrics.add(ADA, "p", RUN, NewPoints(values={"loss": 0.5}, step=9)),
        lambda: services.series.settle(home.id, RUN),
        lambda: services.aliases.move(ADA, "p", "m", "best", "v2"),
        lambda: services.upkeep.compact(ADA),
        lambda: services.upkeep.end_old_pushes(lambda: True),
        lambda: services.records.rewrite_files(home.id),
    ):
        with suppress(IntegrityError):
            work()


@pytest.mark.parametrize("kind", PLACES)
def test_link_in_the_place_of_a_file_is_not_followed(folder, tmp_path, kind):
    link, target = planted(folder, PLACES[kind], tmp_path)
    os.utime(target, (1000, 1000))
    before = target.read_bytes()
    found = []
    with suppress(IntegrityError):
        services = Services.open(folder)
        try:
            try:
                use(services)
            except IntegrityError as error:
                found.append(error.message)
            try:
                found += [str(one) for one in services.fsck.check(ADA, False)["problems"]]
            except IntegrityError as error:
                found.append(error.message)
        finally:
            services.close()
    assert target.read_bytes() == before
    assert target.stat().st_mtime == 1000
    if kind not in HARMLESS:
        assert any(link.name in one or link.name[:8] in one for one in found), found


@pytest.mark.parametrize("kind", ["snapshot of the server", "journal of the server", "events of the server"])
def test_link_to_nothing_is_no_empty_file(folder, tmp_path, kind):
    """Where a file is missing, its part would be empty; a link that leads nowhere hides that it was there."""
    _, target = planted(folder, PLACES[kind], tmp_path)
    target.unlink()
    services = Services.open(folder)
    try:
        with pytest.raises(IntegrityError, match="is a link: LMVP follows no links"):
            services.catalog.find_project(ADA, "p")
    finally:
        services.close()
    assert not target.exists()


def test_link_that_waits_for_a_temporary_file_is_replaced(folder, tmp_path):
    """A link with the name of the next temporary file must not let a snapshot be written elsewhere."""
    target = tmp_path / "elsewhere"
    target.write_text("theirs")
    (folder / "records" / "server.json.tmp").symlink_to(target)
    services = Services.open(folder)
    try:
        services.records.rewrite_files("server")
    finally:
        services.close()
    assert target.read_text() == "theirs"
    assert not (folder / "records" / "server.json").is_symlink()


@pytest.mark.parametrize("name", ["records/server.json.j{}", "series"])
def test_link_that_waits_for_a_log_is_not_written_to(folder, tmp_path, name):
    target = tmp_path / "elsewhere"
    target.write_text("theirs")
    if name == "series":
        [log] = folder.glob("series/*/*/*.wal")
        link = log.with_name(f"{int(log.stem) + 1}.wal")
    else:
        newest = max(int(path.name.rpartition("j")[2]) for path in folder.glob("records/server.json.j*"))
        link = folder / name.format(newest + 1)
    services = Services.open(folder)  # the link comes while the server runs
    try:
        services.catalog.find_project(ADA, "p")
        link.symlink_to(target)
        use(services)
        with suppress(IntegrityError):
            services.records.rewrite_files("server")
    finally:
        with suppress(IntegrityError):
            services.close()
    assert target.read_text() == "theirs"


@pytest.mark.parametrize("name", ["format.json", "token"])
def test_server_with_a_linked_setting_does_not_start(tmp_path, name):
    data = tmp_path / "data"
    with DataFolder.open(data, patience=0) as home:
        home.kept_token()
    (data / name).rename(tmp_path / "elsewhere")
    (data / name).symlink_to(tmp_path / "elsewhere")

    def start():
        with DataFolder.open(data, patience=0) as home:
            home.kept_token()

    with pytest.raises(IntegrityError, match=rf"{name} is a link: LMVP follows no links"):
        start()


def test_lock_and_server_file_are_no_links(tmp_path):
    """The lock is refused, and `server.json` replaced: clients must not read a token from elsewhere."""
    data, target = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    target.write_text("theirs")
    (data / server_file.NAME).symlink_to(target)
    assert server_file.read(data) is None
    (data / "lock").symlink_to(target)
    with pytest.raises(Exception, match=r"(?i)lock|link|symbolic"), DataFolder.open(data, patience=0):
        pass
    assert target.read_text() == "theirs"


def test_folder_that_is_a_link_is_used(folder, tmp_path):
    """A folder may be on another disk."""
    for name in ("chunks", "series"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    services = Services.open(folder)
    try:
        assert list(services.fsck.check(ADA, False)["problems"]) == []
        assert services.metrics.add(ADA, "p", RUN, NewPoints(values={"loss": 0.5}, step=9)).applied
    finally:
        services.close()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "file"
    (tmp_path / "target").write_bytes(b"theirs")
    {"link": lambda: path.symlink_to(tmp_path / "target"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[
        kind
    ]()
    error = IsADirectoryError if kind == "folder" else IntegrityError
    for work in (
        lambda: files.read_bytes(path),
        lambda: files.read(path),
        lambda: files.append(path),
        lambda: files.create(path, os.O_RDWR),
        lambda: files.open_file(path, os.O_RDWR),
    ):
        with pytest.raises(error):  # at once: a pipe without another end does not block
            work()
    with pytest.raises(FileExistsError):
        files.create(path)
    with pytest.raises(DamagedFile, match="is not a regular file"):
        files.read_copy(path, 100)
    assert files_in(tmp_path, "file") == ([] if kind == "link" else [path])
    assert (tmp_path / "target").read_bytes() == b"theirs"


def test_write_replaces_a_link_by_a_file(tmp_path):
    path, target = tmp_path / "file", tmp_path / "target"
    target.write_bytes(b"theirs")
    path.symlink_to(target)
    files.atomic_write(path, b"ours")
    assert (target.read_bytes(), path.read_bytes()) == (b"theirs", b"ours")
    assert stat.S_ISREG(path.lstat().st_mode)
