"""Killing a process at its nth step on the disk, or refusing it that step; every step, one after the other."""

import errno
import os
import signal
import sys
import traceback
from contextlib import contextmanager

STEPS = ("open", "write", "fsync", "fdatasync", "replace", "rename", "unlink", "utime", "mkdir", "ftruncate", "rmdir")
WRITES = ("write",)


@contextmanager
def acting_at(number, act, names=STEPS):
    """Call `act(function name)` before the step of this number, counted from 1; give the list of steps done."""
    done = []
    real = {name: getattr(os, name) for name in names}

    def wrap(name):
        def step(*args, **options):
            if name != "open" or (len(args) > 1 and args[1] & (os.O_WRONLY | os.O_RDWR)):
                done.append(name)
                if len(done) == number:
                    act(name)
            return real[name](*args, **options)

        return step

    for name in names:
        setattr(os, name, wrap(name))
    try:
        yield done
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def killed_at(number, work):
    """Do some work in a child that is killed with SIGKILL before its nth step; tell whether it got that far.

    `work` gets a function that acknowledges: what it was called with before the end is returned too.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _run(number, work, writing)
    os.close(writing)
    with os.fdopen(reading) as file:
        acknowledged = file.read().split()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True, acknowledged
    assert os.WEXITSTATUS(status) == 0, "the work failed by itself; see above"
    return False, acknowledged


def _run(number, work, writing):
    real = os.write

    def acknowledge(word):
        real(writing, f"{word} ".encode())

    try:
        with acting_at(number, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            work(acknowledge)
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    os._exit(code)


def full(_name):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
