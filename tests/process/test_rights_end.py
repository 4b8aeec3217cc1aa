"""Rights that end × ways to use them: after the end of a right, no way still works. The table has no gaps.

Each row is something that ends: an account, a role, a token, a session, an invitation. Each column is a way to use it.
A cell is tested before the end (it works) and after it (it is refused), or it is listed with the reason why it cannot
exist. A new row or column without its cells fails `test_table_has_no_gaps`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from argon2 import PasswordHasher
from support.in_process import Served
from support.openid_provider import CODE, Provider
from support.ports import reserved_port

from lmvp import config
from lmvp.client.models import Client
from lmvp.core.schemas import NewProject, Project
from lmvp_server.app import App
from lmvp_server.routes import API
from lmvp_server.services import access, passwords
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.settings import Settings
from lmvp_server.stores.base import Delete, Put
from lmvp_server.web import openid_client as openid
from lmvp_server.web.pages.base import mark

PASSWORD, ANOTHER = "correct horse battery", "another long password"
PROJECT, RUN = "digits", "a" * 32
MARK = 4242.0
"""The value of a point that is logged after the end of a right: no stream may show it."""
PATIENCE = 8.0


class Running(App):
    """A server in a thread of this process, so that the tests reach its records."""

    def _application(self):
        application = super()._application()
        self.services = application.settings["services"]
        return application


class Listener:
    """Receives webhooks; counts them by path."""

    def __init__(self):
        listener, self.got = self, []

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                listener.got.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Browser(requests.Session):
    """Keeps cookies, and sends the forms of pages."""

    def __init__(self, url):
        super().__init__()
        self.base = url

    def submit(self, path, page=None, **fields):
        text = self.get(f"{self.base}/{path if page is None else page}", timeout=20).text
        found = re.search(r'name="_xsrf" value="([0-9a-f]+)"', text)
        given = {"_xsrf": found[1] if found else "", **fields}
        return self.post(f"{self.base}/{path}", data=given, timeout=20, allow_redirects=False)


class Jupyter:
    """A real Jupyter server with LMVP's extension. Its user logs in to LMVP by the credentials file."""

    def __init__(self, folder, url):
        (folder / "jupyter_server_config.d").mkdir(parents=True)
        turned_on = {"ServerApp": {"jpserver_extensions": {"lmvp_jupyter": True}}}
        (folder / "jupyter_server_config.d" / "lmvp.json").write_text(json.dumps(turned_on))
        self.home, self.url, self.token, port = folder / "LMVP_HOME", url, secrets.token_hex(16), reserved_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LMVP_")}
        names = ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "LMVP_HOME")
        environment |= {name: str(folder / name) for name in names}
        environment |= {"JUPYTER_CONFIG_DIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", f"--port={port}", "--allow-root",
                   "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}",
                   f"--ServerApp.root_dir={folder}"]  # fmt: skip
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.base = f"http://127.0.0.1:{port}"
        while True:
            with suppress(requests.ConnectionError):
                requests.get(f"{self.base}/api", timeout=5)
                break
            assert self.process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)

    def ask(self, method, path, token, body):
        """Send a request through the proxy, as a user who has logged in with `token`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LMVP_HOME", str(self.home))
            config.login(self.url, token)
        headers = {"Authorization": f"token {self.token}"}
        return requests.request(
            method, f"{self.base}/lmvp/api/v1{path}", json=body, headers=headers, timeout=60, allow_redirects=False
        )

    def close(self):
        self.process.terminate()
        self.process.wait(30)


class World:
    def __init__(self, data):
        self.folder, self._jupyter = data.parent, None
        self.listener = Listener()
        self.started, self._names = threading.Event(), itertools.count()
        self.provider = Provider() if find_spec("authlib") else None
        known = openid.Provider(self.provider.issuer, "lmvp") if self.provider else None
        self.app = Running(Settings(data, webhook_to=WebhookAllowlist.parse(["127.0.0.1"]), openid=known))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self.started.wait(30)
        self.url, self.token, self.services = self.app.url, self.app.settings.token, self.app.services
        self.root = Client(self.url, self.token)
        self.project(PROJECT)
        self.root.add_user("keeper", PASSWORD)
        self.root.set_member(PROJECT, "keeper", "owner")  # so that all others may be removed

    async def _serve(self):
        await self.app.start()
        self.loop = asyncio.get_running_loop()
        self.started.set()
        try:
            await self.app.run()
        finally:
            await self.app.stop()

    def end(self):
        if self._jupyter is not None:
            self._jupyter.close()
        self.loop.call_soon_threadsafe(self.app.end)
        self._thread.join(30)
        self.listener.end()
        if self.provider is not None:
            self.provider.close()

    @property
    def jupyter(self):
        """A Jupyter server with the extension, which a test starts that needs it."""
        if self._jupyter is None:
            self._jupyter = Jupyter(self.folder / "jupyter", self.url)
        return self._jupyter

    def project(self, name):
        self.root._connection.send_json("POST", "/projects", NewProject(name=name), Project)
        self.ask("post", f"/projects/{name}/models", self.token, {"name": "mlp"})
        self.ask("post", f"/projects/{name}/runs", self.token, {"run": RUN})

    def ask(self, method, path, token, body=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.request(method, f"{self.url}/api/v1{path}", json=body, headers=headers, timeout=20)

    def person(self, *, admin=False, role="", project=PROJECT):
        """Make an account with a token of full scope and a session."""
        name = f"person-{next(self._names)}"
        self.root.add_user(name, PASSWORD, admin=admin)
        if role:
            self.root.set_member(project, name, role)
        made = self.root.create_token("t", scope="admin", user=name)
        browser = Browser(self.url)
        assert browser.submit("login", name=name, password=PASSWORD).status_code == 303
        return Access(self, name, made.token, browser, token_id=made.id, project=project)

    def account(self, name):
        return self.services.users.find(name)


@dataclass
class Access:
    """What a person holds, and the streams and webhooks that were begun with it."""

    world: World
    name: str
    token: str
    browser: Browser
    token_id: str = ""
    project: str = PROJECT
    by_cookie: bool = False
    secret: str = ""
    hook: str = ""
    stream: socket.socket | None = None
    more: dict = field(default_factory=dict)

    def ask(self, method, path, body=None):
        return self.world.ask(method, path, self.token, body)


# -- ways to use a right: each returns whether it works


def api_read(one):
    return one.ask("get", f"/projects/{one.project}").ok


def api_write(one):
    return one.ask("post", f"/projects/{one.project}/runs", {"run": secrets.token_hex(16)}).ok


def event_poll(one):
    return one.ask("get", f"/projects/{one.project}/events?limit=5").ok


def console_page(one):
    answer = one.browser.get(f"{one.world.url}/p/{one.project}", timeout=20, allow_redirects=False)
    return answer.status_code == 200


def console_form(one):
    """Send the form of a model's card; after the end, the one that was loaded before it."""
    form = f"{one.world.url}/p/{one.project}/mlp"
    if "xsrf" not in one.more:
        one.more["xsrf"] = re.search(r'name="_xsrf" value="([0-9a-f]+)"', one.browser.get(form, timeout=20).text)[1]
    card = one.world.ask("get", f"/projects/{one.project}/models/mlp", one.world.token).json()["description"]
    fields = {"_xsrf": one.more["xsrf"], "do": "describe", "was": mark(card), "description": secrets.token_hex(4)}
    return one.browser.post(form, data=fields, timeout=20, allow_redirects=False).status_code == 303


