"""Getting a token for a server: given, kept, or by a code that somebody with a token approves (RFC 8628)."""

from __future__ import annotations

import time
from collections.abc import Callable

from lmvp import config
from lmvp.base_client import own_connection
from lmvp.connection import Address
from lmvp.environment import environment, user
from lmvp.errors import AuthorizationPending, ExpiredCode, NotAuthenticated, NotFound, SlowDown
from lmvp.records import AskCode, AskToken, DeviceCode, DeviceToken

_SLOWER = 5

Say = Callable[[str], object]


def sign_in(url: str, token: str | None = None, *, scope: str = "", say: Say = print) -> str:
    """Make a server the one in use, and get a token for it.

    Without a token, given or stored, this shows a link and a code, and waits until a user of the server approves;
    Ctrl-C ends that. The token is stored in a file that only this user reads, and shown nowhere.

    Parameters
    ----------
    url : str
        `https://models.example.org`.
    token : str, optional
        A token that exists already.
    scope : str
        The scope of a new token: `read`, `write` or `admin`. Empty: the stored token if there is one, otherwise a new
        one of scope `write`.
    say : callable
        Shows the link and the code to the user.

    Returns
    -------
    str
        The URL as it was stored.

    Raises
    ------
    NotAuthenticated
        If the server does not know the token.
    AccessDenied, ExpiredCode
        If the login was denied, or nobody decided about it in time.
    """
    plain = config.check_url(url)
    kept = token or (None if scope else config.token_for(plain))
    if kept and (token or _is_known(plain, kept)):
        _check(plain, kept)
        return config.login(plain, kept)
    return config.login(plain, by_code(plain, say, scope or "write"))


def by_code(url: str, say: Say, scope: str) -> str:
    """Return a token that a user of the server approves while this waits."""
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
    return _wait(
        lambda: connection.send_json("POST", "/device/token", AskToken(device_code=code.device_code), DeviceToken), code
    )


def _wait(ask: Callable[[], DeviceToken], code: DeviceCode) -> str:
    interval, ends = code.interval, time.monotonic() + code.expires_in
    while time.monotonic() < ends:
        time.sleep(interval)
        try:
            return ask().access_token
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
    """Ask for something small: a wrong token is said now, not at the first push."""
    from lmvp.client import Client

    Client(url, token).projects()
