"""A file of records of a backup may be anything: it is read as one of ours, or refused at once."""

import os

import pytest

from lmvp.archive import backup_records
from lmvp.errors import DamagedFile
from lmvp_server.stores.base import Record


def write(path):
    rows = [Record(f"r{seq}", seq, 1, {"text": "x" * 50}) for seq in range(1, 4)]
    events = [{"seq": 1, "chain": "c"}]
    path.write_bytes(b"".join(backup_records.lines("p", {"t": rows}, {"t": 4}, 1, iter(events))))


def test_what_was_written_is_read(tmp_path):
    write(tmp_path / "file")
    found = backup_records.open_file(tmp_path / "file", "p")
    assert [row.id for row in found.records()] == ["r1", "r2", "r3"]
    assert list(found.events()) == [{"seq": 1, "chain": "c"}]


@pytest.mark.parametrize("kind", ["pipe", "endless", "link", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, kind):
    write(tmp_path / "whole")
    place = tmp_path / "file"
    make = {
        "pipe": lambda: os.mkfifo(place),
        "endless": lambda: place.symlink_to("/dev/zero"),
        "link": lambda: place.symlink_to(tmp_path / "whole"),
        "folder": place.mkdir,
    }
    make[kind]()
    with pytest.raises(DamagedFile, match="not a regular file"):
        backup_records.open_file(place, "p")


@pytest.mark.parametrize("limit", [20, 60, 100])
def test_a_line_that_is_too_long_is_not_taken_into_memory(tmp_path, monkeypatch, limit):
    write(tmp_path / "file")
    monkeypatch.setattr(backup_records, "LINE_LIMIT", limit)
    with pytest.raises(DamagedFile):
        backup_records.open_file(tmp_path / "file", "p")


def test_a_hole_is_no_line(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(DamagedFile):
        backup_records.open_file(tmp_path / "file", "p")