def _open(one):
    """Open the stream of server-sent events; return the socket behind its first event, or None if it is refused."""
    path = f"/p/{one.project}/-/live" if one.by_cookie else f"/api/v1/projects/{one.project}/metrics/live"
    cookies = "; ".join(f"{each.name}={each.value}" for each in one.browser.cookies) if one.by_cookie else ""
    headers = [f"Cookie: {cookies}"] if cookies else []
    headers += [f"Authorization: Bearer {one.token}"] if one.token and not one.by_cookie else []
    host = one.world.url.removeprefix("http://")
    asked = "\r\n".join([f"GET {path}?run={RUN} HTTP/1.1", f"Host: {host}", *headers, "", ""])
    found = socket.create_connection(host.rsplit(":", 1), PATIENCE)
    found.sendall(asked.encode())
    got = b""
    while b"\r\n\r\n" not in got or (b" 200 " in got[:20] and b"event: status" not in got):
        piece = found.recv(4096)
        if not piece:
            break
        got += piece
    if b" 200 " in got[:20]:
        return found
    found.close()
    return None


def new_stream(one):
    found = _open(one)
    if found is not None:
        found.close()
    return found is not None


def open_stream(one):
    """Whether a stream that is open shows a point that is logged now."""
    if one.stream is None:
        one.stream = _open(one)
        assert one.stream is not None
    value = MARK + next(one.world._names)
    point = {"values": {"loss": value}, "step": int(value)}
    assert one.world.ask("post", f"/projects/{one.project}/runs/{RUN}/metrics", one.world.token, point).ok
    got, ends = b"", time.monotonic() + PATIENCE
    try:
        while str(value).encode() not in got and time.monotonic() < ends:
            piece = one.stream.recv(4096)
            if not piece:
                return False
            got += piece
    except TimeoutError:
        return False
    return str(value).encode() in got


