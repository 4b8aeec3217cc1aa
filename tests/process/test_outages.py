"""Training goes on whatever becomes of the server, and every point is there afterwards, once."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import lmvp
from lmvp.cli import main
from lmvp.tracking import unsent

pytestmark = pytest.mark.server_process

ROOT = Path(__file__).resolve().parents[2]

TRAINER = """
import sys, time
import lmvp
run = lmvp.start_run("digits", name="killed-run-1", params={"lr": 0.5}, system_metrics=False, create=True)
step = 0
while True:
    run.log({"train/loss": 1.0 / (step + 1), "val/acc": step / 2}, step=step)
    step += 1
    if step % 100 == 0:
        print(step, flush=True)
"""


STALLS = """
import select, sys, time
longest = 0.0
print(flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:  # half of the time it works, as a loop that trains does
    last = end = time.perf_counter()
    while last < end + 0.005:
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
print(longest)
"""


@pytest.fixture
def stalls():
    """What gives the longest time for which this machine did not let another process go on, since the start."""
    with subprocess.Popen(
        [sys.executable, "-c", STALLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        it.stdout.readline()
        yield lambda: float(it.communicate("\n", timeout=60)[0])


@pytest.mark.slow
def test_a_hundred_thousand_steps_while_the_server_is_killed_five_times(server, stalls):
    run = lmvp.start_run("digits", system_metrics=False, create=True)
    longest, killed = 0.0, threading.Event()

    def kill_and_start():
        for _ in range(5):
            time.sleep(1.0)
            server.kill()
            time.sleep(0.7)
            server.start()
        killed.set()

    killer = threading.Thread(target=kill_and_start)
    killer.start()
    for step in range(100_000):
        before = time.perf_counter()
        run.log({"train/loss": 1.0 / (step + 1), "val/acc": step * 0.5}, step=step)
        longest = max(longest, time.perf_counter() - before)
        if step % 20 == 0 and not killed.is_set():
            time.sleep(0.0018)
    killer.join()
    run.flush(60.0)  # the last of the servers may still be starting
    run.finish()
    history = lmvp.run(run.id, "digits").history()
    assert list(history) == ["train/loss", "val/acc"]
    assert history["train/loss"]["step"].tolist() == list(range(100_000))
    assert (history["train/loss"]["value"] == 1.0 / (np.arange(100_000) + 1)).all()
    assert (history["val/acc"]["value"] == np.arange(100_000) * 0.5).all()
    known = lmvp.run(run.id, "digits").keys()
    assert [each.count for each in known] == [100_000, 100_000]
    assert longest < 0.05 + stalls(), "a step waited longer than this machine makes any process wait"
    assert not run.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("is_there", [True, False])
def test_a_killed_trainer_loses_nothing_and_sync_delivers_it(server, is_there, capsys):
    if not is_there:
        server.kill()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        process.stdout.readline()
        time.sleep(1.5)
        process.send_signal(signal.SIGKILL)
        logged = [int(line) for line in process.stdout if line.endswith("\n")][-1]
    if not is_there:
        server.start()
    assert main(["sync"]) == 0
    assert "killed-run-1" in capsys.readouterr().out
    run = lmvp.run("killed-run-1", "digits")
    assert run.status == "killed"
    assert run.params == {"lr": 0.5}
    history = run.history()
    for key, value in (("train/loss", lambda step: 1.0 / (step + 1)), ("val/acc", lambda step: step / 2)):
        steps = history[key]["step"]
        assert len(steps) >= logged > 1000
        assert steps.tolist() == list(range(len(steps)))
        assert (history[key]["value"] == value(steps)).all()
    assert unsent.deliver() == []
    assert main(["sync"]) == 0


def test_a_server_that_hangs_holds_nobody(server, stalls):
    run = lmvp.start_run("digits", system_metrics=False, create=True)
    run.log({"loss": 1.0})
    run.flush()
    server.stop()
    longest = 0.0
    for step in range(1, 3000):
        before = time.perf_counter()
        run.log({"loss": float(step)})
        longest = max(longest, time.perf_counter() - before)
    assert longest < 0.05 + stalls()
    threading.Timer(1.0, server.go_on).start()
    assert len(run.history()["loss"]) == 3000
    run.finish()


def test_a_run_without_a_server_waits_on_this_machine(server, capsys):
    server.kill()
    with lmvp.start_run("digits", name="lonely", system_metrics=False, create=True) as run:
        for step in range(100):
            run.log({"loss": step / 2}, step=step)
    assert "`lmvp sync` delivers it" in capsys.readouterr().err
    (waiting,) = unsent.deliver(dry_run=True)
    assert (waiting.name, waiting.state) == ("lonely", "waiting")
    (waiting,) = unsent.deliver()
    assert (waiting.state, "no answer" in waiting.why) == ("waiting", True)
    server.start()
    (delivered,) = unsent.deliver()
    assert delivered.state == "delivered"
    found = lmvp.run("lonely", "digits")
    assert (found.status, len(found.history()["loss"])) == ("finished", 100)


def test_damaged_journal_is_kept_and_named_by_sync(server, capsys):
    """The frames before the damage are delivered; with the bit flipped back, sync delivers all of them."""
    server.kill()
    with lmvp.start_run("digits", name="bent", system_metrics=False, create=True) as run:
        for step in range(50):
            run.log({"loss": step / 2}, step=step)
    capsys.readouterr()
    server.start()
    (journal,) = run.folder.glob("*.journal")
    whole = journal.read_bytes()
    at = whole.index(struct.pack("<qd", 25, 12.5))  # step and value
    journal.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    damaged = journal.read_bytes()
    for _ in range(2):
        (waiting,) = unsent.deliver()
        assert (waiting.state, waiting.name) == ("waiting", "bent")
        assert f"{journal} is damaged from byte" in waiting.why
        assert journal.read_bytes() == damaged
    assert len(lmvp.run("bent", "digits").history()["loss"]) == 25
    journal.write_bytes(whole)
    (delivered,) = unsent.deliver()
    assert delivered.state == "delivered"
    assert len(lmvp.run("bent", "digits").history()["loss"]) == 50
    assert not run.folder.exists()


def test_flip_in_a_log_of_the_server_is_stated_and_the_run_sends_the_points_again(server):
    with lmvp.start_run("digits", name="flipped", system_metrics=False, create=True) as run:
        for step in range(50):
            run.log({"loss": step / 2}, step=step)
            if step % 10 == 0:
                run.flush()
        run.flush()
        server.kill()
        (log,) = server.data.glob(f"series/*/{run.id}/0.wal")
        data = log.read_bytes()
        at = data.index(struct.pack("<qd", 25, 12.5))  # step and value
        log.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        damaged = log.read_bytes()
        server.start()
        found = lmvp.run("flipped", "digits")
        assert "0.wal is damaged from byte" in found._record.incomplete
        with pytest.warns(UserWarning, match=r"points are missing: 0\.wal is damaged from byte"):
            (curve,) = found._client.curves("digits", [run.id]).curves
        assert 10 < len(curve.steps) < 50
        with pytest.raises(lmvp.errors.IntegrityError, match=r"0\.wal is damaged"):
            found.history()
        run.log({"loss": 25.0}, step=50)
        run.flush()
        with pytest.warns(UserWarning, match="points are missing"):
            (curve,) = found._client.curves("digits", [run.id]).curves
        assert curve.values == tuple(step / 2 for step in range(51))
        assert log.read_bytes() == damaged


def test_the_next_start_delivers_what_was_left(server, monkeypatch):
    from lmvp.tracking import start

    server.kill()
    with lmvp.start_run("digits", name="first", system_metrics=False, create=True) as run:
        run.log({"loss": 1.0})
    server.start()
    monkeypatch.setattr(start, "_exit", None)
    with lmvp.start_run("digits", name="second", system_metrics=False, create=True):
        deadline = time.monotonic() + 10
        while run.folder.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert lmvp.run("first", "digits").history()["loss"]["value"].tolist() == [1.0]


def test_what_waits_can_be_discarded(server, capsys):
    server.kill()
    with lmvp.start_run("digits", name="unwanted", system_metrics=False, create=True) as run:
        run.log({"loss": 1.0})
    assert main(["sync", "--discard", "unwanted"]) == 0
    assert not run.folder.exists()
    assert main(["sync", "--discard", "unwanted"]) == 3


def log_slowly(run):
    for step in range(20):
        run.log({"loss": 1.0}, step=step)
        time.sleep(0.05)


def test_a_run_that_is_removed_while_it_runs_says_so_and_goes_on(server):
    run = lmvp.start_run("digits", system_metrics=False, create=True)
    run.log({"loss": 1.0})
    run.flush()
    record = lmvp.run(run.id, "digits").end("killed")
    record.delete()
    with pytest.warns(UserWarning, match="removed"):
        log_slowly(run)
    run.finish()
    with pytest.raises(lmvp.errors.NotFound):
        lmvp.run(run.id, "digits")
