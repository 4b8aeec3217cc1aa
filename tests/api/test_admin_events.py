"""Every request that changes something leaves an event with its author, its object and its result."""

import errno
import re
import secrets
import struct
import time

import msgspec
import pytest
import requests
from support.in_process import Served
from support.runs_over_http import begin

from lmvp.core import chunk_frames, digest
from lmvp.core.chunk_frames import Frame
from lmvp_server.openapi import methods_of
from lmvp_server.routes import PAGES, ROUTES
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.identities import Identity
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.services.webhooks import PATIENCE
from lmvp_server.stores.base import Put
from lmvp_server.web.pages.base import ConsolePage

P, M, V = "/projects/p", "/projects/p/models/m", "/projects/p/models/m/versions/1"
RUN, WRITTEN = "a" * 32, "b" * 32
PUSH = "c" * 32
PASSWORD = "a long password"
HOOK = {"url": "http://127.0.0.1:9/x?secret=1"}
ENDED = {"status": "finished", "ended_at": "2026-11-26T20:00:00Z"}
PROPOSED = f"{M}/contributions"

STEPS = [
    ("post", "/users", {"name": "ada"}, "user.add"),
    ("patch", "/users/ada", {"admin": True}, "user."),
    ("put", "/groups/vision", {"users": ["ada"]}, "group.set"),
    ("delete", "/groups/vision", None, "group.remove"),
    ("post", "/tokens", {"name": "t"}, "token.create"),
    ("delete", "/tokens/{id}", None, "token.revoke"),
    ("post", "/device/decision", {"user_code": "{user_code}", "scope": "write"}, "device.approve"),
    ("post", "/device/token", {"device_code": "{device_code}"}, "token.create"),
    ("post", "/device/decision", {"user_code": "{user_code}", "approve": False}, "device.deny"),
    ("delete", "/identities/{identity}", None, "user.disconnect"),
    ("post", "/signin-links", {"page": "p/p/m"}, "session.link"),
    ("post", "/projects", {"name": "p"}, "project.create"),
    ("patch", P, {"description": "Reads digits."}, "project."),
    ("put", f"{P}/members/ada", {"role": "viewer"}, "member.set"),
    ("delete", f"{P}/members/ada", None, "member.remove"),
    ("post", "/invitations", {"project": "p"}, "invitation.create"),
    ("delete", "/invitations/{invitation}", None, "invitation.revoke"),
    ("post", f"{P}/webhooks", HOOK, "webhook.add"),
    ("post", f"{P}/webhooks/{{id}}/test", None, "webhook.test"),
    ("post", f"{P}/webhooks/{{id}}/enable", None, "webhook.enable"),
    ("delete", f"{P}/webhooks/{{id}}", None, "webhook.remove"),
    ("post", f"{P}/models", {"name": "m"}, "model.create"),
    ("patch", M, {"description": "A network."}, "model."),
    ("post", f"{M}/versions", lambda: a_push("one", b"1"), "version.create"),
    ("post", f"{M}/pushes/{PUSH}/commit", lambda: None, "version.create"),
    ("patch", V, {"message": "better"}, "version.amend"),
    ("put", f"{M}/aliases/best", {"revision": "1"}, "alias."),
    ("delete", f"{M}/aliases/best", None, "alias.remove"),
    ("post", f"{M}/versions", lambda: a_push("two", b"2", propose=True), "contribution.propose"),
    ("post", f"{PROPOSED}/c1/comments", {"words": "well"}, "contribution.comment"),
    ("post", f"{PROPOSED}/c1/accept", None, "contribution.accept"),
    ("post", f"{M}/versions", lambda: a_push("three", b"3", propose=True), "contribution.propose"),
    ("post", f"{PROPOSED}/c2/decline", {"words": "no"}, "contribution.decline"),
    ("post", f"{M}/versions", lambda: a_push("four", b"4", propose=True), "contribution.propose"),
    ("post", f"{PROPOSED}/c3/withdraw", None, "contribution.withdraw"),
    ("post", f"{M}/fork", {"to": "fork"}, "model.fork"),
    ("post", f"{P}/models/fork/versions/1/contribute", {}, "contribution.propose"),
    ("delete", V, None, "version.remove"),
    ("post", f"{V}/undelete", None, "version."),
    ("delete", f"{P}/models/fork", None, "model.remove"),
    ("post", f"{P}/models/fork/undelete", None, "model."),
    ("post", f"{M}/prune", {"keep": "last:1"}, "version.prune"),
    ("post", f"{P}/runs", {"run": RUN}, "run.start"),
    ("put", f"{P}/runs/{WRITTEN}/writers/{RUN}", lambda: begin(WRITTEN), "run.start"),
    ("patch", f"{P}/runs/{RUN}", {"tags": {"a": "b"}}, "run.amend"),
    ("post", f"{P}/runs/{RUN}/end", ENDED, "run.end"),
    ("delete", f"{P}/runs/{RUN}", None, "run.remove"),
    ("post", f"{P}/runs/{RUN}/undelete", None, "run.undelete"),
    ("post", "/gc", {}, "server.gc"),
    ("post", "/compact", None, "server.compact"),
    ("post", "/fsck", {"repair": True}, "server.repair"),
    ("post", "/backups", None, "backup.begin"),
    ("delete", "/backups/{id}", None, "backup.end"),
    ("delete", P, None, "project.remove"),
    ("post", f"{P}/undelete", None, "project."),
]
"""Requests in their order, and how the action of the event begins. `{id}` is that of the last answer that has one."""

