"""Verbs for logins, tokens, OpenID identities and device codes."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lmvp import config
from lmvp.cli.tables import Line, Status, Table
from lmvp.client.login import sign_in
from lmvp.client.models import Client
from lmvp.core.sanitize import one_line, short
from lmvp.errors import InvalidArgument, NotAuthenticated, ProofRequired

if TYPE_CHECKING:
    from lmvp.cli.verbs import Host
    from lmvp.core.schemas import TokenRecord

T = TypeVar("T")


def login(options: Namespace, host: Host) -> Any:
    """Log in to a server and make it the current server."""
    url = config.check_url(options.url)
    # A script can pipe a token in without `--with-token`. A stored token is used first, and the pipe is not read.
    if options.with_token or (host.pipes and not options.scope and config.token_for(url) is None):
        try:
            token = host.ask_token(url)
            if options.with_token and not token.strip():
                hint = f"pipe the token into `lmvp login {url} --with-token`"
                raise InvalidArgument("standard input has no token", hint=hint)
            sign_in(url, token)
        except NotAuthenticated as error:
            # The user passed a wrong token: the hint states where to find a valid one.
            hint = "the operator of the server finds it in the file `token` of its data folder"
            raise NotAuthenticated(error.message, hint=hint) from None
    else:
        sign_in(url, scope=options.scope)
    return Status.now()


def logout(options: Namespace, _host: Host) -> Any:
    """Delete the stored token of a server."""
    removed = config.logout(options.url)
    return Line("deleted the stored token" if removed else "no stored token to delete")


def tokens(options: Namespace, host: Host) -> Any:
    """List, create or revoke tokens."""
    client = Client()
    if options.what == "create":
        if not options.name:
            raise InvalidArgument("a token needs a name", hint="`lmvp tokens create ada-laptop`")
        check_secret(host)
        fields = {"scope": options.scope, "project": options.project, "user": options.user}
        made = with_proof(
            lambda password: client.create_token(options.name, options.days, **fields, current_password=password), host
        )
        message = f"(scope {made.scope}, shown this once; `lmvp tokens revoke {made.id}` revokes it)"
        return Line(f"{made.token}\n{message}", made, essential=True)
    if options.what == "revoke":
        if not options.name:
            raise InvalidArgument("which token?", hint="`lmvp tokens` lists them, `lmvp tokens revoke ID` revokes one")
        client.revoke_token(options.name)
        return Line(f"the token {options.name} is revoked")
    records = client.tokens()
    rows = [(token.id, token.name, _owner(token), f"{token.scope} {token.project}".strip(),
             day(token.created_at), day(token.expires_at, "never"), day(token.used_at, "not yet"))
            for token in records]  # fmt: skip
    head = ("Id", "Name", "Of", "Scope", "Made", "Expires", "Used last (UTC)")
    return Table(head, rows, empty="no tokens but the server's own", data=records)


def identities(options: Namespace, host: Host) -> Any:
    """List or disconnect the OpenID identities of an account."""
    client = Client()
    if options.what == "disconnect":
        if not options.id:
            raise InvalidArgument(
                "identity id missing",
                hint="`lmvp identities` lists them, `lmvp identities disconnect ID` disconnects one",
            )
        with_proof(lambda password: client.disconnect_identity(options.id, current_password=password), host)
        return Line(f"the identity {options.id} is disconnected, and the sessions that it began have ended")
    records = client.identities(options.user)
    rows = [(identity.id, identity.user, identity.issuer, short(identity.subject),
             day(identity.connected_at, "unknown"), identity.ended or "signs in")
            for identity in records]  # fmt: skip
    head = ("Id", "Account", "Provider", "Subject", "Connected (UTC)", "Status")
    return Table(head, rows, empty="no identities; connect one on the account page of the console", data=records)


def devices(options: Namespace, host: Host) -> Any:
    """Approve or deny a login with a device code."""
    client, approve = Client(), options.what == "approve"
    done = with_proof(
        lambda password: client.decide_device(
            options.code, approve=approve, scope=options.scope, current_password=password
        ),
        host,
    )
    word = f"has a token of scope {done.scope or 'admin'} now" if done.approved else "gets no token"
    return Line(one_line(f"{done.client_name}, at {done.address}, {word}"), done)


def _owner(token: TokenRecord) -> str:
    """Return the account of a token, with the reason if the token no longer works."""
    owner = token.user or ("nobody" if token.ended else "the server's operator")
    return f"{owner} (ended: {token.ended})" if token.ended else owner


def check_secret(host: Host) -> None:
    """Check that a secret may be printed or typed here.

    Raises
    ------
    InvalidArgument
        In a notebook, which saves the output of its cells.
    """
    if host.is_saved:
        raise InvalidArgument(
            "a notebook is saved with its output, and this verb prints or reads a secret", hint="run it in a terminal"
        )


def with_proof(change: Callable[[str], T], host: Host) -> T:
    """Run a change that can require the current password, and prompt for it only if the server requires it.

    Parameters
    ----------
    change : callable
        Takes the current password. It is called with an empty password first, and again after the prompt.

    Returns
    -------
    object
        The result of `change`.

    Raises
    ------
    ProofRequired
        In a notebook, which cannot ask for a password.
    """
    try:
        return change("")
    except ProofRequired as error:
        if host.is_saved:
            raise ProofRequired(error.message, hint="run it in a terminal, which asks for the password") from None
        return change(ask_password("your current password: "))


_NO_ARGUMENT = "type it, or pipe it in; it is no argument of the command"


def ask_password(prompt: str, hint: str = _NO_ARGUMENT) -> str:
    """Prompt for a password without echo, or read one line from a pipe.

    Raises
    ------
    InvalidArgument
        If the password is empty.
    """
    if not sys.stdin.isatty():
        given = sys.stdin.readline().rstrip("\r\n")
    else:
        from getpass import getpass

        given = getpass(prompt)
    if not given:
        raise InvalidArgument("no password was given", hint=hint)
    return given


def day(at: Any, otherwise: str = "") -> str:
    """Format a time to the minute; return `otherwise` if the time is missing."""
    return f"{at:%Y-%m-%d %H:%M}" if at else otherwise
