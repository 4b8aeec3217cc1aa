"""Passwords, on the services without HTTP: changes, proofs, failed logins and their delays."""

import pytest
from support.accounts import HERE, NAME, OTHER, PASSWORD, ROOT, THERE, caller, events, session, token

from lmvp.core.schemas import (
    Invite,
    MakeToken,
    NewUser,
    UserChange,
)
from lmvp.errors import (
    AccessDenied,
    NotAuthenticated,
    NotFound,
    TooManyRequests,
)
from lmvp_server.services import passwords
from lmvp_server.services.catalog import SERVER
from lmvp_server.services.rate_limit import Backoff


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
    monkeypatch.setattr("lmvp_server.services.rate_limit.time.monotonic", lambda: at[0])
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
