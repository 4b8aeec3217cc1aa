"""The address of a client behind a proxy, and floods of sign-ins: they keep no member waiting."""

import re
import threading
import time

import pytest
import requests
from argon2 import PasswordHasher
from support.in_process import TOKEN, Served

from lmvp.client.models import Client
from lmvp_server.http.queues import PASSWORD_BOUNDS, RETRY_SECONDS
from lmvp_server.services import passwords
from lmvp_server.services.rate_limit import Throttle

HOST = "models.example.org"
PROXY = {"Host": HOST, "X-Forwarded-Proto": "https"}
"""Headers that the operator's proxy sets."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # argon2 as it is, at a cost that tests can pay
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", lambda: cheap)
        patch.setattr(passwords, "_nobodys", lambda: cheap.hash("a password that nobody has"))
        with Served(tmp_path_factory.mktemp("address") / "data", public_url=f"https://{HOST}") as served:
            served.member = served.user("ada")["token"]
            yield served


class SignIn:
    """The login page as a browser behind the proxy sees it."""

    def __init__(self, served):
        page = requests.get(f"{served.url}/login", headers=PROXY | {"X-Forwarded-For": "192.0.2.1"}, timeout=30)
        self.url = f"{served.url}/login"
        self.xsrf = re.search(r'name="_xsrf" value="(\w+)"', page.text)[1]
        self.cookie = page.headers["Set-Cookie"].partition(";")[0]

    def __call__(self, address, name="ada", password="a wrong password", **headers):
        headers = {**PROXY, "X-Forwarded-For": address, "Cookie": self.cookie, **headers}
        form = {"_xsrf": self.xsrf, "name": name, "password": password}
        return requests.post(self.url, headers=headers, data=form, timeout=60, allow_redirects=False)


def failures(served):
    client = Client(served.url, TOKEN)
    served.services.passwords.report()
    return [one.after["from"] for one in client.events(action="session.fail")]


@pytest.mark.parametrize("name", ["X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Forwarded"])
def test_address_is_the_one_that_the_proxy_adds(served, name):
    sign_in, address = SignIn(served), f"198.51.100.{len(name)}"
    for at in range(3):
        assert sign_in(address, name=f"{name}{at}", **{name: f"203.0.113.{at}"}).status_code == 401
    assert address in failures(served)
    assert not any(one.startswith("203.0.113.") for one in failures(served))


def test_address_is_the_last_of_several(served):
    sign_in = SignIn(served)
    for at in range(3):
        assert sign_in(f"203.0.113.{at}, 198.51.100.99").status_code == 401
    assert "198.51.100.99" in failures(served)
    assert not any(one.startswith("203.0.113.") for one in failures(served))


def test_client_cannot_avoid_the_limit_of_wrong_passwords(served, monkeypatch):
    monkeypatch.setattr(served.services.passwords, "_addresses", Throttle(3, 3600.0, "wrong passwords"))
    sign_in = SignIn(served)
    statuses = [sign_in("198.51.100.77", name=f"n{at}", **{"X-Real-Ip": f"203.0.113.{at}"}).status_code
                for at in range(6)]  # fmt: skip
    assert statuses == [401] * 3 + [429] * 3


def test_scheme_is_the_one_that_the_proxy_sets(served):
    headers = PROXY | {"X-Forwarded-For": "192.0.2.1", "X-Scheme": "http"}
    asked = requests.post(f"{served.url}/api/v1/device/code", json={}, headers=headers, timeout=30).json()
    assert asked["verification_uri"] == f"https://{HOST}/device"


class Gate:
    """Holds each check of a password until the gate opens."""

    def __init__(self, monkeypatch):
        self.open, real = threading.Event(), passwords._fits

        def fits(kept, password):
            assert self.open.wait(60), "the gate did not open"
            return real(kept, password)

        monkeypatch.setattr(passwords, "_fits", fits)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_flood_of_sign_ins_keeps_no_member_waiting(served, monkeypatch):
    gate, sign_in, statuses = Gate(monkeypatch), SignIn(served), []
    queue = served.app._server.request_callback.settings["passwords"]

    def attempt(at):
        statuses.append(sign_in(f"203.0.113.{at}", name=f"nobody{at}").status_code)

    def waiting():
        return served.on_loop(lambda: queue.waiting(known=False))

    flood = [threading.Thread(target=attempt, args=(at,)) for at in range(PASSWORD_BOUNDS.anonymous + 1)]
    try:
        for one in flood:
            one.start()
        until(lambda: waiting() == PASSWORD_BOUNDS.anonymous)
        refused = sign_in("198.51.100.200", name="nobody")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, str(RETRY_SECONDS))
        member = {**PROXY, "Authorization": f"Bearer {served.member}"}
        for path in ("/me", "/projects"):
            assert requests.get(f"{served.url}/api/v1{path}", headers=member, timeout=10).status_code == 200
    finally:
        gate.open.set()
        for one in flood:
            one.join()
    assert statuses == [401] * len(flood)
    assert waiting() == 0


def test_one_address_leaves_room_for_others_in_the_queue(served, monkeypatch):
    gate, sign_in, statuses = Gate(monkeypatch), SignIn(served), []
    queue = served.app._server.request_callback.settings["passwords"]
    addresses = [f"2001:db8:1:1::{at:x}" for at in range(PASSWORD_BOUNDS.address + 1)]

    def attempt(address, password="a wrong password"):
        statuses.append(sign_in(address, password=password).status_code)

    flood = [threading.Thread(target=attempt, args=(address,)) for address in addresses]
    last = threading.Thread(target=attempt, args=("192.0.2.77", "ada has a long one"))
    try:
        for one in flood:
            one.start()
        until(lambda: served.on_loop(queue.waiting) == PASSWORD_BOUNDS.address)
        assert sign_in("2001:db8:1:1:ffff::1").status_code == 429, "the addresses of one /64 network count as one"
        last.start()
        until(lambda: served.on_loop(queue.waiting) == PASSWORD_BOUNDS.address + 1)
    finally:
        gate.open.set()
        for one in [*flood, last]:
            one.join()
    assert 303 in statuses
