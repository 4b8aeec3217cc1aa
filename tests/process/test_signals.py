"""A signal handler may log, amend and finish the run, whatever instruction it interrupts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from support.soak import size

import lmvp
from lmvp.core.run_frames import whole_frames, whole_size
from lmvp.tracking import journal as journals
from lmvp.tracking.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
TRACKING = Path(journals.__file__).parent
CORE = TRACKING.parent / "core"
INTERRUPTED = (
    str(TRACKING),
    *(str(CORE / f"{name}.py") for name in ("run_fields", "run_frames", "metric_values", "framing")),
)
"""The code of runs, which a handler can interrupt."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no user signals here")


class Interruption:
    """Delivers a signal at one instruction of LMVP's code, counted from the call of `at`."""

    def __init__(self, handler):
        self.handler, self.inside = handler, False
        self.before = signal.signal(signal.SIGUSR1, self._handle)

    def _handle(self, *_):
        self.inside = True  # instructions of the handler do not count
        try:
            self.handler()
        finally:
            self.inside = False

    def at(self, instruction, work):
        """Do some work, and deliver the signal at an instruction; return whether there was one."""
        seen, self.left = sys.gettrace(), instruction

        def trace(frame, event, _):
            if self.inside or not frame.f_code.co_filename.startswith(INTERRUPTED):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                self.left -= 1
                if self.left == -1:
                    signal.raise_signal(signal.SIGUSR1)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(seen)
        return self.left < 0

    def close(self):
        signal.signal(signal.SIGUSR1, self.before)


@pytest.fixture
def interrupt():
    made = []

    def make(handler):
        made.append(Interruption(handler))
        return made[-1]

    yield make
    for each in made:
        each.close()


def numbers(journal):
    return [int(body[:8]) for _, body, _ in whole_frames(journal.read(0, 1 << 30))]


def frame(number, length=0):
    return b"\x03%08d" % number + bytes(length)


@pytest.mark.parametrize("length", [0, 900_000], ids=["in the room", "in new room"])
def test_journal_keeps_frames_that_handlers_store_at_any_instruction(tmp_path, interrupt, length):
    journal, number = Journal(tmp_path / "x.journal"), count()
    interruption = interrupt(lambda: journal.append(frame(next(number), length)))
    for instruction in count():
        if not interruption.at(instruction, lambda: journal.append(frame(next(number), length))):
            break
    assert instruction > 50
    assert sorted(numbers(journal)) == list(range(next(number)))
    assert whole_size(journal.read(0, 1 << 40)) == journal.size
    journal.close()
    assert journal.path.stat().st_size == journal.size


