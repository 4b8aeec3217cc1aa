"""Login by a code, and tokens, on a real server with a token of its own."""

import re
import threading
import time

import nbformat
import pytest
import requests
from support.in_process import Served
from support.local_server import SharedServer

import lmvp
import lmvp.client.login
from lmvp import config, errors
from lmvp.cli import main
from lmvp.client.models import Client
from lmvp_server.services import devices
from lmvp_server.services.catalog import SERVER
from lmvp_server.stores.base import Put


@pytest.fixture
def server(home, tmp_path):
    server = SharedServer(tmp_path / "served")
    server.token = server.start()
    server.api = f"{server.url}/api/v1"
    yield server
    server.end()


def begin(server, name="ada@laptop"):
    return requests.post(f"{server.api}/device/code", json={"client_name": name}, timeout=10).json()


def fetch(server, code):
    answer = requests.post(f"{server.api}/device/token", json={"device_code": code["device_code"]}, timeout=10)
    return answer.json() if answer.ok else answer.json()["error"]["code"]


def decide(server, code, **more):
    body = {"user_code": code["user_code"], **more}
    headers = {"Authorization": f"Bearer {server.token}"}
    return requests.post(f"{server.api}/device/decision", json=body, headers=headers, timeout=10)


def test_a_client_waits_is_approved_and_has_a_token_of_its_own(server, capsys):
    owner = Client(server.url, server.token)

    def approve():
        for _ in range(200):
            found = re.search(r"code ([A-Z]{4}-[A-Z]{4})", told[0]) if told else None
            if found:
                assert owner.decide_device(found[1].lower(), approve=True).client_name.partition("@")[2]
                return
            time.sleep(0.05)

    told = []
    helper = threading.Thread(target=approve)
    helper.start()
    from lmvp.client.login import sign_in

    assert sign_in(server.url, say=told.append) == server.url
    helper.join()
    token = config.token_for(server.url)
    assert token.startswith("lmvp_")
    assert token != server.token
    assert token not in told[0]
    credentials = next(path for path in config.config_home().rglob("*") if path.is_file() and token in path.read_text())
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert Client(server.url).projects() == []
    (record,) = owner.tokens()
    assert record.used_at is not None
    everything = b"".join(path.read_bytes() for path in server.data.rglob("*") if path.is_file())
    assert token.encode() not in everything, "a secret is kept nowhere on the server"
    owner.revoke_token(record.id)
    with pytest.raises(errors.NotAuthenticated):
        Client(server.url).projects()


def test_codes_are_decided_once_and_tokens_fetched_once(server):
    code, other = begin(server), begin(server, "grace\n<script>")
    assert re.fullmatch(f"[{devices.LETTERS}]{{4}}-[{devices.LETTERS}]{{4}}", code["user_code"])
    assert fetch(server, code) == "authorization_pending"
    assert fetch(server, code) == "slow_down"
    assert fetch(server, other) == "authorization_pending"
    decided = {"client_name": "ada@laptop", "address": "127.0.0.1", "approved": True, "scope": "write"}
    assert decide(server, code).json() == decided
    assert decide(server, code).status_code == 404
    assert set(fetch(server, code)) == {"access_token", "name", "scope"}
    assert fetch(server, code) == "expired_token"
    decide(server, other, approve=False)
    assert fetch(server, other) == "access_denied"
    assert fetch(server, {"device_code": "x" * 43}) == "expired_token"
    server.kill()
    server.start()
    assert fetch(server, begin(server) | {"device_code": code["device_code"]}) == "expired_token"


def test_nobody_decides_without_a_token_and_guesses_are_few(server):
    code = begin(server)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = requests.post(
            f"{server.api}/device/decision", json={"user_code": code["user_code"]}, headers=headers, timeout=9
        )
        assert answer.status_code == 401
        assert requests.get(f"{server.api}/tokens", headers=headers, timeout=9).status_code == 401
    statuses = [decide(server, {"user_code": "BBBB-BBBB"}).status_code for _ in range(12)]
    assert statuses == [404] * 10 + [429] * 2
    begun = [requests.post(f"{server.api}/device/code", json={}, timeout=9).status_code for _ in range(12)]
    assert begun[:9] == [200] * 9
    assert begun[-1] == 429


def test_the_page_shows_who_asks_and_takes_a_token_with_each_decision(server):
    code = begin(server, "<b>grace</b>")
    browser = requests.Session()
    page = browser.get(f"{server.url}/device?code={code['user_code']}", timeout=9)
    xsrf = re.search(r'name="_xsrf" value="(\w+)"', page.text)[1]
    assert "&lt;b&gt;grace&lt;/b&gt;" in page.text
    assert "read and write (<code>write</code>)" in page.text
    assert re.findall(r"<option( selected)?>(\w+)</option>", page.text) == [("", "read"), (" selected", "write")]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    form = {"code": code["user_code"], "verdict": "approve"}
    foreign = browser.post(f"{server.url}/device", data={**form, "token": server.token}, timeout=9)
    assert foreign.status_code == 403, "it is not from our page"
    form["_xsrf"] = xsrf
    for token in ("", "wrong"):
        answer = browser.post(f"{server.url}/device", data={**form, "token": token}, timeout=9)
        assert answer.status_code == 403
        assert "not known here" in answer.text
    assert fetch(server, code) == "authorization_pending"
    done = browser.post(f"{server.url}/device", data={**form, "token": server.token}, timeout=9)
    assert "Approved" in done.text
    assert server.token not in done.text
    assert fetch(server, code)["access_token"]
    assert requests.get(f"{server.url}/device?code=nothing", timeout=9).text.count("no login waits") == 1


