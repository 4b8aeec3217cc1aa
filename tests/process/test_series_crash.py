"""A series after a kill, a torn log, a full disk, a bent byte: what was acknowledged is there, or said to be gone."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.series_model import batch, send, steps_and_values
from support.soak import size

from lmvp.core.run_frames import key_frame, points_frame
from lmvp.errors import IntegrityError, StorageFull
from lmvp_server.stores.base import Gap
from lmvp_server.stores.local import journal
from lmvp_server.stores.local.series.folder import FolderSeries

WRITER = """
import sys
from pathlib import Path
from lmvp.core.run_frames import key_frame, points_frame
from lmvp.core.frame_parsing import parse
from lmvp_server.stores.local.series.folder import FolderSeries
from lmvp_server.stores.local.series import series
series.SEAL_AT = 500
store = FolderSeries(Path(sys.argv[1]))
writer = sys.argv[2] * 32
def send(data):
    store.append("p", "r", writer, store.applied("p", "r", writer), data, parse(data))
send(key_frame(0, "loss"))
turn = int(sys.argv[3])
while True:
    send(points_frame(turn, [(0, turn + i, float(turn + i)) for i in range(10)]))
    turn += 10
    print(turn, flush=True)
"""


@pytest.mark.slow
def test_a_killed_server_loses_nothing_acknowledged(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    reached = 0
    for letter in "abcdef0123":
        command = [sys.executable, "-c", WRITER, str(tmp_path), letter, str(reached)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            process.stdout.readline()
            time.sleep(random.uniform(0.05, 0.6))
            process.send_signal(signal.SIGKILL)
            lines = [line for line in process.stdout if line.endswith("\n")]
        reached = int(lines[-1]) if lines else reached + 10
    store = FolderSeries(tmp_path)
    found = steps_and_values(store.read("p", "r", "loss"))
    store.verify("p", "r")
    store.close()
    assert reached > 500
    assert found[:reached] == [(step, float(step)) for step in range(reached)]
    assert found[reached:] in ([], [(step, float(step)) for step in range(reached, reached + 10)])


@pytest.fixture
def written(tmp_path):
    """The folder of a series with five points in its log, and how long the log was after each."""
    store = FolderSeries(tmp_path / "whole")
    send(store, key_frame(0, "a"))
    log = tmp_path / "whole/series/p/r/0.wal"
    lengths = [log.stat().st_size]
    for step in range(5):
        send(store, points_frame(step, [(0, step, step / 2)]))
        lengths.append(log.stat().st_size)
    store.close()
    return tmp_path / "whole", lengths


def points(steps):
    return [(step, step / 2) for step in steps]


def copy_with_log(written, tmp_path, data):
    """Return a copy of the written folder with another log, and the path of the log."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(written[0], copy)
    log = copy / "series/p/r/0.wal"
    log.write_bytes(data)
    return copy, log


def flipped(data, at, bit):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_log_cut_at_any_byte_keeps_its_whole_records(written, tmp_path):
    folder, lengths = written
    whole = (folder / "series/p/r/0.wal").read_bytes()
    for at in range(lengths[0], lengths[-1]):
        copy, _ = copy_with_log(written, tmp_path, whole[:at])
        store = FolderSeries(copy)
        count = sum(length <= at for length in lengths) - 1
        assert steps_and_values(store.read("p", "r", "a")) == points(range(count))
        assert store.damage("p", "r") == []
        store.verify("p", "r")
        send(store, points_frame(9, [(0, 99, 9.0)]))
        store.close()
        store = FolderSeries(copy)
        assert steps_and_values(store.read("p", "r", "a")) == [*points(range(count)), (99, 9.0)]
        store.verify("p", "r")
        store.close()


