"""Accounts and what they give out, on the services without HTTP: holders, generations, scopes, proofs, back-off."""

import logging
import re
import time
from dataclasses import replace

import pytest
from argon2 import PasswordHasher

from lmvp.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotAuthenticated,
    NotFound,
    TooManyRequests,
)
from lmvp.records import Invite, MakeToken, NewUser, NewWebhook, UserChange
from lmvp_server.services import Services, access, passwords
from lmvp_server.services.access import OPERATOR, SCOPES, Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.identities import Identity
from lmvp_server.services.paging import Page
from lmvp_server.services.sessions import own_credential
from lmvp_server.services.targets import Targets
from lmvp_server.services.throttle import Backoff
from lmvp_server.stores.base import Delete, Put

NAME = "the-operator"
ROOT = Caller(NAME, owner=True, scope="admin", credential="")
PASSWORD, OTHER = "correct horse battery", "another long password"
HERE, THERE = "192.0.2.1", "192.0.2.2"
ISSUER = "https://sign-in.example.org"
MINE = Identity(ISSUER, "s-grace", "grace")


@pytest.fixture
def services(tmp_path, monkeypatch):
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # argon2 as it is, at a cost that tests can pay
    monkeypatch.setattr(passwords, "_hasher", lambda: cheap)
    services = Services.open(tmp_path / "data", shared=True, targets=Targets.parse(["127.0.0.1"]))
    services.catalog.create_project(ROOT, "digits")
    for name in ("ada", "grace"):
        services.users.add(ROOT, NewUser(name=name, password=PASSWORD, admin=name == "ada"))
    yield services
    services.close()


def token(services, name, scope="admin", project="", by=ROOT):
    made = services.tokens.create(by, MakeToken(name="t", scope=scope, user=name, project=project))
    return made.token


def caller(services, secret):
    found = services.tokens.caller(secret, NAME)
    return None if found is None else roled(services, found)


def roled(services, found):
    return replace(found, roles=services.roles)


def session(services, name, proof=True):
    secret = services.sessions.begin(name, PASSWORD, HERE)
    if not proof:
        (found,) = services.records.find(SERVER, "sessions", {"user": services.users.find(name).id})
        services.records.commit(
            SERVER, [Put("sessions", found.id, {**found.data, "began": time.time() - access.FRESH})]
        )
    return secret, roled(services, services.sessions.caller(secret, NAME))


def connected(services, name, identity=None):
    """Connect an identity to an account; return the id that it is listed by."""
    _, by = session(services, name)
    services.identities.connect(by, identity or Identity(ISSUER, f"s-{name}", name), NAME)
    return services.identities.every(by, Page())["items"][-1].id


def sign_up(services, identity):
    return services.identities.sign_up(identity, "", HERE, NAME, free=True)


def approve(services, by, scope=""):
    code = services.devices.begin("laptop", HERE, "page", scope or "write")
    services.devices.decide(by, code.user_code, HERE, approve=True, scope=scope)
    return code.device_code


def events(services, action):
    return [one for one in services.records.events(SERVER) if one["action"] == action]


# -- holders


@pytest.mark.parametrize("user", [None, "", "missing", "u0000000000000000", 0, False, [], {}])
@pytest.mark.parametrize("table", ["tokens", "sessions"])
def test_record_without_a_holder_grants_nothing(services, table, user):
    if table == "tokens":
        secret = services.tokens.create(ROOT, MakeToken(name="ci", scope="admin")).token
    else:
        secret = services.sessions.open_by_token(ROOT, HERE)
    find = services.tokens.caller if table == "tokens" else services.sessions.caller
    assert find(secret, NAME).owner
    (record,) = services.records.find(SERVER, table)
    data = {key: value for key, value in record.data.items() if key != "user"}
    services.records.commit(SERVER, [Put(table, record.id, data if user == "missing" else {**data, "user": user})])
    assert find(secret, NAME) is None


def test_operator_is_an_identity_that_no_account_can_have(services):
    services.users.add(ROOT, NewUser(name=OPERATOR, password=PASSWORD))
    assert re.fullmatch("u[0-9a-f]{16}", services.users.find(OPERATOR).id)
    found = caller(services, token(services, OPERATOR))
    assert (found.owner, found.may(access.ADMIN), found.everything) == (False, False, False)
    for wrong in ({"user": OPERATOR}, {"user": "u1", "owner": True}, {"scope": "all"}):
        with pytest.raises(ValueError, match=r"operator|scope"):
            Caller("x", **{"scope": "admin", **wrong})
    with pytest.raises(TypeError):
        Caller("x", owner=True)
    with pytest.raises(NotAuthenticated):
        _ = Caller("anonymous", scope="read").holder


@pytest.mark.parametrize("scope", ["", None, "all", "missing"])
def test_token_record_without_a_scope_has_the_least(services, scope):
    secret = token(services, "ada")
    (record,) = services.records.find(SERVER, "tokens")
    data = {key: value for key, value in record.data.items() if key != "scope"}
    services.records.commit(
        SERVER, [Put("tokens", record.id, data if scope == "missing" else {**data, "scope": scope})]
    )
    assert caller(services, secret).scope == "read"
    assert [one.scope for one in services.tokens.every(ROOT, Page())["items"]] == ["read"]


@pytest.mark.parametrize("project", [None, "missing", 0])
def test_token_record_without_a_project_grants_nothing(services, project):
    services.members.set_member(ROOT, "digits", "grace", "viewer")
    secret = token(services, "grace", project="digits")
    assert caller(services, secret).only
    (record,) = services.records.find(SERVER, "tokens")
    data = {key: value for key, value in record.data.items() if key != "project"}
    services.records.commit(
        SERVER, [Put("tokens", record.id, data if project == "missing" else {**data, "project": project})]
    )
    assert caller(services, secret) is None


