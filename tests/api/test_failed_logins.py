"""Failed logins and invitations, seen from outside: they lock nobody out, leave an event, and can be taken back."""

import re
import socket

import pytest
import requests
from requests.adapters import HTTPAdapter
from support.in_process import TOKEN, Served

HERE, THERE = "127.0.0.1", "127.0.0.2"
ATTEMPTS = 12


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path / "data", public_url="") as served:
        assert served("POST", "/projects", json={"name": "p"}).ok
        served.user("grace", "owner")
        yield served


class From(HTTPAdapter):
    """Requests from one of this machine's addresses."""

    def __init__(self, address):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **options)


def sign_in(served, password, address):
    """Send the form of the login; return its status."""
    with requests.Session() as browser:
        browser.mount("http://", From(address))
        page = browser.get(f"{served.url}/login", timeout=9).text
        form = {"_xsrf": re.search(r'name="_xsrf" value="(\w+)"', page)[1], "name": "grace", "password": password}
        return browser.post(f"{served.url}/login", form, timeout=9, allow_redirects=False).status_code


@pytest.fixture
def two_addresses():
    try:
        socket.create_server((THERE, 0)).close()
    except OSError:
        pytest.skip(f"{THERE} is not an address of this machine")


def test_wrong_passwords_from_one_address_do_not_lock_the_account(served, two_addresses):
    refused = [sign_in(served, "a wrong password", THERE) for _ in range(ATTEMPTS)]
    assert set(refused) <= {401, 429}
    assert sign_in(served, "grace has a long one", HERE) == 303, "the owner of the account is locked out"


def test_failed_login_leaves_an_event(served):
    assert sign_in(served, "a wrong password", HERE) == 401
    events = served("GET", "/events", TOKEN).json()["items"]
    assert "session.fail" in {one["action"] for one in events}


def test_invitation_is_listed_and_can_be_revoked(served):
    made = served("POST", "/invitations", json={"project": "p", "role": "viewer"})
    assert made.ok, made.text
    answer = served("GET", "/invitations")
    assert answer.status_code == 200, answer.text
    (listed,) = answer.json()["items"]
    assert served("DELETE", f"/invitations/{listed['id']}").ok
    assert all(one["ended"] for one in served("GET", "/invitations").json()["items"])