def jupyter_proxy(one):
    """Write through the reverse proxy of a real Jupyter server."""
    path = f"/projects/{one.project}/runs"
    answer = one.world.jupyter.ask("POST", path, one.token, {"run": secrets.token_hex(16)})
    assert answer.status_code in {201, 401, 403, 404}, answer.text
    return answer.ok


def webhook(one):
    """Whether an event of the project reaches the webhook that the person added."""
    if not one.hook:
        one.hook = f"/{secrets.token_hex(8)}"
        made = one.ask("post", f"/projects/{one.project}/webhooks", {"url": one.world.listener.url + one.hook})
        assert made.ok, made.text
        one.more["hook"] = made.json()["id"]
    count = one.world.listener.got.count(one.hook)
    told = one.world.ask("post", f"/projects/{one.project}/models", one.world.token, {"name": secrets.token_hex(8)})
    assert told.ok
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if one.world.listener.got.count(one.hook) > count:
            return True
        kept = one.world.services.records.get(SERVER, "webhooks", one.more["hook"])
        if kept is None or kept.data["disabled"]:
            return False
        time.sleep(0.05)
    return False


def backup(one):
    """Fetch the records of the whole server."""
    if "backup" not in one.more:
        begun = one.ask("post", "/backups")
        assert begun.ok, begun.text
        one.more["backup"] = begun.json()["id"]
    return one.ask("get", f"/backups/{one.more['backup']}/records/{SERVER}").ok


def _make_link(one):
    made = one.ask("post", "/signin-links", {"page": f"p/{one.project}"})
    assert made.ok, made.text
    return made.json()["code"]


def _follow(one, code):
    browser = Browser(one.world.url)
    browser.submit("open", code=code)
    return browser


def signin_link(one):
    """Read by a session that a sign-in link began; after the end, also by a link that was made before it."""
    if "linked" not in one.more:
        one.more["linked"], one.more["kept"] = [_follow(one, _make_link(one))], _make_link(one)
    else:
        one.more["linked"].append(_follow(one, one.more["kept"]))
    page = f"{one.world.url}/p/{one.project}"
    return any(each.get(page, timeout=20, allow_redirects=False).status_code == 200 for each in one.more["linked"])


WAYS = (api_read, api_write, console_page, console_form, new_stream, open_stream, event_poll, jupyter_proxy, webhook,
        backup, signin_link)  # fmt: skip
