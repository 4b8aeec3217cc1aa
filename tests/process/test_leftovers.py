"""Journals that wait on this machine are delivered once, and no process loses its folder to another one."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

import lmvp
from lmvp.cli import main
from lmvp.core.run_frames import START, note
from lmvp.core.schemas.runs import NewRun
from lmvp.tracking import process_lock as owners
from lmvp.tracking import unsent
from lmvp.tracking.destination import Target, journals
from lmvp.tracking.journal import Writer
from lmvp.tracking.process_lock import Process, ProcessLock
from lmvp.tracking.unsent import forget

ROOT = Path(__file__).resolve().parents[2]

NO_LOCKS = """
import errno, fcntl, os, sys
def flock(*_): raise OSError(getattr(errno, sys.argv[1]), "no locks here")
fcntl.flock = flock
"""

TRAINS = """
import time
import lmvp
run = lmvp.start_run("digits", name="trains", system_metrics=False, create=True)
for step in range(100):
    run.log({"loss": float(step)}, step=step)
run.flush()
print(run.folder, flush=True)
time.sleep(600)
"""


@pytest.fixture
def script(home):
    """Starts scripts; ends those that still run."""
    processes = []

    def start(source, *arguments, **options):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore", "-c", source, *arguments]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def no_locks(monkeypatch):
    """This process runs on a file system without locks."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.skipif(os.name != "posix", reason="flock is of POSIX")
@pytest.mark.parametrize("error", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
@pytest.mark.server_process
def test_killed_run_is_delivered_on_a_file_system_without_locks(server, script, no_locks, error):
    process = script(NO_LOCKS + TRAINS, error)
    assert process.stdout.readline()
    (delivery,) = unsent.deliver()
    assert (delivery.state, delivery.why) == ("running", "")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (delivery,) = unsent.deliver()
    assert delivery.state == "delivered"
    run = lmvp.run("trains", "digits")
    assert (run.status, len(run.history()["loss"])) == ("killed", 100)
    assert unsent.deliver() == []


@pytest.mark.server_process
def test_run_of_another_machine_without_locks_is_delivered_by_force(server, script, no_locks, capsys):
    process = script(NO_LOCKS + TRAINS, "ENOSYS")
    folder = Path(process.stdout.readline().strip())
    process.send_signal(signal.SIGKILL)
    process.wait()
    (lock,) = [path for path in folder.glob("*.lock") if path.stem != "sync"]
    elsewhere = msgspec.structs.replace(Process.current(), host="node-7", boot="0" * 32)
    lock.write_bytes(msgspec.json.encode(elsewhere))
    (delivery,) = unsent.deliver()
    assert delivery.state == "waiting"
    assert "a process on node-7 may still log to the run" in delivery.why
    assert main(["sync"]) == 0
    assert "`lmvp sync --force` delivers it" in " ".join(capsys.readouterr().out.split())
    assert [each.state for each in lmvp.sync(force=True)] == ["delivered"]
    assert lmvp.run("trains", "digits").status == "killed"


@pytest.mark.server_process
def test_owner_without_locks_is_told_by_its_process(tmp_path, no_locks):
    path = tmp_path / "x.lock"
    first, second = ProcessLock.create(path), ProcessLock(path)
    assert (second.take(), second.reason) == (False, "")
    first.release()
    assert second.take()
    second.release()
    process = Process.current()
    for changed, state in (
        ({"started": process.started - 100}, True),  # its number was given to another process
        ({"boot": "0" * 32}, True),  # before the machine was started again
        ({"host": "node-7", "boot": "0" * 32}, False),
        ({"space": "pid:[1]"}, False),
    ):
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(process, **changed)))
        owner = ProcessLock(path)
        assert owner.take() is state, changed
        assert bool(owner.reason) is not state
        owner.release()
    path.write_bytes(b"")  # of an older version, which wrote nothing
    assert not ProcessLock(path).take()
    assert ProcessLock(path).take(force=True)


def test_owner_with_a_lock_that_is_held_is_not_taken_by_its_text(tmp_path):
    path = tmp_path / "x.lock"
    owner = ProcessLock.create(path)
    assert not ProcessLock(path).take(force=True)
    owner.release()
    assert ProcessLock(path).take()


STARTS = """
import sys
import lmvp
for number in range(int(sys.argv[2])):
    with lmvp.start_run("digits", name=f"{sys.argv[1]}-{number}", system_metrics=False, capture=False) as run:
        run.log({"loss": float(number)})
        assert run.folder.is_dir()
        run.log({"loss": float(number)})
"""


