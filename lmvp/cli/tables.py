"""Result types of verbs: tables, messages and the status. Each has a text form and an HTML form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from lmvp import config, hints
from lmvp.core.sanitize import clean, printable
from lmvp.errors import LmvpError, ServerUnavailable

_PATIENCE = 2.0
"""Seconds to wait for the name of the account. `lmvp status` must not hang if the server is unreachable."""


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes
    ----------
    head : sequence of str
        The heads of the columns.
    rows : sequence of sequence of str
    empty : str
        The message that replaces a table without rows.
    right : frozenset of int
        The indexes of the columns with numbers, which are aligned to the right.
    note : str
        A line below the table.
    data : object, optional
        The records behind the rows, which `--json` prints; without it, `--json` prints the rows.

    Examples
    --------
    >>> Table(("Model", "Latest"), [("mlp", "v3")], empty="")
    Model  Latest
    mlp    v3
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str
    right: frozenset[int] = frozenset()
    note: str = ""
    data: Any = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        if not self.rows:
            return printable(hints.translated(self.empty))
        lines = [self.head, *([clean(cell) for cell in row] for row in self.rows)]  # cells hold text from other users
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        table = [self._text_row(line, widths) for line in lines]
        return printable(hints.translated("\n".join([*table, *([self.note] if self.note else [])])))

    def _text_row(self, row: Sequence[str], widths: Sequence[int]) -> str:
        sides = (str.rjust if column in self.right else str.ljust for column in range(len(row)))
        return "  ".join(side(cell, wide) for side, cell, wide in zip(sides, row, widths, strict=True)).rstrip()

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{escape(hints.translated(self.empty))}</p>"
        from lmvp.views import _html

        rows = [[escape(hints.translated(clean(word))) for word in row] for row in self.rows]
        note = f"<p>{escape(hints.translated(self.note))}</p>" if self.note else ""
        return _html.table([escape(word) for word in self.head], rows, sorted(self.right), names=[0]) + note


class Line(str):
    """The message of a verb. Its repr has no quotes, so that a notebook shows it like a shell.

    Attributes
    ----------
    data : object
        The record that `--json` prints; None: `--json` prints the text as `message`.
    essential : bool
        Whether `--quiet` prints the message too: a token or a link that the server shows only once.

    Examples
    --------
    >>> Line("3 versions removed")
    3 versions removed
    """

    data: Any
    essential: bool

    def __new__(cls, text: str, data: Any = None, *, essential: bool = False) -> Line:
        """Create a message with its record."""
        made = super().__new__(cls, text)
        made.data, made.essential = data, essential
        return made

    def __repr__(self) -> str:
        return printable(hints.translated(str(self)))


@dataclass(frozen=True, repr=False)
class Status(Table):
    """The current server, user, project and run, and the number of runs with unsent data.

    Attributes
    ----------
    trouble : ServerUnavailable or None
        The error if the server does not answer. `lmvp status` then ends with its exit code.
    """

    trouble: ServerUnavailable | None = field(default=None, repr=False, compare=False)

    @classmethod
    def now(cls) -> Status:
        """Return the status of this process. It does not start the local server."""
        server, console, user, trouble = _server()
        rows = [("server", server), ("console", console), ("user", user), ("project", config.current_project())]
        rows += _runs()
        return cls(("LMVP", ""), rows, empty="", data=dict(rows), trouble=trouble)


def _runs() -> list[tuple[str, str]]:
    """Return the active run of this process, and the number of runs of this machine that have unsent data."""
    from lmvp.tracking import active_runs, unsent

    active, waiting = active_runs.active(), unsent.waiting()
    rows = [("run", f"{active.project}/{active.name}")] if active else []
    return [*rows, ("waiting", f"{waiting} runs; `lmvp sync` delivers them")] if waiting else rows


def _account(url: str, token: str) -> str:
    """Return the account of the token at a server; the reason if the server refuses the request.

    Raises
    ------
    ServerUnavailable
        If the server does not answer.
    """
    from lmvp.connection import Address, Connection
    from lmvp.core.environment import user
    from lmvp.core.schemas import User

    connection = Connection(lambda: Address(url, token))
    try:
        if token:
            return connection.once("GET", "/me", User, timeout=_PATIENCE).name
        connection.once("GET", "/health", dict, timeout=_PATIENCE)
    except ServerUnavailable:
        raise
    except LmvpError as error:  # the status shows the reason in place of the account
        return str(error).partition("\n")[0]
    return user()


def _server() -> tuple[str, str, str, ServerUnavailable | None]:
    """Return the current server, the address of its console, the user, and the error if the server does not answer."""
    from lmvp.core.environment import user

    url = config.server_url()
    if url is not None:
        token = config.token_for(url) or ""
        try:
            account = _account(url, token)
        except ServerUnavailable:
            hint = "start it, or select another server: `lmvp login URL`"
            trouble = ServerUnavailable(f"the server at {url} does not answer", hint=hint)
            return f"{url} (does not answer)", f"{url}/", "unknown" if token else user(), trouble
        if token:
            return url, f"{url}/ (`lmvp open` opens it signed in)", account, None
        return f"{url} (no token; `lmvp login {url}` gets one)", f"{url}/", account, None
    from lmvp import local

    home = config.data_home()
    try:
        found = local.find(home)
    except ServerUnavailable as error:
        return str(error).partition("\n")[0], "", user(), error
    if found is None:
        where = f"this machine's, in {home}; the next call starts it"
        return where, "`lmvp open` starts the server and opens it", user(), None
    return f"{found.url}, this machine's, in {home}", f"{found.url}/ (`lmvp open` opens it signed in)", user(), None
