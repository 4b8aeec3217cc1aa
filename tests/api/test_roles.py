"""Every route, as every role: the table of `access.NEEDS` is what answers, and no route is without a row here."""

from __future__ import annotations

import re
import struct

import msgspec
import numpy as np
import pytest
import requests
from support.local_server import SharedServer

from lmvp.client.models import Client
from lmvp.core import chunk_frames
from lmvp.core import manifest as manifests
from lmvp.core.schemas import NewPush
from lmvp.formats import pack
from lmvp.transfer.manifest_builder import describe
from lmvp_server.api.route import ANYONE
from lmvp_server.api.sse import NOBODYS
from lmvp_server.openapi import methods_of
from lmvp_server.routes import API, ROUTES
from lmvp_server.services.access import (
    ACCOUNT,
    ADMIN,
    ALIAS,
    CREATE,
    ENTER,
    GRANT,
    LOG,
    MAINTAIN,
    NEEDS,
    OWN,
    PROPOSE,
    READ,
    ROLES,
    WRITE,
)

ANYBODY = ANYONE
RUN, PUSH = "a" * 32, "b" * 32
PROJECT, MODEL = "/projects/digits", "/projects/digits/models/mlp"
VERSION = f"{MODEL}/versions/1"
ENDED = {"status": "finished", "ended_at": "2026-11-26T20:00:00Z"}

