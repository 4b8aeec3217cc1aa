"""What a server is told when it starts, and what it knows of itself while it runs."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4


@dataclass
class Settings:
    """The settings of one server process.

    Attributes
    ----------
    data : Path
        The folder that it owns.
    host : str
        The address to listen on.
    port : int
        0 takes a free one.
    token : str
        Made at the start where none is given.
    embedded : bool
        Whether it was started by a client on this machine, out of sight.
    idle_seconds : float or None
        After how long without a request it ends; None: never. An hour for an embedded server.
    grace_seconds : float
        How long requests in flight may take when it is told to end.
    quiet_seconds : float
        How long nobody must have used the server before it does what can wait: encoding anew, retention rules.
    instance : str
        Names this start of the server.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default="", repr=False)
    embedded: bool = False
    idle_seconds: float | None = None
    grace_seconds: float = 30.0
    quiet_seconds: float = 2.0
    instance: str = field(default_factory=lambda: uuid4().hex)
    last_used: float = field(default_factory=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        self.data = Path(self.data).absolute()
        if self.embedded and self.idle_seconds is None:
            self.idle_seconds = 3600.0

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def idle_for(self) -> float:
        """Seconds since it was last used."""
        return time.monotonic() - self.last_used

    def touch(self) -> None:
        """Note that it is used now."""
        self.last_used = time.monotonic()

    def enter(self) -> None:
        """Note that a request began; how many are in flight is counted by connections, in `lmvp_server.serving`."""
        self.touch()

    def leave(self) -> None:
        """Note that a request ended."""
        self.touch()


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address, without brackets, means this machine by itself.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("localhost.example.org")
    (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
