"""Device codes, on the services without HTTP: what they grant, and when they end."""

from functools import partial

import pytest
from support.accounts import HERE, HOW, NAME, PASSWORD, ROOT, THERE, approve, caller, end_account, session, token

from lmvp.errors import (
    AccessDenied,
    AuthorizationPending,
    InvalidArgument,
    ProofRequired,
    TooManyRequests,
)
from lmvp_server.services.catalog import SERVER


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


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_approval_in_an_old_session_needs_the_password(services, scope):
    _, by = session(services, "grace", proof=False)
    code = services.devices.begin("laptop", HERE, "page", scope)
    decide = partial(services.devices.decide, by, code.user_code, HERE, scope=scope)
    for wrong in ("", "a wrong password"):
        with pytest.raises(ProofRequired, match="current password"):
            decide(approve=True, password=wrong)
        with pytest.raises(AuthorizationPending):
            services.devices.token(code.device_code, NAME)
        services.devices._grants[code.user_code.replace("-", "")].asked = 0.0  # the client asks again at its time
    assert decide(approve=True, password=PASSWORD).scope == scope
    assert services.devices.token(code.device_code, NAME).scope == scope


def test_approval_in_a_new_session_and_by_a_token_needs_no_password(services):
    _, fresh = session(services, "grace")
    for by in (fresh, caller(services, token(services, "grace")), ROOT):
        assert services.devices.token(approve(services, by), NAME).scope == "write"


def test_denial_in_an_old_session_needs_no_password(services):
    _, by = session(services, "grace", proof=False)
    code = services.devices.begin("laptop", HERE, "page", "admin")
    assert not services.devices.decide(by, code.user_code, HERE, approve=False).approved
    with pytest.raises(AccessDenied, match="denied"):
        services.devices.token(code.device_code, NAME)
