"""Where webhooks may go, so that nobody turns the server on its own network."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from lmvp.errors import AccessDenied, InvalidArgument

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_LIMIT = 2000
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Targets:
    """The hosts and networks that webhooks may go to; none at first.

    Attributes
    ----------
    names : tuple of str
        `hooks.example.org`, or `*.example.org` for all below it.
    networks : tuple of network
        Addresses that may be connected to although they are not public.
    """

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, rules: Sequence[str]) -> Targets:
        """Read what `--webhook-to` was given.

        Raises
        ------
        InvalidArgument
            If a rule is neither a host nor a network.

        Examples
        --------
        >>> Targets.parse(["*.example.org", "10.1.0.0/16"]).check_host("hooks.example.org")
        """
        names, networks = [], []
        for rule in rules:
            try:
                networks.append(ipaddress.ip_network(rule.strip("[]")))
            except ValueError:
                names.append(_checked_name(rule))
        return cls(tuple(names), tuple(networks))

    def __bool__(self) -> bool:
        return bool(self.names or self.networks)

    def check_url(self, url: str) -> SplitResult:
        """Return the parts of a URL that a webhook may have.

        Raises
        ------
        InvalidArgument
            If it is no URL of HTTP, or carries a user name.
        AccessDenied
            If its host is none that the server may send to.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidArgument(f"{url[:80]!r} is no URL", hint="https://hooks.example.org/lmvp") from None
        plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= URL_LIMIT
        if not plain or parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
            raise InvalidArgument(f"{url[:80]!r} is no URL of HTTP", hint="https://hooks.example.org/lmvp")
        if "@" in parts.netloc or parts.fragment:
            raise InvalidArgument("a webhook has no user name and no fragment", hint="its secret signs what it sends")
        self.check_host(parts.hostname)
        return parts

    def check_host(self, host: str) -> None:
        """Let a host pass that webhooks may go to, by its name alone.

        Raises
        ------
        AccessDenied
            If it is none of them.
        """
        host = host.lower().rstrip(".")
        literal = _literal(host)
        if literal is not None and any(literal in network for network in self.networks):
            self.check_address(host)
            return
        if literal is None and any(_fits(host, name) for name in self.names):
            return
        raise AccessDenied(
            f"this server sends no webhooks to {host[:80]!r}",
            hint="whoever runs it allows hosts: lmvp server --webhook-to HOST",
        )

    def check_address(self, text: str) -> None:
        """Let an address pass that may be connected to.

        Raises
        ------
        AccessDenied
            If it is one of a network that is not listed, or link-local, which is never connected to.
        """
        address = _inner(ipaddress.ip_address(text.partition("%")[0]))
        never = address.is_link_local or address.is_multicast or address.is_unspecified
        if not never and (address.is_global or any(address in network for network in self.networks)):
            return
        raise AccessDenied(f"{address} is not a public address", hint="lmvp server --webhook-to NETWORK lists others")


def _checked_name(rule: str) -> str:
    name = rule.lower().rstrip(".")
    labels = name.removeprefix("*.").split(".")
    if not all(label and label.replace("-", "").isalnum() and label.isascii() for label in labels):
        raise InvalidArgument(
            f"--webhook-to {rule[:80]!r} is no host", hint="hooks.example.org, *.example.org, 10.1.0.0/16"
        )
    return name


def _fits(host: str, name: str) -> bool:
    return host.endswith(name[1:]) and host != name[2:] if name.startswith("*.") else host == name


def _literal(host: str) -> Address | None:
    """Return the address that a host is written as, also in the forms that a resolver takes: `127.1`, `2130706433`."""
    try:
        return _inner(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host[-1:].isalnum() and host[:1].isdigit() else None
    except (OSError, ValueError):
        return None


def _inner(address: Address) -> Address:
    """Return the address of version 4 that one of version 6 stands for, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return inside or address
    return address
