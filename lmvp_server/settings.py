"""Settings of a server process."""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from lmvp.errors import InvalidArgument, MissingDependency
from lmvp_server.services.push_quota import PushLimits
from lmvp_server.services.webhook_allowlist import WebhookAllowlist


@dataclass(frozen=True, slots=True)
class Provider:
    """The OpenID provider that the operator configured.

    Attributes
    ----------
    issuer : str
        The issuer identifier, for example `https://sign-in.example.org`.
    name : str
        The name on the sign-in button.
    sign_up : bool
        Whether all users of the provider can create an account. If not, they need an invitation.
    """

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    name: str = ""
    sign_up: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer)
        safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not safe or parts.query or parts.fragment or "@" in parts.netloc:
            raise InvalidArgument(f"{self.issuer[:80]!r} is no issuer", hint="https://sign-in.example.org")
        if not self.client_id:
            raise InvalidArgument("the provider knows this server by a client id", hint="--openid-client ID")
        try:
            import authlib  # noqa: F401
        except ImportError:
            raise MissingDependency("OpenID Connect needs Authlib", hint="pip install authlib joserfc") from None

    @property
    def title(self) -> str:
        """The name of the provider; without a name, its host."""
        return self.name or urlsplit(self.issuer).hostname or self.issuer


@dataclass
class Settings:
    """The settings of one server process.

    Attributes
    ----------
    data : Path
        The data folder.
    host : str
        The address to listen on.
    port : int
        The port. With 0, an embedded server uses a stable port of its data folder if it is free; otherwise any free
        port.
    public_url : str
        The URL that users open, for example `https://models.example.org`, if a reverse proxy on this machine is in
        front of the server. The server then trusts the address and the scheme that the proxy sends, and accepts the
        host.
    token : str
        The token of the operator; created at the start if it is empty.
    embedded : bool
        Whether a client on this machine started the server in the background.
    idle_seconds : float or None
        Seconds without a request after which the server stops; None for never. One hour for an embedded server.
    grace_seconds : float
        Maximum time in seconds for current requests when the server stops.
    quiet_seconds : float
        Seconds without use before background work starts: compaction and retention rules.
    keep_removed : timedelta
        The time in which removed objects can be restored. Zero deletes them at once.
    webhook_to : WebhookAllowlist
        Allowed targets of webhooks; none by default.
    push_limits : PushLimits
        The limits of the open pushes of one account.
    openid : Provider or None
        The OpenID provider for signing in.
    instance : str
        The id of this start of the server.
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
    webhook_to: WebhookAllowlist = field(default_factory=WebhookAllowlist)
    push_limits: PushLimits = field(default_factory=PushLimits)
    openid: Provider | None = None
    instance: str = field(default_factory=lambda: uuid4().hex)
    last_used: float = field(default_factory=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        self.data = Path(self.data).absolute()
        if self.embedded and self.idle_seconds is None:
            # An unused embedded server must not run forever on the user's machine.
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
    # Host names are case-insensitive; comparisons are not.
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