BY_TOKEN = (api_read, api_write, new_stream, open_stream, event_poll, jupyter_proxy, signin_link)
BY_SESSION = (console_page, console_form, new_stream, open_stream)
READING = (api_read, console_page, new_stream, open_stream)


# -- rights that end: each prepares what a person holds, and gives back what ends it


def account_disabled(world):
    one = world.person(admin=True)
    return one, lambda: world.root.change_user(one.name, disabled=True)


def account_disabled_and_enabled(world):
    one = world.person(admin=True)

    def end():
        world.root.change_user(one.name, disabled=True)
        world.root.change_user(one.name, disabled=False)

    return one, end


def account_deleted(world):
    """There is no route that deletes an account: a record that is missing, in a restored folder say, means the same."""
    one = world.person(admin=True)
    account = world.account(one.name)
    gone = [Delete("users", account.id), Delete("names", f"users:{one.name}")]
    return one, lambda: world.services.records.commit(SERVER, gone)


def password_changed(world):
    one = world.person(admin=True)
    return one, lambda: world.root.change_user(one.name, password=ANOTHER)


def admin_demoted(world):
    one = world.person(admin=True)
    return one, lambda: world.root.change_user(one.name, admin=False)


def member_removed(world):
    one = world.person(role="owner")
    return one, lambda: world.root.remove_member(PROJECT, one.name)


def role_lowered(world):
    one = world.person(role="owner")
    return one, lambda: world.root.set_member(PROJECT, one.name, "viewer")


def group_left(world):
    one = world.person()
    group = f"group-{one.name}"
    world.root.set_group(group, [one.name])
    world.root.set_member(PROJECT, f"@{group}", "owner")
    return one, lambda: world.root.set_group(group, [])


def _removed(world, one):
    """Make a project that the person removes, and that is brought back before the end of the right by `bring_back`."""
    one.project = f"removed-{secrets.token_hex(3)}"
    world.project(one.project)
    return one


def admin_demoted_while_a_project_is_removed(world):
    one = _removed(world, world.person(admin=True))
    return one, lambda: world.root.change_user(one.name, admin=False)


def group_left_while_a_project_is_removed(world):
    one = _removed(world, world.person())
    group = f"group-{one.name}"
    world.root.set_group(group, [one.name])
    world.root.set_member(one.project, f"@{group}", "owner")
    return one, lambda: world.root.set_group(group, [])


def account_disabled_and_enabled_while_a_project_is_removed(world):
    one = _removed(world, world.person())
    world.root.set_member(one.project, one.name, "owner")

    def end():
        assert world.ask("delete", f"/projects/{one.project}", world.token).ok
        world.root.change_user(one.name, disabled=True)
        world.root.change_user(one.name, disabled=False)
        assert world.ask("post", f"/projects/{one.project}/undelete", world.token).ok

    return one, end


def bring_back(one):
    """Bring a project back that the person removed; before the end of the right, remove it again."""
    if not one.more.get("ended"):
        assert one.ask("delete", f"/projects/{one.project}").ok
    listed = [each["name"] for each in one.ask("get", "/removed").json()["items"]]
    answer = one.ask("post", f"/projects/{one.project}/undelete")
    assert answer.ok == (f"{one.project}/" in listed), "the list agrees"
    if answer.ok:
        assert one.ask("delete", f"/projects/{one.project}").ok
    return answer.ok


def everyone_lowered(world):
    one = world.person(project="open")
    world.project("open")
    world.root.change_project("open", everyone="maintainer")
    return one, lambda: world.root.change_project("open", everyone="")


def token_revoked(world):
    one = world.person(admin=True)
    assert one.browser.submit("logout", page="account").status_code == 303
    assert one.browser.submit("login", token=one.token).status_code == 303  # its session ends with the token
    return one, lambda: world.root.revoke_token(one.token_id)