RIGHTS = {
    ("get", "/health"): ANYBODY,
    ("get", "/openapi.json"): ENTER,
    ("post", "/device/code"): ANYBODY,
    ("post", "/device/token"): ANYBODY,
    ("post", "/device/decision"): GRANT,
    ("get", "/tokens"): GRANT,
    ("post", "/tokens"): GRANT,
    ("delete", "/tokens/x"): GRANT,
    ("get", "/identities"): ACCOUNT,
    ("delete", "/identities/x"): ACCOUNT,
    ("get", "/me"): ENTER,
    ("get", "/users"): ADMIN,
    ("post", "/signin-links"): ENTER,
    ("post", "/users"): ADMIN,
    ("patch", "/users/x"): ADMIN,
    ("get", "/invitations"): ENTER,
    ("post", "/invitations"): OWN,
    ("delete", "/invitations/x"): ENTER,
    ("get", "/groups"): ENTER,
    ("put", "/groups/vision"): ADMIN,
    ("delete", "/groups/x"): ADMIN,
    ("get", "/events"): ADMIN,
    ("get", "/events/heads"): ADMIN,
    ("get", "/removed"): ENTER,
    ("get", f"{PROJECT}/removed"): MAINTAIN,
    ("get", f"{PROJECT}/webhooks"): OWN,
    ("post", f"{PROJECT}/webhooks"): OWN,
    ("delete", f"{PROJECT}/webhooks/x"): OWN,
    ("post", f"{PROJECT}/webhooks/x/enable"): OWN,
    ("post", f"{PROJECT}/webhooks/x/test"): OWN,
    ("post", f"{PROJECT}/undelete"): ENTER,
    ("post", f"{MODEL}/fork"): READ,
    ("post", f"{VERSION}/contribute"): READ,
    ("post", f"{MODEL}/undelete"): MAINTAIN,
    ("post", f"{VERSION}/undelete"): MAINTAIN,
    ("get", "/usage"): ADMIN,
    ("post", "/gc"): ADMIN,
    ("post", "/compact"): ADMIN,
    ("post", "/fsck"): ADMIN,
    ("post", "/backups"): ADMIN,
    ("get", "/backups/x"): ADMIN,
    ("delete", "/backups/x"): ADMIN,
    ("get", "/backups/x/records/x"): ADMIN,
    ("get", "/backups/x/series/x/x"): ADMIN,
    ("post", "/backups/x/chunks/x"): ADMIN,
    ("get", "/projects"): ENTER,
    ("post", "/projects"): CREATE,
    ("get", PROJECT): READ,
    ("patch", PROJECT): OWN,
    ("delete", PROJECT): OWN,
    ("get", f"{PROJECT}/contributions"): READ,
    ("get", f"{MODEL}/contributions/c1"): READ,
    ("post", f"{MODEL}/contributions/c1/accept"): WRITE,
    ("post", f"{MODEL}/contributions/c1/decline"): WRITE,
    ("post", f"{MODEL}/contributions/c1/withdraw"): PROPOSE,
    ("post", f"{MODEL}/contributions/c1/comments"): PROPOSE,
    ("get", f"{PROJECT}/members"): READ,
    ("put", f"{PROJECT}/members/nobody"): OWN,
    ("delete", f"{PROJECT}/members/nobody"): OWN,
    ("get", f"{PROJECT}/models"): READ,
    ("post", f"{PROJECT}/models"): WRITE,
    ("get", f"{PROJECT}/versions"): READ,
    ("get", f"{PROJECT}/events"): READ,
    ("get", f"{PROJECT}/usage"): READ,
    ("get", f"{PROJECT}/metrics"): READ,
    ("get", f"{PROJECT}/metrics/export"): READ,
    ("get", f"{PROJECT}/metrics/live"): READ,
    ("get", f"{PROJECT}/runs"): READ,
    ("post", f"{PROJECT}/runs"): LOG,
    ("get", f"{PROJECT}/runs/{RUN}"): READ,
    # The run belongs to the server's operator: its author may do the same with LOG, see test_run_ownership.py.
    ("patch", f"{PROJECT}/runs/{RUN}"): MAINTAIN,
    ("delete", f"{PROJECT}/runs/{RUN}"): MAINTAIN,
    ("post", f"{PROJECT}/runs/{RUN}/end"): MAINTAIN,
    ("post", f"{PROJECT}/runs/{RUN}/undelete"): MAINTAIN,
    ("get", f"{PROJECT}/runs/{RUN}/metrics"): READ,
    ("post", f"{PROJECT}/runs/{RUN}/metrics"): MAINTAIN,
    ("get", f"{PROJECT}/runs/{RUN}/writers/{RUN}"): READ,
    ("put", f"{PROJECT}/runs/{RUN}/writers/{RUN}"): MAINTAIN,
    ("get", MODEL): READ,
    ("patch", MODEL): WRITE,
    ("delete", MODEL): MAINTAIN,
    ("get", f"{MODEL}/layers"): READ,
    ("get", f"{MODEL}/usage"): READ,
    ("post", f"{MODEL}/prune"): MAINTAIN,
    ("get", f"{MODEL}/aliases"): READ,
    ("get", f"{MODEL}/aliases/best"): READ,
    ("put", f"{MODEL}/aliases/best"): ALIAS,
    ("put", f"{MODEL}/aliases/production"): MAINTAIN,
    ("delete", f"{MODEL}/aliases/nothing"): ALIAS,
    ("delete", f"{MODEL}/aliases/Production"): MAINTAIN,
    ("get", f"{MODEL}/versions"): READ,
    ("post", f"{MODEL}/versions"): WRITE,
    ("get", VERSION): READ,
    ("patch", VERSION): WRITE,
    ("delete", VERSION): MAINTAIN,
    ("get", f"{VERSION}/manifest"): READ,
    ("get", f"{VERSION}/changes"): READ,
    ("post", f"{VERSION}/changes"): READ,
    ("get", f"{VERSION}/children"): READ,
    ("get", f"{VERSION}/histograms"): READ,
    ("post", f"{VERSION}/chunks"): READ,
    ("get", f"{VERSION}/files/weights.safetensors"): READ,
    ("head", f"{VERSION}/files/weights.safetensors"): READ,
    ("post", f"{MODEL}/pushes"): WRITE,
    ("get", f"{MODEL}/pushes/{PUSH}"): PROPOSE,
    ("put", f"{MODEL}/pushes/{PUSH}/chunks"): PROPOSE,
    ("post", f"{MODEL}/pushes/{PUSH}/commit"): PROPOSE,
}
"""Which right each method of each route takes; a project's are asked in `digits`, a private one."""

