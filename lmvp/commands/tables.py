"""What small verbs return: tables and the status, as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lmvp import config


@dataclass(frozen=True)
class Table:
    """Rows of texts under a head.

    Examples
    --------
    >>> Table(("Model", "Latest"), [("mlp", "v3")], empty="")
    Model  Latest
    mlp    v3
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str

    def __repr__(self) -> str:
        if not self.rows:
            return self.empty
        lines = [self.head, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{escape(self.empty)}</p>"
        head = "".join(f'<th style="text-align:left">{escape(cell)}</th>' for cell in self.head)
        rows = ("".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Status(Table):
    """Where am I: server, user, project."""

    @classmethod
    def now(cls) -> Status:
        """Return the status of this process, without starting anything."""
        from lmvp.environment import user

        rows = [("server", _server()), ("user", user()), ("project", config.current_project())]
        return cls(("LMVP", ""), rows, empty="")


def _server() -> str:
    url = config.server_url()
    if url is not None:
        return url if config.token_for(url) else f"{url} (no token: lmvp login {url})"
    from lmvp import local

    home = config.data_home()
    found = local.find(home)
    return f"{found.url}, this machine's, in {home}" if found else f"this machine's, in {home}; the next call starts it"