def test_sync_delivers_while_other_processes_start_and_finish_runs(home, script):
    lmvp.start_run("digits", name="first", system_metrics=False).finish()
    processes = [script(STARTS, str(number), "5", stderr=subprocess.PIPE) for number in range(2)]
    while any(process.poll() is None for process in processes):
        assert {each.state for each in lmvp.sync()} <= {"running", "delivered", "waiting"}
        unsent.waiting()
    told = [line for process in processes for line in process.communicate()[1].splitlines()]
    errors = [line for line in told if not line.startswith("run digits/")]  # where each run can be looked at
    assert (errors, [process.returncode for process in processes]) == ([], [0, 0])
    lmvp.sync()
    runs = {run.name: run for run in lmvp.runs("digits")}
    assert set(runs) == {"first", *(f"{process}-{number}" for process in range(2) for number in range(5))}
    for name, run in runs.items():
        assert run.status == "finished", name
        if name != "first":
            assert run.history()["loss"]["value"].tolist() == [float(name[-1])] * 2
    assert [sorted(path.name for path in folder.iterdir()) for folder in journals().iterdir()] == []


def started(folder, run):
    return Writer(folder, note(START, msgspec.json.encode(NewRun(run=run, joins=True)))[8:], target=Target("digits"))


def moments():
    """Yield for at most 20 seconds, with a pause of a millisecond."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        yield
        time.sleep(0.001)


def appears(path):
    return any(path.is_file() for _ in moments())


def removed(path):
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def test_folder_is_not_deleted_under_a_writer_that_begins_at_the_same_time(home):
    """Writers begin in a folder that another thread deletes whenever nobody holds a lock in it."""
    folder, done = journals() / ("a" * 32), threading.Event()

    def delete():
        while not done.is_set():
            forget(folder, set())

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        for _ in range(200):
            writer = started(folder, "a" * 32)
            # The deletion moves the folder away, finds the new journal, and moves the folder back.
            assert appears(writer.journal.path)
            assert appears(writer.journal.path.with_suffix(".lock"))
            writer.journal.append(b"\x03")
            assert appears(writer.journal.path)
            assert any(not writer.journal.is_deleted() for _ in moments())
            assert any(removed(writer.journal.path) for _ in moments())
            writer.close()
    finally:
        done.set()
        thread.join()


def test_folder_with_a_journal_that_is_not_delivered_is_kept(home):
    folder = journals() / ("b" * 32)
    first = started(folder, "b" * 32)
    first.close()
    second = started(folder, "b" * 32)
    second.close()
    forget(folder, {first.journal.path.name})
    assert {path.stem for path in folder.glob("*.journal")} == {first.id, second.id}
    forget(folder, {first.journal.path.name, second.journal.path.name})
    assert list(journals().iterdir()) == []


def test_folder_of_an_interrupted_deletion_is_found_again(home):
    folder = journals() / ("c" * 32)
    started(folder, "c" * 32).close()
    folder.rename(journals() / f".gone-{folder.name}-0123abcd")
    assert [each.run for each in unsent.deliver(dry_run=True)] == [folder.name]


def test_discard_keeps_the_journals_of_a_run_that_goes_on(begin):
    run = begin(name="goes-on")
    with pytest.raises(lmvp.errors.Conflict, match="is running"):
        unsent.discard("goes-on")
    run.log({"loss": 1.0})
    assert run.history()["loss"]["value"].tolist() == [1]


def test_run_is_delivered_in_the_background_when_its_server_answers_again(server, monkeypatch, capsys):
    monkeypatch.setattr(unsent, "_SOONEST", 0.05)
    server.kill()
    with lmvp.start_run("digits", name="later", system_metrics=False, create=True) as run:
        run.log({"loss": 1.0})
        while run._sender.trouble is None:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 4, "the end of a run does not wait until the server answers"
    assert "is delivered when the server answers again" in capsys.readouterr().err
    server.start()
    while run.folder.exists():
        time.sleep(0.05)
    assert lmvp.run("later", "digits").history()["loss"]["value"].tolist() == [1]


@pytest.mark.server_process
def test_leaving_a_run_tells_soon_that_the_server_does_not_answer(server, capsys):
    """The server takes connections, but is stopped."""
    run = lmvp.start_run("digits", name="stopped", system_metrics=False, create=True)
    run.log({"loss": 1.0})
    run.flush()
    server.stop()
    run.log({"loss": 2.0})
    began = time.monotonic()
    run.finish()
    took = time.monotonic() - began
    server.go_on()
    assert took < 4
    assert "is kept on this machine" in capsys.readouterr().err
    unsent.deliver()
    assert lmvp.run("stopped", "digits").history()["loss"]["value"].tolist() == [1, 2]


def test_resumed_journals_are_delivered_in_the_order_of_their_attempts(tmp_path):
    for name, new in (
        ("c", NewRun(run="d" * 32)),
        ("a", NewRun(run="d" * 32, epoch=1_800_000_000_000, resume=True)),
        ("b", NewRun(run="d" * 32, joins=True)),
    ):
        (tmp_path / f"{name}.journal").write_bytes(note(START, msgspec.json.encode(new)))
    assert [path.stem for path in unsent._main_first(tmp_path)] == ["c", "a", "b"]


def test_end_of_a_killed_run_is_not_told_by_the_times_that_its_points_were_given(script):
    source = TRAINS.replace("step=step)", "step=step, time=step)")
    process = script(source)
    assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    unsent.deliver()
    record = lmvp.run("trains", "digits").record
    assert record.status == "killed"
    assert abs(record.ended_at.timestamp() - time.time()) < 120
    assert owners.ATTEMPTS > 1
