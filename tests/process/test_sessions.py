"""Logins, sessions, forms and invitations: with a plain HTTP client that keeps cookies, as a browser does."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import requests
from support.real_server import Server

from lmvp.cli import main
from lmvp.client.models import Client
from lmvp_server.services import passwords

PASSWORD = "correct horse battery"


class Proxied(Server):
    def command(self):
        return [*super().command(), "--public-url", "http://models.example.org"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("served") / "data")
    server.token = server.start()
    server.root = Client(server.url, server.token)
    server.root.add_user("ada", PASSWORD, admin=True)
    server.root.update("digits/mlp", {"w": np.ones(3)}, create=True, progress=False)
    yield server
    server.end()


class Browser(requests.Session):
    """Keeps cookies, and sends the forms that pages hold."""

    def __init__(self, url):
        super().__init__()
        self.base = url

    def look(self, path):
        return self.get(f"{self.base}/{path}", timeout=10)

    def submit(self, path, page=None, **fields):
        text = self.look(path if page is None else page).text
        found = re.search(r'name="_xsrf" value="([0-9a-f]+)"', text)
        given = {"_xsrf": found[1] if found else "", **fields}
        return self.post(f"{self.base}/{path}", data=given, timeout=10, allow_redirects=False)

    def login(self, name="ada", password=PASSWORD, **more):
        return self.submit("login", name=name, password=password, **more)


@pytest.fixture
def browser(server):
    return Browser(server.url)


def test_a_session_from_its_login_to_its_logout(browser):
    assert browser.look("").url.endswith("/login")
    answer = browser.login()
    assert (answer.status_code, answer.headers["Location"]) == (303, ".")
    cookie = answer.headers["Set-Cookie"]
    for word in ("lmvp_session=", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert word in cookie
    page = browser.look("")
    assert "digits" in page.text
    assert "ada" in page.text
    secret = browser.cookies["lmvp_session"]
    assert browser.submit("logout", page="").status_code == 303
    assert "lmvp_session" not in browser.cookies
    replayed = Browser(browser.base)
    replayed.cookies.set("lmvp_session", secret)
    assert replayed.look("").url.endswith("/login"), "a session that has ended is worth nothing"


def test_wrong_names_and_wrong_passwords_look_alike_and_take_as_long(browser):
    took, said = {}, {}
    for name in ("ada", "nobody") * 3:
        # The first attempt makes the hash that nobody's is compared with. Other work delays single attempts.
        began = time.perf_counter()
        answer = browser.login(name, "wrong password")
        took[name] = min(took.get(name, 60.0), time.perf_counter() - began)
        assert answer.status_code == 401
        # The form tokens go first: their hex digits can contain the name `ada`.
        said[name] = re.sub(r'value="[0-9a-f]{128}"', "", answer.text).replace(name, "NAME")
    said = set(said.values())
    assert len(said) == 1
    assert "Name and password do not match" in said.pop()
    assert took["nobody"] > took["ada"] / 3


def test_no_session_is_planted(browser):
    browser.cookies.set("lmvp_session", "planted-by-somebody-else")
    assert browser.login().status_code == 303
    assert browser.cookies.get("lmvp_session", domain="127.0.0.1") != "planted-by-somebody-else"


@pytest.mark.parametrize("token", ["", "0" * 64, "x", "\u00e9"])
def test_a_form_of_another_site_does_nothing(server, browser, token):
    assert browser.login().status_code == 303
    for path, fields in (("logout", {}), ("login", {"name": "ada", "password": PASSWORD}), ("device", {"code": "x"})):
        answer = browser.post(
            f"{server.url}/{path}", data={**fields, "_xsrf": token}, timeout=10, allow_redirects=False
        )
        assert answer.status_code == 403, path
        assert "load the page again" in answer.text
    assert "digits" in browser.look("").text, "the session goes on"


def test_a_form_that_is_too_long_is_refused_in_words(server, browser):
    answer = browser.post(f"{server.url}/login", data=b"x" * 100_000, timeout=10)
    assert answer.status_code == 413
    assert "the limit here is 65,536" in answer.text
    assert "<h1>Request refused</h1>" in answer.text


def test_a_cookie_is_no_key_to_the_api(server, browser):
    browser.login()
    assert browser.get(f"{server.url}/api/v1/projects", timeout=10).status_code == 401
    assert browser.post(f"{server.url}/api/v1/users", json={"name": "eve"}, timeout=10).status_code == 401


@pytest.mark.parametrize(
    "where",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "../x",
        "a\r\nSet-Cookie: x=1",
    ],
)
def test_a_login_leads_nowhere_else(browser, where):
    answer = browser.login(next=where)
    assert (answer.status_code, answer.headers["Location"]) == (303, ".")
    assert "x" not in browser.cookies
    page = browser.get(f"{browser.base}/login", params={"next": where}, timeout=10)
    assert 'name="next" value="."' in page.text


def test_a_login_leads_back_to_the_code(browser):
    assert browser.login(next="device?code=BCDF-GHJK").headers["Location"] == "device?code=BCDF-GHJK"


def test_wrong_passwords_delay_the_next_login_and_lock_no_account(server):
    server.root.add_user("victim", PASSWORD)
    answers = [Browser(server.url).login("victim", "a wrong password") for _ in range(passwords.FREE + 3)]
    codes = [each.status_code for each in answers]
    assert codes[: passwords.FREE] == [401] * passwords.FREE
    assert set(codes[passwords.FREE :]) <= {401, 429}
    delayed = [each for each in answers if each.status_code == 429] or [Browser(server.url).login("victim", "again")]
    assert 1 <= int(delayed[0].headers["Retry-After"]) <= passwords.LONGEST
    assert Browser(server.url).login().status_code == 303, "others still come in"
    for _ in range(100):  # it is a delay, and the right password ends it
        answer = Browser(server.url).login("victim", PASSWORD)
        if answer.status_code == 303:
            break
        time.sleep(min(int(answer.headers["Retry-After"]), 5))
    assert answer.status_code == 303
    told = [one for one in server.root.events() if one.action == "session.fail" and one.what == "victim"]
    assert told[-1].after == {"from": "127.0.0.1", "count": 1}


def test_owner_is_not_locked_out_by_another_address(tmp_path):
    """A proxy tells the addresses apart; the server believes it, since it has a public URL."""
    server = Proxied(tmp_path / "data")
    root = Client(server.url, server.start())
    try:
        root.add_user("ada", PASSWORD, admin=True)
        attacker, owner = Browser(server.url), Browser(server.url)
        attacker.headers["X-Forwarded-For"], owner.headers["X-Forwarded-For"] = "203.0.113.7", "198.51.100.9"
        codes = [attacker.login("ada", "a wrong password").status_code for _ in range(12)]
        assert codes[-1] == 429
        assert attacker.login("ada", PASSWORD).status_code == 429
        assert owner.login("ada", PASSWORD).status_code == 303
    finally:
        server.end()


def test_another_password_ends_every_session(server, browser):
    server.root.add_user("grace", PASSWORD)
    assert browser.login("grace").status_code == 303
    server.root.change_user("grace", password="another long password")
    assert browser.look("").url.endswith("/login")
    assert browser.login("grace", PASSWORD).status_code == 401
    two = [Browser(server.url), browser]
    for each in two:
        assert each.login("grace", "another long password").status_code == 303
    two[0].submit("logout", page="", everywhere="1")
    assert two[1].look("").url.endswith("/login")
    server.root.change_user("grace", disabled=True)
    assert browser.login("grace", "another long password").status_code == 401


def test_a_session_approves_a_device_and_the_token_is_its_own(server, browser):
    code = requests.post(f"{server.url}/api/v1/device/code", json={"client_name": "ada@laptop"}, timeout=10).json()
    browser.login()
    page = f"device?code={code['user_code']}"
    assert "You are signed in as ada" in browser.look(page).text
    assert "Approved" in browser.submit("device", page=page, code=code["user_code"], verdict="approve").text
    body = {"device_code": code["device_code"]}
    token = requests.post(f"{server.url}/api/v1/device/token", json=body, timeout=10).json()["access_token"]
    assert Client(server.url, token).me().name == "ada"


def test_an_invitation_makes_one_account(server):
    made = server.root.invite("digits", "contributor")
    assert made.url.startswith(f"{server.url}/join?code=")
    guest, page = Browser(server.url), f"join?code={made.secret}"
    assert "digits" in guest.look(page).text
    assert "contributor" in guest.look(page).text
    short = guest.submit("join", page=page, code=made.secret, name="hopper", password="short")
    assert short.status_code == 400
    assert "10 to 200 characters" in short.text
    taken = guest.submit("join", page=page, code=made.secret, name="ADA", password=PASSWORD)
    assert taken.status_code == 409
    runs_it = server.root.me().name
    for name in (runs_it, runs_it.upper()):
        taken = guest.submit("join", page=page, code=made.secret, name=name, password=PASSWORD)
        assert taken.status_code == 409, "nobody writes events in the name of whoever runs the server"
    answers = []

    def join(name):
        answers.append(
            Browser(server.url).submit("join", page=page, code=made.secret, name=name, password=PASSWORD).status_code
        )

    threads = [threading.Thread(target=join, args=(name,)) for name in ("hopper", "lovelace", "noether")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert answers.count(303) == 1, "it works once"
    members = {each.name: each.role for each in server.root.members("digits")}
    assert [role for name, role in members.items() if name in {"hopper", "lovelace", "noether"}] == ["contributor"]
    again = Browser(server.url).look(page)
    assert again.status_code == 404
    assert "was used" in again.text


def test_an_invitation_is_taken_by_somebody_who_has_an_account(server):
    server.root.add_user("turing", PASSWORD)
    made = server.root.invite("digits", "maintainer")
    page = f"join?code={made.secret}"
    guest = Browser(server.url)
    assert 'href="login?next=join%3Fcode%3D' in guest.look(page).text
    assert guest.submit("join", page=page, code=made.secret, as_me="1").status_code == 409, "nobody is signed in"
    answer = guest.submit("login", page=f"login?next={page}", name="turing", password=PASSWORD, next=page)
    assert answer.headers["Location"] == page
    assert "Join as turing" in guest.look(page).text
    assert guest.post(f"{server.url}/join", data={"code": made.secret, "as_me": "1"}, timeout=10).status_code == 403
    assert guest.submit("join", page=page, code=made.secret, as_me="1").status_code == 303
    roles = {each.name: each.role for each in server.root.members("digits")}
    assert roles["turing"] == "maintainer"
    assert guest.submit("join", page="", code=made.secret, as_me="1").status_code == 404, "it works once"
    lower = server.root.invite("digits", "viewer")
    assert guest.submit("join", page="", code=lower.secret, as_me="1").status_code == 303
    assert {each.name: each.role for each in server.root.members("digits")}["turing"] == "maintainer"
    (entry,) = [one for one in server.root.events() if one.what == "turing as maintainer, by invitation"][:1]
    assert entry.who == server.root.me().name


def test_only_an_owner_invites(server):
    server.root.add_user("viewer", PASSWORD)
    server.root.set_member("digits", "viewer", "maintainer")
    token = server.root.create_token("t", scope="admin", user="viewer").token
    body = {"project": "digits", "role": "owner"}
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.post(f"{server.url}/api/v1/invitations", json=body, headers=headers, timeout=10).status_code == 403


def test_invitations_are_listed_and_revoked_in_the_shell_and_on_the_page(server, browser, monkeypatch, capsys):
    monkeypatch.setenv("LMVP_URL", server.url)
    monkeypatch.setenv("LMVP_TOKEN", server.token)
    first, second = (server.root.invite("digits", role) for role in ("viewer", "maintainer"))
    assert main(["members", "digits", "invitations"]) == 0
    listed = capsys.readouterr().out
    assert first.id in listed
    assert second.id in listed
    assert first.secret not in listed
    assert main(["members", "digits", "invitations", "--revoke", first.id]) == 0
    assert main(["members", "digits", "invitations", "--revoke", first.id]) == 3
    assert Browser(server.url).look(f"join?code={first.secret}").status_code == 404
    browser.login()
    page = browser.look("p/digits/-/members").text
    assert second.id in page
    assert first.id not in page
    done = browser.submit("p/digits/-/members", do="revoke", invitation=second.id)
    assert done.status_code == 303
    assert Browser(server.url).look(f"join?code={second.secret}").status_code == 404
    assert second.id not in [one.id for one in server.root.invitations("digits")]


def test_password_is_changed_on_the_page_and_in_the_shell(server, browser, monkeypatch, capsys):
    server.root.add_user("curie", PASSWORD)
    tokens = [server.root.create_token("t", scope="admin", user="curie").token for _ in range(2)]
    other = Browser(server.url)
    assert other.login("curie").status_code == browser.login("curie").status_code == 303
    before = browser.cookies["lmvp_session"]
    fields = {"do": "set_password", "old": PASSWORD, "new": "another long password"}
    answer = browser.submit("account", **fields)
    assert "Ended: 2 tokens, 1 session, 0 invitations." in answer.text
    assert browser.cookies["lmvp_session"] != before
    xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', answer.text)[1]
    form = {"_xsrf": xsrf, "do": "make_token", "name": "next", "scope": "read"}
    made = browser.post(f"{server.url}/account", data=form, timeout=10)
    assert "It is not shown again" in made.text, "the forms of the answer belong to the new session"
    assert "curie" in browser.look("account").text, "the session goes on under a new secret"
    assert other.look("").url.endswith("/login")
    old = Browser(server.url)
    old.cookies.set("lmvp_session", before)
    assert old.look("").url.endswith("/login")
    for token in tokens:
        assert (
            requests.get(f"{server.url}/api/v1/me", headers={"Authorization": f"Bearer {token}"}, timeout=9).status_code
            == 401
        )
    monkeypatch.setenv("LMVP_URL", server.url)
    monkeypatch.setenv("LMVP_TOKEN", server.root.create_token("t", scope="admin", user="curie").token)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\nnot the old one\n"))
    assert main(["users", "passwd", "curie"]) == 5
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\nanother long password\n"))
    capsys.readouterr()
    assert main(["users", "passwd", "curie", "--keep-tokens"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "the password of curie is changed",
        "ended: 0 tokens, 1 session, 0 invitations",
    ]
    assert Client().me().name == "curie"


def test_pages_escape_what_others_wrote(server, browser):
    evil = "<script>alert(1)</script>"
    answer = browser.login(evil, "x" * 20)
    assert evil not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_the_first_start_on_a_network_makes_the_admin_by_a_link(tmp_path):
    command = [sys.executable, "-m", "lmvp_server", "--data", str(tmp_path / "data"), "--host", "0.0.0.0"]

    def start():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        told = []
        for line in process.stdout:
            told.append(line)
            if "Ctrl-C" in line:
                break
        process.stdout.close()
        return process, "".join(told)

    process, told = start()
    try:
        url, code = re.search(r"(http://127\.0\.0\.1:\d+)/join\?code=(\S+)", told).groups()
        guest = Browser(url)
        assert "Set up this server" in guest.look(f"join?code={code}").text
        answer = guest.submit("join", page=f"join?code={code}", code=code, name="ada", password=PASSWORD)
        assert answer.status_code == 303
        token = (tmp_path / "data" / "token").read_text().strip()
        assert [(each.name, each.admin) for each in Client(url, token).users()] == [("ada", True)]
        assert (
            code not in (tmp_path / "data" / "server.log").read_text()
            if (tmp_path / "data" / "server.log").exists()
            else True
        )
    finally:
        process.terminate()
        process.wait()
    process, told = start()
    process.terminate()
    process.wait()
    assert "join?code" not in told
