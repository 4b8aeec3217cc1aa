"""Settings of a server process."""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from lmvp.errors import InvalidArgument
from lmvp_server.services.push_quota import PushLimits
from lmvp_server.services.targets import Targets

if TYPE_CHECKING:
    from lmvp_server.openid import Provider


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
        0 takes a free one; an embedded server takes one that stays the same for its data folder, where that is free.
    public_url : str
        What people call it, `https://models.example.org`, where a proxy on this machine stands before it: what that
        proxy says of scheme and address is believed then, and that host is answered to besides this machine's own.
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
    keep_removed : timedelta
        How long what is removed can be brought back; zero: it is gone at once.
    webhook_to : Targets
        Where webhooks may go; nowhere, if nothing is said.
    push_limits : PushLimits
        The limits of the open pushes of one account.
    openid : Provider or None
        Where people sign in besides.
    instance : str
        Names this start of the server.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default="", repr=False)
    public_url: str = ""
    embedded: bool = False
    idle_seconds: float | None = None
    grace_seconds: float = 30.0
    quiet_seconds: float = 2.0
    keep_removed: timedelta = timedelta(days=7)
    webhook_to: Targets = field(default_factory=Targets)
    push_limits: PushLimits = field(default_factory=PushLimits)
    openid: Provider | None = None
    instance: str = field(default_factory=lambda: uuid4().hex)
    last_used: float = field(default_factory=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        self.data = Path(self.data).absolute()
        if self.embedded and self.idle_seconds is None:
            self.idle_seconds = 3600.0

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host) and not self.public_url

    @property
    def secure(self) -> bool:
        """Whether browsers use HTTPS, according to `public_url`. The headers of a request are not trusted for this."""
        return self.public_url.startswith("https://")

    def answers_to(self, host: str) -> bool:
        """Return whether a request can have this host, `name[:port]`. On loopback, this prevents DNS rebinding."""
        if not is_loopback(self.host):
            return True
        return names_this_machine(host) or (bool(self.public_url) and host.lower() == urlsplit(self.public_url).netloc)

    @property
    def idle_for(self) -> float:
        """Seconds since the last use."""
        return time.monotonic() - self.last_used

    def touch(self) -> None:
        """Record that the server is in use."""
        self.last_used = time.monotonic()

    def enter(self) -> None:
        """Record the start of a request. `lmvp_server.serving` counts the current requests by connection."""
        self.touch()

    def leave(self) -> None:
        """Record the end of a request."""
        self.touch()


def checked_public_url(url: str) -> str:
    """Validate a public URL and return it without a slash at its end.

    Raises
    ------
    InvalidArgument
        If it is not an HTTP or HTTPS URL, or has a path.

    Examples
    --------
    >>> checked_public_url("https://Models.example.org/")
    'https://models.example.org'
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/") or parts.query or "@" in url:
        raise InvalidArgument(f"{url[:80]!r} is no URL of a server", hint="https://models.example.org")
    return f"{parts.scheme}://{parts.netloc.lower()}"


_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]{0,5})?")


def names_this_machine(host: str) -> bool:
    """Return whether a `Host`, with or without a port, is a loopback name.

    Examples
    --------
    >>> names_this_machine("localhost:8650"), names_this_machine("[::1]:80"), names_this_machine("evil.example")
    (True, True, False)
    """
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback(match["six"] or match["name"])


def is_loopback(host: str) -> bool:
    """Return whether a host name or address, without brackets, is a loopback one.

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