@pytest.mark.soak
def test_log_with_any_flipped_byte_is_kept_and_named_and_takes_new_points(written, tmp_path):
    """The points of the damaged record are missing, all others count; the flip undone, everything is there."""
    folder, lengths = written
    whole, more = (folder / "series/p/r/0.wal").read_bytes(), "b" * 32
    for at in range(0, lengths[-1], 1 if size("FLIPS", 200) > lengths[-1] else 3):
        lost = sum(length <= at for length in lengths) - 1  # -1: the record that names the key
        left = [step for step in range(5) if step != lost]
        copy, log = copy_with_log(written, tmp_path, flipped(whole, at, at % 8))
        store = FolderSeries(copy)
        found = steps_and_values(store.read("p", "r", "a"))
        assert found == ([] if lost < 0 else points(left)), at
        [problem] = store.damage("p", "r")
        assert "0.wal is damaged from byte" in problem
        send(store, key_frame(0, "a") + points_frame(9, [(0, 99, 9.0)]), writer=more)
        store.close()
        assert log.read_bytes() == flipped(whole, at, at % 8)

        store = FolderSeries(copy)
        assert steps_and_values(store.read("p", "r", "a")) == [*found, (99, 9.0)]
        with pytest.raises(IntegrityError, match=r"0\.wal is damaged"):
            store.verify("p", "r")
        store.close()

        log.write_bytes(whole)
        store = FolderSeries(copy)
        assert steps_and_values(store.read("p", "r", "a")) == [*points(range(5)), (99, 9.0)]
        assert store.damage("p", "r") == []
        store.verify("p", "r")
        store.close()


def test_damaged_log_outlives_the_seal_and_the_restore_of_a_backup(written, tmp_path):
    folder, lengths = written
    damaged = flipped((folder / "series/p/r/0.wal").read_bytes(), lengths[2] + 20, 3)
    copy, log = copy_with_log(written, tmp_path, damaged)
    store = FolderSeries(copy)
    send(store, key_frame(0, "a") + points_frame(9, [(0, 99, 9.0)]), writer="b" * 32)
    store.settle("p", "r")
    pieces = list(store.dump("p", "r"))
    store.load("p", "other", pieces)
    store.close()
    assert not log.exists()
    for run in ("r", "other"):
        assert (copy / "series/p" / run / "0.wal.damaged").read_bytes() == damaged
        store = FolderSeries(copy)
        assert steps_and_values(store.read("p", run, "a")) == [*points([0, 1, 3, 4]), (99, 9.0)]
        [problem] = store.damage("p", run)
        assert "0.wal.damaged is damaged from byte 184 to 253" in problem
        with pytest.raises(IntegrityError, match=r"0\.wal\.damaged"):
            store.verify("p", run)
        store.close()


def test_writer_that_has_its_journal_sends_lost_points_again(written, tmp_path):
    """The answer tells the writer where the sound part of its journal ends; what it repeats counts once."""
    folder, lengths = written
    whole = (folder / "series/p/r/0.wal").read_bytes()
    journal = key_frame(0, "a") + b"".join(points_frame(step, [(0, step, step / 2)]) for step in range(6))
    copy, _ = copy_with_log(written, tmp_path, flipped(whole, lengths[1] + 5, 6))
    store = FolderSeries(copy)
    with pytest.raises(Gap) as gap:
        send(store, points_frame(5, [(0, 5, 2.5)]), start=len(journal) - 37)
    send(store, journal[gap.value.applied :], start=gap.value.applied)
    for _ in range(2):
        assert steps_and_values(store.read("p", "r", "a")) == points(range(6))
        assert store.applied("p", "r", "a" * 32) == len(journal)
        store.close()
        store = FolderSeries(copy)
    store.close()


