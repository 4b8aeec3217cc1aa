"""The server of this machine: a client finds it, or starts it, automatically in the background.

A data folder has at most one server, which writes to `server.json` how to reach it. A client sends the token and data
only over a connection whose peer has proved that it knows the token: with an HMAC of a nonce, on that same connection,
before any other request (`prove`). The port of a server that has ended is free for every account of the machine, so a
proof never counts for another connection. Where nobody proves it, a new server is started under a lock, so that of
many processes that start at once one does it and the others find it. It runs detached, in a session of its own:
neither an interrupt in the notebook nor the end of the kernel ends it. It ends itself when it was idle for an hour.
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

from lmvp import config, private, serverfile
from lmvp.errors import Conflict, LmvpError, ServerUnavailable, StorageFull
from lmvp.records import Health
from lmvp.serverfile import ServerFile

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK, START_LOCK, LOG = "lock", "start.lock", "server.log"
"""In the data folder: held by its server; held while one is started; what the server has to say."""

START_LIMIT = 30.0
"""Seconds that a start may take; most of it only where another server is just ending."""

_HOME_HINT = "set LMVP_HOME to a folder where you can write, or LMVP_URL to a server"
_PATIENCE = 0.5, 2.0, 8.0
"""Seconds to wait for an answer, the first time, then as long as somebody holds the lock of the folder."""
_TRIES = 3
_PROOF_LIMIT = 1 << 16
"""Bytes of the answer to a nonce, at most."""
_ROOM = 1 << 16
"""Bytes below which a server cannot even write why it does not start."""

_LAUNCH = (  # -m would need lmvp_server in the new process's path, and -P or a chdir to keep the data folder out of it
    "import sys; sys.path[:] = [*filter(None, sys.path), sys.argv.pop(1)]; "
    "from lmvp_server.__main__ import main; sys.exit(main())"
)
_known: dict[Path, Local] = {}


@dataclass(frozen=True)
class Local:
    """A server of this machine that has proved to be the right one.

    Attributes
    ----------
    binds : bool
        Whether its proofs name its instance. A process of another account that relays the nonce to the successor of
        this server gets the proof of another instance then.
    """

    url: str
    token: str = field(repr=False)
    instance: str
    pid: int
    binds: bool = False


def connection() -> Local:
    """Return the server of this machine; found or started by the first call, remembered until `forget`."""
    home = config.data_home()
    if home not in _known:
        _known[home] = find_or_start(home)
    return _known[home]


def forget(local: Local) -> None:
    """Stop remembering a server that did not answer; the next `connection` finds or starts one anew."""
    for home in [home for home, known in _known.items() if known == local]:
        _known.pop(home, None)


def find_or_start(home: Path | None = None) -> Local:
    """Return the server of a data folder; start one where there is none.

    Raises
    ------
    ServerUnavailable
        If it runs on another machine, or does not start; the message ends with what it said.
    StorageReadOnly, StorageFull, InvalidArgument
        If the folder cannot be used.
    """
    folder = config.data_home() if home is None else home
    return find(folder) or _start(folder)


def find(home: Path) -> Local | None:
    """Return the running server of a data folder, or None.

    Raises
    ------
    ServerUnavailable
        If it runs on another machine, or runs and does not answer.
    """
    for patience in _PATIENCE:
        try:
            return _probe(home, patience)
        except TimeoutError:
            if not _held(home / LOCK):  # then a stranger has the port, and the pid too, if it lives
                return None
    said = serverfile.read(home)
    where, process = (f" at {said.url}", said.pid) if said else ("", "unknown")
    raise ServerUnavailable(
        f"the server of {home} is there, but does not answer{where}",
        hint=f"if it was stopped or hangs, end it: its process is {process}",
    )


def _probe(home: Path, patience: float) -> Local | None:
    """Ask the server that `server.json` names; read anew each time, since the right one may only just be starting."""
    said = serverfile.read(home)
    if said is None:
        return None
    if not said.here:
        _refuse_to_guess(home, said)
        return None
    if said.rebooted or not _is_the_one(said, patience):
        return None
    return Local(said.url, said.token, said.instance, said.pid, said.binds)


def stop(home: Path | None = None) -> bool:
    """End the running server of a data folder, and wait until it has; tells whether there was one.

    Raises
    ------
    Conflict
        If it does not end in time.
    """
    from filelock import Timeout

    folder = config.data_home() if home is None else home
    local = find(folder)
    if local is None:
        return False
    forget(local)
    os.kill(local.pid, signal.SIGTERM)
    try:
        with _lock(folder / LOCK, timeout=45):  # freed by the kernel when the process is gone
            return True
    except Timeout:
        raise Conflict(f"the server of {folder} (pid {local.pid}) does not end", hint=f"see {folder / LOG}") from None


def _refuse_to_guess(home: Path, said: ServerFile) -> None:
    """Raise if the server is on another machine, unless it is long gone."""
    if serverfile.silent(home):
        return
    raise ServerUnavailable(
        f"the server of {home} runs on another machine, {said.host}",
        hint="set LMVP_URL to a server that all machines reach, or LMVP_HOME to a folder of this machine alone; "
        f"if that server is gone, remove {home / serverfile.NAME}",
    )


def _is_the_one(said: ServerFile, patience: float) -> bool:
    """Tell whether the server at that URL knows the token; TimeoutError where nobody answers in time."""
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
    """Check that the peer of a new connection is the server that was found; costs one round trip.

    The nonce is the first data on the connection. It goes past any proxy, and tells a stranger nothing.

    Raises
    ------
    TimeoutError
        If the peer does not answer within the timeout of the socket.
    ConnectionRefusedError
        If the peer does not know the token, is another instance, or would close the connection after the proof.
    """
    import http.client

    nonce = secrets.token_hex(16)
    host = urlsplit(local.url).netloc
    connection.sendall(f"GET /api/v1/health?nonce={nonce} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii"))
    answer = http.client.HTTPResponse(connection, method="GET")
    try:
        answer.begin()
        health = msgspec.json.decode(answer.read(_PROOF_LIMIT), type=Health)
        is_whole = answer.isclosed() and not answer.will_close
    except TimeoutError:
        raise
    except (OSError, ValueError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise _stranger(local) from error
    finally:
        answer.close()
    given = health.bound if local.binds else health.proof
    expected = serverfile.proof(local.token, nonce, local.instance if local.binds else "")
    is_right = hmac.compare_digest(given.encode(), expected.encode())
    if not (is_whole and is_right and health.instance == local.instance):
        raise _stranger(local)


def _stranger(local: Local) -> ConnectionRefusedError:
    return ConnectionRefusedError(f"the process that listens at {local.url} is not the server of this machine's user")


def _held(lock: Path) -> bool:
    """Tell whether a server holds the lock of its folder; the kernel frees it with the process."""
    from filelock import Timeout

    try:
        with _lock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _start(home: Path) -> Local:
    with _explained(home):
        private.make_folder(home)
        with _starting(home):
            return find(home) or _launch(home)


def _launch(home: Path) -> Local:
    with private.append(home / LOG) as log:
        beginning = log.tell()
        for _ in range(_TRIES):
            code = _run_detached(home, log.fileno())
            # also after a failure: a process that was killed while it started a server leaves that server starting, and
            # this one then finds the folder in use
            local = find(home)
            if local is not None:
                return local
            if code != 0:  # else it did start, and was killed since: that is no reason to give up
                break
    said = _tail(home / LOG, beginning)
    if not said and shutil.disk_usage(home).free < _ROOM:
        raise StorageFull(f"no room on the disk of {home} to start its server", hint="free some space and try again")
    raise ServerUnavailable(f"the server of {home} did not start: {said or 'it said nothing'}", hint=_HOME_HINT)


def _run_detached(home: Path, log: int) -> int | None:
    """Start a server and return when it answers: its launcher ends then, so that no child is left to us."""
    root = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", _LAUNCH, root, "--embedded", "--detach", "--data", str(home)]
    launcher = subprocess.Popen(
        command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home, close_fds=True
    )
    try:
        return launcher.wait(START_LIMIT)
    except subprocess.TimeoutExpired:
        return None
    finally:
        launcher.kill()
        launcher.wait()


def _tail(path: Path, beginning: int) -> str:
    with private.open_read(path) as file:
        file.seek(beginning)
        lines = file.read(1 << 16).decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-12:])


@contextmanager
def _starting(home: Path) -> Iterator[None]:
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
    except LmvpError:  # some of them are an OSError by name only
        raise
    except OSError as error:
        raise private.explain(error, home, _HOME_HINT) from error


def _lock(path: Path, timeout: float) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(path, timeout=timeout, mode=private.FILE)