BODIES = {
    ("post", "/device/code"): {"client_name": "x"},
    ("post", "/device/token"): {"device_code": "x"},
    ("post", "/device/decision"): {"user_code": "BCDF-GHJK"},
    ("post", "/tokens"): {"name": "x"},
    ("delete", "/identities/x"): {"current_password": "a long password"},
    ("post", "/users"): {"name": "ada"},
    ("patch", "/users/x"): {"disabled": False},
    ("put", "/groups/vision"): {"users": []},
    ("post", "/invitations"): {"project": "digits"},
    ("post", f"{PROJECT}/webhooks"): {"url": "no URL"},
    ("post", f"{MODEL}/fork"): {"to": "no name!"},
    ("post", f"{VERSION}/contribute"): {},
    ("post", "/gc"): {},
    ("post", "/fsck"): {},
    ("post", "/backups/x/chunks/x"): {"want": []},
    ("post", "/projects"): {"name": "digits"},
    ("patch", PROJECT): {"description": "Reads digits."},
    ("put", f"{PROJECT}/members/nobody"): {"role": "viewer"},
    ("post", f"{PROJECT}/models"): {"name": "mlp"},
    ("post", f"{PROJECT}/runs"): {"run": RUN},
    ("patch", f"{PROJECT}/runs/{RUN}"): {},
    ("post", f"{PROJECT}/runs/{RUN}/end"): ENDED,
    ("post", f"{PROJECT}/runs/{RUN}/metrics"): {"values": {"loss": 1.0}},
    ("put", f"{PROJECT}/runs/{RUN}/writers/{RUN}"): None,
    ("patch", MODEL): {"description": "Reads digits."},
    ("post", f"{MODEL}/contributions/c1/decline"): {"words": "no"},
    ("post", f"{MODEL}/contributions/c1/comments"): {"words": "well"},
    ("post", f"{MODEL}/prune"): {"keep": "last:9", "dry_run": True},
    ("put", f"{MODEL}/aliases/best"): {"revision": "1"},
    ("put", f"{MODEL}/aliases/production"): {"revision": "1"},
    ("patch", VERSION): {"message": "x"},
    ("post", f"{VERSION}/changes"): {"against": "1"},
    ("post", f"{VERSION}/chunks"): {"want": []},
}
QUERIES = {
    f"{PROJECT}/metrics": {"run": RUN, "key": "loss"},
    f"{PROJECT}/metrics/export": {"run": RUN},
    f"{PROJECT}/metrics/live": {"run": RUN},
    f"{MODEL}/layers": {"versions": "1"},
    f"{VERSION}/changes": {"against": "1"},
    f"{VERSION}/histograms": {"tensor": "w"},
}
PEOPLE = ("anonymous", "stranger", *ROLES, "admin", "server")


def small_push():
    """A push that is one request: a model of one array."""
    described = describe(pack({"w": np.arange(4.0)}))
    manifest = manifests.encode(described.manifest)
    head = msgspec.json.encode(NewPush(push=PUSH, manifest=msgspec.Raw(manifest)))
    return struct.pack("<I", len(head)) + head


class World:
    """A server with a private project, and a token for each kind of person."""

    def __init__(self, server):
        self.server, self.url = server, server.url + API
        self.root = Client(server.url, server.token)
        self.tokens = {"server": server.token}
        for name in ("stranger", *ROLES, "admin"):
            self.root.add_user(name, "a long password", admin=name == "admin")
            self.tokens[name] = self.root.create_token("t", scope="admin", user=name).token
        self.grow()

    def grow(self):
        """Make what an allowed request may have taken away."""
        self.root.update(
            "digits/mlp", {"w": np.arange(4.0)}, alias="best", create=True, progress=False, expect_parent=None
        )
        for role in ROLES:
            self.root.set_member("digits", role, role)
        self.ask("server", "post", f"{PROJECT}/runs", {"run": RUN})

    def ask(self, who, method, path, body=None, **options):
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who in self.tokens else {}
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        with requests.request(
            method, self.url + path, data=data, headers=headers, stream=True, timeout=30, **options
        ) as answer:
            if "event-stream" not in answer.headers.get("Content-Type", ""):
                answer.content  # noqa: B018 - read it
            return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    import os

    before = dict(os.environ)
    os.environ["LMVP_HOME"] = str(tmp_path_factory.mktemp("home"))
    server = SharedServer(tmp_path_factory.mktemp("served") / "data")
    server.token = server.start()
    yield World(server)
    server.end()
    os.environ.clear()
    os.environ.update(before)


def may(who, right):
    """Whether somebody is to have a right, by the table in `access`."""
    if right == ANYBODY or who in {"admin", "server"}:
        return True
    if who == "anonymous" or right == ADMIN:
        return False
    if right in {ENTER, CREATE, GRANT, ACCOUNT}:
        return True
    return who in ROLES and ROLES.index(who) >= ROLES.index(NEEDS[right])