def test_login_gets_all_rights_only_if_they_are_asked_for_and_approved(server, monkeypatch):
    for fields, scope in (({}, "write"), ({"scope": "admin"}, "admin")):
        code = requests.post(f"{server.api}/device/code", json={"client_name": "x", **fields}, timeout=9).json()
        if scope == "admin":
            assert decide(server, code).status_code == 400
            page = requests.get(f"{server.url}/device?code={code['user_code']}", timeout=9).text
            assert "all rights of your account" in page
            assert " selected>write</option>" in page
        assert decide(server, code, **fields).json()["scope"] == scope
        assert fetch(server, code)["scope"] == scope
    asked = []
    monkeypatch.setattr("lmvp.client.login.by_code", lambda url, say, scope: asked.append(scope) or server.token)
    assert main(["login", server.url, "--scope", "admin"]) == 0
    lmvp.login(server.url)
    lmvp.login(server.url, scope="read")
    assert asked == ["admin", "read"], "a stored token is used unless a scope is named"


@pytest.mark.parametrize(("granted", "notes"), [("write", 1), ("admin", 0)])
def test_login_names_a_scope_that_is_smaller_than_the_requested_one(server, granted, notes):
    said = []

    def say(text):
        said.append(text)
        if (code := re.search(r"approve the code (\S+)\.", text)) is not None:
            assert decide(server, {"user_code": code[1]}, scope=granted).ok

    lmvp.client.login.by_code(server.url, say, "admin")
    assert len(said[1:]) == notes
    assert all(f"The token has the scope {granted}" in text for text in said[1:])


def test_verbs_of_the_shell(server, capsys, monkeypatch):
    monkeypatch.setenv("LMVP_URL", server.url)
    monkeypatch.setenv("LMVP_TOKEN", server.token)
    assert main(["tokens", "create", "ci", "--days", "30"]) == 0
    secret, _, rest = capsys.readouterr().out.partition("\n")
    assert Client(server.url, secret).projects() == []
    id_ = re.search(r"`lmvp tokens revoke (\w+)`", rest)[1]
    assert main(["tokens"]) == 0
    listed = capsys.readouterr().out
    assert "ci" in listed
    assert secret not in listed
    assert main(["tokens", "revoke", id_]) == 0
    with pytest.raises(errors.NotAuthenticated):
        Client(server.url, secret).projects()
    code = begin(server)
    assert main(["devices", "deny", code["user_code"]]) == 0
    assert fetch(server, code) == "access_denied"
    assert main(["tokens", "create"]) == 2
    assert main(["devices", "approve", "XXXX"]) == 3


def test_nothing_secret_is_in_a_notebook_that_logged_in(server, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    owner = Client(server.url, server.token)
    cells = ["%load_ext lmvp_jupyter\nimport lmvp", f"%lmvp login {server.url}", "lmvp.Client().projects()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    stop = threading.Event()

    def approve():
        while not stop.wait(0.2):
            text = nbformat.writes(notebook)
            found = re.search(r"code=([A-Z]{4}-[A-Z]{4})", text)
            if found:
                owner.decide_device(found[1], approve=True)
                return

    helper = threading.Thread(target=approve)
    helper.start()
    try:
        nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    finally:
        stop.set()
        helper.join()
    text = nbformat.writes(notebook)
    token = config.token_for(server.url)
    assert token
    assert token not in text
    assert server.token not in text
    assert "approve the code" in text


def test_a_given_token_is_checked_and_an_old_one_is_no_hindrance(server, monkeypatch):
    with pytest.raises(errors.NotAuthenticated):
        lmvp.login(server.url, "wrong")
    assert config.token_for(server.url) is None
    assert lmvp.login(server.url, server.token) == server.url
    config.login(server.url, "outdated")
    asked = []
    monkeypatch.setattr("lmvp.client.login.by_code", lambda url, *_: asked.append(url) or server.token)
    lmvp.login(server.url)
    assert asked == [server.url]


def test_page_asks_an_old_session_for_the_password(tmp_path):
    with Served(tmp_path / "data") as served:
        served.user("ada")
        browser = requests.Session()

        def send(path, **fields):
            page = browser.get(f"{served.url}/{path}", timeout=30).text
            fields["_xsrf"] = re.search(r'name="_xsrf" value="(\w+)"', page)[1]
            where = f"{served.url}/{path.partition('?')[0]}"
            return page, browser.post(where, data=fields, timeout=30, allow_redirects=False)

        assert send("login", name="ada", password="ada has a long one")[1].status_code == 303
        records = served.services.records
        (session,) = records.find(SERVER, "sessions")
        records.commit(SERVER, [Put("sessions", session.id, {**session.data, "began": time.time() - 601})])
        code = served("POST", "/device/code", "", json={"scope": "admin"}).json()
        path, decision = f"device?code={code['user_code']}", {"code": code["user_code"], "verdict": "approve"}
        page, refused = send(path, scope="admin", **decision)
        assert 'name="old"' in page
        assert refused.status_code == 403
        assert "needs the current password" in refused.text
        _, approved = send(path, scope="admin", old="ada has a long one", **decision)
        assert (approved.status_code, "Approved" in approved.text) == (200, True)
        made = served("POST", "/device/token", "", json={"device_code": code["device_code"]}).json()
        assert made["scope"] == "admin"
