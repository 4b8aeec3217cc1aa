"""Tokens, on the services without HTTP: scopes, limits, holders."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.accounts import HERE, ISSUER, NAME, OTHER, PASSWORD, ROOT, approve, caller, connected, session, token

from lmvp.core.schemas import (
    Invite,
    MakeToken,
    NewUser,
    UserChange,
)
from lmvp.errors import (
    AccessDenied,
    Conflict,
    NotAuthenticated,
    NotFound,
)
from lmvp_server.services import access, tokens
from lmvp_server.services.access import OPERATOR, SCOPES
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.identities import Identity
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Put


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


def test_token_is_made_for_no_disabled_account(services):
    services.users.change(ROOT, "grace", UserChange(disabled=True))
    with pytest.raises(Conflict, match="'grace' is disabled"):
        token(services, "grace")


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


def test_session_that_is_not_fresh_makes_tokens_with_the_password_alone(services):
    _, stale = session(services, "grace", proof=False)
    with pytest.raises(AccessDenied, match="current password"):
        services.tokens.create(stale, MakeToken(name="x"))
    assert services.tokens.create(stale, MakeToken(name="x", current_password=PASSWORD)).user == "grace"


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


def test_token_for_one_project_lists_no_groups(services):
    services.members.set_group(ROOT, "team", ("grace",))
    services.members.set_member(ROOT, "digits", "grace", "owner")
    limited = caller(services, token(services, "grace", project="digits"))
    with pytest.raises(AccessDenied, match="token for one project"):
        services.members.groups(limited)
    assert services.members.groups(caller(services, token(services, "grace")))["total"] == 1


def test_account_has_a_limited_number_of_tokens(services, monkeypatch):
    monkeypatch.setattr(tokens, "LIMIT", 5)
    by = caller(services, token(services, "grace"))
    made = [services.tokens.create(by, MakeToken(name=f"t{at}")) for at in range(4)]
    for create in (
        lambda: services.tokens.create(by, MakeToken(name="one more")),
        lambda: token(services, "grace"),
        lambda: services.devices.token(approve(services, by), NAME),
    ):
        with pytest.raises(Conflict, match="'grace' has 5 tokens"):
            create()
    assert token(services, "ada"), "other accounts have tokens of their own"
    record = services.records.get(SERVER, "tokens", made[0].id)
    past = {**record.data, "expires_at": "2026-01-01T00:00:00+00:00"}
    services.records.commit(SERVER, [Put("tokens", record.id, past)])
    assert services.tokens.create(by, MakeToken(name="in the place of an expired one")).token
    assert services.records.get(SERVER, "tokens", made[0].id) is None
    services.tokens.revoke(by, made[1].id)
    assert services.tokens.create(by, MakeToken(name="in the place of a revoked one")).token
    with pytest.raises(Conflict):
        services.tokens.create(by, MakeToken(name="one more"))


def test_token_that_is_made_is_found_without_reading_all(services, monkeypatch):
    by = caller(services, token(services, "grace"))
    asked, find = [], services.records.find

    def counted(space, table, where=None, **more):
        if table == "tokens" and where is None:
            asked.append(table)
        return find(space, table, where, **more)

    monkeypatch.setattr(services.records, "find", counted)
    made = [services.tokens.create(by, MakeToken(name=f"t{at}")) for at in range(20)]
    assert all(services.tokens.caller(one.token, NAME).name == "grace" for one in made)
    services.tokens.revoke(by, made[0].id)
    assert services.tokens.caller(made[0].token, NAME) is None
    assert services.tokens.caller(made[1].token, NAME).name == "grace"
    assert asked == []


def test_tokens_that_are_made_at_the_same_time_are_all_found(services):
    by = caller(services, token(services, "grace"))
    services.tokens._known = None

    def make(at):
        return services.tokens.create(by, MakeToken(name=f"t{at}")).token

    with ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(make, range(40)))
    assert all(services.tokens.caller(one, NAME) for one in secrets)