def refused(answer):
    """Whether an answer says that the caller may not: 401, 403, or that there is no such project."""
    if answer.status_code in {401, 403}:
        return True
    return answer.status_code == 404 and (not answer.content or "no project" in answer.json()["error"]["message"])


def test_no_route_is_without_a_row():
    for pattern, handler in ROUTES:
        for method in methods_of(handler):
            rows = [
                path
                for asked, path in RIGHTS
                if asked == method and re.fullmatch(pattern.replace("(.+)", "(.+)"), path)
            ]
            assert rows, f"{method} {pattern} has no row"


def test_declared_right_of_each_route_is_in_the_table():
    for pattern, handler in ROUTES:
        for method, route in handler.routes.items():
            expected = {
                right for (asked, path), right in RIGHTS.items()
                if asked == method.lower() and re.fullmatch(pattern, path)
            }  # fmt: skip
            # The run of the table belongs to the operator; its author needs LOG, see test_run_ownership.py.
            is_run = "/runs/{run}" in handler.path and route.right == LOG
            assert (MAINTAIN if is_run else route.right) in expected, f"{method} {handler.path}"
            if "maintainer" in route.note and not is_run:
                assert MAINTAIN in expected, f"{method} {handler.path}"


@pytest.mark.parametrize("who", PEOPLE)
def test_every_route_as_every_role(world, who):
    wrong = []
    for (method, path), right in RIGHTS.items():
        body = BODIES.get((method, path))
        if (method, path) == ("post", f"{MODEL}/versions"):
            body = small_push()
        if (method, path) == ("post", f"{MODEL}/pushes"):
            manifest = manifests.encode(describe(pack({"w": np.ones(1)})).manifest)
            body = {"push": "c" * 32, "manifest": msgspec.Raw(manifest)}
        if (method, path) == ("post", f"{PROJECT}/runs"):
            body = {"run": f"{PEOPLE.index(who) + 1:032x}"}
        if (method, path) == ("post", "/projects") and who != "anonymous":
            body = {"name": f"of-{who}"}
        answer = world.ask(who, method, path, body, params=QUERIES.get(path))
        if refused(answer) == may(who, right) or answer.status_code >= 500:
            wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:120] if method != 'head' else ''}")
        if method == "delete" and answer.ok:
            world.grow()
    assert wrong == []


def test_what_cannot_be_read_looks_like_what_is_not_there(world):
    for path in (PROJECT, MODEL, f"{PROJECT}/members", f"{VERSION}/manifest", f"{MODEL}/pushes/{PUSH}"):
        there, not_there = (world.ask("stranger", "get", path.replace("digits", name)) for name in ("digits", "digitz"))
        assert there.status_code == not_there.status_code == 404
        assert there.text.replace("digits", "NAME") == not_there.text.replace("digitz", "NAME")
    assert [one["name"] for one in world.ask("stranger", "get", "/projects").json()["items"]] == ["of-stranger"]
    assert world.ask("anonymous", "get", "/projects").status_code == 401


def test_a_public_project_is_read_by_anybody_and_changed_by_nobody_else(world):
    world.root.change_project("digits", public=True)
    try:
        reads = 0
        for (method, path), right in RIGHTS.items():
            if right in NEEDS and path.startswith(PROJECT) and method == "get" and right == READ:
                reads += world.ask("anonymous", method, path, params=QUERIES.get(path)).ok
            elif right in NEEDS and right != READ:
                assert refused(world.ask("anonymous", method, path, BODIES.get((method, path)))), (method, path)
        assert reads >= 15
        assert [one["name"] for one in world.ask("anonymous", "get", "/projects").json()["items"]] == ["digits"]
        anybody = Client(world.server.url, "")
        assert list(anybody.download("digits/mlp")) == ["w"]
        assert world.ask("stranger", "get", PROJECT).ok
        assert world.ask("stranger", "delete", MODEL).status_code == 403
    finally:
        world.root.change_project("digits", public=False)
    assert world.ask("anonymous", "get", PROJECT).status_code == 401