def test_token_and_session_of_an_older_release_without_an_account_end_with_a_log_line(services, caplog):
    services.tokens.create(ROOT, MakeToken(name="ci", scope="admin"))
    services.sessions.open_by_token(ROOT, HERE)
    for table in ("tokens", "sessions"):
        (record,) = services.records.find(SERVER, table)
        services.records.commit(SERVER, [Put(table, record.id, {**record.data, "user": ""})])
    with caplog.at_level(logging.WARNING, "lmvp_server"):
        services.end_grants_without_holder()
    (record,) = services.records.find(SERVER, "tokens")
    (line,) = [one.message for one in caplog.records if "token" in one.message]
    assert line == (
        f"the token 'ci' ({record.id}) names no account and grants nothing; make another one with "
        f"`lmvp tokens create ci --scope SCOPE`, and remove this one with `lmvp tokens revoke {record.id}`"
    )
    assert [one.ended for one in services.tokens.every(ROOT, Page())["items"]] == ["names no account"]
    assert services.records.find(SERVER, "sessions") == []
    services.tokens.revoke(ROOT, record.id)
    assert services.records.find(SERVER, "tokens") == []


# -- what ends with an account


def end_account(services, name, how):
    if how == "deleted":
        account = services.users.find(name)
        services.records.commit(SERVER, [Delete("users", account.id), Delete("names", f"users:{name}")])
        return
    services.users.change(ROOT, name, UserChange(disabled=True))
    if how == "disabled and enabled":
        services.users.change(ROOT, name, UserChange(disabled=False))


HOW = ("disabled", "disabled and enabled", "deleted")


@pytest.mark.parametrize("how", HOW)
def test_device_code_ends_with_the_account_of_its_approver(services, how):
    device = approve(services, caller(services, token(services, "grace")))
    kept = approve(services, caller(services, token(services, "ada")))
    end_account(services, "grace", how)
    with pytest.raises(AccessDenied, match="grace approved this login"):
        services.devices.token(device, NAME)
    assert caller(services, services.devices.token(kept, NAME).access_token).name == "ada"


def test_device_code_ends_with_the_token_or_session_that_approved_it(services):
    secret = token(services, "grace")
    by_token = approve(services, caller(services, secret))
    cookie, by = session(services, "grace")
    by_session = approve(services, by)
    (record,) = services.records.find(SERVER, "tokens")
    services.tokens.revoke(ROOT, record.id)
    services.sessions.end(cookie)
    for device in (by_token, by_session):
        with pytest.raises(AccessDenied, match="may not do so any more"):
            services.devices.token(device, NAME)


@pytest.mark.parametrize("how", HOW)
def test_token_and_session_end_with_their_account_for_good(services, how):
    secret = token(services, "grace")
    cookie, by = session(services, "grace")
    services.members.set_member(ROOT, "digits", "grace", "owner")
    invited = services.invitations.create(caller(services, secret), Invite(project="digits")).secret
    services.identities.connect(by, MINE, NAME)
    end_account(services, "grace", how)
    assert services.tokens.caller(secret, NAME) is None
    assert services.sessions.caller(cookie, NAME) is None
    with pytest.raises((AccessDenied, NotFound)):
        services.invitations.look(invited, HERE)
    if how != "deleted":
        ended = {"tokens": 1, "sessions": 1, "invitations": 1, "identities": 1}
        assert next(one["after"].get("ended") for one in events(services, "user.change")) == ended
        assert all(services.records.count(SERVER, table) == 0 for table in ended if table != "identities")
    with pytest.raises(NotAuthenticated):
        services.identities.account(MINE)


def test_grant_that_is_written_while_its_account_is_disabled_does_not_come_back(services):
    """A token of the generation before is what a request that ran at the same moment would have written."""
    secret = token(services, "grace")
    (record,) = services.records.find(SERVER, "tokens")
    services.users.change(ROOT, "grace", UserChange(disabled=True))
    services.records.commit(SERVER, [Put("tokens", record.id, record.data)])
    services.users.change(ROOT, "grace", UserChange(disabled=False))
    services.tokens._known = None
    assert services.tokens.caller(secret, NAME) is None
    assert [one.ended for one in services.tokens.every(ROOT, Page())["items"]] == ["ended by a change of the account"]


def test_identity_signs_in_to_no_disabled_account_and_connects_by_a_session_that_is_valid(services):
    cookie, by = session(services, "grace")
    mine = Identity("https://sign-in.example.org", "s-grace", "grace")
    services.identities.connect(by, mine, NAME)
    services.sessions.end(cookie)
    with pytest.raises(NotAuthenticated, match="session has ended"):
        services.identities.connect(by, Identity("https://sign-in.example.org", "s-2", "grace"), NAME)
    assert services.identities.account(mine).data["name"] == "grace"
    services.users.change(ROOT, "grace", UserChange(disabled=True))
    with pytest.raises(NotAuthenticated):
        services.identities.account(mine)


def test_token_is_made_for_no_disabled_account(services):
    services.users.change(ROOT, "grace", UserChange(disabled=True))
    with pytest.raises(Conflict, match="'grace' is disabled"):
        token(services, "grace")


def test_session_that_a_token_began_ends_with_the_token(services):
    secret = token(services, "grace")
    cookie = services.sessions.open_by_token(caller(services, secret), HERE)
    assert services.sessions.caller(cookie, NAME).name == "grace"
    assert not services.sessions.caller(cookie, NAME).is_fresh, "a token proves nobody's presence"
    (record,) = services.records.find(SERVER, "tokens")
    services.tokens.revoke(ROOT, record.id)
    assert services.sessions.caller(cookie, NAME) is None


def test_session_of_the_operator_ends_when_the_token_of_the_server_is_replaced(services):
    services.sessions.operator_credential = own_credential("the token of the server")
    by = replace(ROOT, credential=own_credential("the token of the server"))
    cookie = services.sessions.open_by_token(by, HERE)
    assert services.sessions.caller(cookie, NAME).owner
    assert services.credentials.again(by, NAME) == by
    services.sessions.operator_credential = own_credential("another one, since the first had leaked")
    assert services.sessions.caller(cookie, NAME) is None


# -- invitations


