"""The status of a run is that of the process, the function or the cell that began it, whatever ends it."""

import asyncio
import concurrent.futures
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lmvp
from lmvp import local
from lmvp.tracking import unsent
from lmvp.tracking.status import Task, how_it_ended

ROOT = Path(__file__).resolve().parents[2]

BEGIN = """
import concurrent.futures, multiprocessing, os, sys, threading
import lmvp

def begin(name="run"):
    run = lmvp.start_run("outcome", name=name, system_metrics=False)
    run.log({"a": 1.0})
    return run
"""


@pytest.fixture
def execute(home, tmp_path):
    """Runs a script to its end; returns its exit code, and the status and the reason of each run by its name."""

    def run(source):
        path = tmp_path / "train.py"
        path.write_text(BEGIN + source)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, str(path)], env=environment, capture_output=True, check=False, timeout=90
        )
        unsent.deliver()
        runs = lmvp.runs("outcome")
        return done.returncode, {run.name: (run.status, run.record.error) for run in runs}

    yield run
    local.stop()


@pytest.mark.parametrize(
    ("end", "code", "status", "reason"),
    [
        ("", 0, "finished", ""),
        ("sys.exit()", 0, "finished", ""),
        ("sys.exit(0)", 0, "finished", ""),
        ("sys.exit(2)", 2, "failed", "SystemExit: 2"),
        ("sys.exit('no data')", 1, "failed", "SystemExit: no data"),
        ("raise SystemExit(3)", 3, "failed", "SystemExit: 3"),
        ("raise SystemExit", 0, "finished", ""),
        ("exit(4)", 4, "failed", "SystemExit: 4"),
        ("os._exit(0)", 0, "killed", "the process ended without a word"),
        ("os._exit(3)", 3, "killed", "the process ended without a word"),
        ("sys.excepthook = lambda *_: None; raise ValueError('x')", 1, "failed", "ValueError: x"),
        ("\ntry: sys.exit(2)\nexcept SystemExit: pass", 0, "finished", ""),
    ],
)
def test_status_is_that_of_the_script(execute, end, code, status, reason):
    assert execute(f"begin()\n{end}") == (code, {"run": (status, reason)})


def test_status_is_failed_where_the_exit_code_of_a_script_is_not_known(execute):
    code, found = execute("def main(): begin(); return 3\nraise SystemExit(main())")
    assert (code, found["run"][0]) == (3, "failed")


RANKS = """
def rank(ends):
    begin(ends)
    if ends == "raises": raise ValueError("boom")
    if ends == "exits": sys.exit(5)

if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    for ends in ("raises", "exits", "returns"):
        process = context.Process(target=rank, args=(ends,))
        process.start()
        process.join()
"""


@pytest.mark.parametrize("method", [each for each in ("spawn", "fork") if each == "spawn" or hasattr(os, "fork")])
def test_status_is_that_of_the_rank(execute, method):
    _, found = execute(RANKS.replace("METHOD", repr(method)))
    assert found == {
        "raises": ("failed", "ValueError: boom"),
        "exits": ("failed", "SystemExit: 5"),
        "returns": ("finished", ""),
    }


POOLS = """
def work(ends):
    begin(f"{KIND}-{ends}")
    if ends == "raises": raise ValueError("boom")

def execute(ends):
    begin(f"executor-{ends}")
    if ends == "raises": raise ValueError("boom")

KIND = sys.argv[1] if len(sys.argv) > 1 else "pool"

def threads():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for ends in ("raises", "returns"):
            pool.submit(thread, ends).exception()

def thread(ends):
    begin(f"thread-{ends}")
    if ends == "raises": raise ValueError("boom")

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for ends in ("raises", "returns"):
        pool = context.Pool(1)
        try: pool.apply(work, (ends,))
        except ValueError: pass
        pool.close()
        pool.join()
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            executor.submit(execute, ends).exception()
    threads()
"""


def test_status_is_that_of_the_function_in_a_pool(execute):
    """The worker, and the process with the threads, end without an exception: their functions raised it."""
    _, found = execute(POOLS)
    assert found == {
        "pool-raises": ("failed", "work was left by an exception"),
        "pool-returns": ("finished", ""),
        "executor-raises": ("failed", "execute was left by an exception"),
        "executor-returns": ("finished", ""),
        "thread-raises": ("failed", "thread was left by an exception"),
        "thread-returns": ("finished", ""),
    }


def test_run_goes_on_that_is_logged_to_after_its_function_raised(execute):
    _, found = execute(
        "import time\nrun = []\n"
        "def work(): run.append(begin()); raise ValueError\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "while not run[0]._abandoned: time.sleep(0.05)\n"
        "run[0].log({'a': 2.0})\n"
    )
    assert found == {"run": ("finished", "")}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, ("finished", "")),
        (SystemExit(), ("finished", "")),
        (SystemExit(0), ("finished", "")),
        (SystemExit(0.0), ("failed", "SystemExit: 0.0")),
        (SystemExit(""), ("failed", "SystemExit")),
        (SystemExit("no data\nat all"), ("failed", "SystemExit: no data")),
        (KeyboardInterrupt(), ("killed", "KeyboardInterrupt")),
        (asyncio.CancelledError(), ("killed", "CancelledError")),
        (concurrent.futures.CancelledError(), ("failed", "CancelledError")),
        (ValueError(" two\nlines "), ("failed", "ValueError: two")),
    ],
)
def test_outcome_of_an_exception(error, told):
    assert how_it_ended(error) == told


def test_outcome_of_an_exception_without_a_text():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert how_it_ended(Mute()) == ("failed", "Mute")


def test_task_tells_whether_it_returned_and_keeps_no_variables():
    class Big:
        pass

    tasks, big = [], []

    def work(end):
        import weakref

        large = Big()
        big.append(weakref.ref(large))
        tasks.append(Task(sys._getframe()))
        assert not tasks[-1].look()
        return end()

    def refuse():
        raise ValueError("refused")

    work(lambda: None)
    with pytest.raises(ValueError, match="refused"):
        work(refuse)
    assert [task.look() for task in tasks] == [False, True]
    assert big[0]() is None
