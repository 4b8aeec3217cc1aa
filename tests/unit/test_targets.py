"""Where webhooks may go: a list that is empty at first, and addresses that are looked at each time."""

import asyncio
import socket

import pytest

from lmvp.errors import AccessDenied, InvalidArgument
from lmvp_server.process.notifier import CheckingResolver
from lmvp_server.services.webhook_allowlist import WebhookAllowlist

LISTED = WebhookAllowlist.parse(["hooks.example.org", "*.example.com", "10.1.0.0/16", "::1"])


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
        WebhookAllowlist().check_url("https://hooks.example.org/")


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
        WebhookAllowlist.parse([rule])


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
        WebhookAllowlist.parse(["169.254.0.0/16"]).check_url("http://169.254.169.254/")


def test_a_name_is_looked_up_each_time(monkeypatch):
    """One that is public at first, and then one of the server's own network: as an attacker's name server says."""
    says = [["93.184.216.34"], ["169.254.169.254"], ["93.184.216.34", "127.0.0.1"], ["10.1.0.9"]]

    def lookup(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in says.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)

    async def resolve():
        return await CheckingResolver(allowlist=LISTED).resolve("hooks.example.org", 443)

    assert asyncio.run(resolve()) == [(socket.AF_INET, ("93.184.216.34", 443))]
    for _ in range(2):
        with pytest.raises(AccessDenied):
            asyncio.run(resolve())
    assert asyncio.run(resolve()) == [(socket.AF_INET, ("10.1.0.9", 443))]


NOT_PUBLIC = [
    "0.0.0.1", "10.2.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.1.1", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::2", "::7f00:1", "::5db8:d822", "::ffff:127.0.0.1", "::ffff:93.184.216.34", "::ffff:0:7f00:1",
    "::ffff:0:5db8:d822", "64:ff9b::7f00:1", "64:ff9b::5db8:d822", "64:ff9b:1::1", "64:ff9b:1:ffff::5db8:d822",
    "100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1",
    "2001:20::1",
    "2001:db8::1", "2002:7f00:1::", "2002:5db8:d822::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254",
    "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "feff::1", "ff02::1", "2606:2800:220:1:0:5efe:7f00:1",
    "2606:2800:220:1:200:5efe:a9fe:a9fe",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_address_that_is_not_public_is_refused(address):
    """On every version of Python: `is_global` has changed between 3.10 and 3.14."""
    with pytest.raises(AccessDenied, match="is not a public address"):
        WebhookAllowlist.parse(["*.example.org"]).check_address(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "192.31.196.1", "2606:2800:220:1::1", "2a00:1450::1"])
def test_address_that_is_public_is_accepted(address):
    WebhookAllowlist.parse(["*.example.org"]).check_address(address)


@pytest.mark.parametrize(
    ("rules", "address", "passes"),
    [
        (["10.1.0.0/16"], "10.1.2.3", True),
        (["fd00::/8"], "fd00::1", True),
        (["fec0::/10"], "fec0::1", True),
        (["64:ff9b::/96"], "64:ff9b::5db8:d822", True),
        (["64:ff9b::/96"], "64:ff9b::a01:203", False),
        (["64:ff9b::/96", "10.1.0.0/16"], "64:ff9b::a01:203", True),
        (["64:ff9b::/96", "0.0.0.0/0"], "64:ff9b::a9fe:a9fe", False),
        (["10.1.0.0/16"], "::ffff:10.1.2.3", False),
        (["10.1.0.0/16"], "2002:a01:203::", False),
        (["::/0", "0.0.0.0/0"], "fe80::1", False),
        (["::/0", "0.0.0.0/0"], "169.254.169.254", False),
        (["::/0", "0.0.0.0/0"], "::ffff:169.254.169.254", False),
        (["::/0", "0.0.0.0/0"], "2002:a9fe:a9fe::", False),
    ],
)
def test_network_that_the_operator_lists_is_accepted_with_what_its_addresses_embed(rules, address, passes):
    targets = WebhookAllowlist.parse(rules)
    if passes:
        targets.check_address(address)
        targets.check_url(f"http://[{address}]/" if ":" in address else f"http://{address}/")
    else:
        with pytest.raises(AccessDenied):
            targets.check_address(address)


@pytest.mark.parametrize(
    "host",
    [
        "0177.1", "0177.0.0.1", "0x7f.1", "0x7f000001", "2130706433", "127.1", "127.0.1", "0", "00", "0x", "10.66051",
        "10.1.2.3.4", "010.1.2.3", "10.1.2.0x3", "1.0x", "4294967295", "99999999999", "10.1.2.3.0",
    ],
)  # fmt: skip
def test_address_in_an_unusual_form_is_refused(host):
    for targets in (LISTED, WebhookAllowlist.parse(["0.0.0.0/0", "*.example.org"])):
        for each in (host, f"{host}."):
            with pytest.raises(AccessDenied, match="sends no webhooks to"):
                targets.check_url(f"http://{each}/")
            with pytest.raises(AccessDenied, match="sends no webhooks to"):
                targets.check_host(each)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org\\@evil.example/", "http://evil.example\\.hooks.example.org/",
        "http://hooks.example.org\\evil/", "http:\\\\hooks.example.org/", "http://hooks.example.org/\\x",
        "http://ada@hooks.example.org/", "http://@hooks.example.org/", "http://:@hooks.example.org/",
        "http://hooks.example.org:80@evil.example/", "http://hooks.example.org%2eevil.example/",
        "http://%31%30.1.2.3/", "http://hooks%00.example.org/", "http://[fe80::1%25eth0]/", "http://[::1%251]/",
        "http://[10.1.2.3]/", "http://[v1.x]/", "http://[::1].example.org/", "http://[::1]x/", "http://hooks.example.org../",
        "http://.hooks.example.org/", "http://a..example.com/", "http://-a.example.com/", "http://hooks.example.org /",
        "http://hooks.example.org\t/", "http://hooks.exam\nple.org/", "http://hooks.example.org\u3002/",
        "http://\uff48ooks.example.org/", "http://hooks.example.org\u00ad/", "http://hooks,example.org/",
        "http://hooks.example.org;x/", "http://*.example.com/", "http://hooks.example.org:8_0/",
        "http://hooks.example.org:+80/", "http://" + "a" * 64 + ".example.com/",
    ],
)  # fmt: skip
def test_host_that_programs_read_differently_is_refused(url):
    with pytest.raises(InvalidArgument):
        LISTED.check_url(url)


def test_host_may_end_in_one_dot():
    assert LISTED.check_url("https://hooks.example.org./x").hostname == "hooks.example.org."