def token_expired(world):
    one = world.person(admin=True)
    assert one.browser.submit("logout", page="account").status_code == 303
    assert one.browser.submit("login", token=one.token).status_code == 303

    def end():
        record = world.services.records.get(SERVER, "tokens", one.token_id)
        past = {**record.data, "expires_at": "2026-01-01T00:00:00+00:00"}
        world.services.records.commit(SERVER, [Put("tokens", record.id, past)])
        world.services.tokens._known = None  # the ends of tokens are read once

    return one, end


def session_ended(world):
    one = world.person(role="owner")
    one.by_cookie = True

    def end():
        kept = one.browser.cookies.copy()
        assert one.browser.submit("logout", page="account").status_code == 303
        one.browser.cookies.update(kept)

    return one, end


def _invited(world):
    by = world.person(role="owner")
    made = by.ask("post", "/invitations", {"project": PROJECT}).json()
    guest = Access(world, "guest", "", Browser(world.url), secret=made["secret"])
    return by, made, guest


def invitation_revoked(world):
    _by, made, guest = _invited(world)
    return guest, lambda: world.root.revoke_invitation(made["id"])


def invitation_creator_disabled(world):
    by, _made, guest = _invited(world)
    return guest, lambda: world.root.change_user(by.name, disabled=True)


def invitation_creator_lowered(world):
    by, _made, guest = _invited(world)
    return guest, lambda: world.root.set_member(PROJECT, by.name, "maintainer")


def join_page(one):
    return one.browser.get(f"{one.world.url}/join?code={one.secret}", timeout=20).status_code == 200


def join_form(one):
    """Make an account; before the end of the invitation, one with a name that is taken, which leaves it unused."""
    by = one.world.person()
    name = by.name if not one.more.get("ended") else f"guest-{secrets.token_hex(4)}"
    page = f"join?code={one.secret}"
    return one.browser.submit("join", page, code=one.secret, name=name, password=PASSWORD).status_code in {303, 409}


def _approved(world):
    by = world.person(admin=True)
    code = world.services.devices.begin("laptop", "192.0.2.1", "page")
    assert by.ask("post", "/device/decision", {"user_code": code.user_code}).ok
    by.more["code"] = code
    return by


def device_approver_disabled(world):
    one = _approved(world)
    return one, lambda: world.root.change_user(one.name, disabled=True)


def device_approver_token_revoked(world):
    one = _approved(world)
    return one, lambda: world.root.revoke_token(one.token_id)


def redeem(one):
    """Fetch the token; before the end, that of a second code, since each is fetched once."""
    code = one.more["code"]
    if not one.more.get("ended"):
        code = one.world.services.devices.begin("laptop", "192.0.2.2", "page")
        assert one.ask("post", "/device/decision", {"user_code": code.user_code}).ok
    answer = one.world.ask("post", "/device/token", "", {"device_code": code.device_code})
    assert answer.status_code in {200, 403}, answer.text
    return answer.ok


def _through_the_provider(one, browser, path="openid"):
    """Follow the redirects to the provider and back; return the last response."""
    away = browser.get(f"{one.world.url}/{path}", timeout=20, allow_redirects=False)
    assert away.status_code == 303, away.text
    asked = parse_qs(urlsplit(away.headers["Location"]).query)
    provider = one.world.provider
    provider.claims, provider.nonce = {"sub": f"s-{one.name}"}, asked["nonce"][0]
    back = f"{one.world.url}/openid-back?state={asked['state'][0]}&code={CODE}"
    return browser.get(back, timeout=20, allow_redirects=False)


def _connected(world):
    """Make an account, connect an identity to it on the account page, and sign in with that."""
    if world.provider is None:
        pytest.skip("no Authlib")
    one = world.person(role="owner")
    page = one.browser.get(f"{world.url}/account", timeout=20).text
    link = re.search(r'href="(openid\?connect=[0-9a-f]+)', page)[1]
    assert _through_the_provider(one, one.browser, link).status_code == 303
    (one.more["identity"],) = [each.id for each in world.root.identities(one.name)]
    one.browser, one.by_cookie = Browser(world.url), True
    assert provider_sign_in(one, one.browser)
    return one


