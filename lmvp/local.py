"""The server of this machine. Clients find it, or start it in the background.

A data folder has at most one server, which writes its URL and token to `server.json`. Before a client sends the token
or data over a connection, it verifies that the peer knows the token: the peer must return an HMAC of a nonce on the
same connection (`prove`). The verification is repeated for each connection, because after the exit of the server every
account of the machine can open its port.

If no server passes the verification, the client starts one. A lock ensures that only one of several processes starts
it; the others then find it. The server runs detached in its own session, so neither an interrupt in a notebook nor the
exit of the kernel stops it. It exits after one hour without requests.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from lmvp.core import files, server_file
from lmvp.core.schemas import Health
from lmvp.core.server_file import LOCK, LOG, START_LOCK, ServerFile
from lmvp.errors import Conflict, LmvpError, ServerUnavailable, StorageFull

if TYPE_CHECKING:
    from filelock import BaseFileLock

START_LIMIT = 30.0
"""Maximum duration of a start in seconds. A start takes that long only if another server is just shutting down."""

_HOME_HINT = "set LMVP_HOME to a folder where you can write, or LMVP_URL to a server"
_PATIENCE = 0.5, 2.0, 8.0
"""Timeouts of the attempts to reach a server, in seconds. Only a server that holds its lock gets a second attempt."""
_TRIES = 3
"""Maximum number of starts, for servers that were killed directly after their start."""
_PROOF_LIMIT = 1 << 16
"""Maximum size of the response to a nonce in bytes."""
_ROOM = 1 << 16
"""Free bytes on the disk below which a server cannot write the reason for a failed start to its log."""

# `python -m lmvp_server` would need the package on the path of the new process, and would add its working directory,
# the data folder, to the path: files in that folder could then be imported as modules.
_LAUNCH = (
    "import sys; sys.path[:] = [*filter(None, sys.path), sys.argv.pop(1)]; "
    "from lmvp_server.__main__ import main; sys.exit(main())"
)
_known: dict[Path, Local] = {}


@dataclass(frozen=True)
class Local:
    """A verified server of this machine.

    Attributes
    ----------
    url : str
    token : str
        The token of the operator.
    instance : str
        A random id of the server process.
    pid : int
        The id of the server process.
    binds : bool
        Whether the HMAC includes the instance. It protects against a process of another account that takes the port of
        this server and relays the nonce to its successor: the successor has another instance.
    """

    url: str
    token: str = field(repr=False)
    instance: str
    pid: int
    binds: bool = False


def connection() -> Local:
    """Return the server of this machine. The first call finds or starts it; `forget` clears the result."""
    home = server_file.data_home()
    if home not in _known:
        _known[home] = find_or_start(home)
    return _known[home]


def forget(local: Local) -> None:
    """Forget a server that did not answer, so that the next call of `connection` finds or starts one."""
    for home in [home for home, known in _known.items() if known == local]:
        _known.pop(home, None)


def find_or_start(home: Path | None = None) -> Local:
    """Return the server of a data folder; start it if it does not run.

    Raises
    ------
    ServerUnavailable
        If the server runs on another machine, or does not start. The message contains the end of its log.
    StorageReadOnly, StorageFull, InvalidArgument
        If the folder cannot be used.
    """
    folder = server_file.data_home() if home is None else home
    return find(folder) or _start(folder)


def find(home: Path) -> Local | None:
    """Return the running server of a data folder, or None.

    Raises
    ------
    ServerUnavailable
        If the server runs on another machine, or holds its lock but does not answer.
    """
    for patience in _PATIENCE:
        try:
            return _probe(home, patience)
        except TimeoutError:
            if not _held(home / LOCK):  # the server has exited, and another program uses its port
                return None
    said = server_file.read(home)
    where, process = (f" at {said.url}", said.pid) if said else ("", "unknown")
    raise ServerUnavailable(
        f"the server of {home} is there, but does not answer{where}",
        hint=f"if it was stopped or hangs, end it: its process is {process}",
    )


def _probe(home: Path, patience: float) -> Local | None:
    """Verify the server in `server.json`; return it, or None if there is no such server.

    The file is read in each attempt, because a server that is just starting replaces it.
    """
    said = server_file.read(home)
    if said is None:
        return None
    if not said.here:
        _refuse_to_guess(home, said)
        return None
    if said.rebooted or not _is_the_one(said, patience):
        return None
    return Local(said.url, said.token, said.instance, said.pid, said.binds)


def stop(home: Path | None = None) -> bool:
    """Stop the server of a data folder, and wait until it has exited; return whether it was running.

    Raises
    ------
    Conflict
        If the server does not exit within 45 seconds.
    """
    from filelock import Timeout

    folder = server_file.data_home() if home is None else home
    local = find(folder)
    if local is None:
        return False
    forget(local)
    os.kill(local.pid, signal.SIGTERM)
    try:
        with _lock(folder / LOCK, timeout=45):  # the kernel releases the lock when the process has exited
            return True
    except Timeout:
        raise Conflict(f"the server of {folder} (pid {local.pid}) does not end", hint=f"see {folder / LOG}") from None


def _refuse_to_guess(home: Path, said: ServerFile) -> None:
    """Raise an error if the server runs on another machine, unless it is silent for a long time."""
    if server_file.silent(home):
        return
    raise ServerUnavailable(
        f"the server of {home} runs on another machine, {said.host}",
        hint="set LMVP_URL to a server that all machines reach, or LMVP_HOME to a folder of this machine alone; "
        f"if that server is gone, remove {home / server_file.NAME}",
    )


def _is_the_one(said: ServerFile, patience: float) -> bool:
    """Return whether the server at the URL of `server.json` passes the verification.

    Raises
    ------
    TimeoutError
        If the peer does not answer in time: the server can be busy, so this is not a failed verification.
    """
    local = Local(said.url, said.token, said.instance, said.pid, said.binds)
    try:
        target = urlsplit(said.url)
        with socket.create_connection((target.hostname or "", target.port or 80), timeout=patience) as connection:
            prove(connection, local)
    except TimeoutError:
        raise
    except (OSError, ValueError):
        return False
    return True


def prove(connection: socket.socket, local: Local) -> None:
    """Verify that the peer of a new connection is the server of `server.json`. This takes one round trip.

    The request with the nonce is the first data on the connection. It uses the socket directly, without a proxy, and
    contains no secret.

    Raises
    ------
    TimeoutError
        If the peer does not answer within the timeout of the socket.
    ConnectionRefusedError
        If the peer does not know the token, is another instance, or closes the connection after its response.
    """
    import http.client

    nonce = secrets.token_hex(16)
    host = urlsplit(local.url).netloc
    connection.sendall(f"GET /api/v1/health?nonce={nonce} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii"))
    answer = http.client.HTTPResponse(connection, method="GET")
    try:
        answer.begin()
        health = msgspec.json.decode(answer.read(_PROOF_LIMIT), type=Health)
        # The verification is valid for this connection only, so the next request must be able to use it.
        is_whole = answer.isclosed() and not answer.will_close
    except TimeoutError:
        raise
    except (OSError, ValueError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise _stranger(local) from error
    finally:
        answer.close()
    given = health.bound if local.binds else health.proof
    expected = server_file.proof(local.token, nonce, local.instance if local.binds else "")
    is_right = hmac.compare_digest(given.encode(), expected.encode())
    if not (is_whole and is_right and health.instance == local.instance):
        raise _stranger(local)


def _stranger(local: Local) -> ConnectionRefusedError:
    return ConnectionRefusedError(f"the process that listens at {local.url} is not the server of this machine's user")


def _held(lock: Path) -> bool:
    """Return whether a server holds the lock of its folder. The kernel releases the lock when the process exits."""
    from filelock import Timeout

    try:
        with _lock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _start(home: Path) -> Local:
    with _explained(home):
        files.make_folder(home)
        with _starting(home):  # another process can have started the server while this one waited for the lock
            return find(home) or _launch(home)


def _launch(home: Path) -> Local:
    with files.append(home / LOG) as log:
        beginning = log.tell()  # errors in the log before this position are from earlier starts
        for _ in range(_TRIES):
            code = _run_detached(home, log.fileno())
            # Also after a failure: if another client was killed during its start, the server that it launched is still
            # starting, and the launch of this client fails because the folder is in use.
            local = find(home)
            if local is not None:
                return local
            if code != 0:  # with code 0, the server did start and was killed since, so another start can succeed
                break
    said = _tail(home / LOG, beginning)
    if not said and shutil.disk_usage(home).free < _ROOM:
        raise StorageFull(f"no room on the disk of {home} to start its server", hint="free some space and try again")
    raise ServerUnavailable(f"the server of {home} did not start: {said or 'it said nothing'}", hint=_HOME_HINT)


def _run_detached(home: Path, log: int) -> int | None:
    """Start a server and return when it answers; return the exit status of the launcher, None after a timeout.

    The launcher starts the server as a daemon and exits, so the server is not a child of this process.
    """
    # The folder of this package: it is not on the path of the new process if `sys.path` was changed in this one.
    root = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", _LAUNCH, root, "--embedded", "--detach", "--data", str(home)]
    # A new session, so that Ctrl-C in the terminal or an interrupt of the kernel does not reach the server.
    launcher = subprocess.Popen(
        command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home, close_fds=True
    )
    try:
        return launcher.wait(START_LIMIT)
    except subprocess.TimeoutExpired:
        return None
    finally:  # after a timeout or Ctrl-C; has no effect on a launcher that has exited
        launcher.kill()
        launcher.wait()


def _tail(path: Path, beginning: int) -> str:
    with files.open_read(path) as file:
        file.seek(beginning)
        lines = file.read(1 << 16).decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-12:])


@contextmanager
def _starting(home: Path) -> Iterator[None]:
    """Hold the start lock. The timeout is two starts: the start of another process, and that of one that waits too."""
    from filelock import Timeout

    try:
        with _lock(home / START_LOCK, timeout=2 * START_LIMIT):
            yield
    except Timeout:
        raise ServerUnavailable(f"another process has been starting the server of {home} for too long") from None


@contextmanager
def _explained(home: Path) -> Iterator[None]:
    try:
        yield
    except LmvpError:  # some LMVP errors derive from OSError; they have a message already
        raise
    except OSError as error:
        raise files.explain(error, home, _HOME_HINT) from error


def _lock(path: Path, timeout: float) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(path, timeout=timeout, mode=files.FILE)