WITHOUT = {
    "/device/code": "a client begins to wait; the token that it gets is recorded",
    f"{M}/pushes": "nothing is visible until the commit",
    f"{M}/pushes/{PUSH}/chunks": "nothing is visible until the commit",
    f"{P}/runs/{RUN}/metrics": "points are data; the run is recorded",
    f"{V}/changes": "a question with a body",
    f"{V}/chunks": "a question with a body",
    "/backups/x/chunks/y": "a question with a body",
}
"""Routes that record no event, and the reason."""


def manifest_of(data):
    chunk = digest.of_bytes(data)
    file = {"path": "x", "size": len(data), "digest": digest.of_chunks([chunk]), "chunks": [[chunk, len(data)]]}
    frame = chunk_frames.header(Frame(chunk, len(data), len(data))) + data
    return {"files": [file], "format": "files", "lmvp": 1, "meta": {}, "parents": [], "tensors": []}, frame


def a_push(message, data, **more):
    manifest, frame = manifest_of(data)
    push = {"push": secrets.token_hex(16), "manifest": manifest, "message": message, **more}
    head = msgspec.json.encode(push)
    return struct.pack("<I", len(head)) + head + frame


def logs(services):
    """Return all events of the server and of its projects."""
    spaces = services.records.spaces()
    return {(space, one["seq"]): one for space in spaces for one in services.records.events(space)}


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path / "data", webhook_to=WebhookAllowlist.parse(["127.0.0.0/8"])) as served:
        yield served


def route_of(path):
    return next((pattern for pattern, _ in ROUTES if re.fullmatch(pattern, path)), None)


def test_every_changing_route_is_listed():
    mutating = {
        (method, pattern)
        for pattern, handler in ROUTES
        for method in methods_of(handler)
        if method in {"post", "put", "patch", "delete"}
    }
    listed = {(method, route_of(path)) for method, path, *_ in STEPS}
    exempt = {(method, route_of(path)) for path in WITHOUT for method in ("post", "put")}
    assert mutating - listed - exempt == set()
    assert listed & exempt == set()


def test_every_changing_route_leaves_an_event(served):
    ids = {"id": ""}
    for method, template, body, action in STEPS:
        if route_of(template) is None:
            continue
        if template.endswith("/commit"):
            manifest, frame = manifest_of(b"a push in steps")
            assert served("POST", f"{M}/pushes", json={"push": PUSH, "manifest": manifest}).ok
            assert served("PUT", f"{M}/pushes/{PUSH}/chunks", data=frame).ok
        if "{user_code}" in str(body):
            ids |= served("POST", "/device/code", json={"client_name": "laptop"}).json()
        if "{identity}" in template:
            ids |= fill(served, template, {"identity": "{identity}"})
        if "{invitation}" in template:
            ids["invitation"] = served("GET", "/invitations").json()["items"][0]["id"]
        before = logs(served.services)
        if isinstance(body, dict):
            named = {name: value.format(**ids) for name, value in body.items() if isinstance(value, str)}
            body = {**body, **named}
        data = body() if callable(body) else None if body is None else msgspec.json.encode(body)
        answer = served(method.upper(), template.format(**ids), data=data)
        assert answer.ok, (method, template, answer.text)
        new = [event for key, event in logs(served.services).items() if key not in before]
        fitting = [event for event in new if event["action"].startswith(action)]
        assert fitting, (method, template, [event["action"] for event in new])
        for event in fitting:
            assert event["who"]
            assert event["what"]
            assert "secret=1" not in str(event), "the URL of a webhook may hold a secret"
        if answer.headers.get("Content-Type") == "application/json" and "id" in answer.json():
            ids["id"] = answer.json()["id"]


