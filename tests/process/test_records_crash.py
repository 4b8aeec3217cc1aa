"""Killed, cut and corrupted: whole records stay, torn ones go, nothing acknowledged is lost."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import msgspec
import pytest
from support.soak import size

from lmvp.errors import IntegrityError, StorageFull
from lmvp_server.stores.base import Put
from lmvp_server.stores.local.event_log import Head, chained
from lmvp_server.stores.local.records import TinyDbRecords
from lmvp_server.stores.local.snapshot import read_snapshot

INDEXES = {"things": ("color",)}
STRIDE = 1 if size("FLIPS", 200) > 1000 else 5
"""Bytes from one flip to the next: `make soak` flips every byte."""

WRITER = """
import sys, threading
from pathlib import Path
from lmvp_server.stores.base import Put
from lmvp_server.stores.local.records import TinyDbRecords
store = TinyDbRecords(Path(sys.argv[1]), {"things": ("color",)}, compact_at=4000)
lock = threading.Lock()
def write(who):
    turn = 0
    while True:
        name = f"{sys.argv[2]}-{who}-{turn}"
        store.commit("p1", [Put("things", name, {"color": who, "turn": turn}, expect=0)], [{"what": name}])
        with lock:
            print(name, flush=True)
        turn += 1
for who in range(4):
    threading.Thread(target=write, args=(who,)).start()
