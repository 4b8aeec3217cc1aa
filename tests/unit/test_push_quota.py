"""Limits of open pushes per account: number, bytes, expiry, and recovery after a restart."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import replace

import msgspec
import pytest
from support.workshop import ADA, GRACE, Maintains, Shop, weights

from lmvp.core.chunk_frames import Frame
from lmvp.core.schemas import NewPush
from lmvp.errors import Conflict, NotFound, TooLarge
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.__main__ import _parser
from lmvp_server.services import Services
from lmvp_server.services.access import Caller
from lmvp_server.services.push_quota import IDLE, LIFETIME, PushLimits

PERSON = replace(GRACE, name="ada", user="u-ada2", roles=Maintains())
SIZE = 32 * 512 * 4
"""Bytes of the tensor of one push; its file has a header besides."""


class LimitedShop(Shop):
    def __init__(self, folder, limits):
        self.folder, self.limits = folder, limits
        self.services = Services.open(folder, push_limits=limits)
        self.services.catalog.find_or_create(ADA, "p", "m")
        self.seeds = iter(range(1000))

    def reopen(self):
        self.services.close()
        self.services = Services.open(self.folder, push_limits=self.limits)

    def open(self, caller=GRACE, push="", seed=None):
        """Begin a push of one new tensor; return its id."""
        described = describe(pack(weights(next(self.seeds) if seed is None else seed, layers=1, rows=32)))
        encoded = msgspec.Raw(msgspec.json.encode(described.manifest, order="sorted"))
        body = NewPush(push=push or secrets.token_hex(16), manifest=encoded)
        self.services.pushes.begin(caller, "p", "m", body)
        return body.push, described

    def age(self, push, seconds):
        path = self.folder / "staging" / self.space / push
        os.utime(path, (time.time() - seconds,) * 2)

    def staged(self):
        return set(self.services.chunks.pushes(self.space))


@pytest.fixture
def shop(tmp_path):
    made = []

    def make(**limits):
        made.append(LimitedShop(tmp_path / "data", PushLimits(**limits)))
        return made[-1]

    yield make
    for one in made:
        one.services.close()


def test_account_has_a_limited_number_of_open_pushes(shop):
    shop = shop(count=3)
    pushes = [shop.open()[0] for _ in range(3)]
    with pytest.raises(Conflict, match=r"^this account has 3 open pushes; the limit is 3\n"):
        shop.open()
    assert shop.staged() == set(pushes)
    shop.open(PERSON)  # each account has its own limit
    shop.open(ADA)  # the operator has none


def test_push_that_begins_again_counts_once(shop):
    shop = shop(count=1)
    push, _ = shop.open(seed=1)
    assert shop.open(push=push, seed=1)[0] == push


def test_committed_push_makes_room(shop):
    shop = shop(count=1)
    push, described = shop.open()
    open_ = shop.services.pushes.resume(GRACE, "p", "m", push)
    for chunk in list(open_.missing):
        data = b"".join(described.places[chunk].read())
        shop.services.pushes.receive(open_, Frame(chunk, len(data), len(data)), [memoryview(data)])
    shop.services.pushes.commit(GRACE, "p", "m", push)
    shop.open()


def test_open_pushes_bring_a_limited_number_of_bytes(shop):
    shop = shop(size=3 * SIZE)
    shop.open()
    shop.open()
    with pytest.raises(TooLarge, match=r"would bring 19\d kB|would bring 20\d kB") as error:
        shop.open()
    assert "the limit is 197 kB" in error.value.message
    assert "--open-push-bytes" in error.value.hint
    assert len(shop.staged()) == 2


def test_limits_hold_after_a_restart(shop):
    shop = shop(count=2, size=3 * SIZE)
    shop.open()
    shop.open()
    shop.reopen()
    with pytest.raises(Conflict, match="this account has 2 open pushes"):
        shop.open()
    shop.limits = PushLimits(count=9, size=3 * SIZE)
    shop.reopen()
    with pytest.raises(TooLarge):
        shop.open()


def test_push_of_an_earlier_release_belongs_to_no_account(shop):
    """Bodies of 9d7a6ec name no account; they are read, and count for nobody."""
    shop = shop(count=1)
    described = describe(pack(weights(1, layers=1, rows=32)))
    encoded = msgspec.Raw(msgspec.json.encode(described.manifest, order="sorted"))
    old = NewPush(push=secrets.token_hex(16), manifest=encoded)
    shop.services.chunks.stage(shop.space, old.push, msgspec.json.encode(old))
    shop.open()
    assert shop.services.pushes.resume(GRACE, "p", "m", old.push).id == old.push


def test_push_without_a_request_for_an_hour_makes_room(shop):
    shop = shop(count=2)
    first, second = shop.open()[0], shop.open()[0]
    shop.age(first, IDLE - 60)
    with pytest.raises(Conflict):
        shop.open()
    shop.age(first, IDLE + 60)
    third, _ = shop.open()
    for push in (second, third):
        assert shop.services.pushes.resume(GRACE, "p", "m", push).id == push
    with pytest.raises(NotFound, match="no open push"):
        shop.services.pushes.resume(GRACE, "p", "m", first)
    with pytest.raises(Conflict):
        shop.open()
    shop.services.upkeep.end_old_pushes(lambda: True)
    assert shop.staged() == {second, third}


@pytest.mark.parametrize("restarted", [False, True])
def test_abandoned_push_expires_with_its_chunks(shop, restarted):
    shop = shop(count=1)
    push, described = shop.open()
    open_ = shop.services.pushes.resume(GRACE, "p", "m", push)
    chunk = next(iter(open_.missing))
    data = b"".join(described.places[chunk].read())
    shop.services.pushes.receive(open_, Frame(chunk, len(data), len(data)), [memoryview(data)])
    assert shop.on_disk("chunks") >= len(data)
    shop.age(push, LIFETIME + 60)
    if restarted:
        shop.reopen()
        with pytest.raises(NotFound):
            shop.services.pushes.resume(GRACE, "p", "m", push)
    shop.services.upkeep.end_old_pushes(lambda: True)
    assert (shop.staged(), shop.on_disk("chunks")) == (set(), 0)
    shop.open()


@pytest.mark.parametrize(
    ("given", "limits"),
    [([], (200, 1 << 40)), (["--open-pushes", "5", "--open-push-bytes", "2 GB"], (5, 2_000_000_000))],
)
def test_options_set_the_limits_of_open_pushes(given, limits):
    options = _parser().parse_args(given)
    assert (options.open_pushes, options.open_push_bytes) == limits
    assert PushLimits() == PushLimits(200, 1 << 40)


@pytest.mark.parametrize("given", [["--open-pushes", "0"], ["--open-pushes", "²"], ["--open-push-bytes", "some"]])
def test_options_refuse_limits_that_allow_nothing(given, capsys):
    with pytest.raises(SystemExit):
        _parser().parse_args(given)
    assert given[0] in capsys.readouterr().err


def test_begin_reads_each_body_once(shop, monkeypatch):
    """The cost of a push must not grow with the sizes of all open pushes."""
    shop = shop(count=50)
    for _ in range(10):
        shop.open(Caller("ada", user="u-ada", scope="admin", roles=Maintains()))
    read = []
    original = type(shop.services.chunks).staged
    monkeypatch.setattr(type(shop.services.chunks), "staged", lambda *a: (read.append(a), original(*a))[1])
    shop.open()
    shop.open()
    assert len(read) <= 2  # the looks for a push of the same id
