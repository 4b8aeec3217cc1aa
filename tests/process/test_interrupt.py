"""Ctrl-C in the middle of a push or a pull, and a failure of one thread, end the others soon."""

import os
import signal
import threading
import time

import pytest
from support.models import same, weights

import lmvp
from lmvp.transfer.progress import Stopped, Workers

SLOW = 4e6
"""Bytes a second at which the model below takes far longer than anybody waits."""


class Interrupt:
    """A progress that sends Ctrl-C when the first bytes have travelled."""

    def __init__(self, after):
        self.after, self.at, self.done = after, None, 0

    def __call__(self, done, _total):
        self.done = done
        if self.at is None and done > self.after:
            self.at = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_a_pull_that_is_under_way(link, another_machine):
    tree = weights(layers=24)
    total = lmvp.update("d/m", tree, progress=False).size
    another_machine()
    link.down.rate = SLOW
    press = Interrupt(after=total / 8)  # past what the link is measured by
    with pytest.raises(KeyboardInterrupt):
        link.client().download("d/m", progress=press)
    assert press.done < total / 2
    link.down.rate = None
    assert same(link.client().download("d/m", progress=False), tree)


def test_ctrl_c_ends_a_push_that_is_under_way(link):
    tree = weights(layers=24)
    total = lmvp.update("other/m", weights(layers=24, seed=9), progress=False).size
    link.up.rate = SLOW
    press = Interrupt(after=total * 9 / 16)  # all is hashed, which is half of the way, and sending goes on in threads
    with pytest.raises(KeyboardInterrupt):
        link.client().update("d/m", tree, progress=press, create=True)
    assert link.up.bytes < total / 2
    link.up.rate = None
    assert same(link.client().download(link.client().update("d/m", tree, progress=False).reference), tree)


def test_where_one_thread_fails_the_others_leave_off_and_its_error_is_seen():
    workers, begun, left = Workers(), threading.Barrier(3), []

    def work():
        if begun.wait(5) == 0:
            raise OSError("the disk is full")
        try:
            for _ in range(1000):
                workers.raise_if_stopped()
                time.sleep(0.01)
        except Stopped:
            left.append(True)
            raise

    with pytest.raises(OSError, match="the disk is full"):
        workers.run(work, 3)
    assert left == [True, True]
