"""Signing in at a real provider of OpenID Connect, run beside a real server."""

import re
import subprocess
import sys
import time
from importlib.util import find_spec
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from support.ports import reserved_port
from support.real_server import Server

from lmvp.cli import main
from lmvp.client.models import Client

pytestmark = pytest.mark.skipif(
    not (find_spec("authlib") and find_spec("oidc_provider_mock")), reason="no Authlib, or no provider to run here"
)

PASSWORD = "correct horse battery"
SECRET = "the secret of this client"


class Provider:
    """A provider in a process of its own."""

    def __init__(self):
        self.port = reserved_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(self.port), "--require-nonce", "true"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                requests.get(f"{self.issuer}/.well-known/openid-configuration", timeout=5)
                return
            except requests.ConnectionError:
                assert self.process.poll() is None, "the provider did not start"
                time.sleep(0.05)
        raise AssertionError("the provider does not answer")

    def knows(self, subject, **claims):
        answer = requests.put(f"{self.issuer}/users/{subject}", json=claims, timeout=10)
        assert answer.status_code == 204

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def provider():
    provider = Provider()
    yield provider
    provider.kill()


class Open(Server):
    more = ()

    def command(self):
        issuer = ("--openid", self.issuer, "--openid-client", "lmvp", "--openid-name", "Example")
        return ["env", f"LMVP_OPENID_SECRET={SECRET}", *super().command(), *issuer, *self.more]


def started(data, provider, *more):
    server = Open(data)
    server.issuer, server.more = provider.issuer, more
    server.token = server.start()
    server.root = Client(server.url, server.token)
    return server


@pytest.fixture
def server(home, tmp_path, provider):
    server = started(tmp_path / "data", provider)
    server.root.add_user("ada", PASSWORD, admin=True)
    yield server
    server.end()