def test_log_of_large_records_is_searched_in_time(tmp_path):
    """A flip in a length field makes the reader look for the next sound record at every byte."""
    store = FolderSeries(tmp_path)
    for turn in range(2):
        data = b"".join(points_frame(1.5, [(0, turn << 18 | step, 0.5)]) for step in range(100_000))
        send(store, (b"" if turn else key_frame(0, "a")) + data)
    store.close()
    log = tmp_path / "series/p/r/0.wal"
    whole = log.read_bytes()
    for data in (flipped(whole, len(whole) // 2 + 11, 7), flipped(whole, 2, 7), whole[: len(whole) - 9]):
        log.write_bytes(data)
        store, began = FolderSeries(tmp_path), time.monotonic()
        assert store.applied("p", "r", "a" * 32) < len(whole)
        assert time.monotonic() - began < 20
        store.close()


@pytest.mark.parametrize("name", ["1.segment", "series"])
def test_a_bent_byte_is_named_and_no_wrong_number_comes_of_it(tmp_path, name):
    store = FolderSeries(tmp_path)
    send(store, key_frame(0, "a") + batch(0, 0, [i / 7 for i in range(700)]))
    expected = steps_and_values(store.read("p", "r", "a"))
    store.settle("p", "r")
    store.close()
    path = tmp_path / "series/p/r" / name
    whole = path.read_bytes()
    head, tail = range(16), range(len(whole) - 32, len(whole))
    for at in [*head, *random.sample(range(16, len(whole) - 32), 150), *tail]:
        bent = bytearray(whole)
        bent[at] ^= 1 << random.randrange(8)
        path.unlink()
        path.write_bytes(bent)
        store = FolderSeries(tmp_path)
        with pytest.raises(IntegrityError, match=name):
            store.verify("p", "r")
        with suppress(IntegrityError):
            assert steps_and_values(store.read("p", "r", "a")) == expected
        store.close()


def test_log_that_another_one_follows_and_that_is_cut_is_damage(tmp_path, monkeypatch):
    store = FolderSeries(tmp_path)
    send(store, key_frame(0, "a") + batch(0, 0, [1.0, 2.0]))
    refuse_files(monkeypatch, ".segment")
    with pytest.raises(StorageFull):
        store.settle("p", "r")
    send(store, points_frame(1, [(0, 2, 3.0)]))
    assert steps_and_values(store.read("p", "r", "a")) == [(0, 1.0), (1, 2.0), (2, 3.0)]
    store.close()
    first = tmp_path / "series/p/r/0.wal"
    first.write_bytes(first.read_bytes()[:-1])
    cut = first.read_bytes()
    store = FolderSeries(tmp_path)
    assert any("0.wal is damaged at byte 0: another log follows" in problem for problem in store.damage("p", "r"))
    with pytest.raises(IntegrityError, match=r"0\.wal"):
        store.verify("p", "r")
    store.close()
    assert first.read_bytes() == cut


def refuse_files(monkeypatch, suffix):
    from lmvp_server.stores.local.series import segment

    def refuse(path, *_):
        assert path.name.endswith(suffix)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment, "atomic_write", refuse)


def test_a_full_disk_at_a_seal_loses_nothing_and_the_next_seal_works(tmp_path, monkeypatch):
    store = FolderSeries(tmp_path)
    send(store, key_frame(0, "a") + batch(0, 0, [1.0, 2.0]))
    with monkeypatch.context() as patch:
        refuse_files(patch, ".segment")
        with pytest.raises(StorageFull):
            store.settle("p", "r")
    cursor, _ = store.since("p", "r", 0)
    assert cursor == 2
    send(store, points_frame(1, [(0, 2, 3.0)]))
    store.settle("p", "r")
    store.close()
    assert [path.name for path in sorted((tmp_path / "series/p/r").iterdir())] == ["1.segment", "alive", "series"]
    assert steps_and_values(FolderSeries(tmp_path).read("p", "r", "a")) == [(0, 1.0), (1, 2.0), (2, 3.0)]


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_full_disk_refuses_the_shipment_whole_and_takes_it_later(tmp_path, monkeypatch, call):
    store = FolderSeries(tmp_path)
    send(store, key_frame(0, "a") + batch(0, 0, [1.0]))

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "write") if call == "write" else (journal, "sync_data")), refuse)
        with pytest.raises(StorageFull, match="no room"):
            send(store, points_frame(1, [(0, 1, 2.0)]))
        assert steps_and_values(store.read("p", "r", "a")) == [(0, 1.0)]
    send(store, points_frame(1, [(0, 1, 2.0)]))
    assert steps_and_values(store.read("p", "r", "a")) == [(0, 1.0), (1, 2.0)]
    store.close()
    assert steps_and_values(FolderSeries(tmp_path).read("p", "r", "a")) == [(0, 1.0), (1, 2.0)]