@pytest.mark.parametrize("end", ["disabled", "lowered", "removed", "demoted", "old record"])
def test_invitation_ends_when_its_creator_loses_the_right(services, end):
    name = "ada" if end == "demoted" else "grace"
    if name == "grace":
        services.members.set_member(ROOT, "digits", "grace", "owner")
        services.members.set_member(ROOT, "digits", "ada", "owner")
    made = services.invitations.create(caller(services, token(services, name)), Invite(project="digits", role="owner"))
    assert services.invitations.look(made.secret, HERE).role == "owner"
    if end == "disabled":
        services.users.change(ROOT, "grace", UserChange(disabled=True))
    elif end == "lowered":
        services.members.set_member(ROOT, "digits", "grace", "maintainer")
    elif end == "removed":
        services.members.remove(ROOT, "digits", "grace")
    elif end == "demoted":
        services.users.change(ROOT, "ada", UserChange(admin=False))
    else:
        (record,) = services.records.find(SERVER, "invitations")
        data = {key: value for key, value in record.data.items() if key not in {"user", "generation"}}
        services.records.commit(SERVER, [Put("invitations", record.id, data)])
    for use in (
        lambda: services.invitations.look(made.secret, HERE),
        lambda: services.invitations.accept(made.secret, "eve", PASSWORD, HERE, NAME),
        lambda: services.invitations.accept_as(caller(services, token(services, "ada")), made.secret, HERE),
    ):
        with pytest.raises((AccessDenied, NotFound), match="invitation"):
            use()
    with pytest.raises(NotFound):
        services.users.find("eve")
    listed = [one.ended for one in services.invitations.of_project(ROOT, "digits")["items"]]
    assert listed == (["it names no account"] if end == "old record" else [])


TAKEN = {
    "role": (
        lambda services: services.members.set_member(ROOT, "digits", "grace", "owner"),
        lambda services: services.members.set_member(ROOT, "digits", "grace", "maintainer"),
    ),
    "membership": (
        lambda services: services.members.set_member(ROOT, "digits", "grace", "owner"),
        lambda services: services.members.remove(ROOT, "digits", "grace"),
    ),
    "group": (
        lambda services: services.members.set_group(ROOT, "team", ("ada", "grace")),
        lambda services: services.members.set_group(ROOT, "team", ("ada",)),
    ),
    "group removed": (
        lambda services: (
            services.members.set_group(ROOT, "team", ("grace",)),
            services.members.set_member(ROOT, "digits", "@team", "owner"),
        ),
        lambda services: services.members.remove_group(ROOT, "team"),
    ),
    "role of the group": (
        lambda services: services.members.set_member(ROOT, "digits", "@team", "owner"),
        lambda services: services.members.set_member(ROOT, "digits", "@team", "viewer"),
    ),
    "admin": (
        lambda services: services.users.change(ROOT, "grace", UserChange(admin=True)),
        lambda services: services.users.change(ROOT, "grace", UserChange(admin=False)),
    ),
    "account": (
        lambda services: (
            services.members.set_member(ROOT, "digits", "grace", "owner"),
            services.users.change(ROOT, "grace", UserChange(disabled=False)),
        ),
        lambda services: services.users.change(ROOT, "grace", UserChange(disabled=True)),
    ),
}