class Browser(requests.Session):
    """Keeps cookies, follows where it is sent, and says at the provider who it is."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def look(self, path):
        return self.get(f"{self.server.url}/{path}", timeout=10)

    def begin(self, path="openid"):
        """Go to the provider; return where."""
        answer = self.get(f"{self.server.url}/{path}", timeout=10, allow_redirects=False)
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    def approve(self, url, subject):
        """Sign in at the provider; return where it sends back to."""
        answer = requests.post(url, data={"sub": subject}, timeout=10, allow_redirects=False)
        assert answer.status_code in {302, 303}, answer.text
        return answer.headers["Location"]

    def sign_in(self, subject, path="openid"):
        return self.get(self.approve(self.begin(path), subject), timeout=10, allow_redirects=False)

    def login(self, name):
        page = self.look("login").text
        xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', page)[1]
        data = {"_xsrf": xsrf, "name": name, "password": PASSWORD}
        return self.post(f"{self.server.url}/login", data=data, timeout=10, allow_redirects=False)


def test_an_invitation_and_then_the_button(server, provider):
    provider.knows("s-grace", preferred_username="grace", email="grace@example.org")
    server.root._connection.send_json("POST", "/projects", {"name": "digits"}, dict)
    made = server.root.invite("digits", "contributor")
    guest = Browser(server)
    assert "Sign in with Example" in guest.look("login").text
    assert "Join with Example" in guest.look(f"join?code={made.secret}").text
    stranger = Browser(server).sign_in("s-grace")
    assert stranger.status_code == 401
    assert "ask for an invitation" in stranger.text
    answer = guest.sign_in("s-grace", f"openid?code={made.secret}")
    assert (answer.status_code, answer.headers["Location"]) == (303, ".")
    assert "lmvp_session=" in answer.headers["Set-Cookie"]
    assert "grace" in guest.look("").text
    assert {one.name: one.role for one in server.root.members("digits")}["grace"] == "contributor"
    account = next(one for one in server.root.users() if one.name == "grace")
    assert (account.service, account.admin) == (False, False)
    assert Browser(server).sign_in("s-grace").status_code == 303, "and again, without one"
    assert Browser(server).sign_in("s-other", f"openid?code={made.secret}").status_code == 404, "it was used"
    server.root.change_user("grace", disabled=True)
    assert Browser(server).sign_in("s-grace").status_code == 401


def test_an_account_is_connected_and_never_by_its_name(server, provider):
    provider.knows("s-ada", preferred_username="ada")
    provider.knows("s-evil", preferred_username="ada", email="ada@example.org")
    assert Browser(server).sign_in("s-evil").status_code == 401
    ada = Browser(server)
    ada.login("ada")
    link = re.search(r'href="(openid\?connect=[0-9a-f]+)"', ada.look("").text)[1]
    assert ada.sign_in("s-ada", link).status_code == 303
    assert "openid?connect" not in ada.look("").text
    again = Browser(server)
    assert again.sign_in("s-ada").status_code == 303
    assert "ada" in again.look("").text
    assert "user.connect" in [one.action for one in server.root.events()]
    server.root.add_user("hopper", PASSWORD)
    hopper = Browser(server)
    hopper.login("hopper")
    link = re.search(r'href="(openid\?connect=[0-9a-f]+)"', hopper.look("").text)[1]
    assert hopper.sign_in("s-ada", link).status_code == 409, "nobody takes another's way in"
    planted = hopper.get(f"{server.url}/openid?connect={'0' * 32}", timeout=10, allow_redirects=False)
    assert planted.status_code == 403, "only a page of the session begins to connect"


def test_an_answer_that_was_not_asked_for(server, provider):
    mine, other = Browser(server), Browser(server)
    back = mine.approve(mine.begin(), "s-ada")
    stolen = other.get(back, timeout=10, allow_redirects=False)
    assert stolen.status_code == 401
    assert "Another browser" in stolen.text
    assert mine.get(back, timeout=10, allow_redirects=False).status_code == 401, "it works once"
    for path in ("openid-back", "openid-back?state=x&code=y", "openid-back?error=access_denied"):
        answer = other.look(path)
        assert answer.status_code == 401
        assert "lmvp_session" not in other.cookies
    back = mine.approve(mine.begin(), "s-ada")
    wrong = re.sub(r"code=[^&]+", "code=guessed", back)
    assert mine.get(wrong, timeout=10, allow_redirects=False).status_code == 401
    back = mine.approve(mine.begin(), "s-ada")
    mixed = mine.get(f"{back}&iss=https://evil.example", timeout=10, allow_redirects=False)
    assert "not from the provider" in mixed.text


def test_what_is_asked_of_the_provider(server):
    asked = {key: one[0] for key, one in parse_qs(urlsplit(Browser(server).begin()).query).items()}
    assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", "lmvp")
    assert "openid" in asked["scope"].split()
    assert asked["redirect_uri"] == f"{server.url}/openid-back"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    again = {key: one[0] for key, one in parse_qs(urlsplit(Browser(server).begin()).query).items()}
    assert all(asked[name] != again[name] for name in ("state", "nonce", "code_challenge"))


@pytest.mark.parametrize("where", ["//evil.example", "https://evil.example/", "../x", "/\\evil.example"])
def test_it_leads_nowhere_else(server, provider, where):
    provider.knows("s-noether", preferred_username="noether")
    made = server.root._connection.send_json("POST", "/projects", {"name": "p"}, dict)
    code = server.root.invite(made["name"], "viewer").secret
    answer = Browser(server).sign_in("s-noether", f"openid?code={code}&next={where}")
    assert (answer.status_code, answer.headers["Location"]) == (303, ".")


def test_everybody_signs_up_where_that_is_allowed(home, tmp_path, provider):
    server = started(tmp_path / "data", provider, "--openid-sign-up")
    try:
        provider.knows("s-1", preferred_username="Emmy Noether")
        provider.knows("s-2", email="grace@example.org")
        provider.knows("s-3", preferred_username="Emmy-Noether")
        runs_it = server.root.me().name
        provider.knows("s-4", preferred_username=runs_it)
        assert [Browser(server).sign_in(f"s-{n}").status_code for n in (1, 2, 3, 4)] == [303, 303, 409, 409]
        assert sorted(one.name for one in server.root.users()) == ["Emmy-Noether", "grace"]
    finally:
        server.end()


def test_a_provider_that_is_away(home, tmp_path):
    gone = Provider()
    server = started(tmp_path / "data", gone)
    try:
        gone.kill()
        answer = Browser(server).get(f"{server.url}/openid", timeout=30)
        assert answer.status_code == 502
        assert "Example cannot be reached" in answer.text
        assert Browser(server).look("login").status_code == 200, "the other ways in are there"
    finally:
        server.end()


def test_without_a_provider_there_is_no_button(home, tmp_path):
    server = Server(tmp_path / "data")
    server.start()
    try:
        assert "openid" not in requests.get(f"{server.url}/login", timeout=10).text
        assert requests.get(f"{server.url}/openid", timeout=10).status_code == 404
    finally:
        server.end()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--openid", "http://sign-in.example.org", "--openid-client", "x"), "is no issuer"),
        (("--openid", "https://ada:x@sign-in.example.org", "--openid-client", "x"), "is no issuer"),
        (("--openid", "https://sign-in.example.org"), "--openid-client"),
    ],
)
def test_slips_of_whoever_runs_the_server(tmp_path, capsys, options, said):
    assert main(["server", "--data", str(tmp_path / "d"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