def identity_of_a_disabled_account(world):
    one = _connected(world)
    return one, lambda: world.root.change_user(one.name, disabled=True)


def identity_of_a_deleted_account(world):
    one = _connected(world)
    gone = [Delete("users", world.account(one.name).id), Delete("names", f"users:{one.name}")]
    return one, lambda: world.services.records.commit(SERVER, gone)


def identity_of_an_account_with_a_new_password(world):
    one = _connected(world)
    return one, lambda: world.root.change_user(one.name, password=ANOTHER, keep_tokens=True)


def identity_disconnected(world):
    one = _connected(world)
    return one, lambda: world.root.disconnect_identity(one.more["identity"])


def session_of_a_disconnected_identity(world):
    one = _connected(world)
    return one, lambda: world.root.disconnect_identity(one.more["identity"])


def provider_sign_in(one, browser=None):
    """Sign in at a real provider over HTTP, in a new browser."""
    answer = _through_the_provider(one, browser or Browser(one.world.url))
    assert answer.status_code in {303, 401}, answer.text
    return answer.status_code == 303


def project_made_private(world):
    name = f"public-{secrets.token_hex(3)}"
    world.project(name)
    world.root.change_project(name, public=True)
    one = Access(world, "anonymous", "", Browser(world.url), project=name)
    return one, lambda: world.root.change_project(name, public=False)


def share_with_a_fork_removed(world):
    """A project is public, and somebody has a fork of its model: they read it, and contribute to it, no longer."""
    name = f"shared-{secrets.token_hex(3)}"
    world.project(name)
    world.root.update(f"{name}/net", _weights(), create=True, progress=False)
    world.root.change_project(name, everyone="contributor")
    one = world.person(project=name)
    own = Client(world.url, one.token)
    own._connection.send_json("POST", "/projects", NewProject(name=f"{name}-fork"), Project)
    assert one.ask("post", f"/projects/{name}/models/net/fork", {"to": f"{name}-fork/net"}).ok
    return one, lambda: world.root.change_project(name, everyone="")


def _weights():
    import numpy as np

    return {"w": np.full(9, np.float32(secrets.randbelow(1000)))}


def contribute(one):
    """Propose a version of the fork to the project that it came from."""
    Client(one.world.url, one.token).update(f"{one.project}-fork/net", _weights(), create=True, progress=False)
    path = f"/projects/{one.project}-fork/models/net/versions/latest/contribute"
    return one.ask("post", path, {}).ok


ENDS = {
    account_disabled: {way: way for way in WAYS},
    account_disabled_and_enabled: {way: way for way in (*BY_TOKEN, console_page, console_form, backup)},
    account_deleted: {way: way for way in WAYS},
    password_changed: {way: way for way in (*BY_TOKEN, console_page, console_form, backup)},
    admin_demoted: {way: way for way in WAYS},
    member_removed: {way: way for way in WAYS if way is not backup},
    role_lowered: {way: way for way in (api_write, console_form, jupyter_proxy, webhook)},
    group_left: {way: way for way in WAYS if way is not backup},
    admin_demoted_while_a_project_is_removed: {api_write: bring_back},
    group_left_while_a_project_is_removed: {api_write: bring_back},
    account_disabled_and_enabled_while_a_project_is_removed: {webhook: webhook},
    everyone_lowered: {way: way for way in WAYS if way not in (backup, webhook)},
    token_revoked: {way: way for way in WAYS if way is not webhook},
    token_expired: {way: way for way in WAYS if way is not webhook},
    session_ended: {way: way for way in BY_SESSION},
    invitation_revoked: {console_page: join_page, console_form: join_form},
    invitation_creator_disabled: {console_page: join_page, console_form: join_form},
    invitation_creator_lowered: {console_page: join_page, console_form: join_form},
    device_approver_disabled: {api_write: redeem},
    device_approver_token_revoked: {api_write: redeem},
    identity_of_a_disabled_account: {console_page: provider_sign_in},
    identity_of_a_deleted_account: {console_page: provider_sign_in},
    identity_of_an_account_with_a_new_password: {console_page: provider_sign_in},
    identity_disconnected: {console_page: provider_sign_in},
    session_of_a_disconnected_identity: {way: way for way in BY_SESSION},
    project_made_private: {way: way for way in READING},
    share_with_a_fork_removed: {api_write: contribute, **{way: way for way in (*READING, event_poll, signin_link)}},
}
"""How each way is used, for each right that ends."""

