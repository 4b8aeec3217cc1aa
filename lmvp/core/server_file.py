"""The file `server.json`, in which the server of a data folder publishes its URL and token for local clients.

The server writes the file when it is ready and removes it at its exit. A killed server leaves the file, so clients
verify that the server knows the token before they use it (`lmvp.local`). The server updates the modification time of
the file every 30 seconds. Machines that share a data folder cannot see each other's processes and locks; they use this
time to detect whether the server still runs.
"""

from __future__ import annotations

import hmac
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from lmvp.core import files
from lmvp.errors import IntegrityError, InvalidArgument

NAME = "server.json"
LOCK, START_LOCK, LOG = "lock", "start.lock", "server.log"
"""Other files in the data folder: the lock of its server, the lock of a client that starts a server, and the log."""

HEARTBEAT = 30.0
"""Seconds between two updates of the modification time."""

_SILENT = 600.0
"""Seconds without an update after which a server on another machine counts as stopped."""


def data_home() -> Path:
    """Return the data folder of the server of this machine: `LMVP_HOME`, or the user data folder of the platform.

    Raises
    ------
    InvalidArgument
        If `LMVP_HOME` begins with `~name`, and no user has this name.
    """
    home = os.environ.get("LMVP_HOME")
    if home:
        try:
            return Path(home).expanduser().absolute()
        except RuntimeError:
            hint = "set LMVP_HOME to a folder of yours"
            raise InvalidArgument(f"LMVP_HOME is {home!r}, and nobody here is called so", hint=hint) from None
    import platformdirs

    return Path(platformdirs.user_data_dir("lmvp", appauthor=False))


class ServerFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `server.json`.

    Attributes
    ----------
    url, token : str
        The URL of the server, and the token of the operator.
    pid : int
        The id of the server process.
    host, boot : str
        The name of the machine, and the id of its current boot; empty if the system has no boot id.
    instance : str
        A random id of the server process.
    version : str
        The release of LMVP.
    binds : bool
        Whether the HMAC of the server includes its instance; False for older releases.
    """

    url: str
    token: str
    pid: int
    host: str
    boot: str
    instance: str
    version: str
    binds: bool = False

    def __repr__(self) -> str:
        return f"<ServerFile {self.url} pid {self.pid} on {self.host}>"

    @property
    def here(self) -> bool:
        """Whether the server runs, or ran, on this machine. The host name can change; the boot id cannot."""
        return self.host == socket.gethostname() or bool(self.boot and self.boot == boot_id())

    @property
    def rebooted(self) -> bool:
        """Whether the machine was rebooted since the start of the server."""
        return self.boot != boot_id()


def read(folder: Path) -> ServerFile | None:
    """Return the content of `server.json` in a data folder; None if the file is missing or damaged."""
    # A file of another release can lack fields; a client must not fail because of it.
    with suppress(OSError, IntegrityError, msgspec.DecodeError, UnicodeDecodeError):
        data = files.read(folder / NAME)
        return msgspec.json.decode(data, type=ServerFile) if data else None
    return None


def write(folder: Path, content: ServerFile) -> None:
    """Write `server.json` with mode 0600, because it contains the token."""
    files.atomic_write(folder / NAME, msgspec.json.encode(content))


def silent(folder: Path) -> bool:
    """Return whether the server of the folder has not updated its file for 10 minutes, or the file is missing."""
    try:
        return time.time() - (folder / NAME).stat().st_mtime > _SILENT
    except OSError:
        return True


def proof(token: str, nonce: str, instance: str = "") -> str:
    """Return the HMAC-SHA256 of a nonce under the token. With an instance, the HMAC is valid for this instance only."""
    message = f"{nonce} {instance}" if instance else nonce
    return hmac.new(token.encode(), message.encode(), "sha256").hexdigest()


def boot_id() -> str:
    """Return the id of the current boot of this machine; empty if the system has no boot id."""
    with suppress(OSError):
        if sys.platform == "darwin":  # macOS has no /proc
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