@pytest.mark.parametrize("way", TAKEN)
def test_invitation_and_webhook_stay_ended_when_their_creator_has_the_right_again(services, way):
    services.members.set_member(ROOT, "digits", "ada", "owner")
    if "group" in way:
        services.members.set_group(ROOT, "team", ("grace",))
        services.members.set_member(ROOT, "digits", "@team", "owner")
    give, take = TAKEN[way]
    give(services)
    grace = caller(services, token(services, "grace"))
    ours = services.invitations.create(caller(services, token(services, "ada")), Invite(project="digits", role="owner"))
    made = services.invitations.create(grace, Invite(project="digits", role="owner"))
    hook = services.webhooks.add(grace, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",))).id
    take(services)
    assert [one["what"] for one in events(services, "webhook.disable")] == ["digits: 127.0.0.1"]
    assert len(events(services, "invitation.end")) == (0 if way == "account" else 1)
    give(services)
    with pytest.raises(NotFound, match="revoked"):
        services.invitations.look(made.secret, HERE)
    services.catalog.create_model(ROOT, "digits", "mlp")
    assert services.webhooks.due() == []
    assert services.records.get(SERVER, "webhooks", hook).data["disabled"] is True
    assert services.invitations.look(ours.secret, HERE).by == "ada", "ada's stay"


def test_invitation_and_webhook_stay_while_their_creator_owns_the_project_in_another_way(services):
    services.members.set_group(ROOT, "team", ("grace",))
    services.members.set_member(ROOT, "digits", "@team", "owner")
    services.members.set_member(ROOT, "digits", "grace", "owner")
    grace = caller(services, token(services, "grace"))
    made = services.invitations.create(grace, Invite(project="digits", role="owner"))
    services.webhooks.add(grace, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",)))
    services.members.remove(ROOT, "digits", "grace")
    assert services.invitations.look(made.secret, HERE).by == "grace"
    assert not services.webhooks.of_project(ROOT, "digits")["items"][0].disabled


@pytest.mark.parametrize("noticed", ["use", "start"])
def test_invitation_that_an_earlier_release_kept_ends_when_it_is_noticed(services, noticed):
    services.members.set_member(ROOT, "digits", "grace", "owner")
    services.members.set_member(ROOT, "digits", "ada", "owner")
    grace = caller(services, token(services, "grace"))
    made = services.invitations.create(grace, Invite(project="digits", role="owner"))
    (member,) = (
        one
        for one in services.records.find(SERVER, "members")
        if one.data["subject"] == services.users.find("grace").id
    )
    services.records.commit(SERVER, [Put("members", member.id, {**member.data, "role": "viewer"})])
    if noticed == "start":
        services.end_grants_without_holder()
    else:
        with pytest.raises(AccessDenied, match="grace does not own"):
            services.invitations.look(made.secret, HERE)
    services.members.set_member(ROOT, "digits", "grace", "owner")
    with pytest.raises(NotFound, match="revoked"):
        services.invitations.look(made.secret, HERE)


def test_invitation_is_listed_and_revoked_by_owners_alone(services):
    made = services.invitations.create(ROOT, Invite(project="digits", role="maintainer", days=3))
    grace = caller(services, token(services, "grace"))
    services.members.set_member(ROOT, "digits", "grace", "maintainer")
    assert services.invitations.every(grace)["items"] == []
    with pytest.raises(AccessDenied):
        services.invitations.of_project(grace, "digits")
    with pytest.raises(NotFound, match="no invitation"):
        services.invitations.revoke(grace, made.id)
    services.members.set_member(ROOT, "digits", "grace", "owner")
    (listed,) = services.invitations.every(grace)["items"]
    assert (listed.id, listed.role, listed.by, listed.ended, listed.secret) == (made.id, "maintainer", NAME, "", "")
    services.invitations.revoke(grace, made.id)
    (told,) = events(services, "invitation.revoke")
    assert (told["who"], told["what"]) == ("grace", "digits as maintainer")
    with pytest.raises(NotFound, match="revoked"):
        services.invitations.look(made.secret, HERE)


# -- messages


@pytest.fixture
def grace(services):
    """A contributor of `digits`, who cannot see `priv`."""
    services.catalog.create_project(ROOT, "priv")
    services.members.set_member(ROOT, "digits", "grace", "contributor")
    return caller(services, token(services, "grace"))


def test_hint_names_no_hidden_project_and_gives_no_wrong_advice(services, grace):
    find = services.catalog.find_model
    for name in ("priv", "none"):  # a project that is hidden, and one that does not exist
        with pytest.raises(NotFound) as caught:
            find(grace, "digits", name)
        assert "is a project" not in caught.value.hint
        with pytest.raises(NotFound) as caught:
            services.catalog.find_project(grace, name)
        assert caught.value.hint == "there are digits, and `project/model` names a model of one"
    with pytest.raises(NotFound) as caught:
        find(grace, "default", "digits")
    there = "did you mean 'digits/'? 'digits/' is a project, and 'digits/model' a model of it"
    assert caught.value.hint == there
    for make in (
        services.catalog.find_or_create_project,
        lambda by, name: services.catalog.find_or_create(by, name, "m"),
    ):
        with pytest.raises(NotFound, match="no project 'priv'") as caught:
            make(grace, "priv")
        assert caught.value.hint == "the name is taken by a project that you cannot see: take another name"


def test_names_that_are_taken_or_missing_are_told(services, grace):
    """The exceptions that docs/team.md states."""
    with pytest.raises(AlreadyExists, match="there is a project 'Priv'"):
        services.catalog.create_project(grace, "Priv")
    services.catalog.create_project(grace, "own")
    services.members.set_member(grace, "own", "ada", "viewer")
    with pytest.raises(NotFound, match="no user 'adda'") as caught:
        services.members.set_member(grace, "own", "adda", "viewer")
    assert caught.value.hint == "did you mean 'ada'?"


def test_refusal_names_the_role_that_is_needed_in_plain_words(services, grace):
    with pytest.raises(AccessDenied, match="grace has no right to manage members and settings in 'digits'") as caught:
        access.require(grace, access.OWN, "digits")
    assert caught.value.hint == "that needs the role owner"
    with pytest.raises(AccessDenied, match="grace has no right to remove things or set rules in 'digits'") as caught:
        access.require(grace, access.MAINTAIN, "digits")
    assert caught.value.hint == "that needs the role maintainer"


# -- webhooks


@pytest.mark.parametrize("old", [False, True])
def test_webhook_sends_while_its_creator_owns_the_project(services, old):
    services.members.set_member(ROOT, "digits", "grace", "owner")
    services.members.set_member(ROOT, "digits", "ada", "owner")
    grace = caller(services, token(services, "grace"))
    id_ = services.webhooks.add(grace, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",))).id
    if old:  # a record of 9d7a6ec
        record = services.records.get(SERVER, "webhooks", id_)
        data = {key: value for key, value in record.data.items() if key != "user"}
        services.records.commit(SERVER, [Put("webhooks", id_, data)])
    services.catalog.create_model(ROOT, "digits", "mlp")
    assert [one.hook for one in services.webhooks.due()] == [id_]
    services.members.set_member(ROOT, "digits", "grace", "maintainer")
    assert services.webhooks.due() == []
    (shown,) = services.webhooks.of_project(ROOT, "digits")["items"]
    assert (shown.disabled, shown.error) == (
        True,
        "grace does not own the project any more; an owner can enable the webhook",
    )
    services.members.set_member(ROOT, "digits", "grace", "owner")
    assert services.webhooks.due() == [], "it has ended for good"
    services.webhooks.enable(caller(services, token(services, "ada")), "digits", id_)
    services.members.set_member(ROOT, "digits", "grace", "viewer")
    assert [one.hook for one in services.webhooks.due()] == [id_], "it is ada's now"


def test_webhook_of_an_older_release_without_an_account_waits_for_an_owner(services):
    id_ = services.webhooks.add(ROOT, "digits", NewWebhook(url="http://127.0.0.1:9/x", events=("model.",))).id
    services.catalog.create_model(ROOT, "digits", "mlp")
    assert [one.hook for one in services.webhooks.due()] == [id_]
    record = services.records.get(SERVER, "webhooks", id_)
    services.records.commit(SERVER, [Put("webhooks", id_, {k: v for k, v in record.data.items() if k != "user"})])
    assert services.webhooks.due() == []
    services.webhooks.enable(ROOT, "digits", id_)
    assert [one.hook for one in services.webhooks.due()] == [id_]


# -- limited tokens


LIMITED = [("read", ""), ("write", ""), ("read", "digits"), ("write", "digits"), ("admin", "digits")]


@pytest.mark.parametrize(("scope", "project"), LIMITED)
@pytest.mark.parametrize("name", ["ada", "grace", OPERATOR])
def test_limited_token_changes_no_account(services, scope, project, name):
    services.members.set_member(ROOT, "digits", "grace", "owner")
    services.catalog.create_project(ROOT, "other")
    services.members.set_member(ROOT, "other", "grace", "owner")
    kept = services.tokens.create(ROOT, MakeToken(name="kept", scope="admin", user="grace"))
    invited = services.invitations.create(ROOT, Invite(project="other")).secret
    theirs = "" if name == OPERATOR else name
    limited = caller(
        services, services.tokens.create(ROOT, MakeToken(name="l", scope=scope, project=project, user=theirs)).token
    )
    own = {"password": OTHER, "current_password": PASSWORD}
    code = services.devices.begin("laptop", HERE, "page")
    sso = Identity("https://sign-in.example.org", "s", "x")
    for use in (
        lambda: services.users.change(limited, theirs or "ada", UserChange(**own)),
        lambda: services.users.change(limited, "grace", UserChange(disabled=True)),
        lambda: services.users.change(limited, "grace", UserChange(admin=True, current_password=PASSWORD)),
        lambda: services.users.add(limited, NewUser(name="eve", password=PASSWORD)),
        lambda: services.users.every(limited, Page()),
        lambda: services.members.set_group(limited, "vision", ("grace",)),
        lambda: services.members.remove_group(limited, "vision"),
        lambda: services.tokens.every(limited, Page()),
        lambda: services.tokens.create(limited, MakeToken(name="more", scope="read")),
        lambda: services.tokens.revoke(limited, kept.id),
        lambda: services.devices.decide(limited, code.user_code, HERE, approve=True),
        lambda: services.sessions.end_all(limited),
        lambda: services.sessions.open_by_token(limited, HERE),
        lambda: services.identities.connect(limited, sso, NAME),
        lambda: services.identities.every(limited, Page()),
        lambda: services.identities.every(limited, Page(), "grace"),
        lambda: services.identities.disconnect(limited, connected(services, "grace"), ISSUER, PASSWORD),
        lambda: services.invitations.accept_as(limited, invited, HERE),
        lambda: services.members.remove(limited, "other", "grace"),
        lambda: services.invitations.create(limited, Invite(project="other")),
        lambda: services.invitations.revoke(limited, services.invitations.of_project(ROOT, "other")["items"][0].id),
        lambda: services.catalog.create_project(limited, "third") if project else access.require(limited, access.ADMIN),
    ):
        with pytest.raises((AccessDenied, NotFound, NotAuthenticated)):
            use()


def test_token_has_the_least_scope_when_none_is_named(services):
    grace = caller(services, token(services, "grace"))
    for by in (ROOT, grace):
        assert services.tokens.create(by, MakeToken(name="x")).scope == "read"
    assert list(SCOPES) == ["read", "write", "admin"]


# -- devices


@pytest.mark.parametrize(
    ("asked", "approved", "got"),
    [("write", "", "write"), ("read", "", "read"), ("write", "read", "read"), ("admin", "write", "write"),
     ("admin", "admin", "admin"), ("admin", "", None), ("write", "admin", None), ("read", "write", None),
     ("read", "all", None)],
)  # fmt: skip
def test_device_token_has_the_scope_that_was_approved(services, asked, approved, got):
    by = caller(services, token(services, "grace"))
    code = services.devices.begin("laptop", HERE, "page", asked)
    if got is None:
        with pytest.raises(InvalidArgument):
            services.devices.decide(by, code.user_code, HERE, approve=True, scope=approved)
        return
    assert services.devices.decide(by, code.user_code, HERE, approve=True, scope=approved).scope == got
    made = services.devices.token(code.device_code, NAME)
    assert (made.scope, caller(services, made.access_token).scope) == (got, got)
    with pytest.raises(InvalidArgument, match="no scope"):
        services.devices.begin("laptop", HERE, "page", "all")


def test_device_codes_of_one_address_leave_room_for_others(services, monkeypatch):
    monkeypatch.setattr(services.devices._begun, "_often", 10**6)
    for _ in range(20):
        services.devices.begin("laptop", HERE, "page")
    with pytest.raises(TooManyRequests):
        services.devices.begin("laptop", HERE, "page")
    services.devices.begin("laptop", THERE, "page")


# -- passwords


def test_password_is_changed_with_the_old_one_or_after_a_fresh_sign_in(services):
    by_token = caller(services, token(services, "grace"))
    _, stale = session(services, "grace", proof=False)
    for by in (by_token, stale):
        for given in ("", "a wrong password"):
            with pytest.raises(AccessDenied, match="current password"):
                services.users.change(by, "grace", UserChange(password=OTHER, current_password=given))
    services.users.change(stale, "grace", UserChange(password=OTHER, current_password=PASSWORD))
    services.users.change(ROOT, "grace", UserChange(password=PASSWORD))
    _, fresh = session(services, "grace")
    with pytest.raises(AccessDenied, match="does not match"):
        services.users.change(fresh, "grace", UserChange(password=OTHER, current_password="a wrong password"))
    services.users.change(fresh, "grace", UserChange(password=OTHER))
    assert services.passwords.verify("grace", OTHER) is not None


def test_admin_proves_itself_before_it_sets_a_password_or_makes_an_admin(services):
    by = caller(services, token(services, "ada"))
    for use in (
        lambda proof: services.users.change(by, "grace", UserChange(password=OTHER, current_password=proof)),
        lambda proof: services.users.change(by, "grace", UserChange(admin=True, current_password=proof)),
        lambda proof: services.users.add(by, NewUser(name="boss", admin=True, current_password=proof)),
        lambda proof: services.tokens.create(by, MakeToken(name="t", user="grace", current_password=proof)),
    ):
        with pytest.raises(AccessDenied, match="current password of 'ada'"):
            use("")
        use(PASSWORD)
    services.users.add(by, NewUser(name="robot"))
    services.tokens.create(by, MakeToken(name="t", user="robot"))  # a service account has nobody's password


def test_session_that_is_not_fresh_makes_tokens_with_the_password_alone(services):
    _, stale = session(services, "grace", proof=False)
    with pytest.raises(AccessDenied, match="current password"):
        services.tokens.create(stale, MakeToken(name="x"))
    assert services.tokens.create(stale, MakeToken(name="x", current_password=PASSWORD)).user == "grace"


@pytest.mark.parametrize("keep", [False, True])
def test_password_change_ends_tokens_and_sessions(services, keep):
    services.members.set_member(ROOT, "digits", "grace", "owner")
    secrets = [token(services, "grace") for _ in range(2)]
    invited = services.invitations.create(caller(services, secrets[0]), Invite(project="digits")).secret
    other, _ = session(services, "grace")
    mine, by = session(services, "grace")
    change = UserChange(password=OTHER, current_password=PASSWORD, keep_tokens=keep)
    ended = services.users.change(by, "grace", change).ended
    assert (ended.tokens, ended.sessions, ended.invitations) == ((0, 2, 0) if keep else (2, 2, 1))
    assert [services.tokens.caller(one, NAME) is not None for one in secrets] == [keep, keep]
    assert [services.sessions.caller(one, NAME) for one in (mine, other)] == [None, None]
    renewed = services.sessions.renew(by, HERE)
    assert services.sessions.caller(renewed, NAME).name == "grace"
    if keep:
        assert services.invitations.look(invited, HERE).by == "grace"
    else:
        with pytest.raises(NotFound):
            services.invitations.look(invited, HERE)
    told = events(services, "user.change")[-1]
    assert told["after"]["password"] == "changed"
    assert OTHER not in str(events(services, "user.change"))


# -- identities


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("who", ["grace", "operator"])
def test_password_change_disconnects_identities(services, who, keep):
    connected(services, "grace")
    before, by = session(services, "grace")
    change = UserChange(password=OTHER, current_password=PASSWORD, keep_identities=keep)
    ended = services.users.change(by if who == "grace" else ROOT, "grace", change).ended
    assert (ended.sessions, ended.identities) == (2, 0 if keep else 1)
    assert services.sessions.caller(before, NAME) is None
    found = services.identities.account(MINE)
    assert (found and found.data["name"]) == ("grace" if keep else None)
    assert services.identities.is_connected(services.users.find("grace").id) == keep
    assert events(services, "user.change")[-1]["after"]["ended"]["identities"] == (0 if keep else 1)


def test_password_change_keeps_tokens_and_identities_independently(services):
    connected(services, "grace")
    secret = token(services, "grace")
    services.users.change(ROOT, "grace", UserChange(password=OTHER, keep_tokens=True))
    assert services.tokens.caller(secret, NAME) is not None
    assert services.identities.account(MINE) is None
    connected_again = session_of(services, "grace", OTHER)
    services.identities.connect(connected_again, MINE, NAME)
    services.users.change(ROOT, "grace", UserChange(password=PASSWORD, keep_identities=True))
    assert services.tokens.caller(secret, NAME) is None
    assert services.identities.account(MINE).data["name"] == "grace"


def session_of(services, name, password):
    return roled(services, services.sessions.caller(services.sessions.begin(name, password, HERE), NAME))


def test_identity_that_is_connected_during_a_password_change_signs_nobody_in(services):
    """The record has the generation of the session that began to connect it."""
    connected(services, "grace")
    (record,) = services.records.find(SERVER, "identities")
    services.users.change(ROOT, "grace", UserChange(password=OTHER))
    services.records.commit(SERVER, [Put("identities", record.id, record.data)])
    with pytest.raises(NotAuthenticated, match="no longer connected"):
        services.identities.account(MINE)
    (listed,) = services.identities.every(ROOT, Page())["items"]
    assert (listed.user, listed.ended) == ("grace", "ended by a change of the account")
    services.users.change(ROOT, "grace", UserChange(password=PASSWORD, keep_identities=True))
    with pytest.raises(NotAuthenticated):  # nothing that has ended is kept
        services.identities.account(MINE)
    services.identities.connect(session_of(services, "grace", PASSWORD), MINE, NAME)
    assert services.identities.account(MINE).data["name"] == "grace"


def test_token_of_an_older_generation_is_not_kept_at_a_password_change(services):
    secret = token(services, "grace")
    (record,) = services.records.find(SERVER, "tokens")
    services.users.change(ROOT, "grace", UserChange(password=OTHER))
    services.records.commit(SERVER, [Put("tokens", record.id, record.data)])
    services.users.change(ROOT, "grace", UserChange(password=PASSWORD, keep_tokens=True))
    services.tokens._known = None
    assert services.tokens.caller(secret, NAME) is None


@pytest.mark.parametrize("change", [{}, {"password": OTHER}, {"password": OTHER, "keep_identities": True}])
def test_identity_of_a_disabled_account_signs_up_for_no_other_one(services, change):
    connected(services, "grace")
    ended = services.users.change(ROOT, "grace", UserChange(disabled=True)).ended
    assert ended.identities == 1
    if change:
        assert services.users.change(ROOT, "grace", UserChange(**change)).ended.identities == 0
    renamed = Identity(ISSUER, "s-grace", "another-name")
    with pytest.raises(NotAuthenticated, match="cannot sign in"):
        services.identities.account(renamed)
    _, by = session(services, "ada")
    with pytest.raises(Conflict, match="connected to an account already"):
        services.identities.connect(by, renamed, NAME)
    services.users.change(ROOT, "grace", UserChange(disabled=False))
    with pytest.raises(NotAuthenticated, match="no longer connected"):
        services.identities.account(renamed)
    (listed,) = services.identities.every(ROOT, Page(), "grace")["items"]
    services.identities.disconnect(ROOT, listed.id, ISSUER)
    assert sign_up(services, renamed).data["name"] == "another-name"


def test_identity_of_an_earlier_release_signs_in_and_ends_with_a_password_change(services):
    record = Put(
        "identities", MINE.id, {"user": services.users.find("grace").id, "issuer": ISSUER, "subject": "s-grace"}
    )
    services.records.commit(SERVER, [record])
    assert services.identities.account(MINE).data["name"] == "grace"
    (listed,) = services.identities.every(ROOT, Page())["items"]
    assert (listed.connected_at, listed.ended) == (None, "")
    services.users.change(ROOT, "grace", UserChange(password=OTHER))
    assert services.identities.account(MINE) is None


def test_identities_are_listed_to_their_account_and_to_admins(services):
    for name in ("ada", "grace"):
        connected(services, name)
    _, grace = session(services, "grace")
    _, ada = session(services, "ada")
    mine, every = services.identities.every(grace, Page()), services.identities.every(ada, Page(1))
    assert [(one.user, one.issuer, one.subject) for one in mine["items"]] == [("grace", ISSUER, "s-grace")]
    assert (len(every["items"]), every["next"], every["total"]) == (1, "1", 2)
    assert [one.user for one in services.identities.every(ada, Page(), "GRACE")["items"]] == ["grace"]
    with pytest.raises(AccessDenied):
        services.identities.every(grace, Page(), "ada")
    (hers,) = services.identities.every(ada, Page(), "ada")["items"]
    with pytest.raises(NotFound):
        services.identities.disconnect(grace, hers.id, ISSUER, PASSWORD)
    assert services.identities.account(Identity(ISSUER, "s-ada", "")).data["name"] == "ada"


@pytest.mark.parametrize("who", ["grace", "ada"])
def test_disconnect_needs_proof_and_ends_the_sessions_of_the_identity(services, who):
    id_ = connected(services, "grace")
    account = services.identities.account(MINE)
    theirs = services.sessions.open(account, HERE, "provider", MINE.id)
    by_password, _ = session(services, "grace")
    by = caller(services, token(services, who))
    for wrong in ("", "a wrong password"):
        with pytest.raises(AccessDenied, match="current password"):
            services.identities.disconnect(by, id_, ISSUER, wrong)
    assert services.sessions.caller(theirs, NAME).name == "grace"
    services.identities.disconnect(by, id_, ISSUER, PASSWORD)
    assert services.identities.account(MINE) is None
    assert services.sessions.caller(theirs, NAME) is None
    assert services.sessions.caller(by_password, NAME).name == "grace"
    told = events(services, "user.disconnect")[-1]
    assert (told["who"], told["what"]) == (who, "grace")
    assert told["before"] == {"id": id_, "issuer": ISSUER}
    with pytest.raises(NotFound):
        services.identities.disconnect(by, id_, ISSUER, PASSWORD)


def test_session_that_an_identity_begins_at_the_moment_of_its_end_grants_nothing(services):
    id_ = connected(services, "grace")
    account = services.identities.account(MINE)
    services.identities.disconnect(ROOT, id_, ISSUER)
    late = services.sessions.open(account, HERE, "provider", MINE.id)
    assert services.sessions.caller(late, NAME) is None


def test_account_without_a_password_keeps_its_last_identity(services):
    account = sign_up(services, Identity(ISSUER, "s-1", "noether"))
    secret = services.sessions.open(account, HERE, "provider", Identity(ISSUER, "s-1", "").id)
    by = roled(services, services.sessions.caller(secret, NAME))
    (first,) = services.identities.every(by, Page())["items"]
    services.identities.connect(by, Identity("https://other.example.org", "s-1", ""), NAME)
    with pytest.raises(Conflict, match="only way to sign in to 'noether'") as error:  # the other provider is not in use
        services.identities.disconnect(by, first.id, ISSUER)
    assert "set a password" in error.value.hint
    services.identities.connect(by, Identity(ISSUER, "s-2", ""), NAME)
    services.identities.disconnect(by, first.id, ISSUER)
    services.identities.connect(session_by(services, "s-2"), Identity(ISSUER, "s-3", ""), NAME)
    second = session_by(services, "s-2")
    services.users.change(second, "noether", UserChange(password=PASSWORD, keep_identities=True))
    for one in services.identities.every(ROOT, Page(), "noether")["items"]:
        services.identities.disconnect(session_of(services, "noether", PASSWORD), one.id, ISSUER)
    assert services.identities.every(ROOT, Page())["total"] == 0


def session_by(services, subject):
    identity = Identity(ISSUER, subject, "")
    secret = services.sessions.open(services.identities.account(identity), HERE, "provider", identity.id)
    return roled(services, services.sessions.caller(secret, NAME))


def test_admin_disconnects_the_last_identity_and_sets_a_password(services):
    sign_up(services, Identity(ISSUER, "s-1", "noether"))
    (only,) = services.identities.every(ROOT, Page(), "noether")["items"]
    _, ada = session(services, "ada")
    services.identities.disconnect(ada, only.id, ISSUER)
    assert services.identities.account(Identity(ISSUER, "s-1", "")) is None
    services.users.change(ROOT, "noether", UserChange(password=OTHER))
    assert session_of(services, "noether", OTHER).name == "noether"


def test_password_of_an_account_without_one_disconnects_its_identities(services):
    sign_up(services, Identity(ISSUER, "s-1", "noether"))
    assert services.users.change(ROOT, "noether", UserChange(password=OTHER)).ended.identities == 1
    assert services.identities.account(Identity(ISSUER, "s-1", "")) is None
    assert session_of(services, "noether", OTHER).name == "noether"


def test_two_requests_do_not_disconnect_the_last_two_identities(services, monkeypatch):
    account = sign_up(services, Identity(ISSUER, "s-1", "noether"))
    services.identities.connect(session_by(services, "s-1"), Identity(ISSUER, "s-2", ""), NAME)
    first, second = services.identities.every(ROOT, Page(), "noether")["items"]
    one, other = session_by(services, "s-1"), session_by(services, "s-2")
    commit, begun = type(services.records).commit, []

    def after_the_other(self, space, changes, told=(), **options):
        if not begun:
            begun.append(True)
            services.identities.disconnect(other, first.id, ISSUER)
        return commit(self, space, changes, told, **options)

    monkeypatch.setattr(type(services.records), "commit", after_the_other)
    with pytest.raises(Conflict, match="only way"):
        services.identities.disconnect(one, second.id, ISSUER)
    assert services.identities.is_connected(account.id)


def test_sign_up_and_connect_are_events(services):
    sign_up(services, Identity(ISSUER, "s-1", "noether"))
    connected(services, "grace")
    services.members.set_member(ROOT, "digits", "grace", "owner")
    invited = services.invitations.create(ROOT, Invite(project="digits")).secret
    services.identities.sign_up(Identity(ISSUER, "s-2", "hopper"), invited, HERE, NAME, free=False)
    told = [(one["who"], one["what"], one["after"]["issuer"]) for one in events(services, "user.connect")]
    assert told == [(name, name, ISSUER) for name in ("noether", "grace", "hopper")]


# -- failed logins


def test_wrong_passwords_delay_the_pair_and_lock_nobody(services):
    for _ in range(passwords.FREE):
        with pytest.raises(NotAuthenticated):
            services.sessions.begin("grace", "a wrong password", HERE)
    with pytest.raises(TooManyRequests) as error:
        services.sessions.begin("grace", PASSWORD, HERE)
    assert error.value.retry_after == 1
    assert services.sessions.begin("grace", PASSWORD, THERE), "the right password from another address works"
    assert services.sessions.begin("ada", PASSWORD, HERE), "another account from this address works"


def test_backoff_doubles_up_to_its_limit_and_forgets(monkeypatch):
    at = [1000.0]
    monkeypatch.setattr("lmvp_server.services.throttle.time.monotonic", lambda: at[0])
    backoff, delays = Backoff(5, 300.0, "wrong passwords"), []
    for _ in range(16):
        backoff.attempt("pair")
        try:
            backoff.attempt("pair")
            delays.append(0)
            at[0] += 0.001
        except TooManyRequests as error:
            delays.append(error.retry_after)
            at[0] += error.retry_after
    doubled = [delay for delay in delays if delay]
    assert doubled[:5] == [1, 2, 4, 8, 16]
    assert max(doubled) == doubled[-1] == 300
    at[0] += 601
    for _ in range(5):
        backoff.attempt("pair")
    with pytest.raises(TooManyRequests):
        backoff.attempt("pair")
    backoff.succeed("pair")
    backoff.attempt("pair")


def test_backoff_lets_no_attempts_pass_together():
    """Attempts that run at the same time count before they are checked."""
    backoff = Backoff(5, 300.0, "wrong passwords")
    for _ in range(5):
        backoff.attempt("pair")
    with pytest.raises(TooManyRequests):
        backoff.attempt("pair")


def test_address_has_a_budget_of_wrong_passwords_over_all_accounts(services, monkeypatch):
    monkeypatch.setattr(passwords, "_fits", lambda kept, given: given == PASSWORD)  # argon2 would take a minute here
    for number in range(passwords.BY_ADDRESS):
        with pytest.raises(NotAuthenticated):
            services.sessions.begin(f"name-{number}", "a wrong password", "2001:db8::1")
    with pytest.raises(TooManyRequests, match="from this address"):
        services.sessions.begin("another-name", "a wrong password", "2001:db8::1")
    with pytest.raises(TooManyRequests):
        services.sessions.begin("grace", PASSWORD, "2001:db8::2")  # a neighbour in the same network of one client
    assert services.sessions.begin("grace", PASSWORD, HERE)
    for _ in range(2 * passwords.BY_ADDRESS):
        services.passwords.login("grace", PASSWORD, THERE)  # logins that succeed take nothing from the budget


def test_failed_logins_are_events_with_a_count_and_without_growth(services, monkeypatch):
    monkeypatch.setattr(passwords, "_fits", lambda kept, given: given == PASSWORD)
    at = [0.0]
    services.passwords._failures._clock = lambda: at[0]
    fail = services.passwords._failures.add
    secret = "my password, typed into the wrong field"
    for _ in range(3):
        with pytest.raises(NotAuthenticated):
            services.sessions.begin("GRACE", "a wrong password", HERE)
    with pytest.raises(NotAuthenticated):
        services.sessions.begin(secret, "", HERE)
    told = [(one["who"], one["what"], one["after"]) for one in events(services, "session.fail")]
    assert told == [
        ("anonymous", "grace", {"from": HERE, "count": 1}),
        ("anonymous", "no such account", {"from": HERE, "count": 1}),
    ]
    assert secret not in str(services.records.events(SERVER))
    at[0] = 61.0
    fail("grace", HERE)
    assert events(services, "session.fail")[-1]["after"] == {"from": HERE, "count": 3}
    for minute in range(120):
        at[0] += 61.0
        for number in range(30):
            fail("", f"203.0.113.{(minute * 30 + number) % 250}")
    assert len(events(services, "session.fail")) <= 3 + 4 * passwords.PER_HOUR
    at[0] += 3700.0
    services.passwords.report()
    counted = sum(one["after"]["count"] for one in events(services, "session.fail"))
    assert counted <= 4 + 1 + 120 * 30
    assert len(services.passwords._failures._counts) <= 1001


def test_wrong_proof_delays_no_login_of_its_account(services):
    by = caller(services, token(services, "grace"))
    change = UserChange(password=OTHER, current_password="a wrong password")
    for _ in range(passwords.FREE):
        with pytest.raises(AccessDenied):
            services.users.change(by, "grace", change)
    with pytest.raises(TooManyRequests):
        services.users.change(by, "grace", change)
    assert services.sessions.begin("grace", PASSWORD, HERE), "a stolen token does not keep its owner out"
    assert "token:" not in str(events(services, "session.fail"))


# -- requests that are under way while the account changes


@pytest.mark.parametrize("change", [{"password": OTHER, "current_password": PASSWORD}, {"disabled": True}])
def test_ended_token_makes_no_token_that_lasts(services, change):
    """A caller that was known before the change of its account makes no grant after it."""
    known = caller(services, token(services, "grace"))
    services.users.change(ROOT, "grace", UserChange(**change))
    if change.get("disabled"):
        services.users.change(ROOT, "grace", UserChange(disabled=False))
    with pytest.raises(NotAuthenticated):
        services.tokens.create(known, MakeToken(name="late", scope="admin"))
    assert services.records.count(SERVER, "tokens") == 0


def test_wrong_passwords_are_counted_over_all_tokens_of_an_account(services):
    """A token that makes others does not begin anew with each; logins by the owner are not delayed by it."""
    stolen = caller(services, token(services, "grace"))
    refused = 0
    for number in range(3):
        made = services.tokens.create(stolen, MakeToken(name=f"n{number}", scope="admin"))
        by = caller(services, made.token)
        for _ in range(passwords.FREE):
            wrong = UserChange(password=OTHER, current_password="not the password")
            with pytest.raises((AccessDenied, TooManyRequests)) as error:
                services.users.change(by, "grace", wrong)
            refused += error.type is TooManyRequests
    assert refused >= 2 * passwords.FREE
    assert services.sessions.begin("grace", PASSWORD, HERE)


def test_token_for_one_project_lists_no_groups(services):
    services.members.set_group(ROOT, "team", ("grace",))
    services.members.set_member(ROOT, "digits", "grace", "owner")
    limited = caller(services, token(services, "grace", project="digits"))
    with pytest.raises(AccessDenied, match="token for one project"):
        services.members.groups(limited)
    assert services.members.groups(caller(services, token(services, "grace")))["total"] == 1
