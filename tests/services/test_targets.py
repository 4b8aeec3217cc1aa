"""Where webhooks may go: a list that is empty at first, and addresses that are looked at each time."""

import asyncio
import socket

import pytest

from lmvp.errors import AccessDenied, InvalidArgument
from lmvp_server.notifier import CheckingResolver
from lmvp_server.services.targets import Targets

LISTED = Targets.parse(["hooks.example.org", "*.example.com", "10.1.0.0/16", "::1"])


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/lmvp?room=1",
        "http://HOOKS.example.org:8080/",
        "https://a.b.example.com",
        "http://10.1.2.3/x",
        "http://[::1]:9000/",
    ],
)
def test_what_is_listed_may_be_told(url):
    assert LISTED.check_url(url).hostname


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/",
        "http://127.0.0.1:8650/api/v1/projects",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::]/",
        "http://10.2.0.1/",
        "https://example.com/",
        "https://evilexample.com/",
        "https://hooks.example.org.evil.net/",
    ],
)
def test_what_is_not_listed_is_refused(url):
    with pytest.raises(AccessDenied, match="sends no webhooks to"):
        LISTED.check_url(url)
    with pytest.raises(AccessDenied):
        Targets().check_url("https://hooks.example.org/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.org",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "https://ada:secret@hooks.example.org/",
        "https://hooks.example.org/a b",
        "https://hooks.example.org/\r\nx: y",
        "https://hooks.example.org:99999/",
        "https://hooks.example.org:0/",
        "https://[::1/",
        "https://hooks.example.org/#x",
        "https://hööks.example.org/",
        "https:///x",
        "https://hooks.example.org/" + "x" * 3000,
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidArgument):
        LISTED.check_url(url)


@pytest.mark.parametrize("rule", ["", "*", "*.", "a b", "http://x/", "x/y", "a..b", "ex*mple.org", "10.1.0.1/16"])
def test_a_rule_that_is_none(rule):
    with pytest.raises(InvalidArgument, match="is no host"):
        Targets.parse([rule])


@pytest.mark.parametrize(
    ("address", "passes"),
    [
        ("93.184.216.34", True),
        ("10.1.255.255", True),
        ("::1", True),
        ("10.2.0.0", False),
        ("127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_addresses(address, passes):
    if passes:
        LISTED.check_address(address)
        return
    with pytest.raises(AccessDenied, match="is not a public address"):
        LISTED.check_address(address)


def test_link_local_is_never_connected_to_even_if_it_is_listed():
    with pytest.raises(AccessDenied):
        Targets.parse(["169.254.0.0/16"]).check_url("http://169.254.169.254/")


def test_a_name_is_looked_up_each_time(monkeypatch):
    """One that is public at first, and then one of the server's own network: as an attacker's name server says."""
    says = [["93.184.216.34"], ["169.254.169.254"], ["93.184.216.34", "127.0.0.1"], ["10.1.0.9"]]

    def lookup(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in says.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)

    async def resolve():
        return await CheckingResolver(targets=LISTED).resolve("hooks.example.org", 443)

    assert asyncio.run(resolve()) == [(socket.AF_INET, ("93.184.216.34", 443))]
    for _ in range(2):
        with pytest.raises(AccessDenied):
            asyncio.run(resolve())
    assert asyncio.run(resolve()) == [(socket.AF_INET, ("10.1.0.9", 443))]
