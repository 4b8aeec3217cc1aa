"""Accounts, on the services without HTTP: holders of grants, what ends with an account, messages."""

import logging
import re
from dataclasses import replace

import pytest
from support.accounts import HERE, HOW, MINE, NAME, OTHER, PASSWORD, ROOT, caller, end_account, events, session, token

from lmvp.core.schemas import (
    Invite,
    MakeToken,
    NewUser,
    UserChange,
)
from lmvp.errors import (
    AccessDenied,
    AlreadyExists,
    NotAuthenticated,
    NotFound,
)
from lmvp_server.services import access
from lmvp_server.services.access import OPERATOR, Caller
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.paging import Page
from lmvp_server.services.sessions import own_credential
from lmvp_server.stores.base import Put


@pytest.mark.parametrize("user", [None, "", "missing", "u0000000000000000", 0, False, [], {}])
@pytest.mark.parametrize("table", ["tokens", "sessions"])
def test_record_without_a_holder_grants_nothing(services, table, user):
    if table == "tokens":
        secret = services.tokens.create(ROOT, MakeToken(name="ci", scope="admin")).token
    else:
        secret = services.sessions.open_by_token(ROOT, HERE)
    find = services.tokens.caller if table == "tokens" else services.sessions.caller
    assert find(secret, NAME).is_operator
    (record,) = services.records.find(SERVER, table)
    data = {key: value for key, value in record.data.items() if key != "user"}
    services.records.commit(SERVER, [Put(table, record.id, data if user == "missing" else {**data, "user": user})])
    assert find(secret, NAME) is None


def test_operator_is_an_identity_that_no_account_can_have(services):
    services.users.add(ROOT, NewUser(name=OPERATOR, password=PASSWORD))
    assert re.fullmatch("u[0-9a-f]{16}", services.users.find(OPERATOR).id)
    found = caller(services, token(services, OPERATOR))
    assert (found.is_operator, found.may(access.ADMIN), found.everything) == (False, False, False)
    for wrong in ({"user": OPERATOR}, {"user": "u1", "is_operator": True}, {"scope": "all"}):
        with pytest.raises(ValueError, match=r"operator|scope"):
            Caller("x", **{"scope": "admin", **wrong})
    with pytest.raises(TypeError):
        Caller("x", is_operator=True)
    with pytest.raises(NotAuthenticated):
        _ = Caller("anonymous", scope="read").holder


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
    assert services.sessions.caller(cookie, NAME).is_operator
    assert services.credentials.again(by, NAME) == by
    services.sessions.operator_credential = own_credential("another one, since the first had leaked")
    assert services.sessions.caller(cookie, NAME) is None


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


def test_hint_names_no_account_that_the_caller_may_not_see(services, grace):
    services.catalog.create_project(grace, "own")
    for change in (
        lambda by: services.members.set_member(by, "own", "adda", "viewer"),
        lambda by: services.members.remove(by, "own", "adda"),
    ):
        with pytest.raises(NotFound, match="no user 'adda'") as caught:
            change(grace)
        assert "'ada'" not in caught.value.hint
        with pytest.raises(NotFound) as caught:
            change(ROOT)
        assert caught.value.hint == "did you mean 'ada'?", "admins see all accounts"
    services.members.set_group(ROOT, "vision", ("ada",))
    with pytest.raises(NotFound) as caught:
        services.members.set_member(grace, "own", "adda", "viewer")
    assert caught.value.hint == "did you mean 'ada'?", "every account sees groups"


def test_refusal_names_the_role_that_is_needed_in_plain_words(services, grace):
    with pytest.raises(AccessDenied, match="grace has no right to manage members and settings in 'digits'") as caught:
        access.require(grace, access.OWN, "digits")
    assert caught.value.hint == "that needs the role owner"
    with pytest.raises(AccessDenied, match="grace has no right to remove things or set rules in 'digits'") as caught:
        access.require(grace, access.MAINTAIN, "digits")
    assert caught.value.hint == "that needs the role maintainer"


def test_token_of_an_older_generation_is_not_kept_at_a_password_change(services):
    secret = token(services, "grace")
    (record,) = services.records.find(SERVER, "tokens")
    services.users.change(ROOT, "grace", UserChange(password=OTHER))
    services.records.commit(SERVER, [Put("tokens", record.id, record.data)])
    services.users.change(ROOT, "grace", UserChange(password=PASSWORD, keep_tokens=True))
    services.tokens._known = None
    assert services.tokens.caller(secret, NAME) is None