RUN_PAGE, OTHER = f"/p/p/-/runs/{RUN}", "another long password"
FORMS = [
    ("/admin", {"do": "add", "name": "ada", "password": PASSWORD}, "user.add"),
    ("/admin", {"do": "set_password", "name": "ada", "password": PASSWORD}, "user.change"),
    ("/admin", {"do": "disable", "name": "ada"}, "user.change"),
    ("/admin", {"do": "enable", "name": "ada"}, "user.change"),
    ("/admin", {"do": "make_admin", "name": "ada"}, "user.change"),
    ("/admin", {"do": "make_user", "name": "ada"}, "user.change"),
    ("/login", {"name": "ada", "password": PASSWORD}, "session.begin"),
    ("/open", {"code": "{link}"}, "session.begin"),
    ("/admin", {"do": "disconnect", "identity": "{identity}"}, "user.disconnect"),
    ("/account", {"do": "disconnect", "identity": "{identity}"}, "user.disconnect"),
    ("/account", {"do": "set_password", "new": OTHER}, "user.change"),
    ("/account", {"do": "make_token", "name": "t", "scope": "read"}, "token.create"),
    ("/account", {"do": "revoke", "token": "{token}"}, "token.revoke"),
    ("/join", {"code": "{secret}", "as_me": "1"}, "member.set"),
    ("/account", {"do": "leave_all"}, "session.end"),
    ("/login", {"name": "ada", "password": OTHER}, "session.begin"),
    ("/logout", {}, "session.end"),
    ("/login", {"name": "ada", "password": OTHER}, "session.begin"),
    ("/logout", {"everywhere": "1"}, "session.end"),
    ("/admin/groups", {"do": "set_group", "name": "vision", "users": "ada"}, "group.set"),
    ("/admin/groups", {"do": "remove_group", "name": "vision"}, "group.remove"),
    ("/admin/storage", {"do": "gc"}, "server.gc"),
    ("/admin/storage", {"do": "compact"}, "server.compact"),
    ("/device", {"code": "{code}", "verdict": "approve", "scope": "read"}, "device.approve"),
    ("/device", {"code": "{code}", "verdict": "deny"}, "device.deny"),
    ("/p/p/-/members", {"do": "set_role", "subject": "ada", "name": "ada", "role": "viewer"}, "member.set"),
    ("/p/p/-/members", {"do": "remove", "name": "ada"}, "member.remove"),
    ("/p/p/-/members", {"do": "invite", "role": "viewer", "days": "7"}, "invitation.create"),
    ("/p/p/-/members", {"do": "revoke", "invitation": "{invitation}"}, "invitation.revoke"),
    ("/join", {"code": "{secret}", "name": "grace", "password": PASSWORD}, "user.add"),
    ("/join", {"code": "{secret}", "name": "hopper", "password": PASSWORD}, "member.set"),
    ("/p/p/-/settings", {"do": "describe", "was": "{was}", "description": "Reads digits."}, "project.change"),
    ("/p/p/-/settings", {"do": "add_webhook", "url": HOOK["url"], "events": ""}, "webhook.add"),
    ("/p/p/-/settings", {"do": "test_webhook", "webhook": "{hook}"}, "webhook.test"),
    ("/p/p/-/settings", {"do": "enable_webhook", "webhook": "{hook}"}, "webhook.enable"),
    ("/p/p/-/settings", {"do": "remove_webhook", "webhook": "{hook}"}, "webhook.remove"),
    ("/p/p/-/settings", {"do": "set_access", "public": "1", "everyone": ""}, "project.change"),
    ("/p/p/m/-/settings", {"do": "set_rules", "keep": "last:9"}, "model.amend"),
    ("/p/p/m", {"do": "describe", "was": "{was}", "description": "A network."}, "model.amend"),
    ("/p/p/m@1", {"do": "alias", "name": "best"}, "alias.move"),
    ("/p/p/m@2", {"do": "alias", "name": "best"}, "alias.move"),
    ("/p/p/m", {"do": "rollback", "alias": "best"}, "alias.move"),
    ("/p/p/m", {"do": "unalias", "alias": "best"}, "alias.remove"),
    ("/p/p/m@c1", {"do": "comment", "words": "well"}, "contribution.comment"),
    ("/p/p/m@c1", {"do": "accept"}, "contribution.accept"),
    ("/p/p/m@c2", {"do": "decline", "words": "no"}, "contribution.decline"),
    ("/p/p/m@c3", {"do": "withdraw"}, "contribution.withdraw"),
    ("/p/p/m@1", {"do": "remove"}, "version.remove"),
    ("/p/p/-/removed", {"do": "undelete", "name": "p/m@1"}, "version.undelete"),
    ("/p/p/m", {"do": "remove"}, "model.remove"),
    ("/p/p/-/removed", {"do": "undelete", "name": "p/m"}, "model.undelete"),
    (RUN_PAGE, {"do": "amend", "was": "{was}", "name": "quiet-wren", "tags": "gpu: a100", "notes": ""}, "run.amend"),
    (RUN_PAGE, {"do": "end"}, "run.end"),
    (RUN_PAGE, {"do": "remove"}, "run.remove"),
    ("/p/p/-/removed", {"do": "undelete", "name": f"p/runs/{RUN}"}, "run.undelete"),
    ("/p/p/-/settings", {"do": "remove"}, "project.remove"),
]
"""All forms of the console, in their order. Names in braces are filled in by `fill`."""