_ALL = "all of them"
_JOINS = "an invitation opens the page to join, and nothing else"
_FETCHED = "a device code is fetched by the API, once, and opens nothing else; the token is another row"
_SIGNS_IN = "an identity signs in to the console; the session is another row"
_REMOVED = "nothing of a removed project works before it is brought back, which the API does"
REASONS = {
    admin_demoted_while_a_project_is_removed: {_ALL: _REMOVED},
    group_left_while_a_project_is_removed: {_ALL: _REMOVED},
    account_disabled_and_enabled_while_a_project_is_removed: {
        _ALL: "the tokens and sessions of the account are other rows"
    },
    account_disabled_and_enabled: {
        "webhook": "the enabled account owns the project again, and a webhook is its project's"
    },
    password_changed: {"webhook": "the account still owns the project, and a webhook is its project's"},
    member_removed: {"backup": "only admins make backups, whose rights do not come from membership"},
    role_lowered: {
        "api_read console_page new_stream open_stream event_poll signin_link": "a viewer still reads",
        "backup": "only admins make backups, whose rights do not come from a role",
    },
    group_left: {"backup": "only admins make backups, whose rights do not come from a group"},
    everyone_lowered: {
        "webhook": "what everybody may is never to own a project, and owners add webhooks",
        "backup": "only admins make backups",
    },
    token_revoked: {"webhook": "a webhook is its project's, and depends on an account and no token"},
    token_expired: {"webhook": "a webhook is its project's, and depends on an account and no token"},
    session_ended: {
        "api_read api_write event_poll jupyter_proxy backup": "the API takes no session, and the proxy sends a token",
        "webhook": "a webhook depends on an account and no session",
        "signin_link": "a link belongs to a token, and its session is another one",
    },
    invitation_revoked: {_ALL: _JOINS},
    invitation_creator_disabled: {_ALL: _JOINS},
    invitation_creator_lowered: {_ALL: _JOINS},
    device_approver_disabled: {_ALL: _FETCHED},
    device_approver_token_revoked: {_ALL: _FETCHED},
    identity_of_a_disabled_account: {_ALL: _SIGNS_IN},
    identity_of_a_deleted_account: {_ALL: _SIGNS_IN},
    identity_of_an_account_with_a_new_password: {_ALL: _SIGNS_IN},
    identity_disconnected: {_ALL: _SIGNS_IN},
    session_of_a_disconnected_identity: {
        "api_read api_write event_poll jupyter_proxy backup": "the API takes no session, and the proxy sends a token",
        "webhook": "a webhook depends on an account and no session",
        "signin_link": "a link belongs to a token, and its session is another one",
    },
    project_made_private: {
        "api_write console_form webhook backup": "without an account nothing is changed",
        "event_poll": "the events of a project are not public; test_roles.py asks every route anonymously",
        "jupyter_proxy": "the proxy always sends the token of an account",
        "signin_link": "a link is made by the token of an account",
    },
    share_with_a_fork_removed: {
        "console_form webhook backup": "a contributor has no form of settings, no webhook and no backup",
        "jupyter_proxy": "it passes on the same request with the same token as `api_write`",
    },
}
"""The reason of each cell that cannot exist."""