def test_anybody_follows_what_is_public_but_not_everybody_at_once(world):
    world.root.change_project("digits", public=True)
    url, asked = f"{world.url}{PROJECT}/metrics/live", {"run": RUN}
    followers = []
    try:
        for _ in range(NOBODYS):
            followers.append(requests.get(url, params=asked, stream=True, timeout=30))
            assert followers[-1].status_code == 200
        assert requests.get(url, params=asked, stream=True, timeout=30).status_code == 429
        named = requests.get(
            url, params=asked, headers={"Authorization": f"Bearer {world.tokens['viewer']}"}, stream=True, timeout=30
        )
        assert named.status_code == 200, "who has an account is not kept out"
        named.close()
        assert world.ask("anonymous", "get", f"{PROJECT}/metrics/export", params=asked).ok
    finally:
        for each in followers:
            each.close()
        world.root.change_project("digits", public=False)


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_a_token_passes_on_what_its_scope_says(world, scope):
    from lmvp_server.services.access import SCOPES

    made = Client(world.server.url, world.tokens["owner"]).create_token("scoped", scope=scope)
    world.tokens["scoped"] = made.token
    for method, path, right in (
        ("get", PROJECT, READ),
        ("post", f"{PROJECT}/runs", LOG),
        ("patch", MODEL, WRITE),
        ("post", f"{MODEL}/prune", MAINTAIN),
        ("patch", PROJECT, OWN),
        ("get", "/me", ENTER),
    ):
        answer = world.ask("scoped", method, path, BODIES.get((method, path)))
        assert refused(answer) == (right not in SCOPES[scope]), (scope, method, path, answer.text)
    for more in ("read", "admin"):
        answer = world.ask("scoped", "post", "/tokens", {"name": "more", "scope": more})
        assert (answer.status_code == 201) == (scope == "admin"), "only such a token makes others"


def test_a_token_of_one_project_sees_no_other(world):
    world.root.update("other/mlp", {"w": np.ones(2)}, create=True, progress=False)
    world.root.set_member("other", "owner", "owner")
    owner = Client(world.server.url, world.tokens["owner"])
    world.tokens["one"] = owner.create_token("one", scope="admin", project="digits").token
    assert world.ask("one", "get", PROJECT).ok
    assert world.ask("one", "get", "/projects/other").status_code == 404
    assert [one["name"] for one in world.ask("one", "get", "/projects").json()["items"]] == ["digits"]
    assert world.ask("one", "post", "/projects", {"name": "third"}).status_code == 403
    assert world.ask("one", "post", "/tokens", {"name": "wider"}).status_code == 403


@pytest.mark.parametrize(
    ("scope", "project"), [("read", ""), ("write", ""), ("read", "digits"), ("write", "digits"), ("admin", "digits")]
)
def test_limited_token_of_an_admin_reaches_no_route_of_accounts(world, scope, project):
    world.tokens["limited"] = world.root.create_token("l", scope=scope, project=project, user="admin").token
    rows = {
        row: BODIES.get(row)
        for row, right in RIGHTS.items()
        if right in {ADMIN, GRANT, ACCOUNT} or (row[1] == "/projects" and right == CREATE and project)
    }
    own = {"password": "another long one", "current_password": "a long password"}
    rows[("patch", "/users/admin")] = own
    rows[("patch", "/users/viewer")] = {"password": "another long one"}
    passed = [row for row, body in rows.items() if not refused(world.ask("limited", *row, body))]
    assert passed == []
    assert len(rows) >= 20
    assert world.ask("limited", "post", "/invitations", {"project": "of-owner"}).status_code in {403, 404}


def test_groups_and_everyone_give_roles_and_the_highest_counts(world):
    root = world.root
    root.set_group("vision", ["stranger", "viewer"])
    root.set_member("digits", "@vision", "contributor")
    assert [each.name for each in root.members("digits")][-1] == "@vision"
    assert world.ask("stranger", "post", f"{PROJECT}/runs", {"run": "9" * 32}).ok
    assert world.ask("maintainer", "patch", MODEL, {"description": "y"}).ok
    root.remove_group("vision")
    assert world.ask("stranger", "get", PROJECT).status_code == 404
    root.change_project("digits", everyone="viewer")
    assert world.ask("stranger", "get", PROJECT).ok
    assert world.ask("anonymous", "get", PROJECT).status_code == 401
    root.change_project("digits", everyone="")
    assert world.ask("stranger", "get", PROJECT).status_code == 404