CHECKS = {("/admin/storage", "fsck")}
"""Forms that change nothing: the console verifies without a repair."""


def page_of(path):
    return next(page for pattern, page, *_ in PAGES if re.fullmatch(pattern, path))


def fill(served, path, form):
    """Return the fields of a form with the ids of the newest objects that they name."""
    services, names = served.services, set(re.findall(r"{(\w+)}", str(form)))
    found = {"was": lambda: re.search(r'name="was" value="(\w+)"', served("GET", f"~{path}").text)[1]}
    for name, table in {"hook": "webhooks", "token": "tokens"}.items():
        found[name] = lambda table=table: services.records.find(SERVER, table)[-1].id
    found["invitation"] = lambda: served("GET", "/invitations").json()["items"][0]["id"]
    found["secret"] = lambda: served("POST", "/invitations", json={"project": "p"}).json()["secret"]
    found["link"] = lambda: served("POST", "/signin-links", json={}).json()["code"]
    found["code"] = lambda: served("POST", "/device/code", json={"client_name": "laptop"}).json()["user_code"]

    def connected():
        identity = Identity("https://sign-in.example.org", secrets.token_hex(4), "ada")
        by = services.credentials.again(account_of(served, "ada"), "operator")
        services.identities.connect(by, identity, "operator")
        return identity.id[:12]

    found["identity"] = connected
    known = {name: found[name]() for name in names}
    return {name: value.format(**known) for name, value in form.items()}


def account_of(served, name):
    account = served.services.users.find(name)
    return Caller(name, user=account.id, scope="admin", generation=served.services.users.generation(account))


def test_every_form_is_listed():
    """A page has a form if it answers POST; a page of the console names its forms in `actions`."""
    listed = {(page_of(path), form.get("do", "")) for path, form, _ in FORMS}
    listed |= {(page_of(path), name) for path, name in CHECKS}
    pages = {page for _, page, *_ in PAGES}
    acting = {(page, name) for page in pages if issubclass(page, ConsolePage) for name in page.actions}
    acting |= {(page_of("/admin/storage"), name) for name in ("gc", "compact", "fsck")}
    others = {page for page in pages if "post" in methods_of(page) and not issubclass(page, ConsolePage)}
    assert listed == acting | {(page, "") for page in others}


def test_every_form_leaves_an_event(served):
    assert served("POST", "/projects", json={"name": "p"}).ok
    for number in range(2):
        assert served("POST", f"{M}/versions", data=a_push(f"v{number}", bytes([number]), create=True)).ok
    for number in range(3):
        assert served("POST", f"{M}/versions", data=a_push(f"c{number}", bytes([9, number]), propose=True)).ok
    assert served("POST", f"{P}/runs", json={"run": RUN}).ok
    browser = requests.Session()  # of ada, for the pages of an account
    for path, form, action in FORMS:
        fields = fill(served, path, form)
        own = path in {"/login", "/logout", "/account"} or "as_me" in form
        if own:
            page = browser.get(served.url + ("/login" if path == "/login" else "/account"), timeout=30).text
            fields["_xsrf"] = re.search(r'name="_xsrf" value="(\w+)"', page)[1]
        before = logs(served.services)
        if own:
            answer = browser.post(served.url + path, data=fields, timeout=30, allow_redirects=False)
        else:
            answer = served("POST", f"~{path}", data=fields)
        assert answer.status_code in {200, 303}, (path, form, answer.status_code, answer.text[-600:])
        new = [event for key, event in logs(served.services).items() if key not in before]
        fitting = [event for event in new if event["action"] == action]
        assert fitting, (path, form, [event["action"] for event in new])
        assert all(event["who"] and event["what"] for event in fitting)
        if path == "/account" and form["do"] == "set_password":
            assert OTHER not in str(new)


