"""Ports for programs that tests start and that cannot announce a port of their own choice.

Asking the kernel for a free port and releasing it again is a race: any connection that is opened meanwhile may get the
same number. A port below the kernel's range for outgoing connections is only taken by somebody who asks for it by
number, and a lock file excludes all other test processes until this one ends.
"""

import os
import random
import socket
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

FIRST, LAST = 20_000, 30_000
"""Below the ranges for outgoing connections of Linux (32,768) and macOS (49,152)."""

_held: list[FileLock] = []


def reserved_port() -> int:
    """Return a TCP port of 127.0.0.1 that no other test uses until this process ends."""
    folder = Path(tempfile.gettempdir()) / f"lmvp-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in random.sample(range(FIRST, LAST), LAST - FIRST):
        lock = FileLock(folder / str(port), blocking=False)
        try:
            lock.acquire()
        except Timeout:
            continue
        _held.append(lock)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