def reason(end, way):
    """Return the reason why a cell cannot exist; None if it is tested."""
    if way in ENDS[end]:
        return None
    listed = REASONS.get(end, {})
    return next((why for names, why in listed.items() if way.__name__ in names.split()), listed.get(_ALL))


CELLS = [(end, way) for end, way in itertools.product(ENDS, WAYS) if reason(end, way) is None]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", lambda: cheap)
        world = World(tmp_path_factory.mktemp("rights") / "data")
        yield world
        world.end()


@pytest.fixture(scope="module")
def outcomes(world):
    """What each way does before and after the end of a right; each right ends once."""

    @cache
    def of(end):
        one, finish = end(world)
        before = {way: use(one) for way, use in ENDS[end].items()}
        finish()
        one.more["ended"] = True
        after = {way: use(one) for way, use in ENDS[end].items()}
        if one.stream is not None:
            one.stream.close()
        return before, after

    return of


def test_table_has_no_gaps():
    missing = [
        f"{end.__name__} × {way.__name__}"
        for end, way in itertools.product(ENDS, WAYS)
        if way not in ENDS[end] and not reason(end, way)
    ]
    assert missing == [], "test the cell, or give the reason why it cannot exist"
    stale = [
        f"{end.__name__}: {name}"
        for end, listed in REASONS.items()
        for names in listed
        if names != _ALL
        for name in names.split()
        if name not in {way.__name__ for way in WAYS} or reason(end, globals()[name]) is None
    ]
    assert stale == [], "a cell that is tested needs no reason"
    assert len(CELLS) >= 100


@pytest.mark.parametrize(("end", "way"), CELLS, ids=[f"{end.__name__}-{way.__name__}" for end, way in CELLS])
def test_right_that_ended_is_refused_in_every_way(outcomes, end, way):
    before, after = outcomes(end)
    assert (before[way], after[way]) == (True, False)


def test_sessions_of_a_revoked_token_and_scopes_are_closed_by_default():
    """The scopes of tokens are nested, so that a lower one never has a right that a higher one lacks."""
    read, write, admin = (access.SCOPES[scope] for scope in ("read", "write", "admin"))
    assert read < write < admin
    assert not {access.GRANT, access.ACCOUNT, access.ADMIN, access.OWN} & write


@pytest.mark.parametrize("end", ["revoke", "disable", "demote"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tokens", {"name": "late", "scope": "admin"}),
        ("POST", "/users", {"name": "late", "password": "long enough for all"}),
        ("POST", "/invitations", {"project": "p", "role": "owner"}),
        ("PUT", "/projects/p/members/eve", {"role": "owner"}),
    ],
)
def test_body_that_comes_after_the_end_of_rights_changes_nothing(tmp_path, end, method, path, body):
    """A client that holds the body of its request back gets no further than its rights at the end of the body."""
    with Served(tmp_path / "data") as served:
        served("POST", "/projects", json={"name": "p"})
        served.user("eve", admin=True)
        made = served("POST", "/tokens", json={"name": "t", "user": "eve", "scope": "admin"}).json()
        data = json.dumps(body).encode()
        head = f"{method} {API}{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {made['token']}\r\n"
        with socket.create_connection(("127.0.0.1", served.port), 10) as client:
            client.sendall(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode())
            time.sleep(0.1)
            ended = {
                "revoke": lambda: served("DELETE", f"/tokens/{made['id']}"),
                "disable": lambda: served("PATCH", "/users/eve", json={"disabled": True}),
                "demote": lambda: served("PATCH", "/users/eve", json={"admin": False}),
            }[end]()
            assert ended.ok
            client.sendall(data)
            status = int(client.recv(65536).split()[1])
        if (end, path) == ("demote", "/tokens"):
            assert status == 201, "every account makes tokens"
        else:
            assert status in {401, 403, 404}
