"""Identities at an OpenID provider, over HTTP: connected, listed, disconnected, and ended by changes of an account."""

from __future__ import annotations

import io
import itertools
import re
from importlib.util import find_spec
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from argon2 import PasswordHasher
from support.in_process import Served
from support.openid_provider import CODE, Provider

from lmvp.cli import main
from lmvp.client.models import Client
from lmvp.errors import AccessDenied, NotFound, ProofRequired
from lmvp_server.services import access, passwords
from lmvp_server.web import openid_client as openid

pytestmark = pytest.mark.skipif(not find_spec("authlib"), reason="no Authlib")

PASSWORD, OTHER = "correct horse battery", "another long password"


class World:
    def __init__(self, served, provider):
        self.served, self.provider, self._names = served, provider, itertools.count()
        self.root = Client(served.url, served.settings.token)
        self.root._connection.send_json("POST", "/projects", {"name": "digits"}, dict)

    def person(self, *, admin=False):
        name = f"person-{next(self._names)}"
        self.root.add_user(name, PASSWORD, admin=admin)
        browser = Browser(self)
        browser.login(name)
        return name, browser

    def client(self, name, scope="admin"):
        return Client(self.served.url, self.root.create_token("t", scope=scope, user=name).token)


class Browser(requests.Session):
    """Keeps cookies, sends the forms of pages, and signs in at the provider as a subject."""

    def __init__(self, world):
        super().__init__()
        self.world, self.base = world, world.served.url

    def look(self, path):
        return self.get(f"{self.base}/{path}", timeout=30, allow_redirects=False)

    def submit(self, path, **fields):
        xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', self.look(path).text)[1]
        data = {"_xsrf": xsrf, **fields}
        return self.post(f"{self.base}/{path}", data=data, timeout=30, allow_redirects=False)

    def login(self, name, password=PASSWORD):
        assert self.submit("login", name=name, password=password).status_code == 303

    def sign_in(self, subject, path="openid"):
        away = self.look(path)
        assert away.status_code == 303, away.text
        asked = parse_qs(urlsplit(away.headers["Location"]).query)
        provider = self.world.provider
        provider.claims = {"sub": subject, "preferred_username": subject}
        provider.nonce = asked["nonce"][0]
        return self.look(f"openid-back?state={asked['state'][0]}&code={CODE}")

    def connect(self, subject):
        link = re.search(r'href="(openid\?connect=[0-9a-f]+&amp;next=account)"', self.look("account").text)[1]
        answer = self.sign_in(subject, link.replace("&amp;", "&"))
        assert (answer.status_code, answer.headers["Location"]) == (303, "account")

    def identities(self):
        return re.findall(r'name="identity" value="([0-9a-f]{12})"', self.look("account").text)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    provider = Provider()
    known = openid.Provider(provider.issuer, "lmvp", "", "Example")
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", lambda: cheap)
        with Served(tmp_path_factory.mktemp("identities") / "data", openid=known) as served:
            yield World(served, provider)
    provider.close()


def signs_in(world, subject):
    answer = Browser(world).sign_in(subject)
    assert answer.status_code in {303, 401}, answer.text
    return answer.status_code == 303


def test_account_page_lists_and_disconnects_identities(world):
    name, browser = world.person()
    assert "No connected identities" in browser.look("account").text
    subject = f"2482897610012482-{name}"
    browser.connect(subject)
    page = browser.look("account").text
    assert "Example" in page
    assert f"{subject[:15]}…" in page
    assert subject not in page
    assert "just now" in page
    (id_,) = browser.identities()
    by_identity = Browser(world)
    assert by_identity.sign_in(subject).status_code == 303
    cookie = by_identity.cookies["lmvp_session"]
    answer = by_identity.submit("account", do="disconnect", identity=id_)
    assert answer.status_code == 303
    assert by_identity.cookies["lmvp_session"] != cookie, "the session of the identity has ended"
    assert "No connected identities" in by_identity.look("account").text
    assert not signs_in(world, subject)
    assert by_identity.submit("account", do="disconnect", identity=id_).status_code == 404
    assert browser.look("account").status_code == 303, "the session that connected it was begun by it too"


def test_disconnect_on_the_account_page_needs_the_password_in_an_older_session(world, monkeypatch):
    name, browser = world.person()
    browser.connect(f"s-{name}")
    (id_,) = browser.identities()
    monkeypatch.setattr(access, "FRESH", 0.0)
    assert "openid?connect=" in browser.look("account").text
    for wrong in ("", "not the password"):
        answer = browser.submit("account", do="disconnect", identity=id_, old=wrong)
        assert answer.status_code == 403
        assert "current password" in answer.text
    assert browser.submit("account", do="disconnect", identity=id_, old=PASSWORD).status_code == 303
    assert browser.identities() == []


def test_identity_that_a_stolen_session_connected_ends_with_the_password_change(world):
    name, browser = world.person()
    thief = Browser(world)
    thief.cookies.update(browser.cookies)
    thief.connect(f"thief-of-{name}")
    assert signs_in(world, f"thief-of-{name}")
    browser.login(name)  # to connect gave the thief a new session
    answer = browser.submit("account", do="set_password", old=PASSWORD, new=OTHER)
    assert answer.status_code == 200
    assert "1 identity" in answer.text
    assert not signs_in(world, f"thief-of-{name}")
    assert browser.identities() == []
    assert thief.look("account").status_code == 303, "its session has ended"


def test_password_change_keeps_identities_if_the_form_says_so(world):
    name, browser = world.person()
    browser.connect(f"s-{name}")
    answer = browser.submit("account", do="set_password", new=OTHER, keep_identities="1")
    assert answer.status_code == 200
    assert "Ended: 0 tokens, 1 session, 0 invitations." in answer.text
    assert signs_in(world, f"s-{name}")
    assert len(browser.identities()) == 1


