"""Allowlist of webhook hosts, so that users cannot make the server send requests to its internal network (SSRF)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from lmvp.errors import AccessDenied, InvalidArgument

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_LIMIT = 2000
_URL_HOST = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\.?|\[[0-9a-f.]*:[0-9a-f:.]*\])"
    r"(?::[0-9]{0,5})?",
    re.IGNORECASE,
)
"""Host and port of a URL.

Excludes user names, backslashes, escapes, zones and empty labels: parsers disagree on them.
"""

_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

_NOT_PUBLIC: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10",
            "ff00::/8",
        ),
    )
)  # fmt: skip
"""Special-purpose addresses (https://www.iana.org/assignments/iana-ipv4-special-registry, and the one of IPv6)."""

_IN_THE_LAST_BITS = tuple(
    map(
        ipaddress.IPv6Network,
        ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"),
    )
)
"""IPv6 networks whose addresses end in an IPv4 address: compatible, mapped, translated, and NAT64."""


@dataclass(frozen=True, slots=True)
class WebhookAllowlist:
    """The hosts and networks to which webhooks can be sent. By default, all are rejected.

    Attributes
    ----------
    names : tuple of str
        Host names such as `hooks.example.org`, or `*.example.org` for its subdomains. The addresses of a name must be
        public or in one of the networks.
    networks : tuple of network
        Networks to which the server can connect although they are not public. The operator names them explicitly.
    """

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, rules: Sequence[str]) -> WebhookAllowlist:
        """Parse the values of `--webhook-to`.

        Raises
        ------
        InvalidArgument
            If a value is neither a host nor a network.

        Examples
        --------
        >>> WebhookAllowlist.parse(["*.example.org", "10.1.0.0/16"]).check_host("hooks.example.org")
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
        """Check the URL of a webhook and return its parts.

        Raises
        ------
        InvalidArgument
            If it is not an HTTP URL, has a user name or fragment, or has an ambiguous host.
        AccessDenied
            If the host is not allowed.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidArgument(f"{url[:80]!r} is no URL", hint="https://hooks.example.org/lmvp") from None
        plain = url.isascii() and url.isprintable() and not set(" \\") & set(url) and len(url) <= URL_LIMIT
        if not plain or parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
            raise InvalidArgument(f"{url[:80]!r} is no URL of HTTP", hint="https://hooks.example.org/lmvp")
        if "@" in parts.netloc or parts.fragment:
            raise InvalidArgument("a webhook has no user name and no fragment", hint="its secret signs what it sends")
        if not _URL_HOST.fullmatch(parts.netloc):
            raise InvalidArgument(f"{parts.netloc[:80]!r} is no host", hint="https://hooks.example.org/lmvp")
        self.check_host(parts.hostname)
        return parts

    def check_host(self, host: str) -> None:
        """Check that a host name or address is allowed. Names are not resolved here.

        Raises
        ------
        AccessDenied
            If it is not allowed, or is an address in an unusual notation.
        """
        host = host.lower().removesuffix(".")
        # A listed name does not allow an address, because the address could belong to another host.
        literal = _literal(host)
        if literal is not None and self._is_listed(literal):
            self.check_address(host)
            return
        if literal is None and any(_fits(host, name) for name in self.names):
            return
        raise _not_listed(host)

    def check_address(self, text: str) -> None:
        """Check that an address is public or in an allowed network.

        An IPv6 address that embeds an IPv4 address (NAT64, 6to4, Teredo, mapped) is never public. If its network is
        allowed, the embedded address must be allowed too.

        Raises
        ------
        AccessDenied
            If it is neither, or is link-local, multicast or unspecified. Such addresses cannot be allowed.
        """
        address = ipaddress.ip_address(text.partition("%")[0])
        every = [address, *_embedded(address)]
        never = any(one.is_link_local or one.is_multicast or one.is_unspecified for one in every)
        if not never and all(_is_public(one) or self._is_listed(one) for one in every):
            return
        raise AccessDenied(
            f"{address} is not a public address", hint="`lmvp server --webhook-to NETWORK` allows others"
        )

    def _is_listed(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def _checked_name(rule: str) -> str:
    name = rule.lower().rstrip(".")
    labels = name.removeprefix("*.").split(".")
    if not all(label and label.replace("-", "").isalnum() and label.isascii() for label in labels):
        raise InvalidArgument(
            f"`--webhook-to {rule[:80]}` is no host", hint="hooks.example.org, *.example.org, 10.1.0.0/16"
        )
    return name


def _fits(host: str, name: str) -> bool:
    return host.endswith(name[1:]) and host != name[2:] if name.startswith("*.") else host == name


def _literal(host: str) -> Address | None:
    """Return the address of a host that is written as an address; None for a name.

    A host whose last label is a number is an address (https://url.spec.whatwg.org/#ends-in-a-number-checker). Resolvers
    also read `127.1`, `0x7f.1`, `0177.0.0.1` and `2130706433` as addresses; these notations are rejected.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if _ENDS_IN_A_NUMBER.fullmatch(host):
            raise _not_listed(host) from None
        return None


def _not_listed(host: str) -> AccessDenied:
    return AccessDenied(
        f"this server sends no webhooks to {host[:80]!r}",
        hint="the server's operator allows hosts and networks: `lmvp server --webhook-to HOST`",
    )


def _is_public(address: Address) -> bool:
    """Whether an address is public and embeds no other address.

    `is_global` differs between versions of Python, so the special ranges are listed here too.
    """
    # IANA allocates public IPv6 addresses only from this range.
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _embedded(address: Address) -> list[Address]:
    """Return the IPv4 addresses to which a gateway could translate an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback:
        return []
    number = int(address)
    found: list[Address] = []
    # The second condition matches ISATAP addresses (RFC 5214).
    if any(address in network for network in _IN_THE_LAST_BITS) or (number >> 32) & 0xFDFFFFFF == 0x5EFE:
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    return found
