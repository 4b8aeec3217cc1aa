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
from stores.series_model import batch, send, steps_and_values

from lmvp.errors import IntegrityError, StorageFull
from lmvp.tracking.frames import key_frame, points_frame
from lmvp_server.stores import journal
from lmvp_server.stores.series.folder import FolderSeries

WRITER = """
import sys
from pathlib import Path
from lmvp.tracking.frames import key_frame, points_frame
from lmvp.tracking.parsing import parse
from lmvp_server.stores.series.folder import FolderSeries
from lmvp_server.stores.series import series
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


def test_a_log_cut_or_bent_at_any_byte_keeps_what_came_before(written, tmp_path):
    folder, lengths = written
    whole = (folder / "series/p/r/0.wal").read_bytes()
    for at in range(lengths[0], lengths[-1]):
        for bend in (False, True):
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            damaged = bytearray(whole if bend else whole[:at])
            if bend:
                damaged[at] ^= 1 << random.randrange(8)
            (copy / "series/p/r/0.wal").write_bytes(damaged)
            store = FolderSeries(copy)
            count = sum(length <= at for length in lengths) - 1
            assert steps_and_values(store.read("p", "r", "a")) == [(step, step / 2) for step in range(count)]
            send(store, points_frame(9, [(0, 99, 9.0)]))
            store.close()
            store = FolderSeries(copy)
            assert steps_and_values(store.read("p", "r", "a"))[-1] == (99, 9.0)
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


def test_a_log_that_was_followed_by_another_must_be_whole(tmp_path, monkeypatch):
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
    with pytest.raises(IntegrityError, match=r"0\.wal"):
        FolderSeries(tmp_path).keys("p", "r")


def refuse_files(monkeypatch, suffix):
    from lmvp_server.stores.series import segment

    def refuse(path, *_):
        assert path.name.endswith(suffix)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment, "write_whole", refuse)


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
