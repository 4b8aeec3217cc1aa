"""Result types of verbs: tables, messages and the status. Each has a text form and an HTML form."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import PurePath
from typing import Any

import msgspec

from lmvp import config, hints
from lmvp.core import server_file
from lmvp.core.sanitize import clean, printable
from lmvp.core.schemas import encode_float
from lmvp.errors import LmvpError, ServerUnavailable
from lmvp.views.curves import Curves, ModelCurves
from lmvp.views.history import History
from lmvp.views.runs import Run, Runs

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
        from lmvp.core.html_tables import table

        rows = [[escape(hints.translated(clean(word))) for word in row] for row in self.rows]
        note = f"<p>{escape(hints.translated(self.note))}</p>" if self.note else ""
        return table([escape(word) for word in self.head], rows, sorted(self.right), names=[0]) + note


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
    from lmvp.tracking import active_run, unsent

    active, waiting = active_run.active(), unsent.waiting()
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

    home = server_file.data_home()
    try:
        server = local.find(home)
    except ServerUnavailable as error:
        return str(error).partition("\n")[0], "", user(), error
    if server is None:
        where = f"this machine's, in {home}; the next call starts it"
        return where, "`lmvp open` starts the server and opens it", user(), None
    return f"{server.url}, this machine's, in {home}", f"{server.url}/ (`lmvp open` opens it signed in)", user(), None


# -- JSON


_NOT_A_KEY = re.compile("[^a-z0-9]+")


def to_json(value: Any) -> str:
    """Return the result of a verb as indented JSON.

    A table without records becomes a list of objects whose keys are the column heads in lower case.

    Examples
    --------
    >>> print(to_json(Table(("Model", "Used (UTC)"), [("mlp", "never")], empty="")))
    [
      {
        "model": "mlp",
        "used_utc": "never"
      }
    ]
    >>> print(to_json(Line("3 versions removed")))
    {
      "message": "3 versions removed"
    }
    """
    return msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2).decode()


def _plain(value: Any) -> Any:
    """Convert a value to dicts, lists, strings, numbers and times."""
    if isinstance(value, Line):
        return {"message": str(value)} if value.data is None else _plain(value.data)
    if isinstance(value, Table):
        return [_row_object(value.head, row) for row in value.rows] if value.data is None else _plain(value.data)
    if isinstance(value, Run):
        return _plain(value.record)
    if isinstance(value, Curves):
        fields = {"runs": _plain(value.runs), "curves": [_curve(value, line) for line in value.lines]}
        if isinstance(value, ModelCurves):
            versions = {version.reference: version for history, _ in value.charts for version in history}
            fields["versions"] = _plain(list(versions.values()))
        return fields
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Fields with `repr=False` are callbacks or internal state of the client, not data.
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, History | Runs | list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return encode_float(value)
    if isinstance(value, str | int | bool | datetime | None):
        return value
    return str(value) if isinstance(value, PurePath) else repr(value)


def _row_object(head: Any, row: Any) -> dict[str, str]:
    """Return a table row as an object: the head "Used (UTC)" becomes the key `used_utc`."""
    keys = [_NOT_A_KEY.sub("_", name.lower()).strip("_") for name in head]
    return dict(zip(keys, row, strict=True))


def _curve(curves: Curves, line: Any) -> dict[str, Any]:
    """Return a curve with its run, metric, steps, values and times."""
    points = {"steps": line.steps, "values": line.values, "times": line.times}
    return {"run": curves.runs[line.run].id, "key": line.key, **{key: _plain(list(of)) for key, of in points.items()}}