def test_account_without_a_password_cannot_disconnect_its_last_identity(world):
    code, browser = world.root.invite("digits").secret, Browser(world)
    assert browser.sign_in("noether", f"openid?code={code}").status_code == 303
    (id_,) = browser.identities()
    answer = browser.submit("account", do="disconnect", identity=id_)
    assert answer.status_code == 409
    assert "only way to sign in" in answer.text
    assert "set a password" in answer.text
    assert signs_in(world, "noether")
    assert browser.submit("account", do="set_password", new=PASSWORD, keep_identities="1").status_code == 200
    assert browser.submit("account", do="disconnect", identity=id_).status_code == 303
    assert not signs_in(world, "noether")
    browser.login("noether")


def test_admin_page_disconnects_the_last_identity_and_sets_a_password(world):
    code = world.root.invite("digits").secret
    assert Browser(world).sign_in("hopper", f"openid?code={code}").status_code == 303
    _, admin = world.person(admin=True)
    page = admin.look("admin").text
    (id_,) = [one.id for one in world.root.identities("hopper")]
    assert f'value="{id_}"' in page
    assert admin.submit("admin", do="disconnect", identity=id_).status_code == 303
    assert not signs_in(world, "hopper")
    assert admin.submit("admin", do="set_password", name="hopper", password=OTHER).status_code == 200
    Browser(world).login("hopper", OTHER)


def test_disabled_account_loses_its_identities_for_good(world):
    name, browser = world.person()
    browser.connect(f"s-{name}")
    assert world.root.change_user(name, disabled=True).ended.identities == 1
    assert not signs_in(world, f"s-{name}")
    world.root.change_user(name, disabled=False)
    assert not signs_in(world, f"s-{name}")
    (listed,) = world.root.identities(name)
    assert listed.ended == "ended by a change of the account"
    again = Browser(world)
    again.login(name)
    again.connect(f"s-{name}")
    assert signs_in(world, f"s-{name}")


def test_client_lists_and_disconnects_identities(world):
    (name, browser), (other, theirs) = world.person(), world.person()
    browser.connect(f"s-{name}")
    theirs.connect(f"s-{other}")
    client = world.client(name)
    (mine,) = client.identities()
    assert (mine.user, mine.issuer, mine.subject, mine.ended) == (name, world.provider.issuer, f"s-{name}", "")
    assert mine.connected_at is not None
    (foreign,) = world.root.identities(other)
    assert {mine.id, foreign.id} <= {one.id for one in world.root.identities()}
    with pytest.raises(AccessDenied):
        client.identities(other)
    with pytest.raises(NotFound):
        client.disconnect_identity(foreign.id, current_password=PASSWORD)
    for scope in ("read", "write"):
        limited = world.client(name, scope)
        for use in (limited.identities, lambda limited=limited: limited.disconnect_identity(mine.id)):
            with pytest.raises(AccessDenied, match="scope"):
                use()
    with pytest.raises(ProofRequired):
        client.disconnect_identity(mine.id)
    client.disconnect_identity(mine.id, current_password=PASSWORD)
    assert client.identities() == []
    assert not signs_in(world, f"s-{name}")
    assert signs_in(world, f"s-{other}")


def test_admin_needs_proof_and_keeps_its_own_last_identity(world):
    code, browser = world.root.invite("digits").secret, Browser(world)
    assert browser.sign_in("lovelace", f"openid?code={code}").status_code == 303
    world.root.change_user("lovelace", admin=True)
    (only,) = world.root.identities("lovelace")
    answer = browser.submit("admin", do="disconnect", identity=only.id)
    assert answer.status_code == 409
    name, other = world.person()
    other.connect(f"s-{name}")
    (theirs,) = world.root.identities(name)
    admin, _ = world.person(admin=True)
    with pytest.raises(ProofRequired):
        world.client(admin).disconnect_identity(theirs.id)
    world.client(admin).disconnect_identity(theirs.id, current_password=PASSWORD)
    assert world.root.identities(name) == []
    told = [one for one in world.root.events() if one.action == "user.disconnect"]
    assert (told[0].who, told[0].what) == (admin, name)


def test_shell_lists_and_disconnects_identities(world, home, monkeypatch, capsys):
    name, browser = world.person()
    browser.connect(f"2482897610012482-{name}")
    monkeypatch.setenv("LMVP_URL", world.served.url)
    monkeypatch.setenv("LMVP_TOKEN", world.root.create_token("t", scope="admin", user=name).token)
    assert main(["identities"]) == 0
    shown = capsys.readouterr().out
    (id_,) = browser.identities()
    assert id_ in shown
    assert "248289761001248…" in shown
    assert "signs in" in shown
    assert main(["identities", "disconnect"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("not the password\n"))
    assert main(["identities", "disconnect", id_]) == 5
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert main(["identities", "disconnect", id_]) == 0
    assert main(["identities", "disconnect", id_]) == 3
    capsys.readouterr()
    assert main(["identities"]) == 0
    assert "no identities" in capsys.readouterr().out


@pytest.mark.parametrize("keep", [False, True])
def test_shell_keeps_identities_at_a_new_password_if_asked(world, home, monkeypatch, capsys, keep):
    name, browser = world.person()
    browser.connect(f"s-{name}")
    monkeypatch.setenv("LMVP_URL", world.served.url)
    monkeypatch.setenv("LMVP_TOKEN", world.root.create_token("t", scope="admin", user=name).token)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{OTHER}\n{PASSWORD}\n"))
    assert main(["users", "passwd", name, *(["--keep-identities"] if keep else [])]) == 0
    assert ("1 identity" in capsys.readouterr().out) == (not keep)
    assert signs_in(world, f"s-{name}") == keep
