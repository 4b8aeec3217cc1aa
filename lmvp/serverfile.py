"""`server.json`: where in a data folder its server says how to reach it, and how it is known again.

The server writes the file when it is ready and removes it when it ends. One that was killed leaves it behind, so what
it says is believed only after the server has proved that it knows the token (`lmvp.local`). It touches the file now
and then, so that machines which share a folder, but not a kernel, can tell a living server from one long gone.
"""

from __future__ import annotations

import hmac
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from lmvp import private
from lmvp.errors import IntegrityError

NAME = "server.json"
HEARTBEAT = 30.0
"""Seconds between two touches."""

_SILENT = 600.0
"""Seconds without a touch after which a server on another machine is taken for dead."""


class ServerFile(msgspec.Struct, frozen=True, kw_only=True):
    """What `server.json` says.

    Attributes
    ----------
    host, boot : str
        The name of the machine, and an id of its present boot where the system has one.
    instance : str
        Drawn at each start of a server.
    binds : bool
        Whether its proofs name its instance; those of older servers do not.
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
        """Whether that server runs, or ran, on this machine: a name alone may change with the network."""
        return self.host == socket.gethostname() or bool(self.boot and self.boot == boot_id())

    @property
    def rebooted(self) -> bool:
        """Whether the machine was started anew since."""
        return self.boot != boot_id()


def read(folder: Path) -> ServerFile | None:
    """Return what the folder's server says; None where there is no such file, or one that makes no sense."""
    with suppress(OSError, IntegrityError, msgspec.DecodeError, UnicodeDecodeError):
        data = private.read(folder / NAME)
        return msgspec.json.decode(data, type=ServerFile) if data else None
    return None


def write(folder: Path, content: ServerFile) -> None:
    """Say how to reach the folder's server, to its owner alone."""
    private.write(folder / NAME, msgspec.json.encode(content))


def silent(folder: Path) -> bool:
    """Tell whether the server of the folder has not touched its file for long."""
    try:
        return time.time() - (folder / NAME).stat().st_mtime > _SILENT
    except OSError:
        return True


def proof(token: str, nonce: str, instance: str = "") -> str:
    """Return the HMAC-SHA256 that only a holder of the token can compute; for one instance, if it is given."""
    message = f"{nonce} {instance}" if instance else nonce
    return hmac.new(token.encode(), message.encode(), "sha256").hexdigest()


def boot_id() -> str:
    """Return what names the present boot of this machine, or nothing where the system does not tell."""
    with suppress(OSError):
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
