"""Login to a server with a given token, a stored token, or a device code that a user approves (RFC 8628)."""

from __future__ import annotations

import time
from collections.abc import Callable

from lmvp import config
from lmvp.connection import Address, own_connection
from lmvp.core.environment import environment, user
from lmvp.core.schemas import (
    AskCode,
    AskToken,
    DeviceCode,
    DeviceToken,
)
from lmvp.errors import AuthorizationPending, ExpiredCode, NotAuthenticated, NotFound, SlowDown

_SLOWER = 5
"""Seconds to add to the polling interval after the error `slow_down` (RFC 8628, section 3.5)."""

Say = Callable[[str], object]


def sign_in(url: str, token: str | None = None, *, scope: str = "", say: Say = print) -> str:
    """Log in to a server, and store it as the server in use; see `lmvp.login`.

    The token is stored in a file that only this user can read. It is never printed. Ctrl-C interrupts the wait for an
    approval.

    Parameters
    ----------
    url : str
        The URL of the server, for example `https://models.example.org`.
    token : str, optional
        An existing token.
    scope : {"", "read", "write", "admin"}, default ""
        The scope of a new token. Empty: use the stored token if there is one, otherwise request scope `write`.
    say : callable
        Shows the link and the code to the user. Default: `print`.

    Returns
    -------
    str
        The URL in its normal form.

    Raises
    ------
    NotAuthenticated
        If the server does not accept the token.
    AccessDenied
        If a user denied the login.
    ExpiredCode
        If no user approved the code in time.
    """
    plain = config.check_url(url)
    # An invalid given token is an error. An invalid stored token is replaced by a new one.
    kept = token or (None if scope else config.token_for(plain))
    if kept and (token or _is_known(plain, kept)):
        _check(plain, kept)
        return config.login(plain, kept)
    return config.login(plain, by_code(plain, say, scope or "write"))


def by_code(url: str, say: Say, scope: str) -> str:
    """Request a device code, show it, and wait for the approval; return the new token."""
    connection = own_connection(Address(url, ""))
    asked = AskCode(client_name=f"{user() or 'somebody'}@{environment()['host']}", scope=scope)
    try:
        code = connection.send_json("POST", "/device/code", asked, DeviceCode)
    except NotFound:
        hint = (
            "its operator finds a token in the file `token` of its data folder; `lmvp login URL --with-token` takes it"
        )
        raise NotAuthenticated(f"the server at {url} has no login by a code", hint=hint) from None
    minutes = code.expires_in // 60
    say(
        f"Open {code.verification_uri_complete}\nand approve the code {code.user_code}. Waiting for {minutes} minutes …"
    )
    issued = _wait(
        lambda: connection.send_json("POST", "/device/token", AskToken(device_code=code.device_code), DeviceToken), code
    )
    if issued.scope and issued.scope != scope:
        say(f"The token has the scope {issued.scope}: the user who approved the code chose it instead of {scope}.")
    return issued.access_token


def _wait(ask: Callable[[], DeviceToken], code: DeviceCode) -> DeviceToken:
    interval, ends = code.interval, time.monotonic() + code.expires_in
    while time.monotonic() < ends:
        time.sleep(interval)
        try:
            return ask()
        except SlowDown:
            interval += _SLOWER
        except AuthorizationPending:
            continue
    raise ExpiredCode(f"nobody approved {code.user_code} in time", hint="begin again")


def _is_known(url: str, token: str) -> bool:
    try:
        _check(url, token)
    except NotAuthenticated:
        return False
    return True


def _check(url: str, token: str) -> None:
    """Send a small request, so that an invalid token is reported at the login and not at the first push."""
    from lmvp.client.models import Client

    Client(url, token).projects()