def test_the_last_owner_stays_and_others_may_leave(world):
    owner = Client(world.server.url, world.tokens["owner"])
    owner.update("mine/mlp", {"w": np.ones(1)}, create=True, progress=False)
    for body in ({"role": "viewer"}, None):
        method = "put" if body else "delete"
        answer = world.ask("owner", method, "/projects/mine/members/owner", body)
        assert answer.status_code == 409
        assert "no owner" in answer.json()["error"]["message"]
    owner.set_member("mine", "viewer", "viewer")
    assert world.ask("viewer", "delete", "/projects/mine/members/owner").status_code == 403
    assert world.ask("viewer", "delete", "/projects/mine/members/viewer").ok
    assert world.ask("viewer", "get", "/projects/mine").status_code == 404


def test_whoever_is_disabled_or_demoted_is_so_at_once(world):
    root = world.root
    root.add_user("grace", "a long password")
    world.tokens["grace"] = root.create_token("t", scope="admin", user="grace").token
    root.set_member("digits", "grace", "maintainer")
    described = describe(pack({"w": np.arange(9.0)}))
    body = {"push": "d" * 32, "manifest": msgspec.Raw(manifests.encode(described.manifest))}
    begun = world.ask("grace", "post", f"{MODEL}/pushes", body)
    assert begun.ok, begun.text
    root.set_member("digits", "grace", "viewer")
    chunks = [chunk for file in described.manifest.files for chunk in file.chunks]
    assert chunks
    frame = (
        chunk_frames.header(chunk_frames.Frame(chunks[0].id, chunks[0].size, chunks[0].size)) + b"\0" * chunks[0].size
    )
    assert world.ask("grace", "put", f"{MODEL}/pushes/{'d' * 32}/chunks", frame).status_code == 403
    assert world.ask("grace", "post", f"{MODEL}/pushes/{'d' * 32}/commit").status_code == 403
    assert world.ask("grace", "get", MODEL).ok
    root.change_user("grace", disabled=True)
    assert world.ask("grace", "get", MODEL).status_code == 401
    assert world.ask("grace", "get", "/me").status_code == 401
    root.change_user("grace", disabled=False)
    assert world.ask("grace", "get", "/me").status_code == 401, "her tokens have ended for good"
    world.tokens["grace"] = root.create_token("t", user="grace").token
    assert world.ask("grace", "get", "/me").json()["name"] == "grace"


def test_names_that_differ_by_case_are_one_and_odd_ones_none(world):
    answer = world.ask("server", "post", "/users", {"name": "ADMIN"})
    assert answer.status_code == 409
    for name in ("gr\u0430ce", "a/b", "../x", "x\r\ny", "", "@vision", "a" * 300):
        assert world.ask("server", "post", "/users", {"name": name}).status_code == 400, name
    assert world.ask("server", "post", "/users", {"name": "short", "password": "123456789"}).status_code == 400


def test_secrets_are_kept_nowhere(world):
    world.root.add_user("keeper", "a very particular password")
    made = world.root.create_token("t", scope="admin", user="keeper")
    kept = b"".join(
        path.read_bytes() for path in world.server.data.rglob("*") if path.is_file() and path.name != "token"
    )
    assert b"keeper" in kept
    assert b"$argon2id$" in kept
    for secret in ("a very particular password", made.token):
        assert secret.encode() not in kept
    assert "argon2" not in world.ask("server", "get", "/users").text
    assert "argon2" not in world.ask("server", "get", "/events").text


def test_who_is_nobody_may_not_demote_themselves(world):
    assert world.ask("admin", "patch", "/users/admin", {"disabled": True}).status_code == 409
    assert world.ask("viewer", "patch", "/users/viewer", {"admin": True}).status_code == 403
    assert world.ask("viewer", "patch", "/users/viewer", {"password": "another long one"}).status_code == 403
    proved = {"password": "another long one", "current_password": "a long password", "keep_tokens": True}
    assert world.ask("viewer", "patch", "/users/viewer", proved).ok
    assert world.ask("viewer", "patch", "/users/owner", {"password": "another long one"}).status_code == 403
    assert world.ask("viewer", "post", "/tokens", {"name": "x", "user": "owner"}).status_code == 403
    ours = {one["user"] for one in world.ask("viewer", "get", "/tokens").json()["items"]}
    assert ours == {"viewer"}
    theirs = world.root.create_token("t", scope="admin", user="owner").id
    assert world.ask("viewer", "delete", f"/tokens/{theirs}").status_code == 404