def test_form_of_a_check_leaves_no_event(served):
    before = logs(served.services)
    assert served("POST", "~/admin/storage", data={"do": "fsck"}).ok
    assert logs(served.services) == before


def test_decision_about_a_device_names_the_client_and_the_scope(served):
    for approve in (True, False):
        code = served("POST", "/device/code", json={"client_name": "ada@laptop"}).json()["user_code"]
        assert served("POST", "/device/decision", json={"user_code": code, "approve": approve, "scope": "read"}).ok
    denied, approved = served.services.records.events(SERVER, newest_first=True, limit=2)
    assert (approved["action"], approved["what"]) == ("device.approve", "ada@laptop")
    assert approved["after"] == {"address": "127.0.0.1", "scope": "read"}
    assert (denied["action"], denied["what"]) == ("device.deny", "ada@laptop")
    assert denied["after"] == {"address": "127.0.0.1"}


def test_decision_that_cannot_be_recorded_gives_no_token(served, monkeypatch):
    code = served("POST", "/device/code", json={"client_name": "ada@laptop"}).json()

    def fail(*_arguments):
        raise OSError(errno.ENOSPC, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(served.services.records), "commit", fail)
        assert served("POST", "/device/decision", json={"user_code": code["user_code"]}).status_code == 507
    answer = served("POST", "/device/token", json={"device_code": code["device_code"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "authorization_pending")
    assert served("POST", "/device/decision", json={"user_code": code["user_code"]}).ok


def test_failed_maintenance_is_recorded_with_its_failure(served, monkeypatch):
    def fail(*_arguments, **_options):
        raise OSError("the disk is gone")

    monkeypatch.setattr(type(served.services.upkeep), "collect", fail)
    assert served("POST", "/gc", json={}).status_code >= 500
    event = served.services.records.events(SERVER, newest_first=True, limit=1)[0]
    assert (event["action"], event["after"]) == ("server.gc", {"failed": "OSError"})


def test_results_are_in_the_events(served):
    assert served("POST", "/projects", json={"name": "p"}).ok
    assert served("POST", f"{P}/models", json={"name": "m"}).ok
    assert served("POST", f"{M}/versions", data=a_push("one", b"1")).ok
    assert served("POST", "/gc", json={}).ok
    assert served("POST", "/fsck", json={"repair": True}).ok
    repair, gc = served.services.records.events(SERVER, newest_first=True, limit=2)
    assert gc["after"] == {"chunks": 0, "bytes": 0}
    assert repair["after"] == {"chunks": 1, "problems": 0}
    before = logs(served.services)
    assert served("POST", "/fsck", json={"repair": False}).ok
    assert logs(served.services) == before, "a check without repair changes nothing"


def test_webhook_that_the_server_gives_up_is_recorded(served):
    assert served("POST", "/projects", json={"name": "p"}).ok
    hook = served("POST", f"{P}/webhooks", json=HOOK).json()["id"]
    records, webhooks = served.services.records, served.services.webhooks
    delivery = webhooks.test(operator_of(served), "p", hook)
    found = records.get(SERVER, "webhooks", hook)
    since = time.time() - PATIENCE - 1
    records.commit(SERVER, [Put("webhooks", hook, {**found.data, "since": since, "tries": 9}, expect=found.rev)])
    webhooks.failed(delivery, "the connection was refused")
    event = records.events(SERVER, newest_first=True, limit=1)[0]
    assert (event["who"], event["action"], event["what"]) == ("the server", "webhook.disable", "p: 127.0.0.1")
    assert event["after"] == {"id": hook, "error": "the connection was refused"}


def operator_of(served):
    return Caller("ada", is_operator=True, scope="admin", roles=served.services.roles)
