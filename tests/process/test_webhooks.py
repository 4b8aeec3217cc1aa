"""Webhooks, sent by a real server to a real one that listens: signed, in order, again until they arrive."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from support.real_server import Server

from lmvp import errors
from lmvp.cli import main
from lmvp.client.models import Client
from lmvp.core.schemas import NewProject, Project
from lmvp_server.services import webhooks
from lmvp_server.services.webhooks import Webhooks


class Listener:
    """Somebody who is told; answers what `status` says."""

    def __init__(self):
        self.got, self.status, self.hold = [], 204, 0.0
        listener = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(listener.hold)
                listener.got.append((self.path, dict(self.headers.items()), body, listener.status))
                self.send_response(listener.status)
                if listener.status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{listener.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/lmvp?room=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self, *, only_taken=True):
        """What arrived, as it was said."""
        return [json.loads(body) for _, _, body, status in self.got if status < 300 or not only_taken]

    def wait(self, count, **options):
        deadline = time.monotonic() + 30
        while len(self.told(**options)) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} came, not {count}"
            time.sleep(0.05)
        return self.told(**options)

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Telling(Server):
    allowed = ("127.0.0.1",)

    def command(self):
        return [*super().command(), *(word for rule in self.allowed for word in ("--webhook-to", rule))]


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.end()


@pytest.fixture
def server(home, tmp_path):
    server = Telling(tmp_path / "served")
    server.root = Client(server.url, server.start())
    make(server, "digits")
    yield server
    server.end()


def make(server, project):
    server.root._connection.send_json("POST", "/projects", NewProject(name=project), Project)


def push(server, value, **options):
    return server.root.update("digits/mlp", {"w": np.full(9, value, "f4")}, progress=False, create=True, **options)


def test_what_happens_is_told_in_order_and_signed(server, listener):
    from standardwebhooks import Webhook

    made = server.root.add_webhook("digits", listener.url)
    push(server, 1.0, message="first", alias="best")
    push(server, 2.0)
    server.root.alias("digits/mlp@v2", "production")
    told = listener.wait(5)
    kinds = [one["type"] for one in told]
    assert kinds.count("version.create") == 2
    log = list(reversed(server.root.events("digits")))
    assert kinds == [one.action for one in log]
    version = next(one for one in told if one["type"] == "version.create")
    assert version["data"]["what"] == "digits/mlp@v1"
    assert version["data"]["after"]["message"] == "first"
    for path, headers, body, _ in listener.got:
        assert path == "/lmvp?room=1"
        lower = {name.lower(): value for name, value in headers.items()}
        assert Webhook(made.secret).verify(body, lower) == json.loads(body)
    ids = [headers["Webhook-Id"] for _, headers, _, _ in listener.got]
    assert len(set(ids)) == len(ids)


def test_only_what_is_asked_for_is_told(server, listener):
    server.root.add_webhook("digits", listener.url, ["alias."])
    push(server, 1.0)
    server.root.alias("digits/mlp@v1", "best")
    assert [one["type"] for one in listener.wait(1)] == ["alias.move"]
    with pytest.raises(errors.InvalidArgument, match="no events begin with 'user'"):
        server.root.add_webhook("digits", listener.url, ["user"])


def test_what_does_not_arrive_is_sent_again(server, listener):
    made = server.root.add_webhook("digits", listener.url, ["version."])
    listener.status = 500
    push(server, 1.0)
    push(server, 2.0)
    listener.wait(1, only_taken=False)
    deadline = time.monotonic() + 10
    while not (shown := server.root.webhooks("digits")[0]).tries:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (shown.error, shown.disabled) == ("it answered 500", False)
    listener.status = 204
    server.root.enable_webhook("digits", made.id)  # not to wait for the seconds between two tries
    assert [one["data"]["what"] for one in listener.wait(2)] == ["digits/mlp@v1", "digits/mlp@v2"]
    first, again = (headers["Webhook-Id"] for _, headers, _, _ in listener.got[:2])
    assert first == again


def test_a_redirect_is_not_followed_and_who_is_gone_is_given_up(server, listener):
    made = server.root.add_webhook("digits", listener.url)
    listener.status = 302
    assert server.root.test_webhook("digits", made.id).error == "it answered 302"
    assert [path for path, *_ in listener.got] == ["/lmvp?room=1"]
    listener.status = 410
    push(server, 1.0)
    deadline = time.monotonic() + 10
    while not server.root.webhooks("digits")[0].disabled:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    listener.end()
    assert "refused" in server.root.test_webhook("digits", made.id).error


def test_a_server_that_is_killed_goes_on_where_it_was(server, listener):
    """Each event arrives at least once, and the first arrivals are in order."""
    server.root.add_webhook("digits", listener.url, ["version."])
    listener.hold = 0.05
    pushed = 0
    for _ in range(4):
        for _ in range(5):
            pushed = push(server, float(pushed)).number
        server.kill()
        server.start()
    told = [one["data"]["what"] for one in listener.wait(pushed)]
    deadline = time.monotonic() + 30
    while len(dict.fromkeys(told)) < pushed:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        told = [one["data"]["what"] for one in listener.told()]
    assert list(dict.fromkeys(told)) == [f"digits/mlp@v{number}" for number in range(1, pushed + 1)]
    assert len(told) <= pushed + 4, "only what was under way is sent twice"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/",
        "http://localhost:1/",
        "http://[::1]/",
        "http://10.0.0.1/",
        "https://example.org/",
    ],
)
def test_the_server_is_not_turned_on_its_own_network(server, url):
    with pytest.raises(errors.AccessDenied, match="sends no webhooks to"):
        server.root.add_webhook("digits", url)
    assert server.root.webhooks("digits") == []


def test_nothing_is_sent_where_nothing_is_allowed(home, tmp_path, listener):
    server = Server(tmp_path / "served")
    server.root = Client(server.url, server.start())
    try:
        make(server, "digits")
        with pytest.raises(errors.AccessDenied, match="sends no webhooks to"):
            server.root.add_webhook("digits", listener.url)
    finally:
        server.end()


def test_owners_alone_have_them_and_secrets_show_once(server, listener, tmp_path):
    made = server.root.add_webhook("digits", listener.url)
    clients = {}
    for name, role in (("ada", "owner"), ("grace", "maintainer")):
        server.root.add_user(name, "a long password")
        server.root.set_member("digits", name, role)
        clients[name] = Client(server.url, server.root.create_token("t", scope="admin", user=name).token)
    with pytest.raises(errors.AccessDenied):
        clients["grace"].webhooks("digits")
    make(server, "other")
    with pytest.raises(errors.NotFound):
        server.root.remove_webhook("other", made.id)
    shown = server.root._connection.send("GET", "/projects/digits/webhooks").text
    assert made.id in shown
    assert made.secret not in shown
    assert made.secret not in server.root._connection.send("GET", "/events").text
    assert "room=1" not in server.root._connection.send("GET", "/events").text
    clients["ada"].remove_webhook("digits", made.id)
    assert clients["ada"].webhooks("digits") == []


def test_they_go_with_their_project_for_good(server, listener):
    server.root.add_webhook("digits", listener.url)
    server.root.remove("digits/", yes=True)
    server.root.undelete("digits/")
    assert len(server.root.webhooks("digits")) == 1
    server.root.remove("digits/", now=True, yes=True)
    make(server, "digits")
    assert server.root.webhooks("digits") == []


def test_the_shell(server, listener, capsys, monkeypatch):
    monkeypatch.setenv("LMVP_URL", server.url)
    monkeypatch.setenv("LMVP_TOKEN", server.root._token)

    def said(*words, code=0):
        assert main(["webhooks", *words]) == code
        out = capsys.readouterr()
        return out.out + out.err

    assert "no webhooks" in said("digits")
    added = said("digits", "add", listener.url, "--event", "version.")
    assert "digits sends version. to 127.0.0.1 as " in added
    assert "its secret, shown this once: whsec_" in added
    id_ = added.split(" as ")[1].split()[0]
    assert said("digits", "test", id_) == "it answered 204\n"
    assert "nothing sent yet" in said("digits")
    assert "deliveries continue after the last one" in said("digits", "enable", id_)
    assert "add what?" in said("digits", "add", code=2)
    assert "hint: `lmvp webhooks digits test ID`" in said("digits", "test", code=2)
    said("digits", "remove", id_)
    assert "no webhooks" in said("digits")


def test_a_webhook_that_fails_for_days_is_given_up(tmp_path, monkeypatch):
    """Over the store: three days cannot be waited for."""
    from lmvp.core.schemas import NewWebhook
    from lmvp_server.services import Services
    from lmvp_server.services.access import Caller
    from lmvp_server.services.webhook_allowlist import WebhookAllowlist

    services = Services.open(tmp_path / "data", allowlist=WebhookAllowlist.parse(["127.0.0.1"]))
    ada = Caller("ada", is_operator=True, scope="admin")
    services.catalog.create_project(ada, "digits")
    hooks: Webhooks = services.webhooks
    hooks.add(ada, "digits", NewWebhook(url="http://127.0.0.1:9/"))
    services.catalog.create_model(ada, "digits", "mlp")
    clock, waits = [time.time()], []
    monkeypatch.setattr(webhooks.time, "time", lambda: clock[0])
    while True:
        found = list(hooks.due())
        if not found:
            (record,) = services.records.find("server", "webhooks")
            if record.data["disabled"]:
                break
            waits.append(record.data["next_at"] - clock[0])
            clock[0] = record.data["next_at"]
            continue
        hooks.failed(found[0], "no")
    assert 5 <= waits[0] < 6
    assert 10 <= waits[1] < 12
    assert max(waits) < 3600 * 1.2
    assert 3 * 86400 < clock[0] - float(record.data["since"]) < 3 * 86400 + 4000
    services.close()
