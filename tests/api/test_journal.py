"""A journal holds what was stored, whatever happens to the process or the disk."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lmvp.core.run_frames import whole_frames, whole_size
from lmvp.tracking import journal as journals
from lmvp.tracking.destination import Target
from lmvp.tracking.journal import Journal, read_file

ROOT = Path(__file__).resolve().parents[2]

STORE = """
import sys, os
from pathlib import Path
from lmvp.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(100_000):
    journal.append(b"\\x03" + str(number).encode())
    if number == 70_000:
        os.kill(os.getpid(), 9)
"""


def test_target_with_any_flipped_bit_is_not_used(tmp_path):
    """A run must not go to another project; a file without a check is of an older version."""
    target = Target("digits", "https://models.example.org", "ünï")
    target.write(tmp_path)
    path = tmp_path / "target.json"
    data = path.read_bytes()
    assert Target.read(tmp_path) == target
    for at in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            assert Target.read(tmp_path) in (None, target), (at, bit)
    path.write_bytes(msgspec.json.encode(target))
    assert Target.read(tmp_path) == target


def bodies(data):
    return [bytes(body) for _, body, _ in whole_frames(data)]


def test_what_is_stored_is_read_while_it_grows(tmp_path):
    journal = Journal(tmp_path / "a/b.journal")
    for number in range(200_000):
        journal.append(b"\x03" + str(number).encode())
    assert bodies(journal.read(0, 1 << 30)) == [str(number).encode() for number in range(200_000)]
    parts, at = [], 0
    while part := journal.read(at, 1 << 20):
        assert len(part) <= 1 << 20
        assert whole_size(part) == len(part)
        parts.append(part)
        at += len(part)
    assert b"".join(parts) == journal.read(0, 1 << 30)
    assert bodies(read_file(journal.path, 0, 1 << 30)) == bodies(journal.read(0, 1 << 30))
    journal.close()
    assert journal.path.stat().st_size == journal.size


def test_a_kill_loses_nothing_that_was_stored(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = tmp_path / "killed.journal"
    done = subprocess.run([sys.executable, "-c", STORE, str(path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert bodies(path.read_bytes()) == [str(number).encode() for number in range(70_001)]


def append_numbers(journal, count=200_000):
    for number in range(count):
        journal.append(b"\x03" + str(number).encode())


def test_a_full_disk_is_told_once_and_frames_stay_in_memory(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "full.journal")
    journal.append(b"\x03first")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("posix_fallocate", "ftruncate"):
        monkeypatch.setattr(journals.os, name, full, raising=False)
    with pytest.warns(UserWarning, match="No space left") as told:
        append_numbers(journal)
    assert len(told) == 1
    found, at = [], 0
    while part := journal.read(at, 1 << 20):
        found += bodies(part)
        at += len(part)
    assert found == [b"first", *(str(number).encode() for number in range(200_000))]
    journal.sync()
    journal.close()


def test_beyond_memory_frames_are_dropped_counted_and_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "MEMORY", 1000)
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(UserWarning, match="takes no metrics"):
        journal = Journal(tmp_path / "file" / "x.journal")
    with pytest.warns(UserWarning, match="lost") as told:
        append_numbers(journal, 100)
    assert len(told) == 1
    assert 0 < len(bodies(journal.read(0, 1 << 20))) < 100
    assert journal.lost == 100 - len(bodies(journal.read(0, 1 << 20)))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full's filesystem tools")
def test_a_file_size_limit_is_not_a_crash(tmp_path):
    code = (
        "import resource, signal, sys, warnings\nfrom pathlib import Path\nfrom lmvp.tracking.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))\n"
        "warnings.simplefilter('ignore')\njournal = Journal(Path(sys.argv[1]))\n"
        "for number in range(300_000):\n    journal.append(b'\\x03' + str(number).encode())\n"
        "print(journal.size, len(journal.read(0, 1 << 30)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.journal")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 4 << 20