def test_journal_keeps_frames_of_handlers_where_the_disk_is_full(tmp_path, interrupt, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def store(journal, number, instruction):
        for name in ("posix_fallocate", "ftruncate"):
            monkeypatch.setattr(journals.os, name, full, raising=False)
        interruption = interrupt(lambda: journal.append(frame(next(number), 600_000)))
        interruption.at(instruction, lambda: journal.append(frame(next(number), 600_000)))
        journal.append(frame(next(number), 10))
        monkeypatch.undo()
        interruption.close()

    for instruction in range(0, 400, 3):
        journal, number = Journal(tmp_path / f"{instruction}.journal"), count()
        journal.append(frame(next(number), 600_000))
        with pytest.warns(UserWarning, match="No space left"):
            store(journal, number, instruction)
        found, at = [], 0
        while part := journal.read(at, 1 << 20):
            found += [int(body[:8]) for _, body, _ in whole_frames(part)]
            at += len(part)
        assert sorted(found) == list(range(next(number))), instruction
        journal.close()


def test_journal_keeps_frames_when_a_handler_raises_at_any_instruction(tmp_path, interrupt):
    """Ctrl-C: the interrupted frame may be there or not, but each other one is there once."""
    journal, number = Journal(tmp_path / "x.journal"), count()

    def stop():
        raise KeyboardInterrupt

    interruption, certain = interrupt(stop), []
    for instruction in range(200):
        first = next(number)
        try:
            interruption.at(instruction, lambda first=first: journal.append(frame(first)))
        except KeyboardInterrupt:
            sys.settrace(None)
        certain.append(next(number))
        journal.append(frame(certain[-1]))
    found = Counter(numbers(journal))
    assert set(found.values()) == {1}
    assert set(certain) <= set(found)


def test_sealed_journal_gives_each_later_frame_to_its_successor(tmp_path, interrupt):
    """A handler that seals the journal, at any instruction of a store: the frame is in one of the two, once."""
    for instruction in count():
        journal, later = Journal(tmp_path / f"{instruction}.a"), Journal(tmp_path / f"{instruction}.b")
        journal.successor = lambda later=later: later
        interruption = interrupt(journal.seal)
        reached = interruption.at(instruction, lambda journal=journal: journal.append(frame(1)))
        journal.seal()
        journal.append(frame(2))
        assert numbers(journal) + numbers(later) == [1, 2]
        for each in (journal, later):
            each.close()
        interruption.close()
        if not reached:
            break
    assert instruction > 30


def test_journal_takes_frames_of_threads_and_of_handlers_at_once(tmp_path):
    journal, each = Journal(tmp_path / "x.journal"), 20_000
    handled = count(1_000_000)

    def work(thread):
        for number in range(each):
            journal.append(frame(thread * each + number, number % 50))

    before = signal.signal(signal.SIGALRM, lambda *_: journal.append(frame(next(handled))))
    threads = [threading.Thread(target=work, args=[number]) for number in range(1, 4)]
    try:
        for thread in threads:
            thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        work(0)
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = numbers(journal)
    by_thread = [[number for number in found if number // each == thread] for thread in range(4)]
    assert by_thread == [list(range(thread * each, thread * each + each)) for thread in range(4)]
    assert sorted(number for number in found if number >= 1_000_000) == list(range(1_000_000, next(handled)))
    assert len(found) > 4 * each


@pytest.mark.soak
def test_run_keeps_all_that_handlers_log_at_any_instruction(begin, interrupt):
    """Points, tags, params and the summary, in a handler that interrupts the same, at each instruction."""
    run, steps = begin(), count()

    def everything():
        step = next(steps)
        run.log({"point": float(step), f"key/{step % 7}": 1.0}, step=step)
        run.log({f"new/{step}": step}, step=step)
        run.tags[f"tag/{step}"] = step
        run.params[f"param/{step}"] = step
        run.summary[f"best/{step}"] = step

    interruption = interrupt(everything)
    stride = max(1, 12_000 // size("SIGNALS", 40))
    for instruction in range(0, 1 << 20, stride):
        if not interruption.at(instruction, everything):
            break
    last = next(steps)
    assert last > 20
    run.finish()
    found = lmvp.run(run.id, "digits")
    history = found.history()
    assert history["point"]["step"].tolist() == list(range(last))
    assert all(history[f"new/{step}"]["value"].tolist() == [step] for step in range(last))
    assert sum(len(history[f"key/{number}"]) for number in range(7)) == last
    assert found.tags == {f"tag/{step}": str(step) for step in range(last)}
    assert found.params == {f"param/{step}": step for step in range(last)}
    assert found.summary == {f"best/{step}": step for step in range(last)}


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:the run")
def test_run_that_a_handler_finishes_at_any_instruction_loses_no_point(begin, interrupt):
    interrupted = 0
    for instruction in range(0, 700, 700 // size("FINISHES", 12)):
        run = begin()
        run.log({"loss": 0.0}, step=0)
        interruption = interrupt(lambda run=run: (run.log({"last": 1.0}), run.finish("killed", "SIGTERM")))
        began = time.monotonic()
        reached = interruption.at(instruction, lambda run=run: run.log({"loss": 1.0, "new": 2}, step=1))
        assert time.monotonic() - began < 30
        run.finish()
        interruption.close()
        history = run.history()
        assert history["loss"]["value"].tolist() == [0, 1], instruction
        assert history["new"]["value"].tolist() == [2]
        interrupted += reached
        if reached:
            assert history["last"]["value"].tolist() == [1]
            assert (lmvp.run(run.id, "digits").status, lmvp.run(run.id, "digits").record.error) == ("killed", "SIGTERM")
    assert interrupted > 5


HANDLES = """
import os, signal, sys, threading, time
import lmvp
run = lmvp.start_run("digits", name="handled", system_metrics=False)
steps = 0

def handle(*_):
    print("reading", flush=True)
    run.log({"last": 1.0})
    run.finish("killed", "SIGTERM")
    os._exit(7)  # at once: nothing that is interrupted goes on

signal.signal(signal.SIGTERM, handle)
threading.Timer(float(sys.argv[1]), os.kill, [os.getpid(), signal.SIGTERM]).start()
while True:
    run.log({"loss": float(steps)}, step=steps)
    steps += 1
"""


def test_run_that_a_handler_of_sigterm_finishes_is_delivered(home):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", HANDLES, "0.5"], env=environment, timeout=60, check=False)
    assert done.returncode == 7
    found = lmvp.run("handled", "digits")
    assert (found.status, found.record.error) == ("killed", "SIGTERM")
    history = found.history()
    assert history["last"]["value"].tolist() == [1]
    assert history["loss"]["step"].tolist() == list(range(len(history["loss"])))
    lmvp.local.stop()
