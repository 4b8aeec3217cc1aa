"""Identities of a sign-in provider, on the services without HTTP: how they are connected, and when they end."""

import pytest
from support.accounts import (
    HERE,
    ISSUER,
    MINE,
    NAME,
    OTHER,
    PASSWORD,
    ROOT,
    caller,
    connected,
    events,
    roled,
    session,
    session_by,
    session_of,
    sign_up,
    token,
)

from lmvp.core.schemas import Invite, UserChange
from lmvp.errors import (
    AccessDenied,
    Conflict,
    NotAuthenticated,
    NotFound,
)
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.identities import Identity
from lmvp_server.services.paging import Page
from lmvp_server.stores.base import Put


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


@pytest.mark.parametrize(("signed_in_by", "refusal"), [("s-2", Conflict), ("s-1", NotAuthenticated)])
def test_two_requests_do_not_disconnect_the_last_two_identities(services, monkeypatch, signed_in_by, refusal):
    """The other request removes the identity `s-1`, and with it the sessions that this identity began."""
    account = sign_up(services, Identity(ISSUER, "s-1", "noether"))
    services.identities.connect(session_by(services, "s-1"), Identity(ISSUER, "s-2", ""), NAME)
    found = services.identities.every(ROOT, Page(), "noether")["items"]
    first, second = sorted(found, key=lambda identity: identity.subject)
    one, other = session_by(services, signed_in_by), session_by(services, "s-2")
    commit, begun = type(services.records).commit, []

    def after_the_other(self, space, changes, told=(), **options):
        if not begun:
            begun.append(True)
            services.identities.disconnect(other, first.id, ISSUER)
        return commit(self, space, changes, told, **options)

    monkeypatch.setattr(type(services.records), "commit", after_the_other)
    with pytest.raises(refusal):
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