"""


def verify_chain(events):
    """Check that events form a chain from the first one on, and return its last head."""
    head = Head()
    for event in events:
        after, _ = chained(head, event)
        assert (event["seq"], event["chain"]) == (after.seq, after.chain)
        head = after
    return head


def open_store(folder, **options):
    return TinyDbRecords(folder, INDEXES, **options)


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_acknowledged(tmp_path):
    acknowledged = []
    for turn in range(15):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            acknowledged.append(process.stdout.readline().strip())
            time.sleep(random.uniform(0.02, 0.3))
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    store = open_store(tmp_path)
    found = store.find("p1", "things")
    events = store.events("p1")
    store.close()
    assert len(acknowledged) > 100
    assert set(acknowledged) <= {record.id for record in found}
    assert len({record.seq for record in found}) == len(found)
    assert {record.id for record in found} == {event["what"] for event in events}
    assert verify_chain(events).seq == len(events)


def journal_of(folder):
    return next(path for path in folder.rglob("*.json.j*") if path.stat().st_size)


@pytest.fixture
def written(tmp_path):
    """A folder with six records in its journal, and how long the journal was after each."""
    folder = tmp_path / "whole"
    store = open_store(folder)
    lengths = []
    for i in range(6):
        store.commit("server", [Put("things", f"t{i}", {"color": "red", "n": i})], [{"what": f"e{i}"}])
        lengths.append(journal_of(folder).stat().st_size)
    store.close()
    return folder, lengths


def damaged_copy(folder, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    journal = journal_of(copy)
    journal.write_bytes(damage(journal.read_bytes()))
    return copy


def reopened(folder, tmp_path, damage):
    """Return what a store finds in a copy whose journal was damaged, after writing to it once more.

    The events are gone: they are written once a commit is acknowledged, and a crash damages none that was.
    """
    copy = damaged_copy(folder, tmp_path, damage)
    next(copy.rglob("*.events.jsonl")).unlink()
    store = open_store(copy)
    ids = [record.id for record in store.find("server", "things")]
    store.commit("server", [Put("things", "more", {"color": "blue"})])
    store.close()
    again = open_store(copy)
    assert [record.id for record in again.find("server", "things")] == [*ids, "more"]
    assert [record.id for record in again.find("server", "things", {"color": "red"})] == ids
    again.close()
    return ids


def test_a_torn_journal_gives_its_whole_records(written, tmp_path):
    folder, lengths = written
    for cut in range(lengths[2], lengths[-1]):
        whole = sum(length <= cut for length in lengths)
        assert reopened(folder, tmp_path, lambda data, cut=cut: data[:cut]) == [f"t{i}" for i in range(whole)], cut


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.soak
def test_journal_with_any_flipped_byte_is_refused_by_name_and_kept(written, tmp_path):
    """A complete record with a wrong CRC is damage, the last one too; with the byte flipped back all is there."""
    folder, lengths = written
    whole = journal_of(folder).read_bytes()
    for at in range(0, lengths[-1], STRIDE):
        for bit in (at % 8, 7) if at % 193 < 8 else (at % 8,):
            copy = damaged_copy(folder, tmp_path, lambda data, at=at, bit=bit: flipped(data, at, bit))
            next(copy.rglob("*.events.jsonl")).unlink()
            before = files_of(copy)
            store = open_store(copy)
            with pytest.raises(IntegrityError, match=r"server\.json\.j0 is damaged from byte"):
                store.find("server", "things")
            with pytest.raises(IntegrityError, match=r"server\.json\.j0 is damaged"):
                store.commit("server", [Put("things", "more", {"color": "blue"})])
            store.close()
            assert files_of(copy) == before, (at, bit)
    journal_of(copy).write_bytes(whole)
    store = open_store(copy)
    assert [record.id for record in store.find("server", "things")] == [f"t{i}" for i in range(6)]
    store.close()


def flipped(data, at, bit):
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_journal_end_of_zeros_is_torn(written, tmp_path):
    """A crash of the file system may leave the length of a file without its blocks."""
    folder, lengths = written
    for kept in (0, 8, 20, 100):

        def lose_blocks(data, kept=kept):
            return data[: lengths[4] + kept] + bytes(lengths[5] - lengths[4] - kept)

        assert reopened(folder, tmp_path, lose_blocks) == [f"t{i}" for i in range(5)], kept


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9999])
@pytest.mark.parametrize("way", ["cut", "flip"])
def test_what_no_crash_can_do_to_a_journal_is_told_and_touched_by_nobody(written, tmp_path, way, share):
    folder, lengths = written
    at = int(share * lengths[-1])

    def damage(data):
        return data[:at] if way == "cut" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    copy = damaged_copy(folder, tmp_path, damage)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for _ in range(2):
        store = open_store(copy)
        with pytest.raises(IntegrityError, match=r"end before its events do|j0 is damaged"):
            store.find("server", "things")
        store.close()
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("compact_at", [100, 1 << 20])
def test_damage_under_a_running_store_is_found_and_written_over(tmp_path, compact_at):
    store = open_store(tmp_path, compact_at=compact_at)
    for i in range(6):
        store.commit("server", [Put("things", f"t{i}", {"color": "red"})], [{"what": f"e{i}"}])
    store.verify_files("server")
    victim = max((path for path in tmp_path.glob("server.json*")), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(IntegrityError, match=victim.name):
        store.verify_files("server")
    store.rewrite_files("server")
    store.verify_files("server")
    store.commit("server", [Put("things", "more", {"color": "red"})], [{"what": "more"}])
    store.close()
    again = open_store(tmp_path)
    assert [record.id for record in again.find("server", "things")] == [*(f"t{i}" for i in range(6)), "more"]
    again.close()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_full_disk_undoes_the_commit_and_is_got_over(tmp_path, monkeypatch, call):
    store = open_store(tmp_path)
    store.commit("server", [Put("things", "a", {"color": "red"})])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageFull):
        store.commit("server", [Put("things", "b", {"color": "red"})])
    monkeypatch.undo()
    assert store.get("server", "things", "b") is None
    store.commit("server", [Put("things", "c", {"color": "red"})])
    store.close()
    again = open_store(tmp_path)
    assert [record.id for record in again.find("server", "things")] == ["a", "c"]
    again.close()


@pytest.mark.parametrize("call", ["replace", "rename", "fsync", "unlink"])
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_snapshot_that_fails_midway_loses_nothing(tmp_path, monkeypatch, call, turn):
    store = open_store(tmp_path, compact_at=500)
    calls = []
    real = getattr(os, call)

    def fail(*arguments, **named):
        calls.append(arguments)
        if len(calls) == turn + 1:
            raise OSError(5, "Input/output error")
        return real(*arguments, **named)

    monkeypatch.setattr(os, call, fail)
    acknowledged = []
    for i in range(40):
        try:
            store.commit("server", [Put("things", f"t{i}", {"color": "red"})])
            acknowledged.append(f"t{i}")
        except Exception:
            continue
    monkeypatch.undo()
    store.close()
    again = open_store(tmp_path)
    assert set(acknowledged) <= {record.id for record in again.find("server", "things")}
    again.close()
    assert len(acknowledged) > 30


class Crash(BaseException):
    """The process ends here."""


def fail_calls(monkeypatch, first, count, error):
    """Let `count` system calls fail, beginning with the `first`; half of what they were to write is written."""
    calls, failed = [0], []

    def failing(name, real):
        def call(*arguments, **named):
            calls[0] += 1
            if not first <= calls[0] < first + count:
                return real(*arguments, **named)
            failed.append(name)
            if name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            raise error()

        return call

    for name in ("open", "write", "replace", "fsync", "fdatasync", "unlink", "ftruncate", "lseek", "mkdir"):
        monkeypatch.setattr(os, name, failing(name, getattr(os, name)))
    return failed


def abandon(store):
    """Close the files as the end of a process does: nothing more is written."""
    for database in store._open.values():
        database.storage._let_go()


def write_some(store, acknowledged, names):
    for name in names:
        store.commit("p1", [Put("things", name, {"color": "red"})], [{"what": name}])
        acknowledged.append(name)


def found_in(folder):
    """Return the ids in a store, which must agree with its events and take another commit."""
    store = open_store(folder)
    ids = [record.id for record in store.find("p1", "things")]
    events = store.events("p1")
    assert [event["what"] for event in events] == ids
    write_some(store, [], ["more"])
    assert verify_chain(store.events("p1")).seq == len(ids) + 1
    store.close()
    return ids


def test_events_whose_sync_failed_are_written_again_before_a_snapshot_vouches_for_them(tmp_path, monkeypatch):
    """After a failed sync the system drops what it could not write, and the next sync succeeds without it."""
    store, acknowledged = open_store(tmp_path, compact_at=300), []
    write_some(store, acknowledged, ["first"])
    events = next(tmp_path.rglob("*.events.jsonl"))
    dirty, dropped, sync, write = [events.read_bytes()], [], os.fdatasync, os.write

    def is_events(descriptor):
        return os.path.samestat(os.fstat(descriptor), events.stat())

    def written(descriptor, data):
        if is_events(descriptor):
            dirty.append(bytes(data))
        return write(descriptor, data)

    def synced(descriptor):
        if is_events(descriptor) and not dropped:
            dropped.extend(dirty)
            dirty.clear()
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", written)
        patch.setattr(os, "fdatasync", synced)
        write_some(store, acknowledged, [f"t{i}" for i in range(20)])
    assert dropped
    assert b"".join(dropped) in b"".join(dirty)
    abandon(store)
    assert found_in(tmp_path) == acknowledged


def test_what_a_killed_process_left_unsynced_is_synced_before_it_counts(tmp_path, monkeypatch):
    store, acknowledged = open_store(tmp_path), []
    write_some(store, acknowledged, ["a"])
    with monkeypatch.context() as patch:
        fail_calls(patch, 2, 1_000_000, Crash)  # the record is written, the sync is not done
        with pytest.raises(Crash):
            write_some(store, acknowledged, ["b"])
    abandon(store)
    synced, real, journal, events = [], os.fdatasync, journal_of(tmp_path), next(tmp_path.rglob("*.events.jsonl"))

    def sync(descriptor):
        synced.append((os.path.sameopenfile(descriptor, watched), len(events.read_bytes().splitlines())))
        real(descriptor)

    watched = os.open(journal, os.O_RDONLY)
    monkeypatch.setattr(os, "fdatasync", sync)
    again = open_store(tmp_path)
    assert [record.id for record in again.find("p1", "things")] == ["a", "b"]
    assert synced == [(True, 1)]
    assert [event["what"] for event in again.events("p1")] == ["a", "b"]
    again.close()
    os.close(watched)


def test_a_crash_at_any_system_call_loses_nothing(tmp_path, monkeypatch):
    names, survived = [f"t{i}" for i in range(14)], 0
    for turn in range(1, 1000):
        folder, acknowledged = tmp_path / str(turn), []
        store = open_store(folder, compact_at=300)
        with monkeypatch.context() as patch:
            failed = fail_calls(patch, turn, 1_000_000, Crash)
            try:
                write_some(store, acknowledged, names)
            except Crash:
                survived += 1
        abandon(store)
        if not failed:
            break
        ids = found_in(folder)
        assert ids == names[: len(ids)]
        assert len(acknowledged) <= len(ids) <= len(acknowledged) + 1
    assert survived > 60


@pytest.mark.parametrize(("code", "count"), [(errno.ENOSPC, 1), (errno.ENOSPC, 5), (errno.EIO, 2)])
def test_an_error_at_any_system_call_is_got_over(tmp_path, monkeypatch, code, count):
    names, raised = [f"t{i}" for i in range(14)], StorageFull if code == errno.ENOSPC else OSError
    for turn in range(1, 1000):
        folder, acknowledged = tmp_path / str(turn), []
        store = open_store(folder, compact_at=300)
        with monkeypatch.context() as patch:
            failed = fail_calls(patch, turn, count, lambda: OSError(code, "it failed"))
            for name in names:
                with suppress(raised):
                    write_some(store, acknowledged, [name])
                assert [record.id for record in store.find("p1", "things")] == acknowledged
        write_some(store, acknowledged, ["last"])
        store.close()
        assert found_in(folder) == acknowledged
        if not failed:
            break
    assert turn > 60


def test_a_sync_that_fails_undoes_all_that_waited_for_it(tmp_path, monkeypatch):
    real, dice = os.fdatasync, random.Random(1)
    acknowledged, refused = [], []

    def unreliable(descriptor):
        time.sleep(0.0005)  # others append in the meantime
        if dice.random() < 0.1:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    def write(who):
        for i in range(40):
            try:
                write_some(store, acknowledged, [f"{who}-{i}"])
            except OSError:
                refused.append(f"{who}-{i}")

    store = open_store(tmp_path, compact_at=2000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", unreliable)
        threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {record.id for record in store.find("p1", "things")} == set(acknowledged)
    store.close()
    assert len(acknowledged) + len(refused) == 320
    assert refused
    assert sorted(found_in(tmp_path)) == sorted(acknowledged)


@pytest.fixture
def compacted(tmp_path):
    """A folder with a snapshot, and events behind it that only the journal makes sure of."""
    store, names = open_store(tmp_path, compact_at=900), [f"t{i}" for i in range(12)]
    write_some(store, [], names)
    store.close()
    return tmp_path / "projects" / "p1.json"


def refuses(folder, file):
    store = open_store(folder)
    with pytest.raises(IntegrityError, match=file):
        store.find("p1", "things")
    store.close()


def test_a_damaged_snapshot_is_never_read(compacted, tmp_path):
    data = compacted.read_bytes()
    for at in range(len(data)):
        compacted.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        refuses(tmp_path, "p1.json")
    compacted.write_bytes(data[:-1])
    refuses(tmp_path, "p1.json")
    compacted.unlink()
    refuses(tmp_path, "p1.json")


def test_events_that_a_power_cut_took_come_back_from_the_journal(compacted, tmp_path):
    file, sure = compacted.with_suffix(".events.jsonl"), read_snapshot(compacted).meta.events_size
    data = file.read_bytes()
    assert 0 < sure < len(data)
    for cut in range(sure, len(data) + 1):
        for tail in (b"", bytes(20)):
            file.write_bytes(data[:cut] + tail)
            store = open_store(tmp_path)
            assert [event["what"] for event in store.events("p1")] == [f"t{i}" for i in range(12)]
            store.close()
    file.write_bytes(data[: sure - 1])
    refuses(tmp_path, file.name)


@pytest.mark.soak
@pytest.mark.parametrize("snapshot", [False, True])
def test_event_with_any_flipped_byte_is_named_and_never_served(tmp_path, snapshot):
    """Events that the journal holds are written again from it; all others are kept, named, and marked in lists."""
    store = open_store(tmp_path)
    write_some(store, [], [f"t{i}" for i in range(5)])
    if snapshot:
        store.rewrite_files("p1")
    store.close()
    file = tmp_path / "projects" / "p1.events.jsonl"
    data, lines = file.read_bytes(), file.read_bytes().splitlines()
    ends = [sum(len(line) + 1 for line in lines[: i + 1]) for i in range(5)]
    expected = [msgspec.json.decode(line) for line in lines]
    for at in range(0, len(data), STRIDE):
        file.write_bytes(flipped(data, at, at % 8))
        store = open_store(tmp_path)
        if not snapshot:
            assert store.events("p1") == expected
            store.verify("p1")
            store.close()
            assert file.read_bytes() == data
            continue
        hit = sum(end <= at for end in ends)
        refused = ""
        try:
            found = store.events("p1")
        except IntegrityError as error:
            refused = error.message
        if refused:  # the snapshot names another newest event
            assert file.name in refused
            assert hit == 4 or at == ends[3] - 1, at  # the newline before it
        else:
            damaged = {event["seq"] - 1 for event in found if event.get("action") == "event.damaged"}
            assert {hit} <= damaged <= {hit, hit + 1}, at  # the next one cannot be verified if this link is gone
            assert [event for event in found if event["seq"] - 1 not in damaged] == [
                event for i, event in enumerate(expected) if i not in damaged
            ]
            assert store.events("p1", newest_first=True) == found[::-1]
            assert store.events("p1", after=2, limit=2) == found[2:4]
            assert store.events("p1", newest_first=True, after=3) == found[1::-1]
            with pytest.raises(IntegrityError, match=file.name):
                store.verify("p1")
            with pytest.raises(IntegrityError, match=file.name):
                list(store.snapshot("p1").events())
        store.close()
        assert file.read_bytes() == flipped(data, at, at % 8)


def test_a_drop_that_ends_midway_is_ended_later(tmp_path, monkeypatch):
    names = [f"t{i}" for i in range(6)]
    for turn in range(1, 100):
        folder = tmp_path / str(turn)
        store = open_store(folder, compact_at=300)
        write_some(store, [], names)
        with monkeypatch.context() as patch:
            failed = fail_calls(patch, turn, 1_000_000, Crash)
            with suppress(Crash):
                store.drop("p1")
        abandon(store)
        again = open_store(folder)
        there = again.spaces()
        again.close()
        assert found_in(folder) == (names if there else [])
        if not failed:
            break
    assert turn > 3


def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root on Linux only")
    try:
        store, acknowledged, full = open_store(disk / "data", compact_at=3000), [], 0
        for i in range(1500):
            try:
                write_some(store, acknowledged, [f"t{i}-{'x' * 100}"])
            except StorageFull:
                full += 1
        assert full
        assert [record.id for record in store.find("p1", "things")] == acknowledged
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        write_some(store, acknowledged, ["room again"])
        store.close()
        assert found_in(disk / "data") == acknowledged
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
