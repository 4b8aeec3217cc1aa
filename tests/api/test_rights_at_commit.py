"""Rights at the moment of a commit: a right that ends between the look-up of the caller and the commit is lost.

Each row of the table is an action that creates or changes a grant or a right. The test ends the right immediately
before the commit of the action, and compares the records: nothing may have changed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from threading import Event, Thread

import pytest
from argon2 import PasswordHasher
from support.in_process import Served

from lmvp.core.schemas import (
    Invite,
    MakeToken,
    NewUser,
    NewWebhook,
    ProjectChange,
    UserChange,
)
from lmvp.errors import AccessDenied, Conflict, NotAuthenticated, NotFound
from lmvp_server.services import Services, passwords
from lmvp_server.services.access import Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.identities import Identity
from lmvp_server.services.sessions import xsrf_token
from lmvp_server.services.webhook_allowlist import WebhookAllowlist
from lmvp_server.web.pages.base import mark

OPERATOR_NAME = "the-operator"
ROOT = Caller(OPERATOR_NAME, is_operator=True, scope="admin")
PASSWORD, OTHER = "correct horse battery", "another long password"
HERE = "192.0.2.1"
HOOK = NewWebhook(url="http://127.0.0.1/")
REFUSED = (NotAuthenticated, AccessDenied, NotFound)


@pytest.fixture
def services(tmp_path, monkeypatch):
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # argon2 at a cost that tests can pay
    monkeypatch.setattr(passwords, "_hasher", lambda: cheap)
    services = Services.open(tmp_path / "data", shared=True, allowlist=WebhookAllowlist.parse(["127.0.0.1"]))
    services.catalog.create_project(ROOT, "digits")
    for name in ("ada", "grace", "keeper"):
        services.users.add(ROOT, NewUser(name=name, password=PASSWORD, admin=name == "ada"))
    for name in ("grace", "keeper"):
        services.members.set_member(ROOT, "digits", name, "owner")
    services.members.set_group(ROOT, "team", ("keeper",))
    services.members.set_group(ROOT, "old", ())
    yield services
    services.close()


def by_token(services, name):
    made = services.tokens.create(ROOT, MakeToken(name="t", scope="admin", user=name))
    return replace(services.tokens.caller(made.token, OPERATOR_NAME), roles=services.roles)


def by_session(services, name):
    secret = services.sessions.begin(name, PASSWORD, HERE)
    return replace(services.sessions.caller(secret, OPERATOR_NAME), roles=services.roles)


def hook(services):
    return services.webhooks.add(ROOT, "digits", HOOK).id


def invitation(services):
    return services.invitations.create(ROOT, Invite(project="digits", role="viewer", days=1))


def approved(services, caller):
    code = services.devices.begin("laptop", HERE, "page", "write")
    services.devices.decide(caller, code.user_code, HERE, approve=True)
    return lambda: services.devices.token(code.device_code, OPERATOR_NAME)


def removed_project(services, caller):
    services.trash._keep = timedelta(days=9)
    services.catalog.create_project(caller, "old")
    services.trash.remove_project(caller, "old")
    return lambda: services.trash.restore_project(caller, "old")


IDENTITY = Identity("https://id.example.org", "1", "Ada")

# action of the event -> the kind of right, and a function that prepares the action and returns it
BY_ADMIN = {
    "user.add": lambda s, c: lambda: s.users.add(c, NewUser(name="new", password=PASSWORD)),
    "user.change": lambda s, c: lambda: s.users.change(c, "keeper", UserChange(disabled=True)),
    "group.set": lambda s, c: lambda: s.members.set_group(c, "team", ("grace",)),
    "group.remove": lambda s, c: lambda: s.members.remove_group(c, "old"),
}
BY_OWNER = {
    "member.set": lambda s, c: lambda: s.members.set_member(c, "digits", "ada", "maintainer"),
    "member.remove": lambda s, c: lambda: s.members.remove(c, "digits", "keeper"),
    "project.change": lambda s, c: lambda: s.members.change_project(c, "digits", ProjectChange(public=True)),
    "project.remove": lambda s, c: lambda: s.trash.remove_project(c, "digits"),
    "invitation.create": lambda s, c: lambda: s.invitations.create(c, Invite(project="digits", role="owner", days=30)),
    "invitation.revoke": lambda s, c: (lambda id_: lambda: s.invitations.revoke(c, id_))(invitation(s).id),
    "webhook.add": lambda s, c: lambda: s.webhooks.add(c, "digits", HOOK),
    "webhook.remove": lambda s, c: (lambda id_: lambda: s.webhooks.remove(c, "digits", id_))(hook(s)),
    "webhook.enable": lambda s, c: (lambda id_: lambda: s.webhooks.enable(c, "digits", id_))(hook(s)),
}
BY_ACCOUNT = {
    "token.create": lambda s, c: lambda: s.tokens.create(c, MakeToken(name="lasts", current_password=PASSWORD)),
    "token.create for a device": approved,
    "token.revoke": lambda s, c: (lambda id_: lambda: s.tokens.revoke(c, id_))(
        s.tokens.create(ROOT, MakeToken(name="other", user=c.name)).id
    ),
    "session.end": lambda s, c: lambda: s.sessions.end_all(c),
    "session.begin": lambda s, c: lambda: s.sessions.open_by_token(c, HERE),
    "user.change": lambda s, c: (
        lambda: s.users.change(c, c.name, UserChange(password=OTHER, current_password=PASSWORD, keep_tokens=True))
    ),
    "user.connect": lambda s, c: lambda: s.identities.connect(c, IDENTITY, OPERATOR_NAME),
    "project.create": lambda s, c: lambda: s.catalog.create_project(c, "new"),
    "project.undelete": removed_project,
    "member.set": lambda s, c: (lambda one: lambda: s.invitations.accept_as(c, one.secret, HERE))(invitation(s)),
    "member.remove": lambda s, c: lambda: s.members.remove(c, "digits", c.name),
}
ACTIONS = [
    *(("admin", action, prepare) for action, prepare in BY_ADMIN.items()),
    *(("owner", action, prepare) for action, prepare in BY_OWNER.items()),
    *(("account", action, prepare) for action, prepare in BY_ACCOUNT.items()),
]


def end_credential(services, caller):
    kind, _, id_ = caller.credential.partition(":")
    if kind == "token":
        services.tokens.revoke(ROOT, id_)
    else:
        services.sessions.end_all(caller)


def disable(services, caller):
    services.users.change(ROOT, caller.name, UserChange(disabled=True))


def change_password(services, caller):
    services.users.change(ROOT, caller.name, UserChange(password=OTHER))


def take_role(services, caller):
    if caller.admin:
        services.users.change(ROOT, caller.name, UserChange(admin=False))
    else:
        services.members.remove(ROOT, "digits", caller.name)


ENDS = {"credential": end_credential, "account": disable, "password": change_password, "role": take_role}


def before_commit(services, monkeypatch, action, work):
    """Do some work immediately before the first commit with an event of this action; return what was found after it."""
    original, found = type(services.records).commit, []

    def commit(self, space, changes, events=(), **options):
        if not found and any(one["action"] == action for one in events):
            found.append(None)
            work()
            found[0] = kept(services)
        return original(self, space, changes, events, **options)

    monkeypatch.setattr(type(services.records), "commit", commit)
    return found


def kept(services):
    moment = services.records.snapshot(SERVER)
    return {table: [(one.id, one.rev) for one in records] for table, records in moment.tables.items()}, moment.count


CREDENTIALS = {"token": by_token, "session": by_session}
CELLS = [
    pytest.param(right, action, prepare, credential, end, id=f"{right}-{action}-{credential}-{end}")
    for right, action, prepare in ACTIONS
    for credential in CREDENTIALS
    for end in ENDS
    if not (end == "role" and right == "account")  # every account has these rights
    and not (action == "session.begin" and credential == "session")  # only a token begins this session
]


@pytest.mark.parametrize(("right", "action", "prepare", "credential", "end"), CELLS)
def test_right_that_ends_before_the_commit_is_lost(services, monkeypatch, right, action, prepare, credential, end):
    caller = CREDENTIALS[credential](services, "ada" if right == "admin" else "grace")
    act = prepare(services, caller)
    found = before_commit(services, monkeypatch, action.partition(" ")[0], lambda: ENDS[end](services, caller))
    with pytest.raises(REFUSED):
        act()
    assert found, "the right ended before no commit"
    assert kept(services) == found[0]


@pytest.mark.parametrize(("right", "action", "prepare"), ACTIONS, ids=[f"{right}-{name}" for right, name, _ in ACTIONS])
def test_right_that_lasts_changes_the_records(services, right, action, prepare):
    caller = by_token(services, "ada" if right == "admin" else "grace")
    act = prepare(services, caller)
    before = kept(services)
    act()
    assert kept(services)[1] > before[1]
    assert services.records.events(SERVER, newest_first=True, limit=1)[0]["action"] == action.partition(" ")[0]


def test_token_for_an_account_ends_with_the_account(services, monkeypatch):
    """An admin makes a token for an account that another admin disables in this moment."""
    caller = by_token(services, "ada")
    target = by_token(services, "grace")
    found = before_commit(services, monkeypatch, "token.create", lambda: disable(services, target))
    with pytest.raises(Conflict, match="grace"):
        services.tokens.create(caller, MakeToken(name="t", user="grace", current_password=PASSWORD))
    assert kept(services) == found[0]


@pytest.mark.parametrize("end", [disable, change_password])
def test_login_by_an_old_password_begins_no_session(services, monkeypatch, end):
    target = by_token(services, "grace")
    found = before_commit(services, monkeypatch, "session.begin", lambda: end(services, target))
    with pytest.raises(NotAuthenticated):
        services.sessions.begin("grace", PASSWORD, HERE)
    assert kept(services) == found[0]


def test_session_is_not_renewed_after_another_change(services):
    """A person changes the password; an admin changes it again before the session gets its new secret."""
    caller = by_session(services, "grace")
    services.users.change(caller, "grace", UserChange(password=OTHER, current_password=PASSWORD))
    services.users.change(ROOT, "grace", UserChange(password=PASSWORD))
    with pytest.raises(NotAuthenticated):
        services.sessions.renew(caller, HERE)
    assert services.records.count(SERVER, "sessions") == 0


@pytest.mark.parametrize("accept", ["new account", "own account"])
@pytest.mark.parametrize("end", [disable, take_role])
def test_invitation_whose_creator_loses_the_right_gives_none(services, monkeypatch, accept, end):
    creator, guest = by_token(services, "grace"), by_token(services, "ada")
    made = services.invitations.create(creator, Invite(project="digits", role="owner", days=1))
    action = "user.add" if accept == "new account" else "member.set"
    found = before_commit(services, monkeypatch, action, lambda: end(services, creator))
    work, given = {
        "new account": (services.invitations.accept, (made.secret, "guest", PASSWORD, HERE, OPERATOR_NAME)),
        "own account": (services.invitations.accept_as, (guest, made.secret, HERE)),
    }[accept]
    with pytest.raises((AccessDenied, NotFound)):
        work(*given)
    assert kept(services)[0] == found[0][0]


def test_project_of_the_same_name_gets_no_grant(services, monkeypatch):
    """The project is removed and another one takes its name before the commit: the grant is for neither."""
    caller = by_token(services, "grace")

    def replace_project():
        services.trash.remove_project(ROOT, "digits")
        services.catalog.create_project(caller, "digits")

    found = before_commit(services, monkeypatch, "invitation.create", replace_project)
    with pytest.raises(NotFound):
        services.invitations.create(caller, Invite(project="digits", role="owner", days=1))
    assert kept(services) == found[0]


@pytest.mark.parametrize("way", ["token", "session"])
def test_request_that_waits_for_a_thread_loses_an_ended_right(tmp_path, way):
    """A request of the API, or a form of the console, waits for a thread of the pool while its credential ends."""
    with Served(tmp_path / "data") as served:
        services = served.services
        served("POST", "/projects", json={"name": "p"})
        served("POST", "/projects/p/models", json={"name": "m", "description": "old"})
        made = served.user("grace", "owner")
        secret = services.sessions.open(services.users.find("grace"), HERE, "password")
        pool = served.app._server.request_callback.settings["pool"]
        answers, end = [], Event()

        def ask():
            if way == "token":
                body = {"description": "new"}
                answers.append(served("PATCH", "/projects/p/models/m", made["token"], json=body))
            else:
                fields = {"do": "describe", "description": "new", "was": mark("old"), "_xsrf": xsrf_token(secret)}
                cookies = {"lmvp_session": secret}
                answers.append(served("POST", "~/p/p/m", token="", data=fields, cookies=cookies))

        blockers = [pool.submit(end.wait, 60) for _ in range(pool._max_workers)]
        asking = Thread(target=ask)
        asking.start()
        try:
            while pool._work_queue.qsize() < 1 or not all(one.running() for one in blockers):
                assert asking.is_alive(), answers
            if way == "token":
                services.tokens.revoke(ROOT, made["id"])
            else:
                services.sessions.end(secret)
        finally:
            end.set()
            asking.join(30)
        assert answers[0].status_code == 401, answers[0].text
        assert served("GET", "/projects/p/models/m").json()["description"] == "old"
